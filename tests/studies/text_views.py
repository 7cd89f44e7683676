"""Views of real text: sentences told in five ways, as activations of a model.

A telling keeps some words, replaces others by near ones, moves parts about, and takes in words of another sentence.
"""

import argparse
import contextlib
import io
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

from torch.nn import functional

from contrasim_cli.cli import main as contrasim

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


def thinned(words: list[str], near: Near, rng: random.Random) -> list[str]:
    """Every second word or so, some of them replaced."""
    start = rng.randrange(2)
    return replaced(some(words[start::2], 0.8, rng), 0.15, near, rng)


def backwards(words: list[str], near: Near, rng: random.Random) -> list[str]:
    """Runs of three to five words, the last run first."""
    runs, left = [], list(words)
    while left:
        size = rng.randrange(3, 6)
        runs.append(left[:size])
        left = left[size:]
    return some([word for run in runs[::-1] for word in run], 0.4, rng)


def telegram(words: list[str], near: Near, rng: random.Random) -> list[str]:
    """Content words alone, written in lower case, some of them twice."""
    content = [word.lower() for word in words if word.lower() not in FUNCTION_WORDS and word.isalnum()]
    kept = some(content or words, 0.5, rng)
    return [word for word in kept for _ in range(2 if rng.random() < 0.15 else 1)]


VIEWS = {tell.__name__: tell for tell in (plain, reworded, moved, first, last)}
NEW = {tell.__name__: tell for tell in (thinned, backwards, telegram)}  # nothing was ever picked on these


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
        for view in list(VIEWS)[:2] if split == "train" else VIEWS:
            store = folder / split / f"{view}.h5"
            if not store.exists():
                text = ["--text", folder / f"{split}.tsv", "--column", view, "--id-column", "id"]
                run("extract", "--model", arguments.model, *text, "--pool", "cls", "-o", store)
