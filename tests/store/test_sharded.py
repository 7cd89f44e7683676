"""A sharded store is the store that its parts make up, and one whose parts are not those of its index is refused."""

import io
import json
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import names, values, write

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, OutputError, OutputExistsError
from contrasim_cli.store import Store, align, open_store, shard_index, sharded
from contrasim_cli.store.blocks import read_rows
from contrasim_cli.store.open import open_part
from contrasim_cli.store.shard_index import check_folder, write_index
from contrasim_cli.store.sharded import INDEX, Index, part_name

ROWS = (7, 1, 12)
LAYERS = {"first": 3, "second": 5}
IDS = names(sum(ROWS))


def matrices(seed: int = 0) -> dict[str, np.ndarray]:
    return {name: values(sum(ROWS), width, seed) for name, width in LAYERS.items()}


def parted(folder: Path, ids: list[str] = IDS, seed: int = 0, **config: object) -> Path:
    """A sharded store of three uneven parts."""
    folder.mkdir(exist_ok=True)
    start = 0
    for k, rows in enumerate(ROWS):
        some = {name: matrix[start : start + rows] for name, matrix in matrices(seed).items()}
        provenance = {"config": {"model": "m", **config, "shard": [k, 3, start, start + rows]}}
        write(folder / part_name(k, 3), some, ids[start : start + rows], provenance=provenance, force=True)
        start += rows
    write_index(folder, 3, open_part)
    return folder


def test_it_reads_as_the_one_store_that_its_parts_make_up(tmp_path: Path) -> None:
    store, whole = open_store(parted(tmp_path / "acts.h5")), open_store(write(tmp_path / "one.h5", matrices(), IDS))
    assert (store.n_rows, list(store.layers)) == (20, ["first", "second"])
    some = np.array([19, 3, 7, 8, 3, 0])
    for name, matrix in matrices().items():
        assert store.layer(name).chunk_rows == whole.layer(name).chunk_rows
        assert store.layer(name).dtype == matrix.dtype
        for start, stop in ((0, 20), (0, 0), (6, 9), (7, 8), (19, 20)):
            np.testing.assert_array_equal(store.read(name, start, stop), matrix[start:stop])
        np.testing.assert_array_equal(read_rows(store, name, some), matrix[some])
    assert store.ids is not None
    assert whole.ids is not None
    assert store.ids.read(5, 20) == IDS[5:]
    assert store.ids.digest == whole.ids.digest
    assert [view.rows for view in align([store, whole])] == [None, None]
    assert [view.rows for view in align([whole, store], "ids")] == [None, None]


def test_its_index_alone_lines_it_up_with_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part is opened, and no id read."""
    stores = [open_store(parted(tmp_path / name)) for name in ("a", "b")]
    monkeypatch.setattr(sharded._Parts, "_opened", None)
    assert [view.n_rows for view in align(stores)] == [20, 20]


def test_other_ids_are_told(tmp_path: Path) -> None:
    stores = [open_store(parted(tmp_path / "a")), open_store(parted(tmp_path / "b", ids=[*IDS[:-1], "other"]))]
    with pytest.raises(MismatchError, match="the first difference is in row 19: other instead of row 19"):
        align(stores)


@pytest.mark.parametrize("at_once", [1 << 20, 6])
def test_an_id_in_two_parts_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """By one sort of all, or by several of some."""
    monkeypatch.setattr(shard_index, "SORTED_IDS", at_once)
    store = open_store(parted(tmp_path / "a", ids=[*IDS[:15], "row 2", "row 1", *IDS[17:]]))
    with pytest.raises(InputError, match="id row 2 occurs twice, in rows 2 and 15"):
        align([store])


def test_halves_that_are_alike_are_no_ids_that_occur_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_index, "_halves", lambda hashes: np.zeros(len(hashes), np.uint64))
    assert open_store(parted(tmp_path / "a")).ids.repeated is None  # type: ignore[union-attr]


def test_no_more_parts_are_open_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "MOST_OPEN", 1)
    store = open_store(parted(tmp_path / "a"))
    before = len(os.listdir("/proc/self/fd"))
    np.testing.assert_array_equal(store.read("first", 0, 20), matrices()["first"])
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    store.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_many_stores_share_the_descriptors_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room, those that were read first are closed, and opened again."""
    stores = [open_store(parted(tmp_path / f"{k}", seed=k)) for k in range(4)]
    full = len(os.listdir("/proc/self/fd")) + 2
    monkeypatch.setattr(sharded, "has_room", lambda: len(os.listdir("/proc/self/fd")) < full)
    monkeypatch.setattr(sharded, "raise_limit", lambda: None)
    for _ in range(2):
        for k, store in enumerate(stores):
            np.testing.assert_array_equal(store.read("first", 0, 20), matrices(k)["first"])
            assert len(os.listdir("/proc/self/fd")) <= full + 2


def test_a_disk_that_is_full_while_ids_are_sorted_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last bytes of a file find no room, when it is closed."""

    def full(**options: object) -> io.BufferedRandom:
        return open("/dev/full", "r+b")

    folder = parted(tmp_path / "a")
    (folder / INDEX).unlink()
    monkeypatch.setattr(shard_index, "TemporaryFile", full)
    monkeypatch.setattr(shard_index, "SORTED_IDS", 6)
    with pytest.raises(OutputError, match="No space left on device"):
        write_index(folder, 3, open_part)
    assert not (folder / INDEX).exists()


def lose(folder: Path) -> None:
    (folder / part_name(1, 3)).unlink()


def swap(folder: Path) -> None:
    """With one of the same size."""
    write(folder / part_name(0, 3), {name: matrix[7:14] for name, matrix in matrices().items()}, IDS[:7], force=True)
    one, other = folder / part_name(0, 3), folder / INDEX
    index = json.loads(other.read_text())
    index["parts"][0]["bytes"] = one.stat().st_size
    other.write_text(signed(index))


def replace(folder: Path) -> None:
    """With other values, whose attributes are the same to the second."""
    path, start = folder / part_name(2, 3), sum(ROWS[:2])
    old = open_part(path)
    other = {name: matrix[start:] + 1 for name, matrix in matrices().items()}
    old.close()
    write(path, other, IDS[start:], attrs={"created": old.attrs["created"]}, provenance=old.provenance, force=True)


def cut(folder: Path) -> None:
    path = folder / part_name(2, 3)
    path.write_bytes(path.read_bytes()[:-1])


def damage(folder: Path) -> None:
    """One byte of what HDF5 has no checksum for."""
    path = folder / part_name(2, 3)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def change(folder: Path) -> None:
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace('"rows": 20', '"rows": 21'))


def lead_out(folder: Path) -> None:
    shutil.move(folder / part_name(1, 3), folder.parent / "outside.h5")
    (folder / part_name(1, 3)).symlink_to("../outside.h5")


def signed(index: dict[str, object]) -> str:
    """An index with the digest that it should have."""
    from hashlib import sha256

    content = {name: value for name, value in index.items() if name != "digest"}
    return json.dumps({**content, "digest": sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lose, "its part part-00001-of-00003.h5 is missing; copy it there, or extract it again"),
        (swap, "is not the part that store.json lists"),
        (replace, "is not the part that store.json lists .its values are others"),
        (cut, "is not the part that store.json lists .it has"),
        (damage, "its seal does not hold"),
        (change, "does not match its digest"),
        (lead_out, "leads out of the folder"),
        (lambda folder: (folder / INDEX).write_text("{"), "is not the index of a sharded store"),
        (lambda folder: (folder / INDEX).unlink(), "has no store.json; give the command of one of its parts once more"),
    ],
)
def test_what_is_not_what_was_written_is_refused(tmp_path: Path, harm: Callable[[Path], None], said: str) -> None:
    folder = parted(tmp_path / "acts")
    harm(folder)
    with pytest.raises(InputError, match=said):
        open_store(folder).read("first", 0, 20)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("ids",), {"automatic": False}),
        (("ids", "repeated"), ["1", "2"]),
        (("ids", "repeated"), [1.5, 2]),
        (("ids", "repeated"), [2, 20]),
        (("ids", "repeated"), {"0": 1, "1": 2}),
        (("ids", "automatic"), "no"),
        (("ids", "source"), []),
        (("rows",), float("nan")),
        (("layers", 0, 1), float("inf")),
        (("layers", 0, 1), 1 << 70),
        (("layers", 0, 0), 5),
        (("layers", 0, 0), "second"),
        (("layers", 0, 2), "int8"),
        (("parts", 0, "file"), "x" * 5000),
        (("parts", 0, "file"), "a\0b"),
        (("parts", 0, "file"), part_name(1, 3)),
        (("parts", 0, "rows"), True),
        (("attrs",), {"created": 1}),
    ],
)
def test_an_index_of_nonsense_is_refused_whatever_its_digest_says(
    tmp_path: Path, where: tuple[str | int, ...], value: object
) -> None:
    folder = parted(tmp_path / "acts")
    index = json.loads((folder / INDEX).read_text())
    at: Any = index
    for step in where[:-1]:
        at = at[step]
    at[where[-1]] = value
    (folder / INDEX).write_text(signed(index))
    with pytest.raises(InputError):
        open_store(folder)


@pytest.mark.parametrize("rows", [1 << 62, 1 << 80])
def test_an_index_of_more_rows_than_can_be_counted_is_refused(tmp_path: Path, rows: int) -> None:
    folder = parted(tmp_path / "acts")
    index = json.loads((folder / INDEX).read_text())
    index["parts"][0]["rows"] = rows
    index["rows"] = sum(part["rows"] for part in index["parts"])
    (folder / INDEX).write_text(signed(index))
    with pytest.raises(InputError, match="does not match its digest"):
        open_store(folder)


def test_a_name_that_promises_very_many_parts_is_no_part(tmp_path: Path) -> None:
    """Nobody looks for all of them."""
    (tmp_path / "acts").mkdir()
    (tmp_path / "acts" / f"part-00000-of-{'9' * 40}.h5").write_text("x")
    assert not sharded.is_sharded(tmp_path / "acts")


def test_a_part_that_is_not_read_is_not_opened(tmp_path: Path) -> None:
    folder = parted(tmp_path / "acts")
    damage(folder)
    np.testing.assert_array_equal(open_store(folder).read("first", 0, 8), matrices()["first"][:8])


def test_a_folder_without_all_parts_says_which_are_missing(tmp_path: Path) -> None:
    folder = parted(tmp_path / "acts")
    (folder / INDEX).unlink()
    lose(folder)
    with pytest.raises(InputError, match=r"of its 3 parts these are missing: 1; extract them \(--shard I/3\)"):
        open_store(folder)


def test_a_newer_index_is_refused(tmp_path: Path) -> None:
    folder = parted(tmp_path / "acts")
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(signed({**index, "format_version": 2}))
    with pytest.raises(InputError, match="format_version is 2, this contrasim reads 1"):
        open_store(folder)


def test_parts_that_were_made_in_different_ways_are_no_store(tmp_path: Path) -> None:
    folder = parted(tmp_path / "acts")
    parted(tmp_path / "other", model="n")
    shutil.copy(tmp_path / "other" / part_name(1, 3), folder)
    with pytest.raises(MismatchError, match=r"was made in another way than part-00000-of-00003\.h5 .model differs"):
        write_index(folder, 3, open_part)


def test_a_copy_of_another_part_is_told(tmp_path: Path) -> None:
    """Its rows would be there twice, and ids that are positions are not looked through for such."""
    folder = parted(tmp_path / "acts")
    shutil.copy(folder / part_name(0, 3), folder / part_name(2, 3))
    with pytest.raises(MismatchError, match=r"part-00002-of-00003\.h5: was made as part 0 of 3"):
        write_index(folder, 3, open_part)


@pytest.mark.parametrize("shift", [-1, 1])
def test_parts_between_which_rows_are_missing_or_double_are_told(tmp_path: Path, shift: int) -> None:
    folder = parted(tmp_path / "acts")
    provenance = {"config": {"model": "m", "shard": [1, 3, 7 + shift, 8]}}
    matrix = {name: values(1, width) for name, width in LAYERS.items()}
    write(folder / part_name(1, 3), matrix, ["row 7"], provenance=provenance, force=True)
    with pytest.raises(MismatchError, match=f"begins with item {7 + shift} where the part before it ends with item 6"):
        write_index(folder, 3, open_part)


def test_a_part_beside_stores_that_were_not_made_as_parts_is_told(tmp_path: Path) -> None:
    folder = parted(tmp_path / "acts")
    matrix = {name: values(1, width) for name, width in LAYERS.items()}
    provenance = {"config": {"model": "m"}}
    write(folder / part_name(1, 3), matrix, ["row 7"], provenance=provenance, force=True)
    with pytest.raises(MismatchError, match="part differs"):
        write_index(folder, 3, open_part)


def test_a_link_out_of_the_folder_gets_no_index(tmp_path: Path) -> None:
    folder = parted(tmp_path / "acts")
    (folder / INDEX).unlink()
    lead_out(folder)
    with pytest.raises(InputError, match="leads out of the folder"):
        write_index(folder, 3, open_part)


def test_a_part_that_is_replaced_while_the_index_is_made_is_in_it(tmp_path: Path) -> None:
    """Another process wrote it, and its index, and the one that is made here comes last."""
    folder = parted(tmp_path / "acts")
    opened: list[Path] = []

    def open_and_replace(path: Path) -> Store:
        opened.append(path)
        if len(opened) == 3:
            replace(folder)
            replace_first(folder)
            write_index(folder, 3, open_part)
        return open_part(path)

    def replace_first(folder: Path) -> None:
        provenance = {"config": {"model": "m", "shard": [0, 3, 0, 7]}}
        write(
            folder / part_name(0, 3),
            {name: matrix[:7] + 1 for name, matrix in matrices().items()},
            IDS[:7],
            provenance=provenance,
            force=True,
        )

    write_index(folder, 3, open_and_replace)
    np.testing.assert_array_equal(open_store(folder).read("first", 0, 7), matrices()["first"][:7] + 1)


def test_everybody_writes_the_same_index_and_one_that_is_up_to_date_stays(tmp_path: Path) -> None:
    folder = parted(tmp_path / "acts")
    text, written = (folder / INDEX).read_text(), (folder / INDEX).stat().st_mtime_ns
    write_index(folder, 3, open_part)
    assert (folder / INDEX).stat().st_mtime_ns == written
    (folder / INDEX).unlink()
    write_index(folder, 3, open_part)
    assert (folder / INDEX).read_text() == text
    assert Index.parsed(folder / INDEX, text.encode()).text() == text


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        (lambda folder: folder.write_text("x"), OutputError),
        (lambda folder: (folder.mkdir(), (folder / "thesis.tex").write_text("x")), OutputExistsError),
        (lambda folder: (folder.mkdir(), (folder / part_name(0, 4)).write_text("x")), OutputExistsError),
        (lambda folder: (folder.mkdir(), (folder / f"{part_name(1, 3)}.parts").mkdir()), None),
        (lambda folder: (folder.mkdir(), (folder / ".hidden").write_text("x")), None),
    ],
)
def test_only_a_folder_of_its_own_becomes_one(
    tmp_path: Path, prepare: Callable[[Path], object], problem: type[ContraSimError] | None
) -> None:
    prepare(tmp_path / "acts")
    if problem is None:
        check_folder(tmp_path / "acts", 3)
    else:
        with pytest.raises(problem):
            check_folder(tmp_path / "acts", 3)


def test_values_are_digested_as_they_are_stored_whatever_order_they_are_written_in(tmp_path: Path) -> None:
    from contrasim_cli.store import LayerSpec, StoreWriter
    from contrasim_cli.store.sharded import contents

    matrix = values(2000, 300)
    found = []
    for k, cuts in enumerate(([0, 2000], [0, 7, 1500, 2000], [1500, 0])):
        path = tmp_path / f"{k}.h5"
        with StoreWriter(path, [LayerSpec("a", 300, "float16")], 2000, names(2000)) as writer:
            if cuts[0]:
                writer.write("a", 1500, matrix[1500:])
                writer.write("a", 0, matrix[:1500])
            else:
                for start, stop in pairwise(cuts):
                    writer.write("a", start, matrix[start:stop])
        found.append(contents(open_store(path)))
    from hashlib import sha256

    assert found == [{"a": sha256(matrix.astype("<f2").tobytes()).hexdigest()}] * 3


def test_hashes_of_some_ids_are_those_of_the_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrasim_cli.store.store.IDS_PER_BLOCK", 6)
    store, whole = open_store(parted(tmp_path / "acts")), open_store(write(tmp_path / "one.h5", matrices(), IDS))
    assert store.ids is not None
    assert whole.ids is not None
    for rows in (np.array([19, 0, 7, 7, 8]), np.arange(20), np.empty(0, np.int64)):
        assert store.ids.hashes_at(rows).tolist() == whole.ids.hashes_at(rows).tolist()
    assert np.concatenate(list(store.ids.hash_blocks())).tolist() == whole.ids.hashes.tolist()


def test_an_anchor_whose_id_occurs_twice_is_the_first_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contrasim_cli.anchors.anchoring import Anchoring, locate

    monkeypatch.setattr("contrasim_cli.store.store.IDS_PER_BLOCK", 6)
    ids = [*IDS[:15], "row 2", "row 1", "row 2", *IDS[18:]]
    anchoring = Anchoring(("row 19", "row 2", "row 1", "row 0"))
    for store in (open_store(parted(tmp_path / "acts", ids)), open_store(write(tmp_path / "one.h5", matrices(), ids))):
        assert locate(store, anchoring).tolist() == [19, 2, 1, 0]
