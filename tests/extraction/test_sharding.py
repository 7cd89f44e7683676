"""A model's rows as parts of a sharded store, made one by one, by several processes, and after stops."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run as contrasim
from ranks import run as ranks
from stores import values, write
from torch import Tensor

from contrasim_cli.errors import InputError, MismatchError, OutputExistsError, Terminated, UsageError
from contrasim_cli.extraction import importing
from contrasim_cli.extraction.estimate import shard_size
from contrasim_cli.extraction.importing import ActivationFile, ImportOptions
from contrasim_cli.extraction.networks.network import ModelOptions
from contrasim_cli.extraction.run import RunOptions, extract, plan
from contrasim_cli.extraction.sharding import PartOf, complete
from contrasim_cli.extraction.sources.open import Source, array_source
from contrasim_cli.extraction.sources.source import file_digest
from contrasim_cli.store import open_store
from contrasim_cli.store.sharded import INDEX, part_name

ROWS, WIDTH = 23, 3
MODEL = ModelOptions("fake")
BLOCK = 5  # rows that a quarter of the memory takes
MEMORY = BLOCK * 4 * WIDTH * 4


@dataclass
class Block:
    items: Any
    cut: tuple[int, ...] = (0,)
    units: Any = None
    truncated = 1

    @property
    def unknown(self) -> list[tuple[int, int]]:
        """Longer items have more tokens, one of them unknown."""
        return [(1, 40 + length) for length in self.lengths]

    @property
    def lengths(self) -> list[int]:
        return [int(row[0]) for row in self.items]

    def batch(self, rows: list[int]) -> dict[str, Tensor]:
        return {"x": torch.from_numpy(np.asarray(self.items[rows]))}


@dataclass
class Fake:
    """A network whose rows depend on which others are in their batch, as rounding does, and on their positions."""

    stop_at: int | None = None
    positions: list[int] = field(default_factory=list)
    digest: str = "d"
    pooling: str = "none"
    grouping: str = "any"
    prepared_by: str | None = None
    name: str = "fake"
    calls: int = 0

    def discover(self, inputs: dict[str, Tensor]) -> dict[str, int]:
        return {"one": WIDTH}

    def rows(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.stop_at:
            raise Terminated
        return {"one": inputs["x"] + inputs["x"].mean()}

    def prepare(self, items: Any, first: int) -> Block:
        self.positions.append(first)
        return Block(items)

    def about(self) -> dict[str, Any]:
        return {"token_limit": 9}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    np.save(tmp_path / "i.npy", np.random.default_rng(0).integers(0, 9, (ROWS, WIDTH)).astype(np.float32))
    return array_source(tmp_path / "i.npy", None)


@pytest.fixture
def run(tmp_path: Path) -> RunOptions:
    return RunOptions(tmp_path / "o.acts", batch_size=2, memory=MEMORY, attrs={"model": "fake"})


def test_all_parts_are_the_rows_of_one_run_bit_for_bit(source: Source, run: RunOptions, tmp_path: Path) -> None:
    one, network = replace(run, output=tmp_path / "one.h5"), Fake()
    extract(Fake(), source, MODEL, one)
    for number in (2, 0, 1):
        extract(network, source, MODEL, replace(run, part=PartOf(number, 3)))
        complete(run.output, 3)
        assert (run.output / INDEX).exists() == (number == 1)
    found, whole = open_store(run.output), open_store(one.output)
    np.testing.assert_array_equal(found.read("one", 0, ROWS), whole.read("one", 0, ROWS))
    assert found.ids is not None
    assert whole.ids is not None
    assert (found.ids.digest, found.ids.source, found.ids.automatic) == (whole.ids.digest, whole.ids.source, True)
    assert found.provenance["config"] == whole.provenance["config"]
    assert found.provenance["truncated_rows"] == whole.provenance["truncated_rows"] == 5
    for name in ("unknown_tokens", "tokens"):
        assert found.provenance[name] == whole.provenance[name] >= ROWS
    assert found.attrs["model"] == "fake"
    assert {position % BLOCK for position in network.positions} == {0}
    assert sorted(path.name for path in run.output.iterdir()) == [*(part_name(k, 3) for k in range(3)), INDEX]


def test_parts_do_not_depend_on_the_memory_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrasim_cli.memory.available", lambda: 1, raising=False)
    assert shard_size(1 << 20, None) == 256


@pytest.mark.parametrize("count", [6, 10, 23])
def test_more_parts_than_blocks_have_smaller_blocks(source: Source, run: RunOptions, count: int) -> None:
    for number in range(count):
        extract(Fake(), source, MODEL, replace(run, part=PartOf(number, count)))
    complete(run.output, count)
    store = open_store(run.output)
    rows = np.concatenate(list(source.blocks(ROWS)))
    assert store.n_rows == ROWS
    np.testing.assert_allclose(store.read("one", 0, ROWS) - rows, rows, atol=9)  # of others in the batch
    assert store.ids is not None
    assert store.ids.read(0, ROWS) == [str(k) for k in range(ROWS)]


def test_more_parts_than_items_are_refused(source: Source, run: RunOptions) -> None:
    with pytest.raises(UsageError, match="23 items cannot be split into 24 parts"):
        plan(Fake(), source, replace(run, part=PartOf(0, 24)))


def test_parts_that_were_cut_with_other_memories_are_told(source: Source, run: RunOptions) -> None:
    """Rows would be missing between them, or be there twice."""
    extract(Fake(), source, MODEL, replace(run, part=PartOf(0, 2)))
    extract(Fake(), source, MODEL, replace(run, part=PartOf(1, 2), memory=MEMORY * 4 // 5))
    with pytest.raises(MismatchError, match="begins with item 12 where the part before it ends with item 9"):
        complete(run.output, 2)
    extract(Fake(), source, MODEL, replace(run, part=PartOf(1, 2), force=True))
    complete(run.output, 2)
    assert open_store(run.output).n_rows == ROWS


def test_a_part_that_was_stopped_does_not_go_on_with_another_memory(source: Source, run: RunOptions) -> None:
    second = replace(run, part=PartOf(1, 2))
    with pytest.raises(Terminated):
        extract(Fake(stop_at=5), source, MODEL, second)
    with pytest.raises(UsageError, match="shard was"):
        extract(Fake(), source, MODEL, replace(second, resume=True, memory=MEMORY * 4 // 5))


def test_a_part_that_was_stopped_goes_on_alone(source: Source, run: RunOptions) -> None:
    second = replace(run, part=PartOf(1, 2))
    extract(Fake(), source, MODEL, replace(run, part=PartOf(0, 2)))
    with pytest.raises(Terminated, match="stopped after 5 of 13 rows"):
        extract(Fake(stop_at=5), source, MODEL, second)
    complete(run.output, 2)
    assert not (run.output / INDEX).exists()
    network = Fake()
    extract(network, source, MODEL, replace(second, resume=True))
    complete(run.output, 2)
    assert network.calls == 5
    assert open_store(run.output).n_rows == ROWS


def test_force_replaces_one_part_alone(source: Source, run: RunOptions) -> None:
    for number in range(2):
        extract(Fake(), source, MODEL, replace(run, part=PartOf(number, 2)))
    complete(run.output, 2)
    before = [(run.output / part_name(k, 2)).stat().st_ino for k in range(2)]
    with pytest.raises(OutputExistsError, match=r"part-00001-of-00002\.h5: already exists"):
        extract(Fake(), source, MODEL, replace(run, part=PartOf(1, 2)))
    extract(Fake(), source, MODEL, replace(run, part=PartOf(1, 2), force=True))
    complete(run.output, 2)
    after = [(run.output / part_name(k, 2)).stat().st_ino for k in range(2)]
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert open_store(run.output).n_rows == ROWS


def test_a_part_of_another_model_is_told(source: Source, run: RunOptions) -> None:
    extract(Fake(), source, MODEL, replace(run, part=PartOf(0, 2)))
    extract(Fake(digest="other"), source, MODEL, replace(run, part=PartOf(1, 2)))
    with pytest.raises(MismatchError, match="model digest differs"):
        complete(run.output, 2)


@pytest.mark.parametrize("text", ["3", "3/", "/3", "3/3", "-1/3", "a/b", "1/2/3", "0/0", "1 /2", "٣/٤"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write which part of how many, counted from 0"):
        PartOf.parsed(text)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_make_up_the_whole(count: int) -> None:
    cuts = [PartOf(k, count).of(17) for k in range(count)]
    assert [place for cut in cuts for place in range(*cut)] == list(range(17))
    assert {stop - start for start, stop in cuts} <= {17 // count, 17 // count + 1}


@pytest.fixture
def big(tmp_path: Path) -> Path:
    return write(tmp_path / "big.h5", {"a": values(50, 4), "b": values(50, 2, 1)})


def test_a_store_is_split_and_joined_again(big: Path, tmp_path: Path) -> None:
    done = contrasim("extract", "--from", big, "--parts", 3, "-o", tmp_path / "big.acts")
    assert (done.code, done.stderr.count("\n")) == (0, 4), done
    assert "wrote" in done.stderr
    joined = contrasim("extract", "--from", tmp_path / "big.acts", "-o", tmp_path / "one.h5")
    assert joined.code == 0, joined
    first, second, third = (open_store(path) for path in (big, tmp_path / "big.acts", tmp_path / "one.h5"))
    for name in ("a", "b"):
        np.testing.assert_array_equal(first.read(name, 0, 50), second.read(name, 0, 50))
        np.testing.assert_array_equal(first.read(name, 0, 50), third.read(name, 0, 50))
    assert first.ids is not None
    assert third.ids is not None
    assert first.ids.digest == third.ids.digest


def test_the_file_is_read_through_once_however_many_parts_it_makes(
    big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return file_digest(path)

    monkeypatch.setattr(importing, "file_digest", counted)
    file = ActivationFile(big, ImportOptions(tmp_path / "big.acts"))
    for number in range(3):
        file.write(PartOf(number, 3))
    complete(tmp_path / "big.acts", 3)
    assert read == [big]
    np.testing.assert_array_equal(open_store(tmp_path / "big.acts").read("a", 0, 50), values(50, 4))


def test_every_part_is_looked_through_for_rows_of_zeros(tmp_path: Path) -> None:
    """However few there were in those before it."""
    matrix = values(400, 3)
    matrix[[5, *range(250, 290)]] = 0
    np.savez(tmp_path / "z.npz", a=matrix)
    file = ActivationFile(tmp_path / "z.npz", ImportOptions(tmp_path / "z.acts"))
    file.write(PartOf(0, 2))
    with pytest.raises(InputError, match="40 of 200 rows are all zero"):
        file.write(PartOf(1, 2))


def test_results_name_a_sharded_store_by_its_index(big: Path, tmp_path: Path) -> None:
    contrasim("extract", "--from", big, "--parts", 3, "-o", tmp_path / "big.acts")
    done = contrasim("baseline", tmp_path / "big.acts", big, "--measure", "cka", "--format", "json")
    assert set(json.loads(done.stdout)["digests"]) == {str(tmp_path / "big.acts" / INDEX), str(big)}


def test_only_some_rows_are_split(big: Path, tmp_path: Path) -> None:
    (tmp_path / "some").write_text("".join(f"row {k}\n" for k in range(0, 40, 3)))
    output = tmp_path / "some.acts"
    for k in (1, 0):
        done = contrasim("extract", "--from", big, "--shard", f"{k}/2", "--only-ids", tmp_path / "some", "-o", output)
        assert done.code == 0, done
    store = open_store(output)
    np.testing.assert_array_equal(store.read("a", 0, 14), values(50, 4)[:40:3])
    assert store.ids is not None
    assert store.ids.read(6, 9) == ["row 18", "row 21", "row 24"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--parts", 51], 2, "50 rows cannot be split into 51 parts; give fewer parts"),
        (["--parts", 2, "--shard", "0/2"], 2, "leave out --parts"),
        (["--shard", "2/2"], 2, "write which part of how many, counted from 0, such as 3/64"),
        (["--parts", 0], 2, "must be at least 1"),
        (["--ranks", 2], 2, "give --parts"),
    ],
)
def test_what_cannot_be_is_one_line(big: Path, tmp_path: Path, options: list[object], code: int, said: str) -> None:
    if "--ranks" in options:
        done = ranks(2, "extract", "--from", big, "-o", tmp_path / "x.h5")[0]
        assert (done.code, done.stderr.count("\n")) == (code, 1), done
    else:
        done = contrasim("extract", "--from", big, "-o", tmp_path / "x.acts", *options)  # type: ignore[assignment]
        assert (done.code, done.stderr.count("\n")) == (code, 1), done
    assert said in done.stderr
    assert not (tmp_path / "x.acts").exists()


def test_an_output_that_is_there_is_known_before_anything_is_read(big: Path, tmp_path: Path) -> None:
    output = tmp_path / "big.acts"
    contrasim("extract", "--from", big, "--parts", 3, "-o", output)
    assert contrasim("extract", "--from", big, "--parts", 3, "-o", output).code == 5
    assert contrasim("extract", "--from", big, "--parts", 4, "-o", output).code == 5
    assert contrasim("extract", "--from", big, "--parts", 3, "-o", big, "--force").code == 2
    assert contrasim("extract", "--from", output, "--parts", 3, "-o", output, "--force").code == 2
    assert contrasim("extract", "--from", output, "-o", output / part_name(0, 3), "--force").code == 2
    for source in (output / INDEX, output / part_name(1, 3)):
        assert contrasim("extract", "--from", source, "--parts", 3, "-o", output, "--force").code == 2
    (tmp_path / "file").write_text("x")
    assert contrasim("extract", "--from", big, "--parts", 3, "-o", tmp_path / "file").code == 7
    again = contrasim("extract", "--from", big, "--parts", 3, "-o", output, "--resume")
    assert (again.code, again.stderr.count("is complete already")) == (0, 3), again
    assert f"{output} is complete: " in again.stderr
    assert "wrote" not in again.stderr  # as nothing was written


def test_a_dry_run_lists_every_part_and_writes_none(big: Path, tmp_path: Path) -> None:
    done = contrasim("extract", "--from", big, "--parts", 3, "-o", tmp_path / "x.acts", "--dry-run")
    table = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in table[::2]] == [
        "store",
        *(str(tmp_path / "x.acts" / part_name(k, 3)) for k in (0, 1, 2)),
    ][: len(table[::2])]
    assert [row[2] for row in table[1:]] == ["16", "16", "17", "17", "17", "17"]
    assert not (tmp_path / "x.acts").exists()


@pytest.mark.slow
def test_ranks_write_the_parts_of_one_process(big: Path, tmp_path: Path) -> None:
    assert contrasim("extract", "--from", big, "--parts", 3, "-o", tmp_path / "alone").code == 0
    done = ranks(2, "extract", "--from", big, "--parts", 3, "-o", tmp_path / "ranks")
    assert [one.code for one in done] == [0, 0], done
    assert done[1].stderr == ""
    indices = [json.loads((tmp_path / name / INDEX).read_text()) for name in ("alone", "ranks")]
    for index in indices:
        assert index.pop("digest")
        index["attrs"].pop("created")
        for part in index["parts"]:
            del part["digest"]  # of when it was made, too
    assert indices[0] == indices[1]
