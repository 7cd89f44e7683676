"""`--standardize` on every command: what comes out is what comes of stores whose rows were standardised beforehand."""

import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from helpers import run

from contrasim_cli import encoder as encoders
from contrasim_cli.rows.exact_search import Pool, nearest_candidates
from contrasim_cli.transforms import Standardization, Standardizer

HOWS = ["center", "zscore", "whiten"]
ROWS = 60


@pytest.fixture
def layers() -> list[dict[str, Any]]:
    """Three stores of anisotropic rows, float64."""
    found = made.related(3, 2, ROWS, (6,))
    scale = np.array([30, 1, 0.2, 1, 1, 5])
    return [{name: matrix.astype(np.float64) * scale + 7 for name, matrix in one.items()} for one in found]


def write(folder: Path, layers: list[dict[str, Any]]) -> list[Path]:
    folder.mkdir()
    return [made.store(folder / f"{name}.h5", one) for name, one in zip("abc", layers, strict=False)]


@pytest.fixture
def stores(tmp_path: Path, layers: list[dict[str, Any]]) -> list[Path]:
    return write(tmp_path / "raw", layers)


def beforehand(folder: Path, layers: list[dict[str, Any]], how: Standardization) -> list[Path]:
    """Stores of the rows standardised, each layer by its own statistics."""
    folder.mkdir()
    views = [made.view(folder / f"raw_{k}.h5", one) for k, one in enumerate(layers)]
    names = [list(one) for one in layers]
    standard = Standardizer(views).views(how, names, 1 << 40)
    return write(folder / "standard", [{n: v.read(n) for n in some} for v, some in zip(standard, names, strict=True)])


def numbers(text: str) -> list[list[str | float]]:
    """The cells of a TSV, numbers as such."""

    def cell(value: str) -> str | float:
        try:
            return float(value)
        except ValueError:
            return value

    return [[cell(value) for value in line.split("\t")] for line in text.splitlines()]


def assert_same(one: str, other: str) -> None:
    a, b = numbers(one), numbers(other)
    assert len(a) == len(b) > 1
    for first, second in zip(a, b, strict=True):
        for x, y in zip(first, second, strict=True):
            assert x == (y if isinstance(y, str) else pytest.approx(y, rel=1e-6, abs=1e-9))


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_baseline_with_intervals_and_shuffles(
    stores: list[Path], layers: list[dict[str, Any]], tmp_path: Path, how: str
) -> None:
    measures = ["all"] if how == "whiten" else ["cosine", "norm", "mutual_knn", "cka", "pwcca"]
    options = [option for name in measures for option in ("--measure", name)]
    options += ["--bootstrap", "3", "--permutations", "3", "--confidence-rows", "40", "-q"]
    standard = beforehand(tmp_path / how, layers, Standardization(how))
    raw = run("baseline", *stores, *options, "--layers", "0", "--standardize", how)
    assert (raw.code, raw.stderr) == (0, "")
    assert_same(raw.stdout, run("baseline", *standard, *options, "--layers", "0").stdout)
    assert raw.stdout != run("baseline", *stores, *options, "--layers", "0").stdout
    streamed = run(
        "baseline", *stores, "-q", "--measure", "cosine", "--measure", "cca", "--standardize", how, "--memory", "9K"
    )
    assert_same(streamed.stdout, run("baseline", *standard, "-q", "--measure", "cosine", "--measure", "cca").stdout)


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_score_standardises_as_the_encoder_was_trained(
    stores: list[Path], layers: list[dict[str, Any]], tmp_path: Path, how: str
) -> None:
    standard = beforehand(tmp_path / how, layers, Standardization(how, 0.2))
    ours = made.encoder_file(tmp_path / "e.pt", widths=(6,), standardize=how, shrinkage=0.2)
    (tmp_path / "plain").mkdir()
    plain = made.encoder_file(tmp_path / "plain" / "e.pt", widths=(6,))
    options = ["--bootstrap", "4", "--permutations", "3", "-q"]
    raw = run("score", *stores, "--encoder", ours, *options)
    assert (raw.code, raw.stderr) == (0, "")
    assert_same(raw.stdout, run("score", *standard, "--encoder", plain, *options).stdout)
    more = ["--shrinkage", "0.2"] if how == "whiten" else []
    assert raw.stdout == run("score", *stores, "--encoder", plain, "--standardize", how, *more, *options).stdout
    untouched = run("score", *stores, "--encoder", ours, "--standardize", "none", *options).stdout
    assert untouched == run("score", *stores, "--encoder", plain, *options).stdout != raw.stdout


def test_encoders_that_were_trained_differently_are_scored_together(stores: list[Path], tmp_path: Path) -> None:
    paths = [
        made.encoder_file(tmp_path / f"{how}.pt", widths=(6,), standardize=how, seed=3) for how in ("zscore", "none")
    ]
    alone = [run("score", *stores, "--encoder", path, "--bootstrap", "3", "-q").stdout.splitlines() for path in paths]
    done = run("score", *stores, "--encoder", paths[0], "--encoder", paths[1], "--bootstrap", "3", "-q")
    together = done.stdout.splitlines()
    assert sorted(together[1:]) == sorted(alone[0][1:] + alone[1][1:])
    assert [line.split("\t")[0] for line in together[1:9]] == ["zscore.pt"] * 4 + ["none.pt"] * 4
    content = json.loads(
        run(
            "score", *stores, "--encoder", paths[0], "--encoder", paths[1], "--format", "json", "--bootstrap", "3"
        ).stdout
    )
    assert content["standardize"] == {"zscore.pt": {"kind": "zscore"}, "none.pt": {"kind": "none"}}
    assert set(content["confidence_rows"]["bootstrap"]) == {"zscore.pt", "none.pt"}


def test_rows_that_are_dropped_count_for_nothing(layers: list[dict[str, Any]], tmp_path: Path) -> None:
    standard = beforehand(
        tmp_path / "kept", [{n: m[5:] for n, m in one.items()} for one in layers], Standardization("whiten")
    )
    for k, one in enumerate(layers):
        one["layer_0"][k, 2] = np.nan
        one["layer_1"][k + 2, 1] = np.inf
    stores = write(tmp_path / "bad", layers)
    done = run("baseline", *stores, "--measure", "cosine", "--nan", "drop", "--standardize", "whiten", "-q")
    assert done.code == 0
    assert_same(done.stdout, run("baseline", *standard, "--measure", "cosine").stdout)


@pytest.mark.slow
def test_statistics_from_other_stores_in_the_order_of_the_stores(
    stores: list[Path], layers: list[dict[str, Any]], tmp_path: Path
) -> None:
    larger = [{n: np.tile(m, (4, 1)) for n, m in one.items()} for one in layers]
    larger[1]["layer_0"][0, 0] = np.nan
    sources = write(tmp_path / "larger", larger)
    few = [
        made.store(tmp_path / f"{p.stem}.h5", {n: m[:9] for n, m in x.items()})
        for p, x in zip(stores, layers, strict=True)
    ]
    standard = beforehand(tmp_path / "all", layers, Standardization("zscore"))
    expected = [
        made.store(tmp_path / "all" / f"{p.stem}.h5", {n: v.read(n)[:9] for n in ("layer_0", "layer_1")})
        for p, v in ((p, made.View(made.open_store(p))) for p in standard)
    ]
    options = ["--measure", "cosine", "--standardize", "zscore", "--layers", "1"]
    by = [option for source in sources for option in ("--standardize-from", source)]
    done = run("baseline", *few, *options, *by)
    assert (done.code, done.stderr) == (0, "")
    assert_same(done.stdout, run("baseline", *expected, "--measure", "cosine", "--layers", "1").stdout)
    done = run("baseline", *few, *options[:-1], "0", *by)
    assert done.code == 3
    assert done.stderr.startswith(f"contrasim: error: {sources[1]}: layer layer_0: row 0 (id r0) holds nan in column 0")
    assert run("baseline", *few, *options[:-1], "0", *by, "--nan", "drop").code == 0


def test_bench_layers(stores: list[Path], layers: list[dict[str, Any]], tmp_path: Path) -> None:
    standard = beforehand(tmp_path / "standard", layers, Standardization("whiten"))
    made.encoder_file(tmp_path / "e.pt", widths=(6,), standardize="whiten")
    (tmp_path / "plain").mkdir()
    made.encoder_file(tmp_path / "plain" / "e.pt", widths=(6,))
    options = ["--pairs", "all", "--measure", "cka", "--measure", "cosine", "-q"]
    done = run("bench", "layers", *stores, *options, "--standardize", "whiten", "--encoder", tmp_path / "e.pt")
    assert done.code == 0
    other = run("bench", "layers", *standard, *options, "--encoder", tmp_path / "plain" / "e.pt")
    own, others = (
        "".join(
            line for line in found.stdout.splitlines(keepends=True) if "\tuniversal\t" not in line
        )  # of rows as given
        for found in (done, other)
    )
    assert_same(own, others)


@pytest.mark.parametrize("how", ["zscore", "whiten"])
def test_bench_draws_neighbours_from_raw_rows_and_compares_standardised_ones(
    layers: list[dict[str, Any]], tmp_path: Path, how: str
) -> None:
    """Batches of two rows: the mean cosine of a batch with the right one, and with each of ten that follow the raw neighbours."""
    noise = np.random.default_rng(5)
    views = [layers[0], {n: m + noise.normal(size=m.shape) for n, m in layers[0].items()}]
    stores = write(tmp_path / "views", views)
    opened = [made.View(made.open_store(path)) for path in stores]
    names = [["layer_0", "layer_1"]] * 2
    standard = Standardizer(opened).views(Standardization(how), names, 1 << 40)
    right = []
    for name in names[0]:
        unit = [v.read(name) / np.linalg.norm(v.read(name), axis=1, keepdims=True) for v in standard]
        for i, j in ((0, 1), (1, 0)):
            near = nearest_candidates(Pool(opened[j], name), Pool(opened[j], name))
            cosines = (unit[i] * unit[j]).sum(1).reshape(-1, 2).mean(1)
            wrong = (unit[i][:, None] * unit[j][near]).sum(2).reshape(-1, 2, 10).mean(1)
            right.append((cosines[:, None] > wrong).all(1).mean())
    done = run(
        "bench", "multilingual", *stores, "--measure", "cosine", "--standardize", how, "--negatives", "faiss",
        "--batch-size", "2", "-q", "--format", "json",
    )  # fmt: skip
    rows = json.loads(done.stdout)["results"]
    found = {(r["layer"], r["pair"]): r["accuracy"] for r in rows}
    assert found["all", "all"] == pytest.approx(np.mean(right))
    for k, pair in enumerate(("a-b", "b-a")):
        assert found["all", pair] == pytest.approx(np.mean(right[k::2]))
    plain = run(
        "bench", "multilingual", *stores, "--measure", "cosine", "--negatives", "faiss", "--batch-size", "2", "-q"
    )
    assert "\tall\tall\t" in plain.stdout
    assert f"\t{found['all', 'all']}\t" not in plain.stdout


def test_train_records_how_and_by_which_stores(stores: list[Path], tmp_path: Path) -> None:
    options = [
        "--task",
        "pairs",
        "--hidden",
        "8",
        "--dim",
        "4",
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--recipe",
        "paper",
    ]
    for name, more in {
        "own": ["--standardize", "whiten", "--shrinkage", "0.3"],
        "other": ["--standardize", "whiten", "--standardize-from", stores[1], "--standardize-from", stores[2]],
        "none": [],
    }.items():
        assert run("train", *stores[:2], *options, "-q", *more, "-o", tmp_path / f"{name}.pt").code == 0
    own, other, none = (encoders.load(tmp_path / f"{name}.pt") for name in ("own", "other", "none"))
    assert [c.config.standardization for c in (own, other, none)] == [
        Standardization("whiten", 0.3), Standardization("whiten", 0.01), Standardization("none"),
    ]  # fmt: skip
    assert own.provenance["standardized_by"] == []
    assert other.provenance["standardized_by"] == [{"name": "b", "rows": ROWS}, {"name": "c", "rows": ROWS}]
    assert own.provenance["stores"] == none.provenance["stores"]  # the content is that of the stores


def test_an_encoder_of_standardised_rows_is_that_of_stores_standardised_beforehand(
    stores: list[Path], layers: list[dict[str, Any]], tmp_path: Path
) -> None:
    options = [
        "--task",
        "layers",
        "--hidden",
        "8",
        "--dim",
        "4",
        "--epochs",
        "3",
        "--batch-size",
        "16",
        "--recipe",
        "paper",
        "-q",
    ]
    standard = beforehand(tmp_path / "standard", layers, Standardization("zscore"))
    assert run("train", *stores, *options, "--standardize", "zscore", "-o", tmp_path / "raw.pt").code == 0
    assert run("train", *standard, *options, "-o", tmp_path / "standard.pt").code == 0
    one, other = (encoders.load(tmp_path / f"{name}.pt").encoder.state_dict() for name in ("raw", "standard"))
    for name, weights in one.items():
        np.testing.assert_array_equal(weights, other[name])


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "options", "code", "message"),
    [
        ("baseline", ["--shrinkage", "0.1"], 2, "--shrinkage goes with --standardize whiten"),
        ("baseline", ["--standardize", "zscore", "--shrinkage", "0.1"], 2, "--shrinkage goes with --standardize whiten"),
        ("bench layers", ["--shrinkage", "0.1"], 2, "--shrinkage goes with --standardize whiten"),
        ("train", ["--shrinkage", "0.1"], 2, "--shrinkage goes with --standardize whiten or within"),
        ("train", ["--standardize", "auto", "--shrinkage", "0.1"], 2, "--shrinkage goes with --standardize whiten or within"),
        ("train", ["--standardize", "auto", "--task", "layers"], 2,
         "--standardize auto goes with --task pairs; give none, center, zscore or whiten"),
        ("train", ["--memory", "1K"], 3,
         "--standardize auto: covariances and maps of 4 layers take 0.00 GiB, --memory allows 0.00; raise it, select fewer "
         "layers, or give --standardize zscore"),
        ("train", ["--recipe", "paper", "--shrinkage", "0.1"], 2, "--shrinkage goes with --standardize whiten or within"),
        ("baseline", ["--standardize-from", "{a}"], 2,
         "--standardize-from goes with --standardize, or an encoder trained on standardised rows"),
        ("bench multilingual", ["--standardize-from", "{a}"], 2,
         "--standardize-from goes with --standardize, or an encoder trained on standardised rows"),
        ("baseline", ["--standardize", "center", "--standardize-from", "{a}"], 2,
         "--standardize-from takes one store for each of the 2 stores, in their order; 1 given"),
        ("train", ["--standardize", "center", "--standardize-from", "{a}"], 2,
         "--standardize-from takes one store for each of the 2 stores, in their order; 1 given"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(
    stores: list[Path], tmp_path: Path, command: str, options: list[str], code: int, message: str
) -> None:
    more = ["--task", "pairs", "-o", tmp_path / "e.pt"] if command == "train" else []
    done = run(*command.split(), *stores[:2], *more, *(option.format(a=stores[0]) for option in options))
    assert (done.code, done.stdout, done.stderr) == (code, "", f"contrasim: error: {message}\n")


@pytest.mark.parametrize("command", ["baseline", "score", "bench layers", "bench multilingual", "bench image-caption"])
def test_what_suits_training_rows_is_asked_of_train_alone(stores: list[Path], command: str) -> None:
    done = run(*command.split(), *stores[:2], "--standardize", "auto")
    assert (done.code, done.stdout) == (2, "")
    assert "'auto' is not one of 'none', 'center', 'zscore', 'whiten'" in done.stderr
