"""`contrasim extract`: activations of a model, or of an array file, as a store."""

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from contrasim_cli import console, distributed
from contrasim_cli.commands import extract_options as opt
from contrasim_cli.commands.options import given
from contrasim_cli.errors import UsageError
from contrasim_cli.names import cell, quoted

if TYPE_CHECKING:
    from contrasim_cli.extraction.estimate import Estimate
    from contrasim_cli.extraction.importing import ImportOptions
    from contrasim_cli.extraction.networks.network import ModelOptions, Network
    from contrasim_cli.extraction.run import RunOptions
    from contrasim_cli.extraction.sharding import PartOf
    from contrasim_cli.extraction.sources.open import Layout, Source

log = logging.getLogger(__name__)

TEXTS = {"text", "dataset"}
MODELS = {*TEXTS, "arrays", "images", "audio"}  # inputs that go through a model
# what goes with only some of the inputs
GOES_WITH = {
    "--column": TEXTS,
    "--image-column": {"images"},
    "--audio-column": {"audio"},
    "--id-column": {*TEXTS, "images", "audio"},
    "--skip-pattern": TEXTS,
    "--on-truncate": TEXTS,
    "--axes": {"from", "arrays", "images"},
    "--keys": {"from"},
    "--ids-key": {"from"},
    "--read-as": {"from"},
    "--zero-rows": {"from"},
    "--mask": {"from"},
    "--unit": TEXTS,
    "--decoder-text": TEXTS,
    "--subword": TEXTS,
    "--tokenizer": TEXTS,
    "--split": {"dataset"},
    "--subset": {"dataset"},
    "--prompt": TEXTS,
    "--template": TEXTS,
    "--generation-prompt": TEXTS,
    "--special-tokens": TEXTS,
    "--position": TEXTS,
    "--span": TEXTS,
} | dict.fromkeys(
    (
        "--model", "--skip-bad", "--pool", "--max-length", "--random-weights", "--list-layers", "--part", "--revision", "--dtype",
        "--weights-dtype", "--allow-random", "--hook", "--split-heads", "--model-arg",
    ),
    MODELS,
)  # fmt: skip


def extract(
    inputs: opt.Input,
    arrays: opt.ArrayFile,
    selection: opt.Selection,
    model: opt.Model,
    texts: opt.Texts,
    output: opt.StoreOutput,
    compute: opt.BatchCompute,
) -> None:
    """Write a model's activations, or those of an array file, as a store.

    Texts, images and sounds run through a Hugging Face model, whose hidden states are the layers hidden_0 (embeddings) to
    hidden_L; --arrays also through any torch module, whose submodules are the layers (--layers 'blocks.*').
    """
    if output.parts is None and distributed.world() > 1:
        raise UsageError(
            "several processes write the parts of a sharded store: give --parts N, the same number however many processes there are"
        )
    kind, path = inputs.one(needless=model.list_layers and model.model is not None)
    _check_combination(kind, given(inputs, arrays, selection, model, texts))
    if inputs.ids is not None and inputs.id_column:
        raise UsageError("give the row ids by --ids or by --id-column, not by both")
    name = model.model
    read = [path, inputs.ids, selection.only, *([Path(name), Path(name.rpartition(":")[0])] if name else [])]
    paths = distributed.agreed(lambda: [] if model.list_layers else output.paths(inputs.column or [None], read))
    memory, batch_size = compute.memory_asked, compute.items
    if output.dry_run and not model.list_layers and distributed.first():
        typer.echo("store\tlayer\trows\twidth\tdtype\tbytes")
    choice = {**vars(selection), "ids": inputs.ids, "by_word": model.unit == "word", "memory": memory}
    if path is not None and kind == "from":
        options = _import_options(choice, arrays, model.layers, memory, output, path, paths[0])
        _each_part(output, paths[0], _conversion(path, options, output.dry_run))
        return
    sources = _sources(kind, path, choice, inputs, texts, model.decoder_text)
    network, how = _load(sources[0] if sources else None, model, texts, arrays.axes, compute)
    if model.list_layers:
        _print_layers(network, sources)
        return
    for source, target in zip(sources, paths, strict=True):
        run = replace(
            _run_options(network, how, source, output, target),
            batch_size=batch_size,
            memory=memory,
            skip_bad=selection.skip_bad,
            refuse_cut=model.on_truncate == "error",
        )
        _each_part(output, target, partial(_run_part, network, how, source, run, output.dry_run))


def _each_part(output: opt.StoreOutput, path: Path, make: "Callable[[PartOf | None], None]") -> None:
    """Make the one file of the output, or this process's parts of a sharded store, and then its index if all are there."""
    if output.parted is None:
        make(None)
        return
    from contrasim_cli.extraction.sharding import complete

    parts = distributed.share(output.parted)
    if output.dry_run:
        parts = output.parted if distributed.first() else []
    with distributed.alone():
        for part in parts:
            make(part)
    distributed.wait_for_all()
    if not output.dry_run:
        distributed.by_first(lambda: complete(path, output.parted[0].count, output.parted) if output.parted else None)


def _conversion(path: Path, options: "ImportOptions", dry_run: bool) -> "Callable[[PartOf | None], None]":
    from contrasim_cli.extraction.importing import ActivationFile

    file = ActivationFile(path, options)

    def make(part: "PartOf | None") -> None:
        if dry_run:
            _print_plan(file.planned(part))
        else:
            file.write(part, console.progress)

    return make


def _import_options(
    choice: Mapping[str, Any],
    arrays: opt.ArrayFile,
    layers: Sequence[str] | None,
    memory: int | None,
    output: opt.StoreOutput,
    read: Path,
    path: Path,
) -> "ImportOptions":
    from contrasim_cli.extraction.importing import ImportOptions
    from contrasim_cli.extraction.sources.open import Choice
    from contrasim_cli.store import Hints
    from contrasim_cli.store.masks import read_mask

    mask = None if arrays.mask is None else read_mask(arrays.mask, read)
    return ImportOptions(
        output=path,
        layers=layers,
        hints=Hints(arrays.axes, arrays.keys, arrays.ids_key, arrays.read_as, budget=memory, mask=mask),
        zero_rows=arrays.zero_rows,
        choice=Choice(**choice),
        store_dtype=output.store_dtype,
        attrs=output.attrs,
        force=output.force,
        resume=output.resume,
    )


def _sources(
    kind: str,
    path: Path | None,
    choice: Mapping[str, Any],
    inputs: opt.Input,
    texts: opt.Texts,
    second: str | None,
) -> "list[Source]":
    """The sources of the inputs; those of texts in pairs with the column `second`, where there is one."""
    from contrasim_cli.extraction.sources.open import Choice, InputOptions, open_sources
    from contrasim_cli.extraction.sources.source import paired

    if path is None:
        return []
    columns = inputs.column or []
    if second is not None:
        columns = [*columns, second]
    options = InputOptions(
        kind,
        path,
        columns,
        inputs.image_column or inputs.audio_column,
        inputs.id_column,
        Choice(**choice),
        _layout(texts),
        dataset=inputs.dataset,
        split=inputs.split,
        subset=inputs.subset,
    )
    sources = open_sources(options)
    return sources if second is None else [paired(source, sources[-1]) for source in sources[:-1]]


def _layout(texts: opt.Texts) -> "Layout":
    from contrasim_cli.extraction.sources.layout import Layout
    from contrasim_cli.extraction.sources.passages import fixed_position
    from contrasim_cli.extraction.sources.prompts import parsed

    columns = [name for name in texts.position or () if fixed_position(name) is None]
    prompt = None if texts.prompt is None else parsed(texts.prompt)
    return Layout(prompt, texts.span, columns, chat=texts.template == "chat")


def _load(
    source: "Source | None", model: opt.Model, texts: opt.Texts, axes: str | None, compute: opt.BatchCompute
) -> "tuple[Network, ModelOptions]":
    from contrasim_cli.device import pick_device
    from contrasim_cli.extraction.networks.load import load
    from contrasim_cli.extraction.networks.network import ModelOptions

    spread = compute.device == "auto"
    own = {name: value for name, value in vars(model).items() if name not in ("on_truncate", "list_layers", "subword")}
    of_texts = {name: value for name, value in vars(texts).items() if name != "prompt"}
    how = ModelOptions(
        **own,
        **of_texts,
        subword=model.subword or "mean",
        axes=axes,
        device=pick_device(None if spread else compute.device, in_float32=True),
        spread=spread,
        seed=compute.seed,
    )
    with _without_stdout():
        return load(how, source), how


def _run_options(
    network: "Network", model: "ModelOptions", source: "Source", output: opt.StoreOutput, path: Path
) -> "RunOptions":
    from contrasim_cli.extraction.run import RunOptions

    attrs = {"model": network.name, "data": source.name, "unit": _unit(model, source), "pooling": network.pooling}
    dtype = output.store_dtype or "float32"
    return RunOptions(path, store_dtype=dtype, attrs=attrs | output.attrs, force=output.force, resume=output.resume)


def _unit(model: "ModelOptions", source: "Source") -> str:
    """What a row is, unless the user names it."""
    from contrasim_cli.extraction.networks.load import is_factory

    if source.kind == "text":
        one_token = model.pool == "none" or model.position
        return "word" if model.unit == "word" else "span" if model.span else "token" if one_token else "sentence"
    if source.kind == "audio":
        return "frame" if model.pool == "none" else "sound"
    of_any_kind = is_factory(model.model) or Path(model.model).is_file()
    return "row" if source.kind == "arrays" and of_any_kind else "image"


def _run_part(
    network: "Network", model: "ModelOptions", source: "Source", run: "RunOptions", dry_run: bool, part: "PartOf | None"
) -> None:
    from contrasim_cli.extraction.run import extract, plan

    run = replace(run, part=part)
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
            shapes = layer_widths(network)
        else:
            shapes = {name: f"[rows, {width}]" for name, width in layer_table(network, sources[0]).items()}
    typer.echo("layer\tshape")
    for name, shape in shapes.items():
        typer.echo(f"{cell(name)}\t{shape}")


def _without_stdout() -> "contextlib.redirect_stdout[TextIO]":
    """A block in which what other people's models print goes to stderr: stdout is for results."""
    return contextlib.redirect_stdout(sys.stderr)


def _print_plan(expected: "Estimate") -> None:
    for layer in expected.layers:
        size = expected.layer_bytes(layer)
        names = f"{cell(str(expected.output))}\t{cell(layer.name)}"
        typer.echo(f"{names}\t{expected.rows}\t{layer.width}\t{layer.dtype}\t{size}")
    log.info("would write %s: %s; nothing was written", quoted(expected.output), expected)


def _check_combination(kind: str, flags: Mapping[str, object]) -> None:
    """Refuse options that have no meaning for the input given."""
    if kind in MODELS and "--model" not in flags:
        raise UsageError(f"--{kind} needs --model: a Hugging Face folder or hub id, or file.py:function")
    useless = [flag for flag in flags if kind not in GOES_WITH.get(flag, {kind}) | {"model"}]
    if useless:
        what = "--unit word" if useless[0] == "--unit" else useless[0]
        raise UsageError(f"{what} does not go with --{kind}; leave it out")
    if "--decoder-text" in flags and (flags.get("--part") != "decoder" or "--column" not in flags):
        raise UsageError("--decoder-text goes with --part decoder and --column, the text of the encoder; give both")
    if "--subword" in flags and "--unit" not in flags:
        raise UsageError("--subword is for --unit word; give both, or leave it out")
