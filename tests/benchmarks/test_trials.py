"""The file of trials: what is written is what is read, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest

from contrasim_cli.benchmarks.outcomes import Origin, Trials
from contrasim_cli.benchmarks.trials import Facts, SetFacts, read_trials, write_trials
from contrasim_cli.errors import InputError, OutputExistsError
from contrasim_cli.scoring import Scorer, closed_form, learned_scorer

SETS = [SetFacts("ptb", 40, "digest", ["en", "ar"]), SetFacts("wiki", 30, "other", ["en", "ar"])]
FACTS = Facts("multilingual", SETS, batch_size=8, seed=3, candidates="pool")


def trials(scorer: Scorer | None = None, **options: Any) -> Trials:
    rng = np.random.default_rng(0)
    outcomes = (rng.random((2, 3, 4)) < 0.5).astype(float)
    outcomes[1, 2, 3] = np.nan
    ranks = np.where(np.isnan(outcomes), np.nan, np.where(outcomes == 1, 1, 1 / rng.integers(2, 12, outcomes.shape)))
    margins = np.where(np.isnan(outcomes), np.nan, rng.normal(size=outcomes.shape) * 1e3)
    pairs, layers = ["en-ar", "ar-en"], ["l0", "l1", "ébène"]
    return Trials(
        scorer or closed_form(["cka"])[0], "random", pairs, layers, outcomes, ranks, margins, 1 / 11, **options
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    origin = Origin("contrasim", "wiki", "en-ar, seed 3", "ptb", "seen")
    encoder = learned_scorer("e", made.checkpoint(seed=3, stores=("en", "ar"), widths=(7,)))
    both = [trials(), trials(encoder, origin=origin)]
    write_trials(path, FACTS, both, force=False)
    found = read_trials(path)
    assert found.facts == FACTS
    first, second = found.measures
    assert (first.measure, first.training, first.pairs, first.layers) == ("cka", "", ["en-ar", "ar-en"], both[0].layers)
    assert (second.measure, second.train_data, second.encoder) == ("contrasim", "wiki", "en-ar, seed 3")
    assert (second.test_data, second.models, second.negatives) == ("ptb", "seen", "random")
    for one, whole in zip(found.measures, both, strict=True):
        np.testing.assert_array_equal(one.outcomes, whole.outcomes)
        np.testing.assert_allclose(one.ranks, 1 / whole.reciprocal_ranks)
        np.testing.assert_allclose(one.margins, whole.margins, rtol=1e-3)


def test_the_only_data_set_needs_no_name(tmp_path: Path) -> None:
    """Whatever it is called, trials of the same rows can be compared."""
    alone = Facts("layers", [SetFacts("", 40, "digest", ["en", "ar"])])
    write_trials(tmp_path / "t.json", alone, [trials(origin=Origin(test="ptb"))], force=False)
    assert read_trials(tmp_path / "t.json").measures[0].test_data == ""


def test_encoders_that_differ_in_their_seed_alone_were_trained_alike(tmp_path: Path) -> None:
    made_by = [{"seed": 0}, {"seed": 1}, {"seed": 0, "objective": "deepcka"}, {"seed": 0, "stores": ("zh", "ru")}]
    scorers = [
        learned_scorer("e", made.checkpoint(**{"stores": ("en", "ar"), "widths": (7,)} | one)) for one in made_by
    ]
    write_trials(tmp_path / "t.json", FACTS, [trials(scorer) for scorer in scorers], force=False)
    found = [one.training for one in read_trials(tmp_path / "t.json").measures]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_the_file_is_small_and_the_same_every_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.random((20, 12, 100))
    many = Trials(closed_form(["cka"])[0], "random", [f"p{k}" for k in range(20)], [f"l{k}" for k in range(12)],
                  np.ones_like(values), np.ones_like(values), values, 1 / 11)  # fmt: skip
    for name in ("a.json", "b.json"):
        write_trials(tmp_path / name, FACTS, [many], force=False)
    content = (tmp_path / "a.json").read_bytes()
    assert content == (tmp_path / "b.json").read_bytes()
    assert len(content) < 11 * values.size
    json.loads(content)


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_trials(path, FACTS, [trials()], force=False)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        write_trials(path, FACTS, [], force=False)
    assert path.read_bytes() == before
    write_trials(path, FACTS, [], force=True)
    assert read_trials(path).measures == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a file of trials; contrasim bench --trials writes one"),
        ("[]", "is not a file of trials"),
        ('{"format": "contrasim-trials", "format_version": 2}', "format_version is 2, this contrasim reads 1"),
        ('{"format": "contrasim-trials", "format_version": 1}', "the trials are damaged"),
        (None, "cannot be read: No such file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "t.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_trials(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda one: one.pop("ranks"),
        lambda one: one["outcomes"][0].pop(),
        lambda one: one["outcomes"][0].__setitem__(0, "11x1"),
        lambda one: one["margins"].pop(),
        lambda one: one["pairs"].pop(),
        lambda one: one["outcomes"].clear(),
        lambda one: one.__setitem__("layers", None),
    ],
)
def test_damaged_trials_are_refused(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "t.json"
    write_trials(path, FACTS, [trials()], force=False)
    content = json.loads(path.read_text())
    damage(content["measures"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="the trials are damaged; write them again"):
        read_trials(path)
