"""The same numbers by NumPy's arrays and by torch's tensors, of the same formulas: as far apart as float64 rounds."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from contrasim_cli import arrays
from contrasim_cli.arrays import NUMPY, Device, as_tensor
from contrasim_cli.grid import Grid, Plan, layer_grids
from contrasim_cli.measures import MEASURES, Options
from contrasim_cli.measures.load import load
from contrasim_cli.scoring import closed_form
from contrasim_cli.store import Layer, Store, align

EPS = float(np.finfo(np.float64).eps)
EXTRA = {name for name, entry in MEASURES.items() if entry.extra}
# shape and common offset of the rows; how many times larger it is than they spread, by which rounding grows
CASES = {"plain": (60, 8, 0.0, 1.0), "wide": (30, 70, 0.0, 1.0), "offset": (60, 8, 1e6, 1e6)}

Matrix = npt.NDArray[np.float64]


def sides(n: int, p: int, offset: float) -> list[Matrix]:
    """Two noisy copies of the same rows."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, p))
    return [rows + rng.normal(size=(n, p)) + offset for _ in range(2)]


def alone(name: str, both: list[Matrix], device: Device) -> float:
    measure = load(name, Options())
    return float(measure.compare(*(measure.prepare(as_tensor(side.copy(), device)) for side in both)))


def in_a_grid(name: str, both: list[Matrix], device: Device) -> float:
    stores = [Store(Path(f"{k}.h5"), "arrays", {"x": Layer("x", side)}) for k, side in enumerate(both)]
    plan = Plan(align(stores, "order"), [(0, 1)], [["x"], ["x"]], [["x"], ["x"]])
    grid = Grid(plan, closed_form([name], Options()), device, 1 << 30, precision="float64")
    return float(layer_grids(grid)[0, 0, 1][0, 0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", sorted(set(MEASURES) - EXTRA))
def test_either_library_says_the_same(name: str, case: str) -> None:
    """To 1e-12, and to 50 roundings times the offset over the spread; absolute where a score is below 1."""
    n, p, offset, condition = CASES[case]
    both = sides(n, p, offset)
    bound = max(1e-12, 50 * EPS * condition)
    for score in (alone, in_a_grid):
        by_numpy, by_torch = (score(name, both, device) for device in (NUMPY, torch.device("cpu")))
        assert by_numpy == pytest.approx(by_torch, rel=bound, abs=bound, nan_ok=True), score.__name__


@pytest.mark.torch_only
@pytest.mark.parametrize(("rows", "threads"), [(8, 1), (1100, 2)])
def test_a_small_matrix_is_decomposed_by_one_thread(monkeypatch: pytest.MonkeyPatch, rows: int, threads: int) -> None:
    before, used = torch.get_num_threads(), []
    theirs = torch.linalg.svdvals

    def noted(matrix: torch.Tensor) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return theirs(matrix[:2])

    monkeypatch.setattr(torch.linalg, "svdvals", noted)
    torch.set_num_threads(2)
    try:
        arrays._decomposition(noted)(torch.zeros(rows, rows))
        assert (used, torch.get_num_threads()) == ([threads], 2)
    finally:
        torch.set_num_threads(before)
