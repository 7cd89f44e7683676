"""Options of the tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests of faults come in two lengths."""
    parser.addoption(
        "--faults",
        choices=["short", "long"],
        default="short",
        help="tests/faults: short, or long: hours of kills, damage, fuzzing and load",
    )
