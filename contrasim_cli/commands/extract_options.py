"""The options of `contrasim extract`: what is read, which rows of it, what the model does, and where the rows go."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from contrasim_cli.commands.emit import REPLACES, is_of
from contrasim_cli.commands.inputs import ZeroRowsOption
from contrasim_cli.commands.options import SharedCompute
from contrasim_cli.errors import ContraSimError, UsageError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.output_files import check_output

if TYPE_CHECKING:
    from contrasim_cli.extraction.sharding import PartOf

# suffixes of other formats, which a store of that name would be taken for
FOREIGN = {
    ".npz",
    ".npy",
    ".pt",
    ".pth",
    ".safetensors",
    ".zarr",
    ".mat",
    ".csv",
    ".tsv",
    ".json",
    ".txt",
    ".parquet",
    ".arrow",
    ".pkl",
}
FIELD = "{column}"


@dataclass(frozen=True, kw_only=True)
class Input:
    """What is read: one of texts, a data set of them, images, sounds, arrays, and activations that exist."""

    PANEL: ClassVar = "Input"
    text: Annotated[
        Path | None,
        typer.Option(
            "--text",
            help="Texts: .txt (one per line), or, with --column, .tsv, .csv, .jsonl (all four also .gz or .zst), .parquet, .arrow "
            "or .feather.",
        ),
    ] = None
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Texts of a data set of Hugging Face, by its name on the hub or its folder, with --column.",
        ),
    ] = None
    split: Annotated[str | None, typer.Option("--split", help="The split of the data set, such as test.")] = None
    subset: Annotated[str | None, typer.Option("--subset", help="The subset of the data set (its configuration).")] = (
        None
    )
    arrays: Annotated[
        Path | None,
        typer.Option("--arrays", help="One array of inputs (n, …), such as images (n, c, h, w): .npy or .npz."),
    ] = None
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="A folder of image files, whose ids are their paths, or a table with --image-column."
        ),
    ] = None
    audio: Annotated[
        Path | None,
        typer.Option(
            "--audio", help="A folder of sound files, whose ids are their paths, or a table with --audio-column."
        ),
    ] = None
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Convert existing activations: .npz .npy .safetensors .pt .mat .csv .tsv, HDF5, Parquet, Arrow, zarr, or a "
            "folder of such files.",
        ),
    ] = None
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            "--text-column",
            "--field",
            help="Column of texts, or field of JSON objects; repeat for one store per column.",
        ),
    ] = None
    image_column: Annotated[
        str | None,
        typer.Option("--image-column", help="Column of image paths, relative to the table's folder."),
    ] = None
    audio_column: Annotated[
        str | None,
        typer.Option("--audio-column", help="Column of sound paths, relative to the table's folder."),
    ] = None
    id_column: Annotated[str | None, typer.Option("--id-column", help="Column of row ids; default: row numbers.")] = (
        None
    )
    ids: Annotated[Path | None, typer.Option("--ids", help="File with one row id per line of the input.")] = None

    @property
    def given(self) -> list[tuple[str, Path]]:
        """The inputs that are given: kind and path."""
        inputs = {
            "text": self.text,
            "dataset": None if self.dataset is None else Path(self.dataset),
            "arrays": self.arrays,
            "images": self.images,
            "audio": self.audio,
            "from": self.source,
        }
        return [(kind, path) for kind, path in inputs.items() if path is not None]

    def one(self, needless: bool) -> tuple[str, Path | None]:
        """What is read: the kind of input, and where it is; `needless`: a model alone will do.

        Raises:
            UsageError: it is not one.
        """
        given = self.given
        if len(given) == 1:
            return given[0]
        if needless and not given:
            return "model", None
        kinds = " and ".join(f"--{kind}" for kind, _ in given) or "none"
        raise UsageError(f"give one of --text, --dataset, --arrays, --images, --audio and --from; found {kinds}")


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """How a file of arrays is to be read."""

    PANEL: ClassVar = "Arrays that do not say what they hold"
    axes: Annotated[
        str | None,
        typer.Option(
            "--axes",
            help="With --from, a word per axis of the arrays: layers, rows, width or pool (averaged), as in rows,layers,width; "
            "rows and width may repeat, and are flattened in order. With --model file.py:function, axes of layer outputs.",
        ),
    ] = None
    keys: Annotated[
        Literal["layers", "rows"] | None,
        typer.Option(
            "--keys", help="With --from, the meaning of the keys of the file: layers (default), or rows of one layer."
        ),
    ] = None
    ids_key: Annotated[
        str | None, typer.Option("--ids-key", help="With --from, the key of the vector that names the rows.")
    ] = None
    read_as: Annotated[
        Literal["bfloat16", "float16", "integers"] | None,
        typer.Option("--read-as", help="With --from, the meaning of 16-bit integers: bfloat16, float16 or integers."),
    ] = None
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask",
            metavar="FILE[:NAME]",
            help="With --axes rows,rows,width or rows,pool,width, the mask (items, tokens): 1 for tokens, 0 for padding, which is "
            "left out. NAME alone: an array of the --from file; '!NAME': 1 for padding.",
        ),
    ] = None
    zero_rows: ZeroRowsOption = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows are taken."""

    PANEL: ClassVar = "Rows"
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N rows.")] = None
    skip: Annotated[int, typer.Option("--skip", min=0, help="Leave out the first N rows; ids do not change.")] = 0
    only: Annotated[
        Path | None,
        typer.Option("--only-ids", help="Only the rows whose ids this file lists; by --unit word also row:word."),
    ] = None
    skip_pattern: Annotated[
        str | None,
        typer.Option("--skip-pattern", help="Leave out texts that this regular expression matches."),
    ] = None
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out inputs that cannot be read, and list them.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which model, and what is taken from it; fields have the names of `ModelOptions`, but for the last."""

    PANEL: ClassVar = "Model"
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="A Hugging Face folder or hub id, or file.py:function or package.module:function that returns a "
            "torch.nn.Module, alone or with a tokenizer or processor of transformers, or with a function that makes a tensor of "
            "one item.",
        ),
    ] = None
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            "--model-arg", help="Argument of that function, as name=value; JSON, or else text; repeat for several."
        ),
    ] = None
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layers", help="Layers by name, index (-1 is the last), range (2-5) or glob; repeat for several."
        ),
    ] = None
    pool: Annotated[
        Literal["cls", "mean", "first", "last", "max", "none", "patch-mean", "spatial-mean", "flatten"] | None,
        typer.Option(
            "--pool",
            help="Text: cls, mean (default), first, last, max, or none (a row per token). Images: cls, patch-mean, spatial-mean or "
            "flatten. Audio: mean (default), max, first, last, cls, or none (a row per frame). Padding never counts.",
        ),
    ] = None
    unit: Annotated[Literal["item", "word"], typer.Option("--unit", help="A row per item, or per word of a text.")] = (
        "item"
    )
    subword: Annotated[
        Literal["mean", "first", "last"] | None,
        typer.Option("--subword", help="--unit word: which of a word's tokens; default: mean."),
    ] = None
    part: Annotated[
        Literal["text", "image", "audio", "encoder", "decoder"] | None,
        typer.Option(
            "--part",
            "--tower",
            help="Part of the model to run: its text, image or audio side, its encoder (default) or its decoder.",
        ),
    ] = None
    decoder_text: Annotated[
        str | None,
        typer.Option(
            "--decoder-text", help="--part decoder: column that the decoder reads; default: the encoder's column."
        ),
    ] = None
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Folder or hub id of a tokenizer other than the model's.")
    ] = None
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of the hub.")] = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option("--dtype", help="Type in which the model computes (autocast)."),
    ] = "float32"
    weights_dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option("--weights-dtype", help="Type of the model's weights in memory; auto: the type in its files."),
    ] = "auto"
    hook: Annotated[
        Literal["input", "output"],
        typer.Option("--hook", help="Read the output or the input of the modules in --layers."),
    ] = "output"
    split_heads: Annotated[
        bool,
        typer.Option(
            "--split-heads", help="Make every attention head of the layers a layer of its own, such as NAME.head_3."
        ),
    ] = False
    allow_random: Annotated[
        bool,
        typer.Option("--allow-random", help="Accept a model that gives different rows for the same item each time."),
    ] = False
    max_length: Annotated[
        int | None,
        typer.Option("--max-length", min=1, help="Cut texts at N tokens; default: the model's limit."),
    ] = None
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="The same architecture with random, untrained weights (--seed).")
    ] = False
    on_truncate: Annotated[
        Literal["warn", "error"] | None,
        typer.Option(
            "--on-truncate",
            help="Texts longer than the limit: warn (default) cuts and counts them, error refuses them before the model runs.",
        ),
    ] = None
    list_layers: Annotated[bool, typer.Option("--list-layers", help="Print the layers and their widths, and stop.")] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What a model of texts is given, and which of its tokens make a row; fields are those of `ModelOptions`, and the prompt."""

    PANEL: ClassVar = "Texts"
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help="Text that contains columns, such as 'In French: {en}'; {{ and }} are literal braces."
        ),
    ] = None
    template: Annotated[
        Literal["chat"] | None,
        typer.Option(
            "--template",
            help="chat: format the input by the tokenizer's chat template: the messages of a JSON field (default: messages), or a "
            "text as one user message.",
        ),
    ] = None
    generation_prompt: Annotated[
        bool, typer.Option("--generation-prompt", help="--template chat: add the words that begin an answer.")
    ] = False
    special_tokens: Annotated[
        Literal["keep", "pool-without", "none"],
        typer.Option(
            "--special-tokens",
            help="Special tokens, such as CLS and BOS: keep (default), pool-without (the model reads them, pooling ignores them), "
            "none. A text that begins with BOS gets no second one.",
        ),
    ] = "keep"
    position: Annotated[
        list[str] | None,
        typer.Option(
            "--position",
            help="A row is one token of its text: its position (-1 is the last), first, last, or a column of positions; "
            "repeat for several rows per text.",
        ),
    ] = None
    span: Annotated[
        str | None,
        typer.Option(
            "--span",
            help="Column of spans start:end, in characters: a row is the pooled tokens of this span (--pool mean, "
            "first, last or max).",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class StoreOutput:
    """The store that is written."""

    PANEL: ClassVar = "Output"
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="The store to write; with several columns, as '{column}.h5'."),
    ] = None
    store_dtype: Annotated[
        Literal["float16", "float32", "float64"] | None,
        typer.Option("--store-dtype", help="Type of the stored values; default: float32; with --from, their own type."),
    ] = None
    model_name: Annotated[str | None, typer.Option("--model-name", help="Name of the model in the store.")] = None
    data_name: Annotated[str | None, typer.Option("--data-name", help="Name of the data in the store.")] = None
    unit_name: Annotated[
        str | None, typer.Option("--unit-name", help="Name for a row in the store, such as image.")
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Write part I of N (from 0) of a sharded store, the folder -o; one part per job of a job array.",
        ),
    ] = None
    parts: Annotated[
        int | None,
        typer.Option(
            "--parts", metavar="N", min=1, max=99_999, help="Write a sharded store of N parts, the folder -o."
        ),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and stop.")] = False
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped run.")] = False
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False

    @property
    def attrs(self) -> dict[str, str]:
        """What the store says of itself, as far as that is given."""
        names = {"model": self.model_name, "data": self.data_name, "unit": self.unit_name}
        return {name: value for name, value in names.items() if value}

    @cached_property
    def parted(self) -> "Sequence[PartOf] | None":
        """The parts of a sharded store that this process writes; None: the output is one file.

        Raises:
            UsageError: --shard names no part, or goes with --parts.
        """
        from contrasim_cli.extraction.sharding import PartOf

        if self.shard is None:
            return None if self.parts is None else [PartOf(k, self.parts) for k in range(self.parts)]
        if self.parts is not None:
            raise UsageError("--shard I/N says how many parts there are; leave out --parts")
        return [PartOf.parsed(self.shard)]

    def paths(self, columns: Sequence[str | None], read: Sequence[Path | None]) -> list[Path]:
        """The paths of the stores, each of which can be written and is nothing that is read.

        Raises:
            UsageError: they are not, or are not as many as the columns.
            OutputExistsError, OutputError: one exists, or cannot be written.
        """
        if self.output is None:
            raise UsageError("-o is missing: say where the store goes, such as -o acts.h5")
        if len(columns) > 1 and FIELD not in self.output:
            raise UsageError(
                f"several columns become several stores: put {FIELD} into the name, such as -o '{FIELD}.h5'"
            )
        if len(set(columns)) < len(columns):
            raise UsageError("--column names the same column twice")
        paths = [Path(self.output.replace(FIELD, name or FIELD)) for name in columns]
        raise_all([problem for path in paths if (problem := self._refusal(path, read))])
        return paths

    def _refusal(self, path: Path, read: Sequence[Path | None]) -> ContraSimError | None:
        if any(source is not None and is_of(path, source) for source in read):
            return UsageError(f"-o {quoted(path)}: {REPLACES}")
        if path.suffix.lower() in FOREIGN:
            return UsageError(
                f"-o {quoted(path)}: extract writes HDF5, not {path.suffix}; call it {quoted(path.with_suffix('.h5'))}"
            )
        from contrasim_cli.store.shard_index import check_folder

        try:
            if self.parted:
                check_folder(path, self.parted[0].count)
            for file in [path] if self.parted is None else [part.path(path) for part in self.parted if path.is_dir()]:
                check_output(file, self.force or self.resume)
        except ContraSimError as problem:
            return problem
        return None


@dataclass(frozen=True, kw_only=True)
class BatchCompute(SharedCompute):
    """Where the model runs, and on how much at a time."""

    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="cpu, cuda, cuda:N, mps, or auto (spread over all devices by accelerate); default: cuda if there is one.",
        ),
    ] = None
    batch_size: Annotated[
        str,
        typer.Option(
            "--batch-size",
            help="Items per batch; auto: as many as fit in memory. Results differ by no more than rounding.",
        ),
    ] = "64"

    @property
    def items(self) -> int | None:
        """Items per batch; None for auto.

        Raises:
            UsageError: it is no number.
        """
        text = self.batch_size
        if text == "auto":
            return None
        if not text.isascii() or not text.isdigit() or not int(text):
            raise UsageError(f"--batch-size {text!r}: write a number from 1, or auto")
        return int(text)
