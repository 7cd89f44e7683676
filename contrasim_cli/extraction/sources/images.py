"""Image files: those of a folder, or those that a column of a table names."""

import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from contrasim_cli.errors import InputError, MissingError, reason
from contrasim_cli.extraction.sources.passages import is_utf8
from contrasim_cli.extraction.sources.source import (
    ALL,
    BadItem,
    Choice,
    Row,
    Selection,
    Source,
    batched,
    choose,
    file_digest,
    named,
    refuse_duplicates,
)
from contrasim_cli.extraction.sources.tables import check_columns
from contrasim_cli.extraction.sources.texts import Records
from contrasim_cli.memory import memory_budget
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

# what Pillow trips over in damaged files
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, RuntimeError, zlib.error)
PIXEL_BYTES = 16  # that a pixel takes while an image is unpacked, converted and scaled
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def image_source(path: Path, choice: Choice | None = None) -> Source:
    """The image files of a folder and its subfolders, sorted bytewise by their relative paths, which are their ids.

    Raises:
        InputError: there is no such folder, no image in it, or one that cannot be read.
        MismatchError: ids asked for are not there.
    """
    if not os.path.isdir(path):
        raise InputError(
            f"{quoted(path)}: is no folder; --images takes a folder of image files, or a table with --image-column"
        )
    names, passed_over = _image_names(path)
    if not names:
        raise InputError(f"{quoted(path)}: holds no image ({' '.join(sorted(IMAGE_SUFFIXES))})")
    if passed_over:
        log.info("%s: %d files that are no images are passed over", quoted(path), passed_over)
    choice = choice or ALL
    files = Files(path, lambda: named(path, (Row(name, [name]) for name in names), choice.ids), memory=choice.memory)
    found = choose(path, files.checked(), choice)
    if choice.ids is not None:
        refuse_duplicates(quoted(choice.ids), files.ids(found))
    digest = files.digest(found)
    return files.source(found, automatic=False, digest=digest, contents=digest)


def image_table(path: Path, column: str, id_column: str | None = None, choice: Choice | None = None) -> Source:
    """The image files that a column of a table names, relative to its folder; ids as those of the table's texts.

    Raises:
        UsageError: the file is no table, or the column is not there.
        InputError: the file, or an image, cannot be read, or an id occurs twice.
        MismatchError: ids asked for are not there.
    """
    check_columns(path, [column], id_column)
    choice = choice or ALL
    table = Records(path, [column], id_column, choice.ids)
    files = Files(path.parent, table.rows, path, choice.memory)
    found = choose(path, files.checked(), choice)
    table.check_ids(found)
    digest = file_digest(path)
    contents = hashlib.sha256(f"{digest} {files.digest(found)}".encode()).hexdigest()
    return files.source(found, automatic=table.automatic, digest=digest, contents=contents, column=column)


@dataclass(frozen=True)
class Files:
    """Rows whose only text is the path of an image below a folder; `table` is what named them, if not the folder.

    `memory` is what reading one may take, in bytes.
    """

    folder: Path
    rows: Callable[[], Iterable[Row]]
    table: Path | None = None
    memory: int | None = None

    def checked(self) -> Iterator[Row]:
        """The rows, each with the check of its file."""
        for row in self.rows():
            path = self.folder / row.texts[0] if row.bad is None else None
            yield row if path is None else replace(row, check=partial(problem_of, path, self.memory))

    def paths(self, found: Selection) -> Iterator[Path]:
        """The files of the chosen rows."""
        return (self.folder / row.texts[0] for row in found.chosen.of(self.rows()))

    def ids(self, found: Selection) -> Iterator[str]:
        """The names of the chosen rows."""
        return (row.id for row in found.chosen.of(self.rows()))

    def digest(self, found: Selection) -> str:
        """Digest of paths and sizes: reading every image twice would cost as much as the extraction."""
        digest = hashlib.sha256()
        for row in found.chosen.of(self.rows()):
            digest.update(json.dumps([row.texts[0], (self.folder / row.texts[0]).stat().st_size]).encode())
        return digest.hexdigest()

    def source(self, found: Selection, **known: Any) -> Source:
        """The source of the chosen rows."""
        return Source(
            path=self.table or self.folder,
            kind="images",
            n_rows=len(found.chosen),
            blocks=lambda size: batched(self.paths(found), size),
            ids=lambda: self.ids(found),
            left_out=found.bad,
            **known,
        )


def _image_names(folder: Path) -> tuple[list[str], int]:
    files = [
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
    ]
    images = [name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    unnameable = [name for name in images if not is_utf8(name)]
    if unnameable:
        raise InputError(
            f"{quoted(folder)}: the file name {unnameable[0]!a} is not UTF-8 and cannot be an id; rename it"
        )
    return sorted((name.replace(os.sep, "/") for name in images), key=os.fsencode), len(files) - len(images)


def problem_of(path: Path, memory: int | None = None) -> str | None:
    """Why an image file cannot be opened, or takes more than `memory` bytes (None: half of what is free) to read.

    Whether all of it can be decoded is seen when it is.
    """
    pillow = _pillow()
    try:
        with pillow.open(path) as image:
            return _too_large(path, image, memory)
    except UNREADABLE as error:
        return _said(path, error)


def _too_large(path: Path, image: Any, memory: int | None) -> str | None:
    size, limit = PIXEL_BYTES * image.width * image.height, memory_budget(memory)
    if size <= limit:
        return None
    return (
        f"{quoted(path)}: {image.width} x {image.height} pixels take {size / 1e9:.3g} GB of memory, and there are "
        f"{limit / 1e9:.3g} GB for it; give --memory, or make it smaller"
    )


def open_image(path: Path, channels: int | None) -> Any:
    """An image file, grey for models of one channel and RGB for the others.

    Raises:
        BadItem: it cannot be read.
        MissingError: Pillow is not installed.
    """
    pillow = _pillow()
    try:
        with pillow.open(path) as image:
            return image.convert("L" if channels == 1 else "RGB")
    except UNREADABLE as error:
        raise BadItem(_said(path, error)) from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingError("extract --images needs the extra hf: pip install 'contrasim[hf]'") from error
    Image.MAX_IMAGE_PIXELS = None  # or Pillow warns of large ones; what counts is the memory that there is
    return Image


def _said(path: Path, error: Exception) -> str:
    why = (
        "there is no such file"
        if isinstance(error, FileNotFoundError)
        else reason(error).replace(f" {str(path)!r}", "")
    )
    return f"{quoted(path)}: cannot be read as an image ({why})"
