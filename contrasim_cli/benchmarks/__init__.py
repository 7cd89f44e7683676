"""The benchmarks that tell which measure to trust: layer prediction and retrieval."""

from itertools import permutations

from contrasim_cli.errors import UsageError


def model_pairs(n_models: int, every: bool) -> list[tuple[int, int]]:
    """(0, 1), (2, 3), …, or every ordered pair.

    Raises:
        UsageError: fewer than two models, or an odd number where pairs are disjoint.
    """
    if n_models < 2:
        raise UsageError("bench layers compares two or more stores, one per model")
    if every:
        return list(permutations(range(n_models), 2))
    if n_models % 2:
        raise UsageError(
            f"bench layers makes disjoint pairs of stores, {n_models} is odd; leave one out or give --pairs all"
        )
    return [(i, i + 1) for i in range(0, n_models, 2)]
