"""From the states of tokens, patches or pixels to rows.

States are `[n, tokens, width]` with a mask `[n, tokens]` (1 = a real token, 0 = padding, on either side), or feature
maps `[n, channels, height, width]`. Functions return one row per example `[n, width]`, `span_rows` one per span.
"""

from collections.abc import Collection

import torch
from torch import Tensor

TEXT_POOLS = ("cls", "mean", "first", "last", "max", "none")
MODULE_POOLS = ("cls", "mean", "last", "max", "spatial-mean", "flatten")
AUDIO_POOLS = ("mean", "max", "first", "last", "cls", "none")
IMAGE_POOLS = ("cls", "patch-mean", "spatial-mean", "flatten")
SUBWORDS = ("mean", "first", "last")


def pool_tokens(states: Tensor, mask: Tensor, how: str) -> Tensor:
    """One row per example: `cls` or `first` its first token, `last` its last one, `mean` or `max` all of them.

    Only the tokens of the mask count, which are not padding.
    """
    if how == "mean":
        return masked_mean(states, mask)
    if how == "max":
        return states.masked_fill(~mask.bool().unsqueeze(-1), -torch.inf).amax(dim=1)
    return pick(states, first_token(mask) if how in ("cls", "first") else last_token(mask))


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are no padding, special tokens included."""
    kept = mask.bool().unsqueeze(-1)
    # filled rather than multiplied: what a model leaves in padded places may be NaN
    total = states.masked_fill(~kept, 0).sum(dim=1)
    return total / kept.sum(dim=1)


def first_token(mask: Tensor) -> Tensor:
    """[n] the position of the first token that is no padding."""
    return mask.bool().int().argmax(dim=1)


def last_token(mask: Tensor) -> Tensor:
    """[n] the position of the last token that is no padding."""
    return mask.shape[1] - 1 - first_token(mask.flip(1))


def pick(states: Tensor, positions: Tensor) -> Tensor:
    """The states at one position per example."""
    index = positions.view(-1, 1, 1).expand(-1, 1, states.shape[2])
    return states.gather(1, index).squeeze(1)


def span_rows(states: Tensor, spans: Tensor, how: str) -> Tensor:
    """One row per span [spans, width]: the `first`, the `last`, the `mean` or the `max` of its tokens.

    A span is (example, its first token, the token behind its last one), a row of `spans` [spans, 3].
    """
    item, first, stop = spans.unbind(1)
    if how in ("first", "last"):
        return states[item, first if how == "first" else stop - 1]
    lengths = stop - first
    total = states[item, first]
    join = torch.maximum if how == "max" else torch.add
    # token by token and not by a scattered sum, whose order, and so rounding, a GPU does not keep
    for place in range(1, int(lengths.max()) if len(lengths) else 0):
        longer = (lengths > place).nonzero().squeeze(1)
        total[longer] = join(total[longer], states[item[longer], first[longer] + place])
    return total if how == "max" else total / lengths.unsqueeze(1)


def pool_patches(states: Tensor, extra: Collection[int], how: str) -> Tensor:
    """One row per image: `cls` its first token, `patch-mean` or `spatial-mean` its patches, `flatten` every token.

    The tokens at the places `extra` are no patches: CLS, distillation, register and detection tokens.
    """
    if how == "flatten":
        return states.flatten(1)
    if how == "cls":
        return states[:, 0]
    return states[:, [place for place in range(states.shape[1]) if place not in extra]].mean(dim=1)


def pool_maps(maps: Tensor, how: str) -> Tensor:
    """One row per feature map [n, channels, height, width]: all of it for `flatten`, each channel's `max`, or else its mean."""
    if how == "max":
        return maps.amax(dim=(2, 3))
    return maps.flatten(1) if how == "flatten" else spatial_mean(maps)


def spatial_mean(maps: Tensor) -> Tensor:
    """The mean of every channel over a feature map [n, channels, height, width]."""
    return maps.mean(dim=(2, 3))
