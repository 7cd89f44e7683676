"""The functions of `xp` where arguments are NumPy's arrays; what each takes and gives is what torch's of that name does."""

# mypy: disable-error-code="no-any-return,return-value"

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from contrasim_cli.arrays.array import NUMPY, Array, Plain, axis_of, ours, plain, shape_of

inf, nan = math.inf, math.nan
PASSED = 1 << 17  # values that pass through two operations at once: what a cache holds


class Limits(NamedTuple):
    eps: float
    tiny: float
    max: float


class Factors(NamedTuple):
    """The factors of a QR decomposition."""

    Q: Any
    R: Any


class Tried(NamedTuple):
    """What a Cholesky decomposition comes to."""

    L: Any
    info: Any


class Spectrum(NamedTuple):
    """Eigenvalues in rising order, and their vectors."""

    eigenvalues: Any
    eigenvectors: Any


# --- new ones -----------------------------------------------------------------------------------------------------------


def tensor(values: Any, dtype: Any = None, device: Any = NUMPY) -> Array:
    """Values; numbers with a point are float32 where nothing else is said."""
    found = np.array(values, dtype=dtype and str(dtype))
    return ours(found.astype(np.float32) if dtype is None and found.dtype == np.float64 else found)


def as_tensor(values: Any, device: Any = NUMPY) -> Array:
    """The values as an array."""
    return ours(values)


def zeros(*shape: Any, dtype: Any = "float32", device: Any = NUMPY) -> Array:
    """Zeros."""
    return ours(np.zeros(shape_of(shape), dtype=_type(dtype)))


def ones(*shape: Any, dtype: Any = "float32", device: Any = NUMPY) -> Array:
    """Ones."""
    return ours(np.ones(shape_of(shape), dtype=_type(dtype)))


def empty(*shape: Any, dtype: Any = "float32", device: Any = NUMPY) -> Array:
    """Any values."""
    return ours(np.empty(shape_of(shape), dtype=_type(dtype)))


def full(shape: Any, value: Any, dtype: Any = "float32", device: Any = NUMPY) -> Array:
    """One value everywhere."""
    return ours(np.full(shape, value, dtype=_type(dtype)))


def arange(start: int, stop: int | None = None, dtype: Any = "int64", device: Any = NUMPY) -> Array:
    """Whole numbers in order."""
    return ours(
        np.arange(start, stop, dtype=_type(dtype)) if stop is not None else np.arange(start, dtype=_type(dtype))
    )


def eye(n: int, dtype: Any = "float32", device: Any = NUMPY) -> Array:
    """The identity."""
    return ours(np.eye(n, dtype=_type(dtype)))


def _type(dtype: Any) -> Any:
    return dtype if isinstance(dtype, np.dtype) else np.dtype(str(dtype))


def zeros_like(x: Array) -> Array:
    """Zeros of the shape and type."""
    return ours(np.zeros_like(plain(x)))


def ones_like(x: Array) -> Array:
    """Ones of the shape and type."""
    return ours(np.ones_like(plain(x)))


def empty_like(x: Array, dtype: Any = None) -> Array:
    """Any values of the shape, and of the type or another."""
    return ours(np.empty(x.shape, dtype=x.dtype if dtype is None else _type(dtype)))


def full_like(x: Array, value: Any, dtype: Any = None) -> Array:
    """One value in the shape, and in the type or another."""
    return ours(np.full(x.shape, value, dtype=x.dtype if dtype is None else _type(dtype)))


# --- arrays as one, and as parts ----------------------------------------------------------------------------------------


def cat(parts: Sequence[Array], dim: int = 0) -> Array:
    """One behind the other."""
    return ours(np.concatenate([plain(part) for part in parts], axis=dim))


def stack(parts: Sequence[Array], dim: int = 0) -> Array:
    """Along a new dimension."""
    return ours(np.stack([plain(part) for part in parts], axis=dim))


def split(x: Array, sizes: Sequence[int], dim: int = 0) -> list[Array]:
    """Parts of these sizes."""
    return [ours(part) for part in np.split(plain(x), list(accumulate(sizes))[:-1], axis=dim)]


def pad(x: Array, around: tuple[int, int], value: Any = 0) -> Array:
    """With so many values more before and behind, along the last dimension."""
    return ours(np.pad(plain(x), [(0, 0)] * (x.ndim - 1) + [around], constant_values=value))


def as_strided(x: Array, shape: Any, strides: Any) -> Array:
    """Another view of the same memory."""
    return ours(np.lib.stride_tricks.as_strided(plain(x), shape, [step * x.itemsize for step in strides]))


def diag(x: Array, offset: int = 0) -> Array:
    """A matrix with this diagonal."""
    return ours(np.diag(plain(x), offset))


def diag_embed(x: Array) -> Array:
    """Matrices [..., n, n] with these diagonals [..., n]."""
    found = np.zeros((*x.shape, x.shape[-1]), dtype=x.dtype)
    place = np.arange(x.shape[-1])
    found[..., place, place] = plain(x)
    return ours(found)


def triu_indices(rows: int, columns: int, offset: int = 0, device: Any = NUMPY) -> Array:
    """Rows and columns of the upper half."""
    return ours(np.stack(np.triu_indices(rows, offset, columns)))


# --- value by value -----------------------------------------------------------------------------------------------------


def where(condition: Any, one: Any, other: Any) -> Array:
    """One where a condition holds, else the other."""
    return ours(np.where(plain(condition), plain(one), plain(other)))


def maximum(a: Any, b: Any, out: Any = None) -> Array:
    """The larger; NaN where one is."""
    return np.maximum(a, b, out=out)


def minimum(a: Any, b: Any) -> Array:
    """The less; NaN where one is."""
    return np.minimum(a, b)


def add(a: Array, b: Array, alpha: Any, out: Array) -> Array:
    """A + α B."""
    np.multiply(b, alpha, out=out)
    return np.add(out, a, out=out)


def sub(a: Array, b: Array, out: Array) -> Array:
    """A - B."""
    return np.subtract(a, b, out=out)


def sqrt(x: Array) -> Array:
    """Roots; NaN of negative values."""
    return x.sqrt()


def exp(x: Array) -> Array:
    """e to the values."""
    return x.exp()


def expm1(x: Array) -> Array:
    """e to the values, less 1."""
    return np.expm1(x)


def log1p(x: Array) -> Array:
    """Logarithms of 1 plus the values."""
    return np.log1p(x)


def promote_types(a: Any, b: Any) -> Any:
    """The type that holds both."""
    return np.promote_types(a, b)


def finfo(dtype: Any) -> Limits:
    """What a type can hold."""
    found = np.finfo(_type(dtype))
    return Limits(float(found.eps), float(found.tiny), float(found.max))


# --- over dimensions ----------------------------------------------------------------------------------------------------


def sum(x: Array, dim: Any = None, dtype: Any = None) -> Array:
    """Sums, in another type."""
    return np.add.reduce(x, axis=axis_of(dim), dtype=_type(dtype))


def mean(x: Array, dim: int, dtype: Any = None) -> Array:
    """Means, in another type."""
    return sum(x, dim, dtype) / x.shape[dim]


def aminmax(x: Array) -> tuple[Array, Array]:
    """The least and the largest of all."""
    return x.amin(), x.amax()


def argsort(x: Array, dim: int) -> Array:
    """Where values are in ascending order."""
    return x.argsort(dim)


def bincount(x: Array, minlength: int) -> Array:
    """How often each whole number is there."""
    return ours(np.bincount(plain(x), minlength=minlength))


def searchsorted(edges: Array, values: Array) -> Array:
    """How many of the edges, in rising order, are less than each value."""
    return ours(np.searchsorted(plain(edges), plain(values)))


def bucketize(values: Array, edges: Array) -> Array:
    """The bin of each value, as in torch."""
    return searchsorted(edges, values)


# --- matrices -----------------------------------------------------------------------------------------------------------


def mm(a: Array, b: Array, out: Array) -> Array:
    """A B, into memory that is there."""
    return np.matmul(a, b, out=out)


def bmm(a: Array, b: Array) -> Array:
    """A B of stacks of matrices."""
    return a @ b


def kron(a: Array, b: Array) -> Array:
    """The Kronecker product."""
    return ours(np.kron(plain(a), plain(b)))


def cdist(a: Array, b: Array, compute_mode: str) -> Array:
    """Distances [n, m] of rows, from their differences."""
    rows = [np.linalg.norm(plain(b) - row, axis=1) for row in plain(a)]
    return ours(np.stack(rows) if rows else np.empty((0, len(b))))


def _solved(solve: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What LAPACK finds.

    Raises:
        RuntimeError: it does not converge.
    """
    try:
        with np.errstate(all="ignore"):
            return solve(*map(plain, args), **kwargs)
    except np.linalg.LinAlgError as error:
        raise RuntimeError(str(error)) from error


def _squares(x: Plain, kind: Any) -> Plain:
    return np.square(x if kind is None else x.astype(kind, copy=False))


class linalg:
    """Norms and decompositions."""

    @staticmethod
    def vector_norm(x: Array, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Array:
        """Euclidean norms."""
        rows, kind = plain(x), None if dtype is None else _type(dtype)
        with np.errstate(all="ignore"):
            if x.ndim != 2 or dim not in (1, -1) or x.size <= PASSED:
                return ours(np.sqrt(_squares(rows, kind).sum(axis=axis_of(dim), keepdims=keepdim)))
            step = max(1, PASSED // max(1, x.shape[1]))
            parts = [
                _squares(rows[start : start + step], kind).sum(axis=1, keepdims=keepdim)
                for start in range(0, len(x), step)
            ]
            return ours(np.sqrt(np.concatenate(parts)))

    @staticmethod
    def svd(x: Array, full_matrices: bool) -> tuple[Array, Array, Array]:
        """U, σ and Vᵀ."""
        left, sigma, right = _solved(np.linalg.svd, x, full_matrices=full_matrices)
        return ours(left), ours(sigma), ours(right)

    @staticmethod
    def svdvals(x: Array) -> Array:
        """Singular values, largest first."""
        return ours(_solved(np.linalg.svd, x, compute_uv=False))

    @staticmethod
    def eigh(x: Array) -> Spectrum:
        """The eigenvalues and eigenvectors of symmetric matrices."""
        return Spectrum(*map(ours, _solved(np.linalg.eigh, x)))

    @staticmethod
    def eigvalsh(x: Array) -> Array:
        """Their eigenvalues alone."""
        return ours(_solved(np.linalg.eigvalsh, x))

    @staticmethod
    def qr(x: Array) -> Factors:
        """Q and R."""
        return Factors(*map(ours, _solved(np.linalg.qr, x)))

    @staticmethod
    def cholesky(x: Array) -> Array:
        """L of L Lᵀ."""
        return ours(_solved(np.linalg.cholesky, x))

    @staticmethod
    def cholesky_ex(x: Array) -> Tried:
        """The Cholesky factors of matrices [..., n, n]; `info` is not 0 for those that have none."""
        found, failed = np.full(x.shape, np.nan), np.zeros(x.shape[:-2], dtype=np.int64)
        for place in np.ndindex(x.shape[:-2]):
            try:
                found[place] = np.linalg.cholesky(plain(x)[place])
            except np.linalg.LinAlgError:
                failed[place] = 1
        return Tried(ours(found), ours(failed))

    @staticmethod
    def solve_triangular(x: Array, b: Array, upper: bool) -> Array:
        """X⁻¹ B of a triangular X."""
        return ours(_solved(np.linalg.solve, x, b))
