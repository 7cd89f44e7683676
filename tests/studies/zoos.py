"""Zoos: small networks of many kinds, trained on real data, and what every layer of them makes of the same rows.

Run: python tests/studies/zoos.py --text FILE [--text FILE] --digits FOLDER --bert FOLDER --diamonds FILE.csv [--folder zoos]
     [--only ZOO …] [--seeds K] [--untrained]

A zoo is a kind of network: its members differ in their seed, and a few in width or depth. Every member has one store for each of
three data sets of 2,000 rows: `train` and `test`, other rows of what it was trained on, and `other`, another data set. Rows of a
zoo have the same ids in all stores of a data set. Members are made in rounds, a seed of every zoo at a time, and what is there is
left as it is.

`--text`: plain text of real sentences. `--digits`: a folder `0.json` to `9.json` of 28 × 28 images as `{"data": [values in 0..1]}`.
`--bert`: a pretrained BERT as transformers saves it. `--diamonds`: a table of numbers and categories. Small images (digits of
8 × 8) are scikit-learn's, photographs are those that scikit-learn and scikit-image carry.
"""

import argparse
import csv
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import zoo as text_zoo
from torch import Tensor, nn
from torch.nn import functional

ROWS = 2000
DATA = ("train", "test", "other")
CONTEXT = 48


@dataclass(frozen=True)
class Member:
    """One network of a zoo."""

    name: str
    seed: int
    width: int
    depth: int


@dataclass(frozen=True)
class Zoo:
    """A kind of network: how one is made, what it learns from, and which rows its layers are looked at on.

    `learn` gives a batch's loss; `items` what a network is shown for each data set, of which `rows` takes ROWS rows of a layer.
    """

    name: str
    width: int
    depth: int
    seeds: int
    steps: int
    lr: float
    make: Callable[["Sources", Member], nn.Module]
    loss: Callable[["Sources", nn.Module, torch.Generator], Tensor]
    items: Callable[["Sources", str], Tensor]
    pool: Callable[[Tensor], Tensor]
    variants: Sequence[str] = ("wide", "narrow", "deep", "shallow")

    def members(self, seeds: int | None = None) -> list[Member]:
        """Seeds of one size, then one wider, one narrower, one deeper and one shallower."""
        same = [Member(f"s{k}", k, self.width, self.depth) for k in range(seeds or self.seeds)]
        sizes = [
            ("wide", self.width * 3 // 2, self.depth),
            ("narrow", self.width * 3 // 4, self.depth),
            ("deep", self.width, self.depth * 4 // 3),
            ("shallow", self.width, self.depth * 2 // 3),
        ]
        other = [Member(name, 100 + k, width, depth) for k, (name, width, depth) in enumerate(sizes)]
        return [*same, *(member for member in other if member.name in self.variants)]


# --- data ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """Where the data are; each is read when it is first asked for."""

    text: Sequence[Path]
    digits: Path
    bert: Path
    diamonds: Path

    @cached_property
    def lines(self) -> tuple[list[str], list[str]]:
        """Lines that language models learn from, and the others."""
        return text_zoo.halves(self.text)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Words by number."""
        return text_zoo.vocabulary(self.lines[0])

    @cached_property
    def docs(self) -> list[str]:
        """Sentences of Python's documentation."""
        return text_zoo.docstrings(frozenset(self.vocabulary))

    @cached_property
    def words(self) -> dict[str, Tensor]:
        """Numbers of words: what is learned from, and each data set."""
        held = text_zoo.sentences(self.lines[1])
        half = len(held) // 2
        texts = {"learn": self.lines[0], "train": held[:half], "test": held[half:], "other": self.docs}
        known = self.vocabulary
        return {
            name: torch.tensor([known.get(w, 1) for line in lines for w in [*line.split(), text_zoo.END]])
            for name, lines in texts.items()
        }

    @cached_property
    def characters(self) -> dict[str, Tensor]:
        """Numbers of characters, likewise."""
        held = text_zoo.sentences(self.lines[1])
        half = len(held) // 2
        texts = {"learn": self.lines[0], "train": held[:half], "test": held[half:], "other": self.docs}
        return {
            name: torch.tensor(list("\n".join(lines).encode("ascii", "replace"))[:2_000_000], dtype=torch.long).clamp(
                max=127
            )
            for name, lines in texts.items()
        }

    @cached_property
    def mnist(self) -> tuple[Tensor, Tensor]:
        """Images [n, 1, 28, 28] and labels, shuffled."""
        found = [np.array(json.loads((self.digits / f"{k}.json").read_text())["data"]) for k in range(10)]
        images = np.concatenate([values.reshape(-1, 28, 28) for values in found])
        labels = np.concatenate([np.full(values.size // 784, k) for k, values in enumerate(found)])
        order = np.random.default_rng(0).permutation(len(images))
        return torch.tensor(images[order], dtype=torch.float32).unsqueeze(1), torch.tensor(labels[order])

    @cached_property
    def small_digits(self) -> tuple[Tensor, Tensor]:
        """Images [1797, 1, 8, 8] and labels, shuffled."""
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(images))
        return torch.tensor(images[order] / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels[order])

    @cached_property
    def photographs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Patches [n, 3, 32, 32] of real photographs and which photograph; `other` is of photographs not learned from."""
        import skimage
        from skimage.io import imread
        from sklearn.datasets import load_sample_images

        folder = Path(skimage.__file__).parent / "data"
        learned = [
            *load_sample_images().images,
            *(imread(folder / f) for f in ("astronaut.png", "coffee.png", "rocket.jpg")),
        ]
        learned += [
            imread(folder / "motorcycle_left.png"),
            imread(folder / "ihc.png"),
            imread(folder / "hubble_deep_field.jpg"),
        ]
        other = [imread(folder / f) for f in ("chelsea.png", "retina.jpg")]
        rng = np.random.default_rng(0)
        return {"learned": _patches(learned, 2000, rng), "other": _patches(other, 1200, rng)}

    @cached_property
    def table(self) -> tuple[Tensor, Tensor]:
        """Standardised columns [n, d] of the diamonds, and the logarithm of their price; the smaller stones first."""
        with self.diamonds.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        names = {name: sorted({row[name] for row in rows}) for name in ("cut", "color", "clarity")}
        columns = [[float(row[c]) for row in rows] for c in ("carat", "depth", "table", "x", "y", "z")]
        columns += [[float(row[c] == value) for row in rows] for c, values in names.items() for value in values]
        x = torch.tensor(columns).T
        order = np.argsort(x[:, 0].numpy() > 0.9, kind="stable")
        x = ((x - x.mean(0)) / (x.std(0) + 1e-6))[torch.from_numpy(order)]
        return x, torch.tensor([math.log(float(rows[k]["price"])) for k in order])


def _patches(images: Sequence[Any], count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    patches, labels = [], []
    for k, image in enumerate(images):
        for _ in range(count):
            top, left = (int(rng.integers(size - 32)) for size in image.shape[:2])
            patches.append(image[top : top + 32, left : left + 32, :3])
            labels.append(k)
    order = rng.permutation(len(patches))
    x = torch.tensor(np.stack(patches)[order], dtype=torch.float32).permute(0, 3, 1, 2) / 255
    return (x - 0.45) / 0.25, torch.tensor(labels)[torch.from_numpy(order)]


# --- networks: each has `blocks`, whose outputs are its layers -----------------------------------------------------------


class Attention(nn.Module):
    """A transformer's layer, normalised before its parts or after them."""

    def __init__(self, width: int, heads: int, before: bool, causal: bool) -> None:
        super().__init__()
        self.heads, self.before, self.causal = heads, before, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def attend(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(n, t, d))

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = x + self.attend(self.one(x))
            return x + self.mlp(self.two(x))
        x = self.one(x + self.attend(x))
        return self.two(x + self.mlp(x))


class Language(nn.Module):
    """Embeddings of words (or characters) and places, blocks, and a projection back to words."""

    def __init__(self, words: int, width: int, blocks: Sequence[nn.Module], context: int = CONTEXT) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(words, width), nn.Parameter(0.05 * torch.randn(context, width))
        nn.init.normal_(self.embedding.weight, std=0.05 if words > 256 else 0.3)
        self.norm, self.blocks = nn.LayerNorm(width), nn.ModuleList(blocks)
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, words)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.embedding(x) + self.places[: x.shape[1]])
        for block in self.blocks:
            h = block(h)
        return self.head(self.last(h))


class Causal(nn.Module):
    """A dilated causal convolution over time with a residual (channels last)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm, self.room = nn.LayerNorm(width), 2 * dilation
        self.conv, self.out = nn.Conv1d(width, 2 * width, 3, dilation=dilation), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.pad(self.norm(x).transpose(1, 2), (self.room, 0))
        return x + self.out(functional.glu(self.conv(h), dim=1).transpose(1, 2))


class Vision(nn.Module):
    """Patches, a class token, blocks, and a classifier of the class token."""

    def __init__(
        self, channels: int, size: int, patch: int, width: int, classes: int, blocks: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 1 + (size // patch) ** 2, width))
        self.blocks, self.last, self.head = nn.ModuleList(blocks), nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.cls.expand(len(h), -1, -1), h], dim=1) + self.places
        for block in self.blocks:
            h = block(h)
        return self.head(self.last(h)[:, 0])


class Mixing(nn.Module):
    """A layer of an MLP-Mixer: over patches, then over neurons."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over(self.one(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp(self.two(x))


class Mixer(nn.Module):
    """Patches, mixing layers, and a classifier of their mean."""

    def __init__(self, channels: int, size: int, patch: int, width: int, classes: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.blocks = nn.ModuleList(Mixing((size // patch) ** 2, width) for _ in range(depth))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            h = block(h)
        return self.head(self.last(h).mean(dim=1))


class Convolution(nn.Module):
    """A residual block of two convolutions, which may halve the map and widen it."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        self.skip = nn.Identity() if before == after and stride == 1 else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.two(self.one(x)))


class Stack(nn.Module):
    """Blocks one after the other, then a head on the mean over places, if there are any."""

    def __init__(self, blocks: Sequence[nn.Module], head: nn.Module, stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem or nn.Identity(), nn.ModuleList(blocks), head

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h.mean(dim=(2, 3)) if h.ndim == 4 else h)


class Residual(nn.Module):
    """A residual layer of a tabular network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def _spread(first: int, last: int, depth: int) -> list[int]:
    """Widths from the first to the last in even ratios."""
    return [round(first * (last / first) ** (k / max(1, depth - 1))) for k in range(depth)]


def _bert(sources: Sources, m: Member) -> nn.Module:
    return Language(
        128, m.width, [Attention(m.width, 4, before=False, causal=True) for _ in range(m.depth)], 2 * CONTEXT
    )


def _gpt(sources: Sources, m: Member) -> nn.Module:
    return Language(
        len(sources.vocabulary), m.width, [Attention(m.width, 4, before=True, causal=True) for _ in range(m.depth)]
    )


def _tcn(sources: Sources, m: Member) -> nn.Module:
    return Language(128, m.width, [Causal(m.width, 2 ** (k % 4)) for k in range(m.depth)], context=2 * CONTEXT)


def _vit(sources: Sources, m: Member) -> nn.Module:
    return Vision(1, 28, 7, m.width, 10, [Attention(m.width, 4, before=True, causal=False) for _ in range(m.depth)])


def _photo_vit(sources: Sources, m: Member) -> nn.Module:
    return Vision(3, 32, 8, m.width, 8, [Attention(m.width, 4, before=True, causal=False) for _ in range(m.depth)])


def _mixer(sources: Sources, m: Member) -> nn.Module:
    return Mixer(1, 28, 7, m.width, 10, m.depth)


def _resnet(sources: Sources, m: Member) -> nn.Module:
    widths = [m.width * 2 ** (3 * k // m.depth) for k in range(m.depth)]
    before = [m.width, *widths[:-1]]
    stem = nn.Sequential(
        nn.Conv2d(3, m.width, 3, 1, 1, bias=False), nn.BatchNorm2d(m.width), nn.ReLU(), nn.MaxPool2d(2)
    )
    blocks = [Convolution(a, b, 1 if a == b else 2) for a, b in zip(before, widths, strict=True)]
    return Stack(blocks, nn.Linear(widths[-1], 8), stem)


def _vgg(sources: Sources, m: Member) -> nn.Module:
    widths = _spread(m.width, 3 * m.width, m.depth)
    before = [1, *widths[:-1]]
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, 2 if k in (1, 3) else 1, 1), nn.ReLU())
        for k, (a, b) in enumerate(zip(before, widths, strict=True))
    ]
    return Stack(blocks, nn.Linear(widths[-1], 10))


def _mlp(sources: Sources, m: Member) -> nn.Module:
    sizes = [64, *[m.width] * m.depth]
    blocks = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
    return Stack(blocks, nn.Linear(m.width, 10), nn.Flatten())


def _pyramid(sources: Sources, m: Member) -> nn.Module:
    sizes = [784, *_spread(m.width, m.width // 6, m.depth)]
    blocks = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in itertools.pairwise(sizes)]
    return Stack(blocks, nn.Linear(sizes[-1], 10), nn.Flatten())


def _autoencoder(sources: Sources, m: Member) -> nn.Module:
    half = _spread(m.width, m.width // 8, m.depth // 2)
    sizes = [784, *half, *reversed(half)]
    blocks = [nn.Sequential(nn.Linear(a, b), nn.LeakyReLU(0.1)) for a, b in itertools.pairwise(sizes)]
    return Stack(blocks, nn.Linear(sizes[-1], 784), nn.Flatten())


def _tabular(sources: Sources, m: Member) -> nn.Module:
    stem = nn.Linear(sources.table[0].shape[1], m.width)
    return Stack(
        [Residual(m.width) for _ in range(m.depth)], nn.Sequential(nn.LayerNorm(m.width), nn.Linear(m.width, 1)), stem
    )


class Tuned(nn.Module):
    """A pretrained BERT with a fresh head for one of several tasks."""

    def __init__(self, folder: Path, task: int) -> None:
        super().__init__()
        import transformers

        self.bert = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa")
        self.blocks, self.task = self.bert.encoder.layer, task
        self.head = nn.Linear(self.bert.config.hidden_size, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bert(x, attention_mask=(x > 0).long()).last_hidden_state[:, 0])


def _tuned(sources: Sources, m: Member) -> nn.Module:
    return Tuned(sources.bert, m.seed % 3)


# --- what they learn from -----------------------------------------------------------------------------------------------


def _windows(ids: Tensor, batch: int, length: int, generator: torch.Generator) -> Tensor:
    return ids[torch.randint(len(ids) - length, (batch, 1), generator=generator) + torch.arange(length)]


def _causal_loss(sources: Sources, model: nn.Module, generator: torch.Generator) -> Tensor:
    x = _windows(sources.words["learn"], 12, CONTEXT, generator)
    return functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


def _character_loss(sources: Sources, model: nn.Module, generator: torch.Generator) -> Tensor:
    x = _windows(sources.characters["learn"], 16, 2 * CONTEXT, generator)
    return functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


def _pick(n: int, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(n, (batch,), generator=generator)


def _mnist_loss(sources: Sources, model: nn.Module, generator: torch.Generator) -> Tensor:
    images, labels = sources.mnist
    at = _pick(len(images) - 2 * ROWS, 128, generator)
    shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return functional.cross_entropy(model(torch.roll(images[at], shift, (2, 3))), labels[at])


def _restoring_loss(sources: Sources, model: nn.Module, generator: torch.Generator) -> Tensor:
    images, _ = sources.mnist
    x = images[_pick(len(images) - 2 * ROWS, 128, generator)]
    kept = torch.rand(x.shape, generator=generator) > 0.3
    return functional.mse_loss(model(x * kept), x.flatten(1)) * 10


def _digits_loss(sources: Sources, model: nn.Module, generator: torch.Generator) -> Tensor:
    images, labels = sources.small_digits
    at = _pick(len(images) // 2, 128, generator)
    return functional.cross_entropy(
        model(images[at] + 0.05 * torch.randn(128, 1, 8, 8, generator=generator)), labels[at]
    )


def _photograph_loss(sources: Sources, model: nn.Module, generator: torch.Generator) -> Tensor:
    patches, labels = sources.photographs["learned"]
    at = _pick(len(patches) - 2 * ROWS, 64, generator)
    return functional.cross_entropy(model(patches[at]), labels[at])


def _table_loss(sources: Sources, model: nn.Module, generator: torch.Generator) -> Tensor:
    x, y = sources.table
    at = _pick(25_000, 256, generator)
    return functional.mse_loss(model(x[at]).squeeze(1), y[at])


def _pieces(sources: Sources, lines: Sequence[str]) -> Tensor:
    import transformers

    tokenizer = transformers.BertTokenizerFast.from_pretrained(sources.bert)
    found = tokenizer(list(lines), truncation=True, max_length=24, padding="max_length", return_tensors="pt")
    return found["input_ids"]


def _tuning_loss(sources: Sources, model: nn.Module, generator: torch.Generator) -> Tensor:
    ids, answers = _tasks(sources)
    at = _pick(len(ids), 12, generator)
    return functional.cross_entropy(model(ids[at]), answers[model.task][at])


_TASKS: dict[int, tuple[Tensor, Tensor]] = {}


def _tasks(sources: Sources) -> tuple[Tensor, Tensor]:
    """Sentences, and three questions about each: encyclopedia or documentation, its length, how its words are spread."""
    if id(sources) not in _TASKS:
        one, other = text_zoo.sentences(sources.lines[0])[:1500], sources.docs[:1500]
        lines = [*one, *other]
        lengths = torch.tensor([min(3, len(line.split()) // 10) for line in lines])
        commas = torch.tensor([min(3, line.count(",")) for line in lines])
        kinds = torch.tensor([0] * len(one) + [1] * len(other))
        _TASKS[id(sources)] = (_pieces(sources, lines), torch.stack([kinds, lengths, commas]))
    return _TASKS[id(sources)]


# --- rows ---------------------------------------------------------------------------------------------------------------


def _text_items(kind: str, length: int) -> Callable[[Sources, str], Tensor]:
    def items(sources: Sources, data: str) -> Tensor:
        ids = getattr(sources, kind)[data]
        return ids[: len(ids) // length * length].view(-1, length)[:400]

    return items


def _mnist_items(sources: Sources, data: str) -> Tensor:
    images, _ = sources.mnist
    if data == "other":
        return functional.interpolate(sources.small_digits[0], size=(28, 28), mode="bilinear")
    return images[-ROWS:] if data == "test" else images[-2 * ROWS : -ROWS]


def _digits_items(sources: Sources, data: str) -> Tensor:
    if data == "other":
        return functional.adaptive_avg_pool2d(sources.mnist[0][-ROWS:], 8)
    half = len(sources.small_digits[0]) // 2
    images = sources.small_digits[0]
    return images[half:] if data == "test" else images[:half]


def _photograph_items(sources: Sources, data: str) -> Tensor:
    if data == "other":
        return sources.photographs["other"][0][:ROWS]
    patches = sources.photographs["learned"][0]
    return patches[-ROWS:] if data == "test" else patches[-2 * ROWS : -ROWS]


def _table_items(sources: Sources, data: str) -> Tensor:
    x = sources.table[0]
    return {"train": x[25_000 : 25_000 + ROWS], "test": x[28_000 : 28_000 + ROWS], "other": x[-ROWS:]}[data]


def _sentence_items(sources: Sources, data: str) -> Tensor:
    held = text_zoo.sentences(sources.lines[1])
    lines = {"train": held[:1500], "test": held[1500:], "other": sources.docs[1500:]}[data]
    return _pieces(sources, lines[:ROWS])


def _tokens(states: Tensor) -> Tensor:
    return states.flatten(0, 1)


def _first(states: Tensor) -> Tensor:
    return states[:, 0]


def _mean(states: Tensor) -> Tensor:
    return states.mean(dim=(2, 3)) if states.ndim == 4 else states.mean(dim=1) if states.ndim == 3 else states


ZOOS = {
    zoo.name: zoo
    for zoo in (
        Zoo("mlp", 96, 6, 10, 500, 2e-3, _mlp, _digits_loss, _digits_items, _mean),
        Zoo("vit", 64, 6, 10, 450, 1.5e-3, _vit, _mnist_loss, _mnist_items, _first),
        Zoo(
            "bert",
            96,
            6,
            10,
            300,
            1e-3,
            _bert,
            _character_loss,
            _text_items("characters", 2 * CONTEXT),
            _tokens,
            ("wide", "deep"),
        ),
        Zoo("resnet", 24, 6, 6, 250, 3e-3, _resnet, _photograph_loss, _photograph_items, _mean),
        Zoo(
            "gpt",
            128,
            6,
            6,
            400,
            1.5e-3,
            _gpt,
            _causal_loss,
            _text_items("words", CONTEXT),
            _tokens,
            ("narrow", "shallow"),
        ),
        Zoo("tuned", 384, 6, 6, 40, 1e-4, _tuned, _tuning_loss, _sentence_items, _first, ()),
        Zoo("mixer", 64, 6, 6, 450, 2e-3, _mixer, _mnist_loss, _mnist_items, _mean),
        Zoo("pyramid", 240, 6, 6, 700, 1e-3, _pyramid, _mnist_loss, _mnist_items, _mean),
        Zoo("tabular", 64, 6, 6, 700, 2e-3, _tabular, _table_loss, _table_items, _mean),
        Zoo("autoencoder", 256, 6, 6, 900, 1e-3, _autoencoder, _restoring_loss, _mnist_items, _mean),
        Zoo("tcn", 80, 6, 6, 350, 3e-3, _tcn, _character_loss, _text_items("characters", 2 * CONTEXT), _tokens),
        Zoo("vgg", 16, 6, 6, 300, 2e-3, _vgg, _mnist_loss, _mnist_items, _mean),
        Zoo("photovit", 64, 6, 6, 300, 1.5e-3, _photo_vit, _photograph_loss, _photograph_items, _mean),
    )
}


def learn(zoo: Zoo, member: Member, sources: Sources) -> tuple[nn.Module, float]:
    """A trained member, and the mean loss of its last tenth of steps."""
    torch.manual_seed(member.seed)
    model = zoo.make(sources, member)
    optimizer = torch.optim.AdamW(model.parameters(), lr=zoo.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1, (t + 1) / 50) * max(0.02, 0.5 * (1 + math.cos(math.pi * t / max(1, zoo.steps))))
    )
    generator = torch.Generator().manual_seed(member.seed)
    losses = []
    for _ in range(zoo.steps):
        loss = zoo.loss(sources, model, generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return model.eval(), float(np.mean(losses[-max(1, zoo.steps // 10) :])) if losses else math.nan


@torch.no_grad()
def rows(zoo: Zoo, model: nn.Module, items: Tensor) -> dict[str, Tensor]:
    """[ROWS or fewer, width] of every layer, the same rows of each."""
    states: dict[str, list[Tensor]] = {f"layer_{k}": [] for k in range(1, len(model.blocks) + 1)}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, out: states[name].append(zoo.pool(out[0] if isinstance(out, tuple) else out))

    hooks = [block.register_forward_hook(keep(f"layer_{k}")) for k, block in enumerate(model.blocks, 1)]
    for batch in items.split(100):
        model(batch)
    for hook in hooks:
        hook.remove()
    joined = {name: torch.cat(parts) for name, parts in states.items()}
    count = len(joined["layer_1"])
    at = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(count)[:ROWS]))
    return {name: values[at] for name, values in joined.items()}


def write(path: Path, layers: dict[str, Tensor], attrs: dict[str, str]) -> None:
    """A store, as anybody writes one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    with h5py.File(partial, "w") as store:
        for index, (name, values) in enumerate(layers.items()):
            store[f"layers/{name}"] = values.numpy().astype(np.float32)
            store[f"layers/{name}"].attrs["index"] = index
        names = [f"row_{k}" for k in range(len(next(iter(layers.values()))))]
        store.create_dataset("ids", data=names, dtype=h5py.string_dtype("utf-8"))
        store.attrs.update(format="contrasim-activations", format_version=1, complete=True, **attrs)
    partial.rename(path)


def make(zoo: Zoo, member: Member, sources: Sources, folder: Path) -> None:
    """Train one member and write its stores, unless they are there."""
    paths = {data: folder / zoo.name / data / f"{member.name}.h5" for data in DATA}
    if all(path.exists() for path in paths.values()):
        return
    started = time.process_time()
    model, loss = learn(zoo, member, sources)
    for data, path in paths.items():
        found = rows(zoo, model, zoo.items(sources, data))
        write(path, found, {"model": f"{zoo.name}/{member.name}", "data": f"{zoo.name}/{data}"})
    print(f"{zoo.name} {member.name}: loss {loss:.3f}, {time.process_time() - started:.0f} CPU s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, action="append", required=True)
    parser.add_argument("--digits", type=Path, required=True)
    parser.add_argument("--bert", type=Path, required=True)
    parser.add_argument("--diamonds", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("zoos"))
    parser.add_argument("--only", nargs="+", choices=ZOOS, default=list(ZOOS))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--untrained", action="store_true", help="networks as they are drawn: a control")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="of the members, every Nth from I"
    )
    options = parser.parse_args()
    sources = Sources(options.text, options.digits, options.bert, options.diamonds)
    zoos = [replace(ZOOS[name], steps=0) if options.untrained else ZOOS[name] for name in options.only]
    rounds = max(len(zoo.members(options.seeds)) for zoo in zoos)
    work = [(z, z.members(options.seeds)[k]) for k in range(rounds) for z in zoos if k < len(z.members(options.seeds))]
    for zoo, member in work[options.part[0] :: options.part[1]]:
        make(zoo, member, sources, options.folder)


if __name__ == "__main__":
    main()
