"""The README and the pages of the guide tell the truth: their commands run as written, in order, and print what they show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contrasim_cli.measures import MEASURES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "contrasim_cli" / "guide").glob("*.md"))
PROGRESS = re.compile(r"^contrasim: [^:]+: \d+/\d+ .*\n", re.M)  # lines that only slow machines print
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


SCRIPT = re.compile(r"```python\n(# (\w+\.py)\n.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
FRESH_MACHINE = ("pip install . && bash sample_data/demo.sh ", "pip install '.[test]' && pytest -n auto ")


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
    assert sum(len(block) for block in transcripts()) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_transcripts_run_as_written(page: Path, workspace: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    for script, name in SCRIPT.findall(page.read_text()):
        (workspace / name).write_text(script)
    for command, shown in (entry for block in transcripts(page.read_text()) for entry in block):
        shell = ["bash", "-c", command]
        ran = subprocess.run(shell, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
        printed = PROGRESS.sub("", ran.stdout + ran.stderr)
        assert skeleton(shown) == skeleton(printed), f"$ {command}\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_are_short(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 250


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_readme_has_the_commands_for_a_fresh_machine() -> None:
    for command in FRESH_MACHINE:
        assert sum(line.startswith(command) for line in README.splitlines()) == 1
    assert FRESH_MACHINE[1] in (ROOT / ".ci" / "run").read_text()


def test_readme_links_every_page() -> None:
    linked = {target for target, _ in LINK.findall(README)}
    assert linked == {str(page.relative_to(ROOT)) for page in PAGES}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_to_a_page_and_a_heading(page: Path) -> None:
    for target, heading in LINK.findall(page.read_text()):
        led = page.parent / target if target else page
        assert led.is_file(), target
        assert not heading or heading in anchors(led.read_text()), f"{target}#{heading}"


def anchors(text: str) -> set[str]:
    """Headings as the fragments of links name them."""
    headings = re.findall(r"^#+ (.*)", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_measure_is_documented() -> None:
    measures = (ROOT / "contrasim_cli" / "guide" / "measures.md").read_text()
    assert [name for name in MEASURES if f"`{name}`" not in measures] == []


def test_the_table_of_questions_names_measures_that_there_are() -> None:
    trust = (ROOT / "contrasim_cli" / "guide" / "trust.md").read_text()
    named = re.findall(r"--measure ([a-z_]+)", trust.partition("## Eight questions")[0])
    assert len(named) > 10
    assert set(named) <= set(MEASURES)


def test_every_command_is_documented() -> None:
    benchmarks = ("bench layers", "bench multilingual", "bench image-caption", "bench compare", "bench sanity")
    for command in ("extract", "train", "score", "baseline", "inspect", "guide", *benchmarks):
        assert f"contrasim {command}" in README


def test_skeleton_tells_words_apart() -> None:
    assert skeleton("cka  0.5") == skeleton("cka 0.75")
    assert skeleton("cka 0.5") != skeleton("cca 0.5")
