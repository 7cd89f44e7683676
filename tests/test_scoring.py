"""The grid against pair-by-pair scores, and what it leaves empty."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch

from contrasim_cli import scoring
from contrasim_cli.measures import MEASURES
from contrasim_cli.measures.protocol import similarity
from contrasim_cli.progress import silent
from contrasim_cli.scoring import Prepared, Scorer, closed_form, layer_grid
from contrasim_cli.store import View

CPU = torch.device("cpu")
LARGE = 1 << 40


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """Warnings that scoring logs."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    scoring.log.addHandler(handler)
    yield heard
    scoring.log.removeHandler(handler)


def views(folder: Path, *stores: dict[str, Any]) -> list[View]:
    return [made.view(folder / f"{'abcdef'[k]}.h5", layers) for k, layers in enumerate(stores)]


def grid(both: list[View], scorers: list[Scorer], budget: int = LARGE) -> list[np.ndarray[Any, Any]]:
    """The grid of every scorer, all layers against all layers."""
    layers = [list(view.store.layers) for view in both]
    prepared = Prepared(both, CPU, budget)
    prepared.fill(dict(enumerate(layers)), scorers, silent)
    return [layer_grid(prepared, (0, 1), (layers[0], layers[1]), scorer) for scorer in scorers]


@pytest.mark.parametrize("shape", [(40, 7), (10, 14)])
def test_the_grid_equals_the_pair_by_pair_result(tmp_path: Path, shape: tuple[int, int]) -> None:
    n, width = shape
    a, b = made.related(2, 3, n, (width,))
    b = {name: b[name] for name in ("layer_2", "layer_0")}  # another depth, another order
    scorers = closed_form(list(MEASURES))
    for scorer, found in zip(scorers, grid(views(tmp_path, a, b), scorers), strict=True):
        expected = [[similarity(scorer.name, x, y) for y in b.values()] for x in a.values()]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(("objective", "how", "measure"), [
    ("contrasim", "dot", "dot"), ("supcon", "norm", "norm"), ("deepdot", "dot", "dot"), ("deepcka", "dot", "cka")
])  # fmt: skip
def test_the_grid_of_an_encoder_is_that_of_the_encoded_rows(
    tmp_path: Path, objective: str, how: str, measure: str
) -> None:
    a, b = made.related(2, 3, 30, (7, 9))
    path = made.encoder_file(tmp_path / "e.pt", widths=(7, 9), objective=objective, similarity=how)
    (scorer,) = scoring.learned([path])
    (found,) = grid(views(tmp_path, a, b), [scorer])
    encoder = scorer.checkpoint.encoder  # type: ignore[union-attr]
    with torch.no_grad():
        z, w = ([encoder(torch.from_numpy(x)) for x in side.values()] for side in (a, b))
    np.testing.assert_allclose(found, [[similarity(measure, x, y) for y in w] for x in z], rtol=1e-5)
    assert scorer.name == "e.pt"


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_little_memory_gives_the_same_numbers(tmp_path: Path, kept: float) -> None:
    """Room for none, or some, of the prepared layers."""
    both = views(tmp_path, *made.related(2, 3, 30, (7,)))
    scorers = [*closed_form(list(MEASURES)), *scoring.learned([made.encoder_file(tmp_path / "e.pt", widths=(7,))])]
    least = 2 * 8 * 30 * 7
    budget = int(least + kept * 40_000)
    for small, whole in zip(grid(both, scorers, budget), grid(both, scorers), strict=True):
        np.testing.assert_array_equal(small, whole)


def test_unequal_widths_are_left_empty_with_a_warning(tmp_path: Path, messages: list[str]) -> None:
    a, b = made.related(2, 2, 30, (7, 9))
    b["layer_1"] = b["layer_1"][:, :7]
    for name, found in zip(("dot", "norm"), grid(views(tmp_path, a, b), closed_form(["dot", "norm"])), strict=True):
        assert np.isnan(found[:, 0]).all()
        np.testing.assert_allclose(found[:, 1], [similarity(name, x, b["layer_1"]) for x in a.values()])
    assert messages == [
        f"dot is undefined (the widths differ) for layer_0 of {tmp_path}/a.h5 and layer_0 of {tmp_path}/b.h5 and 1 more "
        "pairs of layers; left empty",
        "norm is undefined (a row is zero or the widths differ) for layer_0 of "
        f"{tmp_path}/a.h5 and layer_0 of {tmp_path}/b.h5 and 1 more pairs of layers; left empty",
    ]


@pytest.mark.parametrize("name", ["cka", "cca", "svcca", "pwcca"])
def test_a_constant_layer_is_left_empty_with_a_warning(tmp_path: Path, name: str, messages: list[str]) -> None:
    a, b = made.related(2, 2, 30, (7,))
    b["layer_1"][:] = 0.1
    (found,) = grid(views(tmp_path, a, b), closed_form([name]))
    assert np.isnan(found).tolist() == [[False, True], [False, True]]
    (message,) = messages
    assert message.startswith(f"{name} is undefined (a side has no variance) for ")
    assert f"layer_1 of {tmp_path}/b.h5" in message


def test_the_cca_family_says_where_it_says_nothing(tmp_path: Path, messages: list[str]) -> None:
    a, b = made.related(2, 1, 8, (7, 5))
    found = grid(views(tmp_path, a, b), closed_form(["cka", "cca", "pwcca"]))
    assert found[1] == pytest.approx(np.ones((1, 1)))
    assert messages == [
        f"{tmp_path}/a.h5: layer layer_0: 8 rows span every direction (rank 7), so that each canonical correlation is 1 "
        "whatever the other side; the CCA family needs more rows than neurons"
    ]


def test_rank_tol_reaches_the_measure(tmp_path: Path) -> None:
    a, b = made.related(2, 1, 40, (7,))
    both = views(tmp_path, a, b)
    strict, loose = (grid(both, closed_form(["cca"], tol))[0] for tol in (0.5, 1e-6))
    assert strict != pytest.approx(loose)
    assert loose == pytest.approx(similarity("cca", a["layer_0"], b["layer_0"]))


def test_scorers_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    same = [made.encoder_file(tmp_path / folder / "e.pt", widths=(5,)) for folder in ("x", "y")]
    assert [scorer.name for scorer in scoring.learned(same)] == [str(path) for path in same]
    assert scoring.distinct_names([Path("a/x.h5"), Path("b/y.h5")]) == ["x", "y"]
    assert scoring.distinct_names([Path("a/x.h5"), Path("b/x.npz")]) == ["a/x.h5", "b/x.npz"]
