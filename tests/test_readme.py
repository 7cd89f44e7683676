"""The README and the pages of the guide tell the truth: their commands run as written, in order, and print what they show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "contrasim_cli" / "guide").glob("*.md"))
PROGRESS = re.compile(r"^contrasim: [^:]+: \d+/\d+ .*\n", re.M)  # lines that only slow machines print
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def transcripts(text: str = README) -> list[list[tuple[str, str]]]:
    """The commands and outputs of every ```console block."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    entries = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.M)
    return [[(command.replace("\\\n", " "), output) for command, output in entries.findall(block)] for block in blocks]


def skeleton(text: str) -> str:
    """Text without numbers and spacing, which trained results and column widths may change from machine to machine."""
    return re.sub(r"[\s─━]+", " ", NUMBER.sub("N", text)).strip()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    return tmp_path


def test_there_are_transcripts() -> None:
    assert sum(len(block) for block in transcripts()) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_transcripts_run_as_written(page: Path, workspace: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    for command, shown in (entry for block in transcripts(page.read_text()) for entry in block):
        shell = ["bash", "-c", command]
        ran = subprocess.run(shell, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
        printed = PROGRESS.sub("", ran.stdout + ran.stderr)
        assert skeleton(shown) == skeleton(printed), f"$ {command}\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_are_short(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 250


def test_every_command_is_documented() -> None:
    benchmarks = ("bench layers", "bench multilingual", "bench image-caption", "bench compare", "bench sanity")
    for command in ("extract", "train", "score", "baseline", "inspect", "guide", *benchmarks):
        assert f"contrasim {command}" in README


def test_skeleton_tells_words_apart() -> None:
    assert skeleton("cka  0.5") == skeleton("cka 0.75")
    assert skeleton("cka 0.5") != skeleton("cca 0.5")
