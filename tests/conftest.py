"""Options of the tests."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests of faults come in two lengths."""
    parser.addoption(
        "--faults",
        choices=["short", "long"],
        default="short",
        help="tests/faults: short, or long: hours of kills, damage, fuzzing and load",
    )
    parser.addoption("--faults-figures", type=Path, help="tests/faults: keep what was counted so far in this file")
