"""Noise ceiling of representational similarity analysis: what the best model could score, told by repeated measurements.

Nili et al. 2014. Repeats are layers [n, p_i] of the same rows, such as subjects or sessions; their widths may differ.
"""

from collections.abc import Callable, Sequence

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures.distances import average_ranks, unit
from contrasim_cli.measures.matrices import (
    RANKS,
    WHITENED,
    Matrix,
    Pairs,
    inner,
    kendall,
    ranked,
    rsa_preparer,
    whitened,
)


def noise_ceiling(repeats: Sequence[Tensor], rsm: str, compare: str) -> tuple[float, float]:
    """(lower, upper) mean score of a repeat's matrix with the pooled one, of the others alone, and of all of them; NaN: undefined.

    Pooled is the mean of matrices of one norm (`pearson`, `corr-cov`: less their means; ranks as they are), as in rsatoolbox, which
    takes that norm before whitening. The true ceiling lies between them where repeats differ by independent noise.

    Raises:
        ValueError: there are fewer than two repeats.
    """
    if len(repeats) < 2:
        raise ValueError(f"a noise ceiling needs two or more repeats, found {len(repeats)}")
    parts = xp.stack([_poolable(x, rsm, compare) for x in repeats])
    score = _score(compare)
    ready = [_prepared(part, compare) for part in parts]
    whole = _prepared(parts.mean(dim=0), compare)
    others = [_prepared((parts.sum(dim=0) - part) / (len(parts) - 1), compare) for part in parts]
    low = xp.stack([score(own, pooled) for own, pooled in zip(ready, others, strict=True)]).mean()
    high = xp.stack([score(own, whole) for own in ready]).mean()
    return float(low), float(high)


def _poolable(x: Tensor, rsm: str, compare: str) -> Tensor:
    """What is averaged over repeats: twice the ranks [pairs], or values of norm 1 [pairs] or [n, n]."""
    prepared = rsa_preparer(rsm, "tau-a" if compare in RANKS else compare)(x)
    values: Tensor = prepared.values
    return values


def _prepared(values: Tensor, compare: str) -> Pairs | Matrix:
    """Averaged values as the comparison takes a side."""
    if compare in WHITENED:
        return Matrix(unit(values, dim=(-2, -1)))
    if compare not in RANKS:
        return Pairs(unit(values, dim=-1))
    return Pairs(ranked(average_ranks(values), compare))


def _score(compare: str) -> Callable[..., Tensor]:
    return whitened if compare in WHITENED else kendall if compare == "tau-a" else inner
