"""Measures examined on given rows: claims are held to, and broken measures are caught."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from helpers import run
from libraries import tensor
from test_cli import imported

from contrasim_cli.arrays import Tensor
from contrasim_cli.benchmarks import sanity
from contrasim_cli.measures import INVARIANCES, MEASURES, Options
from contrasim_cli.measures.load import similarity
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.report.results import SanityRow
from contrasim_cli.scoring import Scorer, closed_form, learned
from contrasim_cli.store import Store, open_store
from contrasim_cli.transforms import Standardization

CPU = torch.device("cpu")


def norm(matrix: Tensor) -> Tensor:
    """‖M‖_F."""
    return matrix.square().sum().sqrt()


COLUMNS = ["measure", "layer", "check", "level", "expected", "before", "score", "verdict"]


def rows_of(n: int = 120, width: int = 9, seed: int = 0) -> Any:
    """Anisotropic rows: neurons of unlike scale that share directions, about a common mean."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)) @ rng.normal(size=(6, width)) + 0.3 * rng.normal(size=(n, width)) + 0.5


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(made.store(tmp_path / "a.h5", {"l": rows_of()}))


def examined(store: Store, scorers: list[Scorer], x: Any = None, seed: int = 0) -> dict[str, dict[Any, SanityRow]]:
    rows = sanity.examine({"l": rows_of() if x is None else x}, store, scorers, device=CPU, seed=seed)
    found: dict[str, dict[Any, SanityRow]] = {}
    for row in rows:
        found.setdefault(row.measure, {})[row.check if row.level is None else (row.check, row.level)] = row
    return found


def failed(checks: dict[Any, SanityRow]) -> list[Any]:
    return [check for check, row in checks.items() if row.verdict == "fails"]


def broken(name: str, compare: Callable[[Any, Any], Any], **entry: Any) -> Scorer:
    """A measure that is registered as another one."""
    return Scorer(name, replace(MEASURES["cka"], **entry), Measure(lambda x: x, compare))


@pytest.mark.parametrize("seed", [0, 1])
def test_every_measure_keeps_what_the_registry_claims(store: Store, seed: int) -> None:
    found = examined(store, closed_form(list(MEASURES), Options(k=5, topology_trials=2)), rows_of(seed=seed), seed)
    assert list(found) == list(MEASURES)
    for name, checks in found.items():
        assert not set(failed(checks)) & {*INVARIANCES, "neuron-scale", "outlier"}, name
        for check in INVARIANCES:
            claimed = check in MEASURES[name].invariances
            assert (checks[check].expected, checks[check].verdict) == (
                ("unchanged", "ok") if claimed else ("may change", "")
            )
        assert checks["shuffle"].verdict == "ok"
        assert checks["shuffle"].expected == ("unchanged" if MEASURES[name].family == "statistics" else "chance")


def test_measures_of_the_paper_fall_with_noise_but_for_dot(store: Store) -> None:
    found = examined(store, closed_form(["cka", "cca", "svcca", "pwcca", "norm", "procrustes", "dot"]))
    noise = [("noise", level) for level in sanity.NOISE]
    assert [
        check for check in failed(found.pop("dot")) if check in noise
    ] == noise  # the mean dot product of rows and noise is 0
    for checks in found.values():
        assert not set(failed(checks)) & set(noise)


def test_scores_are_those_of_the_changed_rows(store: Store) -> None:
    x = rows_of()
    changes = sanity.Changes(x, 0)
    found = examined(store, closed_form(["cka", "linear_regression"]), x)
    for name, checks in found.items():
        before = similarity(name, x, changes.y)
        assert [checks[check].before for check in INVARIANCES] == [pytest.approx(before)] * len(INVARIANCES)
        either = [similarity(name, x @ changes.linear, changes.y), similarity(name, x, changes.y @ changes.linear)]
        assert checks["linear"].score == pytest.approx(max(either, key=lambda score: abs(score - before)))
        shuffled = [similarity(name, x, changes.y[order]) for order in changes.shuffles]
        assert checks["shuffle"].score == pytest.approx(max(shuffled))
        noisy = [similarity(name, x, x + sign * 2 * x.std(axis=0) * changes.noise) for sign in (1, -1)]
        assert checks["noise", 2.0].score == pytest.approx(np.mean(noisy))
        half = similarity(name, x, x[:, np.sort(changes.order[:4])])  # 4.5 of 9 are 4, to even
        assert checks["width", 0.5].score == pytest.approx(half)
        assert checks["width", 0.5].before == pytest.approx(1)
        assert checks["width", 0.25].before == pytest.approx(half)


def test_changes_are_what_they_are_called() -> None:
    x = rows_of()
    changes = sanity.Changes(x, 0)
    np.testing.assert_allclose(changes.rotation @ changes.rotation.T, np.eye(9), atol=1e-12)
    assert 1.5 < np.linalg.cond(changes.linear) <= 4
    assert np.abs(changes.linear @ changes.linear.T - np.eye(9)).max() > 0.1
    np.testing.assert_allclose((changes.noisy(2.0) - x).std(axis=0) / x.std(axis=0), 2, rtol=0.3)
    assert (changes.with_outlier(x) != x).any(axis=0).sum() == 1
    assert changes.with_outlier(x).var(axis=0).max() > 50 * x.var(axis=0).sum()
    kept = sanity.Changes(x, 0, keep_width=True).narrowed(0.5)
    assert (kept.shape, (kept != 0).any(axis=0).sum()) == ((120, 9), 4)


@pytest.mark.parametrize("kind", ["center", "zscore", "whiten"])
def test_claims_are_those_that_survive_standardisation(store: Store, kind: str) -> None:
    names = [
        "cka",
        "cca",
        "cosine",
        "dot",
        "norm",
        "procrustes",
        "hard_match",
        "mutual_knn",
        "magnitude_difference",
        "rsa",
    ]
    found = examined(store, closed_form(names, Options(k=5), Standardization(kind)))
    for name, checks in found.items():
        assert not set(failed(checks)) & {*INVARIANCES, "neuron-scale"}, name
        assert checks["offset"].expected == "unchanged"
    assert found["cka"]["rotation"].expected == ("may change" if kind == "zscore" else "unchanged")
    if kind == "zscore":
        assert found["cka"]["rotation"].score != pytest.approx(found["cka"]["rotation"].before, rel=1e-4)
        assert found["dot"]["neuron-scale"].verdict == "ok"


@pytest.mark.parametrize(("size", "offset"), [(1.0, 0.0), (1e8, 0.0), (1e-4, 0.0), (1.0, 1e4)])
def test_broken_measures_are_caught(store: Store, size: float, offset: float) -> None:
    scorers = [
        broken("constant", lambda a, b: tensor(0.7)),
        broken("of the axes", lambda a, b: (a[:, 0] - a[:, 0].mean()) @ (b[:, 0] - b[:, 0].mean())),
        broken("not centred", lambda a, b: ((a.T @ b) ** 2).sum() / norm(a.T @ a) / norm(b.T @ b)),
        broken("turned", lambda a, b: norm(a @ a.T - b @ b.T)),
        broken("blind to rows", lambda a, b: -(a.var(0).sum() - b.var(0).sum()).abs()),
        broken("one-sided", lambda a, b: (a * a).sum() + 0 * b.sum()),
    ]
    x = size * (rows_of() + offset)
    found = {name: set(failed(checks)) for name, checks in examined(store, scorers, x).items()}
    noise = {("noise", level) for level in sanity.NOISE}
    assert found["constant"] == {*noise, "shuffle"}
    assert {"scale", "rotation", "both-rotation"} <= found["of the axes"]
    assert ("offset" in found["not centred"]) == (
        offset == 0
    )  # where a common mean outweighs all, one more row does not
    assert noise <= found["turned"]
    assert "shuffle" in found["blind to rows"]
    assert {*noise, "shuffle", "symmetric"} <= found["one-sided"]


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_values_whose_squares_leave_float64_are_examined_where_measures_take_them(store: Store, size: float) -> None:
    found = examined(store, closed_form(["cosine", "cka", "rank_similarity"], Options(k=5)), size * rows_of())
    assert [row.verdict for row in found["cosine"].values() if row.verdict] == ["ok"] * 14
    plain = examined(store, closed_form(["cosine"]))["cosine"]
    assert [row.score for row in found["cosine"].values()] == pytest.approx([row.score for row in plain.values()])


def test_an_undefined_score_has_no_verdict(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    nothing = broken("nothing", lambda a, b: tensor(np.nan))
    assert {(row.score, row.verdict) for row in examined(store, [nothing])["nothing"].values()} == {(None, "")}
    assert "nothing is undefined (a side has no variance) in layer l under scale, " in caplog.text
    constant = examined(store, closed_form(["cka"]), np.ones((20, 3)))["cka"]
    assert {row.score for row in constant.values()} == {None}


def test_canonical_correlations_of_few_rows_fail_where_rows_are_shuffled(store: Store) -> None:
    found = examined(store, closed_form(["cca", "cka"]), rows_of(20, 30))
    assert "shuffle" in failed(found["cca"])
    assert "shuffle" not in failed(found["cka"])


def test_cka_of_noise_with_few_rows_fails_where_rows_are_shuffled(store: Store) -> None:
    noise = np.random.default_rng(0).normal(size=(32, 512))
    found = examined(store, closed_form(["cka", "cka_debiased"]), noise)
    shuffle, before = found["cka"]["shuffle"], found["cka"]["shuffle"].before
    assert shuffle.expected == "chance"
    assert shuffle.score is not None
    assert before is not None
    assert 0.9 < shuffle.score < before - 0.03  # it falls, and is not at chance
    assert shuffle.verdict == "fails"
    assert found["cka_debiased"]["shuffle"].verdict == "ok"


# the command


def table(text: str) -> list[dict[str, str]]:
    header, *lines = [line.split("\t") for line in text.splitlines()]
    assert header == COLUMNS
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_the_paper_s_measures_on_the_last_layer_by_default(tmp_path: Path) -> None:
    path = made.store(tmp_path / "a.h5", {"first": rows_of(), "last": rows_of(seed=1)})
    done = run("bench", "sanity", path)
    assert (done.code, done.stderr) == (0, "")
    rows = table(done.stdout)
    assert list(dict.fromkeys(r["measure"] for r in rows)) == ["cka", "cca", "svcca", "pwcca", "dot", "norm"]
    assert {r["layer"] for r in rows} == {"last"}
    assert len(rows) == 6 * (len(INVARIANCES) + 2 + len(sanity.NOISE) + 1 + len(sanity.WIDTHS))
    assert run("bench", "sanity", path).stdout == done.stdout
    both = table(run("bench", "sanity", path, "--layers", "*", "--measure", "cka", "--seed", "1").stdout)
    assert list(dict.fromkeys(r["layer"] for r in both)) == ["first", "last"]
    shown = run("bench", "sanity", path, "--measure", "cka", "--measure", "dot", "--format", "table").stdout
    assert "sanity on last: ✓ as claimed or expected" in shown
    assert " = ✓ " in shown
    assert " ✗ " in shown


@pytest.mark.torch_only
def test_an_encoder_is_examined_with_all_that_comes_before_it(tmp_path: Path) -> None:
    path = made.store(tmp_path / "a.h5", {"l": rows_of()})
    encoder = made.encoder_file(tmp_path / "enc.pt", widths=(9,), standardize="zscore")
    rows = {(r["check"], r["level"]): r for r in table(run("bench", "sanity", path, "--encoder", encoder).stdout)}
    assert {r["measure"] for r in rows.values()} == {"enc.pt"}
    assert rows["symmetric", ""]["verdict"] == "ok"
    assert rows["rotation", ""]["expected"] == "may change"
    assert rows["noise", "5.0"]["verdict"] == "ok"
    (scorer,) = learned([encoder])
    x = rows_of()
    zscored = (x - x.mean(axis=0)) / x.std(axis=0)
    changes = sanity.Changes(x, 0)
    z = [scorer.checkpoint.encode(zscored, 0, "l", CPU)]
    z.append(scorer.checkpoint.encode((changes.y - changes.y.mean(axis=0)) / changes.y.std(axis=0), 0, "l", CPU))
    assert float(rows["symmetric", ""]["before"]) == pytest.approx(float((z[0] * z[1]).sum(dim=1).mean()), abs=1e-6)
    wrong = run("bench", "sanity", path, "--encoder", made.encoder_file(tmp_path / "b.pt", widths=(4,)))
    assert (wrong.code, wrong.stdout) == (4, "")
    assert "layer l has width 9; the encoder" in wrong.stderr


def test_many_rows_are_a_subset_that_is_told(tmp_path: Path) -> None:
    path = made.store(tmp_path / "a.h5", {"l": rows_of()})
    done = run("bench", "sanity", path, "--max-rows", "50", "--measure", "cka", "--format", "json")
    assert done.code == 0
    assert done.stderr == "contrasim: note: --max-rows: 50 of 120 rows, in blocks chosen at random (--seed 0)\n"
    assert '"sampled_rows": 50' in done.stdout
    assert '"level": null' in done.stdout


def test_what_cannot_be_examined(tmp_path: Path) -> None:
    path = made.store(tmp_path / "a.h5", {"l": rows_of()})
    bad = rows_of()
    bad[3, 2] = np.nan
    hurt = made.store(tmp_path / "b.h5", {"l": bad})
    few = made.store(tmp_path / "c.h5", {"l": rows_of(3)})
    for args, code, words in [
        ([path, "--measure", "ckaa"], 2, "--measure ckaa is unknown"),
        ([path, path], 2, "unexpected extra argument"),
        ([path, "--format", "value"], 2, "--format value prints one score"),
        ([path, "--layers", "z"], 2, "matches no layer"),
        ([hurt], 3, "layer l: row 3 (id r3) holds nan in column 2"),
        ([few], 3, "has 3 rows; bench sanity takes 4 or more"),
        ([path, "--memory", "64K"], 3, "bench sanity on 120 rows takes 0.1 MiB, --memory allows 0.1; raise it"),
        ([tmp_path / "none.h5"], 3, "cannot be read"),
        ([path, "-o", path], 2, "is an input of this run"),
    ]:
        done = run("bench", "sanity", *args)
        assert (done.code, done.stdout, done.stderr.count("\n")) == (code, "", 1), args
        assert words in done.stderr
    assert run("bench", "sanity", hurt, "--nan", "drop", "--measure", "cka").code == 0


def test_the_pairs_that_are_compared_are_counted() -> None:
    assert len(list(sanity.Changes(rows_of(), 0).probes())) == sanity.COMPARED


def test_help_and_usage_errors_are_light() -> None:
    assert imported(["bench", "sanity", "--help"]) == (0, set())
    assert imported(["bench", "sanity", "a.h5", "--measure", "x"]) == (2, set())
