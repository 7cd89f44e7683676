"""The study that compares whole commands with plain code: it runs, its numbers agree, and it sees those that do not."""

import subprocess
import sys
from pathlib import Path

STUDY = Path(__file__).parent / "studies" / "peers.py"


def table(*options: str) -> tuple[int, list[list[str]]]:
    """Exit code and the cells of the lines below the titles."""
    ran = subprocess.run(
        [sys.executable, STUDY, "--runs", "1", "--scale", "0.02", *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("| job | s |"), ran.stderr
    return ran.returncode, [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_scores_agree_with_those_of_plain_code() -> None:
    code, rows = table("--jobs", "procrustes", "cca")
    assert code == 0
    assert [row[0] for row in rows if row[3] in ("numpy_procrustes", "torch_cca")] == ["procrustes", "cca"]
    apart = {row[3]: float(row[7]) for row in rows if row[3] != "repsim_cca"}
    assert 0 < apart["torch_cca"] < 1e-4
    assert 0 < apart["numpy_procrustes"] < 1e-3  # which is of what float32 loses
    assert apart["numpy_procrustes_64"] < 1e-9


def test_scores_that_differ_are_seen() -> None:
    """A part in ten million is more than none."""
    code, rows = table("--jobs", "procrustes", "--tolerance", "0")
    assert code == 1
    assert rows[0][-1].endswith("DIFFERS")
