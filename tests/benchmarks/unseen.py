"""What a learned measure says of models that it was not trained on: layer prediction, retrieval and controls, on a zoo.

Run: python tests/benchmarks/unseen.py --text FILE [--text FILE] [--models 12] [--train 5] [--steps 700] [--folder unseen_study]
     [--architecture bert|gpt2]
     [--measures …] [--seeds 1] [--only zoo|layers|retrieval|controls] [--kinds …]

Trains small language models that differ in their seeds, and one narrower and one wider (`zoo.py`), on the text's words, unless
the folder holds them already; activations of words (`contrasim extract`) of sentences that the models did not learn from, and of
documentation of Python's standard library, another domain. Encoders are trained by `contrasim train` on the first models and the
wide one, with raw and with anchored rows, and judged by `contrasim bench layers` on every ordered pair of the others, the narrow
one among them; anchors come from the sentences that encoders are trained on. Controls: rows of one side shuffled, and what single
features give. Retrieval: `--task pairs` on three models of one width, `bench multilingual` on two others and those of other widths.
"""

import argparse
import contextlib
import csv
import dataclasses
import io
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import h5py
import numpy as np
import numpy.typing as npt
import zoo

from contrasim_cli.anchors import Anchoring, anchoring
from contrasim_cli.cli import main as contrasim
from contrasim_cli.store import View
from contrasim_cli.training import job

ROWS = {"train": 6000, "test": 3000, "other": 3000}
MEASURES = (
    "cka", "cka_debiased", "pwcca", "svcca", "procrustes", "aligned_cosine", "linear_regression", "rsa", "distance_correlation",
    "mutual_knn", "second_order_cosine", "eigenspace_overlap", "gulp",
)  # fmt: skip


Matrix = npt.NDArray[Any]
OTHERS = ("narrow", "wide")  # models of other widths


class Failed(Exception):
    """A command that failed, with what it said."""


def run(*arguments: object) -> str:
    """One contrasim command; what it prints."""
    said, notes = io.StringIO(), io.StringIO()
    line = ["contrasim", *map(str, arguments), "-q"]
    try:
        with mock.patch("sys.argv", line), contextlib.redirect_stdout(said), contextlib.redirect_stderr(notes):
            contrasim()
    except SystemExit as stop:
        if stop.code:
            raise Failed(notes.getvalue().strip()) from stop
    return said.getvalue()


@dataclass(frozen=True)
class Study:
    """The folder of a study, its models in order, and how many of them encoders are trained on."""

    folder: Path
    models: Sequence[str]
    trained: int
    measures: Sequence[str]
    seeds: int
    kinds: Sequence[str]

    def stores(self, data: str, models: Iterable[str]) -> list[Path]:
        """Stores of some models on one data set."""
        return [self.folder / "acts" / data / f"{name}.h5" for name in models]

    @property
    def seen(self) -> Sequence[str]:
        """The models that encoders are trained on: one of another width is among them."""
        return [*self.models[: self.trained], "wide"]

    @property
    def unseen(self) -> Sequence[str]:
        """The others."""
        return [name for name in self.models[self.trained :] if name != "wide"]

    def anchors(self, models: Iterable[str]) -> list[object]:
        """Options that take the anchors of these models from the sentences of training."""
        return list(itertools.chain.from_iterable(("--anchor-store", path) for path in self.stores("train", models)))


# --- models and activations ---------------------------------------------------------------------------------------------


def make_zoo(study: Study, text: Sequence[Path], kinds: Sequence[zoo.Kind], steps: int) -> None:
    """Train and extract what is not there yet."""
    learned, others = zoo.halves(text)
    pool = iter(zoo.sentences(others))
    rows = {name: zoo.words_of(ROWS[name], pool) for name in ("train", "test")}
    rows["other"] = zoo.words_of(ROWS["other"], iter(zoo.docstrings(frozenset(zoo.vocabulary(learned)))))
    for data, sentences in rows.items():
        (study.folder / "acts" / data).mkdir(parents=True, exist_ok=True)
        path = study.folder / f"{data}.txt"
        if not path.exists():
            path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    for kind in kinds:
        model = study.folder / "zoo" / kind.name
        if not (model / "tokenizer.json").exists():
            started = time.process_time()
            loss, frequencies = zoo.train(kind, learned, model, steps)
            spent = time.process_time() - started
            print(
                f"{kind.name}: loss {loss:.3f}, of word frequencies {frequencies:.3f}, {spent:.0f} s of CPU", flush=True
            )
        for data in rows:
            (path,) = study.stores(data, [kind.name])
            if not path.exists():
                run("extract", "--model", model, "--text", study.folder / f"{data}.txt", "--unit", "word", "-o", path)


# --- layer prediction ---------------------------------------------------------------------------------------------------


def trained(study: Study, name: str, stores: Sequence[Path], *options: object) -> list[Path]:
    """Encoders of these options, one per seed, trained unless they are there."""
    found = []
    for seed in range(study.seeds):
        path = study.folder / f"{name}-{len(stores)}-{seed}.pt"
        if not path.exists():
            run("train", *stores, *options, "--seed", seed, "-o", path, "--resume")
        found.append(path)
    return found


def accuracies(study: Study, data: str, models: Sequence[str], *options: object) -> dict[str, float]:
    """Layer prediction by measure over every ordered pair of these models, in %."""
    table = run("bench", "layers", *study.stores(data, models), "--pairs", "all", "--format", "tsv", *options)
    rows = csv.DictReader(io.StringIO(table), delimiter="\t")
    return {
        r["measure"]: 100 * float(r["accuracy"]) for r in rows if r["pair"] == r["layer"] == "all" and r["accuracy"]
    }


def encoded(study: Study, data: str, models: Sequence[str], encoders: Sequence[Path], anchored: bool) -> float:
    """The mean accuracy of encoders over seeds."""
    options = itertools.chain.from_iterable(("--encoder", path) for path in encoders)
    found = accuracies(study, data, models, *options, *(study.anchors(models) if anchored else ()))
    return float(np.mean(list(found.values())))


def features(*names: str) -> list[object]:
    """Options for encoders of these alone."""
    return list(itertools.chain.from_iterable(("--anchor-feature", name) for name in names))


def by_farthest_point(rows: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """Each anchor the row that is farthest from those before it."""
    chosen = [int(rng.integers(len(rows)))]
    distance = np.square(rows - rows[chosen[0]]).sum(axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(rows - rows[chosen[-1]]).sum(axis=1))
    return np.array(chosen)


def by_medoids(rows: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """The rows that are nearest to the means of so many clusters."""
    means = faiss.Kmeans(rows.shape[1], count, niter=10, seed=int(rng.integers(1 << 30)))
    means.train(rows)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    found = dict.fromkeys(index.search(means.centroids, 1)[1][:, 0].tolist())
    rest = [k for k in rng.permutation(len(rows)).tolist() if k not in found]
    return np.array([*found, *rest][:count])


@contextlib.contextmanager
def anchors_chosen(choose: Callable[[Matrix, int, np.random.Generator], Matrix] | None) -> Iterator[None]:
    """While it lasts, anchors are chosen by the middle layer of the first model, not drawn."""

    def draw(
        views: Sequence[View], count: int, seed: int, features: tuple[str, ...], components: int = 0
    ) -> tuple[Anchoring, Matrix]:
        drawn, _ = anchoring.draw(views, count, seed, features, components)
        store = views[0].store
        rows = views[0].read(list(store.layers)[len(store.layers) // 2])
        assert choose is not None
        assert store.ids is not None
        chosen = np.sort(choose(rows, count, np.random.default_rng(seed)))
        ids = tuple(store.ids.read(int(k), int(k) + 1)[0] for k in chosen)
        return dataclasses.replace(drawn, ids=ids), chosen

    with mock.patch.object(job, "draw", draw) if choose else contextlib.nullcontext():
        yield


PER_ROW = ("cosines", "quantiles", "whitened", "peaks", "whitened_quantiles", "norms", "neighbours")
KINDS: dict[str, list[object]] = {
    "raw": [],
    "anchors": [],
    "rows alone": features(*PER_ROW),
    "cosines alone": features("cosines"),
    "layers alone": features("profile", "spectrum"),
    "whatever the anchors' order": features("quantiles", "whitened_quantiles", "norms", "neighbours", "spectrum"),
    "all components": ["--anchor-components", 0],
    "24 components": ["--anchor-components", 24],
    "64 anchors": ["--anchors", 64],
    "256 anchors": ["--anchors", 256],
    "by farthest point": [],
    "by medoids": [],
    "no copies": ["--copies", 0],
    "three copies": ["--copies", 3],
}
CHOICES = {"by farthest point": by_farthest_point, "by medoids": by_medoids}


def layers(study: Study) -> None:
    """Raw rows, anchored rows of several kinds, and closed forms."""
    stores = study.stores("train", study.seen)
    same = [name for name in study.unseen if name not in OTHERS]
    groups = {"seen": study.seen, "unseen": study.unseen, "unseen, same width": same}
    print(
        f"\nlayer prediction, %, every ordered pair; trained on {' '.join(study.seen)}, unseen: {' '.join(study.unseen)}"
    )
    print("| measure | " + " | ".join(f"{data}: {group}" for data in ("test", "other") for group in groups) + " |")
    for name in study.kinds:
        options = KINDS[name]
        inputs = [] if name == "raw" else ["--inputs", "anchors"]
        file = "".join(letter if letter.isalnum() else "_" for letter in name)
        with anchors_chosen(CHOICES.get(name)):
            paths = trained(study, f"layers_{file}", stores, "--task", "layers", *inputs, *options)
        cells = []
        for data, models in itertools.product(("test", "other"), groups.values()):
            alike = name != "raw" or set(models) <= set(study.seen) | set(same)
            cells.append(f"{encoded(study, data, models, paths, name != 'raw'):.1f}" if alike else "–")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    options = list(itertools.chain.from_iterable(("--measure", name) for name in study.measures))
    tables = [accuracies(study, data, models, *options) for data in ("test", "other") for models in groups.values()]
    for name in study.measures:
        cells = [f"{table[name]:.1f}" if name in table else "–" for table in tables]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


# --- controls -----------------------------------------------------------------------------------------------------------


def controls(study: Study) -> None:
    """Mean scores of the same layer, as it is and with the rows of one side shuffled."""
    encoders = sorted(study.folder.glob(f"layers_*-{len(study.seen)}-0.pt"))
    a, b = study.unseen[:2]
    (one, other), shuffled = study.stores("test", [a, b]), study.folder / "acts" / "shuffled.h5"
    _shuffle(other, shuffled)
    print(f"\nmean score of the same layer of {a} and {b}, and with the rows of one side shuffled")
    for path in encoders:
        if path.name.startswith("layers_raw"):
            continue
        scores = []
        for second in (other, shuffled):
            table = run(
                "score",
                one,
                second,
                "--encoder",
                path,
                "--align",
                "position",
                *study.anchors([a, b]),
                "--format",
                "json",
            )
            results = json.loads(table)["results"]
            scores.append(np.mean([r["score"] for r in results if r["layer_a"] == r["layer_b"] != "hidden_0"]))
        print(f"| {path.stem} | {scores[0]:.3f} | {scores[1]:.3f} |", flush=True)


def _shuffle(source: Path, target: Path) -> None:
    """The same store with its rows in another order, without ids."""
    target.unlink(missing_ok=True)
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        order = np.random.default_rng(0).permutation(len(old["ids"]))
        for name, layer in old["layers"].items():
            new[name] = layer[:][order]


# --- retrieval ----------------------------------------------------------------------------------------------------------


def retrieval(study: Study) -> None:
    """Rows of one model found among those of another, by encoders trained on pairs of other models."""
    seen = study.seen[: min(3, study.trained)]  # all of one width
    encoders = trained(study, "pairs", study.stores("train", seen), "--task", "pairs", "--inputs", "anchors")
    models = [*study.unseen[:2], *OTHERS]
    options = list(itertools.chain.from_iterable(("--encoder", path) for path in encoders))
    table = run(
        "bench", "multilingual", *study.stores("test", models), *options, *study.anchors(models), "--negatives", "faiss",
        "--measure", "cka", "--measure", "rsa", "--measure", "linear_regression", "--format", "tsv",
    )  # fmt: skip
    print(
        f"\nretrieval among nearest neighbours, %, every ordered pair of {' '.join(models)}; trained on {' '.join(seen)}"
    )
    for row in csv.DictReader(io.StringIO(table), delimiter="\t"):
        if row["layer"] == "all" or (row["pair"] == "all" and row["layer"]):
            value = 100 * float(row["accuracy"]) if row["accuracy"] else float("nan")
            print(f"| {row['measure']} | {row['pair']} | {row['layer']} | {value:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, action="append", required=True)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--train", type=int, default=5)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--architecture", choices=["bert", "gpt2"], default="bert")
    parser.add_argument("--folder", type=Path, default=Path("unseen_study"))
    parser.add_argument("--measures", nargs="+", default=MEASURES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--only", choices=["zoo", "layers", "retrieval", "controls"])
    options = parser.parse_args()
    kinds = zoo.kinds(options.models, options.architecture)
    study = Study(
        options.folder, [kind.name for kind in kinds], options.train, options.measures, options.seeds, options.kinds
    )
    make_zoo(study, options.text, kinds, options.steps)
    for part in (layers, controls, retrieval):
        if options.only in (None, part.__name__):
            part(study)


if __name__ == "__main__":
    main()
