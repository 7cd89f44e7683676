"""Stores of any structure and command lines of any words: a result, or a line that says what is wrong."""

import signal
import string
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from faults.bad_inputs import furnish
from faults.conftest import Figures
from helpers import run
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from contrasim_cli.errors import ContraSimError
from contrasim_cli.store import Hints, align, open_store

MINUTES = 30  # of each, in the long run
SHORT = 40  # examples
SECONDS = 60  # of processor time, for one example
CODES = {0, 2, 3, 4, 5, 6, 7, 8}


def fuzz(test: Callable[..., None], drawn: Sequence[Any], long: bool, figures: Figures, name: str) -> None:
    """Run a test on a few examples that are always the same, or on others for many minutes."""

    def fresh() -> Callable[..., None]:  # settings are for once
        return given(*drawn)(test)

    until = time.monotonic() + 60 * MINUTES * long
    number = 0
    while number == 0 or time.monotonic() < until:
        examples = settings(
            max_examples=200 if long else SHORT, deadline=None, database=None, verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate, Phase.shrink],
        )  # fmt: skip
        seed(number)(examples(fresh()))()
        number += 1
        figures.add(name, 200 if long else SHORT)


@contextmanager
def bounded() -> Iterator[None]:
    """An example that takes too long is a failure."""

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# stores

WORDS = st.text(min_size=0, max_size=6)
KEYS = st.sampled_from(
    ["layers", "ids", "provenance", "x", "0", "1", "2", "features", "features_01", "features_02", "layer_10",
     "sentence_to_index", "a b", "é\n", "layers/x", "layers/y", "layers/deep/z"]
)  # fmt: skip
VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), WORDS.filter(lambda t: "\0" not in t), st.binary(max_size=5),
    st.sampled_from(["contrasim-activations", 1, 2, True, [1, 2], np.eye(2), np.array(["a", "b"], object), h5py.Empty("f4")]),
)  # fmt: skip
ATTRS = st.dictionaries(
    st.sampled_from(["format", "format_version", "complete", "digest", "provenance_digest", "contrasim_version", "model",
                     "index", "automatic", "source"]), VALUES, max_size=6,
)  # fmt: skip
OURS = {"format": "contrasim-activations", "format_version": 1, "complete": True}
TYPES = st.sampled_from(["f2", "f4", "f8", ">f4", "i1", "u8", "c8", "?", "S3", "O"])
SHAPES = st.one_of(
    st.tuples(st.integers(0, 5), st.integers(0, 4)), st.lists(st.integers(0, 4), max_size=4).map(tuple), st.none()
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "chunks": st.just(True), "compression": st.sampled_from(["gzip", "lzf"]), "shuffle": st.booleans(),
        "fletcher32": st.booleans(), "fillvalue": st.just(1),
    },
)  # fmt: skip
MEMBERS = st.dictionaries(KEYS, st.tuples(TYPES, SHAPES, OPTIONS, st.booleans(), ATTRS), max_size=5)


def build(path: Path, own: bool, attrs: dict[str, Any], members: dict[str, Any]) -> dict[str, np.ndarray]:
    """A file of that structure; what was written into it is returned. What HDF5 itself cannot hold is left out."""
    written: dict[str, np.ndarray] = {}
    with h5py.File(path, "w") as file:
        for name, value in ({**OURS, **attrs} if own else attrs).items():
            set_attribute(file, name, value)
        for name, (kind, shape, options, filled, own_attrs) in members.items():
            try:
                dataset = create(file, name, kind, shape, options, filled)
            except (TypeError, ValueError, OSError, KeyError, RuntimeError, AttributeError):
                continue
            for key, value in own_attrs.items():
                set_attribute(dataset, key, value)
            written[name] = dataset
        return {name: dataset[()] for name, dataset in written.items() if dataset.shape}


def create(file: h5py.File, name: str, kind: str, shape: Any, options: dict[str, Any], filled: bool) -> h5py.Dataset:
    """One dataset, empty or with values."""
    dtype = h5py.string_dtype() if kind == "O" else np.dtype(kind)
    if shape is None:
        return file.create_dataset(name, data=h5py.Empty(dtype))
    if kind == "O":
        data = np.array([f"id {k}" for k in range(int(np.prod(shape)))], object).reshape(shape)
    else:
        data = (np.arange(np.prod(shape)).reshape(shape) % 7).astype(dtype)
    if filled:
        return file.create_dataset(name, data=data, dtype=dtype, **options)
    return file.create_dataset(name, shape, dtype, **options)


def set_attribute(holder: Any, name: str, value: Any) -> None:
    """An attribute, where HDF5 can hold it."""
    try:
        holder.attrs[name] = value
    except (TypeError, ValueError, OSError, UnicodeEncodeError):
        if name in holder.attrs:
            del holder.attrs[name]


def check_store(path: Path, written: dict[str, np.ndarray]) -> None:
    """What is read is what was written, or there is an error of inputs."""
    try:
        with bounded():
            store = open_store(path)
            try:
                view = align([store])[0]
                found = {name: view.read(name) for name in store.layers}
                names = [name for block in store.ids.blocks() for name in block] if store.ids else []
            finally:
                store.close()
    except ContraSimError as error:
        if error.exit_code not in {3, 4}:
            raise AssertionError("another kind of error") from error
        return
    assert not names or len(names) == store.n_rows
    for name, rows in found.items():
        keys = [key for key in (f"layers/{name}", name) if key in written]  # ours lie in `layers`, whatever lies beside
        if keys and store.kind != "NeuroX or ELMo HDF5":
            np.testing.assert_array_equal(rows, written[keys[0]].astype(rows.dtype))


@pytest.mark.slow
def test_stores_of_any_structure(tmp_path: Path, long: bool, figures: Figures) -> None:
    def one(own: bool, attrs: dict[str, Any], members: dict[str, Any]) -> None:
        check_store(tmp_path / "a.h5", build(tmp_path / "a.h5", own, attrs, members))

    fuzz(one, [st.booleans(), ATTRS, MEMBERS], long, figures, "hypothesis: stores")


# files of others, and what is said of them

WORDS_OF_AXES = st.lists(st.sampled_from(["layers", "rows", "width", "pool"]), min_size=1, max_size=4).map(",".join)
READINGS = st.builds(
    Hints,
    axes=st.one_of(st.none(), st.sampled_from(["rows,width", "width,rows", "width", "layers,width"]), WORDS_OF_AXES),
    keys=st.sampled_from([None, "rows", "layers"]),
    ids_key=st.sampled_from([None, None, "names", "x", "none"]),
    read_as=st.sampled_from([None, None, "bfloat16", "integers"]),
    layers=st.sampled_from([None, ["x"], ["*"], ["-1"], ["0-1"]]),
)
PLACES = st.sampled_from(
    ["x", "y", "names", "ids", "s/a", "s/b", "t/a", "t/b", "#refs#/a", "X", "X/data", "X/indices", "X/indptr", "obsm/x",
     "obs/_index", "obs", "var", "d0", "d1", "10", "9"]
)  # fmt: skip
MARKS = st.dictionaries(
    st.sampled_from(["MATLAB_class", "MATLAB_empty", "MATLAB_sparse", "MATLAB_fields", "encoding-type", "shape", "_index",
                     "_NCProperties", "CLASS", "NAME", "scale_factor", "keras_version"]),
    st.one_of(VALUES, st.sampled_from(["double", "char", "cell", "logical", "csr_matrix", "anndata", "DIMENSION_SCALE", b"cell",
                                       "This is a netCDF dimension but not a netCDF variable.", [3, 4], "names"])),
    max_size=3,
)  # fmt: skip
THINGS = st.dictionaries(
    PLACES,
    st.tuples(st.one_of(TYPES, st.sampled_from(["u2", "i2", "?", "ref", "S1"])), SHAPES, OPTIONS, st.just(True), MARKS),
    max_size=6,
)  # fmt: skip


def create_any(
    file: h5py.File, name: str, kind: str, shape: Any, options: dict[str, Any], filled: bool
) -> h5py.Dataset:
    """One dataset, which may be of references to a dataset, to a group, or to nothing."""
    if kind != "ref" or shape is None:
        return create(file, name, "f4" if kind == "ref" else kind, shape, options, filled)
    targets = [file.ref, *(file[key].ref for key in file), h5py.Reference()]
    dataset = file.create_dataset(name, shape, h5py.ref_dtype)
    flat = np.array([targets[k % len(targets)] for k in range(int(np.prod(shape)))], dtype=h5py.ref_dtype)
    dataset[...] = flat.reshape(shape)
    return dataset


def build_any(path: Path, ordered: bool, attrs: dict[str, Any], members: dict[str, Any]) -> None:
    """A file with the marks of other people's conventions, where they belong or not."""
    with h5py.File(path, "w", track_order=ordered) as file:
        for name, value in attrs.items():
            set_attribute(file, name, value)
        for name, (kind, shape, options, filled, marks) in members.items():
            try:
                dataset = create_any(file, name, kind, shape, options, filled)
            except (TypeError, ValueError, OSError, KeyError, RuntimeError, AttributeError):
                continue
            for holder in (dataset, dataset.parent):
                for key, value in marks.items():
                    set_attribute(holder, key, value)


def check_reading(path: Path, how: Hints) -> None:
    """All is read that is promised, or there is an error of usage or of inputs."""
    try:
        with bounded():
            store = open_store(path, how)
            try:
                view = align([store], "position")[0]
                chosen = [name for name, layer in store.layers.items() if layer.n_rows == store.n_rows]
                shapes = [view.read(name).shape for name in chosen]
                names = [name for block in store.ids.blocks() for name in block] if store.ids else []
            finally:
                store.close()
    except ContraSimError as error:
        if error.exit_code not in {2, 3, 4} or not all(line.isprintable() for line in error.lines):
            raise AssertionError("another kind of error") from error
        return
    assert shapes
    assert all(rows == store.n_rows for rows, _ in shapes)
    assert not names or len(names) == store.n_rows


def test_files_of_others_however_they_are_read(tmp_path: Path, long: bool, figures: Figures) -> None:
    def one(ordered: bool, attrs: dict[str, Any], members: dict[str, Any], how: Hints) -> None:
        build_any(tmp_path / "a.h5", ordered, attrs, members)
        check_reading(tmp_path / "a.h5", how)

    fuzz(one, [st.booleans(), MARKS, THINGS, READINGS], long, figures, "hypothesis: files of others")


NESTED = st.recursive(
    st.one_of(
        st.tuples(TYPES.filter(lambda kind: kind[0] not in "SO>"), SHAPES), st.none(), st.integers(), st.floats(),
        st.text(max_size=3), st.lists(st.text(max_size=3), max_size=4), st.lists(st.integers(), max_size=4),
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(0, 3)), inner, max_size=3),
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=8,
)  # fmt: skip


def tensors_in(content: Any) -> Any:
    """The same, with tensors for types and shapes."""
    if isinstance(content, dict):
        return {key: tensors_in(value) for key, value in content.items()}
    if (
        isinstance(content, tuple)
        and len(content) == 2
        and isinstance(content[0], str)
        and not isinstance(content[1], str)
    ):
        kind, shape = content
        return torch.from_numpy(np.asarray(np.arange(np.prod(shape or ())).reshape(shape or ()) % 7).astype(kind))
    if isinstance(content, (list, tuple)):
        return type(content)(map(tensors_in, content))
    return content


def test_torch_files_however_they_are_nested_and_read(tmp_path: Path, long: bool, figures: Figures) -> None:
    def one(content: Any, how: Hints) -> None:
        torch.save(tensors_in(content), tmp_path / "a.pt")
        check_reading(tmp_path / "a.pt", how)

    fuzz(one, [NESTED, READINGS], long, figures, "hypothesis: nested tensors")


def test_archives_however_they_are_read(tmp_path: Path, long: bool, figures: Figures) -> None:
    def one(members: dict[str, tuple[str, Any]], how: Hints, packed: bool) -> None:
        arrays = {}
        for name, (kind, shape) in members.items():
            dtype = object if kind == "O" else np.dtype(kind)
            arrays[name] = np.asarray(np.arange(np.prod(shape or ())).reshape(shape or ()) % 7).astype(dtype)
        (np.savez_compressed if packed else np.savez)(tmp_path / "a.npz", **arrays)
        check_reading(tmp_path / "a.npz", how)

    members = st.dictionaries(
        st.one_of(PLACES, st.sampled_from(["data", "indices", "indptr", "shape", "format"])),
        st.tuples(st.one_of(TYPES, st.sampled_from(["u2", "V2", "?"])), SHAPES), max_size=6,
    )  # fmt: skip
    fuzz(one, [members, READINGS, st.booleans()], long, figures, "hypothesis: archives")


# command lines

ODD = [
    "",
    "-1",
    "0",
    "1",
    "2",
    "0.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9" * 30,
    "2G",
    "x",
    "é\n\x1b[1m",
    "a.h5",
    "none",
    "*",
    "[",
    "--",
    "-",
]
VALUES_OF_OPTIONS = st.one_of(st.sampled_from(ODD), st.text(string.printable, max_size=8))
FILES = ["a.h5", "b.h5", "e.pt", "t.txt", "none.h5", ".", "", "nets.py"]
OPTIONS_OF = {
    "baseline": ["--measure", "--layers", "--layers-a", "--align", "--nan", "--rank-tol", "--max-rows", "--bootstrap",
                 "--standardize", "--shrinkage", "--format", "--output", "--seed", "--memory", "--device", "--precision"],
    "score": ["--encoder", "--layers", "--align", "--standardize", "--standardize-from", "--permutations", "--format", "--memory"],
    "train": ["--task", "--objective", "--epochs", "--lr", "--batch-size", "--hidden", "--dim", "--path", "--validation",
              "--patience", "--layers-b", "--standardize", "-o", "--warmup", "--save-every"],
    "bench layers": ["--measure", "--encoder", "--pairs", "--layers", "--output"],
    "bench multilingual": ["--measure", "--negatives", "--batch-size", "--layers", "--seed"],
    "inspect": ["--align", "--format", "--output"],
    "extract": ["--from", "--axes", "--keys", "--ids-key", "--read-as", "--zero-rows", "--layers", "-o", "--limit", "--skip",
                "--store-dtype", "--text", "--model"],
}  # fmt: skip
GOOD = {
    "--measure": ["cka", "cosine"], "--layers": ["x", "0", "-1", "0-1"], "--encoder": ["e.pt"], "--align": ["ids", "position"],
    "--task": ["pairs", "layers"], "-o": ["o.pt", "o.h5"], "--output": ["o.tsv"], "--format": ["json", "value"], "--epochs": ["1"],
    "--standardize": ["center", "whiten"], "--from": ["a.h5", "t.txt"], "--negatives": ["random", "faiss"],
}  # fmt: skip
UNBOUNDED = {"--epochs", "--bootstrap", "--permutations"}  # work for ever is what these ask for


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Words that may be a command line."""
    command = draw(st.sampled_from(list(OPTIONS_OF)))
    words = [*command.split(), *draw(st.lists(st.sampled_from(FILES), max_size=3))]
    if command == "train":
        words += ["--epochs", "1", "--hidden", "8", "--dim", "4"]
    for option in draw(st.lists(st.sampled_from(OPTIONS_OF[command]), max_size=4)):
        sane = st.sampled_from(GOOD.get(option, ["1"]))
        value = draw(sane if option in UNBOUNDED else st.one_of(sane, VALUES_OF_OPTIONS))
        words += [option, value]
    return words


@pytest.mark.slow
def test_command_lines_of_any_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool, figures: Figures
) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}

    def one(words: list[str]) -> None:
        with bounded():
            done = run(*words)
        assert done.code in CODES, (words, done)
        assert all(line.startswith("contrasim: ") and line.isprintable() for line in done.stderr.splitlines()), (
            words,
            done,
        )
        assert (done.code == 0) != ("contrasim: error: " in done.stderr), (words, done)
        assert not list(tmp_path.glob(".*.tmp"))
        for path in tmp_path.iterdir():
            if path.is_file() and path.name not in before:
                path.unlink()

    fuzz(one, [lines()], long, figures, "hypothesis: command lines")
