"""Ranks among each other: shares, sums, and refusals that all meet; and how they start and end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import finish, free_port, program, run, start

from contrasim_cli import distributed, launch, peers
from contrasim_cli.errors import UsageError

PAIR = (str(Path(__file__).with_name("pair.py")),)


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def said(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What every rank of 2, and of 3, found."""
    done = run(request.param, python=PAIR)
    assert [(one.code, one.stderr) for one in done] == [(0, "")] * request.param
    return [json.loads(one.stdout) for one in done]


def test_ranks_know_who_they_are(said: list[dict[str, Any]]) -> None:
    world = len(said)
    assert [one["who"] for one in said] == [[k, world, k, k == 0] for k in range(world)]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_shares_make_up_the_whole_in_order(said: list[dict[str, Any]], count: int) -> None:
    shares = [one["shares"][(0, 1, 7).index(count)] for one in said]
    assert [item for share in shares for item in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_sums_and_what_is_gathered_are_the_same_everywhere(said: list[dict[str, Any]]) -> None:
    world = len(said)
    times = sum(range(1, world + 1))
    double = (np.arange(6.0).reshape(2, 3).T * times).tolist()
    for one in said:
        assert one["total"] == [double, [sum(range(world))] * 3]
        assert one["gathered"] == [{"rank": k, "text": "é" * k} for k in range(world)]
        assert one["arrays"] == [np.arange(k * 2.0).reshape(k, 2).tolist() for k in range(world)]
        assert one["joined"] == np.concatenate([np.full((2, k + 1), k) for k in range(world)], axis=1).tolist()
        assert one["budget"] == 1000 // world


def test_what_one_rank_is_refused_all_are(said: list[dict[str, Any]]) -> None:
    for one in said:
        assert one["agreed"] == ["done"]
        assert one["one refused"] == [["bad row"], 3]
        assert one["all refused the same"] == [["bad file"], 3]
        assert one["refused in two ways"] == [["ids", "bad row"], 3]


# alone


def test_alone_nothing_is_shared_or_imported() -> None:
    program = """
import sys
import numpy as np
from contrasim_cli import distributed as d
with d.joined():
    assert (d.rank(), d.world(), d.first(), d.gathered(3), list(d.share(range(3)))) == (0, 1, True, [3], [0, 1, 2])
    assert d.joined_rows(np.ones(2)).tolist() == [1, 1]
    assert d.budget_per_rank(7) == 7 and d.agreed(lambda: 4) == 4
assert not [name for name in sys.modules if name.startswith("torch")]
"""
    clean = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    subprocess.run([sys.executable, "-c", program], check=True, env=clean)


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "²", "99999"])
def test_ranks_are_a_number_or_auto(text: str) -> None:
    with pytest.raises(UsageError, match="write a number from 1, or auto"):
        launch.ranks_asked(text)


def test_an_incomplete_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in distributed.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="WORLD_SIZE is 2, and RANK, MASTER_ADDR, MASTER_PORT is not set"):
        distributed._join(2)
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE is 'two', which is not a number"), distributed.joined():
        pass


def test_ranks_within_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="leave it out under torchrun"):
        launch.started("2", [])
    monkeypatch.setenv(peers.LAUNCHED, "/dev/null")
    assert launch.started("2", []) is None


# commands


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of 41 rows, and one with a bad value in its last row."""
    folder, draw = tmp_path_factory.mktemp("ranks"), np.random.default_rng(0)
    for name in "ab":
        np.savez(folder / f"{name}.npz", x=draw.normal(size=(41, 6)), y=draw.normal(size=(41, 5)))
    bad = draw.normal(size=(41, 6))
    bad[-1, 0] = np.nan
    np.savez(folder / "bad.npz", x=bad)
    return [folder / f"{name}.npz" for name in ("a", "b", "bad")]


def test_rank_0_speaks_for_all(stores: list[Path], tmp_path: Path) -> None:
    alone = program("baseline", *stores[:2], "--measure", "cka")
    done = run(2, "baseline", *stores[:2], "--measure", "cka", "-o", tmp_path / "out.tsv")
    assert [one.code for one in done] == [0, 0]
    assert done[1].stdout == done[1].stderr == ""
    assert done[0].stderr == alone.stderr
    numbers = [
        [float(line.split("\t")[-1]) for line in text.splitlines()[1:]] for text in (alone.stdout, done[0].stdout)
    ]
    np.testing.assert_allclose(numbers[1], numbers[0], rtol=1e-6)
    assert (tmp_path / "out.tsv").read_text() == done[0].stdout


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["srun", "own"])
def test_an_error_keeps_its_line_and_code(stores: list[Path], tmp_path: Path, launcher: str) -> None:
    there = tmp_path / "out.tsv"
    there.write_text("kept")
    for arguments, code, words in (
        (["baseline", stores[0], stores[2], "--layers", "x"], 3, "holds nan"),
        (["baseline", *stores[:2], "-o", there], 5, "exists"),
        (["baseline", *stores[:2], "--measure", "ckaa"], 2, "did you mean"),
    ):
        if launcher == "srun":
            done = run(2, *arguments)
            assert [one.code for one in done] == [code, code]
            assert done[1].stderr == done[1].stdout == done[0].stdout == ""
            told = done[0].stderr
        else:
            finished = program(*arguments, "--ranks", 2)
            assert (finished.code, finished.stdout) == (code, "")
            told = finished.stderr
        errors = [line for line in told.splitlines() if "error" in line]
        assert len(errors) == 1, told
        assert words in errors[0]
    assert there.read_text() == "kept"


@pytest.mark.slow
def test_ranks_of_this_machine(stores: list[Path]) -> None:
    alone, both = program("baseline", *stores[:2]), program("baseline", *stores[:2], "--ranks", 2)
    assert (both.code, both.stdout.count("\n")) == (0, alone.stdout.count("\n"))
    assert both.stderr == alone.stderr


def test_ranks_with_different_options_are_refused(stores: list[Path], tmp_path: Path) -> None:
    there = tmp_path / "out.tsv"
    there.write_text("kept")
    arguments = ["baseline", *stores[:2], "-o", there, "--force", "--memory"]
    port = str(free_port())
    ranks = [start(2, *arguments, size, only=[rank], port=port) for rank, size in enumerate(("64M", "128M"))]
    done = finish([process for (process,) in ranks])
    assert [one.code for one in done] == [2, 2]
    assert done[1].stderr == ""
    assert done[0].stderr.splitlines() == [
        "contrasim: error: rank 1 was started with '128M' where rank 0 has '64M'; give all ranks the same options"
    ]
    assert there.read_text() == "kept"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["extract", "inspect"])
def test_what_is_not_shared_is_refused(stores: list[Path], tmp_path: Path, command: str) -> None:
    arguments = {
        "extract": ["--from", stores[0], "-o", tmp_path / "x.h5"],
        "inspect": [stores[0]],
    }
    done = run(2, command, *arguments[command])
    assert [one.code for one in done] == [2, 2]
    said = {"extract": "give --parts N", "inspect": "contrasim inspect does not share its work among processes"}
    assert said[command] in done[0].stderr
    assert not list(tmp_path.iterdir())
