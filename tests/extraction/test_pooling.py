import numpy as np
import pytest
import torch

from contrasim_cli.extraction.pooling import masked_mean, pool_maps, pool_patches, pool_tokens, span_rows, spatial_mean

LENGTHS = (5, 1, 3)
TOKENS = 7


def slow(states: torch.Tensor, how: str) -> torch.Tensor:
    """Pooling of one unpadded text."""
    largest = torch.tensor([max(column) for column in states.T.tolist()])
    return {"cls": states[0], "last": states[-1], "mean": sum(states) / len(states), "max": largest}[how]


def padded(rows: list[torch.Tensor], side: str, filler: float) -> tuple[torch.Tensor, torch.Tensor]:
    states = torch.full((len(rows), TOKENS, 4), filler)
    mask = torch.zeros(len(rows), TOKENS, dtype=torch.long)
    for place, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(TOKENS - len(row), TOKENS)
        states[place, where], mask[place, where] = row, 1
    return states, mask


@pytest.fixture
def rows() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(length, 4) for length in LENGTHS]


@pytest.mark.parametrize("how", ["cls", "mean", "last", "max"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("filler", [0.0, 1e6, float("nan")])
def test_what_is_padded_never_counts(rows: list[torch.Tensor], how: str, side: str, filler: float) -> None:
    states, mask = padded(rows, side, filler)
    expected = torch.stack([slow(row, how) for row in rows])
    torch.testing.assert_close(pool_tokens(states, mask, how), expected)


def test_without_its_mask_a_mean_depends_on_the_padding(rows: list[torch.Tensor]) -> None:
    states, mask = padded(rows, "right", 1.0)
    assert not torch.allclose(masked_mean(states, torch.ones_like(mask)), masked_mean(states, mask))


def test_patch_mean_leaves_out_the_tokens_before_the_patches() -> None:
    states = torch.randn(2, 6, 4)
    torch.testing.assert_close(pool_patches(states, (0, 1), "patch-mean"), states[:, 2:].mean(1))
    torch.testing.assert_close(pool_patches(states, (0, 1), "spatial-mean"), states[:, 2:].mean(1))
    torch.testing.assert_close(pool_patches(states, (0, 1), "cls"), states[:, 0])
    torch.testing.assert_close(pool_patches(states, (0, 1), "flatten"), states.view(2, 24))


@pytest.mark.parametrize("how", ["mean", "first", "last"])
def test_a_span_is_a_row(how: str) -> None:
    states = torch.randn(3, TOKENS, 4)
    spans = torch.tensor([[0, 1, 2], [0, 2, 6], [2, 0, 3], [2, 3, 7]])
    expected = []
    for item, first, stop in spans.tolist():
        tokens = [states[item, place] for place in range(first, stop)]
        expected.append({"mean": sum(tokens) / len(tokens), "first": tokens[0], "last": tokens[-1]}[how])
    before = states.clone()
    torch.testing.assert_close(span_rows(states, spans, how), torch.stack(expected))
    torch.testing.assert_close(states, before)
    assert span_rows(states, spans[:0], how).shape == (0, 4)


def test_spatial_mean_is_the_mean_of_every_channel() -> None:
    maps = torch.randn(2, 3, 4, 5)
    expected = [[float(np.mean(channel)) for channel in image] for image in maps.numpy()]
    np.testing.assert_allclose(spatial_mean(maps).numpy(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(pool_maps(maps, "spatial-mean"), spatial_mean(maps))
    torch.testing.assert_close(pool_maps(maps, "flatten"), maps.view(2, 60))
