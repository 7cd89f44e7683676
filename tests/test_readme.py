"""The README tells the truth: its commands run as written, in order, and print what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROGRESS = re.compile(r"^contrasim: [^:]+: \d+/\d+ .*\n", re.M)  # lines that only slow machines print
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def transcripts() -> list[list[tuple[str, str]]]:
    """The commands and outputs of every ```console block."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    entries = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.M)
    return [[(command.replace("\\\n", " "), output) for command, output in entries.findall(block)] for block in blocks]


def skeleton(text: str) -> str:
    """Text without numbers and spacing, which trained results and column widths may change from machine to machine."""
    return re.sub(r"[\s─━]+", " ", NUMBER.sub("N", text)).strip()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "sample_data").symlink_to(ROOT / "sample_data")
    return folder


def test_there_are_transcripts() -> None:
    assert sum(len(block) for block in transcripts()) >= 5


def test_transcripts_run_as_written(workspace: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    for command, shown in (entry for block in transcripts() for entry in block):
        shell = ["bash", "-c", command]
        ran = subprocess.run(shell, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
        printed = PROGRESS.sub("", ran.stdout + ran.stderr)
        assert skeleton(shown) == skeleton(printed), f"$ {command}\n{printed}"


def test_every_command_is_documented() -> None:
    benchmarks = ("bench layers", "bench multilingual", "bench image-caption", "bench compare", "bench sanity")
    for command in ("extract", "train", "score", "baseline", "inspect", *benchmarks):
        assert f"contrasim {command}" in README


def test_skeleton_tells_words_apart() -> None:
    assert skeleton("cka  0.5") == skeleton("cka 0.75")
    assert skeleton("cka 0.5") != skeleton("cca 0.5")
