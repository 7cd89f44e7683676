"""What training adds to closed forms: held-out views of real text and the three sample benchmarks, each recipe, several seeds.

Run: python tests/benchmarks/recipes.py --model DIR_OF_A_BERT --text FILE [--train-rows 4000] [--test-rows 1600]
     [--seeds 2] [--epochs N] [--folder recipes_study] [--distract 0.3] [--only views|samples]

The text's sentences are told in five ways, which keep some words, replace others by near ones, move parts about, and put in
words of another sentence (`--distract`: which part of them). The model makes activations of all five (`contrasim extract`),
an encoder learns from the first two, and `contrasim bench` judges it by the other eighteen ordered pairs of test sentences.
Closed forms are judged by the same pairs. Tables: accuracy in %, per layer and over all, mean over seeds ± population standard
deviation. Activations that are in the folder already are taken as they are; what was trained before is trained anew.
"""

import argparse
import contextlib
import io
import json
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import h5py
import numpy as np
from torch.nn import functional

from contrasim_cli import encoder as encoders
from contrasim_cli.cli import main as contrasim

SAMPLES = Path(__file__).parents[2] / "sample_data"
RECIPES = ("paper", "default")
Near = Mapping[str, Sequence[str]]
FUNCTION_WORDS = frozenset(
    "the a an of in on at to for and or but is was were are be been by with from as that which it its his her".split()  # noqa: SIM905
)


class Failed(Exception):
    """A command that failed, with what it said."""


def run(*arguments: object) -> None:
    """One contrasim command."""
    said = io.StringIO()
    line = ["contrasim", *map(str, arguments), "-q"]
    try:
        with mock.patch("sys.argv", line), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            contrasim()
    except SystemExit as stop:
        if stop.code:
            raise Failed(said.getvalue().strip()) from stop


# --- views of sentences -----------------------------------------------------------------------------------------------


def sentences(text: Path) -> list[list[str]]:
    """Words of the sentences of 8 to 40 words, each sentence once."""
    found: dict[str, list[str]] = {}
    for line in text.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("="):  # a heading
            continue
        for sentence in re.split(r"(?<=[.!?])\s+", re.sub(r" @(.)@ ", r"\1", line)):
            words = [word for word in sentence.split() if word != "<unk>"]
            if sum(word.isalpha() for word in words) >= 8 and len(words) <= 40:
                found.setdefault(" ".join(words).lower(), words)
    return list(found.values())


def near_words(model: Path) -> dict[str, list[str]]:
    """Of each whole word of the model's vocabulary its four nearest others, by the cosine of centred embeddings."""
    from transformers import AutoModel

    vocabulary = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    table = AutoModel.from_pretrained(model, local_files_only=True).get_input_embeddings().weight.detach()
    kept = [i for i, word in enumerate(vocabulary) if word.isalpha() and word.isascii() and len(word) > 2]
    rows = functional.normalize(table[kept] - table[kept].mean(0), dim=1)
    found = {}
    for start in range(0, len(kept), 2048):
        nearest = (rows[start : start + 2048] @ rows.T).topk(5, dim=1).indices[:, 1:]
        for k, row in enumerate(nearest.tolist(), start):
            found[vocabulary[kept[k]]] = [vocabulary[kept[j]] for j in row]
    return found


def some(words: Sequence[str], share: float, rng: random.Random) -> list[str]:
    """Each word with that probability, in order; four at least."""
    found = [word for word in words if rng.random() < share]
    return found if len(found) > 3 else list(words[:4])


def replaced(words: Sequence[str], share: float, near: Near, rng: random.Random) -> list[str]:
    """Some content words replaced by near ones."""
    return [
        rng.choice(near[w.lower()])
        if w.lower() in near and w.lower() not in FUNCTION_WORDS and rng.random() < share
        else w
        for w in words
    ]


def misspelt(word: str, rng: random.Random) -> str:
    """Two letters swapped."""
    if len(word) < 5:
        return word
    k = rng.randrange(1, len(word) - 2)
    return word[:k] + word[k + 1] + word[k] + word[k + 2 :]


def plain(words: list[str], near: Near, rng: random.Random) -> list[str]:
    """Some of the words."""
    return some(words, 0.35, rng)


def reworded(words: list[str], near: Near, rng: random.Random) -> list[str]:
    """Some of the words, many of them replaced."""
    return replaced(some(words, 0.4, rng), 0.4, near, rng)


def moved(words: list[str], near: Near, rng: random.Random) -> list[str]:
    """The last part first."""
    cut = rng.randrange(len(words) // 3, 2 * len(words) // 3 + 1)
    return replaced(some(words[cut:] + words[:cut], 0.35, rng), 0.2, near, rng)


def first(words: list[str], near: Near, rng: random.Random) -> list[str]:
    """The first part, carelessly written."""
    told = replaced(some(words[: round(0.7 * len(words))], 0.5, rng), 0.15, near, rng)
    return [misspelt(word, rng) if rng.random() < 0.2 else word for word in told]


def last(words: list[str], near: Near, rng: random.Random) -> list[str]:
    """The last part, with few function words."""
    part = words[-round(0.7 * len(words)) :]
    told = [word for word in part if rng.random() < (0.3 if word.lower() in FUNCTION_WORDS else 0.5)]
    return replaced(told, 0.15, near, rng)


VIEWS = {tell.__name__: tell for tell in (plain, reworded, moved, first, last)}


def write_views(folder: Path, arguments: argparse.Namespace) -> None:
    """`train.tsv` and `test.tsv`: an id and the five tellings of each sentence."""
    rng, near = random.Random(0), near_words(arguments.model)
    rows = sentences(arguments.text)
    rng.shuffle(rows)
    wanted = arguments.train_rows + arguments.test_rows
    if len(rows) < wanted:
        raise SystemExit(f"{arguments.text}: {len(rows)} sentences of 8 to 40 words, {wanted} are needed")
    parts = {"train": rows[: arguments.train_rows], "test": rows[arguments.train_rows : wanted]}
    for split, part in parts.items():
        lines = ["\t".join(("id", *VIEWS))]
        for k, words in enumerate(part):
            told = []
            for tell in VIEWS.values():
                other = [word for word in rng.choice(rows) if rng.random() < arguments.distract]
                both = [tell(words, near, rng), other]
                told.append(" ".join(both[0] + both[1] if rng.random() < 0.5 else both[1] + both[0]))
            lines.append("\t".join((f"{split}{k}", *told)))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def text_views(folder: Path, arguments: argparse.Namespace) -> None:
    """Activations of all views, `folder/train/plain.h5` and so on."""
    if not (folder / "test.tsv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_views(folder, arguments)
    for split in ("train", "test"):
        (folder / split).mkdir(exist_ok=True)
        for view in VIEWS:
            store = folder / split / f"{view}.h5"
            if not store.exists():
                text = ["--text", folder / f"{split}.tsv", "--column", view, "--id-column", "id"]
                run("extract", "--model", arguments.model, *text, "--pool", "cls", "-o", store)


# --- tables -----------------------------------------------------------------------------------------------------------


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
    """What `bench` finds over pairs that were not trained on; one layer at a time, which tells pairs and layers apart."""
    if study.benchmark == "layers":
        rows = benched(study, folder, *options)
        return _mean_by_layer((row, row["layer"]) for row in rows if row["pair"] == "all" and row["layer"] != "all")
    found = []
    for layer in study.layers:
        rows = benched(study, folder, *options, "--layers", layer, "--negatives", "random", "--negatives", "faiss")
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
    study: Study, folder: Path, recipe: str, arguments: argparse.Namespace
) -> tuple[list[Accuracies], float, str]:
    """Accuracies of a recipe's encoders, one per seed, mean seconds of training, and how rows were standardised."""
    found, seconds, how = [], [], ""
    for seed in range(arguments.seeds):
        encoder = folder / f"{recipe}_{seed}.pt"
        epochs = ["--epochs", arguments.epochs] if arguments.epochs else []
        started = time.perf_counter()
        options = ["--task", study.task, "--recipe", recipe, "--seed", seed, *epochs]
        run("train", *study.train, *options, "-o", encoder, "--force")
        seconds.append(time.perf_counter() - started)
        found.append(judged(study, folder, "--encoder", encoder))
        how = encoders.load(encoder).config.standardization.text
    return found, float(np.mean(seconds)), how


def table(study: Study, folder: Path, arguments: argparse.Namespace) -> None:
    """Print closed forms and recipes, line by line."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"\n### {study.title}\n", flush=True)
    for k, (name, found) in enumerate(closed_forms(study, folder)):
        line(name, [found], None, head=k == 0)
    for recipe in RECIPES:
        try:
            found_all, seconds, how = trained(study, folder, recipe, arguments)
        except Failed as problem:  # the paper's recipe may collapse, which is a finding too
            print(f"| **{recipe}** | {problem} |", flush=True)
            continue
        named = [{("", kind): value for (_, kind), value in found.items()} for found in found_all]
        line(f"**{recipe}** ({how})", named, seconds)


def line(name: str, found: Sequence[Accuracies], seconds: float | None, head: bool = False) -> None:
    """Print a line of a Markdown table, after its head if this is the first."""
    kinds = list(dict.fromkeys(kind for one in found for _, kind in one))
    cells = []
    for kind in kinds:
        per_seed = [[*accuracies.values()] for one in found for (_, k), accuracies in one.items() if k == kind]
        layers, overall = np.mean(per_seed, axis=0), np.mean(per_seed, axis=1)
        spread = f" ± {overall.std():.2f}" if len(found) > 1 else ""
        cells += [" ".join(f"{value:.1f}" for value in layers), f"{overall.mean():.2f}{spread}"]
    if head:
        print("| | " + " | ".join(f"{kind} per layer | {kind} all".strip() for kind in kinds) + " | s |")
        print("|---" * (2 * len(kinds) + 2) + "|")
    print(f"| {name} | " + " | ".join(cells) + f" | {'' if seconds is None else f'{seconds:.0f}'} |", flush=True)


def text_study(arguments: argparse.Namespace) -> Study:
    """Views of real text."""
    folder = arguments.folder / "views"
    text_views(folder, arguments)
    train, test = ([folder / split / f"{view}.h5" for view in VIEWS] for split in ("train", "test"))
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
    arguments = parser.parse_args()
    if arguments.only != "samples":
        if not (arguments.model and arguments.text):
            parser.error("--model and --text are needed, unless --only samples")
        table(text_study(arguments), arguments.folder / "views", arguments)
    if arguments.only != "views":
        for study in sample_studies():
            table(study, arguments.folder / study.benchmark, arguments)


if __name__ == "__main__":
    main()
