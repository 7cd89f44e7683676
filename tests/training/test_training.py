"""Batches, objectives and the loop: every row once, the oracle's loss, the same weights however a run is interrupted."""

import contextlib
import json
import logging
import math
import os
import signal
import tracemalloc
import weakref
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
from contrasim_cli import seeds, training
from contrasim_cli.encoder import Config
from contrasim_cli.errors import MismatchError, Terminated, TrainingError, UsageError
from contrasim_cli.training import Data, Order, Run, Source, State, Step, loop
from contrasim_cli.training import rows as rows_module
from contrasim_cli.training import shuffle as ordering
from contrasim_cli.training.loop import nothing_saved
from contrasim_cli.training.rows import Held, encode_parts
from contrasim_cli.training.state import Journal
from contrasim_cli.transforms import Standardization, Standardizer

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
    loop.log.addHandler(handler)
    yield heard
    loop.log.removeHandler(handler)


def source_of(data: Data, options: Config, budget: int = 1 << 40) -> Source:
    return Source(data, Order.of(data, options), budget)


def trained(data: Data, options: Config, *, budget: int = 1 << 40, save: Any = nothing_saved, **more: Any) -> State:
    """The state after a whole run."""
    source = source_of(data, options, budget)
    return Run(source, options, training.new_state(options, CPU), CPU, save, **more).train()


def weights(state: State) -> str:
    return encoders.weights_digest(state.encoder.state_dict())


# --- which rows a step sees -------------------------------------------------------------------------------------------


def steps_of(n_rows: int, n_layers: int, options: Config, epoch: int = 0) -> list[Step]:
    return [step for group in Order(n_rows, n_layers, options).groups(epoch) for step in group.steps]


def shuffled_at_once(order: Order, epoch: int) -> list[np.ndarray]:
    """The rows of an epoch's groups, by way of a list of all rows."""
    rng = seeds.stream(order.config.seed, epoch)
    blocks = rng.permutation(math.ceil(order.n_rows / ordering.BLOCK_ROWS))
    rows = np.concatenate([ordering.rows_of_block(block, order.n_rows) for block in blocks])
    rows = rows[~np.isin(rows, order.held_out)]
    found = []
    for start in range(0, len(rows), order.group_rows):
        found.append(rng.permutation(rows[start : start + order.group_rows]))
        rng.permutation(math.ceil(len(found[-1]) / order.config.batch_size))
    return found


@pytest.mark.parametrize("n_rows", [257, 5000, 20_000])
def test_rows_are_shuffled_as_if_all_were_listed(n_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "GROUP_ROWS", 1000)
    options = config("layers", batch_size=64, validation=0.05)
    order = Order(n_rows, 1, options, held_out=ordering.held_out_rows(n_rows, options))
    groups, expected = [group.rows for group in order.groups(1)], shuffled_at_once(order, 1)
    assert len(groups) == len(expected)
    for one, other in zip(groups, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_order_of_very_many_rows_takes_no_memory_for_each() -> None:
    options = config("layers", batch_size=1024, validation=0.001)
    tracemalloc.start()
    try:
        order = Order(10**9, 1, options, held_out=ordering.held_out_rows(10**9, options))
        group = next(order.groups(0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(group.rows) == order.group_rows
    assert peak < 80 << 20


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n_rows=st.integers(2, 700),
    n_layers=st.integers(1, 4),
    batch=st.integers(2, 90),
    group=st.integers(1, 300),
    task=st.sampled_from(["pairs", "layers"]),
    epoch=st.integers(0, 3),
    validation=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_an_epoch_visits_every_row_once_per_layer(
    n_rows: int, n_layers: int, batch: int, group: int, task: str, epoch: int, validation: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "GROUP_ROWS", group)
        patch.setattr(ordering, "BLOCK_ROWS", 13)
        options = config(task, batch_size=batch, validation=validation)
        held_out = ordering.held_out_rows(n_rows, options)
        order = Order(n_rows, n_layers, options, held_out=held_out)
        groups = list(order.groups(epoch))
    assert len(held_out) == min(math.ceil(validation * n_rows), n_rows - 2)
    assert max(len(group_.rows) for group_ in groups) <= max(group, batch)
    trained_on = sorted(set(range(n_rows)) - set(held_out))
    assert sorted(np.concatenate([group_.rows for group_ in groups])) == trained_on
    n_rows = len(trained_on)
    alone = n_rows % batch == 1 and task == "pairs"
    for layer in range(n_layers if task == "pairs" else 1):
        batches = [step.rows for group_ in groups for step in group_.steps if step.layer == layer]
        seen = np.concatenate(batches)
        assert len(seen) == len(set(seen)) == n_rows - alone
        sizes = sorted(map(len, batches))
        assert sizes[-1] <= batch
        assert len(sizes) == n_rows // batch + (n_rows % batch > alone)
        assert all(size == batch for size in sizes[1:])
    assert order.n_steps == sum(len(group_.steps) for group_ in groups)
    for group_ in groups:
        assert {row for step in group_.steps for row in step.rows} <= set(group_.rows)


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
    assert len({row // ordering.BLOCK_ROWS for row in step.rows}) > 10


HOWS = ["none", "center", "zscore", "whiten"]


def standardized(data: Data, kind: str) -> Data:
    """The same data, standardised by their own statistics."""
    found = Standardizer(data.views).transforms(Standardization(kind), data.layers, 1 << 40)
    return replace(data, transforms=found)


@pytest.mark.parametrize("kind", HOWS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_streamed_rows_are_those_in_memory(
    tmp_path: Path, dtype: type, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "GROUP_ROWS", 64)
    monkeypatch.setattr(ordering, "BLOCK_ROWS", 8)
    monkeypatch.setattr(rows_module, "BLOCK_ROWS", 8)
    monkeypatch.setattr(rows_module, "READ_BYTES", 1)
    rng = np.random.default_rng(0)
    widths = (5, 3)
    layers = [{f"l{k}": (40 * rng.normal(size=(150, widths[k]))).astype(dtype) for k in range(2)} for _ in "ab"]
    write = made.store if dtype != np.int8 else plain
    views = [made.View(made.open_store(write(tmp_path / f"{n}.h5", x))) for n, x in zip("ab", layers, strict=True)]
    data = standardized(Data(views, [["l0", "l1"], ["l1", "l0"]]), kind)
    itemsize = 2 if dtype == np.float16 else 4
    assert data.bytes_in_memory == 2 * 150 * 8 * itemsize
    options = config(validation=0.1)
    held, streamed = (source_of(data, options, data.bytes_in_memory + data.transform_bytes - less) for less in (0, 1))
    assert (held.in_memory, streamed.in_memory) == (True, False)
    assert training.provenance(held) == training.provenance(streamed)
    transforms = data.transforms
    seen = []
    with held.groups(0, 0) as a, streamed.groups(0, 0) as b:
        for (group, whole, before), (_, part, also) in zip(a, b, strict=True):
            assert before == also
            for step in group.steps:
                seen.append(step)
                one, other = taken(whole, step), taken(part, step)
                for side, name in enumerate([f"l{step.layer}", f"l{1 - step.layer}"]):
                    assert torch.equal(one[side], other[side])
                    rows = views[side].read(name, step.rows)
                    expected = transforms[side, name](rows) if transforms else rows
                    assert one[side].dtype == (torch.float16 if dtype == np.float16 else torch.float32)
                    np.testing.assert_allclose(
                        one[side].float(), expected, rtol=1e-3 if itemsize == 2 else 1e-6, atol=1e-6
                    )
    assert len(seen) == held.order.n_steps
    for layer in range(2):
        one, other = (taken(s.held_out, Step(s.order.held_out, layer)) for s in (held, streamed))
        assert all(torch.equal(one[side], other[side]) for side in range(2))


def taken(held: Held, step: Step) -> dict[int, torch.Tensor]:
    """A step's rows by their place."""
    found = {}
    for part in held.take(step.rows, step.layer):
        rows = part.rows(slice(None)).view(len(part.places), len(step.rows), part.width)
        found |= dict(zip(part.places, rows, strict=True))
    return found


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_rows_are_held_in_the_precision_of_the_products(tmp_path: Path, precision: str) -> None:
    """Half of float32's memory, and the very numbers that a step would make of the rows."""
    rng = np.random.default_rng(0)
    layers = {"l0": rng.normal(size=(50, 6)).astype(np.float32), "l1": rng.normal(size=(50, 6)).astype(np.float16)}
    data = Data([made.view(tmp_path / f"{name}.h5", layers) for name in "ab"], [["l0", "l1"]] * 2)
    options = config("layers", widths=(6,), precision=precision)
    source = source_of(data, options, 4 * 50 * 6 * 2)
    assert source.in_memory
    assert not source_of(data, replace(options, precision="float32"), 4 * 50 * 6 * 2).in_memory
    rows = np.array([4, 44, 1])
    with source.groups(0, 0) as groups:
        ((_, held, _),) = groups
        (part,) = held.take(rows)
    assert part.places == [0, 1, 2, 3]
    for found, name in zip(part.rows(slice(None)).view(4, 3, 6), ["l0", "l1"] * 2, strict=True):
        assert torch.equal(found, torch.from_numpy(layers[name][rows]).float().to(getattr(torch, precision)))


def test_group_rows_follow_from_the_data_alone() -> None:
    options = config(batch_size=100)
    assert Order(10**6, 2, options, row_bytes=1).group_rows == 16_300
    assert Order(10**6, 2, options, row_bytes=1 << 20).group_rows == 200
    assert Order(10**6, 2, options, row_bytes=1 << 30).group_rows == 100


def test_no_more_than_two_groups_are_held(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """One where the budget has no room for two, and never the whole."""
    monkeypatch.setattr(ordering, "GROUP_ROWS", 16)
    for module in (ordering, rows_module):
        monkeypatch.setattr(module, "BLOCK_ROWS", 8)
    alive: weakref.WeakSet[Held] = weakref.WeakSet()
    most = 0
    made_group = Source._group

    def group(self: Source, rows: Any) -> Held:
        nonlocal most
        found = made_group(self, rows)
        alive.add(found)
        most = max(most, len(alive))
        return found

    monkeypatch.setattr(Source, "_group", group)
    for budget, allowed in ((0, 1), (2 * 16 * data.row_bytes, 2)):
        alive.clear()
        most = 0
        assert source_of(data, config(), budget).reads_ahead == (allowed == 2)
        trained(data, config(epochs=1), budget=budget)
        assert 1 <= most <= allowed


def plain(path: Path, layers: dict[str, Any]) -> Path:
    """The same as plain HDF5, which may hold integers."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, matrix in layers.items():
            file[name] = matrix
    return path


@pytest.mark.parametrize("kind", ["none", "whiten"])
@pytest.mark.parametrize("task", ["layers", "pairs"])
def test_streaming_changes_no_bit_of_the_weights(
    data: Data, task: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "GROUP_ROWS", 32)
    for module in (ordering, rows_module):
        monkeypatch.setattr(module, "BLOCK_ROWS", 8)
    data, options = standardized(data, kind), config(task, validation=0.2)
    held, ahead, streamed = (trained(data, options, budget=b) for b in (1 << 40, 2 * 32 * data.row_bytes, 0))
    assert weights(held) == weights(streamed) == weights(ahead)
    assert held.curves == streamed.curves == ahead.curves


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


@pytest.mark.slow
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
    state = Run(source_of(data, options), options, state, CPU, progress=progress).train()
    assert losses[0] == pytest.approx(expected_loss(items, options, (len(data.views), 3)), rel=1e-3)
    assert len(state.curves["loss"]) == 15
    steps = 1 if task == "layers" else 3
    assert state.curves["loss"][0] == pytest.approx(np.mean(losses[:steps]), rel=1e-2)
    margin = 0.1 * abs(state.curves["loss"][0]) if objective in ("contrasim", "supcon") else 0.01
    assert state.curves["loss"][-1] < state.curves["loss"][0] - margin


@pytest.mark.parametrize("task", ["layers", "pairs"])
@pytest.mark.parametrize("chunk", [3, 4096])
def test_items_of_differing_widths_come_back_in_their_order(
    tmp_path: Path, task: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers of one model differ in width and type, so that what goes through together is not what lies together."""
    monkeypatch.setattr(rows_module, "CHUNK_ROWS", chunk)
    rng = np.random.default_rng(0)
    layers = [
        {
            f"l{k}": rng.normal(size=(20, width)).astype(dtype)
            for k, (width, dtype) in enumerate(zip((5, 3, 5), types, strict=True))
        }
        for types in (("f2", "f4", "f4"), ("f4", "f4", "f2"))
    ]
    views = [made.view(tmp_path / f"{name}.h5", x) for name, x in zip("ab", layers, strict=True)]
    data = Data(views, [["l0", "l1", "l2"], ["l1", "l2", "l0"]])
    options = config(task, widths=(3, 5))
    encoder = training.new_state(options, CPU).encoder
    rows = np.array([7, 0, 19, 3])
    with source_of(data, options).groups(0, 0) as groups, torch.no_grad():
        ((_, held, _),) = groups
        for layer in (None,) if task == "layers" else range(3):
            z = encode_parts(encoder, held.take(rows, layer), CPU, options)
            items = [(v, n) for v in range(2) for k, n in enumerate(data.layers[v]) if layer in (None, k)]
            expected = [encoder(torch.from_numpy(layers[v][n][rows]).float()) for v, n in items]
            torch.testing.assert_close(z, torch.stack(expected))


def recorder(losses: list[float]) -> Any:
    """Progress that keeps the losses it is told."""
    from contextlib import nullcontext

    def advance(amount: int = 1, note: str = "", earlier: bool = False) -> None:
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
    rows = np.array([3, 1])
    with source_of(crossed, config()).groups(0, 0) as groups:
        ((_, held, _),) = groups
        for k, (a, b) in enumerate([("layer_0", "layer_1"), ("layer_2", "layer_0")]):
            found = taken(held, Step(rows, k))
            np.testing.assert_array_equal(found[0], data.views[0].read(a)[rows])
            np.testing.assert_array_equal(found[1], data.views[1].read(b)[rows])


# --- data that does not fit -------------------------------------------------------------------------------------------


def test_unequal_depth_is_refused(data: Data) -> None:
    uneven = Data(data.views, [["layer_0", "layer_1"], ["layer_0"]])
    with pytest.raises(MismatchError, match=r"b\.h5: 1 layers are selected where .*a\.h5 has 2; select as many"):
        training.check_data(uneven, "pairs")


@pytest.mark.parametrize(
    ("task", "count", "layers", "message"),
    [
        ("pairs", 1, 3, "--task pairs trains on two or more stores (one per view), 1 given"),
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
    with pytest.raises(UsageError, match="--encoder-per-view recognises views by their file names, and both are en"):
        training.check_data(data, "pairs", per_view=True)


# --- what must stop a run ---------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run(data: Data) -> None:
    with pytest.raises(
        TrainingError, match=r"^the loss is nan in epoch 1, step 2; give --lr below 1e\+30 or --temperature above 0.07$"
    ):
        trained(data, config(lr=1e30))


def test_outputs_that_are_not_finite_are_never_saved(data: Data) -> None:
    """One step, whose loss is finite and whose update is not."""
    saved: list[bool] = []
    options = config("layers", lr=1e30, batch_size=50, epochs=1)
    with pytest.raises(
        TrainingError, match=r"^after epoch 1 the encoder's outputs are not finite; give --lr below 1e\+30$"
    ):
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
    message = r"^the encoder has collapsed: after epoch 1 all outputs lie within .*; give --lr below .* or --standardize zscore$"
    with pytest.raises(TrainingError, match=message):
        trained(collapsed_data(tmp_path), config(objective=objective))


@pytest.mark.parametrize("constant", [None, 0, 2])
def test_one_member_that_collapsed_is_enough(tmp_path: Path, constant: int | None) -> None:
    options = config(objective="supcon", members=3)
    source = source_of(collapsed_data(tmp_path), options)
    run = Run(source, options, training.new_state(options, CPU), CPU)
    z = torch.nn.functional.normalize(torch.randn(4, 5, 3, 8), dim=-1)
    if constant is not None:
        z[:, :, constant] = z[0, 0, constant].clone()
    outputs = z.flatten(-2) / 3**0.5
    with (
        contextlib.nullcontext()
        if constant is None
        else pytest.raises(TrainingError, match="the encoder has collapsed")
    ):
        run._check_outputs(outputs)


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


def interrupted(
    data: Data,
    options: Config,
    path: Path,
    stop: Callable[[int], None],
    resume: bool,
    every: int | None = None,
    log_file: Path | None = None,
) -> State | None:
    """A run that keeps its state in a file as the command does; `stop(step)` is called at every step."""
    source = source_of(data, options)
    about = training.provenance(source)
    if resume:
        found = encoders.load(path)
        training.check_resumable(found, about)
        state = training.resumed_state(found, options, CPU)
    else:
        state = training.new_state(options, CPU)

    def save(state: State, finished: bool) -> None:
        encoders.save(path, state.checkpoint(about, finished), force=True)

    count = 0

    def advance(amount: int = 1, note: str = "", earlier: bool = False) -> None:
        nonlocal count
        if note:
            count += 1
            stop(count)

    from contextlib import nullcontext

    try:
        run = Run(source, options, state, CPU, save, every, progress=lambda *_: nullcontext(advance))
        with Journal(log_file, run.steps_done) as run.journal:
            return run.train()
    except (Terminated, KeyboardInterrupt, Crash):
        return None


# 50 rows in batches of 16 and three layers are 12 steps an epoch
@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5, 11, 12, 13, 20, 23])
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
    assert state.curves["loss"] == whole.curves["loss"]


def test_a_signal_in_the_last_step_is_too_late(data: Data, tmp_path: Path) -> None:
    def stop(at: int) -> None:
        if at == 24:
            os.kill(os.getpid(), signal.SIGTERM)

    state = interrupted(data, config(epochs=2), tmp_path / "state.pt", stop, resume=False)
    assert state is not None
    assert encoders.load(tmp_path / "state.pt").training["finished"]


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
    with pytest.raises(UsageError, match=r"these differ: temperature, lr; leave it out and give --force to start over"):
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
    about = training.provenance(source_of(other, config(), 0))
    with pytest.raises(UsageError, match="--resume needs the stores, rows and layers of the run it resumes"):
        training.check_resumable(encoders.load(path), about)


def test_the_learning_curve_is_the_mean_loss_of_each_epoch(data: Data) -> None:
    losses: list[float] = []
    options = config(epochs=2)
    state = trained(data, options, progress=recorder(losses))
    assert len(losses) == 24
    assert state.curves["loss"] == pytest.approx([np.mean(losses[:12]), np.mean(losses[12:])], rel=1e-3)
    assert math.isfinite(state.curves["loss"][-1])


# --- parts of recipes -------------------------------------------------------------------------------------------------

PARTS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "cosine": {"schedule": "cosine", "warmup": 0.3},
    "linear": {"path": "linear"},
    "both": {"path": "both"},
    "early stopping": {"validation": 0.2, "patience": 1},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},
    "supcon, first": {"objective": "supcon", "anchor_side": "first"},
    "everything": {
        "optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup": 0.1, 
        "path": "both", "validation": 0.1, "patience": 2, "precision": "bfloat16",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("task", ["layers", "pairs"])
@pytest.mark.parametrize("part", PARTS)
def test_every_part_repeats_bit_for_bit_through_kills_at_any_step(
    data: Data, tmp_path: Path, part: str, task: str
) -> None:
    """Killed after every third step or so, with a state saved at every second."""
    options, path = config(task, epochs=2, **PARTS[part]), tmp_path / "state.pt"
    state, runs = None, 0

    def crash(at: int) -> None:
        if at == 3:
            raise Crash

    while state is None:
        assert runs < 30
        state = interrupted(data, options, path, crash, resume=runs > 0, every=2)
        runs += 1
    whole = trained(data, options)
    assert runs > 1
    assert weights(state) == weights(whole)
    assert encoders.weights_digest(state.result.state_dict()) == encoders.weights_digest(whole.result.state_dict())
    assert state.curves == whole.curves
    paper = trained(data, config(task, epochs=2))
    assert weights(paper) != weights(whole) or state.result is not state.encoder or part == "early stopping"


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [
        training.state.learning_rate(config(schedule="cosine", warmup=0.2, lr=1.0), step, 20) for step in range(20)
    ]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 16)) for k in range(16)])
    assert {training.state.learning_rate(config(lr=0.5), step, 20) for step in range(20)} == {0.5}


def test_the_learning_rate_reaches_the_optimizer(data: Data, tmp_path: Path) -> None:
    options = config(schedule="cosine", warmup=0.5, epochs=2)
    with Journal(tmp_path / "log") as journal:
        trained(data, options, journal=journal)
    found = [json.loads(line)["learning_rate"] for line in (tmp_path / "log").read_text().splitlines()]
    assert found == pytest.approx([training.state.learning_rate(options, step, 24) for step in range(24)])


def test_early_stopping_keeps_the_best_encoder_on_held_out_rows(data: Data) -> None:
    """A learning rate that wrecks what was learned: the loss on held-out rows rises from some epoch on."""
    options = config(validation=0.3, patience=2, epochs=40, lr=0.05)
    state = trained(data, options)
    losses = state.curves["validation_loss"]
    assert len(losses) < 40
    best = losses.index(min(losses))
    assert best == len(losses) - 3
    assert len(state.curves["loss"]) == len(state.curves["validation_accuracy"]) == len(losses)
    shorter = trained(data, replace(options, epochs=best + 1))
    assert encoders.weights_digest(state.result.state_dict()) == weights(shorter)


@pytest.mark.parametrize("task", ["layers", "pairs"])
def test_validation_is_of_rows_that_are_never_trained_on(data: Data, task: str) -> None:
    options = config(task, validation=0.2, epochs=1)
    source = source_of(data, options)
    rows = source.order.held_out
    assert len(rows) == 10
    state = Run(source, options, training.new_state(options, CPU), CPU).train()
    encoder = state.encoder
    with torch.no_grad():
        z = [
            [encoder(torch.from_numpy(v.read(f"layer_{k}", rows))).double().numpy() for k in range(3)]
            for v in data.views
        ]
    right = []
    if task == "pairs":
        for k in range(3):
            for a, b in ((z[0][k], z[1][k]), (z[1][k], z[0][k])):
                right += [all(x @ b[i] > x @ b[j] for j in range(10) if j != i) for i, x in enumerate(a)]
    else:
        for f, g in ((z[0], z[1]), (z[1], z[0])):
            right += [all((f[i] * g[i]).sum() > (f[i] * g[j]).sum() for j in range(3) if j != i) for i in range(3)]
    assert state.curves["validation_accuracy"] == pytest.approx([np.mean(right)])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["layers", "pairs"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_learns_the_same(data: Data, task: str, precision: str) -> None:
    full, reduced = (trained(data, config(task, epochs=8, precision=p)) for p in ("float32", precision))
    assert weights(full) != weights(reduced)
    assert reduced.curves["loss"][-1] == pytest.approx(full.curves["loss"][-1], rel=0.1, abs=0.3)


# --- what a run leaves behind -----------------------------------------------------------------------------------------


def test_the_log_has_a_line_per_step_however_a_run_is_interrupted(data: Data, tmp_path: Path) -> None:
    options, path = config(epochs=2, validation=0.1), tmp_path / "state.pt"
    logs = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    with Journal(logs[0]) as journal:
        trained(data, options, journal=journal)
    state, runs = None, 0
    while state is None:
        with logs[1].open("a") as torn:
            torn.write('{"step": 99' if runs else "")
        state = interrupted(data, options, path, lambda at: crash_at(at, 5), resume=runs > 0, every=2, log_file=logs[1])
        runs += 1
    whole, parts = ([json.loads(line) for line in log.read_text().splitlines()] for log in logs)
    assert [line.pop("rows_per_second") > 0 for line in whole + parts] == [True] * len(whole + parts)
    assert whole == parts
    assert [line["step"] for line in whole] == list(range(1, 1 + len(whole)))
    assert [sorted(line) for line in whole[:1]] == [["epoch", "learning_rate", "loss", "step"]]
    ends = [line for line in whole if "validation_accuracy" in line]
    assert [(line["epoch"], line["validation_accuracy"]) for line in ends] == list(
        enumerate(state.curves["validation_accuracy"], 1)
    )
    assert [line["step"] for line in ends] == [len(whole) // 2, len(whole)]


def crash_at(at: int, step: int) -> None:
    if at == step:
        raise Crash


def test_states_are_saved_every_so_many_steps_and_after_every_epoch(data: Data) -> None:
    saved: list[tuple[int, int, bool]] = []
    trained(data, config(epochs=2), save=lambda s, finished: saved.append((s.epoch, s.step, finished)), save_every=5)
    assert saved == [(0, 5, False), (0, 10, False), (1, 0, False), (1, 3, False), (1, 8, False), (2, 0, True)]


def test_weights_that_are_not_finite_are_never_saved_and_the_last_good_state_is_kept(data: Data) -> None:
    saved: list[int] = []

    def save(state: State, finished: bool) -> None:
        saved.append(state.step)
        assert all(bool(torch.isfinite(p).all()) for p in state.encoder.parameters())
        if state.step == 2:
            next(state.encoder.parameters()).data[0, 0] = np.inf

    message = r"^the (weights are not finite after|loss is nan in) epoch 1, step 3.*; the state after epoch 1, step 2 is kept$"
    with pytest.raises(TrainingError, match=message):
        trained(data, config(epochs=1), save=save, save_every=1)
    assert saved == [1, 2]
