"""Cells that hold an end of line are the numbers in them, or one line of error."""

from pathlib import Path

import numpy as np
import pytest

from contrasim_cli.errors import InputError
from contrasim_cli.store import open_store


def test_a_quoted_number_with_a_line_break_is_that_number(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('2,3\n"\n1",4\n5,6\n')
    store = open_store(path)
    (name,) = store.layers
    np.testing.assert_array_equal(store.read(name, 0, 3), [[2, 3], [1, 4], [5, 6]])


def test_two_numbers_in_a_cell_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('2,3\n"1\n7",4\n5,6\n')
    with pytest.raises(InputError):
        open_store(path)
