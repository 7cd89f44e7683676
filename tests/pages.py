"""Results for pages: grids of chosen size and names, and a benchmark; and Chromium, to look at pages with."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np

from contrasim_cli.report.results import BenchRow, Results, ScoreRow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WATCH = """<script>
window.seen = { errors: [], blocked: [] };
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => seen.blocked.push(event.blockedURI || event.violatedDirective));
for (const name of ["error", "warn"]) console[name] = (...words) => seen.errors.push(words.join(" "));
</script>"""
ASK = """<script>
addEventListener("load", async () => {
  while (!document.body.dataset.drawn) await new Promise((done) => setTimeout(done, 50));
  await new Promise((done) => setTimeout(done, 300));
  const answer = { drawn: document.body.dataset.drawn };
  try { ACT } catch (error) { seen.errors.push("the test: " + error.message); }
  answer.errors = seen.errors; answer.blocked = seen.blocked;
  answer.loaded = performance.getEntriesByType("resource").map((one) => one.name).filter((name) => !/^(data|blob):/.test(name));
  const place = document.createElement("pre");
  place.id = "answer"; place.textContent = JSON.stringify(answer);
  document.body.append(place);
});
</script>"""


def grid(
    sizes: tuple[int, int] = (6, 6),
    measures: tuple[str, ...] = ("cka",),
    stores: tuple[str, ...] = ("a", "b"),
    name: str = "layer_{}",
    **more: Any,
) -> Results:
    """Scores that are highest on the diagonal, of every pair of stores, and of every store with itself."""
    layers = {store: [name.replace("{}", str(k)) for k in range(sizes[min(s, 1)])] for s, store in enumerate(stores)}

    def scores(first: str, second: str) -> list[ScoreRow]:
        return [
            ScoreRow(measure, first, a, second, b, 1 / (1 + abs(i / len(layers[first]) - j / len(layers[second]))))
            for measure in measures
            for i, a in enumerate(layers[first])
            for j, b in enumerate(layers[second])
        ]

    rows = [row for k, first in enumerate(stores) for second in stores[k + 1 :] for row in scores(first, second)]
    within = [row for store in stores for row in scores(store, store)]
    about = {
        "argv": ["contrasim", "baseline", *(f"{store}.h5" for store in stores)],
        "date": "2026-01-02T03:04:05+00:00",
        "inputs": [f"{store}.h5" for store in stores],
        "rows": 100,
        "widths": [dict.fromkeys(layers[store], 32) for store in stores],
        "versions": {"contrasim": "0.0"},
        "digests": {f"{store}.h5": "0" * 64 for store in stores},
        "sources": {f"{store}.h5": {"kind": "contrasim store", "model": f"model {store}"} for store in stores},
    }
    return Results("baseline", ScoreRow, rows, about, within=within, layers=layers, **more)


def bench(accuracies: dict[str, tuple[float | None, float, float]], trials: int = 60, name: str = "l{}") -> Results:
    """One accuracy with its interval per measure, the same in every layer and overall."""
    rows = [
        BenchRow("layers", measure, "", "all", layer, value, 0.1, low, high, 0.25, trials, None, None)
        for measure, (value, low, high) in accuracies.items()
        for layer in (*(name.replace("{}", str(k)) for k in range(4)), "all")
    ]
    return Results("bench", BenchRow, rows, {"rows": 100, "inputs": ["a.h5", "b.h5"]})


def scripts(page: str) -> dict[str, str]:
    """The texts of the scripts of a page that have an id."""
    return dict(re.findall(r'<script [^>]*id="(\w+)">(.*?)</script>', page, re.DOTALL))


def data_of(page: str) -> dict[str, Any]:
    """The data of a page's figures."""
    found: dict[str, Any] = json.loads(scripts(page)["results"])
    return found


def visible(page: str) -> str:
    """What a reader sees of a page without its figures."""
    body = re.sub(r"<(script|style|title)\b.*?</\1>|<!--.*?-->", " ", page, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", " ", body))


def asked(page: str, folder: Path, act: str = "", width: int = 1300, height: int = 4000) -> dict[str, Any]:
    """What a browser answers that has drawn a page and then acted on it: `act` is a script that fills `answer`."""
    assert CHROMIUM is not None
    watched = page.replace("<title>", WATCH + "<title>", 1).replace("</body>", ASK.replace("ACT", act) + "</body>", 1)
    path = folder / "watched.html"
    path.write_text(watched)
    for _ in range(3):  # a busy machine may end the browser's time before it has drawn
        dom = chromium("--dump-dom", f"--window-size={width},{height}", path.as_uri())
        answer = re.search(r'<pre id="answer">(.*?)</pre>', dom, re.DOTALL)
        if answer is not None:
            break
    assert answer is not None, dom[-2000:]
    found: dict[str, Any] = json.loads(unescape(answer[1]))
    return found


def chromium(*options: str) -> str:
    """Run a browser without a screen."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout


def diagonal(values: list[float]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """A matrix with these values on its diagonal, and 0.5 elsewhere."""
    matrix = np.full((len(values), len(values)), 0.5)
    np.fill_diagonal(matrix, values)
    return matrix
