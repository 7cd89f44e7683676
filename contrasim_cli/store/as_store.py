"""Other people's files as stores: what their arrays, axes, keys, names and values mean, whatever they were kept in.

Every matrix of numbers is a layer, in the order in which the file holds them, or sorted by name where it keeps none. Layers agree
on rows; where arrays do not, `--layers` chooses. What is no matrix is passed over, and a note says why. An array of more
dimensions is refused, with every way to read it, until `--axes` and `--keys` say what it is.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from contrasim_cli.errors import ContraSimError, InputError, UnclearError, raise_all
from contrasim_cli.names import listed, quoted
from contrasim_cli.store.axes import MATRIX, ROWS
from contrasim_cli.store.content import Content, refuse_weights
from contrasim_cli.store.hints import PLAIN, Hints, is_of_padding
from contrasim_cli.store.interpretations import Possible, remedy
from contrasim_cli.store.layout import Layout, lay_out, listing, plain_layout
from contrasim_cli.store.row_names import row_names
from contrasim_cli.store.select_layers import is_position, matching, natural
from contrasim_cli.store.sixteen_bits import Column, is_column, is_two_bytes, read_as, refusal
from contrasim_cli.store.store import Array, Layer, Store

log = logging.getLogger(__name__)

WRITTEN, SORTED = "in the order of the file", "sorted by name, since the file keeps no order"
PARTS = re.compile(r"features_\d+")  # of thingsvision
SHOWN = 10
MOST_MASKED = 1 << 27  # tokens


def store_of(path: Path, content: Content, how: Hints = PLAIN) -> Store:
    """The layers among the arrays of a file.

    Raises:
        UsageError: what was said of the file does not say enough.
        InputError: there are no layers, it is unclear what they are, they disagree on rows, or their values are no numbers.
    """
    refuse_weights(path, content.arrays)
    content = _prepared(path, content, how)
    layout = _plain(path, content, how) if how.axes is None and how.keys is None else lay_out(path, content, how)
    layers = {name: Layer(name, array, _chunk_rows(array)) for name, array in layout.layers.items()}
    names = matching(list(layers), how.layers or ()) or list(layers)
    raise_all(_problems(path, layout, [layers[name] for name in names], how))
    key, ids = row_names(path, content, layout, names[0], how.ids_key)
    _note_passed(path, content, layout, key, how)
    if how.axes is not None and how.mask is None:
        _warn_of_padding(path, content, how)
    facts = {} if key is None else {"ids_key": key}
    if len(layers) > 1:
        facts["order_of_layers"] = WRITTEN if content.ordered else SORTED
        log.info("%s: its %d layers are %s", quoted(path), len(layers), facts["order_of_layers"])
    rows = layers[names[0]].n_rows
    return Store(path, content.kind, layers, ids, files=content.files, facts=facts, rows=rows, close=content.close)


def _warn_of_padding(path: Path, content: Content, how: Hints) -> None:
    """Say so where a mask of (items, tokens) beside the layers has zeros: what they stand for becomes rows, or parts of means."""
    for name, array in content.arrays.items():
        if "mask" not in name.lower() or len(array.shape) != 2 or array.dtype.kind not in "biuf":
            continue
        if math.prod(array.shape) > MOST_MASKED:
            continue
        mask = np.asarray(array[:])
        padding = int(is_of_padding(name))
        count = int((mask == padding).sum())
        if 0 < count < mask.size and np.isin(mask, (0, 1)).all():
            remedy = f"leave it out with {_mask_option(path, name)}"
            if how.keys is not None:
                remedy = "pad batches to one length, join them with torch.cat and give --mask (contrasim guide hooks)"
            text = "%s: %s is %d for %d of %d tokens: this padding is read too, as rows or as parts of means; %s"
            log.warning(text, quoted(path), quoted(name), padding, count, mask.size, remedy)
            if how.keys is not None:
                return


def _prepared(path: Path, content: Content, how: Hints) -> Content:
    """The content with its arrays in order, and read as what they are said to be.

    Raises:
        InputError: nothing in it is what they are said to be.
    """
    arrays = content.arrays
    bits = {
        name for name, array in arrays.items() if is_two_bytes(array) and (len(array.shape) > 1 or how.keys == ROWS)
    }
    if how.read_as is not None and not bits:
        raise InputError(f"{quoted(path)}: --read-as {how.read_as} is for 16-bit integers; it holds {listing(arrays)}")
    names = list(arrays) if content.ordered else sorted(arrays, key=natural)
    levels = {name: content.levels.get(name) or tuple(name.split("/")) for name in names}
    read = {name: read_as(arrays[name], how.read_as) if name in bits else arrays[name] for name in names}
    if how.axes is None and how.keys is None:
        wide = {array.shape[0] for array in read.values() if len(array.shape) == 2 and array.shape[1] > 1}
        read = {
            name: Column(array) if is_column(array) and array.shape[0] in wide else array
            for name, array in read.items()
        }
    return replace(content, arrays=read, levels=levels)


def _plain(path: Path, content: Content, how: Hints) -> Layout:
    """The matrices as they are, of arrays whose axes are clear.

    Raises:
        InputError: there is none, or an array that is asked for has other dimensions, or may be a part of a layer.
    """
    solid = {name: array for name, array in content.arrays.items() if len(array.shape) > 1}
    names = matching(list(solid), how.layers or ()) or list(solid)
    words = {name: content.axes.get(name, MATRIX) for name, array in solid.items()}
    unclear = {name: array for name, array in solid.items() if len(words[name]) != len(array.shape)}
    if not any(map(is_position, how.layers or ())):  # positions are those among layers, and which these are is unclear
        unclear = {name: array for name, array in unclear.items() if name in names}
    if unclear:
        raise _unclear(path, content, unclear)
    if len(names) > 1 and all(map(PARTS.fullmatch, names)):
        raise InputError(
            f"{quoted(path)}: are these layers, or parts of the rows of one, as thingsvision writes them? {listing(solid)}; give "
            f"the folder with its file_names.txt, or {remedy(solid)}"
        )
    if not solid:
        raise InputError(_without_matrix(path, content))
    clear = {name: words[name] for name in solid if len(words[name]) == len(solid[name].shape)}
    return plain_layout(path, content, clear)


def _unclear(path: Path, content: Content, unclear: Mapping[str, Array]) -> InputError:
    """The error for arrays whose shapes do not say what they are."""
    if (batches := _batches(unclear)) is not None:
        return InputError(f"{quoted(path)}: {batches}")
    ((dimensions, _),) = Counter(len(array.shape) for array in unclear.values()).most_common(1)
    alike = {name: array for name, array in unclear.items() if len(array.shape) == dimensions}
    if (masked := _with_mask(path, content, unclear)) is not None:
        return masked
    names = content.texts.get("ids") or (content.names and content.texts.get(content.names)) or None
    which = f"{quoted(next(iter(unclear)))} has" if len(unclear) == 1 else f"{len(unclear)} arrays have"
    others = (
        "choose others with --layers, or " if any(len(array.shape) == 2 for array in content.arrays.values()) else ""
    )
    begin = f"{quoted(path)}: {which} {dimensions} dimensions"
    advice = f"{others}{remedy(alike, names.count if names else None)}"
    listed_arrays = listing(content.arrays)
    return UnclearError(
        f"{begin}, and shapes alone do not say which are layers, rows and neurons: {listed_arrays}; {advice}",
        f"{begin} too: {listed_arrays}",
        advice,
    )


def _mask_option(path: Path, name: str) -> str:
    """How to give a mask; PyTorch's own one is inverted."""
    given = f"{quoted(path)}:{quoted(name)}"
    return f"--mask '!{given}'" if is_of_padding(name) else f"--mask {given}"


def _with_mask(path: Path, content: Content, unclear: Mapping[str, Array]) -> InputError | None:
    """The error for arrays [items, tokens, width] beside a mask [items, tokens]; None for others."""
    sides = {tuple(array.shape[:2]) for array in unclear.values() if len(array.shape) == 3}
    if len(sides) != 1 or any(len(array.shape) != 3 for array in unclear.values()):
        return None
    masks = [name for name, array in content.arrays.items() if "mask" in name.lower() and {tuple(array.shape)} == sides]
    if len(masks) != 1:
        return None
    layers = {name: array for name, array in content.arrays.items() if name != masks[0]}
    shown = f"{quoted(path)}: seems to hold items x tokens x neurons, with {quoted(masks[0])} for their mask: {listing(layers)}"
    mask = _mask_option(path, masks[0])
    advice = (
        f"convert it with contrasim extract --from FILE --axes rows,rows,width {mask} (a row per token without padding) or "
        f"--axes rows,pool,width {mask} (a row per item, the mean of its tokens); for other axes see contrasim guide hooks"
    )
    return UnclearError(f"{shown}; {advice}", shown, advice)


def _batches(arrays: Mapping[str, Array]) -> str | None:
    """The message for lists of arrays of three axes, or for a list of dicts of them, which are batches; None for others."""
    ends = [(name.rpartition("."), name.partition(".")) for name in arrays]
    of_lists = all(parent and last.isdecimal() for (parent, _, last), _ in ends)
    of_dicts = all(first.isdecimal() and rest for _, (first, _, rest) in ends)
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for (behind, before), array in zip(ends, arrays.values(), strict=True):
        shapes.setdefault(behind[0] if of_lists else before[2], []).append(tuple(array.shape))
    several = all(len(own) > 1 for own in shapes.values())
    if of_lists == of_dicts or not several or any(len(shape) != 3 for own in shapes.values() for shape in own):
        return None
    what = listed([quoted(name) for name in shapes], SHOWN)
    kind = f"{what} are lists of arrays" if of_lists else f"it is a list of dicts of {what}, arrays"
    own = next(iter(shapes.values()))
    first, second = own[0], next((shape for shape in own if shape[1:] != own[0][1:]), None)
    if second is not None:
        first, second = sorted((first, second), reverse=True)
        each = "of each list" if of_lists else "of each key"
        return (
            f"{kind} of different shapes, such as {first} and {second}, as batches are: pad the arrays {each} to one length and "
            "join them with torch.cat (contrasim guide hooks)"
        )
    if len(shapes) < 2 and of_lists:
        return None
    keys, start = ("", "rows") if of_lists else ("--keys rows ", "layers")
    return (
        f"{kind} of the shape {first}, as batches x items x tokens x neurons are: convert it with contrasim extract --from FILE "
        f"{keys}--axes {start},rows,rows,width (a row per token) or {keys}--axes {start},rows,pool,width (a row per item, the mean "
        "of its tokens); for other axes see contrasim guide hooks"
    )


def _without_matrix(path: Path, content: Content) -> str:
    """The message for a file without matrices: vectors may be rows."""
    vectors = {name: array for name, array in content.arrays.items() if array.dtype.kind == "f"}
    contents = [listing(content.arrays)] if content.arrays else []
    contents += [f"{quoted(name)} ({why})" for name, why in list(content.passed.items())[:SHOWN]]
    contents += [f"{quoted(name)} ({ids.count} texts)" for name, ids in list(content.texts.items())[:SHOWN]]
    advice = f"; where its keys are rows, {remedy(vectors)}" if len(vectors) > 1 else ""
    groups = _readings_of_groups(path, content) if advice else []
    advice += f"; where its groups are rows or layers, {' or '.join(groups)}" if groups else ""
    return f"{quoted(path)}: holds no matrix [rows, width] of numbers: {', '.join(contents) or 'nothing'}{advice}"


def _readings_of_groups(path: Path, content: Content) -> list[str]:
    """What may be said of vectors within groups, with what would come of it."""
    readings = []
    for how in (Hints(keys=ROWS, axes="layers,width"), Hints(axes="rows,width")):
        try:
            layout = lay_out(path, content, how)
        except ContraSimError:
            continue
        shapes = [tuple(layer.shape) for layer in layout.layers.values()]
        if len({rows for rows, _ in shapes}) == 1 < shapes[0][0] and not layout.differences(path, list(layout.layers)):
            widths = sorted({width for _, width in shapes})
            outcome = Possible(how.keys, how.words, len(shapes), shapes[0][0], (widths[0], widths[-1]))
            readings.append(f"{'--keys rows ' if how.keys else ''}--axes {outcome}")
    return readings


def _problems(path: Path, layout: Layout, layers: Sequence[Layer], how: Hints) -> list[ContraSimError]:
    """What is wrong with the chosen layers."""
    first = layers[0]
    problems: list[ContraSimError] = [
        InputError(f"{quoted(path)}: layer {quoted(layer.name)} has no columns") for layer in layers if not layer.width
    ]
    unequal = next((layer for layer in layers if layer.n_rows != first.n_rows), None)
    if unequal is not None:
        arrays = {layer.name: layer.array for layer in layers}
        advice = f", or {_remedy_of_unequal(arrays)}" if how.axes is None and how.keys is None else ""
        if how.axes is not None and how.keys is None and all(name.isdecimal() for name in arrays):
            advice = ", or add --keys rows where these are batches of one layer"
        problems.append(
            InputError(
                f"{quoted(path)}: layer {quoted(unequal.name)} has {unequal.n_rows} rows where {quoted(first.name)} has "
                f"{first.n_rows}; every layer of a store has the same rows: {listing(arrays)}; choose with --layers{advice}"
            )
        )
    problems += layout.differences(path, [layer.name for layer in layers])
    refusals = (refusal(path, layer.name, layer.array, how.read_as) for layer in layers)
    return problems + [problem for problem in refusals if problem is not None]


def _remedy_of_unequal(arrays: Mapping[str, Array]) -> str:
    """What to do with matrices of different numbers of rows, which may be batches in a dict of lists."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, array in arrays.items():
        parent, _, last = name.rpartition(".")
        shapes.setdefault(parent if last.isdecimal() else "", {})[last] = tuple(array.shape)
    widths = [{shape[1] for shape in own.values()} for own in shapes.values()]
    if "" in shapes or any(len(own) > 1 for own in widths):
        return remedy(arrays)
    first, *others = ({number: shape[0] for number, shape in own.items()} for own in shapes.values())
    if others != [first] * len(others):
        shown = quoted(next(iter(shapes)))
        return f"save the batches of a layer as one tensor: torch.cat for each list, such as {shown} (contrasim guide hooks)"
    outcome = Possible(
        None, (ROWS, *MATRIX), len(shapes), sum(first.values()), (min(map(min, widths)), max(map(max, widths)))
    )
    return f"convert it with contrasim extract --from FILE, where the lists are the batches of a layer each: --axes {outcome}"


def _note_passed(path: Path, content: Content, layout: Layout, key: str | None, how: Hints) -> None:
    """Say what no layer was made of, and why."""
    passed = {**dict.fromkeys(content.texts, "text"), **content.passed, **layout.passed}
    masks = [name for name, array in content.arrays.items() if how.mask is not None and array.shape == how.mask.shape]
    shown = [f"{quoted(name)} ({why})" for name, why in passed.items() if name not in (key, *masks)]
    if shown:
        more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
        log.info("%s: not taken as layers: %s%s", quoted(path), ", ".join(shown[:SHOWN]), more)


def _chunk_rows(array: Array) -> int:
    chunks = getattr(array, "chunks", None)
    return int(chunks[0]) if chunks else 1
