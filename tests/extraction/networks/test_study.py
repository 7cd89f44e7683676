"""The study of architectures, on a sample of them: rows are those of the item alone, or refused; none is wrong."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest

STUDY = Path(__file__).parents[2] / "studies" / "architectures.py"


@pytest.fixture
def study() -> Any:
    spec = importlib.util.spec_from_file_location("architectures", STUDY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    logging.disable(logging.NOTSET)


@pytest.mark.slow
def test_no_row_of_forty_architectures_is_wrong(study: Any) -> None:
    logging.disable(logging.ERROR)
    found = list(study.cases_of(study.spread(study.architectures()), study.PARTS, study.CI))
    assert len(found) == study.CI
    found += study.cases_of(["bart", "marian", "t5", "pegasus"], ("encoder", "decoder"))
    cases = [case for of in found for case in of]
    assert [case for case in cases if case.verdict == "wrong"] == []
    assert {case.part for case in cases if case.verdict == "equal"} == set(study.PARTS)
    assert sum(case.verdict == "equal" for case in cases) >= 0.9 * len(cases)


def test_a_row_that_is_off_is_found(study: Any) -> None:
    """The control of the comparison."""
    import numpy as np
    import torch

    states = [[torch.ones(3, 4)], [torch.full((2, 4), 2.0)]]
    right = {"hidden_0": np.array([[1.0] * 4, [2.0] * 4], np.float32)}
    assert study.compared("text", right, states) is None
    wrong = {"hidden_0": right["hidden_0"] + np.float32(1e-3)}
    assert study.compared("text", wrong, states).startswith("hidden_0: off by")
    assert study.compared("text", {}, states) == "no hidden states"
