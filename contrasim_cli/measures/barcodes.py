"""Barcodes of loops: when the holes of a growing complex of vertices, edges and triangles appear, and when they are filled.

Exact, over the field of two elements, as Ripser and GUDHI compute them. NumPy on the CPU.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Keys = npt.NDArray[np.int64]


def rips_loops(distances: Floats) -> Floats:
    """[loops, 2] lengths at which the loops of the Vietoris-Rips complex of [n, n] distances appear and are filled.

    Persistent cohomology, as in Ripser (Bauer 2021): an edge that closes a loop is paired with the triangle that fills it, from the
    last edge to the first. A loop whose edge is the longest of a triangle is filled at once; what is left are edges of the relative
    neighbourhood graph, which are few. Memory n², time n³ comparisons and the reduction of those few edges.
    """
    n = len(distances)
    first, second = np.triu_indices(n, 1)
    order = np.argsort(distances[first, second], kind="stable")
    first, second = first[order], second[order]
    lengths = distances[first, second]
    place = np.full((n, n), -1, dtype=np.int32)  # of every edge in that order
    place[first, second] = place[second, first] = np.arange(len(order))
    ends = [
        (e, int(first[e]), int(second[e])) for e in np.flatnonzero(~_longest_of_three(place)[first, second]).tolist()
    ]
    reduced: dict[int, Keys] = {}
    found = []
    for edge, i, j in reversed(_closing(ends, n)):
        column = _triangles(place, i, j)
        while True:
            pivot = int(column[0])
            longest = pivot // n
            other = reduced.get(pivot)
            if other is None and longest != edge:  # or the triangle fills the loop of its longest edge at once
                around = _triangles(place, int(first[longest]), int(second[longest]))
                other = around if around[0] == pivot else None
            if other is None:
                break
            column = np.setxor1d(column, other, assume_unique=True)
        reduced[pivot] = column
        found.append((lengths[edge], lengths[longest]))
    loops = np.array(found, dtype=np.float64).reshape(-1, 2)
    return loops[loops[:, 0] < loops[:, 1]]


def _longest_of_three(place: Ints) -> npt.NDArray[np.bool_]:
    """Whether the edge i, j comes after both others of some triangle [n, n]."""
    nearest = np.stack([np.maximum(row, place).min(axis=1) for row in place])
    return nearest < place


def _closing(edges: Sequence[tuple[int, int, int]], n: int) -> list[tuple[int, int, int]]:
    """The edges (place, end, end), in order, whose ends are connected by earlier ones."""
    parent = list(range(n))

    def root(vertex: int) -> int:
        while parent[vertex] != vertex:
            parent[vertex] = parent[parent[vertex]]
            vertex = parent[vertex]
        return vertex

    closing = []
    for edge in edges:
        one, other = root(edge[1]), root(edge[2])
        if one == other:
            closing.append(edge)
        parent[one] = other
    return closing


def _triangles(place: Ints, i: int, j: int) -> Keys:
    """The triangles on an edge [n - 2], in their order: place of the longest edge times n, plus the vertex opposite to it."""
    n = len(place)
    own, to_i, to_j = int(place[i, j]), place[i].astype(np.int64), place[j].astype(np.int64)
    longest = np.maximum(np.maximum(to_i, to_j), own)
    opposite = np.where(longest == own, np.arange(n), np.where(longest == to_i, j, i))
    keys = longest * n + opposite
    keys = np.delete(keys, [i, j])
    keys.sort()
    return keys


def witness_loops(distances: Floats, most: float) -> Floats:
    """[loops, 2] relaxations at which the loops of a witness complex appear and are filled; `most` for those that last.

    Rows of [witnesses, landmarks] are distances. A simplex appears at the least relaxation r ≤ `most` at which some witness is no
    farther from each of its vertices than r more than from any other landmark, and all its faces have appeared
    (de Silva & Carlsson 2004; GUDHI's WitnessComplex).
    """
    count = distances.shape[1]
    order = np.argsort(distances, axis=1, kind="stable")
    near = np.take_along_axis(distances, order, axis=1)
    edges = _witnessed(order, near, most, 2).reshape(count, count)
    edges = np.minimum(edges, edges.T)
    first, second = np.nonzero(np.triu(edges <= most, 1))
    by_length = np.argsort(edges[first, second], kind="stable")
    first, second = first[by_length], second[by_length]
    lengths = edges[first, second]
    place = np.full((count, count), -1, dtype=np.int64)
    place[first, second] = place[second, first] = np.arange(len(first))
    triples, values = _triples(_witnessed(order, near, most, 3).reshape(count, count, count), edges, most)
    born = {edge for edge, _, _ in _closing([(e, int(first[e]), int(second[e])) for e in range(len(first))], count)}
    reduced: dict[int, int] = {}
    found = []
    for (a, b, c), value in zip(triples.tolist(), values.tolist(), strict=True):
        if not born:
            break
        column = (1 << int(place[a, b])) ^ (1 << int(place[a, c])) ^ (1 << int(place[b, c]))
        while column and (last := column.bit_length() - 1) in reduced:
            column ^= reduced[last]
        if column:
            reduced[last] = column
            born.discard(last)
            found.append((lengths[last], value))
    found += [(lengths[edge], most) for edge in sorted(born)]
    loops = np.array(found, dtype=np.float64).reshape(-1, 2)
    return loops[loops[:, 0] < loops[:, 1]]


def _witnessed(order: Keys, near: Floats, most: float, size: int) -> Floats:
    """[landmarks^size] the least relaxation at which so many landmarks, in rising order, have a witness; inf: none."""
    count = order.shape[1]
    found = np.full(count**size, np.inf)
    place = np.arange(size)
    while size <= count:
        outside = next((k for k in range(size) if place[k] != k), size)  # the nearest landmark that is no vertex
        beyond = near[:, place[-1]] - near[:, outside] if outside < count else np.zeros(len(near))
        some = np.flatnonzero(beyond <= most)
        if len(some):
            vertices = np.sort(order[some][:, place], axis=1)
            np.minimum.at(found, vertices @ count ** np.arange(size)[::-1], np.maximum(beyond[some], 0.0))
        step = _next(place, count, bool(len(some)))
        if step is None:
            break
        place = step
    return found


def _next(place: Keys, count: int, fits: bool) -> Keys | None:
    """The next rising places of vertices among the landmarks, nearest first; where these do not fit, farther ones do not either."""
    size = len(place)
    for k in range(size - 1 if fits else size - 2, -1, -1):
        if place[k] + size - k < count:
            return np.concatenate([place[:k], place[k] + 1 + np.arange(size - k)])
    return None


def _triples(values: Floats, edges: Floats, most: float) -> tuple[Keys, Floats]:
    """Vertices [triangles, 3] and relaxations of the triangles whose edges have appeared, in their order."""
    a, b, c = np.nonzero(values <= most)
    found = np.maximum.reduce([values[a, b, c], edges[a, b], edges[a, c], edges[b, c]])
    kept = np.flatnonzero(found <= most)
    kept = kept[np.argsort(found[kept], kind="stable")]
    return np.stack([a, b, c], axis=1)[kept], found[kept]
