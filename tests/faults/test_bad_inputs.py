"""A table of bad inputs: the exit code and every word of what is said, of each.

`python tests/faults/test_bad_inputs.py` writes the words anew, to be read before they are committed.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from faults.bad_inputs import CASES, furnish
from helpers import run

SAID = Path(__file__).with_name("bad_inputs.txt")


def said_of(name: str) -> str:
    """What is said of a bad input in the folder at hand, with that folder's name left out."""
    furnish(Path())
    CASES[name].make()
    code, out, err = run(*CASES[name].args)
    assert (out == "") == (code != 0)
    lines = err.replace(str(Path().resolve()), "{here}").splitlines()
    return "".join(f"{line}\n" for line in (f"{name}: exit {code}", *(f"    {line}" for line in lines)))


def expected() -> dict[str, str]:
    """What the table says, by the name of the input."""
    found: dict[str, str] = {}
    for line in SAID.read_text("utf-8").splitlines(keepends=True):
        if not line.startswith(" "):
            name = line.rpartition(": exit ")[0]
        found[name] = found.get(name, "") + line
    return found


def test_the_table_is_complete() -> None:
    assert expected().keys() == CASES.keys()
    assert len(CASES) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    said = said_of(name)
    assert said == expected()[name]
    lines = said.splitlines()[1:]
    assert all(line.isprintable() for line in lines)
    assert lines[-1].startswith("    contrasim: error: ") or ": exit 0" in said


if __name__ == "__main__":
    with SAID.open("w", encoding="utf-8") as table:
        for name in CASES:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                table.write(said_of(name))
