"""Texts in packed files, in Parquet and Arrow, and in data sets of Hugging Face."""

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contrasim_cli import limits
from contrasim_cli.errors import ContraSimError, InputError, MissingError, UsageError
from contrasim_cli.extraction.sources import packed
from contrasim_cli.extraction.sources.hub_dataset import open_dataset
from contrasim_cli.extraction.sources.layout import Layout
from contrasim_cli.extraction.sources.open import InputOptions, open_sources
from contrasim_cli.extraction.sources.passages import Passage
from contrasim_cli.extraction.sources.prompts import parsed
from contrasim_cli.extraction.sources.source import Choice, Source
from contrasim_cli.extraction.sources.texts import text_source, text_sources

zstandard = pytest.importorskip("zstandard")
pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")

TEXTS = ["one", "two, \u00e9", "", "four"]
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
}
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def items(source: Source) -> list[Any]:
    return [item for block in source.blocks(2) for item in block]


def refusal(error: type[ContraSimError], *args: Any, **options: Any) -> str:
    with pytest.raises(error) as caught:
        text_sources(*args, **options)
    return str(caught.value)


# packed


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("s.txt", "".join(f"{text}\n" for text in TEXTS), None),
        ("s.tsv", "id\ten\n" + "".join(f"{k}\t{text}\n" for k, text in enumerate(TEXTS)), "en"),
        ("s.csv", "id,en\n" + "".join(f'{k},"{text}"\n' for k, text in enumerate(TEXTS)), "en"),
        ("s.jsonl", "".join(json.dumps({"en": text}) + "\n" for text in TEXTS), "en"),
    ],
)
def test_a_packed_file_is_read_as_the_plain_one(
    tmp_path: Path, packing: str, name: str, content: str, column: str | None
) -> None:
    (tmp_path / name).write_text(content)
    path = tmp_path / f"{name}{packing}"
    path.write_bytes(PACK[packing](content.encode()))
    plain, found = text_source(tmp_path / name, column), text_source(path, column)
    assert items(found) == items(plain) == TEXTS
    assert list(found.ids()) == list(plain.ids())
    assert found.digest != plain.digest


@pytest.mark.parametrize("packing", PACK)
def test_parts_that_are_packed_one_by_one_are_one_file(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"s.txt{packing}"
    path.write_bytes(b"".join(PACK[packing](f"{number}\n".encode() * 999) for number in range(3)))
    assert items(text_source(path)) == ["0"] * 999 + ["1"] * 999 + ["2"] * 999


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kept", [1, 9, -1, -9])
def test_a_packed_file_that_is_cut_short_or_damaged_is_one_line(tmp_path: Path, packing: str, kept: int) -> None:
    path = tmp_path / f"s.txt{packing}"
    content = PACK[packing]("".join(f"text {number}\n" for number in range(2000)).encode())
    path.write_bytes(content[:kept])
    said = refusal(InputError, path, [], None)
    assert said.startswith(f"{path}: cannot be unpacked (")
    assert said.endswith("); the file is damaged")
    path.write_bytes(b"plain text\n")
    assert refusal(InputError, path, [], None).startswith(f"{path}: cannot be unpacked (")


def bomb(packing: str) -> bytes:
    """A single line of 200 MB in less than 200 kB."""
    step = b"a" * (1 << 20)
    out = io.BytesIO()
    stream: Any = (
        gzip.GzipFile(fileobj=out, mode="wb")
        if packing == ".gz"
        else zstandard.ZstdCompressor().stream_writer(out, closefd=False)
    )
    with stream:
        for _ in range(200):
            stream.write(step)
    return out.getvalue()


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", ["s.txt", "s.csv"])
def test_a_line_that_would_fill_memory_is_refused(tmp_path: Path, packing: str, name: str) -> None:
    path = tmp_path / f"{name}{packing}"
    content = bomb(packing)
    assert len(content) < 200 << 10
    path.write_bytes(content)
    assert refusal(InputError, path, ["en"] if name == "s.csv" else [], None) == (
        f"{path}: line 1 unpacks to more than 64 MiB, as in a file that is made to fill memory; unpack it if it is sound"
    )


def test_a_quoted_field_that_would_fill_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrasim_cli.extraction.sources.tables.MOST_LINE", 1000)
    path = tmp_path / "s.csv.gz"
    path.write_bytes(gzip.compress(b'en\n"' + b"a\n" * 2000))
    assert "is not valid CSV (field larger than field limit (1000))" in refusal(InputError, path, ["en"], None)


def test_zstandard_is_unpacked_in_small_steps(tmp_path: Path) -> None:
    path = tmp_path / "s.txt.zst"
    path.write_bytes(bomb(".zst"))
    with packed.Unzstd(path, *packed._zstandard(path)) as stream:
        steps = [stream.readinto(bytearray(1 << 30)) for _ in range(3)]
    assert 0 < max(steps) <= 33 << 20


def test_the_library_of_python_itself_unpacks_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = SimpleNamespace(
        ZstdDecompressor=lambda: zstandard.ZstdDecompressor().decompressobj(), ZstdError=zstandard.ZstdError
    )
    monkeypatch.setitem(sys.modules, "compression", SimpleNamespace(zstd=own))
    monkeypatch.setitem(sys.modules, "compression.zstd", own)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    path = tmp_path / "s.txt.zst"
    path.write_bytes(PACK[".zst"](b"a\nb\n"))
    assert items(text_source(path)) == ["a", "b"]


def test_without_its_library_zstandard_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression", None)
    path = tmp_path / "s.txt.zst"
    path.write_bytes(PACK[".zst"](b"a\n"))
    assert refusal(MissingError, path, [], None) == (
        f"{path}: reading .zst needs the extra zst: pip install 'contrasim[zst]'"
    )


@pytest.mark.parametrize("name", ["s.tar.gz", "s.parquet.gz", "s.zip", "s.json.zst"])
def test_what_holds_no_texts_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert refusal(UsageError, tmp_path / name, [], None).startswith(f"{tmp_path / name}: --text takes .txt (one text")


# Parquet and Arrow


def table(**more: Any) -> Any:
    return pa.table({"en": TEXTS, "name": [f"r{k}" for k in range(4)], "at": [0, -1, 2, 0], **more})


def written(path: Path, content: Any) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(content, path, row_group_size=3)
    elif path.suffix == ".feather":
        feather.write_feather(content, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, content.schema) as writer:
            writer.write_table(content, max_chunksize=3)
    return path


@pytest.mark.parametrize("name", ["s.parquet", "s.feather", "s.arrow"])
def test_columns_of_texts_are_read(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, table(span=[[0, 1], [1, 3], [0, 1], [2, 4]]))
    source = text_source(path, "en", "name")
    assert (items(source), list(source.ids())) == (TEXTS, ["r0", "r1", "r2", "r3"])
    (filled,) = text_sources(path, [], None, layout=Layout(parsed("{en} {at}")))
    assert items(filled) == ["one 0", "two, \u00e9 -1", " 2", "four 0"]
    (spans,) = text_sources(path, ["en"], None, Choice(skip_bad=True), Layout(span="span", positions=["at"]))
    assert items(spans) == [
        Passage("one", (0, 1), {"at": 0}), Passage("two, \u00e9", (1, 3), {"at": -1}), Passage("four", (2, 4), {"at": 0}),
    ]  # fmt: skip
    assert spans.left_out == [
        ("2", f"{path}: row 2 holds [0, 1] in column span, which is outside of the text of 0 characters")
    ]


def test_texts_that_repeat_are_read(tmp_path: Path) -> None:
    texts = ["a", "b", "a", None] * 3
    path = written(tmp_path / "s.parquet", pa.table({"en": pa.array(texts).dictionary_encode()}))
    source = text_source(path, "en", choice=Choice(skip_bad=True))
    assert items(source) == ["a", "b", "a"] * 3
    assert source.left_out[0] == ("3", f"{path}: row 3 holds null in column en, which is no text")


@pytest.mark.parametrize("name", ["s.parquet", "s.arrow"])
def test_columns_of_messages_are_chats(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, pa.table({"messages": [MESSAGES, MESSAGES[:1]]}))
    (source,) = text_sources(path, [], None, layout=Layout(chat=True))
    assert items(source) == [Passage("hi\nho", messages=MESSAGES), Passage("hi", messages=MESSAGES[:1])]


def test_mistakes_in_tables_are_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "s.parquet", table())
    assert refusal(UsageError, path, [], None) == (
        f"{path}: say which column holds the text (--column); it has en, name, at"
    )
    assert refusal(UsageError, path, ["fr"], None) == f"{path}: has no column fr; it has en, name, at"
    assert "row 0 holds 0 in column at, which is no text" in refusal(ContraSimError, path, ["at"], None)
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(InputError, path, ["en"], None).startswith(f"{path}: cannot be read as a table (")
    path.write_text("PAR1 is no table")
    assert refusal(InputError, path, ["en"], None).startswith(f"{path}: cannot be read as a table (")


def test_a_table_that_would_fill_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 60.0)  # a busy machine takes seconds for the first 128 MiB
    text = "a" * (1 << 20)
    path = tmp_path / "s.parquet"
    with parquet.ParquetWriter(
        path, pa.schema({"en": pa.string()}), compression="zstd", use_dictionary=False
    ) as writer:
        writer.write_table(pa.table({"en": [text] * 400}), row_group_size=400)
    assert path.stat().st_size < 1 << 20
    said = refusal(InputError, path, ["en"], None, Choice(memory=128 << 20))
    assert said.startswith(f"{path}: needs more memory than ")


def test_without_pyarrow_tables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "s.parquet", table())
    for name in [name for name in sys.modules if name.startswith(("pyarrow", "contrasim_cli.store.arrow"))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert refusal(MissingError, path, ["en"], None) == (
        f"{path}: reading Parquet and Arrow files needs the extra table: pip install 'contrasim[table]'"
    )


# data sets


def opened(name: Path, *columns: str, split: str | None = None, **options: Any) -> list[Source]:
    return open_sources(InputOptions("dataset", name, columns, split=split, **options))


@pytest.fixture
def dataset() -> Any:
    return datasets.Dataset.from_dict({"en": TEXTS, "name": [f"r{k}" for k in range(4)], "n": [1, 2, 3, 4]})


def test_a_saved_data_set_is_read(tmp_path: Path, dataset: Any) -> None:
    dataset.save_to_disk(tmp_path / "d")
    (source,) = opened(tmp_path / "d", "en", id_column="name", choice=Choice(skip=1))
    assert (items(source), list(source.ids())) == (TEXTS[1:], ["r1", "r2", "r3"])
    (filled,) = opened(tmp_path / "d", layout=Layout(parsed("{n}: {en}")))
    assert items(filled)[:2] == ["1: one", "2: two, \u00e9"]
    assert (filled.automatic, filled.digest) == (True, opened(tmp_path / "d", "en")[0].digest)
    assert filled.contents != opened(tmp_path / "d", "en")[0].contents


def test_what_rows_depend_on_is_what_is_in_them(tmp_path: Path, dataset: Any) -> None:
    dataset.save_to_disk(tmp_path / "d")
    dataset.map(lambda row: {"n": 0}).save_to_disk(tmp_path / "e")
    dataset.map(lambda row: {"en": f"{row['en']}!"}).save_to_disk(tmp_path / "f")
    contents = [opened(tmp_path / name, "en")[0].contents for name in "def"]
    assert contents[0] == contents[1] != contents[2]


def test_a_split_is_chosen(tmp_path: Path, dataset: Any) -> None:
    datasets.DatasetDict({"train": dataset, "test": dataset.select([3, 0])}).save_to_disk(tmp_path / "d")
    (source,) = opened(tmp_path / "d", "en", split="test")
    assert items(source) == ["four", "one"]
    assert source.settings == {"split": "test", "subset": None}
    for split, said in ((None, "say which split"), ("dev", "has no split dev")):
        with pytest.raises(UsageError) as caught:
            opened(tmp_path / "d", "en", split=split)
        assert str(caught.value) == f"{tmp_path}/d: {said} (--split); it has train, test"
    dataset.save_to_disk(tmp_path / "single")
    with pytest.raises(UsageError, match="is a single split; leave out --split test"):
        opened(tmp_path / "single", "en", split="test")
    with pytest.raises(UsageError, match="is a saved data set, which has no subsets; leave out --subset"):
        open_dataset(str(tmp_path / "single"), None, "x")


def test_chats_of_a_data_set(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"messages": [MESSAGES, MESSAGES[:1]]}).save_to_disk(tmp_path / "d")
    (source,) = opened(tmp_path / "d", layout=Layout(chat=True))
    assert items(source) == [Passage("hi\nho", messages=MESSAGES), Passage("hi", messages=MESSAGES[:1])]


def test_a_folder_of_data_files_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "test.jsonl").write_text("".join(json.dumps({"en": text}) + "\n" for text in TEXTS))
    (source,) = opened(tmp_path / "d", "en")
    assert items(source) == TEXTS


def test_mistakes_with_data_sets_are_one_line(tmp_path: Path, dataset: Any) -> None:
    dataset.save_to_disk(tmp_path / "d")
    with pytest.raises(UsageError) as caught:
        opened(tmp_path / "d")
    assert str(caught.value) == f"{tmp_path}/d: say which column holds the text (--column); it has en, name, n"
    with pytest.raises(UsageError) as caught:
        opened(tmp_path / "d", "fr")
    assert str(caught.value) == f"{tmp_path}/d: has no column fr; it has en, name, n"
    with pytest.raises(InputError) as refused:
        opened(tmp_path / "none", "en")
    assert str(refused.value) == f"{tmp_path}/none: there is no such folder"
    (tmp_path / "d" / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match=r"/d: cannot be loaded as a data set \("):
        opened(tmp_path / "d", "en")


def test_without_datasets_data_sets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(MissingError, match="needs datasets 4 or later, which runs no code of a data set; found 3"):
        opened(tmp_path, "en")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingError) as caught:
        opened(tmp_path, "en")
    assert str(caught.value) == "--dataset needs the extra datasets: pip install 'contrasim[datasets]'"


@pytest.mark.parametrize(("name", "content"), [("d.tsv", "en\ten\tde\na\tb\tc\n"), ("d.csv", "en,en,de\na,b,c\n")])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=f"{name}: has several columns en; give each a name of its own"):
        text_sources(tmp_path / name, ["en"], None)
    assert next(text_sources(tmp_path / name, ["de"], None)[0].blocks(1)) == ["c"]
