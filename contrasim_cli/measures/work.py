"""How much work measures are, before anything is read: in multiplications, of which NumPy does some 3e10 a second by one thread.

The factors are those by which estimates are nearest to the seconds that `tests/studies/little.py` measures, most within 4 times.
"""

from collections.abc import Iterable, Sequence

from contrasim_cli.measures import Entry

FACTORED = 15  # of a decomposition of a matrix [p, p], over p³
SORTED = 700  # of a pair of rows: its distance's root, its rank, its kernel
LOOKED_AT = 100  # of a value that goes into no product
LINEAR = ("n p", "n batch (p + q)")  # costs without a product of one layer with another


def multiplications(
    entries: Iterable[Entry], n_rows: int, widths: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> float:
    """About as many as preparing layers [n, p] of these widths takes by all measures, and comparing pairs of them."""
    n = float(n_rows)
    values = LOOKED_AT * n * sum(widths)
    squares = n * n * sum(p + SORTED for p in widths)
    products = n * (sum(min(n, p) * p for p in widths) + sum(p * q for p, q in pairs))
    ranks = [min(n, p) for p in widths], [(min(n, p), min(n, q)) for p, q in pairs]
    factors = FACTORED * (sum(p**3 for p in ranks[0]) + sum(p * q * min(p, q) for p, q in ranks[1]))

    def of(entry: Entry) -> float:
        if entry.cost in LINEAR:
            return values
        if entry.quadratic:
            return squares
        return products + (0 if entry.family == "cka" else factors)  # the only family that decomposes nothing

    return sum(map(of, entries))
