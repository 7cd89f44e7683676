"""Batches, objectives and the loop: every row once, the oracle's loss, the same weights however a run is interrupted."""

import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrasim_cli import encoder as encoders
from contrasim_cli import training
from contrasim_cli.encoder import Config
from contrasim_cli.errors import MismatchError, Terminated, TrainingError, UsageError
from contrasim_cli.progress import silent
from contrasim_cli.training import Data, Source, State, Step, epoch_groups

CPU = torch.device("cpu")
KINDS = [
    ("contrasim", "dot"),
    ("contrasim", "norm"),
    ("supcon", "dot"),
    ("supcon", "norm"),
    ("deepdot", "dot"),
    ("deepdot", "norm"),
    ("deepcka", "dot"),
]


def config(task: str = "pairs", **options: Any) -> Config:
    small = {"objective": "contrasim", "widths": (10,), "hidden": (16,), "output": 8, "batch_size": 16, "epochs": 2}
    return Config(task=task, **(small | options))


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return make_data(tmp_path)


def make_data(folder: Path, *, count: int = 2, rows: int = 50, widths: tuple[int, ...] = (10,), seed: int = 0) -> Data:
    """`count` stores of three layers."""
    layers = made.related(count, 3, rows, widths, seed=seed)
    views = [made.view(folder / f"{'abcdef'[k]}.h5", layers[k]) for k in range(count)]
    return Data(views, [list(view.store.layers) for view in views])


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """Warnings that training logs."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    training.log.addHandler(handler)
    yield heard
    training.log.removeHandler(handler)


def nowhere(state: State, finished: bool) -> None:
    """Save nothing."""


def trained(data: Data, options: Config, *, budget: int = 1 << 40, save: Any = nowhere) -> State:
    """The state after a whole run."""
    return training.train(Source(data, budget, CPU, silent), options, training.new_state(options, CPU), save)


def weights(state: State) -> str:
    return encoders.weights_digest(state.encoder.state_dict())


# --- which rows a step sees -------------------------------------------------------------------------------------------


def steps_of(n_rows: int, n_layers: int, options: Config, epoch: int = 0) -> list[Step]:
    return [step for _, steps in epoch_groups(n_rows, n_layers, options, epoch) for step in steps]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n_rows=st.integers(2, 700),
    n_layers=st.integers(1, 4),
    batch=st.integers(2, 90),
    group=st.integers(1, 300),
    task=st.sampled_from(["pairs", "layers"]),
    epoch=st.integers(0, 3),
)
def test_an_epoch_visits_every_row_once_per_layer(
    n_rows: int, n_layers: int, batch: int, group: int, task: str, epoch: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "GROUP_ROWS", group)
        patch.setattr(training, "BLOCK_ROWS", 13)
        groups = list(epoch_groups(n_rows, n_layers, config(task, batch_size=batch), epoch))
    assert max(len(rows) for rows, _ in groups) <= max(group, batch)
    assert sorted(np.concatenate([rows for rows, _ in groups])) == list(range(n_rows))
    alone = n_rows % batch == 1 and task == "pairs"
    for layer in range(n_layers if task == "pairs" else 1):
        batches = [step.rows for _, steps in groups for step in steps if step.layer == layer]
        seen = np.concatenate(batches)
        assert len(seen) == len(set(seen)) == n_rows - alone
        sizes = sorted(map(len, batches))
        assert sizes[-1] <= batch
        assert len(sizes) == n_rows // batch + (n_rows % batch > alone)
        assert all(size == batch for size in sizes[1:])
    for rows, steps in groups:
        assert {row for step in steps for row in step.rows} <= set(rows)


def test_every_layer_meets_the_same_batches() -> None:
    by_layer: dict[int, set[tuple[int, ...]]] = {}
    for step in steps_of(100, 3, config(batch_size=16)):
        by_layer.setdefault(step.layer, set()).add(tuple(step.rows))
    assert by_layer[0] == by_layer[1] == by_layer[2]
    assert sorted(map(len, by_layer[0])) == [4, 16, 16, 16, 16, 16, 16]


def test_one_row_alone_has_no_negatives_and_is_left_out_of_pairs_only() -> None:
    assert sorted(len(step.rows) for step in steps_of(17, 1, config("pairs"))) == [16]
    assert sorted(len(step.rows) for step in steps_of(17, 3, config("layers"))) == [1, 16]


def order(options: Config, epoch: int = 0) -> list[tuple[int, tuple[int, ...]]]:
    return [(step.layer, tuple(step.rows)) for step in steps_of(200, 3, options, epoch)]


def test_the_order_is_random_and_depends_on_seed_and_epoch_alone() -> None:
    first = order(config())
    assert first == order(config())
    assert first != order(config(), epoch=1)
    assert first != order(config(seed=1))
    layers = [layer for layer, _ in first]
    assert layers not in (sorted(layers), [0, 1, 2] * (len(layers) // 3))
    assert [row for layer, rows in first if layer == 0 for row in rows] != list(range(200))
    assert order(config(seed=1), epoch=0) != order(config(seed=0), epoch=1)


def test_rows_from_all_over_the_store_meet_in_one_batch() -> None:
    step = steps_of(5000, 1, config(batch_size=256))[0]
    assert len({row // training.BLOCK_ROWS for row in step.rows}) > 10


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_streamed_rows_are_those_in_memory(tmp_path: Path, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "GROUP_ROWS", 64)
    monkeypatch.setattr(training, "BLOCK_ROWS", 8)
    rng = np.random.default_rng(0)
    layers = [{f"l{k}": (40 * rng.normal(size=(150, 5))).astype(dtype) for k in range(2)} for _ in "ab"]
    write = made.store if dtype != np.int8 else plain
    views = [made.View(made.open_store(write(tmp_path / f"{n}.h5", x))) for n, x in zip("ab", layers, strict=True)]
    data = Data(views, [["l0", "l1"], ["l1", "l0"]])
    assert data.bytes_in_memory == 4 * 150 * 5 * (2 if dtype == np.float16 else 4)
    held, streamed = (
        Source(data, data.bytes_in_memory, CPU, silent),
        Source(data, data.bytes_in_memory - 1, CPU, silent),
    )
    assert (held.in_memory, streamed.in_memory) == (True, False)
    assert training.provenance(held) == training.provenance(streamed)
    for rows, steps in epoch_groups(150, 2, config(), 0):
        held.open_group(rows)
        streamed.open_group(rows)
        for step in steps:
            for side, name in enumerate([f"l{step.layer}", f"l{1 - step.layer}"]):
                taken = streamed.take(side, step.layer, step.rows)
                assert taken.dtype == torch.float32
                assert torch.equal(taken, held.take(side, step.layer, step.rows))
                np.testing.assert_array_equal(taken.numpy(), layers[side][name][step.rows].astype(np.float32))


def plain(path: Path, layers: dict[str, Any]) -> Path:
    """The same as plain HDF5, which may hold integers."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, matrix in layers.items():
            file[name] = matrix
    return path


@pytest.mark.parametrize("task", ["layers", "pairs"])
def test_streaming_changes_no_bit_of_the_weights(data: Data, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "GROUP_ROWS", 32)
    monkeypatch.setattr(training, "BLOCK_ROWS", 8)
    held, streamed = trained(data, config(task)), trained(data, config(task), budget=0)
    assert weights(held) == weights(streamed)
    assert held.curve == streamed.curve


# --- the loss ---------------------------------------------------------------------------------------------------------


def expected_loss(items: np.ndarray[Any, Any], options: Config, shape: tuple[int, int]) -> float:
    """The oracle's loss of encoded items [items, n, d]; shape is (models, layers)."""
    if options.task == "layers":
        anchors, flat = oracles.layer_sets(*shape), list(items)
    else:
        anchors = oracles.pair_sets(items.shape[1], options.anchor_side)
        flat = [row[None] for side in items for row in side]
    if options.objective == "deepcka":
        positives = [(a.item, p) for a in oracles.layer_sets(*shape) for p in a.positives if a.item < p]
        return oracles.deepcka(list(items), positives if options.task == "layers" else [(0, 1)])
    if options.objective == "deepdot":
        return oracles.deepdot(flat, anchors, options.similarity)
    loss = getattr(oracles, options.objective)
    return float(loss(flat, anchors, options.temperature, options.similarity))


@pytest.mark.parametrize(
    ("task", "side", "widths"),
    [
        ("layers", "both", (10,)),
        ("layers", "both", (14, 6, 10)),
        ("pairs", "both", (10,)),
        ("pairs", "first", (10,)),
        ("pairs", "both", (14, 6)),
    ],
)
@pytest.mark.parametrize(("objective", "similarity"), KINDS)
def test_the_first_step_has_the_oracles_loss_and_training_lowers_it(
    tmp_path: Path, task: str, side: str, widths: tuple[int, ...], objective: str, similarity: str
) -> None:
    data = make_data(tmp_path, count=3 if task == "layers" else 2, rows=40, widths=widths)
    options = config(
        task, objective=objective, similarity=similarity, widths=tuple(sorted(widths)), anchor_side=side, epochs=15
    )
    options = replace(options, batch_size=40, lr=3e-3)
    fresh, state = training.new_state(options, CPU).encoder, training.new_state(options, CPU)
    first = steps_of(40, data.n_layers, options)[0]
    layers = range(3) if task == "layers" else [first.layer]
    with torch.no_grad():
        rows = [torch.from_numpy(v.read(f"layer_{k}")[first.rows]) for v in data.views for k in layers]
        items = np.stack([fresh(matrix).double().numpy() for matrix in rows])
    losses: list[float] = []
    progress = recorder(losses)
    state = training.train(Source(data, 1 << 40, CPU, silent), options, state, nowhere, progress)
    assert losses[0] == pytest.approx(expected_loss(items, options, (len(data.views), 3)), rel=1e-3)
    assert len(state.curve) == 15
    steps = 1 if task == "layers" else 3
    assert state.curve[0] == pytest.approx(np.mean(losses[:steps]), rel=1e-2)
    margin = 0.1 * abs(state.curve[0]) if objective in ("contrasim", "supcon") else 0.01
    assert state.curve[-1] < state.curve[0] - margin


def recorder(losses: list[float]) -> Any:
    """Progress that keeps the losses it is told."""
    from contextlib import nullcontext

    def advance(amount: int = 1, note: str = "") -> None:
        if note:
            losses.append(float(note.rsplit(maxsplit=1)[-1]))

    return lambda description, total, unit: nullcontext(advance)


def test_only_the_first_views_rows_are_anchors(data: Data) -> None:
    both, first = (trained(data, config(anchor_side=side, epochs=1)) for side in ("both", "first"))
    assert weights(both) != weights(first)


def test_zipped_layers_meet(tmp_path: Path) -> None:
    """Layer k of one side is trained against layer k of the other in the order that was chosen."""
    data = make_data(tmp_path)
    crossed = Data(data.views, [["layer_0", "layer_2"], ["layer_1", "layer_0"]])
    source = Source(crossed, 1 << 40, CPU, silent)
    rows = np.array([3, 1])
    for k, (a, b) in enumerate([("layer_0", "layer_1"), ("layer_2", "layer_0")]):
        np.testing.assert_array_equal(source.take(0, k, rows), data.views[0].read(a)[rows])
        np.testing.assert_array_equal(source.take(1, k, rows), data.views[1].read(b)[rows])


# --- data that does not fit -------------------------------------------------------------------------------------------


def test_unequal_depth_is_refused(data: Data) -> None:
    uneven = Data(data.views, [["layer_0", "layer_1"], ["layer_0"]])
    with pytest.raises(MismatchError, match=r"b\.h5: 1 layers are selected where .*a\.h5 has 2; select as many"):
        training.check_data(uneven, "pairs")


@pytest.mark.parametrize(
    ("task", "count", "layers", "message"),
    [
        ("pairs", 1, 3, "--task pairs trains on two stores (one per view), 1 given"),
        ("pairs", 3, 3, "--task pairs trains on two stores (one per view), 3 given"),
        ("layers", 1, 3, "--task layers trains on two or more stores (one per model), 1 given"),
        ("layers", 2, 1, "--task layers needs two or more layers: other layers are the negatives"),
    ],
)
def test_data_that_do_not_fit_the_task_are_refused(
    tmp_path: Path, task: str, count: int, layers: int, message: str
) -> None:
    data = make_data(tmp_path, count=count)
    with pytest.raises(UsageError) as refused:
        training.check_data(Data(data.views, [names[:layers] for names in data.layers]), task)
    assert str(refused.value) == message


def test_views_of_one_name_cannot_have_first_layers_of_their_own(tmp_path: Path) -> None:
    layers = made.related(2, 3, 20, (10,))
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    views = [made.view(tmp_path / name / "en.h5", layers[k]) for k, name in enumerate("xy")]
    data = Data(views, [list(view.store.layers) for view in views])
    training.check_data(data, "pairs")
    with pytest.raises(UsageError, match="--encoder-per-view tells views by their file names, and both are en"):
        training.check_data(data, "pairs", per_view=True)


# --- what must stop a run ---------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run(data: Data) -> None:
    with pytest.raises(TrainingError, match=r"^the loss is nan in epoch 1, step 2; lower --lr or raise --temperature$"):
        trained(data, config(lr=1e30))


def test_outputs_that_are_not_finite_are_never_saved(data: Data) -> None:
    """One step, whose loss is finite and whose update is not."""
    saved: list[bool] = []
    options = config("layers", lr=1e30, batch_size=50, epochs=1)
    with pytest.raises(TrainingError, match=r"^after epoch 1 the encoder's outputs are not finite; lower --lr$"):
        trained(data, options, save=lambda state, finished: saved.append(finished))
    assert not saved


def collapsed_data(folder: Path) -> Data:
    """All rows alike but for a whiff."""
    rng = np.random.default_rng(0)
    layers = {f"l{k}": 1 + 1e-6 * rng.normal(size=(40, 10)) for k in range(2)}
    views = [made.view(folder / f"{name}.h5", layers) for name in "ab"]
    return Data(views, [["l0", "l1"]] * 2)


@pytest.mark.parametrize("objective", ["contrasim", "supcon"])
def test_a_collapsed_encoder_stops_contrastive_training(tmp_path: Path, objective: str) -> None:
    message = r"^the encoder has collapsed: after epoch 1 all outputs lie within .* of each other; lower --lr or"
    with pytest.raises(TrainingError, match=message):
        trained(collapsed_data(tmp_path), config(objective=objective))


@pytest.mark.parametrize("objective", ["deepdot", "deepcka"])
def test_objectives_without_negatives_may_collapse_with_a_warning(
    tmp_path: Path, objective: str, messages: list[str]
) -> None:
    state = trained(collapsed_data(tmp_path), config(objective=objective, epochs=3))
    assert state.epoch == 3
    (message,) = messages
    assert message.startswith("the encoder has collapsed: after epoch 3 all outputs lie within ")
    assert message.endswith("which objectives without negatives allow")


def test_an_encoder_that_says_something_warns_of_nothing(data: Data, messages: list[str]) -> None:
    trained(data, config(objective="deepdot", epochs=1))
    assert messages == []


# --- repeatable -------------------------------------------------------------------------------------------------------


def test_a_seed_decides_every_bit(data: Data) -> None:
    assert weights(trained(data, config())) == weights(trained(data, config()))
    assert weights(trained(data, config())) != weights(trained(data, config(seed=1)))


def test_training_leaves_the_global_generator_alone(data: Data) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    trained(data, config(epochs=1))
    assert torch.equal(torch.random.get_rng_state(), before)


class Crash(Exception):
    """Stands for SIGKILL."""


def interrupted(data: Data, options: Config, path: Path, stop: Callable[[int], None], resume: bool) -> State | None:
    """A run that keeps its state in a file as the command does; `stop(step)` is called at every step."""
    source = Source(data, 1 << 40, CPU, silent)
    about = training.provenance(source)
    if resume:
        found = encoders.load(path)
        training.check_resumable(found, about)
        state = training.resumed_state(found, options, CPU)
    else:
        state = training.new_state(options, CPU)

    def save(state: State, finished: bool) -> None:
        encoders.save(path, encoders.Checkpoint(state.encoder, state.record(finished), about), force=True)

    count = 0

    def advance(amount: int = 1, note: str = "") -> None:
        nonlocal count
        if note:
            count += 1
            stop(count)

    from contextlib import nullcontext

    try:
        return training.train(source, options, state, save, lambda *_: nullcontext(advance))
    except (Terminated, KeyboardInterrupt, Crash):
        return None


# 50 rows in batches of 16 and three layers are 12 steps an epoch; the last ones are the ends of epochs
@pytest.mark.parametrize("step", [1, 5, 11, 12, 13, 20, 24])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_bits(data: Data, tmp_path: Path, step: int, number: int) -> None:
    options, path = config(epochs=2), tmp_path / "state.pt"
    whole = trained(data, options)

    def stop(at: int) -> None:
        if at == step:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    assert interrupted(data, options, path, stop, resume=False) is None
    assert signal.getsignal(number) is before
    state = interrupted(data, options, path, lambda at: None, resume=True)
    assert state is not None
    assert weights(state) == weights(whole)
    assert state.curve == whole.curve


def test_a_run_stopped_again_and_again_comes_to_the_same_bits(data: Data, tmp_path: Path) -> None:
    options, path = config(epochs=3), tmp_path / "state.pt"
    rng = np.random.default_rng(0)
    state, runs = None, 0
    while state is None:
        step = int(rng.integers(1, 9))
        state = interrupted(
            data, options, path, lambda at, s=step: os.kill(os.getpid(), signal.SIGTERM) if at == s else None, runs > 0
        )
        runs += 1
    assert runs > 4
    assert weights(state) == weights(trained(data, options))


def test_a_killed_run_goes_on_from_its_last_epoch(data: Data, tmp_path: Path) -> None:
    options, path = config(epochs=3), tmp_path / "state.pt"

    def crash(at: int) -> None:
        if at == 30:
            raise Crash

    assert interrupted(data, options, path, crash, resume=False) is None
    assert encoders.load(path).training["epochs_done"] == 2
    state = interrupted(data, options, path, lambda at: None, resume=True)
    assert state is not None
    assert weights(state) == weights(trained(data, options))


def test_other_options_are_not_resumed(data: Data, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    interrupted(data, config(), path, lambda at: os.kill(os.getpid(), signal.SIGTERM), resume=False)
    with pytest.raises(UsageError, match=r"these differ: temperature, lr; start over without --resume"):
        training.resumed_state(encoders.load(path), config(lr=1e-4, temperature=0.1), CPU)


@pytest.mark.parametrize("what", ["content", "rows", "layers", "ids", "order"])
def test_other_data_are_not_resumed(data: Data, tmp_path: Path, what: str) -> None:
    path = tmp_path / "state.pt"
    interrupted(data, config(), path, lambda at: os.kill(os.getpid(), signal.SIGTERM), resume=False)
    layers = [{name: view.read(name) for name in names} for view, names in zip(data.views, data.layers, strict=True)]
    ids = None
    if what == "content":
        layers[1]["layer_2"][49, 9] += 1e-6
    if what == "rows":
        layers = [{name: matrix[:40] for name, matrix in one.items()} for one in layers]
    if what == "ids":
        ids = [f"s{row}" for row in range(50)]
    if what == "order":
        layers.reverse()
    (tmp_path / "other").mkdir()
    views = [made.view(tmp_path / "other" / f"{name}.h5", x, ids) for name, x in zip("ab", layers, strict=True)]
    other = Data(views, [["layer_0", "layer_1"] if what == "layers" else list(x) for x in layers])
    about = training.provenance(Source(other, 0, CPU, silent))
    with pytest.raises(UsageError, match="--resume needs the stores, rows and layers of the run it resumes"):
        training.check_resumable(encoders.load(path), about)


def test_the_learning_curve_is_the_mean_loss_of_each_epoch(data: Data) -> None:
    losses: list[float] = []
    options = config(epochs=2)
    source = Source(data, 1 << 40, CPU, silent)
    state = training.train(source, options, training.new_state(options, CPU), nowhere, recorder(losses))
    assert len(losses) == 24
    assert state.curve == pytest.approx([np.mean(losses[:12]), np.mean(losses[12:])], rel=1e-3)
    assert math.isfinite(state.curve[-1])
