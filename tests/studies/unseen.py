"""What a learned measure says of models that it was not trained on: layer prediction, retrieval and controls, on a zoo.

Run: python tests/studies/unseen.py --text FILE [--text FILE] [--models 12] [--train 6] [--steps 700] [--folder unseen_study]
     [--architecture bert|gpt2] [--setups …] [--kinds …] [--measures …] [--seeds 1] [--jobs 1] [--device cpu|cuda]
     [--only zoo|layers|closed|controls|retrieval]

Trains small language models that differ in their seeds, and others that differ in width too (`zoo.py`), on the text's words, unless
the folder holds them already; activations of words (`contrasim extract`) of sentences that the models did not learn from, and of
documentation of Python's standard library, another domain. Encoders are trained by `contrasim train` on the first models, in most
setups with some of other widths; they are judged by the scores (`contrasim score`) of every pair of the other models: for each
layer of either, whether its own depth scores highest among the layers of the other. Pairs of unseen models of one width, and pairs
in which one has another width, are told apart. Anchors come from the sentences that encoders are trained on. The ensemble is the
mean score of the seeds' encoders. Controls: rows of one side shuffled, and what single features give. Retrieval: `--task pairs`
on three models of one width, `bench multilingual` on two others and those of other widths.
"""

import argparse
import contextlib
import csv
import io
import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import torch
import unseen_kinds
import zoo

from contrasim_cli.cli import main as contrasim

ROWS = {"train": 6000, "test": 3000, "other": 3000}
JUDGED = ("test", "other")
MEASURES = (
    "cka", "cka_debiased", "pwcca", "svcca", "procrustes", "aligned_cosine", "linear_regression", "rsa", "distance_correlation",
    "mutual_knn", "second_order_cosine", "eigenspace_overlap", "gulp",
)  # fmt: skip
# widths that encoders are trained on beside 128, and others that they are judged on
SETUPS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "one width": ((), (96, 192)),
    "wider": ((192,), (96,)),
    "narrower": ((96,), (192,)),
    "several": ((64, 112, 160, 256), (96, 192)),
}
GROUPS = ("same", "other")


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
    """The folder of a study, its models of one width, and how many of them encoders are trained on."""

    folder: Path
    models: Sequence[str]
    trained: int
    seeds: int
    device: str

    def stores(self, data: str, models: Iterable[str]) -> list[Path]:
        """Stores of some models on one data set."""
        return [self.folder / "acts" / data / f"{name}.h5" for name in models]

    def seen(self, setup: str) -> list[str]:
        """The models that encoders are trained on."""
        return [*self.models[: self.trained], *(f"w{width}" for width in SETUPS[setup][0])]

    @property
    def same(self) -> list[str]:
        """Unseen models of the one width."""
        return list(self.models[self.trained :])

    def unseen(self, setup: str) -> list[str]:
        """All unseen models."""
        return [*self.same, *(f"w{width}" for width in SETUPS[setup][1])]

    def encoder(self, setup: str, kind: str, seed: int) -> Path:
        """Where an encoder is."""
        name = "".join(letter if letter.isalnum() else "_" for letter in f"{setup} {kind}")
        return self.folder / f"{name}-{self.trained}-{seed}.pt"

    def anchors(self, models: Iterable[str]) -> list[object]:
        """Options that take the anchors of these models from the sentences of training."""
        return list(itertools.chain.from_iterable(("--anchor-store", path) for path in self.stores("train", models)))


# --- models and activations ---------------------------------------------------------------------------------------------


def make_texts(study: Study, text: Sequence[Path]) -> None:
    """The sentences of every data set."""
    learned, others = zoo.halves(text)
    pool = iter(zoo.sentences(others))
    rows = {name: zoo.words_of(ROWS[name], pool) for name in ("train", "test")}
    rows["other"] = zoo.words_of(ROWS["other"], iter(zoo.docstrings(frozenset(zoo.vocabulary(learned)))))
    for data, sentences in rows.items():
        (study.folder / "acts" / data).mkdir(parents=True, exist_ok=True)
        path = study.folder / f"{data}.txt"
        if not path.exists():
            path.write_text("\n".join(sentences) + "\n", encoding="utf-8")


def make_model(study: Study, text: Sequence[Path], kind: zoo.Kind, steps: int) -> str:
    """Train and extract what is not there yet of one model; what to say of it."""
    model, said = study.folder / "zoo" / kind.name, ""
    if not (model / "tokenizer.json").exists():
        started = time.perf_counter()
        loss, frequencies = zoo.train(kind, zoo.halves(text)[0], model, steps, study.device)
        spent = time.perf_counter() - started
        said = f"{kind.name}: loss {loss:.3f}, of word frequencies {frequencies:.3f}, {spent:.0f} s"
    for data in ROWS:
        (path,) = study.stores(data, [kind.name])
        if not path.exists():
            given = ["--model", model, "--text", study.folder / f"{data}.txt", "--unit", "word"]
            run("extract", *given, "--device", study.device, "-o", path)
    return said


# --- layer prediction ---------------------------------------------------------------------------------------------------


def train(study: Study, setup: str, kind: str, seed: int) -> float:
    """Train one encoder unless it is there; seconds."""
    started, path = time.perf_counter(), study.encoder(setup, kind, seed)
    if not path.exists():
        inputs = [] if kind == "raw" else ["--inputs", "anchors"]
        options, changed = unseen_kinds.KINDS[kind]
        given = ["--task", "layers", *inputs, *options, "--seed", seed, "--device", study.device]
        with changed():
            run("train", *study.stores("train", study.seen(setup)), *given, "-o", path)
    return time.perf_counter() - started


Accuracies = Mapping[tuple[str, str], Mapping[str, float]]  # by measure and group of pairs, in %


def judge(study: Study, setup: str, kind: str, data: str) -> Mapping[str, Mapping[str, float]]:
    """Accuracies in % by encoder, and by the ensemble, and by group of pairs."""
    models = study.same if kind == "raw" else study.unseen(setup)
    encoders = [study.encoder(setup, kind, seed) for seed in range(study.seeds)]
    options = list(itertools.chain.from_iterable(("--encoder", path) for path in encoders))
    anchors = [] if kind == "raw" else study.anchors(models)
    with unseen_kinds.KINDS[kind][1]():
        text = run(
            "score", *study.stores(data, models), *options, *anchors, "--device", study.device, "--format", "json"
        )
    found = scores(text)
    found["ensemble"] = {
        pair: np.mean([found[path.name][pair] for path in encoders], axis=0) for pair in found[encoders[0].name]
    }
    return {name: accuracies(pairs, study.same) for name, pairs in found.items()}


Grids = dict[str, dict[tuple[str, str], Any]]


def scores(text: str) -> Grids:
    """Scores [layers, layers] by measure and pair of stores, the embeddings left out."""
    cells: dict[str, dict[tuple[str, str], dict[tuple[str, str], float]]] = {}
    for row in json.loads(text)["results"]:
        if "hidden_0" not in (row["layer_a"], row["layer_b"]):
            pair = cells.setdefault(row["measure"], {}).setdefault((row["store_a"], row["store_b"]), {})
            pair[row["layer_a"], row["layer_b"]] = row["score"]
    found: Grids = {}
    for measure, pairs in cells.items():
        for pair, grid in pairs.items():
            side = round(len(grid) ** 0.5)
            found.setdefault(measure, {})[pair] = np.array(list(grid.values()), dtype=np.float64).reshape(side, side)
    return found


def accuracies(pairs: Mapping[tuple[str, str], Any], same: Sequence[str], lower: bool = False) -> dict[str, float]:
    """How many layers, in %, score highest with their own depth, by group of pairs; both directions."""
    right: dict[str, list[float]] = {group: [] for group in GROUPS}
    for (a, b), grid in pairs.items():
        group = "same" if {a, b} <= set(same) else "other"
        one = -grid if lower else grid
        for directed in (one, one.T):
            right[group].extend(directed.argmax(axis=1) == np.arange(len(directed)))
    return {group: 100 * float(np.mean(values)) for group, values in right.items() if values}


def closed(study: Study, setup: str, measure: str, data: str) -> Mapping[str, float]:
    """Accuracies in % of a closed form by group of pairs."""
    from contrasim_cli.measures import MEASURES as ALL

    text = run(
        "baseline",
        *study.stores(data, study.unseen(setup)),
        "--measure",
        measure,
        "--format",
        "json",
        "--device",
        study.device,
    )
    ((_, pairs),) = scores(text).items()
    return accuracies(pairs, study.same, not ALL[measure].higher_is_more_similar)


def cells(values: Sequence[Mapping[str, float]]) -> str:
    """Mean over seeds, with its spread, of each group."""
    shown = []
    for group in GROUPS:
        found = [one[group] for one in values if group in one]
        spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
        shown.append(f"{np.mean(found):.1f}{spread}" if found else "–")
    return " | ".join(shown)


def layers(study: Study, pool: ProcessPoolExecutor, setups: Sequence[str], kinds: Sequence[str]) -> None:
    """Encoders of every kind in every setup, trained and judged side by side."""
    for setup in setups:
        training = {
            kind: [pool.submit(train, study, setup, kind, seed) for seed in range(study.seeds)] for kind in kinds
        }
        judged: dict[str, list[Future[Any]]] = {}
        for kind in kinds:
            for future in training[kind]:
                future.result()
            judged[kind] = [pool.submit(judge, study, setup, kind, data) for data in JUDGED]
        print(
            f"\nlayer prediction, %; trained on {' '.join(study.seen(setup))}, judged on {' '.join(study.unseen(setup))}"
        )
        columns = " | ".join(f"{data}: {group}" for data in JUDGED for group in GROUPS)
        print(f"| {setup} | {columns} | s |\n|---|" + "---|" * 5)
        for kind in kinds:
            results = [future.result() for future in judged[kind]]
            took = np.mean([future.result() for future in training[kind]])
            single = [cells([v for name, v in found.items() if name != "ensemble"]) for found in results]
            print(f"| {kind} | {' | '.join(single)} | {took:.0f} |", flush=True)
            if study.seeds > 1:
                print(
                    f"| {kind}, ensemble | {' | '.join(cells([found['ensemble']]) for found in results)} | |",
                    flush=True,
                )


def closed_forms(study: Study, pool: ProcessPoolExecutor, setups: Sequence[str], measures: Sequence[str]) -> None:
    """Closed forms on the same pairs."""
    futures = {
        (setup, measure): [pool.submit(closed, study, setup, measure, data) for data in JUDGED]
        for setup, measure in itertools.product(setups, measures)
    }
    for setup in setups:
        print(f"\nclosed forms, %; {' '.join(study.unseen(setup))}")
        for measure in measures:
            results = [future.result() for future in futures[setup, measure]]
            print(f"| {measure} | {' | '.join(cells([found]) for found in results)} |", flush=True)


# --- controls -----------------------------------------------------------------------------------------------------------


def controls(study: Study, setups: Sequence[str], kinds: Sequence[str]) -> None:
    """Mean scores of the same layer, as it is and with the rows of one side shuffled."""
    a, b = study.same[:2]
    (one, other), shuffled = study.stores("test", [a, b]), study.folder / "acts" / "shuffled.h5"
    _shuffle(other, shuffled)
    print(f"\nmean score of the same layer of {a} and {b}, and with the rows of one side shuffled")
    for setup, kind in itertools.product(setups, kinds):
        path = study.encoder(setup, kind, 0)
        if kind == "raw" or not path.exists():
            continue
        means = []
        for second in (other, shuffled):
            given = ["--encoder", path, "--align", "position", *study.anchors([a, b]), "--format", "json"]
            with unseen_kinds.KINDS[kind][1]():
                ((_, pairs),) = scores(run("score", one, second, *given)).items()
            ((_, grid),) = pairs.items()
            means.append(np.trace(grid) / len(grid))
        print(f"| {setup}: {kind} | {means[0]:.3f} | {means[1]:.3f} |", flush=True)


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
    seen = study.models[: min(3, study.trained)]  # all of one width
    encoders = []
    for seed in range(study.seeds):
        encoders.append(study.encoder("pairs", "anchors", seed))
        if not encoders[-1].exists():
            given = ["--task", "pairs", "--inputs", "anchors", "--seed", seed, "--device", study.device]
            run("train", *study.stores("train", seen), *given, "-o", encoders[-1])
    models = [*study.same[:2], "w96", "w192"]
    options = list(itertools.chain.from_iterable(("--encoder", path) for path in encoders))
    table = run(
        "bench", "multilingual", *study.stores("test", models), *options, *study.anchors(models), "--negatives", "faiss",
        "--measure", "cka", "--measure", "rsa", "--measure", "linear_regression", "--format", "tsv", "--device", study.device,
    )  # fmt: skip
    print(
        f"\nretrieval among nearest neighbours, %, every ordered pair of {' '.join(models)}; trained on {' '.join(seen)}"
    )
    for row in csv.DictReader(io.StringIO(table), delimiter="\t"):
        if row["layer"] == "all" or (row["pair"] == "all" and row["layer"]):
            value = 100 * float(row["accuracy"]) if row["accuracy"] else float("nan")
            print(f"| {row['measure']} | {row['pair']} | {row['layer']} | {value:.1f} |", flush=True)


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, action="append", required=True)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--train", type=int, default=6)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--architecture", choices=["bert", "gpt2"], default="bert")
    parser.add_argument("--folder", type=Path, default=Path("unseen_study"))
    parser.add_argument("--setups", nargs="+", default=["wider"], choices=SETUPS)
    parser.add_argument("--kinds", nargs="+", default=list(unseen_kinds.KINDS), choices=unseen_kinds.KINDS)
    parser.add_argument("--measures", nargs="+", default=MEASURES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=["zoo", "layers", "closed", "controls", "retrieval"])
    options = parser.parse_args()
    widths = sorted(
        {96, 192, *itertools.chain.from_iterable(a + b for a, b in map(SETUPS.__getitem__, options.setups))}
    )
    kinds = zoo.kinds(options.models, widths, options.architecture)
    study = Study(
        options.folder, [kind.name for kind in kinds[: options.models]], options.train, options.seeds, options.device
    )
    parts: dict[str, Callable[[ProcessPoolExecutor], None]] = {
        "layers": lambda pool: layers(study, pool, options.setups, options.kinds),
        "closed": lambda pool: closed_forms(study, pool, options.setups, options.measures),
        "controls": lambda pool: controls(study, options.setups, options.kinds),
        "retrieval": lambda pool: retrieval(study),
    }
    with workers(options.jobs) as pool:
        make_texts(study, options.text)
        made = [pool.submit(make_model, study, options.text, kind, options.steps) for kind in kinds]
        for said in (future.result() for future in made):
            if said:
                print(said, flush=True)
        for name, part in parts.items():
            if not options.only or name in options.only:
                part(pool)


if __name__ == "__main__":
    main()
