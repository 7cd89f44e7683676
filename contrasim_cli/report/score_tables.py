"""Grids of scores as tables: shaded where there is colour, and short enough to be read at the width of a terminal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest

from rich import box
from rich.color import Color
from rich.style import Style
from rich.table import Table
from rich.text import Text

from contrasim_cli.measures import STRICTLY

# dark to bright, also in grey (viridis); bright is similar
SHADES = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
DARK = 4  # as many of them want white letters
HEAD = 5  # letters of a column's head where columns are narrow
UNCLEAR, TIED = "~", "="  # behind scores that do not clear their null, and that share the first place of their row
NEAR = "?"  # behind the best score of a row whose best match the scores do not decide

Pair = tuple[str, str]


@dataclass(frozen=True)
class ScoreGrid:
    """One measure and pair of stores: what is shown of every pair of layers, and the scores by which it is shaded.

    `unclear`: the pairs whose scores do not clear their null. `near`: the rows whose scores do not decide which match is best.
    `best`: the best match of each row, where a paper shows it in bold.
    """

    down: Sequence[str]
    across: Sequence[str]
    scores: Mapping[Pair, float | None]
    shown: Mapping[Pair, str]
    higher: bool  # is more similar
    unclear: frozenset[Pair] = frozenset()
    near: frozenset[str] = frozenset()
    best: frozenset[Pair] = frozenset()
    shows_near: bool = True  # by a mark; where the best match is bold, no bold says it

    @cached_property
    def tied(self) -> frozenset[Pair]:
        """The pairs that share the first place of their row: by less than STRICTLY, rounding would decide."""
        found: set[Pair] = set()
        for name in self.down if len(self.across) > 1 else ():
            row = {layer: value for layer in self.across if (value := self.similar((name, layer))) is not None}
            best = max(row.values(), default=0.0)
            first = [(name, layer) for layer, value in row.items() if best - value <= STRICTLY * abs(best)]
            found.update(first if len(first) > 1 else ())
        return frozenset(found)

    @cached_property
    def undecided(self) -> frozenset[Pair]:
        """The pair of the best score in each row that is near, unless several tie there."""
        firsts = (self.most_similar(name, 1) for name in self.down if name in self.near)
        return frozenset(pair for first in firsts for pair in first) - self.tied

    def most_similar(self, name: str, count: int) -> list[Pair]:
        """The best pairs of a row, the most similar first."""
        row = {pair: value for layer in self.across if (value := self.similar(pair := (name, layer))) is not None}
        return nlargest(count, row, key=lambda pair: row[pair])

    def marks(self, pair: Pair) -> str:
        """What stands behind the score of a pair."""
        return (
            UNCLEAR * (pair in self.unclear)
            + NEAR * (self.shows_near and pair in self.undecided)
            + TIED * (pair in self.tied)
        )

    def marked(self, pair: Pair) -> str:
        """What is shown of a pair, with its marks."""
        return self.shown.get(pair, "") + self.marks(pair)

    def narrow(self, pair: Pair) -> str:
        """The score with two decimals, or one where that leaves room for its marks."""
        marks, score = self.marks(pair), self.scores.get(pair)
        text = two_decimals(score)
        if score is not None and len(text) + len(marks) > HEAD and abs(score) < 9.95:
            text = f"{score:.1f}"
        return (text + marks)[:HEAD]

    def similar(self, pair: Pair) -> float | None:
        """The score with its sign turned where lower is more similar; None where there is none."""
        score = self.scores.get(pair)
        if score is None or not math.isfinite(score):
            return None
        return score if self.higher else -score

    def styles(self) -> dict[Pair, Style]:
        """Shades of the pairs that have a score, from the least similar to the most."""
        similarities = {pair: value for pair in self.scores if (value := self.similar(pair)) is not None}
        if not similarities or min(similarities.values()) == max(similarities.values()):
            return {}
        least, most = min(similarities.values()), max(similarities.values())
        # halves, whose difference is in range whatever the values
        shares = {pair: (value / 2 - least / 2) / (most / 2 - least / 2) for pair, value in similarities.items()}
        return {pair: _style(round((len(SHADES) - 1) * share)) for pair, share in shares.items()}


def _style(step: int) -> Style:
    letters = "#ffffff" if step < DARK else "#000000"
    return Style(color=Color.parse(letters), bgcolor=Color.parse(SHADES[step]))


def full_table(grid: ScoreGrid, width: int) -> Table | None:
    """Whole names and all that is to be shown; None where it is too wide."""
    shown = {pair: grid.marked(pair) for pair in grid.scores}
    least = max(5, *map(len, shown.values()))
    if sum(max(least, len(name)) + 3 for name in grid.across) + max(map(len, grid.down)) + 4 > width:
        return None
    table = Table("")
    for name in grid.across:
        table.add_column(name, justify="right", no_wrap=True)
    return _filled(table, grid, shown)


def narrow_table(grid: ScoreGrid, width: int, cells: Mapping[Pair, str] | None = None) -> Table | None:
    """Scores with two decimals, or the cells, under what tells the layers apart; None where even that is too wide or does not."""
    cells = {pair: grid.narrow(pair) for pair in grid.scores} if cells is None else cells
    letters = max(HEAD, *map(len, cells.values()))
    heads = [name if len(name) <= letters else "…" + name[1 - letters :] for name in short_names(grid.across)]
    if len(set(heads)) < len(heads) or (letters + 1) * len(heads) + max(map(len, grid.down)) + 1 > width:
        return None
    table = Table("", box=box.SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True, width=letters)
    table.columns[0].no_wrap = True
    return _filled(table, grid, cells)


def with_calibrated(grid: ScoreGrid, calibrated: Mapping[Pair, float | None], width: int) -> Table | None:
    """A narrow table whose cells are a score and the calibrated one behind an arrow; None where it is too wide."""
    cells = {}
    for pair, score in grid.scores.items():
        number = two_decimals(calibrated.get(pair))
        cells[pair] = two_decimals(score) + (f"→{number}" if number else "") + grid.marks(pair)
    return narrow_table(grid, width, cells)


class BestMatch(Text):
    """A cell that holds the best match of its row, or one of several that tie."""


def _kind(best: bool) -> type[Text]:
    return BestMatch if best else Text


def _filled(table: Table, grid: ScoreGrid, shown: Mapping[Pair, str]) -> Table:
    styles = grid.styles()
    for name in grid.down:
        pairs = [(name, layer) for layer in grid.across]
        cells = [
            _kind(pair in grid.best)(shown.get(pair, ""), style=styles.get(pair, ""), justify="right") for pair in pairs
        ]
        table.add_row(name, *cells)
    return table


def best_matches(grid: ScoreGrid) -> Table:
    """The most similar layer of the second store for each of the first, and the runner-up."""
    heads = ("layer", "best match", "score", "runner-up", "score")
    table = Table(*heads, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in (2, 4):
        table.columns[column].justify = "right"
    for name in grid.down:
        cells = [cell for pair in grid.most_similar(name, 2) for cell in (pair[1], grid.marked(pair))]
        table.add_row(name, *cells, *[""] * (4 - len(cells)))
    return table


def short_names(names: Sequence[str]) -> list[str]:
    """Names without what all begin and end with; numbers stay whole."""
    before, after = _common(names), _common([name[::-1] for name in names])
    short = [name[len(before) : len(name) - len(after)] for name in names]
    return short if len(names) > 1 and all(short) else list(names)


def _common(names: Sequence[str]) -> str:
    """What all names begin with, up to the number that it may end in."""
    first, last = min(names), max(names)
    length = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length].rstrip("0123456789")


def two_decimals(score: float | None) -> str:
    """A score in no more than five letters."""
    if score is None or not math.isfinite(score):
        return ""
    if abs(score) < 9.995:
        text = f"{score:.2f}"
        return text.removeprefix("-") if text == "-0.00" else text
    return f"{score:.0f}" if abs(score) < 9999.5 else f"{score:.0e}".replace("e+0", "e").replace("e+", "e")
