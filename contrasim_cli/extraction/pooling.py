"""From the states of tokens, patches or pixels to one row per example.

States are `[n, tokens, width]` with a mask `[n, tokens]` (1 = a real token, 0 = padding, on either side), or feature
maps `[n, channels, height, width]`. Every function returns `[n, width]`.
"""

from torch import Tensor

TEXT_POOLS = ("cls", "mean", "last")
IMAGE_POOLS = ("cls", "patch-mean")


def pool_tokens(states: Tensor, mask: Tensor, how: str) -> Tensor:
    """One row per example: `cls` its first token, `last` its last one, `mean` all of them; padding never counts."""
    if how == "mean":
        return masked_mean(states, mask)
    return pick(states, first_token(mask) if how == "cls" else last_token(mask))


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


def pool_patches(states: Tensor, extra: int, how: str) -> Tensor:
    """One row per image: `cls` its first token, `patch-mean` the mean of its patches.

    The first `extra` tokens are no patches: CLS, distillation and register tokens.
    """
    return states[:, 0] if how == "cls" else states[:, extra:].mean(dim=1)


def spatial_mean(maps: Tensor) -> Tensor:
    """The mean of every channel over a feature map [n, channels, height, width]."""
    return maps.mean(dim=(2, 3))
