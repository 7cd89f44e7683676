"""What the tests of faults share: one process that forks, one folder of inputs, and how long they may take."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.warm import Warm
from faults.workplace import furnish


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """The process that forks."""
    with Warm() as process:
        yield process


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    return furnish(tmp_path_factory.mktemp("inputs") / "inputs")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether hours may be spent."""
    return bool(request.config.getoption("--faults") == "long")
