import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contrasim_cli.errors import (
    ContraSimError,
    InputError,
    MismatchError,
    OutputError,
    OutputExistsError,
    Terminated,
    UsageError,
)
from contrasim_cli.extraction import run as extraction
from contrasim_cli.extraction import shards as parts
from contrasim_cli.extraction.batching import BatchSize, by_length
from contrasim_cli.extraction.estimate import shard_size, size
from contrasim_cli.extraction.networks.network import ModelOptions
from contrasim_cli.extraction.run import RunOptions, extract, plan
from contrasim_cli.extraction.sources.open import BadItem, Choice, Source, array_source
from contrasim_cli.store import open_store
from contrasim_cli.store.inspection import facts

ROWS, WIDTH = 23, 3
LONG = 7  # rows of an item that was cut
MODEL = ModelOptions("fake")
# a quarter of it are five rows of two layers of three float32
MEMORY = 5 * 4 * 2 * WIDTH * 4


@dataclass
class Block:
    """Rows whose first number is how long they are."""

    items: Any
    cut: Sequence[int] = (0,)
    units: Any = None

    @property
    def unknown(self) -> list[tuple[int, int]]:
        """Every item has forty tokens, one of them unknown."""
        return [(1, 40)] * len(self.items)

    @property
    def truncated(self) -> int:
        return len(self.cut)

    @property
    def lengths(self) -> list[int]:
        return [int(row[0]) for row in self.items]

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return {"x": torch.from_numpy(np.asarray(self.items[rows]))}


@dataclass
class Fake:
    """A network whose layers are its input and the double of it; stops at a given batch."""

    stop_at: int | None = None
    stop: BaseException = field(default_factory=Terminated)
    scale: float = 2.0
    pooling: str = "none"
    grouping: str = "any"
    digest: str = "d"
    prepared_by: str | None = None
    name: str = "fake"
    calls: int = 0

    def discover(self, inputs: Mapping[str, Tensor]) -> dict[str, int]:
        return {"one": WIDTH, "two": WIDTH}

    def rows(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.stop_at:
            raise self.stop
        return {"one": inputs["x"], "two": inputs["x"] * self.scale}

    def prepare(self, items: Any, first: int) -> Block:
        return Block(items)

    def about(self) -> dict[str, Any]:
        return {"token_limit": 9, "unknown_token": "[UNK]"}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    np.save(tmp_path / "i.npy", np.random.default_rng(0).integers(0, 9, (ROWS, WIDTH)).astype(np.float32))
    return array_source(tmp_path / "i.npy", None)


@pytest.fixture
def run(tmp_path: Path) -> RunOptions:
    return RunOptions(tmp_path / "o.h5", batch_size=2, memory=MEMORY, attrs={"model": "fake"})


def layers(path: Path) -> dict[str, Any]:
    store = open_store(path)
    found = {name: store.read(name, 0, store.n_rows) for name in store.layers}
    store.close()
    return found


def stopped(source: Source, run: RunOptions, network: Fake) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - its kind is what the caller looks at
        extract(network, source, MODEL, run)
    return caught.value


def test_rows_come_out_in_the_order_they_went_in(source: Source, run: RunOptions) -> None:
    extract(Fake(), source, MODEL, run)
    expected = np.concatenate(list(source.blocks(ROWS)))
    found = layers(run.output)
    np.testing.assert_array_equal(found["one"], expected)
    np.testing.assert_array_equal(found["two"], expected * 2)


def test_batches_hold_rows_alike_in_length_and_every_row_once() -> None:
    lengths = np.array([3, 1, 4, 1, 5])
    assert list(by_length(range(5), lengths, BatchSize(2))) == [[4, 2], [0, 1], [3]]
    assert list(by_length([0, 3, 4], lengths, BatchSize(2))) == [[4, 0], [3]]


def test_a_shard_takes_at_most_a_quarter_of_the_memory() -> None:
    assert shard_size(100, 4000) == 10
    assert shard_size(100, 100) == 1
    assert shard_size(1, 2**40) == 4096


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", range(1, 15))
def test_a_stopped_run_leaves_no_output_and_goes_on(
    source: Source, run: RunOptions, tmp_path: Path, stop_at: int
) -> None:
    network = Fake(stop_at)
    # three batches to a shard of five rows, and two to the last, of three
    kept = min((stop_at - 1) // 3 * 5, 20)
    assert str(stopped(source, run, network)) == f"{run.output}: stopped after {kept} of 23 rows; --resume goes on"
    assert not run.output.exists()
    again = Fake()
    extract(again, source, MODEL, replace(run, resume=True, memory=None))
    assert again.calls == 14 - (stop_at - 1) // 3 * 3
    extract(Fake(), source, MODEL, replace(run, output=tmp_path / "whole.h5"))
    whole = layers(tmp_path / "whole.h5")
    for name, rows in layers(run.output).items():
        np.testing.assert_array_equal(rows, whole[name])
    assert not parts.folder_of(run.output).exists()


@pytest.mark.parametrize("name", ["acts_50%.h5", "%s.h5", "%d of %(x)s.h5", "{x}.h5"])
@pytest.mark.parametrize("stop", [Terminated, KeyboardInterrupt])
def test_the_name_of_an_output_is_no_template(
    source: Source, run: RunOptions, caplog: pytest.LogCaptureFixture, name: str, stop: type[BaseException]
) -> None:
    run = replace(run, output=run.output.with_name(name))
    problem = stopped(source, run, Fake(8, stop()))
    said = f"{run.output}: stopped after 10 of 23 rows; --resume goes on"
    assert said in (str(problem), *caplog.messages)


def test_ctrl_c_says_how_to_go_on(source: Source, run: RunOptions, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(stopped(source, run, Fake(8, KeyboardInterrupt())), KeyboardInterrupt)
    assert caplog.messages == [f"{run.output}: stopped after 10 of 23 rows; --resume goes on"]


def test_rows_of_a_stopped_run_are_not_thrown_away_unasked(source: Source, run: RunOptions) -> None:
    stopped(source, run, Fake(8))
    before = sorted(path.name for path in parts.folder_of(run.output).iterdir())
    error = stopped(source, run, Fake())
    assert isinstance(error, OutputExistsError)
    assert str(error) == (
        f"{run.output}.parts: holds rows of a run that was stopped; give --resume to go on with them, or --force to start over"
    )
    assert sorted(path.name for path in parts.folder_of(run.output).iterdir()) == before
    again = Fake()
    extract(again, source, MODEL, replace(run, force=True))
    assert again.calls == 14


def test_other_options_do_not_resume_what_is_there(source: Source, run: RunOptions) -> None:
    stopped(source, run, Fake(8))
    error = stopped(source, replace(run, resume=True), Fake(pooling="cls"))
    assert isinstance(error, UsageError)
    assert str(error) == (
        f"{run.output}.parts: --resume cannot continue, as its rows were made with other options: pool was none and is cls; "
        "give the same options, or leave out --resume and give --force to start again"
    )
    extract(Fake(), source, MODEL, replace(run, resume=True, batch_size=7))


def test_a_finished_output_is_left_as_it_is(source: Source, run: RunOptions, caplog: pytest.LogCaptureFixture) -> None:
    extract(Fake(), source, MODEL, run)
    with pytest.raises(OutputExistsError):
        extract(Fake(), source, MODEL, run)
    before = run.output.stat().st_mtime_ns
    caplog.set_level("INFO")
    extract(Fake(), source, MODEL, replace(run, resume=True))
    assert run.output.stat().st_mtime_ns == before
    assert caplog.messages[-1] == f"{run.output} is complete already"
    error = stopped(source, replace(run, resume=True), Fake(digest="other"))
    assert isinstance(error, OutputExistsError)
    assert str(error) == (
        f"{run.output}: already exists and differs (model digest was d and is other); give --force to replace it"
    )


def test_resume_leaves_a_foreign_output_alone(source: Source, run: RunOptions) -> None:
    run.output.write_text("something else")
    error = stopped(source, replace(run, resume=True), Fake())
    assert isinstance(error, OutputExistsError)
    assert run.output.read_text() == "something else"


def test_a_folder_of_somebody_elses_is_not_emptied(source: Source, run: RunOptions) -> None:
    folder = parts.folder_of(run.output)
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    assert isinstance(stopped(source, run, Fake()), OutputExistsError)
    assert (folder / "thesis.tex").exists()


def test_two_runs_do_not_write_one_output(source: Source, run: RunOptions) -> None:
    with parts.opened(run.output, ("one",), parts.Sizes(5, 5), {}, False):
        error = stopped(source, run, Fake())
    assert isinstance(error, OutputError)
    assert "another process is writing this output" in str(error)


def test_a_damaged_shard_is_named(source: Source, run: RunOptions) -> None:
    stopped(source, run, Fake(8))
    shard = parts.folder_of(run.output) / "000000000005-000000000010.npz"
    shard.write_bytes(shard.read_bytes()[:-40])
    error = stopped(source, replace(run, resume=True), Fake())
    assert isinstance(error, InputError)
    assert "000000000005-000000000010.npz: is damaged" in str(error)


@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [
        (
            float("nan"),
            "float32",
            "i.npy: row {row}: layer two, column 0: the model gives nan; activations must be finite",
        ),
        (1e5, "float16", "i.npy: row {row}: layer two, column 0: {value} does not fit float16; store it as float32"),
    ],
)
def test_values_that_cannot_be_stored_are_refused(
    source: Source, run: RunOptions, scale: float, dtype: str, message: str
) -> None:
    array = next(source.blocks(ROWS))
    row = int(np.argsort(-array[:5, 0], kind="stable")[0])
    value = f"{float(np.float32(array[row, 0]) * np.float32(scale)):.6g}"
    error = stopped(source, replace(run, store_dtype=dtype), Fake(scale=scale))
    assert isinstance(error, InputError)
    assert str(error).startswith(message.format(row=row, value=value))
    assert not run.output.exists()


def test_cut_texts_are_counted_over_all_shards(
    source: Source, run: RunOptions, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(source, run, Fake(8))
    extract(Fake(), source, MODEL, replace(run, resume=True))
    assert caplog.messages == ["5 of 23 texts were longer than 9 tokens and were cut there"]
    store = open_store(run.output)
    assert store.provenance["truncated_rows"] == 5
    store.close()


def test_unknown_tokens_are_counted_over_all_shards_and_told_once(
    source: Source, run: RunOptions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Block, "unknown", property(lambda block: [(1, 4)] * len(block.items)))
    stopped(source, run, Fake(8))
    extract(Fake(), source, MODEL, replace(run, resume=True))
    said = (
        "o.h5: 25 % of the tokens are unknown ([UNK]) to this tokenizer; does it fit the model and the texts' language?"
    )
    assert [message for message in caplog.messages if "unknown" in message] == [f"{run.output.parent}/{said}"]
    store = open_store(run.output)
    assert (store.provenance["unknown_tokens"], store.provenance["tokens"]) == (ROWS, 4 * ROWS)
    assert facts(store)["unknown_token_share"] == 0.25
    store.close()


def test_unknown_tokens_are_not_told_where_some_shards_lack_their_count(
    source: Source, run: RunOptions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Block, "unknown", None)
    stopped(source, run, Fake(8))
    monkeypatch.undo()
    extract(Fake(), source, MODEL, replace(run, resume=True))
    store = open_store(run.output)
    assert not {"unknown_tokens", "tokens"} & set(store.provenance)
    assert "unknown_token_share" not in facts(store)
    assert not [message for message in caplog.messages if "unknown" in message]
    store.close()


def test_the_store_says_how_it_was_made_and_no_path_of_this_machine(source: Source, run: RunOptions) -> None:
    extract(Fake(), source, MODEL, run)
    store = open_store(run.output)
    config = store.provenance["config"]
    assert config["rows"] == ROWS
    assert config["input_digest"] == source.digest
    assert str(source.path.parent) not in json.dumps(dict(store.provenance)) + json.dumps(dict(store.attrs))
    assert store.ids is not None
    assert store.ids.source == source.digest
    store.close()


# several rows per item


@dataclass
class Words(Block):
    """Items whose first number is how many rows they have."""

    def __post_init__(self) -> None:
        self.units = [[str(unit) for unit in range(int(row[0]))] for row in self.items]
        self.cut = [place for place, row in enumerate(self.items) if row[0] == LONG]


@dataclass
class ByWord(Fake):
    """A network that gives the rows of an item its number plus that of the unit."""

    def prepare(self, items: Any, first: int) -> Block:
        return Words(items)

    def rows(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        super().rows(inputs)
        made = [row + unit for row in inputs["x"] for unit in range(int(row[0]))]
        return {"one": torch.stack(made), "two": torch.stack(made) * 2} if made else {}


def test_every_unit_is_a_row_in_the_order_of_its_item(
    source: Source, run: RunOptions, caplog: pytest.LogCaptureFixture
) -> None:
    extract(ByWord(), source, MODEL, run)
    items = np.concatenate(list(source.blocks(ROWS)))
    expected = [(f"{k}:{unit}", row + unit) for k, row in enumerate(items) for unit in range(int(row[0]))]
    assert items[:, 0].min() == 0
    store = open_store(run.output)
    assert store.ids is not None
    assert store.ids.read(0, store.n_rows) == [name for name, _ in expected]
    assert store.ids.automatic
    assert store.ids.source == source.digest
    np.testing.assert_array_equal(store.read("one", 0, store.n_rows), [row for _, row in expected])
    np.testing.assert_array_equal(store.read("two", 0, store.n_rows), [row * 2 for _, row in expected])
    store.close()
    cut = int((items[:, 0] == LONG).sum())
    assert caplog.messages == [f"{cut} of 23 texts were longer than 9 tokens and were cut there"]


@pytest.mark.parametrize("stop_at", [1, 3, 4, 7, 19])
def test_a_stopped_run_of_units_goes_on(source: Source, run: RunOptions, tmp_path: Path, stop_at: int) -> None:
    stopped(source, run, ByWord(stop_at))
    shards = parts.folder_of(run.output).glob("*.npz")
    before = {path: path.stat().st_mtime_ns for path in shards}
    assert len(before) > 3 or stop_at < 19
    again = ByWord()
    extract(again, source, MODEL, replace(run, resume=True))
    assert again.calls < 60
    extract(ByWord(), source, MODEL, replace(run, output=tmp_path / "whole.h5"))
    for name, rows in layers(run.output).items():
        np.testing.assert_array_equal(rows, layers(tmp_path / "whole.h5")[name])


def test_an_item_larger_than_a_shard_is_one(source: Source, run: RunOptions) -> None:
    extract(ByWord(), source, MODEL, replace(run, memory=1))
    items = np.concatenate(list(source.blocks(ROWS)))
    assert len(layers(run.output)["one"]) == items[:, 0].sum()


def test_items_without_any_unit_are_refused(tmp_path: Path, run: RunOptions) -> None:
    np.save(tmp_path / "none.npy", np.zeros((4, WIDTH), np.float32))
    error = stopped(array_source(tmp_path / "none.npy"), run, ByWord())
    assert isinstance(error, InputError)
    assert str(error) == f"{tmp_path / 'none.npy'}: no words in the first 256 rows"


def test_a_value_that_does_not_fit_is_named_by_its_unit(source: Source, run: RunOptions) -> None:
    error = stopped(source, replace(run, store_dtype="float16"), Overflow())
    longest = int(np.argmax(np.concatenate(list(source.blocks(ROWS)))[:, 0]))
    assert str(error).startswith(f"i.npy: row {longest}:2: layer one, column 0: 1e+06 does not fit float16; ")


@dataclass
class Overflow(ByWord):
    """A network whose third row of a batch does not fit float16."""

    def rows(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = super().rows(inputs)
        found["one"][2, 0] = 1e6
        return found


# what cannot be read


@dataclass
class Late(Block):
    """Items whose second number is 5 cannot be read, which shows when a batch is made."""

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        bad = [row for row in rows if self.items[row][1] == 5]
        if bad:
            raise BadItem(f"row {bad[0]} is bad")
        return super().batch(rows)


@dataclass
class Picky(Fake):
    """A network that finds bad items early (2) or late (5)."""

    early: bool = True

    def prepare(self, items: Any, first: int) -> Block:
        bad = [place for place, row in enumerate(items) if row[1] == 2 and self.early]
        if bad:
            raise BadItem(f"row {first + bad[0]} is bad")
        return Late(np.asarray(items), cut=())


@pytest.mark.parametrize("early", [True, False])
def test_bad_items_are_left_out_and_the_others_keep_their_ids(
    source: Source, run: RunOptions, early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    items = np.concatenate(list(source.blocks(ROWS)))
    good = ~np.isin(items[:, 1], [2, 5] if early else [5])
    assert 0 < good.sum() < ROWS - 2
    extract(Picky(early=early), source, MODEL, replace(run, skip_bad=True))
    np.testing.assert_array_equal(layers(run.output)["two"], items[good] * 2)
    store = open_store(run.output)
    assert store.ids is not None
    assert store.ids.read(0, store.n_rows) == [str(k) for k in np.flatnonzero(good)]
    assert store.ids.automatic
    bad = [str(k) for k in np.flatnonzero(~good)]
    assert store.provenance["left_out"] == bad
    assert caplog.messages == [f"row {name} is left out: is bad" for name in bad]


@pytest.mark.parametrize("early", [True, False])
def test_a_bad_item_stops_the_run_after_the_shards_before_it(
    source: Source, run: RunOptions, tmp_path: Path, early: bool
) -> None:
    items = np.concatenate(list(source.blocks(ROWS)))
    wrong = np.flatnonzero(np.isin(items[:, 1], [2] if early and 2 in items[:5, 1] else [2, 5] if early else [5]))
    error = stopped(source, run, Picky(early=early))
    block = wrong[0] // 5
    named = [k for k in wrong if k // 5 == block and (not early or items[k, 1] == items[wrong[0], 1])]
    assert error.lines == [  # type: ignore[attr-defined]
        f"{source.path}: row {k}: is bad; correct it, or leave it out with --skip-bad" for k in named
    ]
    assert not run.output.exists()
    extract(Picky(early=early), source, MODEL, replace(run, resume=True, skip_bad=True))
    extract(Picky(early=early), source, MODEL, replace(run, output=tmp_path / "w.h5", skip_bad=True))
    np.testing.assert_array_equal(layers(run.output)["one"], layers(tmp_path / "w.h5")["one"])


def test_nothing_but_bad_items_is_refused(tmp_path: Path, run: RunOptions) -> None:
    array = np.full((12, WIDTH), 5, np.float32)
    array[0] = 1
    np.save(tmp_path / "bad.npy", array)
    source = array_source(tmp_path / "bad.npy")
    extract(Picky(), source, MODEL, replace(run, skip_bad=True))
    assert len(layers(run.output)["one"]) == 1
    np.save(tmp_path / "bad.npy", array[1:])
    error = stopped(array_source(tmp_path / "bad.npy"), replace(run, skip_bad=True, force=True), Picky())
    assert str(error) == (f"{tmp_path / 'bad.npy'}: nothing that can be read (row 0: is bad) in the first 256 rows")


# memory, disk, limits


@dataclass
class Greedy(Fake):
    """A network that takes so many items at most."""

    most: int = 3
    error: Exception = field(default_factory=lambda: RuntimeError("[enforce fail] not enough memory: you tried"))
    wrapped: bool = False
    tried: list[int] = field(default_factory=list)

    def rows(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.tried.append(len(inputs["x"]))
        if len(inputs["x"]) > self.most:
            if self.wrapped:
                raise InputError("in other words") from self.error
            raise self.error
        return super().rows(inputs)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("DefaultCPUAllocator: not enough memory"), MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory")],
    ids=["cpu", "python", "cuda"],
)  # fmt: skip
@pytest.mark.parametrize("wrapped", [False, True])
def test_batches_shrink_until_they_fit(
    source: Source, run: RunOptions, error: Exception, wrapped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    network = Greedy(error=error, wrapped=wrapped)
    extract(network, source, MODEL, replace(run, batch_size=None, memory=None))
    np.testing.assert_array_equal(layers(run.output)["one"], np.concatenate(list(source.blocks(ROWS))))
    assert network.tried[:5] == [23, 11, 5, 2, 2]
    assert max(network.tried[3:]) == 2
    assert [message for message in caplog.messages if "memory" in message] == [
        f"memory ran out with {a} rows at a time: continuing with {b}" for a, b in ((23, 11), (11, 5), (5, 2))
    ]
    store = open_store(run.output)
    assert store.provenance["batch_size"] == 2


def test_a_batch_size_that_was_asked_for_is_kept(source: Source, run: RunOptions) -> None:
    error = stopped(source, replace(run, batch_size=4), Greedy())
    assert type(error) is ContraSimError
    assert str(error) == (
        f"{run.output}: stopped after 0 of 23 rows; --resume goes on, memory ran out: give a smaller --batch-size"
    )
    assert "memory ran out" in str(stopped(source, replace(run, batch_size=None), Greedy(most=0)))


def test_other_errors_are_not_taken_for_a_lack_of_memory(source: Source, run: RunOptions) -> None:
    network = Greedy(error=RuntimeError("shapes do not fit"))
    assert str(stopped(source, replace(run, batch_size=None), network)) == "shapes do not fit"
    assert len(network.tried) == 1


@dataclass
class Choosy(Fake):
    """A network that does not take items of one length."""

    error: type[ContraSimError] = InputError
    refused: int = 3

    def rows(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.refused in inputs["x"][:, 0]:
            raise self.error("fake: fails in layer two with KeyError: 3")
        return super().rows(inputs)


@pytest.mark.parametrize("error", [InputError, MismatchError])
def test_a_model_that_fails_names_the_row_on_which_it_does(
    source: Source, run: RunOptions, error: type[ContraSimError]
) -> None:
    lengths = next(iter(source.blocks(ROWS)))[:, 0]
    first = min(np.flatnonzero(lengths == 3))
    found = stopped(source, replace(run, batch_size=ROWS), Choosy(error=error))
    assert type(found) is error
    assert str(found) == f"i.npy: row {first}: fake: fails in layer two with KeyError: 3"


def test_a_full_disk_is_seen_before_the_model_runs(
    source: Source, run: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * ROWS * 2 * WIDTH * 4
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    network = Fake()
    error = stopped(source, run, network)
    assert isinstance(error, OutputError)
    assert str(error) == (
        f"{run.output}: needs 1.1 kB of disk (2 layers x 23 rows x 3, 552 B, and as much again for 5 shards while it runs), "
        "and 1.1 kB are free; choose fewer --layers, --store-dtype float16, or another disk"
    )
    assert network.calls == 0
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=needed))
    extract(network, source, MODEL, run)


def test_a_plan_writes_nothing(source: Source, run: RunOptions, tmp_path: Path) -> None:
    found = plan(ByWord(), source, run)
    items = np.concatenate(list(source.blocks(ROWS)))
    assert found.rows == items[:, 0].sum()
    assert str(found) == (
        f"about 2 layers x {found.rows} rows x 3, {size(found.rows * 24)}, and as much again for "
        f"{-(-found.rows // 5)} shards while it runs"
    )
    assert os.listdir(tmp_path) == ["i.npy"]


def test_cut_texts_can_be_refused_before_the_model_runs(source: Source, run: RunOptions) -> None:
    network = ByWord()
    error = stopped(source, replace(run, refuse_cut=True), network)
    items = np.concatenate(list(source.blocks(ROWS)))
    cut = np.flatnonzero(items[:, 0] == LONG).tolist()
    assert isinstance(error, InputError)
    assert str(error) == (
        f"{source.path}: {len(cut)} of 23 texts are longer than 9 tokens (rows {', '.join(map(str, cut))}); shorten them, or let "
        "them be cut (--on-truncate warn)"
    )
    assert network.calls == 0


def test_no_option_that_determines_rows_is_resumed_with_another(source: Source, run: RunOptions) -> None:
    stopped(source, run, Fake(8))
    for name, value in {"unit": "word", "dtype": "bfloat16", "part": "text", "revision": "v2"}.items():
        with pytest.raises(UsageError, match=f"its rows were made with other options: {name} was .* and is {value}; "):
            extract(Fake(), source, replace(MODEL, **{name: value}), replace(run, resume=True))
    names = source.path.with_name("ids.txt")
    names.write_text("".join(f"x{k}\n" for k in range(ROWS)))
    with pytest.raises(UsageError, match="ids digest was"):
        extract(Fake(), array_source(source.path, Choice(ids=names)), MODEL, replace(run, resume=True))


# stopping


@dataclass
class Signalled(Fake):
    """A network that gets SIGTERM in its fifth batch, once or several times."""

    times: int = 1

    def rows(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = super().rows(inputs)
        if self.calls == 5:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGTERM)
        return found


@pytest.fixture
def _terminating() -> Iterator[None]:
    def terminate(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    yield
    assert signal.signal(signal.SIGTERM, before) is terminate


@pytest.mark.usefixtures("_terminating")
def test_sigterm_lets_the_batch_be_finished(source: Source, run: RunOptions, tmp_path: Path) -> None:
    network = Signalled()
    # the second of three batches of the second shard
    assert str(stopped(source, run, network)) == f"{run.output}: stopped after 9 of 23 rows; --resume goes on"
    assert network.calls == 5
    assert goes_on(source, run, tmp_path) == 9


def goes_on(source: Source, run: RunOptions, tmp_path: Path) -> int:
    """How many batches are left to a run that was stopped, whose rows are those of one that was not."""
    again = Fake()
    extract(again, source, MODEL, replace(run, resume=True, memory=None))
    extract(Fake(), source, MODEL, replace(run, output=tmp_path / "whole.h5"))
    whole = layers(tmp_path / "whole.h5")
    for name, rows in layers(run.output).items():
        np.testing.assert_array_equal(rows, whole[name])
    assert not parts.folder_of(run.output).exists()
    return again.calls


@pytest.mark.usefixtures("_terminating")
def test_a_second_sigterm_stops_at_once(source: Source, run: RunOptions) -> None:
    network = Signalled(times=2)
    assert str(stopped(source, run, network)) == f"{run.output}: stopped after 5 of 23 rows; --resume goes on"
    assert network.calls == 5


@pytest.mark.parametrize("stop_at", range(2, 15))
@pytest.mark.parametrize("stop", [Terminated(), ValueError("nobody expects this")])
def test_rows_of_a_shard_that_is_not_finished_are_saved_now_and_then(
    source: Source, run: RunOptions, tmp_path: Path, stop_at: int, stop: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "SAVE_SECONDS", -1.0)
    assert type(stopped(source, run, Fake(stop_at, stop))) is type(stop)
    with pytest.raises(OutputExistsError, match="holds rows of a run that was stopped"):
        extract(Fake(), source, MODEL, run)
    monkeypatch.undo()
    assert goes_on(source, run, tmp_path) == 15 - stop_at


def test_damaged_rows_of_a_shard_that_is_not_finished_are_named(
    source: Source, run: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "SAVE_SECONDS", -1.0)
    stopped(source, run, Fake(3))
    begun = parts.folder_of(run.output) / parts.BEGUN
    whole = begun.read_bytes()
    with np.load(begun) as archive:
        arrays = [archive[name] for name in archive.files]
    for lie in (
        [arrays[0][:-1], *arrays[1:]],
        [arrays[0].astype("f2"), *arrays[1:]],
        [*arrays[:2], arrays[2][:-1], arrays[3]],
    ):
        np.savez(begun, *lie)
        with pytest.raises(InputError, match=r"begun\.npz: is damaged \(it holds other rows than it says\)"):
            extract(Fake(), source, MODEL, replace(run, resume=True))
    begun.write_bytes(whole[:99])
    with pytest.raises(
        InputError, match=r"begun\.npz: is damaged \(.*\); delete it and give --resume to make it again"
    ):
        extract(Fake(), source, MODEL, replace(run, resume=True))
    begun.unlink()
    extract(Fake(), source, MODEL, replace(run, resume=True))
