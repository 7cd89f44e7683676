"""An output that is an input is refused, with --force too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run

ROWS = np.random.default_rng(0).normal(size=(8, 3))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with two tables of rows, one link to one of them, and a file of tensors."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        lines = ["x\ty\tz", *("\t".join(map(str, row)) for row in ROWS.tolist())]
        Path(f"{name}.tsv").write_text("\n".join(lines) + "\n")
    Path("link.tsv").symlink_to("a.tsv")
    torch.save({"one": torch.from_numpy(ROWS), "two": torch.from_numpy(ROWS)}, "t.pt")
    Path("t.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("args", "output"),
    [
        (["baseline", "a.tsv", "b.tsv", "-o", "a.tsv"], "a.tsv"),
        (["baseline", "a.tsv", "b.tsv", "-o", "link.tsv"], "link.tsv"),
        (
            ["baseline", "b.tsv", "b.tsv", "--standardize", "center", "--standardize-from", "a.tsv", "-o", "a.tsv"],
            "a.tsv",
        ),
        (["score", "a.tsv", "b.tsv", "-o", "b.tsv"], "b.tsv"),
        (["inspect", "a.tsv", "-o", "a.tsv"], "a.tsv"),
        (["bench", "sanity", "a.tsv", "-o", "a.tsv"], "a.tsv"),
        (["bench", "layers", "a.tsv", "b.tsv", "-o", "b.tsv"], "b.tsv"),
        (["bench", "multilingual", "a.tsv", "b.tsv", "--trials", "t.json", "--groups", "t.json"], "t.json"),
        (["bench", "compare", "t.json", "-o", "t.json"], "t.json"),
        (["train", "t.pt", "t.pt", "--task", "layers", "-o", "t.pt"], "t.pt"),
        (["train", "a.tsv", "b.tsv", "--task", "layers", "-o", "e.pt", "--log", "a.tsv"], "a.tsv"),
        (["extract", "--from", "a.tsv", "-o", "a.tsv"], "-o a.tsv"),
    ],
)
def test_an_output_is_no_input(files: Path, args: list[str], output: str) -> None:
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    code, out, err = run(*args, "--force")
    assert (code, out) == (2, "")
    said = f"contrasim: error: {output}: is an input of this run, which it would replace; give another name"
    assert err.splitlines() == [said]
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


def test_another_file_is_replaced_with_force(files: Path) -> None:
    (files / "c.tsv").write_text("old")
    done = run("baseline", "a.tsv", "b.tsv", "-o", "c.tsv", "--force")
    assert done.code == 0, done.stderr
    assert (files / "c.tsv").read_text() == done.stdout
