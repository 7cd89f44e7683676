"""`contrasim inspect`: what is in these files, and would they line up?"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli import console, distributed
from contrasim_cli.commands import dash
from contrasim_cli.commands.emit import Output
from contrasim_cli.commands.inputs import AlignOption
from contrasim_cli.commands.options import Memory, parse_memory
from contrasim_cli.errors import UsageError
from contrasim_cli.names import distinct_names, quoted
from contrasim_cli.output_files import write_atomic
from contrasim_cli.report.results import FactRow, InspectRow, Results
from contrasim_cli.stacking import universal

if TYPE_CHECKING:
    from contrasim_cli.encoder import Checkpoint
    from contrasim_cli.store import Store

log = logging.getLogger(__name__)


def inspect(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Activation files, or one encoder; -: read the list of files from stdin.",
            show_default=False,
            callback=dash.stores,
        ),
    ],
    output: Output,
    align: AlignOption = "order",
    scan: Annotated[
        bool,
        typer.Option(
            "--scan/--no-scan",
            help="Read the values, to count NaN, Inf, constant columns and rows of zeros, and for anisotropy.",
        ),
    ] = True,
    anchor_ids: Annotated[
        bool,
        typer.Option(
            "--anchor-ids", help="For an encoder of anchored rows: print only the ids of its anchors, one per line."
        ),
    ] = False,
    memory: Memory = None,
) -> None:
    """Show layers, shapes, types, provenance and bad values of files, how rows are spread, and whether they line up.

    Spread, of a sample of 2,048 rows: the mean cosine of two rows, the part of the variance in the three widest neurons, and
    the effective rank. Standardise where cosines are far from 0 or the ranks far below the width.
    Exit code 4 means that rows do not line up; the report is printed anyway.
    """
    distributed.check_alone("contrasim inspect")
    output.check("inspect has none", files)
    if anchor_ids:
        _anchor_ids(files, output)
        return
    if len(files) == 1 and _is_encoder(universal.resolve(files[0])):
        from contrasim_cli import encoder

        output.emit(_encoder_results(encoder.load(universal.resolve(files[0]))))
        return
    from contrasim_cli.store import Hints, close_stores, open_stores
    from contrasim_cli.store.inspection import disagreement

    stores = open_stores(files, Hints(budget=parse_memory(memory)))
    try:
        output.emit(_store_results(files, stores, scan))
        problem = disagreement(stores, align)
    finally:
        close_stores(stores)
    if problem is not None:
        raise problem


def _is_encoder(path: Path) -> bool:
    """Whether the file is a torch archive with an encoder in it, without unpickling anything."""
    import zipfile

    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if pickled is None:
                return False
            with archive.open(pickled) as stream:
                return b"contrasim-encoder" in stream.read(4096)
    except Exception:  # zipfile raises whatever it trips over; the file is reported when it is opened as a store
        return False


def _anchor_ids(files: Sequence[Path], output: Output) -> None:
    """Print the anchors' ids, as extract --only-ids reads them."""
    if len(files) != 1 or output.format is not None:
        raise UsageError("--anchor-ids prints the ids of one encoder's anchors, one per line, in no other format")
    from contrasim_cli import encoder

    anchors = encoder.load(files[0]).config.anchors
    if not anchors:
        raise UsageError(f"{quoted(files[0])}: has no anchors; train with --inputs anchors makes encoders that do")
    text = "".join(f"{name}\n" for name in anchors)
    if output.output is None:
        # a terminal gets no control characters, a program the ids
        sys.stdout.write("".join(f"{quoted(name)}\n" for name in anchors) if sys.stdout.isatty() else text)
    else:
        write_atomic(output.output, text.encode("utf-8", "backslashreplace"), output.force)


def _encoder_results(checkpoint: "Checkpoint") -> Results:
    training, config = checkpoint.training, checkpoint.config
    curves = {name: values for name, values in training.items() if name.endswith("_curve")}
    curve = training.get("loss_curve", [])
    per_member = len(config.anchors) // config.members
    of_each = f", {per_member} for each of {config.members} members" if config.members > 1 else ""
    facts: dict[str, Any] = {
        **asdict(config),
        "within": [name for name, _ in config.within],
        "by_layer": [name for name, *_ in config.by_layer],
        "anchors": f"{len(config.anchors)} rows{of_each}; --anchor-ids lists them" if config.anchors else "",
        "finished": training.get("finished", False),
        "epochs_done": training.get("epochs_done", 0),
        "steps_of_the_epoch_done": training.get("step", 0),
        "loss_first": curve[0] if curve else "",
        "loss_last": curve[-1] if curve else "",
    }
    for store in checkpoint.provenance.get("stores", ()):
        facts[f"trained on {store['name']}"] = f"{store['rows']} rows, layers {' '.join(store['layers'])}"
        facts[f"digests of {store['name']}"] = f"content {store['content']}, ids {store.get('ids') or 'none'}"
    for line in checkpoint.provenance.get("left_out", ()):
        facts[f"left out {line['zoo']}, {line['data']}, {line['kind']}"] = (
            f"{line['accuracy']} % of {line['pairs']} pairs' layers found; the best closed form {line['best']} "
            f"{line['best_accuracy']} %"
        )
    for store in checkpoint.provenance.get("standardized_by", ()):
        facts[f"standardized by {store['name']}"] = f"{store['rows']} rows"
    facts |= _choice_facts(checkpoint.provenance.get("choice", {}))
    if validated := curves.get("validation_loss_curve"):
        facts["epoch of least validation loss"] = 1 + validated.index(min(validated))
    for epoch in range(len(curve)):
        values = [f"{name.removesuffix('_curve')} {points[epoch]:.6g}" for name, points in curves.items()]
        facts[f"epoch {epoch + 1}"] = ", ".join(values)
    for name, version in checkpoint.provenance.get("versions", {}).items():
        facts[f"{name} version"] = version
    rows = [FactRow(str(checkpoint.path), name, _text(value)) for name, value in facts.items()]
    known = {name: value for name, value in checkpoint.provenance.items() if name != "moments"}
    about = {"training": curves, "provenance": known}
    return Results("inspect", FactRow, rows, about)


def _choice_facts(choice: dict[str, Any]) -> dict[str, str]:
    """How clearly rows found their own in every way that was tried, and what was chosen of each layer."""
    from contrasim_cli.transforms import Standardization

    facts = {f"score of {how}": f"{score:.4f}" for how, score in choice.get("scores", {}).items()}
    for layer in choice.get("layers", ()):
        if not isinstance(layer, dict):  # of an earlier version, whose layers shared one way
            continue
        name, how = " ".join(layer["names"]), Standardization(layer["kind"], layer["shrinkage"]).text
        facts[f"way of {name}"] = how
        facts[f"clearness of {name} by way"] = _numbers(layer["scores"])
        if layer["steps"]:
            facts[f"step of {name}"] = f"{layer['step']:g}"
            facts[f"clearness of {name} by step"] = _numbers(layer["steps"])
    return facts


def _numbers(values: dict[str, float]) -> str:
    return ", ".join(f"{value:.3f} ({name})" for name, value in values.items())


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _store_results(paths: Sequence[Path], stores: "Sequence[Store]", scan: bool) -> Results:
    from contrasim_cli.store.inspection import count_all, facts
    from contrasim_cli.store.origin import with_origin
    from contrasim_cli.store.zero_rows import zero_rows_told
    from contrasim_cli.store.zeros import ZeroRows

    zeros = [ZeroRows(store.n_rows) if scan else None for store in stores]
    counts = count_all(stores, console.progress, zeros) if scan else {}
    for store, zero in zip(stores, zeros, strict=True):
        if zero is not None and len(zero.places):
            log.warning("%s", zero_rows_told(store, zero.places, store.n_rows))
    names = with_origin(distinct_names(paths), stores)
    rows = []
    for k, store in enumerate(stores):
        for layer in store.layers.values():
            count = counts.get((k, layer.name))
            bad = (count.nan, count.inf, count.constant_columns) if count else (None, None, None)
            spread = astuple(count.anisotropy) if count else (None, None, None)
            rounded = (None if value is None else round(value, 4) for value in spread)
            read = (*bad, *rounded, count.zero_rows if count else None)
            rows.append(InspectRow(names[k], layer.name, layer.n_rows, layer.width, layer.dtype.name, *read))
    described = {name: facts(store, zero) for name, store, zero in zip(names, stores, zeros, strict=True)}
    about = {"inputs": [str(path) for path in paths], "stores": described}
    return Results("inspect", InspectRow, rows, about, ["zero_rows"] if any(row.zero_rows for row in rows) else [])
