"""Scorers and their names."""

from pathlib import Path

import made

from contrasim_cli import scoring
from contrasim_cli.names import distinct_names


def test_scorers_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    same = [made.encoder_file(tmp_path / folder / "e.pt", widths=(5,)) for folder in ("x", "y")]
    assert [scorer.name for scorer in scoring.learned(same)] == [str(path) for path in same]
    assert distinct_names([Path("a/x.h5"), Path("b/y.h5")]) == ["x", "y"]
    assert distinct_names([Path("a/x.h5"), Path("b/x.npz")]) == ["a/x.h5", "b/x.npz"]
    assert distinct_names([Path("x.h5"), Path("x.h5"), Path("y.h5")]) == ["x.h5#1", "x.h5#2", "y.h5"]
