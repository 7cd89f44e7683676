"""`contrasim baseline` through the real entry point: what it prints, writes, refuses and says."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import oracles
import pytest
import torch
from helpers import run

from contrasim_cli.measures import MEASURES
from contrasim_cli.measures.load import similarity

N = 30


@pytest.fixture
def layers() -> list[dict[str, Any]]:
    return made.related(3, 3, N, (6,))


@pytest.fixture
def stores(tmp_path: Path, layers: list[dict[str, Any]]) -> list[Path]:
    return [made.store(tmp_path / f"{name}.h5", x) for name, x in zip("abc", layers, strict=True)]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_every_pair_of_stores_in_the_order_given(stores: list[Path], layers: list[dict[str, Any]]) -> None:
    done = run("baseline", *stores, "--measure", "cka", "--measure", "pwcca")
    assert (done.code, done.stderr) == (0, "")
    rows = table(done.stdout)
    assert list(rows[0]) == ["measure", "store_a", "layer_a", "store_b", "layer_b", "score", "null_z", "null"]
    assert [(r["store_a"], r["store_b"], r["measure"], r["layer_a"], r["layer_b"]) for r in rows] == [
        (a, b, measure, f"layer_{i}", f"layer_{j}")
        for a, b in (("a", "b"), ("a", "c"), ("b", "c"))
        for measure in ("cka", "pwcca")
        for i in range(3)
        for j in range(3)
    ]
    for row in rows:
        x, y = (layers["abc".index(row[f"store_{s}"])][row[f"layer_{s}"]] for s in "ab")
        assert float(row["score"]) == pytest.approx(similarity(row["measure"], x, y), rel=1e-6)


def test_cka_is_the_default_and_a_measure_named_twice_counts_once(stores: list[Path]) -> None:
    one = run("baseline", *stores)
    assert one.stdout == run("baseline", *stores, "--measure", "cka", "--measure", "cka").stdout
    assert {row["measure"] for row in table(one.stdout)} == {"cka"}


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        (["--layers", "layer_1"], ["layer_1"], ["layer_1"]),
        (["--layers", "-1", "--layers", "0"], ["layer_2", "layer_0"], ["layer_2", "layer_0"]),
        (["--layers", "0-1"], ["layer_0", "layer_1"], ["layer_0", "layer_1"]),
        (["--layers", "*_[02]"], ["layer_0", "layer_2"], ["layer_0", "layer_2"]),
        (["--layers-a", "2"], ["layer_2"], ["layer_0", "layer_1", "layer_2"]),
        (["--layers-b", "2"], ["layer_0", "layer_1", "layer_2"], ["layer_2"]),
        (["--layers", "1", "--layers-a", "0"], ["layer_0"], ["layer_1"]),
    ],
)
def test_layers_are_chosen_for_both_sides_or_each(
    stores: list[Path], options: list[str], first: list[str], second: list[str]
) -> None:
    rows = table(run("baseline", *stores[:2], *options).stdout)
    assert [(r["layer_a"], r["layer_b"]) for r in rows] == [(a, b) for a in first for b in second]


def test_a_layer_needs_to_be_on_its_side_alone(tmp_path: Path, layers: list[dict[str, Any]]) -> None:
    """The last of the first store, which is deeper, against the first of the second."""
    a = made.store(tmp_path / "a.h5", layers[0])
    b = made.store(tmp_path / "b.h5", {"only": layers[1]["layer_0"]})
    rows = table(run("baseline", a, b, "--layers-a", "2", "--layers-b", "only").stdout)
    assert [(r["layer_a"], r["layer_b"]) for r in rows] == [("layer_2", "only")]


def test_a_bare_number_where_one_score_is_asked_for(stores: list[Path], layers: list[dict[str, Any]]) -> None:
    done = run("baseline", *stores[:2], "--layers-a", "0", "--layers-b", "1", "--format", "value")
    assert (done.code, done.stderr) == (0, "")
    expected = similarity("cka", layers[0]["layer_0"], layers[1]["layer_1"])
    assert float(done.stdout) == pytest.approx(expected, rel=1e-6)
    assert done.stdout == repr(float(done.stdout)) + "\n"
    many = run("baseline", *stores, "--format", "value", "--layers", "0")
    assert (many.code, many.stdout) == (2, "")
    assert many.stderr == (
        "contrasim: error: --format value prints one score, 3 were asked for; select one layer on each side and one measure\n"
    )


def test_json_tells_what_was_compared(stores: list[Path]) -> None:
    done = run("baseline", *stores[:2], "--layers", "0", "--format", "json", "--seed", "4", "--device", "cpu")
    content = json.loads(done.stdout)
    score = content.pop("results")
    assert set(content.pop("versions")) == {"contrasim", "torch", "numpy", "python"}
    for name in ("argv", "date", "digests", "sources"):  # see test_record
        assert content.pop(name)
    assert content == {
        "schema_version": 1,
        "command": "baseline",
        "inputs": [str(path) for path in stores[:2]],
        "rows": N,
        "widths": [{f"layer_{k}": 6 for k in range(3)}] * 2,
        "seed": 4,
        "device": "cpu",
        "standardize": {"cka": {"kind": "none"}},
        "max_rows": None,
    }
    assert [list(row) for row in score] == [
        ["measure", "store_a", "layer_a", "store_b", "layer_b", "score", "null_z", "null"]
    ]


def test_what_is_undefined_is_empty_and_named(tmp_path: Path, layers: list[dict[str, Any]]) -> None:
    layers[1]["layer_1"][:] = 3
    stores = [made.store(tmp_path / f"{name}.h5", x) for name, x in zip("ab", layers[:2], strict=True)]
    options = ["--layers-a", "0", "--layers-b", "1", "--layers-b", "2"]
    done = run("baseline", *stores, *options, "--null", "0")
    assert done.code == 0
    assert [row["score"] == "" for row in table(done.stdout)] == [True, False]
    assert done.stderr == (
        f"contrasim: warning: cka is undefined (a side has no variance) for layer_0 of {stores[0]} and layer_1 of {stores[1]}; "
        "left empty\n"
    )
    content = json.loads(run("baseline", *stores, *options, "--format", "json").stdout)
    assert content["results"][0]["score"] is None
    assert "NaN" not in run("baseline", *stores, *options, "--format", "json").stdout
    value = run("baseline", *stores, "--layers-a", "0", "--layers-b", "1", "--format", "value")
    assert (value.code, value.stdout) == (0, "\n")


def test_permuted_rows_are_refused_and_aligned_by_ids(tmp_path: Path, layers: list[dict[str, Any]]) -> None:
    order = np.random.default_rng(0).permutation(N)
    a = made.store(tmp_path / "a.h5", layers[0])
    b = made.store(tmp_path / "b.h5", {k: x[order] for k, x in layers[1].items()}, [f"r{i}" for i in order])
    refused = run("baseline", a, b)
    assert (refused.code, refused.stdout) == (4, "")
    assert refused.stderr == (
        f"contrasim: error: {b}: ids differ from those of {a} ({N} and {N} rows, {N} ids in common); the first difference is in "
        f"row 0: r{order[0]} instead of r0; give --align ids to compare the common rows\n"
    )
    aligned = run("baseline", a, b, "--align", "ids", *(f for m in MEASURES for f in ("--measure", m)))
    (tmp_path / "straight").mkdir()
    straight = made.store(tmp_path / "straight" / "b.h5", layers[1])
    expected = run("baseline", a, straight, *(f for m in MEASURES for f in ("--measure", m)))
    assert aligned.code == 0
    assert aligned.stdout == expected.stdout


def test_rows_with_nan_are_refused_or_dropped_everywhere(tmp_path: Path, layers: list[dict[str, Any]]) -> None:
    broken = {name: x.copy() for name, x in layers[1].items()}
    broken["layer_1"][7, 2] = np.nan
    a, b = made.store(tmp_path / "a.h5", layers[0]), made.store(tmp_path / "b.h5", broken)
    refused = run("baseline", a, b)
    assert (refused.code, refused.stdout) == (3, "")
    assert refused.stderr == (
        f"contrasim: error: {b}: layer layer_1: row 7 (id r7) holds nan in column 2; "
        "mend the file or give --nan drop to leave such rows out of every store\n"
    )
    assert run("baseline", a, b, "--layers", "0").code == 0
    kept = np.delete(np.arange(N), 7)
    done = run("baseline", a, b, "--nan", "drop")
    assert done.stderr.startswith("contrasim: warning: --nan drop: 1 of 30 rows hold NaN or Inf")
    for row in table(done.stdout):
        expected = similarity("cka", layers[0][row["layer_a"]][kept], layers[1][row["layer_b"]][kept])
        assert float(row["score"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("suffix", ["tsv", "csv", "json", "md", "tex", "txt"])
def test_the_file_holds_what_stdout_shows(stores: list[Path], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    form = "table" if suffix == "txt" else suffix
    done = run("baseline", *stores, "-o", out, "--format", form)
    assert (done.code, done.stderr) == (0, "")
    assert out.read_text() == done.stdout
    again = run("baseline", *stores, "-o", out)
    assert (again.code, again.stdout) == (5, "")
    assert again.stderr == f"contrasim: error: {out}: already exists; give --force to replace it\n"
    assert run("baseline", *stores, "-o", out, "--force").code == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["-o", "out.xls"],
            2,
            "--output out.xls: the format follows the suffix, which is one of .tsv, .csv, .json, .parquet, .md, .tex, .txt",
        ),
        (["--plot", "out.gif"], 2, "--plot out.gif: the format follows the suffix, which is one of .png, .svg, .pdf"),
        (["--measure", "ckaa"], 2, "--measure ckaa is unknown; did you mean cka, cknna?"),
        (["-o", "none/out.tsv"], 7, "none/out.tsv: cannot be written: there is no folder {cwd}/none; create it first"),
    ],
)
def test_what_cannot_be_is_refused(
    stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("baseline", *stores, *options)
    assert (done.code, done.stdout) == (code, "")
    assert done.stderr == f"contrasim: error: {message.format(cwd=tmp_path, a=stores[0])}\n"


def test_layers_that_are_not_there_are_told_of_every_store_once(stores: list[Path]) -> None:
    done = run("baseline", *stores, "--layers", "9")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"contrasim: error: --layers 9 matches no layer of {path}; it has 3: layer_0, layer_1, layer_2"
        for path in stores
    ]


def test_one_store_is_not_enough(stores: list[Path]) -> None:
    done = run("baseline", stores[0])
    assert (done.code, done.stderr) == (
        2,
        "contrasim: error: baseline compares 2 or more stores, 1 given"
        "; to compare a store's layers with each other, give it twice\n",
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_never_replaced(stores: list[Path]) -> None:
    done = run("baseline", *stores, "--device", "cuda")
    assert (done.code, done.stdout) == (6, "")
    assert done.stderr == (
        "contrasim: error: --device cuda: no CUDA device is available; give --device cpu or leave it out\n"
    )


def test_the_list_of_measures_is_the_registry() -> None:
    done = run("baseline", "--list")
    assert done.code == 0
    rows = table(done.stdout)
    assert [row["name"] for row in rows] == list(MEASURES)
    assert {row["more_similar"] for row in rows} <= {"higher", "lower"}


def test_little_work_has_the_digits_of_float64(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 40, 6))
    stores = [made.store(tmp_path / f"{name}.h5", {"l": side + 3}) for name, side in (("a", x), ("b", x + y))]
    exact = float(oracles.cka(x, x + y))
    asked = ((), ("--precision", "float32"))
    auto, single = (float(run("baseline", *stores, "--format", "value", *more).stdout) for more in asked)
    assert abs(auto - exact) < 1e-13
    assert 1e-10 < abs(single - exact) < 1e-6
