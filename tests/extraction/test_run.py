import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contrasim_cli.errors import InputError, OutputError, OutputExistsError, Terminated, UsageError
from contrasim_cli.extraction import parts
from contrasim_cli.extraction.inputs import Source, array_source
from contrasim_cli.extraction.models import ModelOptions
from contrasim_cli.extraction.run import RunOptions, batches, extract, shard_size
from contrasim_cli.store import open_store

ROWS, WIDTH = 23, 3
MODEL = ModelOptions("fake")
# a quarter of it are five rows of two layers of three float32
MEMORY = 5 * 4 * 2 * WIDTH * 4


@dataclass
class Block:
    """Rows whose first number is how long they are."""

    items: Any
    truncated: int = 1

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
    digest: str = "d"
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
        return {"token_limit": 9}


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
    block = Block(np.array([[3.0], [1], [4], [1], [5]]))
    assert list(batches(block, 2)) == [[4, 2], [0, 1], [3]]


def test_a_shard_takes_at_most_a_quarter_of_the_memory() -> None:
    assert shard_size(100, 4000) == 10
    assert shard_size(100, 100) == 1
    assert shard_size(1, 2**40) == 4096


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


def test_ctrl_c_says_how_to_go_on(source: Source, run: RunOptions, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(stopped(source, run, Fake(8, KeyboardInterrupt())), KeyboardInterrupt)
    assert caplog.messages == [f"{run.output}: stopped after 10 of 23 rows; --resume goes on"]


def test_without_resume_a_run_starts_again(source: Source, run: RunOptions) -> None:
    stopped(source, run, Fake(8))
    again = Fake()
    extract(again, source, MODEL, run)
    assert again.calls == 14


def test_other_options_do_not_resume_what_is_there(source: Source, run: RunOptions) -> None:
    stopped(source, run, Fake(8))
    error = stopped(source, replace(run, resume=True), Fake(pooling="cls"))
    assert isinstance(error, UsageError)
    assert str(error) == (
        f"{run.output}.parts: --resume cannot go on, the rows there were made otherwise: pool was none and is cls; "
        "give the same options, or leave out --resume to start again"
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
    with parts.opened(run.output, ("one",), 5, {}, False):
        error = stopped(source, run, Fake())
    assert isinstance(error, OutputError)
    assert "another process is writing this output" in str(error)


def test_a_damaged_shard_is_named(source: Source, run: RunOptions) -> None:
    stopped(source, run, Fake(8))
    shard = parts.folder_of(run.output) / "000001.npz"
    shard.write_bytes(shard.read_bytes()[:-40])
    error = stopped(source, replace(run, resume=True), Fake())
    assert isinstance(error, InputError)
    assert "000001.npz: is damaged" in str(error)


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
    assert caplog.messages == ["5 of 23 rows were longer than 9 tokens and were cut there"]
    store = open_store(run.output)
    assert store.provenance["truncated_rows"] == 5
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
