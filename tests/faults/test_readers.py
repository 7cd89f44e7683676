"""What atheris found, and atheris itself in the long run, where it is installed: it is there for some Pythons only."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults.conftest import Figures
from faults.damage import KINDS, outcome
from faults.fuzz_readers import CORPUS

OURS = {"store.h5", "unsealed.h5", "encoder.pt", "unfinished.pt"}
FOREIGN = [name for name in KINDS if name not in OURS]
MINUTES = 30  # of each kind
PROGRAM = Path(__file__).with_name("fuzz_readers.py")


@pytest.mark.parametrize("name", KINDS)
def test_the_corpus_is_read_or_refused(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    whole = kind.read(Path(shutil.copy(CORPUS / name / "whole", tmp_path / name)))
    for found in sorted((CORPUS / name).iterdir()):
        path = tmp_path / name
        shutil.copy(found, path)
        assert outcome(kind, path, whole) in {"same", "refused", "unchecked"}, found


@pytest.mark.parametrize("name", FOREIGN)
def test_atheris(tmp_path: Path, long: bool, figures: Figures, name: str) -> None:
    if not long:
        pytest.skip("minutes long")
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    shutil.copytree(CORPUS / name, tmp_path / "corpus")
    limits = [f"-max_total_time={60 * MINUTES}", "-max_len=40000", "-rss_limit_mb=2000", "-timeout=60"]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name, str(tmp_path / "corpus"), *limits, "-print_final_stats=1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    assert executed is not None
    figures.add(f"atheris: {name}", int(executed[1]))
