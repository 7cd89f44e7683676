"""Image files: those of a folder, or those that a column of a table names."""

import struct
import zlib
from pathlib import Path
from typing import Any

from contrasim_cli.errors import MissingError
from contrasim_cli.extraction.sources.files import Kind, folder_source, table_source, unreadable
from contrasim_cli.extraction.sources.source import BadItem, Choice, Source
from contrasim_cli.memory import memory_budget
from contrasim_cli.names import quoted

# what Pillow trips over in damaged files
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, RuntimeError, zlib.error)
PIXEL_BYTES = 16  # that a pixel takes while an image is unpacked, converted and scaled
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def image_source(path: Path, choice: Choice | None = None) -> Source:
    """The image files of a folder, as `folder_source` finds them."""
    return folder_source(path, IMAGES, choice)


def image_table(path: Path, column: str, id_column: str | None = None, choice: Choice | None = None) -> Source:
    """The image files that a column of a table names, as `table_source` finds them."""
    return table_source(path, IMAGES, column, id_column, choice)


def problem_of(path: Path, memory: int | None = None) -> str | None:
    """Why an image file cannot be opened, or takes more than `memory` bytes (None: half of what is free) to read.

    Whether all of it can be decoded is seen when it is.
    """
    pillow = _pillow()
    try:
        with pillow.open(path) as image:
            return _too_large(path, image, memory)
    except UNREADABLE as error:
        return unreadable(path, "an image", error)


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
        raise BadItem(unreadable(path, "an image", error)) from error


def blank_image(side: int, channels: int | None) -> Any:
    """A square without anything on it, as `open_image` gives one."""
    return _pillow().new("L" if channels == 1 else "RGB", (side, side))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingError("extract --images needs the extra hf: pip install 'contrasim[hf]'") from error
    Image.MAX_IMAGE_PIXELS = None  # or Pillow warns of large ones; what counts is the memory that there is
    return Image


IMAGES = Kind("images", "image", "--image-column", SUFFIXES, problem_of)
