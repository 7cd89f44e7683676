"""Options of the tests, and what each of them finds as it was."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # workers share the processor: none takes all of it, nor do the commands that they run
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which tests run: all but the slow ones unless it is said; tests of faults come in two lengths."""
    parser.addoption("--all", action="store_true", help="the slow tests too")
    parser.addoption(
        "--faults",
        choices=["short", "long"],
        default="short",
        help="tests/faults: short, or long: hours of kills, damage, fuzzing and load",
    )
    parser.addoption("--faults-figures", type=Path, help="tests/faults: keep what was counted so far in this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out, unless they are asked for, all of them or one by its name."""
    if config.getoption("--all") or any("::" in asked for asked in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    """No test finds the logger as another has left it."""
    logger = logging.getLogger("contrasim_cli")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before
