"""What a model is fed: lines of text, a column of a table, an array, a folder of images; and the rows' ids.

Sources are read in blocks and in order, so that their size costs no memory. Tables are UTF-8 with a header line; in
`.csv` fields may be quoted, in `.tsv` a tab always separates and a quotation mark is a character like any other.
"""

import csv
import hashlib
import itertools
import json
import logging
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError, MismatchError, MissingError, UsageError
from contrasim_cli.files import quoted
from contrasim_cli.store.store import first_duplicate

log = logging.getLogger(__name__)

TABLES = {".tsv", ".csv"}
NO_TEXTS = {
    ".arrow",
    ".bz2",
    ".gz",
    ".json",
    ".jsonl",
    ".npy",
    ".npz",
    ".parquet",
    ".xls",
    ".xlsx",
    ".xz",
    ".zip",
    ".zst",
}
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
DIGEST_BLOCK = 1 << 20

Items = Any  # a list of rows, or an array of them


@dataclass(frozen=True)
class Source:
    """Rows to be fed to a model, `kind` text, arrays or images.

    `blocks(size)` yields the rows from the first to the last, `size` at a time; `ids()` yields their names. `automatic`
    ids are the positions in the file whose digest is `digest`.
    """

    path: Path
    kind: str
    n_rows: int
    blocks: Callable[[int], Iterator[Items]]
    ids: Callable[[], Iterator[str]]
    automatic: bool
    digest: str
    column: str | None = None

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.resolve().name


def open_source(kind: str, path: Path, column: str | None, id_column: str | None, limit: int | None) -> Source:
    """The source of a kind: text, arrays or images."""
    if kind == "text":
        return text_source(path, column, id_column, limit)
    return array_source(path, limit) if kind == "arrays" else image_source(path, limit)


def text_source(path: Path, column: str | None, id_column: str | None, limit: int | None) -> Source:
    """The lines of a text file, or a column of a `.tsv` or `.csv` table.

    Raises:
        UsageError: a table without `column`, a column that is not in it, or columns of something that is no table.
        InputError: the file cannot be read, is not UTF-8, has rows of unequal length or no rows, or repeats an id.
    """
    check_columns(path, column, id_column)
    if column is None:
        texts, ids = _reader(path, _lines, limit), None
    else:
        texts = _reader(path, lambda p: _column(p, column), limit)
        ids = _reader(path, lambda p: _column(p, id_column), limit) if id_column else None
    n_rows = _count_texts(path, texts)
    if ids is not None:
        _refuse_duplicates(f"{quoted(path)}: column {quoted(id_column)}", ids())
    return Source(
        path=path,
        kind="text",
        n_rows=n_rows,
        blocks=lambda size: _batched(texts(), size),
        ids=ids or _positions(n_rows),
        automatic=ids is None,
        digest=file_digest(path),
        column=column,
    )


def check_columns(path: Path, column: str | None, id_column: str | None) -> None:
    """Refuse columns of something that is no table, and a table without a column."""
    if path.suffix.lower() in NO_TEXTS:
        raise UsageError(f"{quoted(path)}: --text takes .txt (one text per line), .tsv or .csv; convert the file first")
    is_table = path.suffix.lower() in TABLES
    if is_table and column is None:
        raise UsageError(f"{quoted(path)}: say which column holds the text (--column); it has {_shown(header(path))}")
    if not is_table and (column is not None or id_column is not None):
        given = "--column" if column is not None else "--id-column"
        raise UsageError(f"{quoted(path)}: {given} needs a table with a header line, named .tsv or .csv")


def _reader(path: Path, read: Callable[[Path], Iterator[str]], limit: int | None) -> Callable[[], Iterator[str]]:
    return lambda: itertools.islice(read(path), limit)


def _count_texts(path: Path, texts: Callable[[], Iterator[str]]) -> int:
    count = blank = 0
    for text in texts():
        count += 1
        blank += not text.strip()
    if not count:
        raise InputError(f"{quoted(path)}: holds no rows")
    if blank:
        log.warning("%s: %d of %d rows are empty; they are kept as rows", quoted(path), blank, count)
    return count


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends."""
    for line in _raw_lines(path):
        yield line.rstrip("\r\n")


def _raw_lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield _decoded(path, number, line)
    except OSError as error:
        raise InputError(f"{quoted(path)}: cannot be read: {error.strerror}") from error


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{quoted(path)}: line {number} is not UTF-8; convert the file first (iconv -t utf-8)"
        ) from error
    return text.removeprefix("\ufeff") if number == 1 else text


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, header included, each with the number of its last line."""
    if path.suffix.lower() == ".tsv":
        yield from enumerate((line.split("\t") for line in _lines(path)), 1)
        return
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(_raw_lines(path), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row or [""]
    except csv.Error as error:
        raise InputError(f"{quoted(path)}: line {reader.line_num} is no CSV ({error})") from error


def header(path: Path) -> list[str]:
    """The columns of a table."""
    first = next(_rows(path), None)
    if first is None:
        raise InputError(f"{quoted(path)}: is empty; a table starts with a line that names its columns")
    return first[1]


def _column(path: Path, column: str | None) -> Iterator[str]:
    rows = _rows(path)
    names = header(path)
    if column not in names:
        raise UsageError(f"{quoted(path)}: has no column {quoted(column)}; it has {_shown(names)}")
    index = names.index(column)
    next(rows)
    for number, row in rows:
        if len(row) != len(names):
            raise InputError(
                f"{quoted(path)}: line {number} has {len(row)} fields where the header has {len(names)}; mend the line"
            )
        yield row[index]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names[:20])) + (", …" if len(names) > 20 else "")


def array_source(path: Path, limit: int | None) -> Source:
    """The rows of a `.npy` array [n, …] (memory-mapped) or of the one array of an `.npz` file.

    Strings named `ids` in an `.npz` name the rows.

    Raises:
        InputError: the file cannot be read, or holds no such array.
    """
    array, names = _load_arrays(path)
    n_rows = min(len(array), limit or len(array))
    if names is not None:
        _refuse_duplicates(f"{quoted(path)}: ids", iter(names))
    return Source(
        path=path,
        kind="arrays",
        n_rows=n_rows,
        blocks=lambda size: (array[start : min(start + size, n_rows)] for start in range(0, n_rows, size)),
        ids=_positions(n_rows) if names is None else lambda: iter(names[:n_rows]),
        automatic=names is None,
        digest=file_digest(path),
    )


def _load_arrays(path: Path) -> tuple[npt.NDArray[Any], list[str] | None]:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        members = {path.stem: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except OSError as error:
        raise InputError(f"{quoted(path)}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{quoted(path)}: cannot be read as .npy or .npz ({reason})") from error
    ids = members.pop("ids", None)
    if len(members) != 1:
        raise InputError(f"{quoted(path)}: holds {len(members)} arrays; --arrays takes a file with one")
    array = next(iter(members.values()))
    _check_array(path, array)
    return array, None if ids is None else _check_ids(path, ids, len(array))


def _check_array(path: Path, array: npt.NDArray[Any]) -> None:
    if array.dtype.kind not in "fiub" or array.ndim < 2 or not len(array):
        raise InputError(
            f"{quoted(path)}: is {array.dtype} {array.shape}; expected numbers [n, …] with at least one row"
        )


def _check_ids(path: Path, ids: npt.NDArray[Any], n_rows: int) -> list[str]:
    if ids.dtype.kind not in "US" or ids.shape != (n_rows,):
        raise InputError(f"{quoted(path)}: ids are {ids.dtype} {ids.shape}; expected {n_rows} strings")
    return [str(name) for name in ids.astype(str)]


def image_source(folder: Path, limit: int | None) -> Source:
    """The image files of a folder and its subfolders, sorted bytewise by their relative paths, which are their ids.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{quoted(folder)}: is no folder; --images takes a folder of image files")
    names, passed_over = _image_names(folder)
    if not names:
        raise InputError(f"{quoted(folder)}: holds no image ({' '.join(sorted(IMAGE_SUFFIXES))})")
    if passed_over:
        log.info("%s: %d files that are no images are passed over", quoted(folder), passed_over)
    names = names[:limit]
    return Source(
        path=folder,
        kind="images",
        n_rows=len(names),
        blocks=lambda size: _batched((folder / name for name in names), size),
        ids=lambda: iter(names),
        automatic=False,
        digest=_listing_digest(folder, names),
    )


def _image_names(folder: Path) -> tuple[list[str], int]:
    files = [
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
    ]
    images = [name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    unnameable = [name for name in images if not _is_utf8(name)]
    if unnameable:
        raise InputError(
            f"{quoted(folder)}: the file name {unnameable[0]!a} is not UTF-8 and cannot be an id; rename it"
        )
    return sorted((name.replace(os.sep, "/") for name in images), key=os.fsencode), len(files) - len(images)


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _listing_digest(folder: Path, names: Sequence[str]) -> str:
    """Digest of names and sizes: reading every image twice would cost as much as the extraction."""
    sizes = [(name, (folder / name).stat().st_size) for name in names]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def open_image(path: Path, channels: int | None) -> Any:
    """An image file, grey for models of one channel and RGB for the others."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingError("extract --images needs the extra hf: pip install 'contrasim[hf]'") from error
    try:
        with Image.open(path) as image:
            return image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{quoted(path)}: cannot be read as an image ({error})") from error


def with_ids(source: Source, path: Path, limit: int | None) -> Source:
    """The same source with its rows named by the lines of a file.

    Raises:
        InputError: the file cannot be read, or a name occurs twice.
        MismatchError: it has not as many lines as the source has rows.
    """
    ids = read_ids(path, source.n_rows, source.path, limit)
    return replace(source, ids=ids, automatic=False)


def read_ids(path: Path, n_rows: int, where: Path, limit: int | None) -> Callable[[], Iterator[str]]:
    """The lines of a file of ids, checked; where rows are limited, the file may name all of them."""
    count = sum(1 for _ in _lines(path))
    if count < n_rows or (count > n_rows and limit is None):
        raise MismatchError(f"{quoted(path)}: has {count} ids for the {n_rows} rows of {quoted(where)}")
    ids = _reader(path, _lines, n_rows)
    _refuse_duplicates(quoted(path), ids())
    return ids


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(DIGEST_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{quoted(path)}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def positions(count: int) -> Iterator[str]:
    """Automatic ids: 0, 1, 2, …"""
    return map(str, range(count))


def _positions(count: int) -> Callable[[], Iterator[str]]:
    return lambda: positions(count)


def _refuse_duplicates(where: str, ids: Iterator[str]) -> None:
    hashes = bytearray()
    for name in ids:
        hashes += hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    found = first_duplicate(np.frombuffer(bytes(hashes), dtype="V16"))
    if found:
        raise InputError(f"{where}: rows {found[0]} and {found[1]} have the same id; ids must be unique")


def _batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while block := list(itertools.islice(iterator, size)):
        yield block
