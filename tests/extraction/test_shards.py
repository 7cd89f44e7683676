"""Shards: what they say of their items, and the folder that holds them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from contrasim_cli.errors import InputError, OutputError, OutputExistsError, UsageError
from contrasim_cli.extraction import shards as parts
from contrasim_cli.extraction.shards import Shard, Sizes

SIZES = Sizes(4, 4)
ROWS = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.zeros((3, 1), np.float16)}


@pytest.mark.parametrize(
    ("shard", "counts", "ids"),
    [
        (Shard(5, 8), [1, 1, 1], ["x", "y", "z"]),
        (Shard(5, 8, bad=[(6, "why")]), [1, 0, 1], ["x", "z"]),
        (Shard(5, 8, [["0", "2"], [], ["1"]]), [2, 0, 1], ["x:0", "x:2", "z:1"]),
        (Shard(5, 8, [["0", "2"], ["0"], ["1"]], bad=[(5, "why")]), [0, 1, 1], ["y:0", "z:1"]),
    ],
)
def test_rows_are_named_by_item_and_unit(shard: Shard, counts: list[int], ids: list[str]) -> None:
    assert shard.counts() == counts
    assert list(shard.row_ids(iter("xyz"))) == ids


def test_a_shard_comes_back_as_it_was_written(tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    shard = Shard(4, 7, [["0"], ["0", "é"], []], [4], [(6, 'no "image"\n')])
    with parts.opened(output, ("b", "a"), SIZES, {"x": 1}, False) as found:
        found.write(shard, ROWS)
        found.write(Shard(0, 4), {name: rows[:0] for name, rows in ROWS.items()})
        assert found.done() == {0: 4, 4: 7}
        about = found.about(4, 7)
        assert (about.first, about.stop, about.units, about.cut) == (4, 7, shard.units, [4])
        assert [tuple(entry) for entry in about.bad] == list(shard.bad)
        for (name, rows), wanted in zip(found.read(4, 7), ("b", "a"), strict=True):
            assert name == wanted
            assert rows.dtype == ROWS[name].dtype
            np.testing.assert_array_equal(rows, ROWS[name])
        assert found.size() == sum(path.stat().st_size for path in found.folder.glob("*.npz"))
    with parts.opened(output, ("b", "a"), Sizes(9, 9), {"x": 1}, True) as again:
        assert again.sizes == SIZES
        assert again.done() == {0: 4, 4: 7}
    with (
        pytest.raises(UsageError, match="x was 1 and is 2; give the same options"),
        parts.opened(output, ("b", "a"), SIZES, {"x": 2}, True),
    ):
        pass
    with (
        pytest.raises(
            OutputExistsError, match="holds rows of a run that was stopped; give --resume to go on with them, or"
        ),
        parts.opened(output, ("b", "a"), SIZES, {"x": 2}, False),
    ):
        pass
    with parts.opened(output, ("b", "a"), SIZES, {"x": 1}, True) as kept:
        assert kept.done() == {0: 4, 4: 7}
    with parts.opened(output, ("b", "a"), SIZES, {"x": 2}, False, True) as new:
        assert new.done() == {}
    with parts.opened(output, ("b", "a"), SIZES, {"x": 3}, False) as none:  # nothing is lost
        assert none.done() == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": {}}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    output = tmp_path / "o.h5"
    with parts.opened(output, ("a",), SIZES, {}, False) as found:
        (found.folder / "manifest.json").write_text(content)
    with (
        pytest.raises(InputError, match=r"manifest\.json: .*; leave out --resume and give --force to start again"),
        parts.opened(output, ("a",), SIZES, {}, True),
    ):
        pass


def test_every_damage_of_a_shard_is_one_error(tmp_path: Path) -> None:
    with parts.opened(tmp_path / "o.h5", ("a", "b"), SIZES, {}, False) as found:
        found.write(Shard(0, 3), ROWS)
        (path,) = found.folder.glob("*.npz")
        whole = path.read_bytes()
        refused = 0
        for at in range(0, len(whole), 13):
            for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
                path.write_bytes(broken)
                try:
                    found.about(0, 3)
                    list(found.read(0, 3))
                except InputError:
                    refused += 1
        assert refused > len(whole) // 13


def test_one_at_a_time_also_while_another_removes_them(tmp_path: Path) -> None:
    """Locks are of an open file, so that threads exclude one another as processes do."""
    output, inside, ends = tmp_path / "o.h5", threading.Semaphore(1), [0, 0, 0]

    def often(number: int) -> None:
        for _ in range(300):
            try:
                with parts.opened(output, ("b", "a"), SIZES, {"x": number}, False) as found:
                    assert inside.acquire(blocking=False)
                    try:
                        found.write(Shard(0, 3), ROWS)
                        assert found.done() == {0: 3}
                        found.remove()
                    finally:
                        inside.release()
                ends[2] += 1
            except OutputError as error:
                ends["another process is writing this output" in str(error)] += 1
            parts.remove(output)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(often, range(4))) == [None] * 4
    assert ends[0] == 0
    assert min(ends[1:]) > 10
    parts.remove(output)
    assert not list(tmp_path.iterdir())
