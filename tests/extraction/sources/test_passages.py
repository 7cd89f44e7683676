"""What columns say besides the text: spans and positions."""

import json
from pathlib import Path
from typing import Any

import pytest

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.extraction.sources.layout import Layout
from contrasim_cli.extraction.sources.passages import Passage
from contrasim_cli.extraction.sources.source import Choice
from contrasim_cli.extraction.sources.texts import text_sources


def items(path: Path, layout: Layout, **choice: Any) -> list[Any]:
    (source,) = text_sources(path, ["en"], None, Choice(**choice), layout)
    return [item for block in source.blocks(2) for item in block]


def objects(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps({"en": "abcd"} | value) + "\n" for value in values))
    return path


def test_spans_and_positions_come_with_their_texts(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("en\tat\tspan\nab cd\t-1\t3:5\nx\t 2 \t 0 : 1 \n")
    expected = [Passage("ab cd", (3, 5), {"at": -1}), Passage("x", (0, 1), {"at": 2})]
    assert items(tmp_path / "s.tsv", Layout(span="span", positions=["at"])) == expected
    path = objects(tmp_path / "s.jsonl", {"at": 3, "span": [0, 4]}, {"at": "-3", "span": "1:2"})
    expected = [Passage("abcd", (0, 4), {"at": 3}), Passage("abcd", (1, 2), {"at": -3})]
    assert items(path, Layout(span="span", positions=["at"])) == expected


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("2", 'holds "2" in field span, which is no span; write it as "start:end", in characters'),
        ([1, 2.0], 'holds [1, 2.0] in field span, which is no span; write it as "start:end", in characters'),
        ([True, 2], 'holds [true, 2] in field span, which is no span; write it as "start:end", in characters'),
        (None, 'holds null in field span, which is no span; write it as "start:end", in characters'),
        ("2:2", 'holds "2:2" in field span, which is an empty span'),
        ([3, 5], "holds [3, 5] in field span, which is outside of the text of 4 characters"),
        ([-2, 3], "holds [-2, 3] in field span, which is outside of the text of 4 characters"),
    ],
)
def test_a_span_that_is_none_is_a_bad_row(tmp_path: Path, span: Any, message: str) -> None:
    path = objects(tmp_path / "s.jsonl", {"span": "0:1"}, {"span": span})
    with pytest.raises(InputError) as caught:
        items(path, Layout(span="span"))
    assert str(caught.value) == f"{path}: line 2 {message}; correct it, or leave it out with --skip-bad"
    assert items(path, Layout(span="span"), skip_bad=True) == [Passage("abcd", (0, 1))]


@pytest.mark.parametrize("value", ["", "x", 1.5, "first", True, "99999999999"])
def test_a_position_is_a_whole_number(tmp_path: Path, value: Any) -> None:
    path = objects(tmp_path / "s.jsonl", {"at": 0}, {"at": value})
    with pytest.raises(InputError) as caught:
        items(path, Layout(positions=["at"]))
    said = f"line 2 holds {json.dumps(value)} in field at, which is no position; write a whole number"
    assert str(caught.value) == f"{path}: {said}; correct it, or leave it out with --skip-bad"


def test_a_column_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    path = objects(tmp_path / "s.jsonl", {"at": 0}, {"at": 1})
    with pytest.raises(UsageError) as caught:
        items(path, Layout(span="where"))
    assert str(caught.value) == f"{path}: has no field where; the first object has en, at"
    (tmp_path / "s.tsv").write_text("en\tat\nx\t1\n")
    with pytest.raises(UsageError) as caught:
        items(tmp_path / "s.tsv", Layout(span="where"))
    assert str(caught.value) == f"{tmp_path}/s.tsv: has no column where; it has en, at"


def test_a_span_is_of_one_text(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("en\tde\tat\nx\ty\t0:1\n")
    with pytest.raises(UsageError) as caught:
        text_sources(tmp_path / "s.tsv", ["en", "de"], None, layout=Layout(span="at"))
    assert str(caught.value) == "--span at applies to one text; give one --column, and run once for each"
