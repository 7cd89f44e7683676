"""Objectives, batch similarities and their sets, against loops over items (`oracles`)."""

from typing import Any, Literal

import numpy as np
import oracles
import pytest
import torch
from oracles import Anchor, Array

from contrasim_cli import losses

Task = Literal["layers", "pairs"]
Side = Literal["both", "first"]
Similarity = Literal["dot", "norm"]

MODELS, LAYERS, ROWS, WIDTH = 3, 4, 5, 6
SETS: list[tuple[Task, Side]] = [("layers", "both"), ("pairs", "both"), ("pairs", "first")]


def encoded(items: int, rows: int, seed: int = 0) -> Array:
    """Unit-norm rows [items, rows, WIDTH]."""
    z = np.random.default_rng(seed).normal(size=(items, rows, WIDTH))
    unit: Array = z / np.linalg.norm(z, axis=-1, keepdims=True)
    return unit


def setting(task: Task, side: Side) -> tuple[Array, Any, list[Anchor]]:
    """Items of a task, our sets and the oracle's."""
    if task == "layers":
        items = encoded(MODELS * LAYERS, ROWS)
        return items, losses.layer_sets(MODELS, LAYERS), oracles.layer_sets(MODELS, LAYERS)
    return encoded(2 * ROWS, 1), losses.pair_sets(ROWS, anchor_side=side), oracles.pair_sets(ROWS, side)


def similarities(z: torch.Tensor, anchors: int, similarity: Similarity) -> torch.Tensor:
    """Return s [anchors, items]; the anchors are the first items."""
    return losses.similarity_matrix(z, similarity)[:anchors]


@pytest.mark.parametrize(("task", "side"), SETS)
def test_sets_equal_the_oracle(task: Task, side: Side) -> None:
    items, sets, anchors = setting(task, side)
    for field in ("positives", "negatives", "others"):
        mask = getattr(sets, field)
        assert mask.dtype == torch.bool
        assert mask.shape == (len(anchors), len(items))
        assert [row.nonzero().flatten().tolist() for row in mask] == [getattr(anchor, field) for anchor in anchors]
    assert [anchor.item for anchor in anchors] == list(range(len(anchors)))


def test_the_default_is_both_sides() -> None:
    assert losses.pair_sets(ROWS).positives.equal(losses.pair_sets(ROWS, anchor_side="both").positives)


@pytest.mark.parametrize("similarity", ["dot", "norm"])
@pytest.mark.parametrize(("items", "rows"), [(7, ROWS), (2 * ROWS, 1)])
def test_similarity_matrix_equals_the_oracle(similarity: Similarity, items: int, rows: int) -> None:
    z = encoded(items, rows)
    s = losses.similarity_matrix(torch.from_numpy(z), similarity)
    expected = [[oracles.batch_similarity(a, b, similarity) for b in z] for a in z]
    off_diagonal = ~np.eye(items, dtype=bool)
    np.testing.assert_allclose(s.numpy()[off_diagonal], np.array(expected)[off_diagonal], rtol=0, atol=1e-9)
    # Beside a distance of 0 the epsilon under `norm`'s square root shows; an item is never in its own sets.
    np.testing.assert_allclose(s.diagonal().numpy(), 1, atol=1e-4)


@pytest.mark.parametrize("similarity", ["dot", "norm"])
@pytest.mark.parametrize(("task", "side"), SETS)
@pytest.mark.parametrize("temperature", [0.07, 1.0, 1e-3])
def test_contrasim_equals_the_oracle(task: Task, side: Side, similarity: Similarity, temperature: float) -> None:
    items, sets, anchors = setting(task, side)
    s = similarities(torch.from_numpy(items), len(anchors), similarity) / temperature
    expected = oracles.contrasim(list(items), anchors, temperature, similarity)
    assert losses.contrasim(s, sets.positives, sets.negatives).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("similarity", ["dot", "norm"])
@pytest.mark.parametrize(("task", "side"), SETS)
@pytest.mark.parametrize("temperature", [0.07, 1.0, 1e-3])
def test_supcon_equals_the_oracle(task: Task, side: Side, similarity: Similarity, temperature: float) -> None:
    items, sets, anchors = setting(task, side)
    s = similarities(torch.from_numpy(items), len(anchors), similarity) / temperature
    expected = oracles.supcon(list(items), anchors, temperature, similarity)
    assert losses.supcon(s, sets.positives, sets.others).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("similarity", ["dot", "norm"])
@pytest.mark.parametrize(("task", "side"), SETS)
def test_deepdot_equals_the_oracle(task: Task, side: Side, similarity: Similarity) -> None:
    items, sets, anchors = setting(task, side)
    s = similarities(torch.from_numpy(items), len(anchors), similarity)
    expected = oracles.deepdot(list(items), anchors, similarity)
    assert losses.deepdot(s, sets.positives).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [2, 9, 40])
def test_deepcka_equals_the_oracle(rows: int) -> None:
    items = encoded(6, rows)
    pairs = [(0, 3), (3, 0), (1, 4), (2, 5), (0, 1)]
    loss = losses.deepcka(torch.from_numpy(items), torch.tensor(pairs))
    assert loss.item() == pytest.approx(oracles.deepcka(list(items), pairs), rel=1e-9)


def test_deepcka_of_equal_items_is_minus_one() -> None:
    items = torch.from_numpy(encoded(2, 12))
    assert losses.deepcka(items[[0, 0]], torch.tensor([[0, 1]])).item() == pytest.approx(-1, rel=1e-12)


def test_deepcka_of_one_row_contributes_nothing() -> None:
    z = torch.from_numpy(encoded(2, 1)).requires_grad_()
    loss = losses.deepcka(z, torch.tensor([[0, 1]]))
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deepcka_does_not_reward_collapse(dtype: torch.dtype) -> None:
    """Rows that are all equal have no variance; what rounding leaves of their mean must not count as agreement."""
    row = torch.from_numpy(encoded(1, 1)).to(dtype)
    z = row.expand(2, 9, WIDTH).clone().requires_grad_()
    loss = losses.deepcka(z, torch.tensor([[0, 1]]))
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0
    assert torch.isfinite(gradient).all()


def test_objectives_are_not_each_other() -> None:
    """Negative control: one input on which no two objectives agree."""
    items, sets, anchors = setting("layers", "both")
    s = similarities(torch.from_numpy(items), len(anchors), "dot")
    values = [
        losses.contrasim(s, sets.positives, sets.negatives).item(),
        losses.supcon(s, sets.positives, sets.others).item(),
        losses.deepdot(s, sets.positives).item(),
        losses.deepcka(torch.from_numpy(items), torch.tensor([[0, LAYERS], [1, LAYERS + 1]])).item(),
    ]
    assert min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) > 1e-3


@pytest.mark.parametrize("similarity", ["dot", "norm"])
def test_gradients_equal_differences_of_the_oracle(similarity: Similarity) -> None:
    """A detached or doubly counted term would keep the value and change the gradient."""
    items, temperature, step = encoded(4, 2, seed=3), 0.5, 1e-5
    sets, anchors = losses.layer_sets(2, 2), oracles.layer_sets(2, 2)

    def ours(z: torch.Tensor) -> torch.Tensor:
        s = losses.similarity_matrix(z, similarity) / temperature
        return losses.contrasim(s, sets.positives, sets.negatives) + losses.supcon(s, sets.positives, sets.others)

    def theirs(z: Array) -> float:
        both = (oracle(list(z), anchors, temperature, similarity) for oracle in (oracles.contrasim, oracles.supcon))
        return sum(both)

    z = torch.from_numpy(items).requires_grad_()
    (gradient,) = torch.autograd.grad(ours(z), z)
    for at in np.ndindex(items.shape):
        moved = np.zeros_like(items)
        moved[at] = step
        slope = (theirs(items + moved) - theirs(items - moved)) / (2 * step)
        assert gradient[at].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("task", "side"), SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norm_has_a_finite_gradient_where_rows_coincide(task: Task, side: Side, dtype: torch.dtype) -> None:
    """The gradient of ‖a − b‖ at a = b is infinite, and 0 · ∞ is NaN; every item against itself is such a place."""
    items, sets, anchors = setting(task, side)
    items[-1] = items[0]
    items[1] = items[0]
    z = torch.from_numpy(items).to(dtype).requires_grad_()
    s = similarities(z, len(anchors), "norm") / 0.07
    loss = losses.contrasim(s, sets.positives, sets.negatives) + losses.supcon(s, sets.positives, sets.others)
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4, 1e-5])
def test_norm_keeps_its_gradient_where_rows_nearly_coincide(gap: float) -> None:
    """∂‖a − b‖/∂a is a unit vector at any distance; a² + b² − 2ab in float32 loses the distance below 1e-3."""
    a, direction = encoded(2, 1)
    z = torch.from_numpy(np.stack([a, a + gap * direction])).float().requires_grad_()
    s = losses.similarity_matrix(z, "norm")[0, 1]
    (gradient,) = torch.autograd.grad(s, z)
    assert 1 - s.item() == pytest.approx(gap, rel=0.05)
    assert gradient[0].norm().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("similarity", ["dot", "norm"])
@pytest.mark.parametrize("side", ["both", "first"])
def test_a_batch_of_one_row_contributes_nothing(side: Side, similarity: Similarity) -> None:
    z = torch.from_numpy(encoded(2, 1)).requires_grad_()
    sets = losses.pair_sets(1, anchor_side=side)
    assert not sets.negatives.any()
    s = similarities(z, len(sets.positives), similarity) / 0.07
    loss = losses.contrasim(s, sets.positives, sets.negatives)
    assert loss.item() == 0
    assert losses.supcon(s, sets.positives, sets.others).item() == pytest.approx(0, abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, z)
    assert (gradient == 0).all()


@pytest.mark.parametrize("missing", ["positives", "negatives"])
def test_anchors_with_an_empty_set_contribute_nothing(missing: str) -> None:
    """The others contribute what they always do, and no gradient turns NaN."""
    items, sets, anchors = setting("pairs", "both")
    masks = {"positives": sets.positives.clone(), "negatives": sets.negatives.clone()}
    masks[missing][2] = False
    reduced = anchors.copy()
    reduced[2] = anchors[2]._replace(positives=[]) if missing == "positives" else anchors[2]._replace(negatives=[])
    z = torch.from_numpy(items).requires_grad_()
    loss = losses.contrasim(similarities(z, len(anchors), "dot") / 0.07, **masks)
    expected = oracles.contrasim(list(items), reduced, 0.07)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert expected != pytest.approx(oracles.contrasim(list(items), anchors, 0.07), rel=1e-3)
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(gradient).all()


def test_supcon_averages_over_the_anchors_with_positives() -> None:
    items, sets, anchors = setting("pairs", "both")
    positives = sets.positives.clone()
    positives[2] = False
    reduced = anchors.copy()
    reduced[2] = anchors[2]._replace(positives=[])
    z = torch.from_numpy(items).requires_grad_()
    loss = losses.supcon(similarities(z, len(anchors), "dot") / 0.07, positives, sets.others)
    assert loss.item() == pytest.approx(oracles.supcon(list(items), reduced, 0.07), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("side", ["both", "first"])
@pytest.mark.parametrize("objective", ["contrasim", "supcon"])
@pytest.mark.parametrize("rows", ["any", "alike", "opposite", "one pair"])
@pytest.mark.parametrize("temperature", [0.07, losses.MILD])
def test_pairs_without_masks_are_those_with_masks(objective: str, side: Side, rows: str, temperature: float) -> None:
    """Values and gradients, which are written out by hand; in float64, and in float32 as far as that goes."""
    z = torch.from_numpy(encoded(2 * ROWS, 1)).squeeze(1)
    if rows == "alike":
        z = z[:1] + 1e-3 * z
    if rows == "opposite":
        z[1:] = -z[:1] + 1e-3 * z[1:]
    if rows == "one pair":
        z[ROWS:] = z[:ROWS]
    z = torch.nn.functional.normalize(z, dim=1)
    expected = with_masks(objective, z, side, temperature)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        found = without_masks(objective, z.to(dtype), side, temperature)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * float(other.abs().max()))
    assert expected[1].abs().max() > (0.1 if rows == "any" else 0)


def with_masks(objective: str, z: torch.Tensor, side: Side, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient by similarity matrix, masks and autograd."""
    sets, z = losses.pair_sets(len(z) // 2, side), z.clone().requires_grad_()
    s = (z @ z.T)[: len(sets.positives)] / temperature
    loss = getattr(losses, objective)(s, sets.positives, sets.others if objective == "supcon" else sets.negatives)
    return loss.detach(), torch.autograd.grad(loss, z)[0]


def without_masks(objective: str, z: torch.Tensor, side: Side, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by the rows of two views."""
    z = z.clone().requires_grad_()
    loss = losses.paired(*z.chunk(2), temperature, objective == "supcon", side == "first")
    return loss.detach(), torch.autograd.grad(loss, z)[0]


@pytest.mark.parametrize("first_only", [True, False])
@pytest.mark.parametrize("all_others", [True, False])
def test_the_gradients_of_pairs_are_the_slopes_of_the_loss(all_others: bool, first_only: bool) -> None:
    first, second = (torch.from_numpy(z).requires_grad_() for z in encoded(2, 4))
    assert torch.autograd.gradcheck(
        lambda a, b: losses.paired(a, b, 0.5, all_others, first_only), (first, second), fast_mode=False
    )


def test_the_gradient_of_a_similarity_matrix_is_its_slope() -> None:
    """Also where what comes back for s_ij is not what comes back for s_ji."""
    z = torch.from_numpy(encoded(3, 2)).requires_grad_()
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3)))
    assert torch.autograd.gradcheck(lambda items: (losses.similarity_matrix(items) * weights).sum(), z)


def test_low_temperatures_leave_float32_without_a_shift() -> None:
    """Why `paired` is for mild ones: negatives that are far away leave nothing of their sum."""
    assert not losses.mild(0.9 * losses.MILD)
    z = torch.zeros(4, 2)
    z[0, 0], z[1:, 0] = 1, -1
    assert not torch.isfinite(without_masks("contrasim", z, "both", 0.005)[0])
    assert torch.isfinite(without_masks("contrasim", z, "both", losses.MILD)[0])
