"""Masks of tokens: what they leave out of rows and means, and what is no mask."""

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers import run

RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(4, 5, 3)).astype(np.float32)
OTHER = "give the mask of these items, or other --axes"
EMPTY = "leave such items out of the mask and the arrays, or give --mask '!m.npy' if it is 1 for padding"
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [1, 0, 1, 0, 1]])


def padded(folder: Path, filler: float = 0.0) -> Path:
    """A file of two layers whose padding is `filler`."""
    states = np.where(MASK[..., None], STATES, np.float32(filler))
    np.savez(folder / "acts.npz", h0=states, h1=2 * states, mask=MASK)
    return folder / "acts.npz"


def layer(path: Path, name: str = "h0") -> tuple[npt.NDArray[np.float32], list[str]]:
    """Values and names of the rows of a store."""
    with h5py.File(path) as file:
        return file["layers"][name][:], file["ids"].asstr()[:].tolist()


@pytest.mark.parametrize("filler", [0.0, 7.0, np.nan])
def test_rows_are_the_tokens_that_are_no_padding(tmp_path: Path, filler: float) -> None:
    path, out = padded(tmp_path, filler), tmp_path / "o.h5"
    done = run("extract", "--from", path, "--axes", "rows,rows,width", "--mask", f"{path}:mask", "-o", out)
    assert done.code == 0, done.stderr
    assert "padding" not in done.stderr
    assert f"contrasim: note: --mask leaves out {(MASK == 0).sum()} of {MASK.size} tokens\n" in done.stderr
    values, ids = layer(out)
    assert (values == STATES[MASK.astype(bool)]).all()
    assert ids == [f"{item}:{token}" for item, token in np.argwhere(MASK)]


@pytest.mark.parametrize("filler", [0.0, 7.0, np.nan])
def test_means_are_over_the_tokens_that_are_no_padding(tmp_path: Path, filler: float) -> None:
    path, out = padded(tmp_path, filler), tmp_path / "o.h5"
    done = run("extract", "--from", path, "--axes", "rows,pool,width", "--mask", f"{path}:mask", "-o", out)
    assert done.code == 0, done.stderr
    expected = [item[kept.astype(bool)].mean(axis=0) for item, kept in zip(STATES, MASK, strict=True)]
    assert np.allclose(layer(out, "h1")[0], 2 * np.stack(expected), atol=1e-6)
    assert not np.allclose(layer(out, "h1")[0], 2 * STATES.mean(axis=1), atol=1e-2)  # which is what no mask gives


def test_a_name_alone_is_of_the_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    padded(tmp_path)
    asked = ["extract", "--from", "acts.npz", "--axes", "rows,rows,width", "-o", "o.h5", "--mask"]
    assert run(*asked, "mask").code == 0
    assert (layer(Path("o.h5"))[0] == STATES[MASK.astype(bool)]).all()
    held = "h0 float32 (4, 5, 3), h1 float32 (4, 5, 3), mask int64 (4, 5)"
    assert run(*asked, "other", "--force").stderr == (
        f"contrasim: error: --mask other: name the mask [items, tokens], as in --mask acts.npz:NAME; it holds {held}\n"
    )
    assert run(*asked, "m.npy", "--force").stderr == (
        "contrasim: error: m.npy: cannot be read: No such file or directory\n"
    )


def test_items_and_tokens_beside_their_mask_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    padded(tmp_path)
    refused = (
        "contrasim: error: acts.npz: seems to hold items x tokens x neurons, with mask for their mask: h0 float32 (4, 5, 3), h1 "
        "float32 (4, 5, 3); convert it with contrasim extract --from FILE --axes rows,rows,width --mask acts.npz:mask (a row "
        "per token without padding) or --axes rows,pool,width --mask acts.npz:mask (a row per item, the mean of its tokens); for "
        "other axes see contrasim guide hooks\n"
    )
    for asked in (["inspect", "acts.npz"], ["extract", "--from", "acts.npz", "-o", "o.h5"]):
        done = run(*asked)
        assert (done.code, done.stderr) == (3, refused)
    for others in (
        {"mask": MASK.T},
        {"mask": MASK, "mask_2": MASK},
        {"kept": MASK},
        {"mask": MASK, "h2": STATES[None]},
    ):
        np.savez("acts.npz", h0=STATES, **others)  # type: ignore[arg-type]
        assert "seems to hold" not in run("inspect", "acts.npz").stderr


def test_masks_of_padding_are_turned_and_pytorchs_own_ones_only_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("acts.npz", h0=STATES, src_key_padding_mask=MASK == 0, padding=1 - MASK)
    asked = ["extract", "--from", "acts.npz", "--axes", "rows,rows,width", "-o", "o.h5", "--force", "--mask"]
    for given in ("!src_key_padding_mask", "!acts.npz:src_key_padding_mask", "!padding"):
        done = run(*asked, given)
        assert done.code == 0, done.stderr
        assert (layer(Path("o.h5"))[0] == STATES[MASK.astype(bool)]).all()
    assert run(*asked, "src_key_padding_mask") == (
        3,
        "",
        "contrasim: error: --mask src_key_padding_mask: PyTorch's key_padding_mask is 1 for padding and 0 for tokens; give --mask "
        "'!src_key_padding_mask' to invert it, or rename it if it is 1 for tokens\n",
    )
    assert "--axes rows,rows,width --mask '!acts.npz:src_key_padding_mask'" in run("inspect", "acts.npz").stderr
    zeros = f"src_key_padding_mask is 1 for {(MASK == 0).sum()} of {MASK.size} tokens"
    assert zeros in run(*asked[:-1]).stderr
    done = run(*asked, "padding")  # item 0 has no padding
    assert "has no token for item 0; leave such items out" in done.stderr
    assert done.stderr.endswith("or give --mask '!padding' if it is 1 for padding\n")
    assert run(*asked, "!padding").stderr.count("padding (2 dimensions") == 0


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_a_mask_may_lie_in_a_file_of_its_own_and_of_any_kind(tmp_path: Path, suffix: str) -> None:
    path, mask = padded(tmp_path), tmp_path / f"mask{suffix}"
    if suffix == ".npy":
        np.save(mask, MASK.astype(np.float32))
    else:
        torch.save(torch.from_numpy(MASK), mask)
    for name, where in (("own", mask), ("same", f"{path}:mask")):
        out = tmp_path / f"{name}.h5"
        assert run("extract", "--from", path, "--axes", "rows,pool,width", "--mask", where, "-o", out).code == 0
    assert (layer(tmp_path / "own.h5")[0] == layer(tmp_path / "same.h5")[0]).all()


def test_layers_in_one_array_and_parts_take_the_same_mask(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", states=np.stack([STATES, 2 * STATES]), mask=MASK)
    asked = ["extract", "--from", tmp_path / "all.npz", "--axes", "layers,rows,rows,width"]
    done = run(*asked, "--mask", f"{tmp_path / 'all.npz'}:mask", "--parts", 2, "-o", tmp_path / "o.acts")
    assert done.code == 0, done.stderr
    assert done.stderr.count("--mask leaves out") == 1
    parts = sorted((tmp_path / "o.acts").glob("*.h5"))
    assert (np.concatenate([layer(part, "layer_1")[0] for part in parts]) == 2 * STATES[MASK.astype(bool)]).all()


def test_a_run_with_another_mask_is_not_resumed(tmp_path: Path) -> None:
    path, out = padded(tmp_path), tmp_path / "o.h5"
    asked = ["extract", "--from", path, "--axes", "rows,rows,width", "-o", out, "--resume", "--mask"]
    assert run(*asked, f"{path}:mask").code == 0
    assert run(*asked, f"{path}:mask").code == 0
    np.save(tmp_path / "other.npy", MASK[:, ::-1])
    assert run(*asked, tmp_path / "other.npy").code == 5


@pytest.mark.parametrize(
    ("mask", "code", "message"),
    [
        (MASK[:, :4], 4, f"acts.npz: h0 has 4 x 5 items and tokens, --mask has 4 x 4; {OTHER}"),
        (MASK * [[1], [1], [0], [1]], 3, f"--mask m.npy: has no token for item 2; {EMPTY}"),
        (MASK * 0.5, 3, "--mask m.npy: holds other values than 0 and 1; a mask is 1 for tokens and 0 for padding"),
        (MASK * np.nan, 3, "--mask m.npy: holds other values than 0 and 1; a mask is 1 for tokens and 0 for padding"),
        (MASK[0], 3, "--mask m.npy: name the mask [items, tokens], as in --mask m.npy:NAME; it holds m int64 (5,)"),
    ],
)  # fmt: skip
def test_what_is_no_mask_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: npt.NDArray[np.float64], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    padded(tmp_path)
    np.save("m.npy", mask)
    done = run("extract", "--from", "acts.npz", "--axes", "rows,pool,width", "--mask", "m.npy", "-o", "o.h5")
    assert (done.code, done.stderr) == (code, f"contrasim: error: {message}\n")
    assert not Path("o.h5").exists()


def test_a_list_of_masks_is_to_be_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    padded(tmp_path)
    torch.save({"h0": torch.ones(2, 3), "mask": [torch.ones(2, 3 + batch) for batch in range(10)]}, "m.pt")
    done = run("extract", "--from", "acts.npz", "--axes", "rows,rows,width", "--mask", "m.pt:mask", "-o", "o.h5")
    said = "mask is a list of 10 arrays: pad to one length and join them with torch.cat (contrasim guide hooks)"
    assert (done.code, done.stderr) == (3, f"contrasim: error: --mask m.pt:mask: {said}\n")


def test_names_that_begin_as_the_one_given_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    padded(tmp_path)
    torch.save(
        {"h0": torch.ones(2, 3), "mask_b": torch.ones(2, 3), "h1": torch.ones(2, 3), "mask_a": torch.ones(2, 3)}, "m.pt"
    )
    done = run("extract", "--from", "acts.npz", "--axes", "rows,rows,width", "--mask", "m.pt:mask", "-o", "o.h5")
    held = ", ".join(f"{name} float32 (2, 3)" for name in ("mask_b", "mask_a", "h0", "h1"))
    said = f"--mask m.pt:mask: name the mask [items, tokens], as in --mask m.pt:NAME; it holds {held}"
    assert (done.code, done.stderr) == (3, f"contrasim: error: {said}\n")


@pytest.mark.parametrize("axes", [None, "rows,width,width", "rows,rows,pool,width"])
def test_a_mask_goes_with_axes_of_items_and_tokens(tmp_path: Path, axes: str | None) -> None:
    path = padded(tmp_path)
    given = [] if axes is None else ["--axes", axes]
    done = run("extract", "--from", path, *given, "--mask", f"{path}:mask", "-o", tmp_path / "o.h5")
    assert done.code == 2
    assert "--mask [items, tokens] goes with --axes rows,rows,width" in done.stderr


def test_batches_of_token_tensors_say_how_to_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes, draw = (8, 8, 3), torch.Generator().manual_seed(0)
    batches = [{name: torch.randn(n, 5, 4, generator=draw) for name in ("a", "b")} for n in sizes]
    torch.save(batches, "dicts.pt")
    torch.save({name: [batch[name] for batch in batches] for name in ("a", "b")}, "lists.pt")
    whole = torch.cat([batch["b"] for batch in batches]).numpy()
    for name, keys, start in (("dicts.pt", "--keys rows ", "layers"), ("lists.pt", "", "rows")):
        said = run("inspect", name).stderr
        ways = [f"{keys}--axes {start},rows,rows,width", f"{keys}--axes {start},rows,pool,width"]
        assert said.endswith(
            "as batches x items x tokens x neurons are: convert it with contrasim extract --from FILE "
            f"{ways[0]} (a row per token) or {ways[1]} (a row per item, the mean of its tokens); for other axes see contrasim "
            "guide hooks\n"
        )
        for way, rows in zip(ways, (whole.reshape(-1, 4), whole.mean(axis=1)), strict=True):
            assert run("extract", "--from", name, *way.split(), "-o", "o.h5", "--force").code == 0
            with h5py.File("o.h5") as file:
                assert np.allclose(file["layers"]["b"][:], rows, atol=1e-6)
    torch.save([{"a": torch.zeros(2, n, 4), "b": torch.zeros(2, n, 4)} for n in (5, 6)], "ragged.pt")
    assert run("inspect", "ragged.pt").stderr == (
        "contrasim: error: ragged.pt: it is a list of dicts of a and b, arrays of different shapes, such as (2, 6, 4) and "
        "(2, 5, 4), as batches are: pad the arrays of each key to one length and join them with torch.cat (contrasim guide hooks)\n"
    )


def test_lists_of_batches_say_how_to_join_them_and_their_masks(tmp_path: Path) -> None:
    counts = ((8, 5), (8, 6), (4, 7))
    lists = {name: [torch.zeros(n, tokens, 3) for n, tokens in counts] for name in ("a", "b")}
    masks = [(torch.arange(tokens) < 5).long().expand(n, tokens).contiguous() for n, tokens in counts]
    torch.save(lists | {"mask": masks}, tmp_path / "both.pt")
    joined = "pad the arrays of each list to one length and join them with torch.cat (contrasim guide hooks)"
    refused = run("inspect", tmp_path / "both.pt")
    said = "a and b are lists of arrays of different shapes, such as (8, 6, 3) and (8, 5, 3), as batches are"
    assert refused.stderr == f"contrasim: error: {tmp_path}/both.pt: {said}: {joined}\n"
    torch.save(lists["a"] + masks, tmp_path / "one.pt")
    asked = [
        "extract",
        "--from",
        tmp_path / "one.pt",
        "--layers",
        "0",
        "--layers",
        "1",
        "--layers",
        "2",
        "-o",
        tmp_path / "o.h5",
    ]
    shorter = run(*asked, "--axes", "rows,pool,width")
    assert shorter.stderr.endswith("; choose with --layers, or add --keys rows where these are batches of one layer\n")
    masked = run(*asked, "--axes", "rows,pool,width", "--keys", "rows", "--mask", f"{tmp_path}/one.pt:3")
    line = "--mask does not go with --keys rows; pad batches to one length and join them with torch.cat (contrasim guide hooks)"
    assert masked.stderr == f"contrasim: error: {line}\n"
