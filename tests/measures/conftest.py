"""Every test of measures is run by both libraries."""

import pytest
from libraries import by_either_library  # noqa: F401


@pytest.fixture(autouse=True)
def _library(by_either_library: None) -> None:  # noqa: F811
    pass
