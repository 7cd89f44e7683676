"""What a model is fed, and the rows' ids: texts, arrays, images or sounds, found by the option that names them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.sources.arrays import array_source
from contrasim_cli.extraction.sources.files import folder_source, table_source
from contrasim_cli.extraction.sources.hub_dataset import open_dataset
from contrasim_cli.extraction.sources.images import IMAGES, image_source, image_table, open_image
from contrasim_cli.extraction.sources.layout import PLAIN, Layout
from contrasim_cli.extraction.sources.sounds import SOUNDS
from contrasim_cli.extraction.sources.source import ALL, BadItem, Choice, Items, Source, file_digest
from contrasim_cli.extraction.sources.tables import is_table
from contrasim_cli.extraction.sources.texts import text_source, text_sources
from contrasim_cli.names import quoted

__all__ = [
    "BadItem", "Choice", "InputOptions", "Items", "Layout", "Source", "array_source", "file_digest", "image_source",
    "image_table", "open_image", "open_sources", "text_source", "text_sources",
]  # fmt: skip


@dataclass(frozen=True)
class InputOptions:
    """A file, folder or data set of a kind (text, dataset, arrays, images or audio), and what is taken of it, and how.

    `file_column` is the column of a table that holds the paths of images or sounds, `dataset` the name of a data set as it was
    given, `split` and `subset` what is taken of it.
    """

    kind: str
    path: Path
    columns: Sequence[str] = ()
    file_column: str | None = None
    id_column: str | None = None
    choice: Choice = ALL
    layout: Layout = PLAIN
    dataset: str | None = None
    split: str | None = None
    subset: str | None = None


def open_sources(options: InputOptions) -> list[Source]:
    """The sources that the options name: one per column, or one.

    Raises:
        UsageError, InputError, MismatchError: as the sources of each kind do.
    """
    if options.kind == "text":
        return text_sources(options.path, options.columns, options.id_column, options.choice, options.layout)
    if options.kind == "dataset":
        dataset = open_dataset(options.dataset or str(options.path), options.split, options.subset)
        sources = text_sources(
            options.path, options.columns, options.id_column, options.choice, options.layout, dataset
        )
        named = {"split": options.split, "subset": options.subset}
        return [replace(source, settings={**source.settings, **named}) for source in sources]
    if options.kind == "arrays":
        return [array_source(options.path, options.choice)]
    kind = SOUNDS if options.kind == SOUNDS.name else IMAGES
    if options.file_column is not None:
        return [table_source(options.path, kind, options.file_column, options.id_column, options.choice)]
    if is_table(options.path) and not os.path.isdir(options.path):
        raise UsageError(
            f"{quoted(options.path)}: say which column holds the paths of the {kind.what}s ({kind.column})"
        )
    return [folder_source(options.path, kind, options.choice)]
