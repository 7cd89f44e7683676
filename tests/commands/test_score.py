"""`contrasim score` through the real entry point."""

import csv
import io
from pathlib import Path

import made
import pytest
import torch
from helpers import run

from contrasim_cli import encoder as encoders
from contrasim_cli.measures.load import similarity


def test_learned_similarity_of_every_pair_of_layers(tmp_path: Path) -> None:
    layers = made.related(3, 2, 25, (6, 9))
    stores = [made.store(tmp_path / f"{name}.h5", x) for name, x in zip("abc", layers, strict=True)]
    paths = [
        made.encoder_file(tmp_path / "dot.pt", widths=(6, 9)),
        made.encoder_file(tmp_path / "cka.pt", widths=(6, 9), objective="deepcka", seed=1),
    ]
    done = run("score", *stores, "--encoder", paths[0], "--encoder", paths[1])
    hint = "scores have no fixed zero; --null 99 shows what shuffled rows score"
    assert (done.code, done.stderr) == (0, f"contrasim: note: dot.pt and cka.pt: {hint}\n")
    assert hint not in run("score", *stores, "--encoder", paths[0], "--null", 0).stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout), delimiter="\t"))
    assert list(rows[0]) == ["measure", "store_a", "layer_a", "store_b", "layer_b", "score"]
    assert [(r["store_a"], r["store_b"], r["measure"]) for r in rows[::4]] == [
        (a, b, name) for a, b in (("a", "b"), ("a", "c"), ("b", "c")) for name in ("dot.pt", "cka.pt")
    ]
    for row in rows:
        loaded = encoders.load(tmp_path / row["measure"]).encoder
        with torch.no_grad():
            x, y = (loaded(torch.from_numpy(layers["abc".index(row[f"store_{s}"])][row[f"layer_{s}"]])) for s in "ab")
        assert float(row["score"]) == pytest.approx(similarity(row["measure"][:3], x, y), rel=1e-5)


def test_one_row_has_no_universal_score(tmp_path: Path) -> None:
    store = made.store(tmp_path / "a.h5", {"l": [[1.0]]})
    done = run("score", store, store, "--format", "value")
    assert (done.code, done.stdout) == (0, "\n")
    assert "no --encoder given: universal" in done.stderr
    assert "universal is undefined" in done.stderr


def test_the_problems_of_all_encoders_are_told_at_once(tmp_path: Path) -> None:
    store = made.store(tmp_path / "a.h5", {"l": [[1.0]]})
    (tmp_path / "bad.pt").write_text("nothing")
    done = run("score", store, store, "--encoder", tmp_path / "none.pt", "--encoder", tmp_path / "bad.pt")
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        f"contrasim: error: {tmp_path}/none.pt: cannot be read: No such file or directory",
        f"contrasim: error: {tmp_path}/bad.pt: is not a contrasim encoder, or is damaged; create one with contrasim train",
    ]


def test_rows_are_encoded_after_alignment(tmp_path: Path) -> None:
    (layers,) = made.related(1, 1, 25, (6,))
    a = made.store(tmp_path / "a.h5", layers)
    back = {name: matrix[::-1] for name, matrix in layers.items()}
    b = made.store(tmp_path / "b.h5", back, [f"r{row}" for row in range(25)][::-1])
    path = made.encoder_file(tmp_path / "e.pt", widths=(6,))
    done = run("score", a, b, "--encoder", path, "--format", "value", "--align", "ids")
    assert float(done.stdout) == pytest.approx(1, abs=1e-6)
    assert done.stderr.startswith("contrasim: note: --align ids keeps 25 rows\ncontrasim: note: e.pt: scores have no")
