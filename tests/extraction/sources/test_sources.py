import hashlib
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import run
from PIL import Image

from contrasim_cli.errors import InputError, MismatchError, Problems, UsageError
from contrasim_cli.extraction.sources.open import (
    Choice,
    InputOptions,
    Source,
    array_source,
    image_source,
    image_table,
    open_image,
    open_sources,
    text_source,
    text_sources,
)
from contrasim_cli.extraction.sources.source import BadItem, Chosen

TABLE = 'id\ten\tde\na\tsay "hi\thallo\nb\t\tja\nc\ttwo words\tzwei Worte\n'


def items(source: Source, size: int = 2) -> list[object]:
    return [item for block in source.blocks(size) for item in block]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_a_text_file_has_one_row_per_line(tmp_path: Path) -> None:
    path = write(tmp_path / "s.txt", "one\r\n\u2028two\n\nlast")
    source = text_source(path, None, None, None)
    assert items(source) == ["one", "\u2028two", "", "last"]
    assert list(source.ids()) == ["0", "1", "2", "3"]
    assert source.automatic
    assert source.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    source = text_source(write(tmp_path / "s.tsv", "\ufeffen\nx\n"), "en", None, None)
    assert items(source) == ["x"]


def test_a_quotation_mark_in_a_tsv_is_a_character(tmp_path: Path) -> None:
    source = text_source(write(tmp_path / "s.tsv", TABLE), "en", "id", None)
    assert items(source) == ['say "hi', "", "two words"]
    assert list(source.ids()) == ["a", "b", "c"]
    assert not source.automatic


def test_a_field_of_a_csv_may_hold_commas_and_lines(tmp_path: Path) -> None:
    source = text_source(write(tmp_path / "s.csv", 'id,en\n1,"a, b"\n2,"two\nlines"\n'), "en", "id", None)
    assert items(source) == ["a, b", "two\nlines"]


def test_limit_takes_the_first_rows_and_leaves_the_digest_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tsv", TABLE)
    source, whole = text_source(path, "en", None, Choice(limit=2)), text_source(path, "de")
    assert (source.n_rows, items(source, 5)) == (2, ['say "hi', ""])
    assert source.digest == whole.digest


@pytest.mark.parametrize(
    ("name", "content", "column", "id_column", "message"),
    [
        ("s.tsv", TABLE, None, None, "say which column holds the text (--column); it has id, en, de"),
        ("s.tsv", TABLE, "fr", None, "has no column fr; it has id, en, de"),
        ("s.tsv", TABLE, "en", "fr", "has no column fr; it has id, en, de"),
        (
            "s.txt",
            "a\n",
            "en",
            None,
            "--column needs a table with a header line, named .tsv or .csv, a .jsonl, or a .parquet",
        ),
    ],
)
def test_the_columns_asked_for_must_fit_the_file(
    tmp_path: Path, name: str, content: str, column: str, id_column: str, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UsageError) as caught:
        text_source(path, column, id_column, None)
    assert str(caught.value) == f"{path}: {message}"


BAD = "correct it, or leave it out with --skip-bad"
NO_UTF8 = "is not UTF-8 (iconv -t utf-8 converts a file)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id\ten\n", "holds no rows"),
        (b"", "is empty; a table starts with a line that names its columns"),
        (b"id\ten\n1\ta\n2\n", f"line 3 has 1 fields where the header has 2; {BAD}"),
        (b"id\ten\n1\t\xe9\n", f"line 2 {NO_UTF8}; {BAD}"),
        (b"\xe9\ten\n1\ta\n", f"line 1 {NO_UTF8}"),
        (b"id\ten\n1\ta\n2\tb\n1\tc\n", "column id: rows 0 and 2 have the same id; ids must be unique"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "s.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        text_source(path, "en", "id", None)
    assert str(caught.value) == f"{path}: {message}"


# which rows


@pytest.mark.parametrize(
    ("choice", "ids"),
    [
        ({"skip": 2}, "2345678"),
        ({"skip": 2, "limit": 3}, "234"),
        ({"skip_pattern": "^#|^$"}, "1245678"),
        ({"skip_pattern": "^#|^$", "skip": 1, "limit": 2}, "24"),
        ({"only": "0 7 4"}, "047"),
        ({"only": "0 7 4", "skip_pattern": "^#", "limit": 1}, "4"),
    ],
)
def test_rows_that_are_chosen_keep_their_line_numbers(tmp_path: Path, choice: dict[str, object], ids: str) -> None:
    path = write(tmp_path / "s.txt", "# heading\none\ntwo\n\nfour\nfive\nsix\nseven\neight\n")
    if "only" in choice:
        choice = choice | {"only": write(tmp_path / "only.txt", str(choice["only"]).replace(" ", "\n"))}
    source = text_source(path, choice=Choice(**choice))  # type: ignore[arg-type]
    lines = path.read_text().split("\n")
    assert list(source.ids()) == list(ids)
    assert items(source, 2) == [lines[int(number)] for number in ids]
    assert source.n_rows == len(ids)
    assert source.automatic
    assert source.digest == text_source(path).digest


def test_every_column_leaves_out_the_same_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tsv", "en\tde\na\tb\nbad\n= c\td\ne\t= f\ng\th\n")
    sources = text_sources(path, ["en", "de"], None, Choice(skip_pattern="^= ", skip_bad=True))
    assert [items(source) for source in sources] == [["a", "g"], ["b", "h"]]
    assert [list(source.ids()) for source in sources] == [["0", "4"], ["0", "4"]]
    assert sources[0].left_out == [("1", f"{path}: line 3 has 1 fields where the header has 2")]


def test_ids_that_are_asked_for_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tsv", TABLE)
    only = write(tmp_path / "only.txt", "".join(f"x{number:02}\n" for number in range(12)) + "a\n")
    with pytest.raises(MismatchError) as caught:
        text_source(path, "en", "id", Choice(only=only))
    shown = ", ".join(f"x{number:02}" for number in range(10))
    assert str(caught.value) == f"{only}: 12 ids are not in {path}: {shown} and 2 more; take them out"


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ({"skip_pattern": "("}, UsageError, "--skip-pattern (: is not a regular expression (missing ), "),
        ({"skip_pattern": ""}, InputError, "{path}: keeps none of its 3 rows; choose others"),
        ({"skip": 3}, InputError, "{path}: keeps none of its 3 rows; choose others"),
    ],
)
def test_choices_that_leave_nothing_are_refused(
    tmp_path: Path, choice: dict[str, object], error: type[Exception], message: str
) -> None:
    path = write(tmp_path / "s.tsv", TABLE)
    with pytest.raises(error) as caught:
        text_source(path, "en", None, Choice(**choice))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message.format(path=path))


def test_what_cannot_be_read_is_named_all_at_once_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s.txt"
    path.write_bytes(b"good\n" + b"\xff\n" * 12 + b"good too\n")
    with pytest.raises(Problems) as caught:
        text_source(path)
    assert caught.value.lines[0] == f"{path}: line 2 {NO_UTF8}; {BAD}"
    assert (len(caught.value.lines), caught.value.lines[-1]) == (11, "… and 2 more problems")
    assert caught.value.exit_code == 3
    source = text_source(path, choice=Choice(skip_bad=True))
    assert (items(source), list(source.ids())) == (["good", "good too"], ["0", "13"])
    assert caplog.messages[0] == f"row 1 is left out: {path}: line 2 {NO_UTF8}"
    assert (len(caplog.messages), caplog.messages[-1]) == (11, "and 2 more rows are left out")


def test_what_is_bad_behind_the_limit_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_bytes(b"good\n\xff\n")
    assert items(text_source(path, choice=Choice(limit=1))) == ["good"]


def test_bad_bytes_in_a_csv_are_one_row(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(b'en\n"a\n\xff"\nb\n')
    source = text_source(path, "en", None, Choice(skip_bad=True))
    assert (items(source), list(source.ids())) == (["b"], ["1"])
    assert source.left_out[0][1].endswith(f"line 3 {NO_UTF8}")


def test_empty_texts_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "s.txt", "a\n \n\nb\n")
    text_source(path)
    text_source(path, choice=Choice(skip_pattern=r"^\s*$"))
    assert caplog.messages == [f"{path}: 2 of 4 texts are empty; --skip-pattern '^\\s*$' leaves them out"]


def test_runs_of_positions_are_the_positions() -> None:
    rng = np.random.default_rng(0)
    for chance in (0.0, 0.3, 0.9, 1.0):
        kept = [number for number in range(200) if rng.random() < chance]
        chosen = Chosen()
        for number in kept:
            chosen.add(number)
        assert list(chosen) == kept == list(chosen.of(range(200)))
        assert len(chosen) == len(kept)
        assert [n for batch in chosen.batches(7) for n in batch] == kept
        for start, stop in rng.integers(0, 200, (50, 2)):
            assert chosen.between(start, stop).tolist() == [n for n in kept if start <= n < stop]


# objects


OBJECTS = """{"id": 3, "en": "one", "de": "eins"}
{"id": "x", "en": "two\\u2028lines", "de": ""}
"""


def test_fields_of_objects_are_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", OBJECTS)
    sources = text_sources(path, ["en", "de"], "id", Choice())
    assert [items(source) for source in sources] == [["one", "two\u2028lines"], ["eins", ""]]
    assert list(sources[1].ids()) == ["3", "x"]
    assert list(text_source(path, "en").ids()) == ["0", "1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not valid JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        ("", "is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[" * 100_000, "is not valid JSON ("),
        ("[1]", "is not a JSON object"),
        ('{"de": "x"}', "has no field en; it has de"),
        ('{"en": 5}', "holds 5 in field en, which is no text"),
        ('{"en": ["a", "b"]}', 'holds ["a", "b"] in field en, which is no text'),
        ('{"en": "\\ud800"}', "holds half a character (a lone surrogate) in field en"),
    ],
)
def test_objects_without_the_text_are_bad_rows(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "s.jsonl", f'{{"en": "good"}}\n{line}\n')
    with pytest.raises(BadItem) as caught:
        text_source(path, "en")
    assert str(caught.value).startswith(f"{path}: line 2 {message}")
    assert str(caught.value).endswith(f"; {BAD}")
    assert items(text_source(path, "en", None, Choice(skip_bad=True))) == ["good"]


def test_ids_of_objects_are_words_or_whole_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", '{"en": "a", "id": 1}\n{"en": "b", "id": true}\n{"en": "c", "id": 1.5}\n')
    with pytest.raises(Problems) as caught:
        text_source(path, "en", "id")
    assert caught.value.lines == [
        f"{path}: line 2 holds true in field id, which is no text; {BAD}",
        f"{path}: line 3 holds 1.5 in field id, which is no text; {BAD}",
    ]


def test_a_field_must_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", OBJECTS)
    with pytest.raises(UsageError) as caught:
        open_sources(InputOptions("text", path))
    assert str(caught.value) == (f"{path}: say which field holds the text (--field); the first object has id, en, de")


# arrays


def test_arrays_are_mapped_and_read_in_blocks(tmp_path: Path) -> None:
    array = np.arange(5 * 6.0).reshape(5, 2, 3)
    np.save(tmp_path / "a.npy", array)
    blocks = list(array_source(tmp_path / "a.npy", Choice(limit=4)).blocks(3))
    assert [len(block) for block in blocks] == [3, 1]
    assert isinstance(blocks[0], np.memmap)
    np.testing.assert_array_equal(np.concatenate(blocks), array[:4])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_of_archives_are_read_as_they_are_chosen(tmp_path: Path, save: Callable[..., None], order: str) -> None:
    array = np.asarray(np.random.default_rng(0).random((20, 3, 4)), order=order)  # type: ignore[call-overload]
    save(tmp_path / "a.npz", array)
    only = write(tmp_path / "only.txt", "0\n3\n4\n5\n19\n")
    source = array_source(tmp_path / "a.npz", Choice(only=only))
    blocks = list(source.blocks(2))
    np.testing.assert_array_equal(np.concatenate(blocks), array[[0, 3, 4, 5, 19]])
    whole = list(array_source(tmp_path / "a.npz").blocks(8))
    np.testing.assert_array_equal(np.concatenate(whole), array)
    assert isinstance(whole[0], np.memmap) == (save is np.savez)


@pytest.mark.slow
def test_a_large_archive_does_not_come_into_memory(tmp_path: Path) -> None:
    bits = (
        np.random.default_rng(0).integers(0, 2, (40_000, 250)).astype(np.float64)
    )  # 80 MB, packed well but as no bomb is
    np.savez_compressed(tmp_path / "a.npz", bits)
    source = array_source(tmp_path / "a.npz")
    tracemalloc.start()
    assert sum(len(block) for block in source.blocks(64)) == 40_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


def test_an_npz_holds_one_array_and_perhaps_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.eye(2), ids=np.array(["p", "q"]))
    assert list(array_source(path, None).ids()) == ["p", "q"]
    np.savez(path, x=np.eye(2), y=np.eye(2))
    with pytest.raises(InputError, match="holds 2 arrays; --arrays takes a file with one"):
        array_source(path, None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_archive_is_one_error(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "a.npz", np.random.default_rng(0).random((500, 30)))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[60_000] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz: cannot be read as \.npy or \.npz \("):
        list(array_source(tmp_path / "a.npz").blocks(64))


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    objects = np.array([{}, 1], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", objects)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=r"cannot be read as \.npy or \.npz"):
            array_source(tmp_path / name)
    (tmp_path / "a.txt").write_text("a text")
    with pytest.raises(InputError) as caught:
        array_source(tmp_path / "a.txt")
    assert str(caught.value) == f"{tmp_path}/a.txt: is not a .npy or .npz file; save the inputs with numpy.save"


# images


def picture(path: Path, shade: int = 0, side: int = 2) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (side, side), shade).save(path)
    return path


def test_images_are_sorted_bytewise_by_their_relative_paths(tmp_path: Path) -> None:
    for name in ("b/1.png", "B.png", "a.PNG", "é.png", "b-1.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    source = image_source(tmp_path, None)
    assert list(source.ids()) == ["B.png", "a.PNG", "b-1.png", "b/1.png", "é.png"]
    assert items(source)[3] == tmp_path / "b/1.png"
    assert list(image_source(tmp_path, Choice(skip=1, limit=2)).ids()) == ["a.PNG", "b-1.png"]


def test_a_table_names_images_and_their_captions(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / "img" / f"{name}.png")
    table = write(tmp_path / "pairs.tsv", "path\tcaption\nimg/b.png\tbee\nimg/a.png\tay\n")
    images, texts = image_table(table, "path"), text_source(table, "caption")
    assert items(images) == [tmp_path / "img/b.png", tmp_path / "img/a.png"]
    assert list(images.ids()) == list(texts.ids()) == ["0", "1"]
    assert images.automatic
    assert images.digest == texts.digest
    before = images.contents
    picture(tmp_path / "img" / "a.png", side=9)
    assert image_table(table, "path").contents != before


def test_images_that_cannot_be_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no image")
    table = write(tmp_path / "p.csv", "path\ngood.png\nbad.png\nnone.png\n")
    with pytest.raises(Problems) as caught:
        image_table(table, "path")
    reasons = [
        f"{tmp_path}/bad.png: cannot be read as an image (cannot identify image file)",
        f"{tmp_path}/none.png: cannot be read as an image (there is no such file)",
    ]
    assert caught.value.lines == [f"{reason}; {BAD}" for reason in reasons]
    source = image_table(table, "path", None, Choice(skip_bad=True))
    assert list(source.ids()) == ["0"]
    assert caplog.messages == [f"row {row} is left out: {reason}" for row, reason in enumerate(reasons, 1)]
    assert list(image_source(tmp_path, Choice(skip_bad=True)).ids()) == ["good.png"]


def test_an_image_that_is_cut_short_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert image_source(tmp_path).n_rows == 1
    with pytest.raises(BadItem, match=r"a\.png: cannot be read as an image \("):
        open_image(path, None)


def empty_png(path: Path, side: int, colours: bool) -> Path:
    """A black square, packed as well as can be."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, row = zlib.compressobj(9), bytes(1 + (3 if colours else 1) * side)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2 if colours else 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_an_image_that_does_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "b.png")
    path = empty_png(tmp_path / "in" / "a.png", 13_300, colours=True)
    assert path.stat().st_size < 600_000
    said = (
        "13300 x 13300 pixels take 2.83 GB of memory, and there are 1.07 GB for it; give --memory, or make it smaller"
    )
    done = run("extract", "--model", "m", "--images", path.parent, "--memory", "1G", "-o", tmp_path / "o.h5")
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr == f"contrasim: error: {path}: {said}; {BAD}\n"
    assert list(image_source(path.parent, Choice(memory=1 << 30, skip_bad=True)).ids()) == ["b.png"]
    assert list(image_source(path.parent, Choice(memory=3 << 30)).ids()) == ["a.png", "b.png"]


@pytest.mark.filterwarnings("error")
def test_a_large_image_is_read_where_there_is_memory(tmp_path: Path) -> None:
    """More pixels than Pillow warns of, and than it refuses."""
    image = open_image(empty_png(tmp_path / "a.png", 13_500, colours=False), 1)
    assert (image.size, image.getextrema()) == ((13_500, 13_500), (0, 0))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UsageError, "say which column holds the paths of the images (--image-column)"),
        ({"file_column": "x"}, UsageError, "has no column x; it has path"),
    ],
)
def test_a_table_of_images_needs_its_column(
    tmp_path: Path, options: dict[str, str], error: type[Exception], message: str
) -> None:
    table = write(tmp_path / "p.tsv", "path\na.png\n")
    with pytest.raises(error) as caught:
        open_sources(InputOptions("images", table, **options))  # type: ignore[arg-type]
    assert str(caught.value) == f"{table}: {message}"


# ids


def test_ids_of_a_file_name_the_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3))
    ids = write(tmp_path / "ids.txt", "x\ny\nz\n")
    source = array_source(tmp_path / "a.npy", Choice(ids=ids))
    assert (list(source.ids()), source.automatic) == (["x", "y", "z"], False)
    assert list(array_source(tmp_path / "a.npy", Choice(ids=ids, skip=1)).ids()) == ["y", "z"]
    assert list(array_source(tmp_path / "a.npy", Choice(ids=ids, limit=2)).ids()) == ["x", "y"]
    only = write(tmp_path / "only.txt", "z\n")
    assert list(array_source(tmp_path / "a.npy", Choice(ids=ids, only=only)).ids()) == ["z"]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("x\ny\n", MismatchError, "has 2 ids for the 3 rows of {array}"),
        ("x\ny\nz\nu\n", MismatchError, "has 4 ids for the 3 rows of {array}"),
        ("x\ny\nx\n", InputError, "rows 0 and 2 have the same id; ids must be unique"),
    ],
)
def test_ids_that_do_not_fit_the_rows(tmp_path: Path, names: str, error: type[Exception], message: str) -> None:
    np.save(tmp_path / "a.npy", np.eye(3))
    ids = write(tmp_path / "ids.txt", names)
    with pytest.raises(error) as caught:
        array_source(tmp_path / "a.npy", Choice(ids=ids))
    assert str(caught.value) == f"{ids}: {message.format(array=tmp_path / 'a.npy')}"
