"""What axes and keys are said to be: the layers and rows that come of it, in every container, and what a message offers."""

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.store import Hints, Store, open_store
from contrasim_cli.store import axes as axes_module
from contrasim_cli.store.axes import Arranged, boxes, parse_axes
from contrasim_cli.store.interpretations import possible, remedy

RNG = np.random.default_rng(0)


def oracle(array: np.ndarray, words: tuple[str, ...], layer: int = 0) -> np.ndarray:
    """The matrix [rows, width] element by element, means in float64."""
    lengths = dict(enumerate(array.shape))
    along = {
        word: [k for k, found in enumerate(words) if found == word] for word in ("rows", "width", "pool", "layers")
    }
    rows = list(itertools.product(*(range(lengths[k]) for k in along["rows"])))
    columns = list(itertools.product(*(range(lengths[k]) for k in along["width"])))
    pooled = list(itertools.product(*(range(lengths[k]) for k in along["pool"])))
    out = np.empty((len(rows), len(columns)))
    for (r, row), (c, column) in itertools.product(enumerate(rows), enumerate(columns)):
        values = []
        for place in pooled:
            at = dict(zip(along["rows"], row, strict=True)) | dict(zip(along["width"], column, strict=True))
            at |= dict(zip(along["pool"], place, strict=True)) | dict.fromkeys(along["layers"], layer)
            values.append(np.float64(array[tuple(at[k] for k in range(array.ndim))]))
        out[r, c] = sum(values) / len(values)
    return out


Save = Callable[[Path, dict[str, np.ndarray]], Path]


def as_npz(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def as_packed_npz(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(folder / "x.npz", **arrays)
    return folder / "x.npz"


def as_hdf5(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    (folder / "x.h5").unlink(missing_ok=True)  # which may be open
    with h5py.File(folder / "x.h5", "w") as file:
        for name, array in arrays.items():
            chunks = tuple(min(2, size) for size in array.shape) if array.size else None
            file.create_dataset(name, data=array, chunks=chunks)
    return folder / "x.h5"


def as_torch(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, folder / "x.pt")
    return folder / "x.pt"


def as_safetensors(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "x.safetensors")
    return folder / "x.safetensors"


CONTAINERS: list[Save] = [as_npz, as_packed_npz, as_hdf5, as_torch, as_safetensors]


def ids(store: Store) -> list[str]:
    assert store.ids is not None
    return store.ids.read(0, store.n_rows)


def refusal(path: Path, how: Hints | None = None) -> str:
    with pytest.raises((InputError, UsageError)) as caught:
        open_store(path, how or Hints())
    (line,) = caught.value.lines
    return line.replace(f"{path}: ", "", 1)


# the language


@pytest.mark.parametrize("save", CONTAINERS)
@pytest.mark.parametrize(
    "axes",
    ["rows,rows,width", "rows,width,width", "width,rows,rows", "rows,width,rows", "rows,pool,width", "pool,width,rows",
     "rows,width,pool", "width,rows,width"],
)  # fmt: skip
def test_every_order_of_axes_in_every_container(tmp_path: Path, save: Save, axes: str) -> None:
    arrays = {"conv1": RNG.normal(size=(4, 5, 3)), "conv2": RNG.normal(size=(4, 5, 3)).astype(np.float32)}
    store = open_store(save(tmp_path, arrays), Hints(axes=axes))
    assert list(store.layers) == ["conv1", "conv2"]
    for name, array in arrays.items():
        expected = oracle(array, tuple(axes.split(",")))
        np.testing.assert_allclose(store.read(name, 0, store.n_rows), expected, rtol=1e-6)
        np.testing.assert_allclose(store.read(name, 1, 3), expected[1:3], rtol=1e-6)
    store.close()


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_any_words_any_shape_any_rows(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    words = data.draw(
        st.lists(st.sampled_from(["rows", "width", "pool", "layers"]), min_size=len(shape), max_size=len(shape))
    )
    if words.count("layers") > 1 or "width" not in words:
        return
    array = RNG.normal(size=shape)
    layer = data.draw(st.integers(0, dict(zip(words, shape, strict=True)).get("layers", 1) - 1))
    made = Arranged(array, tuple(words), layer)
    expected = oracle(array, tuple(words), layer)
    assert made.shape == expected.shape
    start = data.draw(st.integers(0, made.shape[0]))
    stop = data.draw(st.integers(start, made.shape[0]))
    np.testing.assert_allclose(made[start:stop], expected[start:stop], rtol=1e-12)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
@settings(max_examples=80, deadline=None)
def test_boxes_hold_the_elements_in_order(lengths: list[int], data: st.DataObject) -> None:
    whole = np.arange(np.prod(lengths)).reshape(lengths)
    start = data.draw(st.integers(0, whole.size))
    stop = data.draw(st.integers(start, whole.size))
    found = [value for box in boxes(lengths, start, stop) for value in whole[box].ravel()]
    assert found == list(range(start, stop))


class Counting:
    """An array that knows how much of it was asked for at once."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self.array[key]
        self.most = max(self.most, found.size)
        return found


def test_rows_are_read_in_blocks_and_never_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes_module, "BLOCK_BYTES", 4 * 6 * 9 * 8)  # four rows of the maps below, in float64
    array = RNG.normal(size=(50, 6, 3, 3)).astype(np.float32)
    whole = Counting(array)
    made = Arranged(whole, ("rows", "width", "pool", "pool"))
    np.testing.assert_allclose(made[0:50], array.astype(np.float64).mean(axis=(2, 3)), rtol=1e-6)
    assert made.dtype == np.float32
    assert whole.most == 4 * 6 * 9
    rows = Arranged(Counting(array), ("rows", "rows", "width", "width"))
    rows[7:9]
    assert rows.whole.most == 2 * 9


def test_means_are_taken_in_float64() -> None:
    array = np.full((2, 1, 4096), 1000.0, np.float16)  # their sum is no float16
    np.testing.assert_array_equal(Arranged(array, ("rows", "width", "pool"))[0:2], [[1000.0], [1000.0]])
    assert Arranged(array, ("rows", "width", "pool")).dtype == np.float32
    assert Arranged(array.astype(np.int16), ("rows", "width", "pool")).dtype == np.float64


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("rows", "no axis is width; rows, width and pool may repeat"),
        ("layers,layers,width", "layers are one axis at most; rows, width and pool may repeat"),
        (
            "rows,,width",
            "an empty word is not a word for an axis; write one per axis of the array: layers, rows, width or pool, as in",
        ),
        ("rows,colour", "colour is not a word for an axis; write one per axis of the array"),
    ],
)
def test_words_that_are_none_are_refused(axes: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_axes(axes)
    assert str(caught.value).startswith(f"--axes {axes}: {message}")


def test_something_has_to_be_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.normal(size=(4, 3)))
    said = refusal(tmp_path / "a.npy", Hints(axes="layers,width"))
    assert said == "--axes layers,width: no axis is rows; where each key of the file is a row, add --keys rows"
    assert refusal(tmp_path / "a.npy", Hints(axes="pool,rows,width")) == (
        "--axes pool,rows,width fits no array of it; it holds a float64 (4, 3)"
    )


def test_an_axis_of_no_elements_makes_no_layers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 0, 3)))
    for axes in ("rows,pool,width", "rows,layers,width"):
        said = refusal(tmp_path / "a.npz", Hints(axes=axes))
        assert said == f"x (4, 0, 3) makes no layers by --axes {axes}; is another axis meant?"
    assert refusal(tmp_path / "a.npz", Hints(axes="rows,width,width")) == "layer x has no columns"


# names of rows


def test_rows_of_several_axes_are_named_by_their_places(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(2, 3, 4)))
    store = open_store(tmp_path / "a.npz", Hints(axes="rows,rows,width"))
    assert ids(store) == ["0:0", "0:1", "0:2", "1:0", "1:1", "1:2"]
    assert store.ids is not None
    assert store.ids.automatic  # places say nothing of what lies there
    assert store.ids.read(4, 6) == ["1:1", "1:2"]
    assert open_store(tmp_path / "a.npz", Hints(axes="rows,pool,width")).ids is None


def test_names_of_the_first_axis_go_before_places(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(2, 3, 4)), filenames=np.array(["cat", "dog"]))
    store = open_store(tmp_path / "a.npz", Hints(axes="rows,rows,width"))
    assert ids(store) == ["cat:0", "cat:1", "cat:2", "dog:0", "dog:1", "dog:2"]
    assert store.ids is not None
    assert store.ids.read(2, 5) == ["cat:2", "dog:0", "dog:1"]
    assert not store.ids.automatic
    assert ids(open_store(tmp_path / "a.npz", Hints(axes="rows,pool,width"))) == ["cat", "dog"]


# keys


def nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, array in arrays.items():
        *groups, last = name.split("/")
        inner = out
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = torch.from_numpy(array.copy())
    return out


def as_nested_torch(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    torch.save(nested(arrays), folder / "x.pt")
    return folder / "x.pt"


VECTORS = {f"P{k:05}": RNG.normal(size=5).astype(np.float32) for k in (3, 1, 2, 10)}


@pytest.mark.parametrize("save", CONTAINERS)
def test_a_vector_per_key_is_a_row(tmp_path: Path, save: Save) -> None:
    store = open_store(save(tmp_path, VECTORS), Hints(keys="rows", axes="width"))
    assert list(store.layers) == ["x"]
    assert sorted(ids(store)) == sorted(VECTORS)
    np.testing.assert_array_equal(store.read("x", 0, 4), [VECTORS[name] for name in ids(store)])
    assert store.ids is not None
    assert not store.ids.automatic
    assert "--keys rows --axes width (1 layer of 4 rows x 5)" in refusal(save(tmp_path, VECTORS))


@pytest.mark.parametrize("save", CONTAINERS)
def test_matrices_per_key_are_rows_of_one_layer(tmp_path: Path, save: Save) -> None:
    arrays = {name: RNG.normal(size=(count, 5)) for name, count in (("a", 2), ("b", 0), ("c", 3))}
    for how in (Hints(keys="rows"), Hints(keys="rows", axes="rows,width")):
        store = open_store(save(tmp_path, arrays), how)
        assert ids(store) == ["a:0", "a:1", "c:0", "c:1", "c:2"]
        np.testing.assert_array_equal(store.read("x", 0, 5), np.concatenate(list(arrays.values())))
        np.testing.assert_array_equal(store.read("x", 1, 4), np.concatenate(list(arrays.values()))[1:4])


@pytest.mark.parametrize("save", [as_hdf5, as_npz, as_nested_torch])
@pytest.mark.parametrize("before", ["", "embeddings/"])
def test_a_group_per_sample(tmp_path: Path, save: Save, before: str) -> None:
    """Whose members are its layers, or whose one member has an axis of layers; what all keys begin or end with is no name."""
    samples = {f"img{k}.jpg": RNG.normal(size=(2, 5)) for k in range(3)}
    members = {f"{before}{name}/blocks.{k}": value[k] for name, value in samples.items() for k in range(2)}
    how = Hints(keys="rows", axes="layers,width")
    store = open_store(save(tmp_path, members), how)
    assert (list(store.layers), ids(store)) == (["blocks.0", "blocks.1"], list(samples))
    np.testing.assert_array_equal(store.read("blocks.1", 0, 3), [value[1] for value in samples.values()])
    store.close()
    store = open_store(save(tmp_path, {f"{before}{name}/acts": value for name, value in samples.items()}), how)
    assert (list(store.layers), ids(store)) == (["layer_0", "layer_1"], list(samples))
    np.testing.assert_array_equal(store.read("layer_1", 0, 3), [value[1] for value in samples.values()])


@pytest.mark.parametrize("save", [as_hdf5, as_npz, as_nested_torch])
def test_a_group_per_layer(tmp_path: Path, save: Save) -> None:
    members = {f"layer_{k}/{name}": RNG.normal(size=5) for k in range(2) for name in ("q", "p")}
    store = open_store(save(tmp_path, members), Hints(axes="rows,width"))
    assert list(store.layers) == ["layer_0", "layer_1"]
    np.testing.assert_array_equal(store.read("layer_1", 0, 2), [members[f"layer_1/{name}"] for name in ids(store)])


def test_layers_with_other_keys_do_not_agree(tmp_path: Path) -> None:
    path = as_hdf5(tmp_path, {f"{key}/{layer}": RNG.normal(size=5) for key, layer in ("pa", "pb", "qa", "rb")})
    assert refusal(path, Hints(keys="rows", axes="layers,width")) == (
        "layer b has other rows than a: they are named or cut differently; choose layers that agree with --layers"
    )
    only = open_store(path, Hints(keys="rows", axes="layers,width", layers=["b"]))
    assert ids(only) == ["p", "r"]


def test_rows_that_are_cut_otherwise_do_not_line_up(tmp_path: Path) -> None:
    path = as_npz(tmp_path, {"a": RNG.normal(size=(2, 6, 3)), "b": RNG.normal(size=(3, 4, 3))})
    assert refusal(path, Hints(axes="rows,rows,width")).startswith("layer b has other rows than a: ")


def test_several_arrays_with_layers_need_their_keys_said(tmp_path: Path) -> None:
    cubes = {str(k): RNG.normal(size=(2, count, 3)) for k, count in enumerate((4, 1))}
    path = as_npz(tmp_path, cubes)
    assert refusal(path, Hints(axes="layers,rows,width")) == (
        f"--axes layers,rows,width: {path} holds 2 arrays; add --keys rows, where they are rows of the same layers, or "
        "--keys layers, where each has layers of its own"
    )
    store = open_store(path, Hints(axes="layers,rows,width", keys="rows"))
    assert ids(store) == ["0:0", "0:1", "0:2", "0:3", "1:0"]
    np.testing.assert_array_equal(store.read("layer_1", 0, 5), np.concatenate(list(cubes.values()), axis=1)[1])
    same = open_store(
        as_npz(tmp_path, {"x": cubes["0"], "y": cubes["0"] + 1}), Hints(axes="layers,rows,width", keys="layers")
    )
    assert list(same.layers) == ["x.layer_0", "x.layer_1", "y.layer_0", "y.layer_1"]
    np.testing.assert_array_equal(same.read("y.layer_1", 0, 4), cubes["0"][1] + 1)


def test_rows_of_one_layer_have_one_width(tmp_path: Path) -> None:
    path = as_npz(tmp_path, {"a": np.ones((2, 3)), "b": np.ones((2, 4))})
    assert refusal(path, Hints(keys="rows")) == (
        "rows of one layer have the same width; it holds a float64 (2, 3), b float64 (2, 4)"
    )


def test_arrays_of_other_dimensions_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = as_npz(tmp_path, {"x": np.ones((2, 3, 4)), "fc": np.ones((2, 4)), "loss": np.ones(9)})
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        assert list(open_store(path, Hints(axes="rows,rows,width")).layers) == ["x"]
    assert caplog.messages == [
        f"{path}: not taken as layers: fc (2 dimensions, and --axes has 3 words), loss (one dimension)"
    ]


# what a message offers


def outcomes(shapes: list[tuple[int, ...]]) -> dict[tuple[str | None, str], tuple[int, int]]:
    return {(one.keys, ",".join(one.words)): (one.layers, one.rows) for one in possible(shapes)}


def test_every_reading_that_a_shape_allows_is_offered_with_what_comes_of_it() -> None:
    found = outcomes([(8, 10, 32)])
    every = {
        words
        for words in itertools.product(("layers", "rows", "width", "pool"), repeat=3)
        if words.count("layers") < 2 and {"rows", "width"} <= set(words)
    }
    assert {tuple(words.split(",")) for _, words in found} == every
    assert found[None, "layers,rows,width"] == (8, 10)
    assert found[None, "rows,rows,width"] == (1, 80)
    assert found[None, "width,rows,rows"] == (1, 320)


def test_what_would_come_of_a_reading_is_what_comes_of_it(tmp_path: Path) -> None:
    arrays = {"a": RNG.normal(size=(4, 3, 2)), "b": RNG.normal(size=(4, 3, 2))}
    path = as_npz(tmp_path, arrays)
    readings = possible([array.shape for array in arrays.values()])
    assert len(readings) > 40
    for one in readings:
        store = open_store(path, Hints(axes=",".join(one.words), keys=one.keys))
        widths = [layer.width for layer in store.layers.values()]
        assert (len(store.layers), store.n_rows, (min(widths), max(widths))) == (one.layers, one.rows, one.widths)


def test_shapes_that_disagree_allow_less() -> None:
    assert outcomes([(2, 5), (2, 7)]) == {
        (None, "rows,width"): (2, 2),
        ("rows", "width,rows"): (1, 12),
        ("rows", "width,pool"): (1, 2),
    }
    assert outcomes([(5,), (6,)]) == {}
    assert outcomes([(3, 4, 5), (6, 7, 8)]) == {}


def test_no_hint_makes_layers_of_one_row_each() -> None:
    assert outcomes([(20, 1, 16)]) == {(None, "rows,pool,width"): (1, 20), (None, "width,pool,rows"): (1, 16)}
    assert not any(rows == 1 for _, rows in outcomes([(1, 5, 3)]).values())
    assert outcomes([(1, 1, 3)]) == {}


def test_the_listing_comes_once_and_names_more_than_one_reading(tmp_path: Path) -> None:
    said = refusal(as_npz(tmp_path, {f"layer_{k}": np.zeros((8, 10, 32), np.float32) for k in range(4)}))
    assert said.startswith(
        "4 arrays have 3 dimensions, and shapes alone do not say which are layers, rows and neurons: layer_0 float32 "
        "(8, 10, 32), layer_1 float32 (8, 10, 32), layer_2 float32 (8, 10, 32), layer_3 float32 (8, 10, 32); "
        "convert it with contrasim extract --from FILE, and say which they are: "
        "--axes rows,rows,width (4 layers of 80 rows x 32) or "
    )
    for offered in (
        "rows,pool,width (4 layers of 8 rows x 32)",
        "--keys layers --axes layers,rows,width (32 layers of 10 rows x 32)",
        "--keys rows --axes layers,rows,width (8 layers of 40 rows x 32)",
        "rows,rows,width (1 layer of 320 rows x 32)",
    ):
        assert offered in said
    assert said.endswith("; other orders of the words work too (contrasim guide hooks)")
    assert said.count(" layers of ") + said.count(" layer of ") <= 10
    assert said.count("layer_2 float32") == 1


def test_a_file_of_three_axes_has_four_likely_readings(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 7, 5), np.float32))
    assert refusal(tmp_path / "x.npy").endswith(
        "say which they are: --axes layers,rows,width (10 layers of 7 rows x 5) or rows,layers,width (7 layers of 10 rows x 5) or "
        "rows,rows,width (1 layer of 70 rows x 5) or rows,pool,width (1 layer of 10 rows x 5); if the axes are items, tokens and "
        "neurons, --mask leaves padding out; other orders of the words work too (contrasim guide hooks)"
    )
    np.save(tmp_path / "y.npy", np.zeros((10, 7, 5, 5), np.float32))  # images by channels
    said = refusal(tmp_path / "y.npy")
    for offered in (
        "rows,pool,pool,width (1 layer of 10 rows x 5)",
        "rows,width,width,width (1 layer of 10 rows x 175)",
    ):
        assert offered in said


def test_layers_in_lists_of_batches_are_not_rows_of_one_layer(tmp_path: Path) -> None:
    batches = {name: [torch.full((count, 5), value) for count in (8, 4)] for name, value in (("a", 1.0), ("b", 2.0))}
    torch.save(batches, tmp_path / "lists.pt")
    torch.save([{name: own[k] for name, own in batches.items()} for k in range(2)], tmp_path / "dicts.pt")
    said = (
        "a and b are in 2 parts each, and --keys rows would make rows of one layer of all 4 arrays; where a and b are layers, "
        "give "
    )
    options = {"lists.pt": "--axes rows,rows,width without --keys", "dicts.pt": "--keys rows --axes layers,rows,width"}
    for name, option in options.items():
        for axes in (None, "rows,width"):
            assert refusal(tmp_path / name, Hints(keys="rows", axes=axes)) == (
                f"{said}{option} (2 layers of 12 rows); where they are not, --keys rows --axes rows,rows,width"
            )
        assert open_store(tmp_path / name, Hints(keys="rows", axes="rows,rows,width")).n_rows == 24
        keys = "rows" if name == "dicts.pt" else None
        store = open_store(tmp_path / name, Hints(keys=keys, axes="layers,rows,width" if keys else "rows,rows,width"))
        assert {layer: store.read(layer, 0, 12).mean() for layer in store.layers} == {"a": 1, "b": 2}
    accessions = {"p": batches["a"], "q": batches["b"][:1]}
    torch.save(accessions, tmp_path / "rows.pt")
    assert open_store(tmp_path / "rows.pt", Hints(keys="rows")).n_rows == 20


def test_lists_of_batches_say_how_to_join_them(tmp_path: Path) -> None:
    batches = [torch.zeros(8, 5), torch.zeros(8, 5), torch.zeros(4, 5)]
    torch.save(batches, tmp_path / "one.pt")
    assert "--keys rows --axes rows,width (1 layer of 20 rows x 5)" in refusal(tmp_path / "one.pt")
    assert open_store(tmp_path / "one.pt", Hints(keys="rows", axes="rows,width")).n_rows == 20
    torch.save({"a.b": batches, "c": [torch.zeros(8, 6), torch.zeros(12, 6)]}, tmp_path / "several.pt")
    said = refusal(tmp_path / "several.pt")
    assert said.endswith(
        "; choose with --layers, or save the batches of a layer as one tensor: torch.cat for each list, such as a.b "
        "(contrasim guide hooks)"
    )
    torch.save({"a": batches, "c": [torch.zeros(len(batch), 6) for batch in batches]}, tmp_path / "alike.pt")
    assert refusal(tmp_path / "alike.pt").endswith(
        "; choose with --layers, or convert it with contrasim extract --from FILE, where the lists are the batches of a layer "
        "each: --axes rows,rows,width (2 layers of 20 rows x 5-6)"
    )
    torch.save([torch.zeros(8, 5), torch.zeros(4, 6)], tmp_path / "odd.pt")
    assert "torch.cat" not in refusal(tmp_path / "odd.pt")


def test_names_of_rows_narrow_what_is_offered(tmp_path: Path) -> None:
    path = as_npz(tmp_path, {"x": np.zeros((8, 10, 32)), "ids": np.array([f"r{k}" for k in range(80)])})
    said = refusal(path)
    assert said.endswith("and say which they are: --axes rows,rows,width (1 layer of 80 rows x 32)")


def test_names_of_a_batch_leave_the_positions_of_its_texts_to_be_rows(tmp_path: Path) -> None:
    path = as_npz(tmp_path, {"x": np.zeros((8, 10, 32)), "ids": np.array([f"r{k}" for k in range(8)])})
    said = refusal(path)
    for offered in ("rows,rows,width (1 layer of 80 rows x 32)", "rows,pool,width (1 layer of 8 rows x 32)"):
        assert offered in said
    assert "layers,rows,width" not in said
    store = open_store(path, Hints(axes="rows,rows,width"))
    assert store.ids is not None
    assert store.ids.read(9, 12) == ["r0:9", "r1:0", "r1:1"]


def test_absurd_numbers_of_axes_and_arrays_have_a_short_message() -> None:
    said = "convert it with contrasim extract --from FILE --axes WORDS, a word per axis: layers, rows, width or pool"
    assert remedy({"x": np.zeros((2,) * 20)}) == said
    assert remedy({str(k): np.zeros((k + 1, 1, 1)) for k in range(1500)}) == said


def test_a_layer_per_index_of_a_long_axis_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((70_000, 1, 1), np.int8))
    assert refusal(tmp_path / "a.npy", Hints(axes="layers,rows,width")) == (
        "a (70000, 1, 1) makes no layers by --axes layers,rows,width; is another axis meant?"
    )


def test_groups_of_vectors_are_offered_with_what_comes_of_them(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for sample in ("s10", "s2", "s1"):
            for layer in ("conv", "fc"):
                file[f"{sample}/{layer}"] = np.arange(4.0)
    with pytest.raises(InputError) as caught:
        open_store(tmp_path / "a.h5")
    assert str(caught.value).endswith(
        "where its keys are rows, convert it with contrasim extract --from FILE, and say which they are: --keys rows --axes width "
        "(1 layer of 6 rows x 4); where its groups are rows or layers, --keys rows --axes layers,width (2 layers of 3 rows x 4) or "
        "--axes rows,width (3 layers of 2 rows x 4)"
    )
    for how, layers, rows in ((Hints(keys="rows", axes="layers,width"), 2, 3), (Hints(axes="rows,width"), 3, 2)):
        store = open_store(tmp_path / "a.h5", how)
        assert (len(store.layers), store.n_rows) == (layers, rows)
