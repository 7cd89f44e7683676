"""One HTML file of texts, tables of provenance, data, a script and plotly.js, which is packed to a third of its size.

The page forbids itself to load anything (its Content-Security-Policy). Names are escaped wherever they stand: as text of HTML, in
the JSON of the data, and, by the script, where plotly reads markup.
"""

import base64
import gzip
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from contrasim_cli.names import quoted
from contrasim_cli.report.conclusions import RULES
from contrasim_cli.report.heat_maps import HeatMap
from contrasim_cli.report.html import contents
from contrasim_cli.report.results import Results, ScoreRow

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)
READING = (
    "A square frames the layer that is most similar to that of its row, a diamond those that tie for it; no frame stands in rows "
    "of nearly identical scores. A cross marks scores that do not clear their null (see the rules). "
    "◂ null on a scale is what shuffled rows score, the median over the cells. "
    "Bright is similar; ↓ marks measures of which lower is more similar. Depth is the place among all layers of a store, in %. "
    "Point at a cell for its numbers, which stand in the cells where they fit; drag to zoom, double-click to return. The square "
    "before a measure's name has the colour of its curves and bars."
)
CALIBRATED = (
    "The calibrated score of a learned measure is 0 for unrelated rows and 1 for a layer with itself: report that one. Its raw "
    "score has no unit, but finds matching layers. Frames are therefore by the raw score, whichever is shown, and a frame may "
    "stand beside the largest calibrated score of its row."
)
CHARTS = "Whiskers are 95 % intervals, the dotted line is chance; a red cross is a measure that is undefined."
CURVES = (
    "Double-click a chart of lines to see the range of the lines alone, without the levels of shuffled rows and chance; "
    "double-click again for the whole range."
)
CEILINGS = (
    " Dash-dotted lines are the lower and the upper noise ceiling of the second store's layers, means over it and its repeats; "
    "scores are with the second store alone, not averaged over the repeats."
)
SCALES = {
    "shared": "one scale for measures of one range",
    "measure": "a scale per measure",
    "panel": "a scale per panel",
}
VALUES = {"calibrated": "calibrated scores", "score": "raw scores"}
LINES = {"measure": "self-similarity beside", "stores": "measures side by side"}
MOST_BESIDE = 3  # measures up to which each has a line of its own, unless it is chosen otherwise
DRAWN_LATER = (
    "Charts are drawn once the page is loaded. A picture of the page that is taken by a program has to wait for them (chromium: "
    "--virtual-time-budget=10000)."
)
LABELS = {"name": "names", "depth": "depth in %", "index": "index"}


def html(results: Results, grids: Sequence[HeatMap] = ()) -> str:
    """The page of results whose names are printable."""
    shown = contents.of(results, grids)
    about = results.about
    title = results.title or _title(results)
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="soft">{_text(_subtitle(results))}</p>',
        '<p id="failed" class="failed" hidden></p>',
        '<noscript><p class="failed">The figures and the table need JavaScript; texts and provenance do not.</p></noscript>',
        f'<div class="follows"><ul>{_items(shown.sentences)}</ul></div>',
        _notes(about),
        f'<p class="soft">These sentences are made from the numbers by <a href="#rules">stated rules</a>. {_text(shown.note)}</p>',
        _figures(results, shown.data),
        "<h2>Table</h2>",
        _table_controls(results),
        '<div id="table"></div>',
        "<h2>What was compared, and how</h2>",
        _provenance(about),
        '<h2 id="rules">Rules of the sentences</h2>',
        f"<ul>{_items(RULES)}</ul>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>\n{_file('page.css')}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n"
        f'<script type="application/json" id="results">{_json(shown.data)}</script>\n'
        f"{_plotly()}\n<script>\n{_file('page.js')}</script>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Anything as text of HTML, in one line."""
    return escape(quoted(value))


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{_text(line)}</li>" for line in lines)


def _notes(about: dict[str, Any]) -> str:
    """What the run noted and warned of."""
    notes = about.get("notes", [])
    return f'<p>While it ran, contrasim said:</p><ul class="notes">{_items(notes)}</ul>' if notes else ""


def _file(name: str) -> str:
    return resources.files("contrasim_cli.report.html").joinpath(name).read_text(encoding="utf-8")


def _json(data: Any) -> str:
    """JSON that ends no script and begins no comment, whatever names are in it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # in ASCII
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _plotly() -> str:
    """plotly.js of the package plotly, with its notice of copyright."""
    code = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    version = re.search(rb"plotly\.js v([\w.-]+)", code[:400])
    notice = f"plotly.js {version[1].decode() if version else ''}, copyright Plotly, Inc., MIT License: https://github.com/plotly/plotly.js"
    packed = base64.b64encode(gzip.compress(code, 9, mtime=0)).decode()
    return f'<!-- {notice} -->\n<script type="text/plain" id="plotly">{packed}</script>'


def _title(results: Results) -> str:
    names = list(results.layers)
    if results.kind is ScoreRow:
        shown = names[:3] + ([f"{len(names) - 3} more"] if len(names) > 3 else [])
        return f"How similar are {' and '.join([', '.join(shown[:-1]), shown[-1]]) if len(shown) > 1 else 'these representations'}?"
    return "Which measure to trust?"


def _subtitle(results: Results) -> str:
    about = results.about
    versions = about.get("versions", {})
    parts = [
        f"contrasim {versions.get('contrasim', '')} {results.command}".replace("  ", " "),
        f"{about['rows']} rows" if "rows" in about else "",
        f"{len(about.get('inputs', []))} stores",
        str(about.get("date", "")),
    ]
    return " · ".join(part for part in parts if part)


def _figures(results: Results, data: dict[str, Any]) -> str:
    of_scores = results.kind is ScoreRow
    parts = []
    if data["maps"]:
        pair = '<label>stores <select id="pair"></select></label>' if len(data["pairs"]) > 1 else ""
        controls = f"{pair}{_choices(data['maps'])}{_select('colours', 'scale', SCALES)}{_select('layers as', 'labels', LABELS)}"
        calibrated = f'<p class="soft">{_text(CALIBRATED)}</p>' if _has_calibrated(data["maps"]) else ""
        parts += [
            f"<h2>{'Heat maps' if of_scores else 'Mean similarity of layers over pairs of models'}</h2>",
            f'<div class="controls">{controls}</div>',
            f'<div id="maps"><p class="soft">{_text(DRAWN_LATER)}</p></div>',
            f'<p class="soft">{_text(READING)}</p>',
            calibrated,
        ]
    if data["curves"]:
        note = "" if of_scores else f'<p class="soft">{_text(CHARTS)}</p>'
        parts += [f"<h2>{'Along the depth' if of_scores else 'Accuracy'}</h2>", note]
        text = CURVES + CEILINGS * any(line.get("ceilings") for one in data["curves"] for line in one["lines"])
        zoom = f'<p class="soft">{_text(text)}</p>' if any("bars" not in one for one in data["curves"]) else ""
        later = "" if data["maps"] else f'<p class="soft">{_text(DRAWN_LATER)}</p>'
        parts += [f'<div id="curves" class="panels curves">{later}</div>', zoom]
    return "\n".join(parts)


def _has_calibrated(maps: list[dict[str, Any]]) -> bool:
    return any(one["calibrated_limits"] for one in maps)


def _choices(maps: list[dict[str, Any]]) -> str:
    """What else can be chosen of maps: calibrated scores where there are any, and what stands in one line."""
    measures = {one["measure"] for one in maps}
    sides = {(one["down"], one["across"]) for one in maps}
    lines = dict(sorted(LINES.items(), reverse=len(measures) > MOST_BESIDE))  # the default first
    values = _select("values", "values", VALUES) if _has_calibrated(maps) else ""
    return values + (_select("a line has", "lines", lines) if len(measures) > 1 and len(sides) > 1 else "")


def _select(label: str, name: str, options: dict[str, str]) -> str:
    choices = "".join(f'<option value="{value}">{_text(shown)}</option>' for value, shown in options.items())
    return f'<label>{label} <select id="{name}">{choices}</select></label>'


def _table_controls(results: Results) -> str:
    best = (
        '<label><input type="checkbox" id="best" checked> best matches only</label>' if results.kind is ScoreRow else ""
    )
    return (
        f'<div class="controls filter"><label>rows that contain <input id="filter" type="search"></label>{best}</div>'
    )


# --- provenance -------------------------------------------------------------------------------------------------------

FACTS = ("kind", "model", "model arguments", "data", "unit", "pooling", "created", "contrasim_version", "ids")
KNOWN = ("argv", "date", "notes", "inputs", "rows", "widths", "versions", "digests", "sources")


def _provenance(about: dict[str, Any]) -> str:
    """The command, the stores, and all settings."""
    command = shlex.join(map(str, about.get("argv", [])))
    versions = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    lines = [("command", command), ("date", about.get("date", "")), ("versions", versions)]
    lines += [
        (name, _value(value)) for name, value in about.items() if name not in KNOWN and value not in (None, "", {}, [])
    ]
    settings = "".join(
        f"<tr><th>{_text(name)}</th><td><code>{_text(value)}</code></td></tr>" for name, value in lines if value
    )
    digests = "".join(
        f"<tr><td>{_text(path)}</td><td><code>{_text(digest or 'not known: above 8 GiB')}</code></td></tr>"
        for path, digest in about.get("digests", {}).items()
    )
    return (
        f'<div class="scroll">{_stores(about)}</div>\n<h3>Settings</h3>\n<div class="scroll"><table>{settings}</table></div>\n'
        f'<h3>Digests (SHA-256)</h3>\n<div class="scroll"><table>{digests}</table></div>'
    )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _stores(about: dict[str, Any]) -> str:
    """A line per store: where it is from, its layers and their widths."""
    sources = about.get("sources", {})
    widths = about.get("widths", [])

    def known_of(path: str) -> dict[str, Any]:
        """What is known of a store, with the arguments that made its model."""
        known = sources.get(path, {})
        arguments = known.get("provenance", {}).get("model_arguments")
        return {**known, "model arguments": _value(arguments)} if arguments else known

    facts = [name for name in FACTS if any(known_of(path).get(name) for path in sources)]
    head = "".join(f"<th>{_text(name)}</th>" for name in ("store", "rows", "layers", "widths", *facts))
    lines = []
    for k, path in enumerate(about.get("inputs", [])):
        known = known_of(path)
        own = list(widths[k].values()) if k < len(widths) else []
        span = "" if not own else str(own[0]) if len(set(own)) == 1 else f"{min(own)} to {max(own)}"
        cells = [
            path,
            known.get("rows", about.get("rows", "")),
            len(own) or "",
            span,
            *(known.get(name, "") for name in facts),
        ]
        lines.append(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
