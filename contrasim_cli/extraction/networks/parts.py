"""The part of a model that the data go through: all of it, its encoder or decoder, or its side for one kind of input.

transformers finds the parts (`get_encoder`, `get_decoder`), and takes what sides of a kind put out to the space that they share
(`get_text_features` and its like), which is the layer `projected`, not normalised.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.names import quoted

PROJECTED = "projected"
SIDES = {"text": "text", "arrays": "image", "images": "image", "audio": "audio"}  # kind of source -> part
INPUTS = {"text": "--text", "image": "--images or --arrays", "audio": "--audio"}
TOKENS = "input_ids"
CONTEXT = "context_"  # before the names of what the encoder reads, where that is not what the decoder reads


@dataclass(frozen=True)
class Part:
    """What is run of a model, the `whole`. `unsaved` are weights that its files do not hold, and which are random numbers."""

    model: Any
    whole: Any
    name: str | None = None
    unsaved: Sequence[str] = ()

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The names of what goes in."""
        return inspect.signature((self.whole if self.is_second else self.model).forward).parameters

    @property
    def features(self) -> Any:
        """The function that takes the part's output to the space of all sides, where there is one."""
        return None if self.model is self.whole else getattr(self.whole, f"get_{self.name}_features", None)

    def run(self, given: Mapping[str, Tensor]) -> Any:
        """What the part puts out for its inputs, with all hidden states."""
        asked = {"output_hidden_states": True, "return_dict": True}
        if self.is_second:
            second = {f"decoder_{name}": given[name] for name in (TOKENS, "attention_mask") if name in given}
            context = {name.removeprefix(CONTEXT): one for name, one in given.items() if name.startswith(CONTEXT)}
            return self.whole(**(context or given), **second, **asked)
        return self.model(**given, **asked)

    def project(self, given: Mapping[str, Tensor]) -> Tensor | None:
        """[n, width] of the items in the space of all sides, None where that is no row per item."""
        found = self.features(**given)
        found = found if isinstance(found, Tensor) else getattr(found, "pooler_output", None)
        return found if isinstance(found, Tensor) and found.ndim == 2 else None

    @property
    def is_second(self) -> bool:
        """Whether it is the decoder of a model with an encoder, which reads the text too, or one of its own."""
        return self.name == "decoder" and bool(getattr(self.whole.config, "is_encoder_decoder", False))

    def states(self, output: Any) -> Sequence[Tensor]:
        """The hidden states, of the embeddings and of every block."""
        names = ("decoder_hidden_states",) if self.is_second else ("hidden_states", "encoder_hidden_states")
        return next((found for name in names if (found := getattr(output, name, None))), ())


def sides(model: Any) -> dict[str, nn.Module]:
    """The parts of a model of several kinds of input, by kind; none for other models."""
    found = {kind: part for kind in ("image", "audio") if (part := _encoder(model, kind)) is not None}
    configs = {name.removesuffix("_config") for name in getattr(type(model.config), "sub_configs", {})}
    if not found and not {"vision", "audio"} & configs:
        return {}
    text = model.get_decoder() if hasattr(model, "get_decoder") else model
    text = text if text is not model else _encoder(model, None)
    return found | ({} if text is None else {"text": text})


def _encoder(model: Any, modality: str | None) -> Any:
    try:
        part = model.get_encoder() if modality is None else model.get_encoder(modality=modality)
    except (TypeError, AttributeError, ValueError):  # a model of one kind whose own method has no such argument
        part = None
    if modality == "audio" and (part is model or part is None):
        part = _owner(model, f"{modality}_config")
    return None if part is model or part is None else part


def _owner(model: Any, name: str) -> Any:
    """The child that has a configuration of the model's for its own: a side that `get_encoder` does not know."""
    config = getattr(model.config, name, None)
    return next(
        (part for part in model.children() if config is not None and getattr(part, "config", 0) is config), None
    )


def take_part(model: Any, asked: str | None, kind: str | None, where: str, unsaved: Sequence[str] = ()) -> Part:
    """The part asked for, or the one that fits the data; the model itself where it has one kind of input.

    Raises:
        UsageError: the model has no such part, the data are for another one, or there is nothing to choose by.
    """
    if asked in ("encoder", "decoder"):
        return _half(model, asked, where, unsaved)
    found, fitting = sides(model), SIDES.get(kind or "")
    if asked is not None and not found:
        raise UsageError(f"--part {asked}: {quoted(where)} is a model of one kind of input; leave --part out")
    if found and asked is None and fitting is None:
        names = " or ".join(f"--part {name}" for name in ("text", "image", "audio") if name in found)
        raise UsageError(f"{quoted(where)}: takes several kinds of input; choose one with {names}")
    if asked is not None and fitting is not None and asked != fitting:
        raise UsageError(f"--part {asked} takes {INPUTS[asked]}, not --{kind}; leave --part out or change the data")
    wanted = asked or fitting
    if found and wanted not in found:
        raise UsageError(
            f"{quoted(where)}: transformers knows no {wanted} part of {type(model).__name__}; give --model file.py:function"
        )
    if found:
        return Part(_configured(found[str(wanted)], model), model, wanted, unsaved)
    if getattr(model.config, "is_encoder_decoder", False):
        return Part(_configured(_encoder(model, None) or model, model), model, "encoder", unsaved)
    return Part(model, model, unsaved=unsaved)


def _half(model: Any, asked: str, where: str, unsaved: Sequence[str]) -> Part:
    part = _encoder(model, None) if asked == "encoder" else model.get_decoder()
    if part is None or part is model:
        raise UsageError(f"--part {asked}: {quoted(where)} has none; leave --part out")
    if asked == "decoder" and getattr(model, "main_input_name", TOKENS) != TOKENS:
        raise InputError(
            f"{quoted(where)}: its decoder reads text beside what its encoder is given, which is not text; "
            "give --model file.py:function"
        )
    return Part(_configured(part, model), model, asked, unsaved)


def _configured(part: Any, whole: Any) -> Any:
    """A part with a configuration: that of the whole, where it has none of its own."""
    if not hasattr(part, "config"):
        part.config = whole.config
    return part
