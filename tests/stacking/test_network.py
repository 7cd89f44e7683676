"""The network over grids: what it does not mind, what calibrated scores are, and that it learns correspondence."""

import numpy as np
import pytest
import torch

from contrasim_cli.stacking.network import GridNetwork
from contrasim_cli.stacking.training import Batches, Example, loss, same_depth

K = 3
IDENTITY = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)


def network(members: int = 2) -> GridNetwork:
    torch.manual_seed(0)
    made = GridNetwork(K, (8, 8), members).double().eval()
    for member in made.members:
        torch.nn.init.normal_(member.weights)
    return made


def grids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, size=shape))


def test_scores_do_not_mind_the_order_of_layers_nor_which_store_is_first():
    made, u = network(), grids(K, 4, 6)
    rows, columns = torch.randperm(4), torch.randperm(6)
    torch.testing.assert_close(made(u[:, rows][:, :, columns]), made(u)[:, rows][:, :, columns])
    torch.testing.assert_close(made(u.mT), made(u).mT)


def test_scores_of_a_batch_are_those_of_each():
    made, u = network(), grids(5, K, 4, 6)
    torch.testing.assert_close(made(u)[:, 2], made(u[2]))


def test_a_cell_alone_scores_the_weighted_mean_of_its_advantages():
    made, u = network(1), grids(K, 1, 1)
    (member,) = made.members
    expected = float((member.weights.softmax(0) * u.flatten()).sum().detach())
    assert made.calibrated(u).item() == pytest.approx(expected)
    assert made(u).item() == pytest.approx(member.gain.item() * expected)


def test_a_cell_among_others_scores_otherwise():
    """The control: context counts where there is some."""
    made, u = network(), grids(K, 2, 2)
    alone = made(u[:, :1, :1])
    assert not torch.allclose(made(u)[:, :1, :1], alone)


def test_calibrated_scores_are_0_at_the_level_and_1_for_a_layer_with_itself():
    made = network()
    assert made.calibrated(torch.zeros(K, 2, 2, dtype=torch.float64)).abs().max() == 0
    torch.testing.assert_close(made.calibrated(torch.ones(K, 2, 2, dtype=torch.float64)), torch.ones(2, 2).double())


def test_measures_that_are_undefined_are_left_out_of_the_mean():
    made, u = network(1), torch.ones(K, 1, 2, dtype=torch.float64)
    u[0, 0, 0] = u[:, 0, 1] = torch.nan
    assert made.calibrated(u).tolist()[0][0] == pytest.approx(1.0)
    judged = made.judge(torch.full((K, 1, 1), torch.nan).double(), torch.zeros(2, K, 1, 1).double(), IDENTITY)
    assert bool(judged.scores.isnan().all())


def test_of_other_depths_the_nearest_in_relative_depth_correspond():
    assert same_depth(3, 3).equal(torch.eye(3, dtype=torch.bool))
    assert same_depth(2, 3).tolist() == [[True, True, False], [False, True, True]]
    assert same_depth(1, 1).tolist() == [[True]]
    assert bool(same_depth(12, 24).any(dim=1).all())


def example(seed: int, layers: int = 5, group: str = "") -> Example:
    """Measures that tell the same layer a little, under effects of each layer that tell nothing."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(K, layers, 1)) + rng.normal(size=(K, 1, layers))
    levels = 0.1 + 0.01 * rng.normal(size=(2, K, layers, layers))
    better = 0.08 * np.eye(layers) + 0.1 * effects + 0.01 * rng.normal(size=effects.shape)
    values = 0.4 + better
    values[2], levels[:, 2] = 1 - values[2], 1 - levels[:, 2]  # of which lower is more similar
    return Example(torch.from_numpy(values), torch.from_numpy(levels), same_depth(layers, layers), group)


def learned(objective: str) -> GridNetwork:
    torch.manual_seed(0)
    made = GridNetwork(K, (16, 16), 1, dropout=0.1)
    batches = Batches([example(seed) for seed in range(20)], IDENTITY, 16, 0)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    for step in range(60):
        u, shuffled, positives = batches.draw(step)
        optimizer.zero_grad()
        loss(objective, made(u), made(shuffled), positives).backward()
        optimizer.step()
    return made.eval()


def accuracy(made: GridNetwork, shuffled: bool = False) -> float:
    right = []
    for seed in range(100, 120):
        one = example(seed)
        scores = made.judge(one.shuffled[1] if shuffled else one.values, one.shuffled, IDENTITY).scores
        right.extend((scores.argmax(1) == torch.arange(5)).tolist())
    return float(np.mean(right))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["supcon", "contrasim"])
def test_it_learns_what_no_single_measure_tells(objective):
    made = learned(objective)
    singles = [
        np.mean([(sign * example(s).values[k]).argmax(1).eq(torch.arange(5)).double().mean() for s in range(100, 120)])
        for k, sign in enumerate((1, 1, -1))
    ]
    assert max(singles) < 0.7
    assert accuracy(made) > 0.9
    assert accuracy(made, shuffled=True) < 0.45  # chance is 0.2


def test_draws_depend_on_seed_and_step_alone():
    examples = [example(seed, layers, group) for seed, (layers, group) in enumerate([(5, "a"), (5, "b"), (7, "a")])]
    one, other = Batches(examples, IDENTITY, 4, 1), Batches(examples, IDENTITY, 4, 1)
    other.draw(0)
    for a, b in zip(one.draw(5), other.draw(5), strict=True):
        assert torch.equal(a.nan_to_num(9), b.nan_to_num(9))
    assert not torch.equal(one.draw(6)[0].nan_to_num(9), one.draw(5)[0].nan_to_num(9))


def test_draws_are_cuts_of_the_examples():
    """Positives go with their cells: among cut cells the better ones are the same layers."""
    batches = Batches([example(seed, 6) for seed in range(8)], IDENTITY, 16, 0)
    lead = []
    for step in range(20):
        u, _, positives = batches.draw(step)
        interaction = u - u.mean(-1, keepdim=True) - u.mean(-2, keepdim=True) + u.mean((-1, -2), keepdim=True)
        of_first = interaction[:, 0]
        if bool(positives.any()) and bool((~positives).any()):
            lead.append(float(of_first[positives].nanmean() - of_first[~positives].nanmean()))
    assert np.nanmean(lead) > 0.02


def test_every_second_member_is_blind_to_some_measures() -> None:
    torch.manual_seed(0)
    made = GridNetwork(K, (8, 8), 3, blind=(1,)).double().eval()
    u = torch.rand(K, 4, 5, dtype=torch.float64)
    other = u.clone()
    other[1] = torch.rand(4, 5, dtype=torch.float64)
    before, after = made(u), made(other)
    assert torch.equal(before[1], after[1])
    assert not torch.isclose(before[0], after[0]).any()
    assert not torch.isclose(before[2], after[2]).any()
    seen = u.masked_fill(torch.arange(K)[:, None, None] == 1, torch.nan)
    assert torch.equal(before[1], made(seen)[1])
    means = torch.stack([member.mean(x) for member, x in zip(made.members, (u, seen, u), strict=True)])
    assert torch.allclose(made.calibrated(u), means.mean(dim=0))
