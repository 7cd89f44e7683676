"""Texts in data sets of Hugging Face's `datasets`: those of the hub, and saved folders. No code of a data set is run."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from contrasim_cli.errors import InputError, MissingError, UsageError
from contrasim_cli.extraction.sources.values import Bad, Values, refuse_unknown
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

SAVED = ("state.json", "dataset_dict.json")  # in folders of `save_to_disk`
BATCH = 1024  # rows
FIRST = 4  # version of `datasets` that runs no code of a data set, whatever it is asked


@dataclass(frozen=True)
class HubDataset:
    """A split of a data set."""

    name: str
    dataset: Any
    word: ClassVar[str] = "column"

    def columns(self) -> list[str]:
        """The columns of the split."""
        return list(self.dataset.column_names)

    def rows(self, fields: Sequence[str]) -> Iterator[Values | Bad]:
        """Every row; rows have numbers, from 0."""
        refuse_unknown(Path(self.name), fields, self.columns())
        number = 0
        for batch in self.dataset.with_format(None).select_columns(list(fields)).iter(BATCH):
            for values in zip(*(batch[name] for name in fields), strict=True):
                yield Values(f"row {number}", values)
                number += 1

    def digest(self) -> str:
        """The digest of what the split is made of, as `datasets` keeps it."""
        return hashlib.sha256(str(self.dataset._fingerprint).encode()).hexdigest()

    def contents(self, fields: Sequence[str]) -> str:
        """The digest of all values of these columns."""
        digest = hashlib.sha256(json.dumps(list(fields)).encode())
        for row in self.rows(fields):
            digest.update(json.dumps(row.values, default=str).encode() if isinstance(row, Values) else b"")
        return digest.hexdigest()


def open_dataset(name: str, split: str | None, subset: str | None) -> HubDataset:
    """A split of a saved folder, or of a data set of the hub or a folder of data files.

    Raises:
        MissingError: `datasets` is not there, or too old.
        UsageError: there is no such split or subset, or several and none is named.
        InputError: it cannot be loaded.
    """
    datasets = _import()
    found = _loaded(datasets, name, split, subset)
    if not isinstance(found, dict):
        return HubDataset(name, found)
    if split is None and len(found) == 1:
        return HubDataset(name, next(iter(found.values())))
    if split is None or split not in found:
        said = "say which split" if split is None else f"has no split {quoted(split)}"
        raise UsageError(f"{quoted(name)}: {said} (--split); it has {', '.join(map(quoted, found))}")
    return HubDataset(name, found[split])


def _import() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingError("--dataset needs the extra datasets: pip install 'contrasim[datasets]'") from error
    if int(datasets.__version__.partition(".")[0]) < FIRST:
        raise MissingError(
            f"--dataset needs datasets {FIRST} or later, which runs no code of a data set; found {datasets.__version__}: "
            "pip install 'contrasim[datasets]'"
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what matters of it is in the error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets


def _loaded(datasets: Any, name: str, split: str | None, subset: str | None) -> Any:
    """A split, or a dict of them."""
    folder = Path(name)
    if name.startswith((".", "/", "~")) and not folder.is_dir():
        raise InputError(f"{quoted(name)}: there is no such folder")
    saved = any((folder / mark).is_file() for mark in SAVED)
    if saved and subset is not None:
        raise UsageError(f"{quoted(name)}: is a saved data set, which has no subsets; leave out --subset")
    if not folder.is_dir():
        log.info("%s is not a local folder: it is taken from the Hugging Face hub or its cache", quoted(name))
    try:
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, subset)
    except Exception as error:  # which are of many kinds
        said = " ".join(str(error).split())[:300]
        raise InputError(f"{quoted(name)}: cannot be loaded as a data set ({said})") from error
    if split is not None and not isinstance(found, dict) and split != str(found.split):
        raise UsageError(f"{quoted(name)}: is a single split; leave out --split {quoted(split)}")
    return found
