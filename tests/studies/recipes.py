"""What training adds to closed forms: held-out views of real text and the three sample benchmarks, each recipe, several seeds.

Run: python tests/studies/recipes.py --model DIR_OF_A_BERT --text FILE [--train-rows 4000] [--test-rows 1600]
     [--seeds 2] [--epochs N] [--folder recipes_study] [--distract 0.3] [--only views|samples] [--no-closed-forms]
     [--with parts] [--with objectives] [--with widths]

The text's sentences are told in five ways (text_views.py; `--distract`: which part of another sentence comes in). The model
makes activations of them (`contrasim extract`), an encoder learns from the first two, and `contrasim bench` judges it by the
other eighteen ordered pairs of test sentences. Closed forms are judged by the same pairs. Tables: accuracy in %, per layer and
over all, mean over seeds ± population standard deviation. `--with parts` adds the default recipe with one part changed,
`objectives` every objective with every standardisation (one seed), `widths` rows of 384 against 128 columns. Activations that
are in the folder already are taken as they are; what was trained before is trained anew.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from text_views import VIEWS, Failed, run, text_views

from contrasim_cli import encoder as encoders

SAMPLES = Path(__file__).parents[2] / "sample_data"
RECIPES = {name: ["--recipe", name] for name in ("paper", "default")}
PARTS = {
    "whitened by 0.03, as it is": ["--standardize", "whiten", "--shrinkage", "0.03", "--lr", "1e-12", "--epochs", "1"],
    "whitened by 0.03": ["--standardize", "whiten", "--shrinkage", "0.03", "--lr", "1e-4"],
    "whitened by 0.03, lr 1e-3": ["--standardize", "whiten", "--shrinkage", "0.03", "--lr", "1e-3"],
    "within 0.01, as it is": ["--standardize", "within", "--shrinkage", "0.01", "--lr", "1e-12", "--epochs", "1"],
    "within 0.01, lr 1e-3": ["--standardize", "within", "--shrinkage", "0.01", "--lr", "1e-3"],
    "Eq. 3": ["--objective", "contrasim"],
    "temperature 0.2": ["--temperature", "0.2"],
    "output 128": ["--dim", "128"],
    "an MLP beside": ["--path", "both"],
    "batches of 1,024": ["--batch-size", "1024"],
    "AdamW, decay 0.05": ["--optimizer", "adamw", "--weight-decay", "0.05"],
}
OBJECTIVES = {
    f"{objective}, {how}": ["--recipe", "paper", "--objective", objective, "--standardize", how]
    for objective in ("contrasim", "supcon", "deepdot", "deepcka")
    for how in ("none", "center", "zscore", "whiten")
}
Accuracies = dict[tuple[str, str], dict[str, float]]  # in %, by measure and negatives, and by layer


class Study(NamedTuple):
    """What is trained on, and what it is judged by."""

    title: str
    benchmark: str
    train: list[Path]
    test: list[Path]

    @property
    def task(self) -> str:
        """How it is trained on."""
        return "layers" if self.benchmark == "layers" else "pairs"

    @property
    def trained_pair(self) -> set[str]:
        """Names of the pairs that an encoder is not judged by, and closed forms are not either."""
        names = [path.stem for path in self.train]
        return {"-".join(names), "-".join(names[::-1])} if self.benchmark == "multilingual" else set()

    @property
    def layers(self) -> list[str]:
        """Those that are compared one by one."""
        with h5py.File(self.test[0]) as file:
            return [name for name in file["layers"] if name != "hidden_0"]


def judged(study: Study, folder: Path, *options: object) -> Accuracies:
    """What `bench` finds over pairs that were not trained on, which closed forms know nothing of: they are told pair by pair."""
    if study.benchmark == "layers":
        rows = benched(study, folder, *options)
        return _mean_by_layer((row, row["layer"]) for row in rows if row["pair"] == "all" and row["layer"] != "all")
    negatives = ["--negatives", "random", "--negatives", "faiss"]
    if "--encoder" in options:
        rows = benched(study, folder, *options, *negatives)
        names = {row["pair"] for row in rows} - {"all"}
        return _mean_by_layer(
            (row, row["layer"])
            for row in rows
            if row["layer"] != "all" and (row["pair"] == "all" or names == {row["pair"]})
        )
    found = []
    for layer in study.layers:
        rows = benched(study, folder, *options, "--layers", layer, *negatives)
        kept = [row for row in rows if row["layer"] == "all" and row["pair"] not in study.trained_pair]
        several = any(row["pair"] != "all" for row in kept)
        found += [(row, layer) for row in kept if not several or row["pair"] != "all"]
    return _mean_by_layer(found)


def benched(study: Study, folder: Path, *options: object) -> list[dict[str, Any]]:
    """The rows of one run."""
    output = folder / "found.json"
    run("bench", study.benchmark, *study.test, *options, "-o", output, "--force")
    rows: list[dict[str, Any]] = json.loads(output.read_text())["results"]
    return rows


def _mean_by_layer(rows: Iterable[tuple[Mapping[str, Any], str]]) -> Accuracies:
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row, layer in rows:
        key = row["measure"], row["negatives"] or ""
        cells.setdefault(key, {}).setdefault(layer, []).append(100 * row["accuracy"])
    return {key: {layer: float(np.mean(v)) for layer, v in layers.items()} for key, layers in cells.items()}


def closed_forms(study: Study, folder: Path) -> Iterator[tuple[str, Accuracies]]:
    """Name and accuracies of closed forms, rows standardised in several ways."""
    for how in ("none", "center", "zscore", "whiten 0.6", "whiten 0.1", "whiten 0.03", "whiten 0.01"):
        kind, *shrinkage = how.split()
        options = ["--standardize", kind, *(["--shrinkage", *shrinkage] if shrinkage else []), "--measure", "cka"]
        if study.benchmark != "image-caption" or kind != "none":
            options += ["--measure", "cosine"]
        found = judged(study, folder, *options)
        for measure in dict.fromkeys(measure for measure, _ in found):
            yield f"{measure}, {how}", {key: value for key, value in found.items() if key[0] == measure}


def trained(
    study: Study, folder: Path, given: Sequence[object], seeds: int, epochs: int | None
) -> tuple[list[Accuracies], float, str]:
    """Accuracies of encoders, one per seed, mean seconds of training, and how rows were standardised."""
    found, seconds, how = [], [], ""
    for seed in range(seeds):
        encoder = folder / f"trained_{seed}.pt"
        started = time.perf_counter()
        options = ["--task", study.task, *(["--epochs", epochs] if epochs else []), *given, "--seed", seed]
        run("train", *study.train, *options, "-o", encoder, "--force")
        seconds.append(time.perf_counter() - started)
        found.append(judged(study, folder, "--encoder", encoder))
        how = encoders.load(encoder).config.standardization.text
    return found, float(np.mean(seconds)), how


def table(study: Study, folder: Path, arguments: argparse.Namespace) -> None:
    """Print closed forms, recipes and what else is asked for, line by line."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"\n### {study.title}\n", flush=True)
    head = True
    if not arguments.no_closed_forms:
        for name, found in closed_forms(study, folder):
            line(name, [found], None, head)
            head = False
    asked = dict(RECIPES)
    if study.task == "pairs" and "parts" in arguments.more:
        asked |= PARTS
    if "objectives" in arguments.more:
        asked |= OBJECTIVES
    for name, options in asked.items():
        try:
            seeds = 1 if name in OBJECTIVES else arguments.seeds
            found_all, seconds, how = trained(study, folder, options, seeds, arguments.epochs)
        except Failed as problem:  # the paper's recipe may collapse, which is a finding too
            print(f"| **{name}** | {problem} |", flush=True)
            continue
        named = [{("", kind): value for (_, kind), value in found.items()} for found in found_all]
        line(f"**{name}** ({how})", named, seconds, head)
        head = False


def line(name: str, found: Sequence[Accuracies], seconds: float | None, head: bool = False) -> None:
    """Print a line of a Markdown table, after its head if this is the first."""
    kinds = list(dict.fromkeys(kind for one in found for _, kind in one))
    cells = []
    for kind in kinds:
        per_seed = [[*accuracies.values()] for one in found for (_, k), accuracies in one.items() if k == kind]
        layers, overall = np.mean(per_seed, axis=0), np.mean(per_seed, axis=1)
        spread = f" ± {overall.std():.2f}" if len(found) > 1 else ""
        cells += [" ".join(f"{value:.2f}" for value in layers), f"{overall.mean():.2f}{spread}"]
    if head:
        print("| | " + " | ".join(f"{kind} per layer | {kind} all".strip() for kind in kinds) + " | s |")
        print("|---" * (2 * len(kinds) + 2) + "|")
    print(f"| {name} | " + " | ".join(cells) + f" | {'' if seconds is None else f'{seconds:.0f}'} |", flush=True)


def text_study(arguments: argparse.Namespace) -> Study:
    """Views of real text."""
    folder = arguments.folder / "views"
    text_views(folder, arguments)
    test, train = ([folder / split / f"{view}.h5" for view in VIEWS] for split in ("test", "train"))
    rows = (
        f"{arguments.train_rows} training rows of {train[0].stem} and {train[1].stem}, {arguments.test_rows} test rows"
    )
    return Study(f"Views of text: {rows}", "multilingual", train[:2], test)


def sample_studies() -> Iterator[Study]:
    """The three sample benchmarks."""
    for name, train, test in (
        ("layers", ["*"], ["*"]),
        ("multilingual", ["en", "ar"], ["en", "ar", "zh", "ru", "tr"]),
        ("image_caption", ["image", "caption"], ["image", "caption"]),
    ):
        paths = [
            [path for stem in stems for path in sorted((SAMPLES / name / split).glob(f"{stem}.h5"))]
            for split, stems in (("train", train), ("test", test))
        ]
        yield Study(f"Sample {name}", name.replace("_", "-"), *paths)


def width_studies(study: Study, folder: Path) -> Iterator[Study]:
    """Held-out rows of the views that are trained on, of equal widths and with the second view in 128 random directions."""
    for width in (384, 128):
        narrow = [
            _narrowed(part[1], folder / f"{width}_{name}", width) for part, name in zip(study[2:], "ab", strict=True)
        ]
        for benchmark in ("image-caption", "layers"):
            title = f"{benchmark}, 384 columns against {width}: held-out rows"
            yield Study(title, benchmark, [study.train[0], narrow[0]], [study.test[0], narrow[1]])


def _narrowed(path: Path, folder: Path, width: int) -> Path:
    """The store with its layers in random directions of its rows, the same in each folder; or as it is."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(path) as source, h5py.File(folder / path.name, "w") as out:
        for name, layer in source["layers"].items():
            turned = np.linalg.qr(rng.normal(size=(layer.shape[1], layer.shape[1])))[0][:, :width]
            out[name] = layer[:].astype(np.float32) @ turned if width < layer.shape[1] else layer[:]
    return folder / path.name


def main() -> None:
    """Parse the options and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, help="a BERT in a folder, with vocab.txt")
    parser.add_argument("--text", type=Path, help="plain text, in sentences that end in full stops")
    parser.add_argument("--folder", type=Path, default=Path("recipes_study"), help="where activations and encoders go")
    parser.add_argument("--train-rows", type=int, default=4000)
    parser.add_argument("--test-rows", type=int, default=1600)
    parser.add_argument("--distract", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="instead of each recipe's")
    parser.add_argument("--only", choices=["views", "samples"])
    parser.add_argument("--no-closed-forms", action="store_true")
    parser.add_argument("--with", dest="more", action="append", default=[], choices=["parts", "objectives", "widths"])
    arguments = parser.parse_args()
    if arguments.only != "samples":
        if not (arguments.model and arguments.text):
            parser.error("--model and --text are needed, unless --only samples")
        views = text_study(arguments)
        table(views, arguments.folder / "views", arguments)
        for study in width_studies(views, arguments.folder / "widths") if "widths" in arguments.more else ():
            table(study, arguments.folder / "widths", arguments)
    if arguments.only != "views":
        for study in sample_studies():
            table(study, arguments.folder / study.benchmark, arguments)


if __name__ == "__main__":
    main()
