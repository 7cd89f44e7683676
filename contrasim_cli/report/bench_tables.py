"""Benchmarks as tables, laid out as in the paper.

One data set, by layer (Tables 2, 3, 4 and 7): a line per layer, the kinds of negatives side by side where there is room.
Several data sets, or models seen and unseen (Tables 1 and 6): a line per measure and data set that encoders were trained on,
a column per data set tested on. One layer of images and captions (Tables 5 and 8, Figure 4): a line per kind of negatives
and measure, a column per pair of models. Checks of measures: a line per check, a column per measure.
"""

from collections.abc import Callable, Hashable, Sequence

from rich.table import Table

from contrasim_cli.report.conclusions import against_chance, of_sanity
from contrasim_cli.report.results import ALL, MONOTONICITY, BenchRow, CompareRow, SanityRow

Columns = dict[str, dict[str, str]]  # a column's cells by the labels of its lines
INTERVAL, TRIALS, MRR, MARGIN, RECALL = "95 % interval", "trials", "MRR", "margin", "recall@10"
MARKS = {"ok": " ✓", "fails": " ✗", "": ""}
LADDERS = ("noise", "shuffle", "width")  # a rule is drawn before each
BEYOND_SANITY = (
    "this is about changes of one layer; whether a measure finds the same layer in another model, bench layers shows"
)
OVERALL = (INTERVAL, TRIALS, MRR, MARGIN, RECALL)  # lines beneath the overall accuracy, as far as there are values


def bench_tables(rows: Sequence[BenchRow], width: int) -> list[Table | str]:
    """Accuracy in %, benchmark by benchmark, and lines that say what the next table shows."""
    parts: list[Table | str] = []
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        own = [row for row in rows if row.benchmark == benchmark]
        parts.extend(_benchmark_tables(own, width))
        parts.extend(_against_chance(own))
    return parts


def _against_chance(rows: Sequence[BenchRow]) -> list[str]:
    """Lines that name the overall accuracies that are no better than chance, or below it."""
    overall = [row for row in rows if row.layer == ALL]
    overall = [row for row in overall if row.pair == ALL] or overall
    places = [(row.train_data, row.test_data, row.models, row.negatives, row.pair) for row in overall]
    shown = [k for k in range(5) if len({place[k] for place in places}) > 1]  # what tells rows of one measure apart
    names = [
        f"{row.measure} ({', '.join(parts)})" if (parts := [place[k] for k in shown if place[k]]) else row.measure
        for row, place in zip(overall, places, strict=True)
    ]
    return [line.rstrip(".") for line in against_chance(dict(zip(names, overall, strict=True)))]


def _benchmark_tables(rows: Sequence[BenchRow], width: int) -> list[Table | str]:
    pairs = [row.pair for row in rows if row.layer == ALL]
    layers = {row.layer for row in rows} - {ALL}
    if any(row.test_data for row in rows):
        return _by_data_set(rows)
    if ALL not in pairs or (rows[0].benchmark == "image-caption" and len(layers) == 1):
        return _by_model_pair(rows)
    return _by_layer(rows, width)


def _title(rows: Sequence[BenchRow], kind: str = "") -> str:
    if rows[0].benchmark == MONOTONICITY:
        return f"{MONOTONICITY}: rank correlation of similarity with closeness of layers ± std; chance is 0"
    of = f", {kind} negatives" if kind else ""
    return f"{rows[0].benchmark}{of}: accuracy in % ± std; chance is {100 * rows[0].chance:.1f} %"


# --- a line per layer -------------------------------------------------------------------------------------------------


def _by_layer(rows: Sequence[BenchRow], width: int) -> list[Table | str]:
    """All kinds of negatives side by side, or as many tables per kind as the measures need to be read."""
    kinds = list(dict.fromkeys(row.negatives for row in rows))
    blocks = {kind: _columns([row for row in rows if row.negatives == kind and row.pair == ALL]) for kind in kinds}
    layers = list(dict.fromkeys(row.layer for row in rows if row.pair == ALL and row.layer != ALL))
    used_labels = {label for columns in blocks.values() for cells in columns.values() for label in cells}
    labels = [*layers, ALL, *(label for label in OVERALL if label in used_labels)]
    room = width - max(map(len, labels)) - 4
    together = {f"{kind}\n{name}": cells for kind, columns in blocks.items() for name, cells in columns.items()}
    if len(kinds) > 1 and len(_fitting(together, room)) == 1:
        return [_title(rows), _layer_table(together, list(together), labels)]
    parts: list[Table | str] = []
    for kind, block in blocks.items():
        parts.append(_title(rows, kind))
        parts.extend(_layer_table(block, names, labels) for names in _fitting(block, room))
    return parts


def _columns(rows: Sequence[BenchRow]) -> Columns:
    by_measure: dict[str, dict[str, BenchRow]] = {}
    for row in rows:
        by_measure.setdefault(row.measure, {})[row.layer] = row
    return {name: _column(by_layer) for name, by_layer in by_measure.items()}


def _column(by_layer: dict[str, BenchRow]) -> dict[str, str]:
    """The cells of a measure by the labels of their lines."""
    cells = {layer: _percent(row) for layer, row in by_layer.items()}
    overall = by_layer.get(ALL)
    if overall is not None and overall.trials:
        cells |= {INTERVAL: _interval(overall), TRIALS: str(overall.trials)}
        extras = {MRR: (overall.mrr, ".3f"), MARGIN: (overall.margin, ".1f"), RECALL: (overall.recall, ".3f")}
        cells |= {label: f"{value:{form}}" for label, (value, form) in extras.items() if value is not None}
    return cells


def _fitting(columns: Columns, room: int) -> list[list[str]]:
    """The names cut into lists that fit the room, one name at least in each."""
    lists: list[list[str]] = []
    left = 0
    for name, cells in columns.items():
        width = max(map(len, [*name.split("\n"), *cells.values()])) + 3
        if width > left:
            lists.append([])
            left = room
        lists[-1].append(name)
        left -= width
    return lists


def _layer_table(columns: Columns, names: Sequence[str], labels: Sequence[str]) -> Table:
    table = Table("layer")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True, overflow="fold")
    for label in labels:
        if label == ALL:
            table.add_section()
        table.add_row(label, *(columns[name].get(label, "") for name in names))
    return table


# --- a line per measure -----------------------------------------------------------------------------------------------


def _by_data_set(rows: Sequence[BenchRow]) -> list[Table | str]:
    overall = [row for row in rows if row.pair == ALL and row.layer == ALL]
    trained = len({row.train_data for row in overall} - {""}) > 1
    heads = ["measure", "trained on"] if trained else ["measure"]
    table = _matrix(
        overall,
        heads,
        lambda row: (row.measure, row.train_data)[: len(heads)],
        lambda row: "\n".join(part for part in (row.test_data, row.models) if part),
    )
    return [f"{_title(rows)}; {_trial_counts(overall)}; beneath, the 95 % interval", table]


def _by_model_pair(rows: Sequence[BenchRow]) -> list[Table | str]:
    overall = [row for row in rows if row.layer == ALL]
    if len({row.pair for row in overall}) == 1:
        table = _matrix(overall, ["measure"], lambda row: (row.measure,), lambda row: row.negatives)
    else:
        heads = ["negatives", "measure"]
        table = _matrix(overall, heads, lambda row: (row.negatives, row.measure), lambda row: row.pair)
    return [f"{_title(rows)}; {_trial_counts(overall)}; beneath, the 95 % interval", table]


def _trial_counts(rows: Sequence[BenchRow]) -> str:
    """How many trials a measure had, an encoder among several."""
    counts = sorted({row.trials // max(1, row.encoders) for row in rows if row.trials})
    count = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}" if counts else "no"
    encoders = max(row.encoders for row in rows)
    return f"{count} trials" + (f" (for each of {encoders} encoders)" if encoders > 1 else "")


def _matrix(
    rows: Sequence[BenchRow],
    heads: Sequence[str],
    line: Callable[[BenchRow], tuple[str, ...]],
    column: Callable[[BenchRow], str],
) -> Table:
    """Accuracies with their intervals beneath; a line's first label is said once, where it changes."""
    cells: dict[Hashable, str] = {(line(row), column(row)): _percent(row) + _interval_line(row) for row in rows}
    columns = list(dict.fromkeys(map(column, rows)))
    table = Table(*heads)
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    lines = list(dict.fromkeys(map(line, rows)))
    if len(heads) > 1:
        order = list(dict.fromkeys(labels[0] for labels in lines))
        lines.sort(key=lambda labels: order.index(labels[0]))
    before = ""
    for labels in lines:
        if labels[0] != before and before and heads[0] == "negatives":
            table.add_section()
        first = labels[0] if labels[0] != before else ""
        table.add_row(first, *labels[1:], *(cells.get((labels, name), "") for name in columns))
        before = labels[0]
    return table


def _percent(row: BenchRow) -> str:
    if row.accuracy is None:
        return ""
    spread = "" if row.std is None else f" ± {_value_text(row, row.std)}"
    return f"{_value_text(row, row.accuracy)}{spread}"


def _value_text(row: BenchRow, value: float) -> str:
    """In %, or as it is where it is a correlation."""
    return f"{value:.3f}" if row.benchmark == MONOTONICITY else f"{100 * value:.1f}"


def _interval(row: BenchRow) -> str:
    if row.ci_low is None or row.ci_high is None:
        return ""
    between = " to " if row.ci_low < 0 else "–"
    return f"{_value_text(row, row.ci_low)}{between}{_value_text(row, row.ci_high)}"


def _interval_line(row: BenchRow) -> str:
    interval = _interval(row)
    return f"\n{interval}" if interval else ""


# --- comparisons ------------------------------------------------------------------------------------------------------


def compare_tables(rows: Sequence[CompareRow]) -> list[Table | str]:
    """A table per pair of measures and kind of trials: differences in percentage points, with their verdict."""
    groups: dict[tuple[str, ...], list[CompareRow]] = {}
    for row in rows:
        key = row.measure_a, row.measure_b, row.negatives, row.pair, row.test_data, row.models
        groups.setdefault(key, []).append(row)
    return [part for group in groups.values() for part in _comparison(group)]


def _comparison(rows: Sequence[CompareRow]) -> list[Table | str]:
    first = rows[0]
    of = f"{first.benchmark} on {first.test_data}" if first.test_data else first.benchmark
    pair = "" if first.pair == ALL else first.pair
    where = [pair, f"{first.negatives} negatives" if first.negatives else "", first.models]
    title = ", ".join(part for part in (of, *where) if part)
    table = Table("layer")
    for name in (first.measure_a, first.measure_b):
        table.add_column(name, justify="right", overflow="fold")
    for name in ("difference", "95 % interval", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        if row.layer == ALL and len(rows) > 1:
            table.add_section()
        table.add_row(row.layer, *_comparison_cells(row))
    last = rows[-1]
    return [
        f"{title}: {first.measure_a} minus {first.measure_b}, {last.trials} trials in {last.clusters} clusters",
        table,
    ]


def _comparison_cells(row: CompareRow) -> list[str]:
    def percent(value: float | None, sign: str = "") -> str:
        return "" if value is None else f"{100 * value:{sign}.1f}"

    low, high = percent(row.ci_low, "+"), percent(row.ci_high, "+")
    values = [percent(row.accuracy_a), percent(row.accuracy_b), percent(row.difference, "+")]
    p_value = "" if row.p_holm is None else f"{row.p_holm:.2g}"
    return [*values, f"[{low}, {high}]" if low else "", p_value, row.verdict]


def checklists(rows: Sequence[SanityRow], width: int) -> list[Table | str]:
    """Per layer as many tables as the measures need to be read at this width, beneath a line that explains the marks."""
    parts: list[Table | str] = []
    for layer in dict.fromkeys(row.layer for row in rows):
        by_measure: dict[str, list[SanityRow]] = {}
        for row in rows:
            if row.layer == layer:
                by_measure.setdefault(row.measure, []).append(row)
        parts.append(
            f"sanity on {layer}: ✓ as claimed or expected, ✗ not so, no mark: nothing is claimed; =: as before, which is the layer "
            "with a noisy copy of itself"
        )
        columns = {name: {"check": name, **_cells(checks)} for name, checks in by_measure.items()}
        parts.extend(_table(columns, names) for names in _measures_fitting(columns, width))
        parts.append("\n".join(of_sanity([row for checks in by_measure.values() for row in checks])))
    return [*parts, BEYOND_SANITY] if parts else parts


def _cells(checks: Sequence[SanityRow]) -> dict[str, str]:
    """What is shown of a measure's checks, by the labels of their lines."""
    before = _number(next(row.before for row in checks if row.check == "symmetric"))
    return {"before": before, **{_label(row): _cell(row) for row in checks}}


def _label(row: SanityRow) -> str:
    return row.check if row.level is None else f"{row.check} {row.level:g}"


def _cell(row: SanityRow) -> str:
    if row.score is None:
        return ""
    same = row.level is None and _number(row.score) == _number(row.before)
    return f"{'=' if same else _number(row.score)}{MARKS[row.verdict]}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"


def _measures_fitting(columns: dict[str, dict[str, str]], width: int) -> list[list[str]]:
    """The measures cut into lists that fit the width, one at least in each."""
    room = width - max(len(label) for cells in columns.values() for label in cells) - 4
    lists: list[list[str]] = []
    left = 0
    for name, cells in columns.items():
        need = max(map(len, cells.values())) + 3
        if need > left:
            lists.append([])
            left = room
        lists[-1].append(name)
        left -= need
    return lists


def _table(columns: dict[str, dict[str, str]], names: Sequence[str]) -> Table:
    table = Table("check")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True, overflow="fold")
    begun: set[str] = set()
    for label in list(columns[names[0]])[1:]:
        check = label.split(" ")[0]
        if check in LADDERS and check not in begun:
            begun.add(check)
            table.add_section()
        table.add_row(label, *(columns[name].get(label, "") for name in names))
        if label == "before":
            table.add_section()
    return table
