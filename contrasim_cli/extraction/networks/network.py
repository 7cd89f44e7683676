"""What every kind of network looks like to `run`, and what all kinds are made with."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.hooks import End
from contrasim_cli.extraction.sources.source import Items
from contrasim_cli.names import quoted

Inputs = Mapping[str, Tensor]
CPU = torch.device("cpu")
ANY, ALIKE, ONE = "any", "alike", "one"  # which items may share a batch: all, those equally long, none


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and what is taken from it.

    `unit` is `item` (one row per text or image) or `word` (one row per word of a text, from its sub-word tokens:
    `subword` mean, first or last). `part` is `text`, `image`, `encoder` or `decoder`, of models that have several.
    `tokenizer` and `revision` are those of the Hugging Face hub. `weights_dtype` is what a model's weights are kept in, `auto` as
    its files hold them, and computed in unless `dtype` says otherwise; rows are float32 whatever it is. `axes` are the words of
    `--axes` for what the layers of a torch module put out, instead of `pool`. `allow_random` takes rows that differ from one time
    to the next. `spread` puts a model of transformers on all devices that there are, by accelerate's map.
    Of modules the `hook` takes what they put out or what they are given; `split_heads` makes a layer of every head in it.
    `special_tokens` of a text are kept, seen but not pooled (`pool-without`), or not there (`none`).
    A row is the token at a `position` of its text, a number, `first`, `last`, or the column of the source that holds one, or the
    tokens of the `span` that a column of the source holds. By the `template` chat a text is what the tokenizer's chat template
    makes of it, with the `generation_prompt` that an answer begins with.
    `decoder_text` is the column that a decoder reads, beside what its encoder reads. `model_arg` are arguments of the function
    that makes the model, as name=value.
    """

    model: str
    layers: Sequence[str] | None = None
    pool: str | None = None
    device: torch.device = CPU
    seed: int = 0
    max_length: int | None = None
    random_weights: bool = False
    unit: str = "item"
    subword: str = "mean"
    tokenizer: str | None = None
    revision: str | None = None
    dtype: str = "float32"
    axes: str | None = None
    part: str | None = None
    allow_random: bool = False
    weights_dtype: str = "auto"
    spread: bool = False
    hook: End = "output"
    split_heads: bool = False
    special_tokens: str = "keep"
    position: Sequence[str] | None = None
    span: str | None = None
    template: str | None = None
    generation_prompt: bool = False
    decoder_text: str | None = None
    model_arg: Sequence[str] | None = None

    @property
    def model_arguments(self) -> dict[str, Any]:
        """The arguments by name; values as JSON reads them, or else as text.

        Raises:
            UsageError: one is not name=value, or is given twice.
        """
        found: dict[str, Any] = {}
        for text in self.model_arg or ():
            name, equals, value = text.partition("=")
            if not equals or not name.isidentifier():
                raise UsageError(f"--model-arg {quoted(text)}: write name=value, such as depth=12")
            if name in found:
                raise UsageError(f"--model-arg: {quoted(name)} is given twice")
            found[name] = _parsed(value)
        return found


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


class Prepared(Protocol):
    """A block of items, ready to be cut into batches."""

    @property
    def lengths(self) -> Sequence[int]:
        """What each item costs; batches are made of items alike in it."""

    @property
    def cut(self) -> Sequence[int]:
        """The positions in the block of the items that were cut at the model's limit."""

    @property
    def truncated(self) -> int:
        """How many items were cut."""

    @property
    def unknown(self) -> Sequence[tuple[int, int]] | None:
        """For each item, how many tokens of its rows the tokenizer does not know, and how many there are; None: not counted."""

    @property
    def units(self) -> Sequence[Sequence[str]] | None:
        """None where every item becomes one row; else the names of each item's rows, which may be none.

        They are the numbers of its words, without those that were cut off, or of its tokens.
        """

    def batch(self, rows: Sequence[int]) -> Inputs:
        """The inputs of the model for some items of the block, without padding where all are equally long."""


class Network(Protocol):
    """A model in evaluation mode, on its device."""

    @property
    def name(self) -> str:
        """How the store names the model: never a path of this machine."""

    @property
    def pooling(self) -> str:
        """What is done with several states per row."""

    @property
    def grouping(self) -> str:
        """Which items may share a batch, known after `discover`: `ANY`, `ALIKE` or `ONE`."""

    @property
    def digest(self) -> str:
        """What the model's rows depend on: weights, architecture, tokenizer."""

    @property
    def prepared_by(self) -> str | None:
        """The class of what makes inputs of items, where it is one of transformers' that may differ between installations."""

    def discover(self, inputs: Inputs) -> dict[str, int]:
        """The chosen layers and their widths, found by running one batch."""

    def rows(self, inputs: Inputs) -> dict[str, Tensor]:
        """[rows, width] of every chosen layer in float32: the items in order, and each one's units in order."""

    def widths(self) -> dict[str, str]:
        """The chosen layers and the shapes of their rows, found with a made-up input."""

    def prepare(self, items: Items, first: int) -> Prepared:
        """Tokenise or load a block of items, the first of which is row `first`."""

    def about(self) -> dict[str, Any]:
        """What else the store should say, known after `discover`."""


def choose_pool(asked: str | None, allowed: Sequence[str], default: str, what: str, option: str = "--pool") -> str:
    """The pooling asked for, if it fits the input."""
    if asked is not None and asked not in allowed:
        raise UsageError(
            f"{option} {quoted(asked)} is not for {what}; choose {', '.join(allowed[:-1])} or {allowed[-1]}"
        )
    return asked or default


def short_name(model: str) -> str:
    """A hub id as it is, a folder or file by its last part."""
    path = Path(model)
    return path.resolve().name if path.exists() else model


def to_device(inputs: Inputs, device: torch.device) -> dict[str, Tensor]:
    """The inputs on the model's device."""
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def given_mask(inputs: Inputs, count: int, places: int) -> Tensor | None:
    """[count, places] which states are of something: a mask of the inputs that has a place for each of them, if there is one."""
    return next((one.bool() for name, one in inputs.items() if "mask" in name and one.shape == (count, places)), None)


def autocast(options: ModelOptions) -> Any:
    """The context in which the model computes in the type asked for."""
    if options.dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(options.device.type, dtype=getattr(torch, options.dtype))


def shapes(inputs: Iterable[Tensor]) -> str:
    """The shape of one item of each input, for messages."""
    return ", ".join(str(list(tensor.shape[1:])) for tensor in inputs)
