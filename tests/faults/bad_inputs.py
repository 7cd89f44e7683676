"""Inputs that are no use, each with the command line that is given them; what it says is in `bad_inputs.txt`."""

import gzip
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import made
import numpy as np
import torch
from faults import containers
from stores import names, values, write, write_by_hand

A, B = values(), values(width=5, seed=1)
ROWS = len(A)
BASELINE = ("baseline", "a.h5", "bad")
SCORE = ("score", "a.h5", "b.h5", "--encoder", "bad")
NETWORK = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(3, 2))\n"
EXTRACT = ("extract", "--model", "nets.py:net", "--arrays", "x.npy", "-o", "o.h5")
TRAIN = ("train", "a.h5", "b.h5", "--task", "pairs", "-o", "o.pt")
FLAGS = {"format": "contrasim-activations", "format_version": 1, "complete": True}


def furnish(folder: Path) -> None:
    """Two stores and an encoder that are fine."""
    write(folder / "a.h5", {"x": A, "y": B})
    write(folder / "b.h5", {"x": A + 1, "y": B + 1})
    made.encoder_file(folder / "e.pt", widths=(3, 5))
    (folder / "t.txt").write_text("one\ntwo\n", encoding="utf-8")
    (folder / "nets.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(3, 2))\n", encoding="utf-8"
    )


@dataclass(frozen=True)
class Case:
    """How the bad input is made, and what is run."""

    make: Callable[[], object]
    args: Sequence[str] = BASELINE


def nothing() -> None:
    """The fault is in the command line."""


def put(content: bytes, name: str = "bad") -> Callable[[], object]:
    """A file of these bytes."""
    return lambda: Path(name).write_bytes(content)


def ours(layers: dict[str, np.ndarray], ids: Sequence[str] | None = None, **attrs: object) -> Callable[[], object]:
    """A store in our layout, by hand."""
    return lambda: write_by_hand(Path("bad"), layers, ids, **attrs)


def plain(**members: object) -> Callable[[], object]:
    """Somebody's HDF5 file."""

    def make() -> None:
        with h5py.File("bad", "w") as file:
            for name, member in members.items():
                file[name] = member

    return make


def with_cell(value: float) -> Callable[[], object]:
    """A bad value in the last cell of a store of several blocks."""

    def make() -> None:
        many = values(3000, 3)
        many[-1, -1] = value
        for name, matrix in (("a.h5", values(3000, 3)), ("bad", many)):
            write_by_hand(Path(name), {"x": matrix}, names(3000))

    return make


def no_rows() -> None:
    with h5py.File("bad", "w") as file:
        file.attrs.update(FLAGS)
        file.create_dataset("layers/x", (0, 3), "f4")


def no_json() -> None:
    ours({"x": A})()
    with h5py.File("bad", "r+") as file:
        file["provenance"] = "{"


def numbers_as_ids() -> None:
    ours({"x": A})()
    with h5py.File("bad", "r+") as file:
        file["ids"] = np.arange(ROWS)


def attribute(name: str, value: object) -> Callable[[], object]:
    """One of our stores with another attribute."""

    def make() -> None:
        write(Path("bad"), {"x": A})
        with h5py.File("bad", "r+") as file:
            file.attrs[name] = value

    return make


def link(name: str) -> Callable[[], object]:
    """A store under a name that is trouble."""
    return lambda: write(Path(name), {"x": values(7)}, names(7, "other"))


def encoder(**changes: object) -> Callable[[], object]:
    """An encoder with changed content."""

    def make() -> None:
        made.encoder_file(Path("bad"), widths=(3, 5))
        torch.save(torch.load("bad", weights_only=True) | changes, "bad")

    return make


def other_widths() -> None:
    made.encoder_file(Path("bad"), widths=(7,))


def half_trained() -> None:
    from contrasim_cli import encoder as encoders

    checkpoint = made.checkpoint(widths=(3, 5))
    checkpoint.training["finished"] = False
    encoders.save(Path("bad"), checkpoint, force=False)


def many_problems() -> None:
    for number in range(12):
        Path(f"bad{number:02d}").touch()


def saved(array: np.ndarray) -> Callable[[], object]:
    """A file of NumPy."""

    def make() -> None:
        with open("bad", "wb") as stream:
            np.save(stream, array)

    return make


def index(place: str) -> Callable[[], object]:
    """A folder with an index of tensors."""

    def make() -> None:
        Path("bad").mkdir()
        Path("x.safetensors").write_bytes(b"")
        Path("bad/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": place}}))

    return make


def link_out() -> None:
    Path("bad").mkdir()
    np.save("x.npy", A)
    Path("bad/x.npy").symlink_to("../x.npy")


def no_chunks() -> None:
    containers.chunks(Path("bad"))
    Path("bad/x/1.0").unlink()


def one_row() -> None:
    for name in ("a.h5", "bad"):
        write(Path(name), {"x": values(1)}, force=True)


CASES = {
    # files of other kinds
    "a missing file": Case(nothing),
    "an empty file": Case(put(b"")),
    "a web page": Case(put(b"<!DOCTYPE html>\n<html><body>404</body></html>")),
    "a pointer of git lfs": Case(put(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")),
    "text": Case(put(b"some words\nand more\n")),
    "bytes of no kind": Case(put(b"\1word 0.1 0.2 0.3\n")),
    "a table of texts": Case(put(b"id\ten\tar\n1\ta word\ta\n2\tanother\tb\n")),
    "a table cut short": Case(put(b"x0,x1,x2\n1,2,3\n4,5\n")),
    "a table with a word among its numbers": Case(put(b"x0,x1\n1,2\n3,4\n5,six\n")),
    "numbers with commas": Case(put(b"0,5;1,5\n2,5;3,5\n")),
    "half a Parquet file": Case(put(b"PAR1" + bytes(100))),
    "half an Arrow file": Case(put(b"ARROW1\0\0" + bytes(100))),
    "half a MATLAB file": Case(put(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + bytes(10))),
    "half a packed array": Case(put(gzip.compress(b"\x93NUMPY\1\0" + bytes(100))[:40])),
    "an index that leads out": Case(index("../x.safetensors")),
    "an index of nothing": Case(index("none.safetensors")),
    "a folder with a link that leads out": Case(link_out),
    "zarr without its rows": Case(no_chunks),
    "a pickle": Case(put(b"\x80\x04K\x01.")),
    "a folder": Case(lambda: Path("bad").mkdir()),
    "a FIFO": Case(lambda: os.mkfifo("bad")),
    "a device": Case(nothing, ("baseline", "a.h5", "/dev/zero")),
    "a link to itself": Case(lambda: Path("bad").symlink_to("bad")),
    "a link to nowhere": Case(lambda: Path("bad").symlink_to("nowhere")),
    "a file as a folder": Case(nothing, ("baseline", "a.h5", "t.txt/x.h5")),
    "half a store": Case(lambda: Path("bad").write_bytes(Path("a.h5").read_bytes()[:6000])),
    "an archive of something else": Case(lambda: __import__("zipfile").ZipFile("bad", "w").writestr("readme", "")),
    "an empty archive": Case(lambda: __import__("zipfile").ZipFile("bad", "w").close()),
    "an encoder as a store": Case(nothing, ("baseline", "a.h5", "e.pt")),
    "a store as an encoder": Case(nothing, ("score", "a.h5", "b.h5", "--encoder", "a.h5")),
    # what is in stores
    "no layers": Case(ours({})),
    "no rows": Case(no_rows),
    "no rows in somebody's file": Case(saved(A[:0])),
    "one row": Case(one_row),
    "no columns": Case(ours({"x": A[:, :0]})),
    "whole numbers": Case(ours({"x": A.astype(np.int32)})),
    "complex numbers": Case(ours({"x": A.astype(complex)})),
    "one dimension": Case(ours({"x": A[0]})),
    "four dimensions": Case(ours({"x": A[None, None]})),
    "strings": Case(plain(x=A.astype("S9"))),
    "truth values": Case(saved(A > 0)),
    "complex numbers of somebody's": Case(saved(A.astype(complex))),
    "one dimension of somebody's": Case(saved(A[:, 0])),
    "four dimensions of somebody's": Case(saved(A[None, None])),
    "layers with different rows": Case(ours({"x": A, "y": A[:19], "z": A[:3]})),
    "different rows in somebody's file": Case(plain(x=A, y=A[:19])),
    "NaN in the last cell": Case(with_cell(np.nan)),
    "Inf in the last cell": Case(with_cell(-np.inf)),
    "NaN everywhere, dropped": Case(saved(A * np.nan), (*BASELINE, "--nan", "drop")),
    "a future version": Case(ours({"x": A}, format_version=2)),
    "an absurd version": Case(ours({"x": A}, format_version="one")),
    "a version of many": Case(ours({"x": A}, format_version=[1, 1])),
    "not complete": Case(ours({"x": A}, complete=False)),
    "another format": Case(ours({"x": A}, format="contrasim-activation")),
    "a format that is a number": Case(ours({"x": A}, format=7)),
    "an attribute changed by hand": Case(attribute("pooling", "cls")),
    "an absurd index of layers": Case(attribute("complete", "no")),
    "a digest that is a matrix": Case(attribute("digest", np.eye(2))),
    "provenance that is no JSON": Case(no_json),
    # ids
    "no common ids": Case(ours({"x": A}, names(ROWS, "other"))),
    "no common ids to match": Case(ours({"x": A}, names(ROWS, "other")), (*BASELINE, "--align", "ids")),
    "permuted ids": Case(ours({"x": A}, names(ROWS)[::-1])),
    "fewer rows": Case(ours({"x": A[:7]}, names(7))),
    "duplicate ids": Case(ours({"x": A}, ["same", *names(ROWS - 2), "same"])),
    "ids that are numbers": Case(numbers_as_ids),
    "too few ids": Case(ours({"x": A}, names(ROWS - 1))),
    "other rows without ids": Case(saved(A[:7])),
    "matching without ids": Case(saved(A), (*BASELINE, "--align", "ids")),
    # names
    "a name with spaces": Case(link("a name"), ("baseline", "a.h5", "a name")),
    "a name with a newline": Case(link("a\nname"), ("baseline", "a.h5", "a\nname")),
    "a name of emoji": Case(link("😀.h5"), ("baseline", "a.h5", "😀.h5")),
    "a name of control characters": Case(link("\x1b[31m\x07\r"), ("baseline", "a.h5", "\x1b[31m\x07\r")),
    "a name that is no UTF-8": Case(link("\udcff"), ("baseline", "a.h5", "\udcff")),
    "a name that reads backwards": Case(link("\u202egnp.h5"), ("baseline", "a.h5", "\u202egnp.h5")),
    "a name too long": Case(nothing, ("baseline", "a.h5", "n" * 300)),
    "a layer with a newline": Case(ours({"x\n\x1b[1m": A.astype(int)})),
    "ids with control characters": Case(ours({"x": A}, ["\x1b[31m\nred", *names(ROWS - 1)])),
    "a layer with slashes to extract": Case(plain(**{"g/x": A * np.nan}), ("extract", "--from", "bad", "-o", "o.h5")),
    # layers
    "layers that match nothing": Case(nothing, ("baseline", "a.h5", "b.h5", "--layers", "z")),
    "layers that nearly match": Case(ours({"hidden_10": A}, names(ROWS)), (*BASELINE, "--layers-b", "hiden_1")),
    "a layer beyond the last": Case(nothing, ("baseline", "a.h5", "b.h5", "--layers", "2")),
    "a layer far beyond the last": Case(nothing, ("baseline", "a.h5", "b.h5", "--layers", "99999999999999999999")),
    "layers before the first": Case(nothing, ("baseline", "a.h5", "b.h5", "--layers", "-3")),
    "a range backwards": Case(nothing, ("baseline", "a.h5", "b.h5", "--layers", "1-0")),
    "a list with commas": Case(nothing, ("baseline", "a.h5", "b.h5", "--layers", "x,y")),
    "an empty pattern": Case(nothing, ("baseline", "a.h5", "b.h5", "--layers", "")),
    "a pattern of control characters": Case(nothing, ("baseline", "a.h5", "b.h5", "--layers", "\x1b[31m\n")),
    # encoders
    "a missing encoder": Case(nothing, SCORE),
    "an empty encoder": Case(put(b""), SCORE),
    "a future encoder": Case(encoder(format_version=9), SCORE),
    "widths that do not fit": Case(other_widths, SCORE),
    "an encoder that is not finished": Case(half_trained, SCORE),
    "an encoder without its weights": Case(encoder(state_dict={}), SCORE),
    "an encoder of other weights": Case(encoder(digest="0" * 64), SCORE),
    "an encoder with another history": Case(encoder(provenance={"stores": [1]}), SCORE),
    "an encoder whose options are a list": Case(encoder(config=[1, 2]), SCORE),
    "tensors as an encoder": Case(lambda: torch.save({"x": torch.ones(2)}, "bad"), SCORE),
    # option values
    "a negative seed": Case(nothing, ("baseline", "a.h5", "b.h5", "--seed", "-1")),
    "a seed too large": Case(nothing, ("baseline", "a.h5", "b.h5", "--seed", "9" * 30)),
    "a seed that is a word": Case(nothing, ("baseline", "a.h5", "b.h5", "--seed", "x")),
    "no memory": Case(nothing, ("baseline", "a.h5", "b.h5", "--memory", "0")),
    "negative memory": Case(nothing, ("baseline", "a.h5", "b.h5", "--memory", "-1G")),
    "memory of a word": Case(nothing, ("baseline", "a.h5", "b.h5", "--memory", "much")),
    "a rank tolerance above 1": Case(nothing, ("baseline", "a.h5", "b.h5", "--rank-tol", "1.5")),
    "a rank tolerance of NaN": Case(nothing, ("baseline", "a.h5", "b.h5", "--rank-tol", "nan")),
    "rows of a subset below 0": Case(nothing, ("baseline", "a.h5", "b.h5", "--max-rows", "-5")),
    "no bootstrap": Case(nothing, ("baseline", "a.h5", "b.h5", "--bootstrap", "0")),
    "a shrinkage of NaN": Case(nothing, ("baseline", "a.h5", "b.h5", "--standardize", "whiten", "--shrinkage", "nan")),
    "no epochs": Case(nothing, (*TRAIN, "--epochs", "0")),
    "a negative learning rate": Case(nothing, (*TRAIN, "--lr", "-1")),
    "a learning rate of NaN": Case(nothing, (*TRAIN, "--lr", "nan")),
    "an infinite learning rate": Case(nothing, (*TRAIN, "--lr", "inf")),
    "a temperature of 0": Case(nothing, (*TRAIN, "--temperature", "0")),
    "an infinite temperature": Case(nothing, (*TRAIN, "--temperature", "inf")),
    "a huge hidden layer": Case(
        nothing,
        (
            "train",
            "a.h5",
            "b.h5",
            "--task",
            "pairs",
            "--path",
            "mlp",
            "--hidden",
            str(2**20),
            "--hidden",
            str(2**20),
            "-o",
            "o.pt",
        ),
    ),
    "a huge output": Case(nothing, (*TRAIN, "--dim", "9" * 30)),
    "an infinite weight decay": Case(nothing, (*TRAIN, "--weight-decay", "inf")),
    "a weight decay of NaN": Case(nothing, (*TRAIN, "--weight-decay", "nan")),
    "a warm-up of NaN": Case(nothing, (*TRAIN, "--warmup", "nan")),
    "a batch of nothing": Case(nothing, (*TRAIN, "--batch-size", "0")),
    "a batch of one": Case(nothing, ("bench", "multilingual", "a.h5", "b.h5", "--batch-size", "1")),
    "an odd number of stores": Case(nothing, ("bench", "layers", "a.h5", "b.h5", "a.h5")),
    "one store": Case(nothing, ("baseline", "a.h5")),
    "an unknown measure": Case(nothing, ("baseline", "a.h5", "b.h5", "--measure", "ckq")),
    "a batch of nothing to extract": Case(nothing, (*EXTRACT, "--batch-size", "-4")),
    # outputs
    "a folder that is not there": Case(nothing, ("baseline", "a.h5", "b.h5", "-o", "none/o.tsv")),
    "an output that is a folder": Case(lambda: Path("o.tsv").mkdir(), ("baseline", "a.h5", "b.h5", "-o", "o.tsv")),
    "an output that is there": Case(put(b"old", "o.tsv"), ("baseline", "a.h5", "b.h5", "-o", "o.tsv")),
    "an output of no format": Case(nothing, ("baseline", "a.h5", "b.h5", "-o", "o.doc")),
    "an output that is an input": Case(nothing, ("extract", "--from", "a.h5", "-o", "a.h5", "--force")),
    # several at once
    "twelve empty files": Case(many_problems, ("baseline", "a.h5", *(f"bad{number:02d}" for number in range(12)))),
    "two kinds of problems": Case(link("other.h5"), ("baseline", "a.h5", "none", "other.h5")),
}
