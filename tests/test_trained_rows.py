"""Which rows an encoder was trained on: hashes of ids, rows that are held out, and what commands make of both."""

from dataclasses import replace
from pathlib import Path

import made
import numpy as np
import pytest
from helpers import run
from stores import write

from contrasim_cli import encoder, trained_rows
from contrasim_cli.errors import InputError, MismatchError
from contrasim_cli.store import View
from contrasim_cli.trained_rows import TrainedIds

ROWS = 60


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    layers = made.related(2, 1, ROWS, (6,))
    return [made.store(tmp_path / f"{name}.h5", x) for name, x in zip(("en", "ar"), layers, strict=True)]


def a_view(folder: Path, rows: int, first: int = 0) -> View:
    folder.mkdir(exist_ok=True)
    return made.view(folder / f"{first}.h5", {"l": np.ones((rows, 2))}, [f"id {first + k}" for k in range(rows)])


def ids_of(views: list[View]) -> TrainedIds:
    found = TrainedIds.of(trained_rows.noted(views))
    assert found is not None
    return found


def test_rows_are_known_by_their_ids_wherever_they_stand(tmp_path: Path) -> None:
    trained = ids_of([a_view(tmp_path, 10)])
    seen = trained.seen(a_view(tmp_path, 10, first=7))
    assert seen is not None
    assert seen[0].tolist() == [True] * 3 + [False] * 7
    assert seen[1].all()


def test_many_rows_are_known_in_part_and_without_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_rows, "KEPT", 20)
    trained = ids_of([a_view(tmp_path, 100)])
    seen = trained.seen(a_view(tmp_path, 200))
    assert seen is not None
    is_seen, known = seen
    assert is_seen[:100].sum() == 20
    assert not is_seen[100:].any()
    assert (is_seen[:100] == known[:100]).all()
    assert 0 < known[100:].sum() < 100
    unseen = trained_rows.unseen_rows([a_view(tmp_path, 200)], [trained])
    assert unseen is not None
    assert not unseen[:100].any()
    assert unseen.sum() == known[100:].sum()


def test_automatic_ids_of_two_sources_are_of_different_rows(tmp_path: Path) -> None:
    view = a_view(tmp_path, 5)
    assert view.store.ids is not None
    one, other = (
        View(replace(view.store, ids=replace(view.store.ids, automatic=True, source=source))) for source in ("s", "t")
    )
    for tested, expected in ((one, 5), (other, 0)):
        seen = ids_of([one]).seen(tested)
        assert seen is not None
        assert seen[0].sum() == expected


def test_rows_without_ids_are_not_known(tmp_path: Path) -> None:
    view = a_view(tmp_path, 5)
    bare = View(replace(view.store, ids=None))
    assert trained_rows.noted([bare]) == {}
    assert TrainedIds.of({}) is None
    assert ids_of([view]).seen(bare) is None
    assert trained_rows.unseen_rows([bare], [ids_of([view])]) is None
    with pytest.raises(MismatchError, match="--holdout needs ids"):
        trained_rows.hold_out([bare], 0.2, 0)


def test_held_out_rows_are_a_seeded_part(tmp_path: Path) -> None:
    views = [a_view(tmp_path, 50)] * 2
    first, second = trained_rows.hold_out(views, 0.2, 0)
    assert first.n_rows == 40
    assert first.rows is not None
    assert second.rows is not None
    assert first.rows.tolist() == second.rows.tolist() == sorted(set(first.rows.tolist()))
    other = trained_rows.hold_out(views, 0.2, 1)[0].rows
    assert other is not None
    assert first.rows.tolist() != other.tolist()
    with pytest.raises(InputError, match=r"--holdout 0.01 of 50 rows leaves fewer than two on a side"):
        trained_rows.hold_out(views, 0.01, 0)


def test_one_pair_is_tested_on_the_rows_that_were_left_out(stores: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "e.pt"
    options = ("--task", "pairs", "--epochs", 1, "-o", path)
    assert run("train", *stores, *options, "--holdout", 0.4, "-q").code == 0
    kept = TrainedIds.of(encoder.load(path).provenance)
    assert kept is not None
    assert len(kept.hashes) == 36
    for more in ([], ["--holdout"]):
        done = run("bench", "multilingual", *stores, "--encoder", path, *more)
        assert done.code == 0, done.stderr
        assert (
            f"contrasim: note: {stores[0]}: tested on the 24 of 60 rows that no encoder was trained on"
            in done.stderr.splitlines()
        )
    other = run("bench", "multilingual", *stores, "--measure", "cka", "--encoder", path, "--holdout", "--seed", "1")
    assert other.stdout.splitlines()[-1].split("\t")[10] == str(2 * 3)  # both directions, 24 rows in batches of 8
    assert "6 trials: each is worth 16.7 points of accuracy" in other.stderr


def test_what_was_trained_on_is_said_and_the_message_names_the_way(stores: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "e.pt"
    assert run("train", *stores, "--task", "pairs", "--epochs", 1, "-o", path, "-q").code == 0
    scored = run("score", *stores, "--encoder", path)
    assert "contrasim: note: e.pt: was trained on 60 of these 60 rows; " in scored.stderr
    refused = run("bench", "multilingual", *stores, "--encoder", path)
    assert refused.code == 2
    assert refused.stderr.splitlines()[-1].endswith("or an encoder made with train --holdout 0.2")
    none = run("bench", "multilingual", *stores, "--encoder", path, "--holdout")
    assert none.code == 4
    assert (
        "the encoders were trained on all 60 rows; train with --holdout 0.2, or give stores of other rows"
        in none.stderr
    )
    assert run("bench", "multilingual", *stores, "--measure", "cka", "--holdout").code == 2


def test_a_store_given_twice_and_very_few_rows_are_said(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    path = made.store(tmp_path / "a.h5", {"l": x})
    done = run("baseline", path, path, "--measure", "procrustes")
    assert done.stderr.splitlines() == [
        f"contrasim: note: {path}: is given twice, so that layers are compared with themselves",
        "contrasim: warning: 4 rows: too few to distinguish any score from that of unrelated rows; give at least 5",
    ]


@pytest.mark.parametrize("same", [True, False])
def test_a_second_store_of_the_same_values_is_said(same: bool, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(9, 3))
    first, second = tmp_path / "a.h5", tmp_path / "b.h5"
    write(first, {"l": x})
    write(second, {"l": x + (0 if same else 1)})
    done = run("baseline", first, second, "--measure", "procrustes")
    said = [f"contrasim: note: {second}: has the content of {first}, so that layers are compared with themselves"]
    assert [line for line in done.stderr.splitlines() if "has the content" in line] == said * same


@pytest.mark.parametrize("inputs", ["raw", "measures"])
def test_stores_without_ids_are_known_by_their_content(tmp_path: Path, inputs: str) -> None:
    views = made.related(2, 3, ROWS, (6,))
    stores, others, odd = ([tmp_path / kind / f"{name}.npz" for name in "ab"] for kind in ("own", "other", "odd"))
    for path, x in zip([*stores, *others, *odd], [*views, *views, *views], strict=True):
        path.parent.mkdir(exist_ok=True)
        values = {name: rows.copy() for name, rows in x.items()}
        for rows in values.values() if path in others else ():
            rows[-1, -1] += 1
        np.savez(path, **{name.replace("layer", "odd") if path in odd else name: rows for name, rows in values.items()})
    encoder_file = tmp_path / "e.pt"
    task = ["--task", "layers"] if inputs == "measures" else ["--task", "pairs"]
    done = run("train", *stores, *task, "--inputs", inputs, "--epochs", 1, "-o", encoder_file, "-q")
    assert done.code == 0, done.stderr
    said = "e.pt: was trained on 60 of these 60 rows"
    assert said in run("score", *stores, "--encoder", encoder_file).stderr
    assert said in run("score", stores[0], others[1], "--encoder", encoder_file).stderr  # one of them
    for strangers in (others, odd):
        scored = run("score", *strangers, "--encoder", encoder_file)
        assert said not in scored.stderr
        assert scored.code == 0 or inputs == "raw", scored.stderr
