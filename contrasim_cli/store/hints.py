"""How a file of somebody else's is to be read, where the file cannot tell: the options of `extract --from`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted
from contrasim_cli.store.axes import MATRIX, POOL, ROWS, parse_axes

KEYS = ("layers", "rows")
READ_AS = ("bfloat16", "float16", "integers")


@dataclass(frozen=True)
class Hints:
    """What was said of a file.

    `axes`: a word per axis of its arrays; `keys`: whether its keys are layers or rows; `ids_key`: which of them names the rows;
    `read_as`: the type that 16-bit integers stand for; `layers`: the patterns of layers that are asked for, which decide where
    arrays have different rows; `budget`: bytes that what is held may take, None for half of what is free;
    `mask` [items, tokens]: which tokens are no padding.
    """

    axes: str | None = None
    keys: str | None = None
    ids_key: str | None = None
    read_as: str | None = None
    layers: Sequence[str] | None = None
    budget: int | None = None
    mask: npt.NDArray[np.bool_] | None = field(default=None, compare=False)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of `axes`."""
        return MATRIX if self.axes is None else parse_axes(self.axes)

    @property
    def says(self) -> str | None:
        """The first option that says how the file is to be read, as it is spelt."""
        given = {"--axes": self.axes, "--keys": self.keys, "--ids-key": self.ids_key, "--read-as": self.read_as}
        return next((f"{name} {quoted(value)}" for name, value in given.items() if value is not None), None)

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: a word is none, or nothing says what the rows are.
        """
        for name, value, known in (("--keys", self.keys, KEYS), ("--read-as", self.read_as, READ_AS)):
            if value is not None and value not in known:
                raise UsageError(f"{name} {quoted(value)}: write {', '.join(known[:-1])} or {known[-1]}")
        if ROWS not in self.words and self.keys != ROWS:
            raise UsageError(
                f"--axes {quoted(self.axes)}: no axis is rows; where each key of the file is a row, add --keys rows"
            )
        self._check_mask()

    def _check_mask(self) -> None:
        """Refuse a mask where axes are not items and tokens."""
        if self.mask is not None and self.keys:
            raise UsageError(
                f"--mask does not go with --keys {self.keys}; pad batches to one length and join them with torch.cat "
                "(contrasim guide hooks)"
            )
        if self.mask is not None and sum(word in (ROWS, POOL) for word in self.words) != 2:
            raise UsageError(
                "--mask [items, tokens] goes with --axes rows,rows,width (a row per token) or rows,pool,width (the mean of an "
                "item's tokens)"
            )


PLAIN = Hints()


def is_of_padding(name: str) -> bool:
    """Whether PyTorch's attention takes a mask by this name, which is true for padding."""
    return re.search("key_?padding_?mask", name, re.IGNORECASE) is not None
