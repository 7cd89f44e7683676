"""Masks of tokens: which of the tokens of an item are no padding."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.store.hints import is_of_padding
from contrasim_cli.store.layout import listing
from contrasim_cli.store.open import arrays_of


def read_mask(given: str, beside: Path | None = None) -> npt.NDArray[np.bool_]:
    """The mask [items, tokens] of `FILE`, `FILE:NAME` or `NAME`, true for tokens that are no padding.

    A name alone is of an array in the file `beside`. With `!` before it, the mask is 1 for padding.

    Raises:
        InputError: the file cannot be read, has no such array, or the array is no mask: it has other axes, values other than 0
            and 1, or an item without tokens.
    """
    where, inverted = f"--mask {quoted(given)}", given.startswith("!") and not Path(given).exists()
    given = given.removeprefix("!") if inverted else given
    path, name = Path(given), ""
    if not path.exists() and ":" in given:
        file, _, name = given.rpartition(":")
        path = Path(file)
    elif not path.exists() and beside is not None and path.suffix == "" and beside.is_file():
        path, name = beside, given
    arrays, close = arrays_of(path)
    try:
        names = [name] if name else [key for key, array in arrays.items() if len(array.shape) == 2]
        if len(names) != 1 or names[0] not in arrays:
            batches = sum(re.fullmatch(rf"{re.escape(name)}\.\d+", key) is not None for key in arrays)
            if batches:
                raise InputError(
                    f"{where}: {quoted(name)} is a list of {batches} arrays: pad to one length and join them with torch.cat "
                    "(contrasim guide hooks)"
                )
            near = dict(sorted(arrays.items(), key=lambda item: not item[0].startswith(name)))
            raise InputError(
                f"{where}: name the mask [items, tokens], as in --mask {quoted(path)}:NAME; it holds {listing(near)}"
            )
        if is_of_padding(names[0]) and not inverted:
            raise InputError(
                f"{where}: PyTorch's key_padding_mask is 1 for padding and 0 for tokens; give --mask '!{quoted(given)}' to invert "
                "it, or rename it if it is 1 for tokens"
            )
        values = np.asarray(arrays[names[0]][:])
    finally:
        close()
    if values.ndim != 2:
        raise InputError(f"{where}: is {tuple(values.shape)}; a mask is [items, tokens]")
    if not np.isin(values, (0, 1)).all():
        raise InputError(f"{where}: holds other values than 0 and 1; a mask is 1 for tokens and 0 for padding")
    mask = values.astype(bool) ^ inverted
    if not mask.any(axis=1).all():
        item = int(np.flatnonzero(~mask.any(axis=1))[0])
        other = f"{quoted(given)} if it is 0" if inverted else f"'!{quoted(given)}' if it is 1"
        raise InputError(
            f"{where}: has no token for item {item}; leave such items out of the mask and the arrays, or give --mask "
            f"{other} for padding"
        )
    return mask
