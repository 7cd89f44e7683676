"""`contrasim guide`: topics, pages as they are in a pipe, pages as a terminal shows them."""

import csv
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import made
import numpy as np
from helpers import run

import contrasim_cli

PAGES = {page.stem: page for page in sorted(Path(contrasim_cli.__file__).parent.glob("guide/*.md"))}


def on_a_terminal(*args: str) -> str:
    """What the program writes to a terminal of 80 columns."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    with os.fdopen(master, "rb", buffering=0) as screen:
        command = [sys.executable, "-m", "contrasim_cli", *args]
        with subprocess.Popen(command, stdout=slave, env=environment) as child:
            os.close(slave)
            shown = b""
            try:
                while part := screen.read(4096):
                    shown += part
            except OSError:  # Linux: nobody holds the other end any more
                pass
        assert child.returncode == 0
    return shown.decode().replace("\r\n", "\n")


def test_topics_are_listed_with_their_titles() -> None:
    code, out, err = run("guide")
    assert (code, err) == (0, "")
    listed = dict(line.split(None, 1) for line in out.splitlines())
    assert listed == {topic: page.read_text().splitlines()[0].removeprefix("# ") for topic, page in PAGES.items()}
    assert out == out.rstrip() + "\n"
    assert all(topic == topic.lower() for topic in listed)
    assert max(map(len, out.splitlines())) <= 100


def test_a_page_is_markdown_in_a_pipe() -> None:
    for topic, page in PAGES.items():
        assert run("guide", topic) == (0, page.read_text(), "")


def test_a_page_is_rendered_on_a_terminal() -> None:
    shown = on_a_terminal("guide", "files")
    assert "\x1b[" in shown
    assert "Files of activations" in shown
    assert "# Files of activations" not in shown
    assert "--axes" in shown
    assert "\x1b[3" not in on_a_terminal("guide", "files", "--no-color")  # no colour code, from 30 to 39


def test_a_measure_is_a_topic_with_what_the_list_tells_of_it() -> None:
    for name in ("cka", "mutual_knn", "rv"):
        told = run("guide", name)
        assert told == run("baseline", "--list", "--long", name)
        assert told.code == 0
        assert name in told.stdout


def test_an_unknown_topic_is_one_line_with_the_topics() -> None:
    topics = f"{', '.join(PAGES)}, and every measure (contrasim baseline --list)"
    line = f"contrasim: error: guide: no page fils; the topics are {topics}\n"
    assert run("guide", "fils") == (2, "", line)
    assert run("guide", "../cli")[0] == 2


def test_the_question_of_fine_tuning_is_answered_where_rows_share_a_direction(tmp_path: Path) -> None:
    """Shuffled rows score low by the command, and independent runs differ more from each other than from their start."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=(100, 16)) + 5
    moved = {"before": before, **{run: before + 2 * rng.normal(size=before.shape) for run in ("after", "other")}}
    for name, rows in moved.items():
        made.store(tmp_path / f"{name}.h5", {"hidden_1": rows})
    (command,) = re.findall(r"\| does fine-tuning change a layer\? \| `(baseline .*?)`", PAGES["trust"].read_text())
    lines = {}
    for stores in (("before", "after"), ("after", "other")):
        words = command.replace("before.h5 after.h5", " ".join(f"{tmp_path}/{name}.h5" for name in stores)).split()
        result = run(*words)
        assert result.code == 0
        for line in csv.DictReader(result.stdout.splitlines(), delimiter="\t"):
            lines[stores[0], line["measure"]] = line
    assert {measure for _, measure in lines} >= {"cka", "cosine"}
    for measure in ("cka", "cosine"):
        assert float(lines["before", measure]["null"]) < 0.2
        assert float(lines["after", measure]["score"]) < float(lines["before", measure]["score"])
