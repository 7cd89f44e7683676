"""Groups of rows, such as the trials of a run or the words of a sentence, told by what their ids begin with."""

from collections.abc import Sequence

from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted
from contrasim_cli.store.align import View


def groups_of(views: Sequence[View], separator: str) -> tuple[int, ...]:
    """The number of every row's group: rows are of one where their ids agree up to the last separator.

    Ids are those of the first view that has any; an id without separator is a group of its own.

    Raises:
        UsageError: no view has ids, no id holds the separator, or all rows are of one group.
    """
    view = next((view for view in views if view.store.ids is not None), None)
    if view is None or view.store.ids is None:
        raise UsageError(
            f"--groups {quoted(separator)}: {quoted(views[0].store.path)} has no ids that rows could be grouped by"
        )
    names = [name for block in view.store.ids.blocks() for name in block]
    if view.rows is not None:
        names = [names[row] for row in view.rows.tolist()]
    if not any(separator in name for name in names):
        raise UsageError(
            f"--groups {quoted(separator)}: no id of {quoted(view.store.path)} holds it; the first is {quoted(names[0])}"
        )
    starts = [name.rpartition(separator)[:2] for name in names]  # without separator, both are empty
    number: dict[tuple[str, ...], int] = {}
    groups = [
        number.setdefault(start if start[1] else (name,), len(number))
        for name, start in zip(names, starts, strict=True)
    ]
    if len(number) == 1:
        raise UsageError(
            f"--groups {quoted(separator)}: all rows of {quoted(view.store.path)} are of one group, {quoted(starts[0][0])}; "
            "there must be two or more"
        )
    return tuple(groups)
