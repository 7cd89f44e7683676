"""The oracle of every measure, by name: the `MEASURES` of all `oracles*.py` beside this file."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy.typing as npt

ORACLES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {}
for _file in sorted(Path(__file__).parent.glob("oracles*.py")):
    ORACLES.update(import_module(_file.stem).MEASURES)
