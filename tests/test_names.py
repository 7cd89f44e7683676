"""Names that others chose act on no terminal and no spreadsheet, whatever the format, the encoding and the path."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import h5py
import made
import numpy as np
import pytest
from helpers import run
from hypothesis import given
from hypothesis import strategies as st
from stores import values

from contrasim_cli.cli import main
from contrasim_cli.names import cell, counted, encodable, json_text, told_apart

LETTERS = st.text(st.characters(codec=None, exclude_categories=()))
NASTY = [
    "=cmd|' /C calc'!A0", "+1+1", "-2*3", "@sum(1)", " =1+1", "＝1", "-1", "+1.5e-3", "\x1b[31mred", "\x9b2J", "a\u202eb\u2066",
    "tab\there", "line\nbreak", "$x^$ [red]", "_under", "<&>\"'", "é中😀", "a\u200bb", "\ue000\x7f\u2028",
]  # fmt: skip
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I | re.A)


def is_harmless(text: str) -> bool:
    """Whether a spreadsheet takes a cell for a text or a number, and a terminal for letters."""
    return text.isprintable() and (not FORMULA.match(text) or NUMBER.fullmatch(text) is not None)


@given(LETTERS)
def test_any_name_makes_a_harmless_cell(name: str) -> None:
    assert is_harmless(cell(name))


@pytest.mark.parametrize("prefix", ["=", "+", "-", "@", "＝", " @"])
def test_a_formula_of_any_kind_makes_a_harmless_cell(prefix: str) -> None:
    """Which a test of random names may never see; the name itself is none."""
    for rest in ("1+1", "cmd()", "", "-1", "inf", "nan", "1e", "٣"):
        assert not is_harmless(f"{prefix}{rest}")
        assert cell(f"{prefix}{rest}") == f"'{prefix}{rest}"


@pytest.mark.parametrize("name", ["hidden_1", "-1", "+2", "-.5e-3", "blocks.0", "naïve 中", "a-b", "1=1", "", "\\x"])
def test_a_harmless_name_is_written_as_it_is(name: str) -> None:
    assert cell(name) == name


@given(st.dictionaries(LETTERS, LETTERS | st.floats(allow_nan=False, allow_infinity=False)))
def test_json_gives_the_names_back_and_is_printable(content: dict[str, Any]) -> None:
    text = json_text(content, indent=1)
    assert json.loads(text) == content
    assert all(line.isprintable() for line in text.split("\n"))


def test_json_without_escapes_is_not_printable() -> None:
    """Or the test above could not fail."""
    assert not json.dumps("\x9b", ensure_ascii=False).isprintable()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores whose layers, ids and attributes have nasty names, and an encoder of such a name."""
    path = tmp_path_factory.mktemp("nasty")
    for k in range(2):
        made.store(
            path / f"{k}.h5",
            {name: values(20, 4, seed=10 * k + i) for i, name in enumerate(NASTY)},
            [f"{name}{row}" for row, name in enumerate((*NASTY, "x"))],
        )
        with h5py.File(path / f"{k}.h5", "r+") as file:
            file.attrs["model"] = "\x1b[31m\u202e=1+1"
    made.encoder_file(path / "_enc\x1b.pt", widths=(4,))
    return path


def shown(text: str) -> list[str]:
    """The lines of an output, all of them printable."""
    lines = text.split("\n")
    assert all(line.replace("\t", "").isprintable() for line in lines), text
    return lines


COMMANDS = [
    ("baseline", "0.h5", "1.h5"),
    ("score", "0.h5", "1.h5", "--encoder", "_enc\x1b.pt"),
    ("bench", "layers", "0.h5", "1.h5", "--encoder", "_enc\x1b.pt", "--measure", "cka"),
    ("bench", "multilingual", "0.h5", "1.h5", "--measure", "cka"),
    ("bench", "sanity", "0.h5", "--measure", "cka", "--layers", "0"),
    ("inspect", "0.h5"),
    ("inspect", "_enc\x1b.pt"),
]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["table", "tsv", "csv", "json"])
@pytest.mark.parametrize("args", COMMANDS, ids=lambda args: " ".join(args[:2]))
def test_no_name_acts(folder: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], form: str) -> None:
    monkeypatch.chdir(folder)
    done = run(*args, "--format", form)
    assert done.code == 0, done
    shown(done.stdout)
    shown(done.stderr)
    if form in ("tsv", "csv"):
        rows = list(csv.reader(io.StringIO(done.stdout), delimiter="\t" if form == "tsv" else ","))
        assert len({len(row) for row in rows}) == 1
        assert all(is_harmless(text) for row in rows for text in row)
    elif form == "json" and args[0] == "baseline":
        layers = [row["layer_b"] for row in json.loads(done.stdout)["results"]]
        assert layers[: len(NASTY)] == NASTY


def test_what_extract_lists_acts_neither(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\ndef net():\n    net = nn.Sequential()\n    for name in {0!r}:\n"
    code += "        net.add_module(name, nn.Linear(4, 4))\n    return net\n"
    names = [name for name in NASTY if "." not in name]
    Path("nets.py").write_text(code.format(names), encoding="utf-8")
    np.save("x.npy", values(3, 4))
    line = ("extract", "--model", "nets.py:net", "--arrays", "x.npy")
    for more in (["--list-layers"], ["--dry-run", "-o", "=o\x1b.h5"]):
        done = run(*line, *more)
        assert done.code == 0, done
        lines = [row.split("\t") for row in shown(done.stdout)[:-1]]
        assert len(lines) == 1 + len(names)
        assert all(is_harmless(text) for row in lines for text in row)


@pytest.mark.slow
def test_figures_hold_printable_names_and_every_name_of_a_legend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = run(
        "bench", "layers", "0.h5", "1.h5", "--encoder", "_enc\x1b.pt", "--measure", "cka", "--plot", "a.svg",
        "--plot-pairs", "b.svg", "--plot-grids", "c.svg", "--force",
    )  # fmt: skip
    assert done.code == 0, done
    more = run(
        "score", "0.h5", "1.h5", "--encoder", "_enc\x1b.pt", "--plot", "d.svg", "--layers", "0-3", "--plot-rows", "e.svg",
        "--projection", "pca", "--force",
    )  # fmt: skip
    assert more.code == 0, more
    for name in "abcde":
        words = [text for node in ElementTree.parse(f"{name}.svg").iter() if (text := node.text)]
        assert all(word.replace("\n", "").isprintable() for word in words)
        assert any("_enc\\x1b.pt" in word for word in words), name


def encoded(encoding: str, *args: str) -> tuple[int, str]:
    """Exit code and stdout of a command whose streams have an encoding."""
    out = io.BytesIO()
    streams = {
        "stdout": io.TextIOWrapper(out, encoding=encoding, errors="strict", write_through=True),
        "stderr": io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True),
    }
    with mock.patch.multiple(sys, argv=["contrasim", *args], **streams), pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0), out.getvalue().decode(encoding)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["table", "tsv", "csv", "json"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_a_stream_of_any_encoding(folder: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, form: str) -> None:
    monkeypatch.chdir(folder)
    for args in (COMMANDS[0], COMMANDS[4]):
        code, text = encoded(encoding, *args, "--format", form)
        assert code == 0
        shown(text)
        if form == "json":
            assert json.loads(text)["results"]
        if form == "table" and encoding != "utf-16":
            assert "+--" in text
            assert "\\u25" not in text  # a line of a table
            assert "\\xb1" not in text
    assert encoded(encoding, "--help")[0] == 0


def test_marks_that_an_encoding_has_stay() -> None:
    assert encodable("33.3 ± 4.7 – ✓ é", "utf-8") == "33.3 ± 4.7 – ✓ é"
    assert encodable("33.3 ± 4.7 – ✓ é", "ascii") == "33.3 ~ 4.7 - + é"


SEVERAL = """
import os, sys
from contrasim_cli.cli import main
for line in {lines!r}:
    sys.argv = ["contrasim", *map(os.fsdecode, line)]
    try:
        main()
    except SystemExit as stop:
        print("code", stop.code, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_path_that_is_no_utf8_in_a_locale_that_is_none(folder: Path, tmp_path: Path) -> None:
    """Every format, figures and the other outputs too; nothing is an internal error."""
    a, b, enc = (os.fsencode(tmp_path) + b"/\xff\xc3\xa9" + name for name in (b"0.h5", b"1.h5", b"enc.pt"))
    for k, path in enumerate((a, b)):
        made.store(Path(os.fsdecode(path)), {f"layer_{i}": values(20, 4, seed=10 * k + i) for i in range(2)})
    out = os.fsencode(tmp_path) + b"/\xffout"
    np.save(os.fsdecode(out + b".npy"), values(20, 4))
    train = [
        b"train",
        a,
        b,
        b"--task",
        b"pairs",
        b"--recipe",
        b"paper",
        b"--hidden",
        b"8",
        b"--dim",
        b"4",
        b"--epochs",
        b"1",
    ]
    outputs = [word for suffix in (b".tsv", b".csv", b".json", b".txt") for word in (b"-o", out + suffix)]
    lines = [
        *([b"baseline", a, b, *outputs[k : k + 2], b"--plot", out + plot, b"--format", form, b"--force"]
          for k, plot, form in ((0, b".png", b"table"), (2, b".svg", b"tsv"), (4, b".pdf", b"csv"), (6, b".png", b"json"))),
        [*train, b"-o", enc, b"--log", out + b".jsonl"],
        [b"score", a, b, b"--encoder", enc, b"--format", b"json"],
        [b"bench", b"layers", a, b, b"--encoder", enc, b"--trials", out + b"t.json", b"--measure", b"cka"],
        [b"bench", b"compare", out + b"t.json", b"--measure", b"cka", b"--measure", os.path.basename(enc)],
        [b"inspect", a, b, b"--format", b"json"],
        [b"inspect", enc],
        [b"extract", b"--from", out + b".npy", b"-o", out + b"e.h5"],
    ]  # fmt: skip
    environment = {
        **os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL.format(lines=lines)], capture_output=True, env=environment, check=False
    )
    err = done.stderr.decode("ascii")
    assert re.findall("code .*", err) == ["code 0"] * len(lines), err
    done.stdout.decode("ascii")
    written = sorted(name for name in os.listdir(os.fsencode(tmp_path)) if name.startswith(b"\xffout"))
    assert written == sorted(b"\xffout" + name for name in (
        b".tsv", b".csv", b".json", b".txt", b".png", b".svg", b".pdf", b".jsonl", b"t.json", b".npy", b"e.h5",
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["x1", "x1 "], ["'x1'", "'x1 '"]),
        (["a b", "a\u00a0b"], ["'a b'", r"'a\xa0b'"]),
        (["\u00e9", "e\u0301"], [r"'\xe9'", r"'e\u0301'"]),
        (["ab", "a\u200bb"], ["'ab'", r"'a\u200bb'"]),
        (["ab", "\ufeffab"], ["'ab'", r"'\ufeffab'"]),
        (["ab", "ab\udcff"], ["'ab'", r"'ab\udcff'"]),
        (["x1", "x2"], ["x1", "x2"]),
        (["x1", "x1"], ["x1", "x1"]),
    ],
)
def test_names_that_look_alike_are_shown_so_that_the_difference_is_seen(names: list[str], shown: list[str]) -> None:
    assert told_apart(names) == shown


@pytest.mark.parametrize(
    "others", [[f"x{k} " for k in range(5)], [f"x{k}\u200b" for k in range(5)], ["x0", "x1", "x2", "x3 ", "x4"]]
)
def test_ids_that_look_alike_are_to_be_written_alike(tmp_path: Path, others: list[str]) -> None:
    for name, ids in (("a", [f"x{k}" for k in range(5)]), ("b", others)):
        np.savez(tmp_path / f"{name}.npz", f=np.eye(5), ids=np.array(ids))
    done = run("baseline", tmp_path / "a.npz", tmp_path / "b.npz")
    row = next(k for k in range(5) if others[k] != f"x{k}")
    assert done.code == 4
    assert (
        f"the first difference is in row {row}: {others[row]!a} instead of 'x{row}'; they differ in spaces"
        in done.stderr
    )
    assert "--align position" not in done.stderr


def test_counts_of_one_have_no_plural() -> None:
    assert [counted(k, "row") for k in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
