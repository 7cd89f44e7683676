"""One English caption for each scene of four digits.

A caption says part of what is in the picture, in varied words: a pair of neighbouring digits or a single one, and a
remark on one or two of the others that may be vague (odd, small, larger than its neighbour). It says nothing about
the handwriting, and now and then repeats itself, as people do.
"""

from typing import TypeVar

import numpy as np

from .digits import Ints

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CORNERS = [
    ["at the top left", "in the upper left corner"],
    ["at the top right", "in the upper right corner"],
    ["at the bottom left", "in the lower left corner"],
    ["at the bottom right", "in the lower right corner"],
]
LINES = [
    ((0, 1), ["the top row reads", "the upper digits are"]),
    ((2, 3), ["the bottom row reads", "the lower digits are"]),
    ((0, 2), ["the left column reads", "down the left side run"]),
    ((1, 3), ["the right column reads", "down the right side run"]),
]
T = TypeVar("T")


def captions(scenes: Ints, seed: int) -> list[str]:
    """A caption for each scene `[n, 4]`: top left, top right, bottom left, bottom right."""
    rng = np.random.default_rng(seed)
    return [caption(digits, rng) for digits in scenes]


def caption(digits: Ints, rng: np.random.Generator) -> str:
    """Two or three statements on one scene."""
    if rng.random() < 0.7:
        corners, opening = _line(digits, rng)
        others = [corner for corner in range(4) if corner not in corners]
    else:
        corner, *others = (int(corner) for corner in rng.permutation(4))
        opening = _exact(digits, corner, rng)
    told = rng.permutation(others)[: int(rng.integers(1, 3))]
    remarks = [_pick(rng, [_exact, _exact, _vague, _compared])(digits, int(corner), rng) for corner in told]
    text = opening + "".join(_pick(rng, [", and ", "; ", ", while "]) + remark for remark in remarks)
    return text[0].upper() + text[1:] + "."


def _line(digits: Ints, rng: np.random.Generator) -> tuple[tuple[int, int], str]:
    corners, wordings = _pick(rng, LINES)
    first, second = (NUMBERS[digits[corner]] for corner in corners)
    return corners, f"{_pick(rng, wordings)} {first} {_pick(rng, ['then', 'and'])} {second}"


def _exact(digits: Ints, corner: int, rng: np.random.Generator) -> str:
    number, where = NUMBERS[digits[corner]], _pick(rng, CORNERS[corner])
    named = f"an {number}" if number == "eight" else f"a {number}"
    return _pick(rng, [f"there is a digit {number} {where}", f"{where} stands {named}", f"{named} is {where}"])


def _vague(digits: Ints, corner: int, rng: np.random.Generator) -> str:
    digit, where = int(digits[corner]), _pick(rng, CORNERS[corner])
    parity, size = "an odd" if digit % 2 else "an even", "a small" if digit < 5 else "a large"
    return _pick(rng, [f"{parity} digit is {where}", f"{where} there is {size} number", f"{size} number is {where}"])


def _compared(digits: Ints, corner: int, rng: np.random.Generator) -> str:
    neighbour = corner ^ 1
    relation = ["the same as", "larger than", "smaller than"][int(np.sign(digits[corner] - digits[neighbour]))]
    return f"the digit {_pick(rng, CORNERS[corner])} is {relation} the one beside it"


def _pick(rng: np.random.Generator, options: list[T]) -> T:
    return options[int(rng.integers(len(options)))]
