"""The options of `contrasim extract`: what is read, which rows of it, what the model does, and how the run goes."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from contrasim_cli.errors import UsageError


class Pool(str, Enum):
    """How the states of tokens or patches become one row."""

    cls = "cls"
    mean = "mean"
    last = "last"
    max = "max"
    none = "none"
    patch_mean = "patch-mean"
    spatial_mean = "spatial-mean"
    flatten = "flatten"


class Unit(str, Enum):
    """What a row is."""

    item = "item"
    word = "word"


class Subword(str, Enum):
    """How the tokens of a word become one row."""

    mean = "mean"
    first = "first"
    last = "last"


class Tower(str, Enum):
    """A half of a model of texts and images."""

    text = "text"
    image = "image"


class Dtype(str, Enum):
    """The type a model computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class StoreDtype(str, Enum):
    """The type of stored values."""

    float16 = "float16"
    float32 = "float32"
    float64 = "float64"


class KeysAre(str, Enum):
    """What the keys of a file are."""

    layers = "layers"
    rows = "rows"


class BitsAre(str, Enum):
    """What 16-bit integers stand for."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    integers = "integers"


class OnTruncate(str, Enum):
    """What a text does that is longer than the model's limit."""

    warn = "warn"
    error = "error"


ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A Hugging Face folder or hub id, or file.py:function or package.module:function that returns a torch.nn.Module "
        "or (module, preprocess); preprocess gets one item and returns a tensor.",
        show_default=False,
    ),
]
StorePath = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", help="The store to write; with several columns, as '{column}.h5'.", show_default=False
    ),
]

Text = Annotated[
    Path | None,
    typer.Option(
        "--text", help="Texts: .txt (one per line), or .tsv, .csv or .jsonl with --column.", show_default=False
    ),
]
Arrays = Annotated[
    Path | None,
    typer.Option(
        "--arrays", help="One array of inputs (n, …), such as images (n, c, h, w): .npy or .npz.", show_default=False
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images",
        help="A folder of image files, whose ids are their paths, or a table with --image-column.",
        show_default=False,
    ),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Convert existing activations: .npz .npy .safetensors .pt .mat .csv .tsv, HDF5, Parquet, Arrow, zarr, or a folder "
        "of such files.",
        show_default=False,
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        "--text-column",
        "--field",
        help="Column of texts, or field of JSON objects; repeat for one store per column.",
        show_default=False,
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option("--image-column", help="Column of image paths, relative to the table's folder.", show_default=False),
]
IdColumn = Annotated[
    str | None, typer.Option("--id-column", help="Column of row ids; default: row numbers.", show_default=False)
]
IdsFile = Annotated[
    Path | None, typer.Option("--ids", help="File with one row id per line of the input.", show_default=False)
]
Axes = Annotated[
    str | None,
    typer.Option(
        "--axes",
        help="With --from, a word per axis of the arrays: layers, rows, width or pool (averaged), as in rows,layers,width; "
        "rows and width may repeat, and are flattened in order. With --model file.py:function, of what layers put out.",
        show_default=False,
    ),
]
Keys = Annotated[
    KeysAre | None,
    typer.Option(
        "--keys",
        help="With --from, what the keys of the file are: a layer each (default), or rows of one layer.",
        show_default=False,
    ),
]
IdsKey = Annotated[
    str | None,
    typer.Option("--ids-key", help="With --from, the key of the vector that names the rows.", show_default=False),
]
ReadAs = Annotated[
    BitsAre | None,
    typer.Option(
        "--read-as",
        help="With --from, what 16-bit integers stand for: bfloat16, float16 or integers.",
        show_default=False,
    ),
]

Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N rows.", show_default=False)]
Skip = Annotated[int, typer.Option("--skip", min=0, help="Leave out the first N rows; ids stay what they are.")]
OnlyIds = Annotated[
    Path | None,
    typer.Option(
        "--only-ids",
        help="Only the rows whose ids this file lists; by --unit word also row:word.",
        show_default=False,
    ),
]
SkipPattern = Annotated[
    str | None,
    typer.Option(
        "--skip-pattern", help=r"Leave out texts that this regular expression is found in.", show_default=False
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out, and list, what cannot be read.")]

PoolOption = Annotated[
    Pool | None,
    typer.Option(
        "--pool",
        help="Text: cls, mean (default), last, max, or none (a row per token). Images: cls, patch-mean, spatial-mean or "
        "flatten. Padding never counts.",
        show_default=False,
    ),
]
UnitOption = Annotated[Unit, typer.Option("--unit", help="A row per item, or per word of a text.")]
SubwordOption = Annotated[
    Subword | None,
    typer.Option("--subword", help="--unit word: which of a word's tokens; default: mean.", show_default=False),
]
TowerOption = Annotated[
    Tower | None, typer.Option("--tower", help="Which half of a CLIP or SigLIP.", show_default=False)
]
Tokenizer = Annotated[
    str | None,
    typer.Option("--tokenizer", help="Folder or hub id of another tokenizer than the model's.", show_default=False),
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of the hub.", show_default=False)
]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="What the model computes in (autocast).")]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", min=1, help="Cut texts at N tokens; default: the model's limit.", show_default=False),
]
OnTruncateOption = Annotated[
    OnTruncate | None,
    typer.Option(
        "--on-truncate",
        help="Texts longer than that: warn (default) counts them, error refuses them before the model runs.",
        show_default=False,
    ),
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="The same architecture with fresh weights (--seed).")
]

BatchSizeOption = Annotated[
    str,
    typer.Option("--batch-size", help="Items per batch; auto: as many as memory takes. No value depends on it."),
]
StoreDtypeOption = Annotated[
    StoreDtype | None,
    typer.Option("--store-dtype", help="Default: float32; with --from, the type they have.", show_default=False),
]
StoredModel = Annotated[
    str | None, typer.Option("--model-name", help="What the store calls the model.", show_default=False)
]
StoredData = Annotated[
    str | None, typer.Option("--data-name", help="What the store calls the data.", show_default=False)
]
StoredUnit = Annotated[
    str | None, typer.Option("--unit-name", help="What the store calls a row, such as image.", show_default=False)
]
ListLayers = Annotated[bool, typer.Option("--list-layers", help="Print the layers and their widths, and stop.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and stop.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")]


def parse_batch_size(text: str) -> int | None:
    """A number of items; `auto` is None."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or not int(text):
        raise UsageError(f"--batch-size {text!r}: write a number from 1, or auto")
    return int(text)
