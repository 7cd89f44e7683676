"""Something else beside the activations: passed over with a note that says why, or left out by --layers."""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import oracles
import pytest
import torch
from helpers import run
from stores import values

from contrasim_cli.errors import InputError
from contrasim_cli.store import Hints, align, open_store

A, B = values(20, 6), values(20, 4, seed=1)
T = torch.from_numpy(A)


def notes(path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        open_store(path).close()
    return [line.removeprefix(f"{path}: ") for line in caplog.messages]


def test_npz_with_all_kinds_of_things(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = np.array([f"t{k}" for k in range(20)], dtype=object)
    members = {
        "vectors": A,
        "tokens": tokens,
        "seed": 7,
        "model": "vit",
        "labels": np.arange(20) % 3,
        "flags": A[:, 0] > 0,
    }
    np.savez(tmp_path / "a.npz", **members, grid=A.astype(complex))
    assert notes(tmp_path / "a.npz", caplog) == [
        "not taken as layers: tokens (an array of Python objects, which would have to be unpickled; save texts with "
        ".astype(str)), seed (one value of int64), model (text), grid (complex128), labels (one dimension), flags (one dimension)"
    ]
    assert list(open_store(tmp_path / "a.npz").layers) == ["vectors"]


def test_hdf5_with_all_kinds_of_things(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["acts"] = A
        file["config"] = "{}"
        file["none"] = h5py.Empty("f4")
        file["table"] = np.zeros(20, dtype=[("a", "f4"), ("b", "i4")])
        file["ref"] = file["acts"].ref
        file.create_dataset("lists", (2,), h5py.vlen_dtype(np.float32))[0] = [1, 2]
    assert notes(tmp_path / "a.h5", caplog) == [
        "not taken as layers: config (text), lists (no plain array of numbers), none (empty), ref (references), "
        "table (no plain array of numbers)"
    ]


TORCH = [
    ({"feats": T, "num_params": 7, "lr": 0.1, "name": "m", "done": None}, ["feats"],
     "num_params (int), lr (float), name (str), done (NoneType)"),
    ([T, T, T], ["0", "1", "2"], None),
    ((T, T), ["0", "1"], None),
    ({"layers": {"0": T, "1": T}}, ["layers.0", "layers.1"], None),
    ({"hidden_states": (T, T), "logits": T}, ["hidden_states.0", "hidden_states.1", "logits"], None),
    ({3: {4: [T]}}, ["3.4.0"], None),
    ({"x": T, "losses": [0.1, 0.2], "nothing": [], "empty": {}}, ["x"], "losses (list), nothing (list)"),
    ({"x": T, "sparse": T.to_sparse(), "steps": torch.tensor(3)}, ["x"], "sparse (torch.float32, torch.sparse_coo, no plain "),
]  # fmt: skip


@pytest.mark.parametrize(("content", "layers", "passed"), TORCH, ids=str)
def test_torch_files_of_any_nesting(
    tmp_path: Path, content: Any, layers: list[str], passed: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(content, tmp_path / "a.pt")
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        store = open_store(tmp_path / "a.pt")
    assert list(store.layers) == layers
    for name in layers:
        np.testing.assert_array_equal(align([store])[0].read(name), A)
    told = [line for line in caplog.messages if "not taken" in line]
    assert (told == []) == (passed is None)
    if passed is not None:
        assert told[0].startswith(f"{tmp_path / 'a.pt'}: not taken as layers: {passed}")


def test_tensors_are_converted_when_they_are_read(tmp_path: Path) -> None:
    torch.save({"half": T.bfloat16()}, tmp_path / "a.pt")
    store = open_store(tmp_path / "a.pt")
    assert store.layer("half").dtype == np.float32
    np.testing.assert_array_equal(store.read("half", 3, 5), T.bfloat16()[3:5].float().numpy())


@pytest.mark.parametrize("times", [1, 12])
def test_containers_within_themselves_end(tmp_path: Path, times: int) -> None:
    inner: Any = [T]
    for _ in range(times):
        inner = {"a": inner, "b": inner}
    torch.save(inner, tmp_path / "a.pt")
    with pytest.raises(InputError, match="is in two places; save tensors by name"):
        open_store(tmp_path / "a.pt")
    deep: Any = T
    for _ in range(20):
        deep = [deep]
    torch.save(deep, tmp_path / "b.pt")
    with pytest.raises(InputError, match="is nested deeper than 16"):
        open_store(tmp_path / "b.pt")


# other rows


@pytest.fixture
def head(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "head.h5", "w") as file:
        file["acts"], file["acts2"], file["classifier_weight"] = A, B, values(10, 6)
        file["names"] = [f"r{k}" for k in range(20)]
    return tmp_path / "head.h5"


def test_layers_are_chosen_before_rows_are_compared(head: Path) -> None:
    for patterns in (["acts"], ["acts*"], ["acts2", "acts"], ["0", "1"], ["0-1"]):
        store = open_store(head, Hints(layers=patterns))
        assert (store.n_rows, store.ids is not None) == (20, True)
    assert open_store(head, Hints(layers=["classifier_weight"])).n_rows == 10
    done = run("baseline", head, head, "--layers-a", "acts", "--layers-b", "acts2", "--format", "value")
    assert done.code == 0
    assert abs(float(done.stdout) - oracles.cka(A.astype(float), B.astype(float))) < 1e-6


def test_extract_takes_the_layers_that_agree(head: Path, tmp_path: Path) -> None:
    assert run("extract", "--from", head, "--layers", "acts*", "-o", tmp_path / "o.h5").code == 0
    assert list(open_store(tmp_path / "o.h5").layers) == ["acts", "acts2"]


def test_without_layers_the_message_lists_all_once_and_offers_every_way(head: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_store(head)
    assert str(caught.value) == (
        f"{head}: layer classifier_weight has 10 rows where acts has 20; every layer of a store has the same rows: "
        "acts float32 (20, 6), acts2 float32 (20, 4), classifier_weight float32 (10, 6); choose with --layers, or convert it "
        "with contrasim extract --from FILE --axes WORDS, a word per axis: layers, rows, width or pool"
    )


def test_an_array_of_more_dimensions_has_to_be_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 3, 4)), acts=A, fc=B)
    assert list(open_store(tmp_path / "a.npz", Hints(layers=["acts", "fc"])).layers) == ["acts", "fc"]
    for patterns in (None, ["images"], ["1"], ["-1"], ["0-1"]):  # which position would acts have?
        with pytest.raises(InputError, match="images has 3 dimensions, and shapes alone do not say"):
            open_store(tmp_path / "a.npz", Hints(layers=patterns))


# weights


@pytest.mark.parametrize(
    "names",
    [
        ["model_weights/dense/dense/kernel:0", "model_weights/dense/dense/bias:0"],
        ["layers/dense/vars/0", "layers/dense/vars/1", "layers/dense_1/vars/0"],
        ["encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.query.bias", "cls_token"],
    ],
)
def test_weights_are_told_from_activations(tmp_path: Path, names: list[str]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in names:
            file[name] = values(6, 6)
    np.savez(tmp_path / "a.npz", **{name: values(6, 6) for name in names})
    torch.save({name: torch.ones(6, 6) for name in names}, tmp_path / "a.pt")
    for suffix in ("h5", "npz", "pt"):
        with pytest.raises(
            InputError, match="holds the weights of a model, not activations; run the model, and save what"
        ):
            open_store(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("attribute", ["keras_version", "model_config", "layer_names"])
def test_keras_says_so_in_attributes(tmp_path: Path, attribute: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["d/d/w"] = A
        file.attrs[attribute] = "x"
    with pytest.raises(InputError, match="holds the weights of a model"):
        open_store(tmp_path / "a.h5")


def test_a_layer_whose_name_is_weight_is_a_layer(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weight=A, bias=A)
    assert list(open_store(tmp_path / "a.npz").layers) == ["weight", "bias"]
