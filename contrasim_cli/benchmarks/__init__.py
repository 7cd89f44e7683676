"""The benchmarks that tell which measure to trust: layer prediction and retrieval.

Here is which stores make a data set: those of one folder, where the same names are in others; and which models are compared.
"""

import glob
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contrasim_cli.errors import MismatchError, UsageError, raise_all
from contrasim_cli.names import quoted

if TYPE_CHECKING:
    from contrasim_cli.store import View

ROLES = ("train", "test", "dev", "valid", "validation", "eval")  # of a data set's parts, not names of data sets


def data_sets(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Stores by data set, named by what tells their folders apart; in the order given.

    Folders that hold the same names, two at least, are a data set each: `ptb/train/a.h5` and `ptb/train/b.h5` are of ptb
    where there are `wiki/train/a.h5` and `wiki/train/b.h5`. In any other case all stores are one data set.
    """
    folders: dict[str, list[Path]] = {}
    for path in paths:
        folders.setdefault(os.path.abspath(path.parent), []).append(path)
    stems = {frozenset(path.stem for path in group) for group in folders.values()}
    if len(stems) > 1 or len(paths) < 2 * len(folders):
        folders = {os.path.commonpath(folders): list(paths)}
    names = _names([Path(folder).parts[1:] for folder in folders])
    return dict(zip(names, folders.values(), strict=True))


def _names(folders: Sequence[tuple[str, ...]]) -> list[str]:
    short = [next((part for part in reversed(folder) if part.lower() not in ROLES), "data") for folder in folders]
    if len(set(short)) == len(short):
        return [quoted(name) for name in short]
    ahead = _alike(folders)
    behind = _alike([folder[ahead:][::-1] for folder in folders])
    middle = ["/".join(folder[ahead : len(folder) - behind]) or "." for folder in folders]
    return [quoted(name) for name in middle]


def _alike(folders: Sequence[tuple[str, ...]]) -> int:
    """How many parts all folders begin with."""
    together = zip(*folders, strict=False)
    return len(list(itertools.takewhile(lambda parts: len(set(parts)) == 1, together)))


def by_stem(paths: Sequence[Path], what: str) -> dict[str, Path]:
    """Stores by their names, of which there is one each.

    Raises:
        UsageError: two have the same name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise UsageError(
                f"{what} are distinguished by their file names, and {quoted(found[path.stem])} and {quoted(path)} have the same"
            )
        found[path.stem] = path
    return found


def expanded(paths: Sequence[Path]) -> list[Path]:
    """The paths, and in the place of a pattern such as `train/*.h5` the files that it matches, sorted.

    Raises:
        UsageError: a pattern matches nothing.
    """
    found: list[Path] = []
    for path in paths:
        text = str(path)
        if path.exists() or not any(sign in text for sign in "*?["):
            found.append(path)
            continue
        matches = sorted(glob.glob(text))
        if not matches:
            raise UsageError(f"--train {quoted(path)}: matches no file")
        found.extend(Path(match) for match in matches)
    return found


def model_pairs(n_models: int, every: bool) -> list[tuple[int, int]]:
    """(0, 1), (2, 3), …, or every ordered pair.

    Raises:
        UsageError: fewer than two models, or an odd number where pairs are disjoint.
    """
    if n_models < 2:
        raise UsageError("bench layers compares two or more stores, one per model")
    if every:
        return list(itertools.permutations(range(n_models), 2))
    if n_models % 2:
        raise UsageError(
            f"bench layers makes disjoint pairs of stores, {n_models} is odd; leave one out or give --pairs all"
        )
    return [(i, i + 1) for i in range(0, n_models, 2)]


def check_depth(views: "Sequence[View]", layers: Sequence[Sequence[str]]) -> None:
    """Refuse views whose numbers of layers differ."""
    first = views[0].store
    raise_all(
        [
            MismatchError(
                f"{quoted(view.store.path)}: {len(chosen)} layers are selected where {quoted(first.path)} has {len(layers[0])}; "
                "select corresponding layers with --layers (or --layers-a and --layers-b)"
            )
            for view, chosen in zip(views, layers, strict=True)
            if len(chosen) != len(layers[0])
        ]
    )
