"""`-`: stores that stdin lists, results on stdout alone."""

import io
from pathlib import Path

import pytest
from helpers import run
from stores import values, write


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"{name}.h5", {"l": values(20, 3, k)}) for k, name in enumerate("abc")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_stores_are_listed_by_stdin(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    listed = f"{paths[1]}\n\n{paths[2]}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(listed))
    found = run("baseline", paths[0], "-", "--measure", "dot", "-o", "-")
    assert (found.code, found.stdout) == (0, run("baseline", *paths, "--measure", "dot").stdout)
    monkeypatch.setattr("sys.stdin", io.StringIO(listed))
    assert run("inspect", "-", "--no-scan").stdout == run("inspect", *paths[1:], "--no-scan").stdout
    assert not Path("-").exists()


@pytest.mark.parametrize(
    ("stdin", "stores", "said"),
    [
        (io.StringIO(""), ["-"], "and there is none"),
        (Terminal("a.h5"), ["-"], "stdin is a terminal; pipe them in"),
        (io.StringIO("a.h5"), ["-", "-"], "- is given twice"),
    ],
)
def test_what_cannot_be_is_one_line(
    monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO, stores: list[str], said: str
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    done = run("baseline", *stores)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
