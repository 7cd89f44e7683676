"""`contrasim extract`: activations of a model, or of an array file, as a store."""

import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from contrasim_cli import console
from contrasim_cli.commands import extract_options as opt
from contrasim_cli.commands.options import Device, DeviceOption, Force, Layers, Memory, Seed, ZeroRowsRule, parse_memory
from contrasim_cli.errors import ContraSimError, UsageError, raise_all
from contrasim_cli.names import cell, quoted
from contrasim_cli.output_files import check_output

if TYPE_CHECKING:
    from contrasim_cli.extraction.estimate import Estimate
    from contrasim_cli.extraction.importing import ImportOptions
    from contrasim_cli.extraction.networks.network import ModelOptions, Network
    from contrasim_cli.extraction.run import RunOptions
    from contrasim_cli.extraction.sources.open import Source

log = logging.getLogger(__name__)

FIELD = "{column}"
MODELS = {"text", "arrays", "images"}  # inputs that go through a model
# what goes with only some of the inputs
GOES_WITH = {
    "--column": {"text"},
    "--image-column": {"images"},
    "--id-column": {"text", "images"},
    "--skip-pattern": {"text"},
    "--on-truncate": {"text"},
    "--axes": {"from", "arrays", "images"},
    "--keys": {"from"},
    "--ids-key": {"from"},
    "--read-as": {"from"},
    "--zero-rows": {"from"},
    "--unit word": {"text"},
    "--subword": {"text"},
    "--tokenizer": {"text"},
} | dict.fromkeys(
    (
        "--model",
        "--skip-bad",
        "--pool",
        "--max-length",
        "--random-weights",
        "--list-layers",
        "--tower",
        "--revision",
        "--dtype",
    ),
    MODELS,
)


def extract(
    output: opt.StorePath = None,
    model: opt.ModelName = None,
    text: opt.Text = None,
    arrays: opt.Arrays = None,
    images: opt.Images = None,
    source_file: opt.From = None,
    column: opt.Column = None,
    image_column: opt.ImageColumn = None,
    id_column: opt.IdColumn = None,
    ids: opt.IdsFile = None,
    axes: opt.Axes = None,
    keys: opt.Keys = None,
    ids_key: opt.IdsKey = None,
    read_as: opt.ReadAs = None,
    zero_rows: ZeroRowsRule = None,
    limit: opt.Limit = None,
    skip: opt.Skip = 0,
    only_ids: opt.OnlyIds = None,
    skip_pattern: opt.SkipPattern = None,
    skip_bad: opt.SkipBad = False,
    layers: Layers = None,
    pool: opt.PoolOption = None,
    unit: opt.UnitOption = opt.Unit.item,
    subword: opt.SubwordOption = None,
    tower: opt.TowerOption = None,
    tokenizer: opt.Tokenizer = None,
    revision: opt.Revision = None,
    dtype: opt.DtypeOption = opt.Dtype.float32,
    max_length: opt.MaxLength = None,
    on_truncate: opt.OnTruncateOption = None,
    random_weights: opt.RandomWeights = False,
    batch_size: opt.BatchSizeOption = "64",
    store_dtype: opt.StoreDtypeOption = None,
    model_name: opt.StoredModel = None,
    data_name: opt.StoredData = None,
    unit_name: opt.StoredUnit = None,
    list_layers: opt.ListLayers = False,
    dry_run: opt.DryRun = False,
    resume: opt.Resume = False,
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
    kind, path = _one_input(inputs, list_layers and model is not None)
    _check_combination(
        kind,
        {
            "--model": model, "--column": column, "--image-column": image_column, "--id-column": id_column,
            "--axes": axes, "--keys": keys, "--ids-key": ids_key, "--read-as": read_as, "--zero-rows": zero_rows,
            "--skip-pattern": skip_pattern, "--skip-bad": skip_bad, "--pool": pool,
            "--unit word": unit is opt.Unit.word, "--subword": subword, "--tower": tower, "--tokenizer": tokenizer,
            "--revision": revision, "--dtype": dtype is not opt.Dtype.float32, "--max-length": max_length,
            "--on-truncate": on_truncate, "--random-weights": random_weights, "--list-layers": list_layers,
        },
    )  # fmt: skip
    if ids is not None and id_column:
        raise UsageError("give the row ids by --ids or by --id-column, not by both")
    read = [path, ids, only_ids, *([Path(model), Path(model.rpartition(":")[0])] if model else [])]
    outputs = [] if list_layers else _outputs(output, column or [None], force or resume, read)
    stored = {
        "store_dtype": _value(store_dtype),
        "attrs": _given({"model": model_name, "data": data_name, "unit": unit_name}),
        "force": force,
        "resume": resume,
    }
    chosen = {
        "ids": ids, "only": only_ids, "skip_pattern": skip_pattern, "skip": skip, "limit": limit, "skip_bad": skip_bad,
        "by_word": unit is opt.Unit.word, "memory": parse_memory(memory),
    }  # fmt: skip
    run = {
        "batch_size": opt.parse_batch_size(batch_size),
        "memory": parse_memory(memory),
        "skip_bad": skip_bad,
        "refuse_cut": on_truncate is opt.OnTruncate.error,
    }
    if path is not None and kind == "from":
        said = {
            "axes": axes,
            "keys": _value(keys),
            "ids_key": ids_key,
            "read_as": _value(read_as),
            "budget": run["memory"],
        }
        taken = {"output": outputs[0], "layers": layers, "zero_rows": _value(zero_rows)}
        _convert(path, _import_options(chosen, said, **taken, **stored), dry_run)
        return
    sources = _sources(kind, path, chosen, columns=column or [], image_column=image_column, id_column=id_column)
    network, options = _load(
        sources[0] if sources else None,
        device,
        model=model,
        layers=layers,
        pool=_value(pool),
        unit=unit.value,
        subword=_value(subword) or "mean",
        tower=_value(tower),
        tokenizer=tokenizer,
        revision=revision,
        dtype=dtype.value,
        axes=axes,
        seed=seed,
        max_length=max_length,
        random_weights=random_weights,
    )
    if list_layers:
        _print_layers(network, sources)
        return
    for source, target in zip(sources, outputs, strict=True):
        _run(network, options, source, _run_options(network, options, source, output=target, **stored, **run), dry_run)


def _convert(path: Path, options: "ImportOptions", dry_run: bool) -> None:
    from contrasim_cli.extraction.importing import import_file, planned

    if dry_run:
        _print_plan(planned(path, options))
    else:
        import_file(path, options, console.progress)


def _import_options(chosen: Mapping[str, Any], said: Mapping[str, Any], **options: Any) -> "ImportOptions":
    from contrasim_cli.extraction.importing import ImportOptions
    from contrasim_cli.extraction.sources.open import Choice
    from contrasim_cli.store import Reading

    return ImportOptions(choice=Choice(**chosen), reading=Reading(**said), **options)


def _sources(kind: str, path: Path | None, chosen: Mapping[str, Any], **columns: Any) -> "list[Source]":
    from contrasim_cli.extraction.sources.open import Choice, InputOptions, open_sources

    return [] if path is None else open_sources(InputOptions(kind, path, choice=Choice(**chosen), **columns))


def _load(source: "Source | None", device: Device | None, **options: Any) -> "tuple[Network, ModelOptions]":
    from contrasim_cli.device import pick_device
    from contrasim_cli.extraction.networks.load import load
    from contrasim_cli.extraction.networks.network import ModelOptions

    how = ModelOptions(device=pick_device(_value(device)), **options)
    with _without_stdout():
        return load(how, source), how


def _run_options(network: "Network", model: "ModelOptions", source: "Source", **options: Any) -> "RunOptions":
    from contrasim_cli.extraction.run import RunOptions

    attrs = {"model": network.name, "data": source.name, "unit": _unit(model, source), "pooling": network.pooling}
    settings = options | {"attrs": attrs | options["attrs"], "store_dtype": options["store_dtype"] or "float32"}
    return RunOptions(**settings)


def _unit(model: "ModelOptions", source: "Source") -> str:
    """What a row is, unless the user names it."""
    from contrasim_cli.extraction.networks.load import is_factory

    if source.kind == "text":
        return "word" if model.unit == "word" else "token" if model.pool == "none" else "sentence"
    of_any_kind = is_factory(model.model) or Path(model.model).is_file()
    return "row" if source.kind == "arrays" and of_any_kind else "image"


def _run(network: "Network", model: "ModelOptions", source: "Source", run: "RunOptions", dry_run: bool) -> None:
    from contrasim_cli.extraction.run import extract, plan

    with _without_stdout():
        expected = plan(network, source, run) if dry_run else None
        if expected is None:
            extract(network, source, model, run, console.progress)
    if expected is not None:
        _print_plan(expected)


def _print_layers(network: "Network", sources: "Sequence[Source]") -> None:
    from contrasim_cli.extraction.estimate import layer_table
    from contrasim_cli.extraction.networks.load import layer_widths

    with _without_stdout():
        if not sources:
            found = layer_widths(network)
        else:
            found = {name: f"[rows, {width}]" for name, width in layer_table(network, sources[0]).items()}
    typer.echo("layer\tshape")
    for name, shape in found.items():
        typer.echo(f"{cell(name)}\t{shape}")


def _without_stdout() -> "contextlib.redirect_stdout[TextIO]":
    """A block in which what other people's models print goes to stderr: stdout is for results."""
    return contextlib.redirect_stdout(sys.stderr)


def _print_plan(expected: "Estimate") -> None:
    typer.echo("store\tlayer\trows\twidth\tdtype\tbytes")
    for layer in expected.layers:
        size = expected.layer_bytes(layer)
        names = f"{cell(str(expected.output))}\t{cell(layer.name)}"
        typer.echo(f"{names}\t{expected.rows}\t{layer.width}\t{layer.dtype}\t{size}")
    log.info("would write %s: %s; nothing was written", quoted(expected.output), expected)


def _one_input(inputs: Mapping[str, Path | None], needless: bool) -> tuple[str, Path | None]:
    """What is read: the kind of input, and where it is."""
    given = [(name.removeprefix("--"), path) for name, path in inputs.items() if path is not None]
    if len(given) == 1:
        return given[0]
    if needless and not given:
        return "model", None
    found = " and ".join(f"--{name}" for name, _ in given) or "none"
    raise UsageError(f"give one of {', '.join(list(inputs)[:-1])} and {list(inputs)[-1]}; found {found}")


def _check_combination(kind: str, options: Mapping[str, object]) -> None:
    """Refuse options that have no meaning for the input given."""
    if kind in MODELS and not options["--model"]:
        raise UsageError(f"--{kind} needs --model: a Hugging Face folder or hub id, or file.py:function")
    useless = [name for name, value in options.items() if value and kind not in GOES_WITH[name] | {"model"}]
    if useless:
        raise UsageError(f"{useless[0]} does not go with --{kind}; leave it out")
    if options["--subword"] and not options["--unit word"]:
        raise UsageError("--subword is for --unit word; give both, or leave it out")


def _outputs(
    output: str | None, columns: Sequence[str | None], replace: bool, read: Sequence[Path | None]
) -> list[Path]:
    """The paths of the stores, each of which can be written and is nothing that is read."""
    if output is None:
        raise UsageError("-o is missing: say where the store goes, such as -o acts.h5")
    if len(columns) > 1 and FIELD not in output:
        raise UsageError(f"several columns become several stores: put {FIELD} into the name, such as -o '{FIELD}.h5'")
    if len(set(columns)) < len(columns):
        raise UsageError("--column names the same column twice")
    paths = [Path(output.replace(FIELD, name or FIELD)) for name in columns]
    raise_all([problem for path in paths if (problem := _refusal(path, replace, read))])
    return paths


def _refusal(path: Path, replace: bool, read: Sequence[Path | None]) -> ContraSimError | None:
    if any(one is not None and path.is_file() and one.is_file() and path.samefile(one) for one in read):
        return UsageError(f"-o {quoted(path)}: is an input of this run, which it would replace; give another name")
    try:
        check_output(path, replace)
    except ContraSimError as problem:
        return problem
    return None


def _given(attrs: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in attrs.items() if value}


def _value(choice: Enum | None) -> str | None:
    return None if choice is None else str(choice.value)
