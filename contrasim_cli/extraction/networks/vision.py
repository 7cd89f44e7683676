"""Models of images: one row per image."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli.errors import InputError, MismatchError, UsageError, reason
from contrasim_cli.extraction.networks.network import Inputs, shapes
from contrasim_cli.extraction.networks.pretrained import Pretrained
from contrasim_cli.extraction.pooling import pool_maps, pool_patches
from contrasim_cli.extraction.sources.images import open_image
from contrasim_cli.extraction.sources.source import Items, Source
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

PIXELS = 1 << 26  # of images that are held at once; one may have more
SIDE = 224  # of a made-up image, where the config does not say
CLS_NAMES = ("cls_token", "class_embedding")


@dataclass
class Pixels:
    """A block of images: an array [n, channels, height, width], or files for the image processor."""

    network: "VisionNetwork"
    items: Items
    cut: Sequence[int] = ()
    units: None = None
    truncated: int = 0

    @property
    def lengths(self) -> list[int]:
        return [1] * len(self.items)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        if self.network.processor is None:
            return {"pixel_values": _pixels(np.asarray(self.items[rows]))}
        parts = [self._processed(images) for images in self._images(rows)]
        if len({part.shape[1:] for part in parts}) > 1:
            raise InputError(f"{self.network.name}: its images come in different sizes; give --batch-size 1")
        return {"pixel_values": torch.cat(parts) if len(parts) > 1 else parts[0]}

    def _processed(self, images: Sequence[Any]) -> Tensor:
        pixels: Tensor = self.network.processor(images=images, return_tensors="pt")["pixel_values"]
        return pixels

    def _images(self, rows: Sequence[int]) -> Iterator[list[Any]]:
        """The images in parts, so that no more large ones are held than have to be."""
        images: list[Any] = []
        pixels = 0
        for row in rows:
            images.append(open_image(self.items[row], self.network.channels))
            pixels += images[-1].width * images[-1].height
            if pixels > PIXELS:
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

    `extra` tokens stand before the patches: CLS, distillation and register tokens.
    """

    source: Source | None = None
    processor: Any = None
    extra: int = field(default=0, init=False)
    patches: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.pooling = self.pooling or self._default_pool()

    @property
    def channels(self) -> int | None:
        found = getattr(self.model.config, "num_channels", None)
        return found if isinstance(found, int) else None

    def prepare(self, items: Items, first: int) -> Pixels:
        return Pixels(self, items)

    def discover(self, inputs: Inputs) -> dict[str, int]:
        pixels = inputs["pixel_values"]
        if pixels.ndim != 4:
            raise MismatchError(
                f"{self._where}: a row is {shapes([pixels])}; {quoted(self.name)} takes [channels, height, width]"
            )
        if self.channels is not None and pixels.shape[1] != self.channels:
            raise MismatchError(
                f"{self._where}: images have {pixels.shape[1]} channels, {quoted(self.name)} takes {self.channels}"
            )
        self._count_tokens(inputs)
        return super().discover(inputs)

    @property
    def _where(self) -> str:
        return quoted(self.source.name) if self.source else "input"

    def _forward(self, inputs: Inputs) -> Any:
        try:
            return super()._forward(inputs)
        except (ValueError, TypeError) as error:
            raise MismatchError(
                f"{self._where}: {quoted(self.name)} does not take images {shapes(inputs.values())} ({reason(error)})"
            ) from error

    def _default_pool(self) -> str:
        """CLS where there is one; else the mean over the image."""
        if self._has_cls():
            return "cls"
        chosen = _mean_of(self._forward(self._made_up()).hidden_states)
        log.info("%s has no CLS token: a row is the mean over its image (--pool %s)", self.name, chosen)
        return chosen

    def _has_cls(self) -> bool:
        return any(name.rpartition(".")[2] in CLS_NAMES for name, _ in self.model.named_parameters())

    def _count_tokens(self, inputs: Inputs) -> None:
        """How many tokens are patches, and how many stand before them."""
        output = self._forward(inputs)
        hidden = getattr(output, "hidden_states", None)
        # Swin's kind merges patches from stage to stage and has no other tokens
        merges = getattr(output, "reshaped_hidden_states", None) is not None
        if hidden and hidden[0].ndim == 3 and not merges:
            self.patches = self._patches(inputs["pixel_values"])
            self.extra = hidden[0].shape[1] - self.patches
        if self.pooling == "cls" and self.extra < 1:
            raise UsageError(f"{quoted(self.name)} has no CLS token; give --pool {_mean_of(hidden)}")

    def _patches(self, pixels: Tensor) -> int:
        size = getattr(self.model.config, "patch_size", None)
        if size is None:
            raise InputError(
                f"{quoted(self.name)}: its config.json has no patch_size, so that its patches cannot be told apart"
            )
        height, width = (size, size) if isinstance(size, int) else size
        return (pixels.shape[2] // height) * (pixels.shape[3] // width)

    @property
    def _expected(self) -> str:
        grids = "[n, tokens, width]" + (f" with {self.extra} + {self.patches} tokens" if self.extra else "")
        maps = "" if self.pooling == "cls" else ", [n, channels, height, width]"
        return f"{grids}{maps} or [n, width]"

    def _fits(self, state: Tensor, inputs: Inputs) -> bool:
        if state.ndim == 3:
            # a state of the patches alone has no CLS
            return not self.extra or state.shape[1] == self.extra + self.patches
        return state.ndim == 2 or (state.ndim == 4 and self.pooling != "cls")

    def _row(self, states: Tensor, inputs: Inputs) -> Tensor:
        if states.ndim == 4:
            return pool_maps(_channels_first(states, inputs["pixel_values"]), self.pooling)
        return states if states.ndim == 2 else pool_patches(states, self.extra, self.pooling)

    def _shape(self, state: Tensor, inputs: Inputs) -> str:
        return str(["rows", *state.shape[1:]]).replace("'", "")

    def _made_up(self) -> dict[str, Tensor]:
        size = getattr(self.model.config, "image_size", None) or SIDE
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
