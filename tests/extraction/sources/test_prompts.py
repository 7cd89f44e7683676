"""Prompts, chats and spans in them: what a model is given of a row."""

import json
from pathlib import Path
from typing import Any

import pytest

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.extraction.sources.layout import Layout
from contrasim_cli.extraction.sources.passages import Passage
from contrasim_cli.extraction.sources.prompts import parsed
from contrasim_cli.extraction.sources.source import Choice, Source
from contrasim_cli.extraction.sources.texts import text_sources

MESSAGES = [{"role": "system", "content": "short"}, {"role": "user", "content": "hi", "name": "x"}]


def source(path: Path, layout: Layout, *columns: str, **choice: Any) -> Source:
    return text_sources(path, columns, None, Choice(**choice), layout)[0]


def items(path: Path, layout: Layout, *columns: str, **choice: Any) -> list[Any]:
    return [item for block in source(path, layout, *columns, **choice).blocks(2) for item in block]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "s.tsv").write_text("en\tde\tat\na b\tc\t2:3\n{x}\ty\t0:2\n")
    return tmp_path / "s.tsv"


def objects(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def test_columns_are_put_into_a_prompt(table: Path) -> None:
    prompt = parsed("{{en}}: {en} = {de}, {en}!")
    assert items(table, Layout(prompt)) == ["{en}: a b = c, a b!", "{en}: {x} = y, {x}!"]
    assert source(table, Layout(prompt)).settings == {"prompt": "{{en}}: {en} = {de}, {en}!"}
    assert items(table, Layout(prompt), skip_pattern="b = c") == ["{en}: {x} = y, {x}!"]


def test_a_span_is_shifted_to_its_place_in_the_prompt(table: Path) -> None:
    expected = [Passage("c> a b.", (5, 6)), Passage("y> {x}.", (3, 5))]
    layout = Layout(parsed("{de}> {en}."), span="at")
    assert items(table, layout, "en") == expected
    assert [item.text[slice(*item.span)] for item in items(table, layout, "en")] == ["b", "{x"]
    only = Layout(parsed("-- {en}"), span="at")
    assert items(table, only) == items(table, only, "en") == [Passage("-- a b", (5, 6)), Passage("-- {x}", (3, 5))]


def test_lines_are_put_into_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("one\ntwo\n")
    assert items(tmp_path / "s.txt", Layout(parsed("a {text}"))) == ["a one", "a two"]
    with pytest.raises(UsageError, match=r"s\.txt: has no column line; it has text$"):
        items(tmp_path / "s.txt", Layout(parsed("{line}")))


def test_numbers_of_objects_are_put_into_a_prompt(tmp_path: Path) -> None:
    path = objects(tmp_path / "s.jsonl", {"y": 1999, "x": 0.5}, {"y": "then", "x": -1}, {"y": None, "x": 1})
    assert items(path, Layout(parsed("{y} {x}")), limit=2) == ["1999 0.5", "then -1"]
    with pytest.raises(InputError, match="line 3 holds null in field y, which is neither a text nor a number"):
        items(path, Layout(parsed("{y} {x}")))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{a", "expected '}' before end of string; write columns as {column}, and braces themselves as {{ and }}"),
        ("a } {en}", "Single '}' encountered in format string; write columns as {column}, and braces themselves as {{ and }}"),
        ("{} {en}", "a column without a name; write columns as {column}, and braces themselves as {{ and }}"),
        ("as it is {{en}}", "has no column in it; write one as {column}"),
    ],
)  # fmt: skip
def test_a_prompt_that_is_none_is_one_line(prompt: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(prompt)
    assert str(caught.value) == f"--prompt {prompt}: {message}"


@pytest.mark.parametrize(
    ("layout", "columns", "message"),
    [
        (Layout(parsed("{fr}")), (), "{table}: has no column fr; it has en, de, at"),
        (Layout(parsed("{en:>5}")), (), "{table}: has no column en:>5; it has en, de, at"),
        (Layout(parsed("{en}")), ("en",), "--prompt says which columns it takes; leave out --column"),
        (
            Layout(parsed("{en} {de}"), span="at"),
            (),
            "--span at: say with --column which column of the prompt it belongs to",
        ),
        (
            Layout(parsed("{en} {en}"), span="at"),
            ("en",),
            "--span at: column en is in the prompt 2 times; it has to be there once",
        ),
        (
            Layout(parsed("{en}"), span="at"),
            ("de",),
            "--span at: column de is in the prompt 0 times; it has to be there once",
        ),
    ],
)
def test_a_prompt_that_does_not_fit_the_table_is_one_line(
    table: Path, layout: Layout, columns: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        items(table, layout, *columns)
    assert str(caught.value) == message.replace("{table}", str(table))


def test_messages_are_chats_and_texts_are_one_message(tmp_path: Path) -> None:
    path = objects(tmp_path / "s.jsonl", {"messages": MESSAGES, "at": 1}, {"messages": "hi", "at": 2})
    assert items(path, Layout(chat=True)) == [Passage("short\nhi", messages=MESSAGES), "hi"]
    assert items(path, Layout(chat=True, positions=["at"])) == [
        Passage("short\nhi", None, {"at": 1}, MESSAGES),
        Passage("hi", None, {"at": 2}),
    ]
    assert items(path, Layout(chat=True), skip_pattern="short") == ["hi"]
    assert source(path, Layout(chat=True)).column == "messages"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "holds [] in field messages, which is a chat without messages"),
        (
            ["hi"],
            'holds "hi" in field messages, which is no message; expected an object with role and content, which are texts',
        ),
        (
            [{"role": "user", "content": 3}],
            'holds {"role": "user", "co in field messages, which is no message; expected an object with role and content, '
            "which are texts",
        ),
        (3, "holds 3 in field messages, which is no text"),
    ],
)
def test_what_is_no_chat_is_a_bad_row(tmp_path: Path, messages: Any, message: str) -> None:
    path = objects(tmp_path / "s.jsonl", {"messages": MESSAGES}, {"messages": messages})
    with pytest.raises(InputError) as caught:
        items(path, Layout(chat=True))
    assert str(caught.value) == f"{path}: line 2 {message}; correct it, or leave it out with --skip-bad"


def test_a_list_is_no_text_without_a_template(tmp_path: Path) -> None:
    path = objects(tmp_path / "s.jsonl", {"messages": MESSAGES})
    with pytest.raises(InputError, match=r"line 1 holds .{20} in field messages, which is no text"):
        items(path, Layout(), "messages")


def test_chats_without_their_field_are_one_line(tmp_path: Path) -> None:
    path = objects(tmp_path / "s.jsonl", *[{"en": "a"}] * 3)
    with pytest.raises(UsageError) as caught:
        items(path, Layout(chat=True))
    assert str(caught.value) == f"{path}: has no field messages; the first object has en"


def test_a_span_of_messages_is_refused(tmp_path: Path) -> None:
    path = objects(tmp_path / "s.jsonl", {"messages": MESSAGES, "at": "0:1"})
    with pytest.raises(
        InputError, match='holds "0:1" in field at, which is a span of a chat of messages; spans are of'
    ):
        items(path, Layout(chat=True, span="at"))
