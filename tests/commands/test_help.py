"""Help names what options take in words, and fits the eye."""

import re

import pytest
from helpers import run

COMMANDS = [
    ["extract"], ["train"], ["score"], ["baseline"], ["inspect"], ["guide"], ["bench"], ["bench", "layers"],
    ["bench", "multilingual"], ["bench", "image-caption"], ["bench", "compare"], ["bench", "sanity"], [],
]  # fmt: skip
PYTHON = re.compile(r"<(bool|str|int|float|path|Path|list)\b|\\t|range>|\bNone\b")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_options_take_words_not_types_of_python(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = run(*command, "--help")
    assert (shown.code, shown.stderr) == (0, "")
    assert PYTHON.findall(shown.stdout) == []


def test_files_numbers_and_texts_have_words_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = run("baseline", "--help").stdout
    for option, word in (
        ("--output", "FILE"),
        ("--k", "N"),
        ("--ridge", "X"),
        ("--memory", "TEXT"),
        ("--standardize-from", "FILE"),
    ):
        assert re.search(rf"{option}\s+(-o\s+)?{word}\b", shown), option
