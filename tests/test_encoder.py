"""The encoder and its checkpoint: the layout of the design, and no file that says something else than it should."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from helpers import run

from contrasim_cli import encoder as encoders
from contrasim_cli.encoder import Checkpoint, Config, Encoder
from contrasim_cli.errors import ContraSimError, InputError, MismatchError

CPU = torch.device("cpu")
REMEDY = "name it without --encoder, and give --encoder a file made by contrasim train"


def content(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def refusal(path: Path) -> str:
    """The one line that refuses a file."""
    with pytest.raises(InputError) as refused:
        encoders.load(path)
    assert len(refused.value.lines) == 1
    assert "\n" not in refused.value.lines[0]
    return refused.value.lines[0]


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_default_is_the_papers() -> None:
    encoder = Encoder(Config("pairs", "contrasim", (20,)))
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items() if name.endswith("weight")}
    assert shapes == {
        "first.view0_width20.weight": (512, 20),
        "rest.0.1.weight": (256, 512),
        "rest.1.1.weight": (128, 256),
    }


def test_the_encoder_is_an_mlp_with_relu_and_unit_norm() -> None:
    encoder = made.checkpoint(widths=(5,), hidden=(7, 6), output=3).encoder.double()
    rows = torch.randn(9, 5, dtype=torch.float64)
    values = {name: value.detach().numpy() for name, value in encoder.state_dict().items()}
    x = rows.numpy() @ values["first.view0_width5.weight"].T + values["first.view0_width5.bias"]
    for k in range(2):
        x = np.maximum(x, 0) @ values[f"rest.{k}.1.weight"].T + values[f"rest.{k}.1.bias"]
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder(rows).detach().numpy(), expected, rtol=1e-9)


def test_outputs_are_of_unit_norm_and_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = made.checkpoint(widths=(5,))
    rows = np.random.default_rng(0).normal(size=(100, 5))
    together = checkpoint.encode(rows, 0, "l", CPU)
    assert together.dtype == torch.float32
    np.testing.assert_allclose(together.norm(dim=1), np.ones(100), rtol=1e-6)
    monkeypatch.setattr(encoders, "ENCODE_ROWS", 7)
    np.testing.assert_allclose(checkpoint.encode(rows, 0, "l", CPU), together, atol=1e-6)
    np.testing.assert_allclose(checkpoint.encode(rows[40:41], 0, "l", CPU)[0], together[40], atol=1e-6)


def test_each_width_has_a_first_layer_and_the_rest_is_shared() -> None:
    encoder = made.checkpoint(widths=(5, 8)).encoder
    names = {name.split(".")[0] + "." + name.split(".")[1] for name in encoder.state_dict()}
    assert names == {"first.view0_width5", "first.view0_width8", "rest.0"}
    assert encoder(torch.randn(4, 5)).shape == encoder(torch.randn(4, 8)).shape == (4, 8)


def test_each_view_has_the_first_layers_it_needs_and_no_other() -> None:
    """An untrained first layer for the other view's width would encode rows to noise that looks like a result."""
    config = {"views": ("en", "ar"), "view_widths": ((5,), (8,)), "encoder_per_view": True}
    checkpoint = made.checkpoint(widths=(5, 8), **config)
    assert set(checkpoint.encoder.first) == {"view0_width5", "view1_width8"}
    checkpoint.check_width(Path("x/en.h5"), "layer_0", 5)
    with pytest.raises(MismatchError, match=r"^x/en\.h5: layer layer_0 has width 8; the encoder .* takes width 5$"):
        checkpoint.check_width(Path("x/en.h5"), "layer_0", 8)


def test_views_of_equal_width_are_encoded_apart() -> None:
    config = {"views": ("en", "ar"), "view_widths": ((5,), (5,)), "encoder_per_view": True}
    encoder = made.checkpoint(widths=(5,), **config).encoder
    rows = torch.randn(4, 5)
    assert not torch.allclose(encoder(rows, 0), encoder(rows, 1))


def test_measure_of_the_encoded_rows() -> None:
    assert Config("pairs", "contrasim", (5,)).scored_by == "dot"
    assert Config("pairs", "supcon", (5,), similarity="norm").scored_by == "norm"
    assert Config("pairs", "deepcka", (5,)).scored_by == "cka"


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_checkpoint_is_laid_out_as_designed(tmp_path: Path) -> None:
    layers = made.related(2, 2, 20, (10, 6))
    stores = [made.store(tmp_path / f"{name}.h5", x) for name, x in zip("ab", layers, strict=True)]
    done = run(
        "train",
        *stores,
        "--task",
        "pairs",
        "--recipe",
        "paper",
        "--epochs",
        "2",
        "--hidden",
        "12",
        "--dim",
        "4",
        "-o",
        tmp_path / "e.pt",
    )
    assert done.code == 0
    found = content(tmp_path / "e.pt")
    parts = ["format", "format_version", "config", "state_dict", "digest", "training", "provenance", "words_digest"]
    assert list(found) == parts
    assert (found["format"], found["format_version"]) == ("contrasim-encoder", 2)
    assert found["config"] == {
        "task": "pairs",
        "objective": "contrasim",
        "widths": [6, 10],
        "views": [],
        "view_widths": [],
        "similarity": "dot",
        "hidden": [12],
        "output": 4,
        "temperature": 0.07,
        "lr": 1e-3,
        "weight_decay": 0.0,
        "batch_size": 1024,
        "epochs": 2,
        "anchor_side": "both",
        "encoder_per_view": False,
        "seed": 0,
        "recipe": "paper",
        "standardize": "none",
        "shrinkage": 0.01,
        "path": "mlp",
        "optimizer": "adam",
        "schedule": "constant",
        "warmup": 0.0,
        "validation": 0.0,
        "patience": 0,
        "precision": "float32",
        "inputs": "raw",
        "anchors": [],
        "anchor_sources": [],
        "features": [],
        "components": 0,
        "copies": 0,
        "members": 1,
        "measures": [],
        "blind": [],
        "epoch_steps": 0,
        "start": "random",
        "within": [],
        "by_layer": [],
    }
    assert set(found["state_dict"]) == {
        f"{layer}.{kind}"
        for layer in ("first.view0_width6", "first.view0_width10", "rest.0.1")
        for kind in ("weight", "bias")
    }
    assert found["training"]["finished"] is True
    assert found["training"]["epochs_done"] == len(found["training"]["loss_curve"]) == 2
    assert "optimizer" not in found["training"]
    assert [store["name"] for store in found["provenance"]["stores"]] == ["a", "b"]
    for store in found["provenance"]["stores"]:
        assert set(store) == {"name", "model", "data", "rows", "ids", "content", "layers"}
        assert (store["rows"], store["layers"], len(store["content"])) == (20, ["layer_0", "layer_1"], 32)
    assert set(found["provenance"]["versions"]) == {"contrasim", "torch"}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    config = {"views": ("en", "ar"), "view_widths": ((5, 6), (8,)), "encoder_per_view": True}
    saved = made.checkpoint(widths=(5, 6, 8), stores=("en", "ar"), **config)
    encoders.save(tmp_path / "e.pt", saved, force=False)
    loaded = encoders.load(tmp_path / "e.pt")
    assert loaded.config == saved.config
    assert (loaded.training, loaded.provenance) == (saved.training, saved.provenance)
    assert encoders.weights_digest(loaded.encoder.state_dict()) == encoders.weights_digest(saved.encoder.state_dict())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return made.encoder_file(tmp_path / "e.pt", widths=(5,))


def rewritten(path: Path, **changes: Any) -> Path:
    torch.save(content(path) | changes, path)
    return path


def test_one_flipped_weight_is_noticed(path: Path) -> None:
    state = content(path)["state_dict"]
    state["rest.0.1.bias"][3] = torch.nextafter(state["rest.0.1.bias"][3], torch.tensor(9.0))
    assert refusal(rewritten(path, state_dict=state)) == (
        f"{path}: the encoder's weights do not match their digest; the file is damaged"
    )


def test_swapped_weights_are_noticed(path: Path) -> None:
    state = content(path)["state_dict"]
    state["rest.0.1.weight"] = state["rest.0.1.weight"].flip(0)
    assert "do not match their digest" in refusal(rewritten(path, state_dict=state))


def test_version_1_is_read_as_the_papers_recipe(path: Path) -> None:
    """Which knew neither the later options nor a digest of anything but the weights."""
    later = {"recipe", "standardize", "shrinkage", "path", "optimizer", "schedule", "warmup", "validation", "patience"}
    old = content(path)
    del old["words_digest"]
    old["config"] = {name: value for name, value in old["config"].items() if name not in later | {"precision"}}
    torch.save(old | {"format_version": 1}, path)
    assert encoders.load(path).config == made.checkpoint(widths=(5,)).config
    assert not encoders.load(path).config.standardization


@pytest.mark.parametrize(
    ("key", "change"),
    [("config", {"standardize": "whiten"}), ("provenance", {"stores": [1]}), ("training", {"loss_curve": [0.5]})],
)
def test_words_that_were_changed_are_noticed(path: Path, key: str, change: dict[str, Any]) -> None:
    changed = rewritten(path, **{key: content(path)[key] | change})
    assert refusal(changed) == (
        f"{path}: the encoder's options or history do not match their digest; the file is damaged"
    )


@pytest.mark.parametrize(("width", "output"), [(5, 5), (5, 8)])
def test_a_linear_path_starts_as_the_identity(width: int, output: int) -> None:
    rows = torch.randn(9, width)
    unit = torch.nn.functional.normalize(rows, dim=1)
    for path in ("linear", "both"):
        encoded = made.checkpoint(widths=(width,), output=output, path=path).encoder(rows)
        torch.testing.assert_close(encoded[:, :width], unit)
        assert (encoded[:, width:] == 0).all()


def test_a_linear_path_into_less_starts_as_a_rotation_into_it() -> None:
    linear = made.checkpoint(widths=(9,), output=4, path="linear").encoder.linear["view0_width9"]
    torch.testing.assert_close(linear @ linear.T, torch.eye(4))


def test_the_mlp_beside_the_linear_path() -> None:
    encoder_ = made.checkpoint(widths=(6,), path="both").encoder.double()
    encoder_.gain.data.fill_(0.7)
    rows = torch.randn(9, 6, dtype=torch.float64)
    norm = torch.nn.functional.normalize
    unit = norm(rows, dim=1)
    mlp = encoder_.rest(encoder_.first["view0_width6"](unit * 6**0.5))
    expected = norm(unit @ encoder_.linear["view0_width6"].T + 0.7 * norm(mlp, dim=1), dim=1)
    torch.testing.assert_close(encoder_(rows), expected)


def test_a_future_version_is_refused(path: Path) -> None:
    assert refusal(rewritten(path, format_version=3)) == (
        f"{path}: encoder format_version is 3, this contrasim reads 1 and 2; install a newer one"
    )


@pytest.mark.parametrize("key", ["config", "state_dict", "digest", "training", "provenance", "words_digest"])
def test_a_part_that_is_missing_is_noticed(path: Path, key: str) -> None:
    torch.save({name: value for name, value in content(path).items() if name != key}, path)
    assert refusal(path) == f"{path}: the encoder is damaged ('{key}')"


@pytest.mark.parametrize(
    "change",
    [
        {"widths": 5},
        {"widths": ["a"]},
        {"hidden": [3.5]},
        {"output": -1},
        {"widths": [6]},
        {"more": 1},
        {"members": 0},
        {"members": 2},
        {"members": 10**12},
    ],
)
def test_a_configuration_that_does_not_fit_is_noticed(path: Path, change: dict[str, Any]) -> None:
    config = content(path)["config"] | change
    assert refusal(rewritten(path, config=config)).startswith(f"{path}: the encoder is damaged (")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert refusal(path) == f"{path}: is not a contrasim encoder, or is damaged; create one with contrasim train"


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    store = made.store(tmp_path / "a.h5", {"l": np.eye(3)})
    assert refusal(store) == f"{store}: is a store of activations (HDF5), not an encoder; {REMEDY}"
    assert refusal(tmp_path / "none.pt") == f"{tmp_path / 'none.pt'}: cannot be read: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: it is a folder"
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    (tmp_path / "text.pt").write_text("not at all")
    for name in ("other.pt", "tensor.pt"):
        assert (
            refusal(tmp_path / name)
            == f"{tmp_path / name}: is not a contrasim encoder; create one with contrasim train"
        )
    assert "is not a contrasim encoder, or is damaged" in refusal(tmp_path / "text.pt")


class Payload:
    """What a pickle can do to those who open it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    target = tmp_path / "run"
    torch.save({"format": "contrasim-encoder", "config": Payload(target)}, tmp_path / "e.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Payload(target)))
    for name in ("e.pt", "raw.pt"):
        refusal(tmp_path / name)
        assert not target.exists()
    torch.load(tmp_path / "e.pt", weights_only=False)
    assert target.exists()  # the payload does work


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "e.pt", "w") as archive:
        archive.writestr("readme", "nothing")
    refusal(tmp_path / "e.pt")


# --- encoders and stores that do not fit ------------------------------------------------------------------------------


def test_scoring_refuses_what_does_not_fit_with_all_problems_at_once(tmp_path: Path) -> None:
    made.encoder_file(tmp_path / "e.pt", widths=(5,))
    stores = [made.store(tmp_path / f"{n}.h5", {"l": np.eye(4, w)}) for n, w in (("a", 5), ("b", 6), ("c", 7))]
    done = run("score", *stores, "--encoder", tmp_path / "e.pt")
    assert done.code == 4
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"contrasim: error: {tmp_path}/b.h5: layer l has width 6; the encoder {tmp_path}/e.pt takes width 5",
        f"contrasim: error: {tmp_path}/c.h5: layer l has width 7; the encoder {tmp_path}/e.pt takes width 5",
    ]


def test_a_store_that_is_neither_view_is_refused(tmp_path: Path) -> None:
    config = {"views": ("en", "ar"), "view_widths": ((5,), (5,)), "encoder_per_view": True}
    made.encoder_file(tmp_path / "e.pt", widths=(5,), **config)
    rows = np.random.default_rng(0).normal(size=(6, 5))
    stores = [made.store(tmp_path / f"{name}.h5", {"l": rows}) for name in ("en", "ar", "zh")]
    done = run("score", *stores, "--encoder", tmp_path / "e.pt")
    assert done.code == 4
    assert done.stderr == (
        f"contrasim: error: {tmp_path}/zh.h5: the encoder {tmp_path}/e.pt has a first layer for each of the views en and ar "
        "alone, and recognises views by their file names; train without --encoder-per-view to score other stores\n"
    )
    same = run("score", *stores[:2], "--encoder", tmp_path / "e.pt", "--format", "value")
    assert same.code == 0
    assert float(same.stdout) < 0.999  # the same rows go through different first layers


def test_an_unfinished_encoder_is_not_scored(tmp_path: Path) -> None:
    checkpoint = made.checkpoint(widths=(5,))
    checkpoint.training["finished"] = False
    encoders.save(tmp_path / "e.pt.partial", checkpoint, force=False)
    stores = [made.store(tmp_path / f"{name}.h5", {"l": np.eye(5)}) for name in "ab"]
    done = run("score", *stores, "--encoder", tmp_path / "e.pt.partial")
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr == (
        f"contrasim: error: {tmp_path}/e.pt.partial: the encoder's training has not finished; "
        "go on with contrasim train --resume\n"
    )


def test_a_store_as_encoder_and_an_encoder_as_store_are_refused(tmp_path: Path) -> None:
    stores = [made.store(tmp_path / f"{name}.h5", {"l": np.eye(5)}) for name in "ab"]
    path = made.encoder_file(tmp_path / "e.pt", widths=(5,))
    done = run("score", *stores, "--encoder", stores[0])
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr == f"contrasim: error: {stores[0]}: is a store of activations (HDF5), not an encoder; {REMEDY}\n"
    done = run("baseline", stores[0], path)
    assert (done.code, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1


def test_every_refusal_is_the_users_error() -> None:
    with pytest.raises(ContraSimError):
        Checkpoint(made.checkpoint(widths=(5,)).encoder).check_width(Path("a"), "l", 6)


@pytest.mark.parametrize("path", ["mlp", "linear", "both"])
@pytest.mark.parametrize("hidden", [(), (16,), (512, 256, 128)])
@pytest.mark.parametrize("members", [1, 3])
def test_encoders_of_every_form_are_read(tmp_path: Path, path: str, hidden: tuple[int, ...], members: int) -> None:
    file = tmp_path / "e.pt"
    form = {"inputs": "anchors", "members": members} if members > 1 else {}
    encoders.save(file, made.checkpoint(widths=(6, 9), path=path, hidden=hidden, **form), force=False)
    found = encoders.load(file)
    assert found.config.path == path
    z = found.encode(np.random.default_rng(0).normal(size=(4, 9)), 0, "l", torch.device("cpu"))
    assert z.shape == (4, found.config.encoded)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(4))
