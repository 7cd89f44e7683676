"""`contrasim extract`: activations of a model, or of an array file, as a store."""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli import console
from contrasim_cli.commands.options import Device, DeviceOption, Force, Layers, Memory, Seed, parse_memory
from contrasim_cli.errors import ContraSimError, UsageError, raise_all
from contrasim_cli.files import check_output

if TYPE_CHECKING:
    from contrasim_cli.extraction.inputs import Source
    from contrasim_cli.extraction.models import ModelOptions, Network

FIELD = "{column}"


class Pool(str, Enum):
    """How the states of tokens or patches become one row."""

    cls = "cls"
    mean = "mean"
    last = "last"
    patch_mean = "patch-mean"


class StoreDtype(str, Enum):
    """The type of stored values."""

    float16 = "float16"
    float32 = "float32"
    float64 = "float64"


def extract(
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="The store to write; with several columns, as '{column}.h5'.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="A Hugging Face folder or hub id, or file.py:function or package.module:function that returns a "
            "torch.nn.Module or (module, preprocess); preprocess gets one item and returns a tensor.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", help="Texts: .txt (one per line), or .tsv or .csv with --column.", show_default=False),
    ] = None,
    arrays: Annotated[
        Path | None,
        typer.Option(
            "--arrays",
            help="One array of inputs (n, …), such as images (n, c, h, w): .npy or .npz.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="A folder of image files; ids are their paths.", show_default=False)
    ] = None,
    source_file: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Convert existing activations (.npz .npy .safetensors .pt, HDF5).", show_default=False
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Column of texts; repeat for one store per column.", show_default=False),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id-column", help="Column of row ids; default: row numbers.", show_default=False)
    ] = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", help="File with one row id per line.", show_default=False)
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            "--axes",
            help="With --from, what the dimensions of an array are: layers,rows,width or rows,layers,width.",
            show_default=False,
        ),
    ] = None,
    layers: Layers = None,
    pool: Annotated[
        Pool | None,
        typer.Option(
            "--pool",
            help="Text: cls, mean (default) or last; images: cls (default) or patch-mean. Padding never counts.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first N rows.", show_default=False)
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=1, help="Cut texts at N tokens; default: the model's limit.", show_default=False
        ),
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="The same architecture with fresh weights (--seed).")
    ] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Rows per batch; no value depends on it.")
    ] = 64,
    store_dtype: Annotated[
        StoreDtype | None,
        typer.Option("--store-dtype", help="Default: float32; with --from, the type they have.", show_default=False),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option("--model-name", help="What the store calls the model.", show_default=False)
    ] = None,
    data_name: Annotated[
        str | None, typer.Option("--data-name", help="What the store calls the data.", show_default=False)
    ] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", help="What a row is, such as sentence or image.", show_default=False)
    ] = None,
    list_layers: Annotated[
        bool,
        typer.Option("--list-layers", help="Print the layers and their widths, found with the first row, and stop."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: Force = False,
    device: DeviceOption = None,
    seed: Seed = 0,
    memory: Memory = None,
) -> None:
    """Write a model's activations, or those of an array file, as a store.

    Text and images run through a Hugging Face model, whose hidden states are the layers hidden_0 (embeddings) to
    hidden_L; --arrays also through any torch module, whose submodules are the layers (--layers 'blocks.*').
    """
    inputs = {"--text": text, "--arrays": arrays, "--images": images, "--from": source_file}
    kind = _one_input(inputs)
    model_only = {
        "--model": model, "--column": column, "--id-column": id_column, "--pool": pool, "--max-length": max_length,
        "--random-weights": random_weights, "--list-layers": list_layers,
    }  # fmt: skip
    _check_combination(kind, model_only, {"--axes": axes}, ids)
    columns: list[str | None] = [*column] if column else [None]
    outputs = [] if list_layers else _outputs(output, columns, force or resume)
    stored = {
        "store_dtype": store_dtype.value if store_dtype else None,
        "attrs": _given({"model": model_name, "data": data_name, "unit": unit}),
        "force": force,
        "resume": resume,
    }
    budget = parse_memory(memory)
    if source_file is not None:
        _convert(source_file, output=outputs[0], layers=layers, axes=axes, ids=ids, limit=limit, **stored)
        return
    sources = _sources(kind, inputs, columns, id_column, ids, limit)
    network, options = _load(
        sources[0],
        device,
        model=model,
        layers=layers,
        pool=pool.value if pool else None,
        seed=seed,
        max_length=max_length,
        random_weights=random_weights,
    )
    if list_layers:
        _print_layers(network, sources[0])
        return
    for source, path in zip(sources, outputs, strict=True):
        _run(network, options, source, output=path, batch_size=batch_size, memory=budget, **stored)


def _convert(path: Path, **options: Any) -> None:
    from contrasim_cli.extraction.importing import ImportOptions, import_file

    import_file(path, ImportOptions(**options), console.progress)


def _load(source: "Source", device: Device | None, **options: Any) -> "tuple[Network, ModelOptions]":
    from contrasim_cli.device import pick_device
    from contrasim_cli.extraction.models import ModelOptions, load

    how = ModelOptions(device=pick_device(device.value if device else None), **options)
    return load(how, source), how


def _run(network: "Network", model: "ModelOptions", source: "Source", **options: Any) -> None:
    from contrasim_cli.extraction.models import is_factory
    from contrasim_cli.extraction.run import RunOptions, extract

    unit = {"text": "sentence", "images": "image", "arrays": "row" if is_factory(model.model) else "image"}[source.kind]
    attrs = {"model": network.name, "data": source.name, "unit": unit, "pooling": network.pooling} | options["attrs"]
    settings = options | {"attrs": attrs, "store_dtype": options["store_dtype"] or "float32"}
    extract(network, source, model, RunOptions(**settings), console.progress)


def _print_layers(network: "Network", source: "Source") -> None:
    from contrasim_cli.extraction.run import layer_table

    typer.echo("layer\twidth")
    for name, width in layer_table(network, source).items():
        typer.echo(f"{name}\t{width}")


def _one_input(inputs: Mapping[str, Path | None]) -> str:
    given = [name for name, path in inputs.items() if path is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise UsageError(f"give one of {', '.join(list(inputs)[:-1])} and {list(inputs)[-1]}; found {found}")
    return given[0].removeprefix("--")


def _check_combination(
    kind: str, model_only: Mapping[str, object], import_only: Mapping[str, object], ids: Path | None
) -> None:
    """Refuse options that have no meaning for the input given."""
    useless = [name for name, value in (model_only if kind == "from" else import_only).items() if value]
    if kind != "from" and not model_only["--model"]:
        raise UsageError(f"--{kind} needs --model: a Hugging Face folder or hub id, or file.py:function")
    if kind not in ("text", "from"):
        useless += [name for name in ("--column", "--id-column") if model_only[name]]
    if useless:
        raise UsageError(f"{useless[0]} does not go with --{kind}; leave it out")
    if ids is not None and model_only["--id-column"]:
        raise UsageError("give the row ids by --ids or by --id-column, not by both")


def _outputs(output: str | None, columns: Sequence[str | None], replace: bool) -> list[Path]:
    """The paths of the stores, each of which can be written."""
    if output is None:
        raise UsageError("-o is missing: say where the store goes, such as -o acts.h5")
    if len(columns) > 1 and FIELD not in output:
        raise UsageError(f"several columns become several stores: put {FIELD} into the name, such as -o '{FIELD}.h5'")
    if len(set(columns)) < len(columns):
        raise UsageError("--column names the same column twice")
    paths = [Path(output.replace(FIELD, name or FIELD)) for name in columns]
    raise_all([problem for path in paths if (problem := _refusal(path, replace))])
    return paths


def _refusal(path: Path, replace: bool) -> ContraSimError | None:
    try:
        check_output(path, replace)
    except ContraSimError as problem:
        return problem
    return None


def _given(attrs: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in attrs.items() if value}


def _sources(
    kind: str,
    inputs: Mapping[str, Path | None],
    columns: Sequence[str | None],
    id_column: str | None,
    ids: Path | None,
    limit: int | None,
) -> "list[Source]":
    from contrasim_cli.extraction.inputs import open_source, with_ids

    path = inputs[f"--{kind}"]
    assert path is not None  # one input is given
    sources, problems = [], []
    for column in columns:
        try:
            source = open_source(kind, path, column, id_column, limit)
            sources.append(with_ids(source, ids, limit) if ids else source)
        except ContraSimError as problem:
            problems.append(problem)
    raise_all(problems)
    return sources
