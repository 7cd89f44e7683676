"""Models of images: one row per image."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError, reason
from contrasim_cli.extraction.networks.axes import arranged, model_axes
from contrasim_cli.extraction.networks.network import ANY, Inputs, given_mask, shapes
from contrasim_cli.extraction.networks.pretrained import Pretrained
from contrasim_cli.extraction.networks.probe import Probe, constant_tokens, unlike
from contrasim_cli.extraction.pooling import masked_mean, pool_maps, pool_patches
from contrasim_cli.extraction.sources.images import blank_image, open_image
from contrasim_cli.extraction.sources.source import Items, Source
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

HELD = 1 << 26  # of images that are held at once; one may have more
PIXELS = "pixel_values"
SIDE = 224  # of a made-up image, where the config does not say


@dataclass
class Pixels:
    """A block of images: an array [n, channels, height, width], or files for the image processor."""

    network: "VisionNetwork"
    items: Items
    cut: Sequence[int] = ()
    units: None = None
    truncated: int = 0
    unknown: None = None

    @property
    def lengths(self) -> list[int]:
        return [1] * len(self.items)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        if self.network.processor is None:
            return {PIXELS: _pixels(np.asarray(self.items[rows]))}
        parts = [self.network.processed(images) for images in self._images(rows)]
        if len({one.shape[1:] for part in parts for one in part.values()}) > len(parts[0]):
            raise InputError(f"{self.network.name}: its images come in different sizes; give --batch-size 1")
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _images(self, rows: Sequence[int]) -> Iterator[list[Any]]:
        """The images in parts, so that no more large ones are held than have to be."""
        images: list[Any] = []
        pixels = 0
        for row in rows:
            images.append(open_image(self.items[row], self.network.channels))
            pixels += images[-1].width * images[-1].height
            if pixels > HELD:
                yield images
                images, pixels = [], 0
        if images:
            yield images


def _pixels(array: npt.NDArray[Any]) -> Tensor:
    if array.ndim == 3:
        array = array[:, None]
    return torch.from_numpy(array.astype(np.float32))


@dataclass
class VisionNetwork(Pretrained):
    """An encoder of images, with its image processor where files are read.

    `extra` says which of so many tokens are no patches: CLS, distillation, register and detection tokens.
    """

    source: Source | None = None
    processor: Any = None
    extra: dict[int, tuple[int, ...]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.parameters = self.part.parameters
        self.words = None if self.options.axes is None else model_axes(self.options.axes)
        if self.words and self.pooling:
            raise UsageError("--axes says what is averaged and --pool too; give one of them")
        if self.words:
            self.pooling = f"axes {','.join(self.words)}"
        if not self.pooling:
            self._look_at_tokens(self._made_up())

    @property
    def channels(self) -> int | None:
        found = getattr(self.model.config, "num_channels", None)
        return found if isinstance(found, int) else None

    def prepare(self, items: Items, first: int) -> Pixels:
        return Pixels(self, items)

    def processed(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """All that the processor returns and the model takes."""
        made = self.processor(images=images, return_tensors="pt")
        found = {name: made[name] for name in made if name in self.parameters and isinstance(made[name], Tensor)}
        counts = {len(one) for one in found.values()}
        if counts != {len(images)}:
            raise InputError(
                f"{quoted(self.name)}: its processor gives no array with an axis of images "
                f"({', '.join(f'{name} {list(one.shape)}' for name, one in found.items()) or 'nothing that the model takes'}); "
                "give --model file.py:function"
            )
        return found

    def discover(self, inputs: Inputs) -> dict[str, int]:
        pixels = inputs[PIXELS]
        if pixels.ndim != 4 and not (self.processor and pixels.ndim == 3):  # patches, each flattened
            raise MismatchError(
                f"{self._where}: a row is {shapes([pixels])}; {quoted(self.name)} takes [channels, height, width]"
            )
        if self.channels is not None and pixels.ndim == 4 and pixels.shape[1] != self.channels:
            raise MismatchError(
                f"{self._where}: images have {pixels.shape[1]} channels, {quoted(self.name)} takes {self.channels}"
            )
        self._look_at_tokens(inputs)
        return super().discover(inputs)

    def widths(self) -> dict[str, str]:
        self._look_at_tokens(self._made_up())
        return super().widths()

    def _look_at_tokens(self, inputs: Inputs) -> None:
        """Which tokens are no patches, and, where it was not asked for, what makes the row of an image."""
        generator = torch.Generator().manual_seed(0)
        others = [{**inputs, PIXELS: torch.randn(inputs[PIXELS].shape, generator=generator)} for _ in range(2)]
        self.extra = constant_tokens(self.model, self._forward, others)
        states = self.part.states(self._forward(inputs))
        has_cls = bool(states) and states[-1].ndim == 3 and 0 in self.extra.get(states[-1].shape[1], ())
        if not self.pooling:
            self.pooling = "cls" if has_cls else _mean_of(states)
            if not has_cls:
                log.info("%s has no CLS token: a row is the mean over its image (--pool %s)", self.name, self.pooling)
        if self.pooling == "cls" and not has_cls and not self.options.layers:
            raise UsageError(f"{quoted(self.name)} has no CLS token; give --pool {_mean_of(states)}")

    @property
    def _where(self) -> str:
        return quoted(self.source.name) if self.source else "input"

    def _failure(self, error: Exception, inputs: Inputs) -> ContraSimError:
        if getattr(self.model.config, "num_frames", None):
            return UsageError(
                f"{quoted(self.name)}: is a model of videos [frames, channels, height, width], and takes no single images; give "
                "--model file.py:function with --arrays"
            )
        if isinstance(error, (ValueError, TypeError)):
            return MismatchError(
                f"{self._where}: {quoted(self.name)} does not take images {shapes(inputs.values())} ({reason(error)})"
            )
        return super()._failure(error, inputs)

    def _given(self, inputs: Inputs) -> Inputs:
        return {name: tensor for name, tensor in inputs.items() if name in self.parameters}

    def _probes(self, inputs: Inputs) -> Mapping[str, Probe]:
        other = {**inputs, PIXELS: unlike(inputs[PIXELS])}
        return {ANY: ([inputs, other], {name: torch.cat([inputs[name], other[name]]) for name in inputs})}

    @property
    def _expected(self) -> str:
        if self.words:
            return f"[n, width] or {len(self.words)} axes"
        maps = "" if self.pooling == "cls" else ", [n, channels, height, width]"
        return f"[n, tokens, width]{maps} or [n, width]"

    def _fits(self, state: Tensor, inputs: Inputs) -> bool:
        if self.words:
            return state.ndim in (2, len(self.words))
        if state.ndim == 3:
            return self.pooling != "cls" or 0 in self.extra.get(state.shape[1], ())
        return state.ndim == 2 or (state.ndim == 4 and self.pooling != "cls")

    def _row(self, states: Tensor, inputs: Inputs) -> Tensor:
        if self.words and states.ndim == len(self.words):
            return arranged(states, self.words)
        if self.pooling == "flatten":
            return states.flatten(1)
        if states.ndim == 4:
            return pool_maps(_channels_first(states, inputs[PIXELS]), self.pooling)
        if states.ndim == 2:
            return states
        mask = given_mask(inputs, *states.shape[:2])
        if mask is not None and self.pooling != "cls":
            return masked_mean(states, mask.to(states.device))
        return pool_patches(states, self.extra.get(states.shape[1], ()), self.pooling)

    def _shape(self, state: Tensor, inputs: Inputs) -> str:
        return str(["rows", *state.shape[1:]]).replace("'", "")

    def _made_up(self) -> dict[str, Tensor]:
        if self.processor is not None:
            return self.processed([blank_image(SIDE, self.channels)])
        shape = (getattr(self.model.config, "pretrained_cfg", None) or {}).get("input_size", [SIDE])
        size = getattr(self.model.config, "image_size", None) or shape[-1]
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(1, self.channels or 3, height, width)}


def _mean_of(hidden: Sequence[Tensor] | None) -> str:
    """The mean over an image: of its patches, or of its feature maps."""
    return "patch-mean" if hidden and hidden[0].ndim == 3 else "spatial-mean"


def _channels_first(maps: Tensor, pixels: Tensor) -> Tensor:
    """Feature maps with their channels behind the rows, wherever the module has them.

    Inside ConvNeXt's blocks they come last. The two axes whose lengths are as those of the image are the map's space.
    """
    of_image, of_first, of_last = (
        math.log(size[0] / size[1]) for size in (pixels.shape[2:], maps.shape[2:], maps.shape[1:3])
    )
    last = abs(of_last - of_image) < abs(of_first - of_image)
    return maps.permute(0, 3, 1, 2) if last else maps
