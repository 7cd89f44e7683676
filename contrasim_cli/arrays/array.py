"""NumPy's arrays with the methods of torch's tensors that formulas use.

What a method takes and gives is what torch's of that name does. Operators are NumPy's, without its warnings: torch is silent
where a number is undefined or leaves its type.
"""

# mypy: disable-error-code="override,no-any-return,return-value"

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Plain = npt.NDArray[Any]


class _Processor:
    """Where arrays are: a device beside those of torch."""

    type, index = "cpu", None

    def __str__(self) -> str:
        return self.type


def plain(value: Any) -> Any:
    """An array as NumPy has it; anything else as it is."""
    return value.view(np.ndarray) if isinstance(value, Array) else value


def ours(value: Any) -> Any:
    """What NumPy returns, with the names of tensors."""
    return np.asarray(value).view(Array)


def axis_of(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, list) else dim


class Sorted(NamedTuple):
    """Values in order, and where they were."""

    values: Any
    indices: Any


class Array(np.ndarray[Any, Any]):
    """A NumPy array with the methods of tensors that formulas use."""

    __slots__ = ()

    # --- what NumPy is told -----------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        """Every operator: quiet, and an `Array` also where it is one number."""
        if out is not None:
            kwargs["out"] = tuple(plain(one) for one in out)
        with np.errstate(all="ignore"):
            found = getattr(ufunc, method)(*(plain(one) for one in inputs), **kwargs)
        if out is not None:
            return out[0]
        return tuple(map(ours, found)) if isinstance(found, tuple) else ours(found)

    def __getitem__(self, key: Any) -> "Array":
        return ours(plain(self)[plain(key) if not isinstance(key, tuple) else tuple(map(plain, key))])

    def __iter__(self) -> Any:
        return (self[k] for k in range(len(self)))

    def __bool__(self) -> bool:
        return bool(plain(self))

    # --- where and of what type -------------------------------------------------------------------------------------------

    is_cuda = False

    @property
    def device(self) -> _Processor:
        """Where it is."""
        return NUMPY

    @property
    def mT(self) -> "Array":
        """The last two dimensions exchanged."""
        return self.swapaxes(-1, -2)

    def numpy(self) -> Plain:
        """As NumPy has it."""
        return plain(self)

    def cpu(self) -> "Array":
        """Itself."""
        return self

    def to(self, kind: Any) -> "Array":
        """In a type, in that of another array, or where it is."""
        if kind is NUMPY:
            return self
        return self.astype(kind.dtype if isinstance(kind, Array) else kind, copy=False)

    def double(self) -> "Array":
        """In float64."""
        return self.astype(np.float64, copy=False)

    def float(self) -> "Array":
        """In float32."""
        return self.astype(np.float32, copy=False)

    def long(self) -> "Array":
        """In int64."""
        return self.astype(np.int64, copy=False)

    def clone(self) -> "Array":
        """A copy."""
        return self.copy()

    def detach(self) -> "Array":
        """Itself."""
        return self

    def numel(self) -> int:
        """How many values there are."""
        return self.size

    nelement = numel

    def element_size(self) -> int:
        """Bytes of a value."""
        return self.itemsize

    def contiguous(self) -> "Array":
        """Row by row in memory."""
        return ours(np.ascontiguousarray(plain(self)).reshape(self.shape))

    def is_contiguous(self) -> bool:
        """Whether it lies row by row in memory."""
        return self.flags.c_contiguous

    def stride(self, dim: int) -> int:
        """Values from one entry to the next along a dimension."""
        return self.strides[dim] // self.itemsize

    def data_ptr(self) -> int:
        """Where it begins in memory."""
        return int(self.ctypes.data)

    # --- new ones ---------------------------------------------------------------------------------------------------------

    def new_tensor(self, values: Any) -> "Array":
        """Values in this type."""
        return ours(np.array(plain(values), dtype=self.dtype))

    def new_full(self, shape: Any, value: Any) -> "Array":
        """One value everywhere."""
        return ours(np.full(shape, value, dtype=self.dtype))

    def new_zeros(self, *shape: Any) -> "Array":
        """Zeros."""
        return ours(np.zeros(shape_of(shape), dtype=self.dtype))

    def new_ones(self, *shape: Any) -> "Array":
        """Ones."""
        return ours(np.ones(shape_of(shape), dtype=self.dtype))

    def new_empty(self, *shape: Any) -> "Array":
        """Any values."""
        return ours(np.empty(shape_of(shape), dtype=self.dtype))

    # --- shapes -----------------------------------------------------------------------------------------------------------

    def unsqueeze(self, dim: int) -> "Array":
        """With one dimension more."""
        return ours(np.expand_dims(plain(self), dim))

    def squeeze(self, dim: int) -> "Array":
        """Without a dimension of 1; as it is where that is none."""
        return self if self.shape[dim] != 1 else ours(np.squeeze(plain(self), dim))

    def transpose(self, one: int, other: int) -> "Array":
        """Two dimensions exchanged."""
        return self.swapaxes(one, other)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Array":
        """The dimensions from one to another as one."""
        first, last = start_dim % max(1, self.ndim), end_dim % max(1, self.ndim)
        return self.reshape(*self.shape[:first], math.prod(self.shape[first : last + 1]), *self.shape[last + 1 :])

    def expand(self, *shape: Any) -> "Array":
        """Repeated along dimensions of 1, and along new ones; -1 where a dimension stays."""
        wanted = shape_of(shape)
        before = (1,) * (len(wanted) - self.ndim) + self.shape
        if wanted == self.shape:
            return self
        sizes = [have if want == -1 else want for want, have in zip(wanted, before, strict=True)]
        return ours(np.broadcast_to(plain(self), sizes))

    def expand_as(self, other: "Array") -> "Array":
        """Repeated to the shape of another."""
        return self.expand(*other.shape)

    def view_as(self, other: "Array") -> "Array":
        """In the shape of another."""
        return self.reshape(other.shape)

    def flip(self, dim: int) -> "Array":
        """In reverse order along a dimension."""
        return ours(np.flip(plain(self), dim))

    def roll(self, by: int) -> "Array":
        """Moved on, the last ones to the front."""
        return ours(np.roll(plain(self), by))

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> "Array":
        """A view of the diagonal along two dimensions, which is the last dimension."""
        if offset == 0 and self.shape[dim1] == self.shape[dim2]:
            # NumPy's own is read-only
            first, second = dim1 % self.ndim, dim2 % self.ndim
            kept = [k for k in range(self.ndim) if k not in (first, second)]
            shape = [self.shape[k] for k in kept] + [self.shape[first]]
            strides = [self.strides[k] for k in kept] + [self.strides[first] + self.strides[second]]
            return ours(np.lib.stride_tricks.as_strided(plain(self), shape, strides))
        return ours(np.diagonal(plain(self), offset, dim1, dim2))

    def fill_diagonal_(self, value: Any) -> "Array":
        """One value on the diagonal."""
        np.fill_diagonal(plain(self), value)
        return self

    def triu(self, k: int = 0) -> "Array":
        """The upper half."""
        return ours(np.triu(plain(self), k))

    def trace(self) -> "Array":
        """The sum of the diagonal."""
        return ours(np.trace(plain(self)))

    # --- value by value ---------------------------------------------------------------------------------------------------

    def abs(self) -> "Array":
        """Absolute values."""
        return np.abs(self)

    def square(self) -> "Array":
        """Squares."""
        return self * self

    def sqrt(self) -> "Array":
        """Roots; NaN of negative values."""
        return np.sqrt(self)

    def rsqrt(self) -> "Array":
        """One over the roots."""
        return 1 / np.sqrt(self)

    def exp(self) -> "Array":
        """e to the values."""
        return np.exp(self)

    def log(self) -> "Array":
        """Logarithms."""
        return np.log(self)

    def arcsin(self) -> "Array":
        """Arc sines."""
        return np.arcsin(self)

    def floor(self) -> "Array":
        """Rounded down."""
        return np.floor(self)

    def clamp(self, min: Any = None, max: Any = None) -> "Array":
        """No less and no more than two limits; NaN stays."""
        found = self if min is None else np.maximum(self, _limit(min))
        return found if max is None else np.minimum(found, _limit(max))

    def clip(self, min: Any = None, max: Any = None) -> "Array":
        """The values within bounds."""
        return self.clamp(min, max)

    def clamp_min(self, limit: Any) -> "Array":
        """No less than a limit."""
        return self.clamp(min=limit)

    def clamp_max(self, limit: Any) -> "Array":
        """No more than a limit."""
        return self.clamp(max=limit)

    def clamp_(self, min: Any = None, max: Any = None) -> "Array":
        """`clamp` in place."""
        return self.copy_(self.clamp(min, max))

    def isnan(self) -> "Array":
        """Where it is NaN."""
        return np.isnan(self)

    def isinf(self) -> "Array":
        """Where it is infinite."""
        return np.isinf(self)

    def isfinite(self) -> "Array":
        """Where it is a number."""
        return np.isfinite(self)

    def nan_to_num(self, nan: Any) -> "Array":
        """Something else where it is NaN, the largest number where it is infinite."""
        return ours(np.nan_to_num(plain(self), nan=nan))

    def nan_to_num_(self, nan: Any) -> "Array":
        """As `nan_to_num`, in place."""
        return self.copy_(self.nan_to_num(nan))

    def where(self, condition: Any, other: Any) -> "Array":
        """Itself where a condition holds, else the other."""
        return ours(np.where(plain(condition), plain(self), plain(other)))

    def masked_fill(self, mask: Any, value: Any) -> "Array":
        """One value where a mask is true."""
        return ours(np.where(plain(mask), value, plain(self)))

    # --- in place ---------------------------------------------------------------------------------------------------------

    def add_(self, other: Any, alpha: Any = 1) -> "Array":
        """Add so much of another."""
        self += other if isinstance(alpha, int) and alpha == 1 else alpha * other
        return self

    def mul_(self, other: Any) -> "Array":
        """Multiply."""
        self *= other
        return self

    def div_(self, other: Any) -> "Array":
        """Divide."""
        self /= other
        return self

    def addmm_(self, a: "Array", b: "Array") -> "Array":
        """Add a product of matrices."""
        self += a @ b
        return self

    def addr_(self, a: "Array", b: "Array", alpha: Any = 1) -> "Array":
        """Add an outer product."""
        self += alpha * a[:, None] * b
        return self

    def copy_(self, other: Any) -> "Array":
        """Take over the values of another."""
        plain(self)[...] = plain(other)
        return self

    def zero_(self) -> "Array":
        """Zeros."""
        self.fill(0)
        return self

    def scatter_(self, dim: int, index: "Array", values: Any) -> "Array":
        """Put values at places along a dimension."""
        np.put_along_axis(plain(self), plain(index), plain(values), dim)
        return self

    # --- over dimensions --------------------------------------------------------------------------------------------------

    def sum(self, dim: Any = None, keepdim: bool = False) -> "Array":
        """Sums."""
        return _reduced(np.add, self, dim, keepdim)

    def nansum(self, dim: Any = None) -> "Array":
        """Sums of what is not NaN."""
        return self.nan_to_num(0.0).sum(dim)

    def mean(self, dim: Any = None, keepdim: bool = False) -> "Array":
        """Means; NaN of nothing."""
        total = self.sum(dim, keepdim)
        return total / (self.size // max(1, total.size) if total.size else 1)

    def amax(self, dim: Any = None, keepdim: bool = False) -> "Array":
        """The largest; NaN where one is."""
        return _reduced(np.maximum, self, dim, keepdim)

    def amin(self, dim: Any = None, keepdim: bool = False) -> "Array":
        """The least; NaN where one is."""
        return _reduced(np.minimum, self, dim, keepdim)

    def max(self) -> "Array":
        """The largest of all."""
        return self.amax()

    def min(self) -> "Array":
        """The least of all."""
        return self.amin()

    def any(self, dim: Any = None, keepdim: bool = False) -> "Array":
        """Whether one is not zero."""
        return _reduced(np.logical_or, self, dim, keepdim)

    def all(self, dim: Any = None, keepdim: bool = False) -> "Array":
        """Whether none is zero."""
        return _reduced(np.logical_and, self, dim, keepdim)

    def argmax(self, dim: Any = None) -> "Array":
        """Where the largest is."""
        return ours(np.argmax(plain(self), axis=dim))

    def argmin(self, dim: Any = None) -> "Array":
        """Where the least is."""
        return ours(np.argmin(plain(self), axis=dim))

    def cumsum(self, dim: int) -> "Array":
        """Sums so far."""
        return np.add.accumulate(self.long() if self.dtype == bool else self, axis=dim)

    def cummax(self, dim: int) -> Sorted:
        """The largest so far."""
        return Sorted(np.maximum.accumulate(self, axis=dim), None)

    def cummin(self, dim: int) -> Sorted:
        """The least so far."""
        return Sorted(np.minimum.accumulate(self, axis=dim), None)

    def diff(self, dim: int = -1) -> "Array":
        """Differences of values that follow each other."""
        return ours(np.diff(plain(self), axis=dim))

    def sort(self, dim: int = -1) -> Sorted:
        """Values in ascending order, NaNs last; of equal ones the first first."""
        order = self.argsort(dim)
        return Sorted(self.gather(dim, order), order)

    def argsort(self, dim: int = -1, stable: bool = True) -> "Array":
        """Where they were."""
        return ours(np.argsort(plain(self), axis=dim, kind="stable"))

    def kthvalue(self, k: int, dim: int = -1, keepdim: bool = False) -> Sorted:
        """The k-th least value, from 1; NaNs last. Without its place."""
        found = np.partition(plain(self), k - 1, axis=dim).take([k - 1], axis=dim)
        return Sorted(ours(found if keepdim else np.squeeze(found, dim)), None)

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
        """The k largest values in falling order, or the least in rising order; NaN is larger than all."""
        values = plain(self)
        keys = -values if largest else values
        if k < values.shape[dim]:
            places = np.argpartition(keys, max(k - 1, 0), axis=dim).take(range(k), axis=dim)
        else:
            places = np.broadcast_to(_along(np.arange(k), dim, values.ndim), values.shape)
        if sorted:
            order = np.argsort(np.take_along_axis(keys, places, dim), axis=dim, kind="stable")
            places = np.take_along_axis(places, order, dim)
        return Sorted(ours(np.take_along_axis(values, places, dim)), ours(places))

    def gather(self, dim: int, index: "Array") -> "Array":
        """Values at places along a dimension."""
        return ours(np.take_along_axis(plain(self), plain(index), dim))

    def index_select(self, dim: int, index: "Array") -> "Array":
        """Entries of a dimension."""
        return ours(plain(self).take(plain(index), axis=dim))

    def nonzero(self, as_tuple: bool = False) -> Any:
        """Positions of what is not zero: one column, or one array, per dimension."""
        found = np.nonzero(plain(self))
        return tuple(map(ours, found)) if as_tuple else ours(np.stack(found, axis=1))

    def unbind(self, dim: int = 0) -> "tuple[Array, ...]":
        """Entries along a dimension."""
        return tuple(ours(np.moveaxis(plain(self), dim, 0)))


def _reduced(function: Any, x: Array, dim: Any, keepdim: bool) -> Array:
    """What a function of two values makes of all along some dimensions."""
    return function.reduce(x, axis=axis_of(dim), keepdims=keepdim)


def _along(values: Plain, dim: int, ndim: int) -> Plain:
    """Values [k] as those of one of several dimensions."""
    return values.reshape([len(values) if k == dim % ndim else 1 for k in range(ndim)])


def shape_of(given: tuple[Any, ...]) -> tuple[int, ...]:
    """A shape that was given as one argument or as several."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], Sequence) else given


def _limit(value: Any) -> Any:
    return value if isinstance(value, np.ndarray) else float(value) if isinstance(value, float) else value


NUMPY: Any = _Processor()
