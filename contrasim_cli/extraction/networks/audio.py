"""Models of sound: one row per sound, or per frame.

Every sound goes through the feature extractor by itself, and only sounds whose inputs are equally long share a batch: nothing is
padded for the sake of others, so that no mask has to be carried to the states. What the feature extractor itself pads, such as
all sounds to 30 s, counts as it does in a plain call, unless its mask has a place for each of the states.
"""

import contextlib
import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contrasim_cli.errors import InputError, UsageError, out_of_memory, reason
from contrasim_cli.extraction.networks.axes import recorded, width_axis
from contrasim_cli.extraction.networks.hooks import hooked
from contrasim_cli.extraction.networks.network import ALIKE, ANY, Inputs, given_mask, shapes
from contrasim_cli.extraction.networks.pretrained import Pretrained
from contrasim_cli.extraction.networks.probe import Probe, unlike
from contrasim_cli.extraction.pooling import pool_maps, pool_tokens
from contrasim_cli.extraction.sources.sounds import Sound, read_sound, sample_count
from contrasim_cli.extraction.sources.source import BadItem, Items, Source
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

SECONDS = (1.0, 1.5)  # of made-up sounds of two lengths


@dataclass
class Sounds:
    """A block of sound files for the feature extractor."""

    network: "AudioNetwork"
    items: Items
    cut: Sequence[int] = ()
    truncated: int = 0
    unknown: None = None

    @cached_property
    def lengths(self) -> list[int]:
        """The length of each sound in samples; all are equal where the feature extractor makes them so."""
        if self.network.fixed:
            return [1] * len(self.items)
        return [sample_count(path, self.network.rate) for path in self.items]

    @cached_property
    def units(self) -> list[list[str]] | None:
        """The numbers of each sound's frames, where every frame is a row."""
        if self.network.pooling != "none":
            return None
        counts = [self.network.frame_count(self._inputs(row)) for row in range(len(self.items))]
        return [list(map(str, range(count))) for count in counts]

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        found = [self._inputs(row) for row in rows]
        if len({shapes(one.values()) for one in found}) > 1:
            raise InputError(f"{quoted(self.network.name)}: its sounds come in different lengths; give --batch-size 1")
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    def _inputs(self, row: int) -> Inputs:
        path: Path = self.items[row]
        try:
            inputs = self.network.heard(read_sound(path, self.network.rate))
            self.network.check(inputs)
        except Unheard as error:
            raise BadItem(f"{quoted(path)}: {error}") from error
        return inputs


class Unheard(InputError):
    """A sound that the feature extractor, or the model, does not take."""


@dataclass
class AudioNetwork(Pretrained):
    """An encoder of sounds, with its feature extractor.

    `fixed`: the feature extractor makes all sounds equally long. `leading` counts the tokens before the frames: CLS, distillation.
    """

    source: Source | None = None
    extractor: Any = None
    axes: dict[str, int | None] = field(default_factory=dict, init=False)  # of the width, in what modules put out
    framed: set[str] = field(default_factory=set, init=False)  # layers that have the leading tokens too

    def __post_init__(self) -> None:
        self.parameters = self.part.parameters
        self.rate = _rate(self.extractor, self.name)
        self.short, self.long = (self._noise(seconds) for seconds in SECONDS)
        self.fixed = shapes(self.short.values()) == shapes(self.long.values())
        self.leading = self._leading_tokens()
        self.outline = _outline(self.model)
        self.has_outline = self._token_count(self.short) > 0
        if self.pooling == "none" and not self.has_outline:
            raise UsageError(
                f"--pool none: the number of frames that {quoted(self.name)} makes of a sound is not known before it "
                "runs; give another --pool"
            )
        if self.pooling == "cls" and not self.leading:
            raise UsageError(f"{quoted(self.name)} has no CLS token; give --pool mean")
        if self.fixed:
            log.warning(
                "%s: its feature extractor makes all sounds equally long, shorter ones are filled up and longer ones cut: a row is "
                "made of all frames, filled ones too, as in a plain call",
                quoted(self.name),
            )

    def prepare(self, items: Items, first: int) -> Sounds:
        made = Sounds(self, items)
        _ = made.units  # for which sounds are read, so that what cannot be read is known here
        return made

    def about(self) -> dict[str, Any]:
        return super().about() | {"sampling_rate": self.rate}

    def heard(self, sound: Sound) -> dict[str, Tensor]:
        """All that the feature extractor returns for one sound and the model takes.

        Raises:
            Unheard: the feature extractor does not take the sound.
            InputError: it returns nothing that the model takes.
        """
        try:
            with _seeded():
                made = self.extractor(sound, sampling_rate=self.rate, return_tensors="pt")
        except Exception as error:  # which raises whatever its author chose
            if out_of_memory(error):
                raise
            raise Unheard(
                f"{len(sound)} samples are refused by the feature extractor ({type(error).__name__}: {reason(error)})"
            ) from error
        found = {name: made[name] for name in made if name in self.parameters and isinstance(made[name], Tensor)}
        if not any(one.is_floating_point() for one in found.values()) or {len(one) for one in found.values()} != {1}:
            taken = ", ".join(f"{name} {list(one.shape)}" for name, one in found.items())
            raise InputError(
                f"{quoted(self.name)}: its feature extractor gives {', '.join(made)}, of which the model takes "
                f"{taken or 'nothing'}; give --model file.py:function"
            )
        return found

    def check(self, inputs: Inputs) -> None:
        """Refuse a sound that is too short for the model, where that shows in the shapes alone.

        Raises:
            Unheard: the model fails with it.
        """
        is_short = not self.fixed and _size(inputs) < _size(self.short)
        if is_short and self.has_outline and self._token_count(inputs) == 0:
            raise Unheard("is too short for the model, which makes no frame of it")

    def frame_count(self, inputs: Inputs) -> int:
        """How many frames the hidden states of one sound have, without those that are padding."""
        count = self._token_count(inputs) - self.leading
        mask = given_mask(inputs, 1, count)
        return count if mask is None else int(mask.sum())

    def _token_count(self, inputs: Inputs) -> int:
        """How many tokens the last hidden state has, found by shapes alone; 0 where the model fails."""
        # a mask has values that a model may look at, and no say in shapes
        given = {name: one.to("meta") for name, one in self._given(inputs).items() if "mask" not in name}
        try:
            with torch.inference_mode():
                states = self.part.states(self.outline(**given, output_hidden_states=True, return_dict=True))
        except Exception:  # in which way is the model's own business
            return 0
        return states[-1].shape[1] if states and states[-1].ndim == 3 else 0

    def _leading_tokens(self) -> int:
        """How many tokens of the embeddings, from the first on, do not depend on the sound."""
        noises = self.short, {name: _unlike(one) for name, one in self.short.items()}
        states = [self.part.states(self._forward(noise)) for noise in noises]
        if not all(found and found[0].ndim == 3 for found in states):
            return 0
        first, second = (found[0].float() for found in states)
        differs = (first - second).abs().amax(dim=(0, 2)) > 1e-6 * first.abs().max()
        return int(differs.int().argmax())

    def _noise(self, seconds: float) -> dict[str, Tensor]:
        sound = np.random.default_rng(0).standard_normal(round(self.rate * seconds)).astype(np.float32)
        return self.heard(0.1 * sound)

    def _found(
        self, names: Iterable[str], states: Mapping[str, Tensor], modules: Mapping[str, nn.Module], inputs: Inputs
    ) -> dict[str, Tensor | str]:
        names = list(names)
        self._look_at_axes({name: modules[name] for name in names if name not in states})
        return super()._found(names, states, modules, inputs)

    def _look_at_axes(self, layers: Mapping[str, nn.Module]) -> None:
        """Which axis is the width, of what modules put out, and which layers have the leading tokens.

        Of [n, a, b] the axis that is longer for a longer sound is time; where sounds are all equally long, and in maps, the kinds
        of the modules' parts say it.
        """
        with recorded(self.model, layers) as parts, hooked(layers) as outputs:
            hidden = self.part.states(self._forward(self.short))
        with hooked(layers) as longer:
            self._forward(self.long)
        for name, found in outputs.items():
            if len(found) == len(longer[name]) == 1 and found[0] is not None and found[0].ndim > 2:
                self.axes[name] = self._width_axis(name, found[0], longer[name][0], parts[name])
        shown = {f"hidden_{index}": state for index, state in enumerate(hidden)}
        shown |= {name: found[0] for name, found in outputs.items() if name in self.axes and found[0] is not None}
        count = hidden[0].shape[1] if hidden and self.leading else None
        self.framed = {
            name
            for name, state in shown.items()
            if state.ndim == 3 and state.shape[3 - (self.axis(name, 3) or 2)] == count
        }

    def _width_axis(self, name: str, short: Tensor, long: Tensor | None, parts: Sequence[Any]) -> int | None:
        changed = [axis for axis in (1, 2) if long is not None and short.shape[axis] != long.shape[axis]]
        if short.ndim == 3 and len(changed) == 1:
            return 3 - changed[0]
        return width_axis(name, short, parts)

    def axis(self, name: str, dimensions: int) -> int | None:
        """The axis of the width: of hidden states the last one, of maps the first; None where nothing says which."""
        return self.axes.get(name, 1 if dimensions == 4 else 2)

    def _usable(self, name: str, outputs: Sequence[Tensor | None], inputs: Inputs) -> Tensor | str:
        state = super()._usable(name, outputs, inputs)
        if isinstance(state, str) or state.ndim == 2:
            return state
        if self.axis(name, state.ndim) is None:
            return f"layer {quoted(name)} puts out {list(state.shape)}, and nothing says which axis is its width"
        if self.pooling == "cls" and name not in self.framed:
            return f"layer {quoted(name)} has no CLS token"
        count = self._arranged(name, state).shape[1]
        if self.pooling == "none" and count != self._token_count(inputs) - self.leading:
            return f"layer {quoted(name)} has {count} frames, and the last hidden state another number of them"
        return state

    def _collected(self, inputs: Inputs, hooks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        return {name: self._arranged(name, state) for name, state in super()._collected(inputs, hooks).items()}

    def _arranged(self, name: str, state: Tensor) -> Tensor:
        """The frames [n, frames, width] of a state, or, for `cls`, its first token; maps as [n, width, height, width]."""
        axis = self.axis(name, state.ndim)
        if state.ndim == 2 or axis is None:
            return state
        if state.ndim == 4:
            return state.movedim(axis, 1)
        state = state.movedim(axis, 2)
        if name not in self.framed:
            return state
        return state[:, :1] if self.pooling == "cls" else state[:, self.leading :]

    def _given(self, inputs: Inputs) -> Inputs:
        return inputs

    def _has_whole_items(self) -> bool:
        return self.pooling != "none"

    def _probe(self, inputs: Inputs) -> None:
        super()._probe(inputs)
        if self.grouping == ANY:  # sounds of one length were tried
            self.grouping = ALIKE

    def _probes(self, inputs: Inputs) -> Mapping[str, Probe]:
        other = {name: _unlike(one) for name, one in inputs.items()}
        return {ANY: ([inputs, other], {name: torch.cat([inputs[name], other[name]]) for name in inputs})}

    @property
    def _expected(self) -> str:
        maps = ", maps of 4 axes" if self.pooling in ("mean", "max") else ""
        return f"[n, frames, width]{maps}" + (" or [n, width]" if self._has_whole_items() else "")

    def _fits(self, state: Tensor, inputs: Inputs) -> bool:
        if state.ndim == 2:
            return self._has_whole_items()
        return state.ndim == 3 or (state.ndim == 4 and self.pooling in ("mean", "max"))

    def _row(self, states: Tensor, inputs: Inputs) -> Tensor:
        if states.ndim == 2:
            return states
        if states.ndim == 4:
            return pool_maps(states, self.pooling)
        mask = given_mask(inputs, *states.shape[:2])
        mask = torch.ones(states.shape[:2], dtype=torch.bool) if mask is None else mask
        mask = mask.to(states.device)
        return states[mask] if self.pooling == "none" else pool_tokens(states, mask, self.pooling)

    def _shape(self, state: Tensor, inputs: Inputs) -> str:
        return str(["rows", *state.shape[1:]]).replace("'", "")

    def _made_up(self) -> dict[str, Tensor]:
        return self.short


def _rate(extractor: Any, name: str) -> int:
    rate = getattr(extractor, "sampling_rate", None)
    if not isinstance(rate, int) or rate < 1:
        raise InputError(
            f"{quoted(name)}: its preprocessor_config.json does not say at which sampling_rate the model takes sounds"
        )
    return rate


def _outline(model: nn.Module) -> nn.Module:
    """A copy of a model without its weights, which makes shapes alone."""
    memory: dict[int, Any] = {
        id(one): nn.Parameter(torch.empty_like(one, device="meta"), False) for one in model.parameters()
    }
    memory |= {id(one): torch.empty_like(one, device="meta") for one in model.buffers()}
    return copy.deepcopy(model, memory)


def _unlike(one: Tensor) -> Tensor:
    """Another sound of the same length; masks stay what they are."""
    return unlike(one) if one.is_floating_point() else one


def _size(inputs: Inputs) -> int:
    return sum(one.numel() for one in inputs.values())


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """A block in which what a feature extractor draws at random, such as the piece of a long sound, is the same every time."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)
