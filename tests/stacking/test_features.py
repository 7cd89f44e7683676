"""Features of grids against plain formulas, and what they must not mind."""

import numpy as np
import pytest
import torch

from contrasim_cli.errors import UsageError
from contrasim_cli.measures import MEASURES
from contrasim_cli.measures.load import similarity
from contrasim_cli.stacking.features import STEADY, advantages, describe
from contrasim_cli.stacking.measures import SCALE_FREE, SCALED, check_measures, eligible, entry, identity

RNG = np.random.default_rng(0)


def grids(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.uniform(-1, 1, size=shape))


def test_advantages_are_0_at_the_level_and_1_for_a_layer_with_itself():
    of = torch.tensor([1.0, 0.0], dtype=torch.float64)
    levels = torch.tensor([[[0.2, 0.4]], [[3.0, 2.0]]], dtype=torch.float64)
    values = torch.tensor([[[0.2, 1.0]], [[1.5, 0.0]]], dtype=torch.float64)
    assert advantages(values, levels, of).tolist() == [[[0.0, 1.0]], [[0.5, 1.0]]]


def test_advantages_are_undefined_where_a_measure_is_or_says_the_same_of_all_rows():
    of = torch.tensor([1.0], dtype=torch.float64)
    values = torch.tensor([[[float("nan"), 1.0, 0.5]]], dtype=torch.float64)
    levels = torch.tensor([[[0.2, 1.0, 0.25]]], dtype=torch.float64)
    found = advantages(values, levels, of)
    assert found.isnan().tolist() == [[[True, True, False]]]
    assert found[0, 0, 2] == pytest.approx(1 / 3)


def test_features_are_the_formulas():
    u = grids(2, 3, 4)
    found = describe(u)
    k, i, j = 1, 2, 3
    line, column, cells = u[k, i].numpy(), u[k, :, j].numpy(), u[k].numpy()
    interaction = cells - cells.mean(1, keepdims=True) - cells.mean(0) + cells.mean()
    expected = {
        "grid": [
            (cells[i, j] - cells.mean()) / (cells.std() + STEADY),
            interaction[i, j] / (interaction.std() + STEADY),
        ],
        "row": [(cells[i, j] - line.mean()) / (line.std() + STEADY), (line < line[j]).sum() / 3 - 0.5],
        "column": [(cells[i, j] - column.mean()) / (column.std() + STEADY), (column < column[i]).sum() / 2 - 0.5],
    }
    assert found.advantages[i, j, k] == u[k, i, j]
    for name, values in expected.items():
        features = getattr(found, name)[i, j].view(2, 2)[:, k]  # kind, measure
        np.testing.assert_allclose(features.numpy(), values, atol=1e-12, err_msg=name)


def test_ties_share_their_rank():
    ranks = describe(torch.tensor([[[1.0, 1.0, 2.0]]])).row[0, :, 1]
    assert ranks.tolist() == [-0.25, -0.25, 0.5]


def test_rounding_decides_no_rank():
    """Of rows that do not vary, measures say the same of all layers, but for digits that change with the order of sums."""
    u = grids(2, 3, 4)
    u[0, 1] = 0.25
    rounded = u.clone()
    rounded[0, 1] += torch.tensor([1e-9, -1e-9, 2e-9, 0])
    for name in ("grid", "row", "column"):
        torch.testing.assert_close(getattr(describe(rounded), name), getattr(describe(u), name), rtol=0, atol=1e-4)


def test_a_cell_alone_has_no_place_among_others():
    found = describe(grids(5, 1, 1))
    assert all(bool((part == 0).all()) for part in (found.grid, found.row, found.column))


def test_features_do_not_mind_the_order_of_layers_nor_which_store_is_first():
    u, order = grids(4, 5, 6), torch.randperm(5)
    turned, moved = describe(u.mT), describe(u[:, order])
    for name in ("advantages", "grid", "row", "column"):
        torch.testing.assert_close(getattr(moved, name), getattr(describe(u), name)[order])
    torch.testing.assert_close(turned.row, describe(u).column.transpose(0, 1))
    torch.testing.assert_close(turned.grid, describe(u).grid.transpose(0, 1))


def test_features_see_order_of_nothing_but_values():
    """The control: other values are other features."""
    u = grids(4, 5, 6)
    assert not torch.allclose(describe(u).grid, describe(u.flip(1)).grid)


@pytest.mark.parametrize("name", eligible())
def test_measures_give_a_layer_and_itself_what_they_should(name):
    x = RNG.normal(size=(60, 7))
    assert similarity(name, x, x) == pytest.approx(identity([name])[0], abs=1e-6)


def test_the_default_measures_are_free_of_scale():
    assert all("scale" in MEASURES[name].invariances for name in SCALE_FREE)
    assert not all("scale" in MEASURES[name].invariances for name in SCALED)
    assert set(SCALED) <= set(eligible())
    assert {"scale", "rotation", "permutation", "symmetric"} <= entry(SCALE_FREE).invariances
    assert "scale" not in entry(SCALED).invariances


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pwcca", "not the same for X, Y and Y, X"),
        ("dot", "equal width"),
        ("magnitude_difference", "which row is which"),
        ("hard_match", "needs the extra match"),
        ("rsa", "costs n²"),
    ],
)
def test_measures_that_cannot_be_taken_are_refused_with_the_reason(name, reason):
    with pytest.raises(UsageError, match=reason):
        check_measures(["cka", name])


def test_sets_of_measures_have_names():
    assert check_measures(["scale_free", "cka"]) == SCALE_FREE
    assert check_measures(["scaled"]) == SCALED
    with pytest.raises(UsageError, match="--measures ckka is unknown"):
        check_measures(["ckka"])
