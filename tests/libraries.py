"""The same arithmetic by either library: by the one that little work is for, which a fixture chooses."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from contrasim_cli.arrays import NUMPY, Device, Tensor, as_tensor
from contrasim_cli.device import pick_device


@pytest.fixture(params=["numpy", "torch"])
def by_either_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All work is little, or none is; and a test module's CPU is that library's. Tests marked `torch_only` are torch's alone."""
    numpy = request.param == "numpy"
    if numpy and request.node.get_closest_marker("torch_only"):
        pytest.skip("of torch's tensors")
    monkeypatch.setattr("contrasim_cli.device.LITTLE", 1e300 if numpy else -1.0)
    if hasattr(request.module, "CPU"):
        monkeypatch.setattr(request.module, "CPU", NUMPY if numpy else torch.device("cpu"))


def processor() -> Device:
    """Where little work is done."""
    return pick_device("cpu", work=0)


def tensor(values: npt.ArrayLike) -> Tensor:
    """Values there."""
    return as_tensor(np.asarray(values), processor())


def assert_close(found: Any, expected: Any, rtol: float = 1e-7, atol: float = 1e-7) -> None:
    """Tensors, or tuples of them, are of one shape and type, and hold about the same values; NaN equals NaN."""
    if isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, rtol, atol)
        return
    one, other = np.asarray(found), np.asarray(expected)
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)
