"""Results as Parquet: the same values as in TSV and JSON, with their types, and how they were found."""

import io
import json
import math

import pytest

from contrasim_cli.report.results import BenchRow, Results, ScoreRow

pq = pytest.importorskip("pyarrow.parquet")

from contrasim_cli.report import parquet  # noqa: E402

ABOUT = {"inputs": ["ä.h5", "b\udcff.h5"], "argv": ["contrasim", "baseline"], "rows": 7}


def read(results: Results) -> tuple[list[dict[str, object]], dict[str, str], dict[str, object]]:
    table = pq.read_table(io.BytesIO(parquet.to_bytes(results, 1)))
    types = {field.name: str(field.type) for field in table.schema}
    return table.to_pylist(), types, json.loads(table.schema.metadata[b"contrasim"])


def test_scores_come_back() -> None:
    rows = [
        ScoreRow("cka", "a", "=x", "b", "ÿ\n", 0.1 + 0.2, 0.1, math.inf),
        ScoreRow("cka", "a", "\udcff", "b", "z", None),
        ScoreRow("cka", "a", "x", "b", "z", math.nan),
    ]
    found, types, about = read(Results("baseline", ScoreRow, rows, ABOUT, ["ci_low", "ci_high"]))
    assert list(found[0].values()) == ["cka", "a", "=x", "b", "ÿ\n", 0.1 + 0.2, 0.1, None]
    assert [row["score"] for row in found[1:]] == [None, None]
    assert found[1]["layer_a"] == "\\udcff"
    assert types == dict.fromkeys(["measure", "store_a", "layer_a", "store_b", "layer_b"], "string") | dict.fromkeys(
        ["score", "ci_low", "ci_high"], "double"
    )
    assert (about["schema_version"], about["command"], about["argv"]) == (1, "baseline", ABOUT["argv"])


def test_numbers_of_trials_are_integers_and_none_of_them_is_lost() -> None:
    row = BenchRow("layers", "cka", "", "all", "all", 0.5, None, None, None, 0.25, 60, None, None, recall=None)
    found, types, _ = read(Results("bench", BenchRow, [row], {}, ["recall"]))
    assert (found[0]["trials"], types["trials"], types["recall"]) == (60, "int64", "double")


def test_no_rows_keep_their_columns() -> None:
    found, types, _ = read(Results("bench", BenchRow, []))
    assert (found, types["accuracy"]) == ([], "double")
