"""A step's rows through the encoder: all models and layers of one width together.

On a CPU the rows go through in chunks, gathered and widened one by one, so that what they become on their way stays in its
cache.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from contrasim_cli.encoder import Config, Encoder
from contrasim_cli.training.rows import Part

CHUNK_ROWS = 4096


def encode_parts(encoder: Encoder, parts: Iterable[Part], device: torch.device, config: Config) -> Tensor:
    """The encoded items z [items, n, output] of a step, float32."""
    encoded, places = [], []
    dtype: torch.dtype = getattr(torch, config.precision)
    with _autocast(dtype, device):
        for part in parts:
            z = torch.cat([encoder(rows, part.view) for rows in _chunks(part, device, dtype)])
            encoded.append(z.view(len(part.places), -1, z.shape[-1]))
            places.extend(part.places)
    z = encoded[0] if len(encoded) == 1 else torch.cat(encoded)
    if places == list(range(len(places))):
        return z
    return z[torch.tensor(places, device=z.device).argsort()]


def _chunks(part: Part, device: torch.device, dtype: torch.dtype) -> Iterator[Tensor]:
    step = CHUNK_ROWS if device.type == "cpu" else max(1, part.n_rows)
    for start in range(0, part.n_rows, step):
        yield part.rows(slice(start, start + step)).to(device).to(dtype)


def _autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Weights are cast anew for every chunk, so that the chunks' gradients add up in float32."""
    reduced = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if reduced else None, enabled=reduced, cache_enabled=False)
