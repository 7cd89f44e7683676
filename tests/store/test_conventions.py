"""HDF5 by the conventions of others: MATLAB's -v7.3, NetCDF-4 as xarray writes it, and AnnData."""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import oracles
import pytest
from helpers import run
from stores import values

from contrasim_cli.errors import InputError
from contrasim_cli.store import Hints, Store, open_store

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5))
NAMES = [f"im{k:02}.png" for k in range(12)]


def ids(store: Store) -> list[str] | None:
    return None if store.ids is None else store.ids.read(0, store.n_rows)


def passed(path: Path, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        open_store(path).close()
    (line,) = [line for line in caplog.messages if "not taken" in line]
    return line.removeprefix(f"{path}: not taken as layers: ")


# MATLAB


class Matlab:
    """Writes as MATLAB does: axes backwards, a class on everything, texts as numbers, cells as references."""

    def __init__(self, path: Path, header: bool = True, classes: bool = True) -> None:
        path.unlink(missing_ok=True)
        self.path, self.header, self.classes = path, header, classes
        self.file = h5py.File(path, "w", userblock_size=512 if header else 0)
        self.count = 0

    def __enter__(self) -> "Matlab":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.header:
            with self.path.open("r+b") as stream:
                stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")

    def put(self, name: str, value: np.ndarray, kind: str = "double", **attrs: Any) -> h5py.Dataset:
        dataset = self.file.create_dataset(name, data=np.ascontiguousarray(np.atleast_2d(value).T))
        if self.classes:
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
        dataset.attrs.update(attrs)
        return dataset

    def text(self, name: str, text: str) -> h5py.Dataset:
        return self.put(name, np.frombuffer(text.encode("utf-16-le"), "<u2"), "char")

    def cell(self, name: str, members: list[Any], row: bool = False) -> None:
        references = []
        for member in members:
            self.count += 1
            where = f"#refs#/{self.count}"
            made = self.text(where, member) if isinstance(member, str) else self.put(where, member)
            references.append(made.ref)
        shape = (len(members), 1) if row else (1, len(members))
        dataset = self.file.create_dataset(name, shape, h5py.ref_dtype)
        dataset[...] = np.array(references, dtype=h5py.ref_dtype).reshape(shape)
        dataset.attrs["MATLAB_class"] = np.bytes_("cell")


@pytest.mark.parametrize(("header", "classes"), [(True, True), (True, False), (False, True)])
def test_matlab_arrays_are_turned(tmp_path: Path, header: bool, classes: bool) -> None:
    with Matlab(tmp_path / "a.mat", header, classes) as file:
        file.put("feat", X)
        file.put("single", X[:, :3].astype(np.float32), "single")
        file.put("flag", (X > 0).astype(np.uint8), "logical")
    store = open_store(tmp_path / "a.mat")
    assert store.kind == "MATLAB 7.3"
    for name, matrix in {"feat": X, "single": X[:, :3].astype(np.float32), "flag": X > 0}.items():
        np.testing.assert_array_equal(store.read(name, 2, 9), matrix[2:9])


def test_matlab_files_are_compared_row_by_row(tmp_path: Path) -> None:
    y = X @ RNG.normal(size=(5, 4)) + RNG.normal(size=(12, 4))
    for name, matrix in (("a", X), ("b", y)):
        with Matlab(tmp_path / f"{name}.mat") as file:
            file.put("feat", matrix)
    done = run("baseline", tmp_path / "a.mat", tmp_path / "b.mat", "--format", "value")
    assert abs(float(done.stdout) - oracles.cka(X, y)) < 1e-6
    assert abs(float(done.stdout) - oracles.cka(X.T[:, :5], y.T[:, :5][[0, 1, 2, 3, 3]])) > 1e-3


def test_an_array_of_matlab_has_the_axes_that_it_has_there(tmp_path: Path) -> None:
    cube = RNG.normal(size=(12, 4, 3))
    with Matlab(tmp_path / "a.mat") as file:
        file.file.create_dataset("cube", data=cube.transpose(2, 1, 0), chunks=(1, 2, 5)).attrs["MATLAB_class"] = (
            b"double"
        )
    with pytest.raises(InputError, match=r"cube float64 \(12, 4, 3\)"):
        open_store(tmp_path / "a.mat")
    store = open_store(tmp_path / "a.mat", Hints(axes="rows,width,layers"))
    np.testing.assert_array_equal(store.read("layer_2", 3, 9), cube[3:9, :, 2])
    pooled = open_store(tmp_path / "a.mat", Hints(axes="rows,pool,width"))
    np.testing.assert_allclose(pooled.read("cube", 0, 12), cube.mean(axis=1))


@pytest.mark.parametrize("row", [False, True])
def test_cells_of_texts_name_rows(tmp_path: Path, row: bool) -> None:
    with Matlab(tmp_path / "a.mat") as file:
        file.put("feat", X)
        file.cell("imageNames", [*NAMES[:-1], "naïve ☃.png"], row)
    assert ids(open_store(tmp_path / "a.mat")) == [*NAMES[:-1], "naïve ☃.png"]


@pytest.mark.parametrize("vector", [np.arange(12.0)[::-1], np.arange(12.0)[None, ::-1].T], ids=["row", "column"])
def test_whole_doubles_are_ids_of_matlab(tmp_path: Path, vector: np.ndarray) -> None:
    with Matlab(tmp_path / "a.mat") as file:
        file.put("feat", X)
        file.put("stim_id", vector)
        file.put("rt", X[:, 0] / 3)  # no whole numbers
        file.put("n", np.array([7.0]))
    assert ids(open_store(tmp_path / "a.mat")) == [str(k) for k in range(11, -1, -1)]


def test_a_matrix_of_characters_names_rows(tmp_path: Path) -> None:
    padded = np.array([list(name.ljust(12)) for name in NAMES])
    with Matlab(tmp_path / "a.mat") as file:
        file.put("feat", X)
        file.put("names", np.vectorize(ord)(padded).astype(np.uint16), "char")
    assert ids(open_store(tmp_path / "a.mat")) == NAMES


def test_a_cell_of_matrices_is_layers(tmp_path: Path) -> None:
    with Matlab(tmp_path / "a.mat") as file:
        file.cell("acts", [X * k for k in range(1, 12)])
    store = open_store(tmp_path / "a.mat")
    assert list(store.layers) == [f"acts.{k}" for k in range(11)]
    np.testing.assert_array_equal(store.read("acts.10", 0, 12), X * 11)


def test_the_fields_of_a_struct_are_in_order(tmp_path: Path) -> None:
    with Matlab(tmp_path / "a.mat") as file:
        for name in ("conv1", "layer1", "fc"):
            file.put(f"s/{name}", X)
        names = np.empty(3, object)
        names[:] = [np.array([bytes([c]) for c in name], "S1") for name in (b"conv1", b"layer1", b"fc")]
        file.file["s"].attrs.create("MATLAB_fields", names, dtype=h5py.vlen_dtype(np.dtype("S1")))
    store = open_store(tmp_path / "a.mat")
    assert list(store.layers) == ["s/conv1", "s/layer1", "s/fc"]
    assert store.facts["order_of_layers"] == "in the order of the file"


def test_what_else_matlab_keeps_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Matlab(tmp_path / "a.mat") as file:
        file.put("feat", X)
        file.text("note", "hello")
        file.put("none", np.array([0, 5], np.uint64), MATLAB_empty=np.uint8(1))
        file.put("words", np.arange(6, dtype=np.uint32), "string", MATLAB_object_decode=np.int32(3))
        for part, vector in (
            ("data", X[:, 0]),
            ("ir", np.arange(12, dtype=np.uint64)),
            ("jc", np.arange(6, dtype=np.uint64)),
        ):
            file.file[f"sparse/{part}"] = vector
        file.file["sparse"].attrs["MATLAB_sparse"] = np.uint64(12)
        file.file["#subsystem#/MCOS"] = np.arange(12)
        file.cell("mixed", [X, "text"])
        file.file["complex"] = np.zeros((5, 12), dtype=[("real", "f8"), ("imag", "f8")])
        file.file["complex"].attrs["MATLAB_class"] = b"double"
    assert sorted(passed(tmp_path / "a.mat", caplog).removesuffix(")").split("), ")) == [
        "complex (no real numbers",
        "mixed (a cell array of neither texts nor matrices",
        "none (empty",
        "note (text",
        "sparse (a sparse matrix; save it with full()",
        "words (a MATLAB string; save texts with cellstr()",
    ]
    store = open_store(tmp_path / "a.mat")
    assert (list(store.layers), store.ids) == (["feat"], None)


# NetCDF-4


def netcdf(path: Path, variables: dict[str, tuple[tuple[str, ...], Any]], **more: Any) -> Path:
    """As xarray writes it: a coordinate is the scale of its dimension, other dimensions are scales without values."""
    lengths = {dim: len for dims, value in variables.values() for dim, len in zip(dims, np.shape(value), strict=True)}
    path.unlink(missing_ok=True)
    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["_NCProperties"] = np.bytes_("version=2,netcdf=4.9.2,hdf5=1.14.3")
        for name, (_, value) in variables.items():
            file.create_dataset(name, data=value)
        for dim, length in lengths.items():
            if dim in variables:
                file[dim].make_scale(dim)
            else:
                scale = file.create_dataset(dim, shape=(length,), dtype=">f4")
                scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{length:10}")
        for name, (dims, _) in variables.items():
            for axis, dim in enumerate(dims):
                if dim != name:
                    file[name].dims[axis].attach_scale(file[dim])
        for name, attrs in more.items():
            file[name].attrs.update(attrs)
    return path


def test_dimensions_without_coordinates_are_no_data(tmp_path: Path) -> None:
    path = netcdf(tmp_path / "a.nc", {"data": (("presentation", "neuroid"), X)})
    store = open_store(path)
    assert (store.kind, list(store.layers), store.ids) == ("NetCDF-4", ["data"], None)
    np.testing.assert_array_equal(store.read("data", 3, 8), X[3:8])
    store.close()
    with h5py.File(path, "r+") as file:  # nor are they where nothing says that the library wrote it
        del file.attrs["_NCProperties"]
    assert list(open_store(path).layers) == ["data"]


def test_the_coordinate_of_the_rows_names_them(tmp_path: Path) -> None:
    others = {"neuroid_id": (("neuroid",), [f"n{k}" for k in range(5)]), "image": (("stim",), NAMES[::-1])}
    for coordinate in (NAMES, np.arange(12)[::-1]):
        path = netcdf(tmp_path / "a.nc", {"stim": (("stim",), coordinate), "x": (("stim", "neuroid"), X), **others})
        assert ids(open_store(path)) == [str(name) for name in coordinate]


def test_a_vector_along_the_rows_names_them_and_none_along_another_axis(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    square = X[:5]
    variables = {
        "x": (("presentation", "neuroid"), square),
        "neuroid_id": (("neuroid",), [f"n{k}" for k in range(5)]),
        "image_id": (("presentation",), NAMES[:5]),
    }
    path = netcdf(tmp_path / "a.nc", variables)
    assert ids(open_store(path)) == NAMES[:5]
    assert passed(path, caplog) == "neuroid_id (along neuroid, which is no axis of rows)"


def test_texts_of_single_characters_name_rows(tmp_path: Path) -> None:
    characters = np.array([[bytes([c]) for c in name.encode().ljust(10, b"\0")] for name in NAMES], "S1")
    path = netcdf(tmp_path / "a.nc", {"x": (("sample", "unit"), X), "name": (("sample", "string10"), characters)})
    assert ids(open_store(path)) == NAMES


def test_names_of_dimensions_say_what_axes_are(tmp_path: Path) -> None:
    variables = {"x": (("neuroid", "presentation"), X.T), "image_id": (("presentation",), NAMES)}
    store = open_store(netcdf(tmp_path / "a.nc", variables))
    np.testing.assert_array_equal(store.read("x", 0, 12), X)
    assert ids(store) == NAMES
    cube = RNG.normal(size=(2, 12, 5))
    store = open_store(netcdf(tmp_path / "b.nc", {"x": (("layer", "sample", "unit"), cube)}))
    np.testing.assert_array_equal(store.read("layer_1", 0, 12), cube[1])
    path = netcdf(tmp_path / "c.nc", {"x": (("a", "b", "c"), cube)})
    with pytest.raises(InputError, match="x has 3 dimensions"):
        open_store(path)
    said = open_store(netcdf(tmp_path / "a.nc", variables), Hints(axes="rows,width"))  # what is said goes before that
    assert said.n_rows == 5


def test_several_variables_are_layers_in_the_order_of_the_file(tmp_path: Path) -> None:
    variables = {name: (("sample", f"unit_{name}"), X[:, :k]) for name, k in (("conv", 3), ("a", 2), ("fc", 4))}
    assert list(open_store(netcdf(tmp_path / "a.nc", variables)).layers) == ["conv", "a", "fc"]


def test_packed_values_are_not_taken_as_they_are(tmp_path: Path) -> None:
    path = netcdf(tmp_path / "a.nc", {"x": (("s", "u"), (X * 100).astype("i2"))}, x={"scale_factor": 0.01})
    with pytest.raises(InputError, match="packed by a scale_factor or add_offset; save it unpacked"):
        open_store(path)


# AnnData


def anndata(path: Path, *, index: str = "_index", modern: bool = True) -> Path:
    with h5py.File(path, "w") as file:
        if modern:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        file["X"], file["layers/scaled"], file["obsm/X_pca"] = X, X * 2, X[:, :2]
        file["obsp/neighbours"], file["varm/PCs"] = np.ones((12, 12)), np.ones((5, 2))
        file["uns/colours"], file["uns/params/k"] = ["red"], 15
        file[f"obs/{index}"], file["obs/n_counts"], file["obs/batch/codes"] = NAMES, np.arange(12), np.zeros(12, "i1")
        file["obs/batch/categories"] = ["x"]
        file["obs"].attrs["_index"] = index
        file["var/_index"] = [f"g{k}" for k in range(5)]
        file["var"].attrs["_index"] = "_index"
    return path


@pytest.mark.parametrize(("index", "modern"), [("_index", True), ("cell_id", True), ("index", False)])
def test_anndata_is_matrices_named_by_obs(
    tmp_path: Path, index: str, modern: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        store = open_store(anndata(tmp_path / "a.h5ad", index=index, modern=modern))
    assert (store.kind, list(store.layers)) == ("AnnData", ["X", "layers/scaled", "obsm/X_pca"])
    assert ids(store) == NAMES
    for name, matrix in {"X": X, "layers/scaled": X * 2, "obsm/X_pca": X[:, :2]}.items():
        np.testing.assert_array_equal(store.read(name, 0, 12), matrix)
    assert not [line for line in caplog.messages if "not taken" in line]


def sparse(file: h5py.File, name: str, matrix: np.ndarray, form: str = "csr_matrix") -> None:
    rows, columns = np.nonzero(matrix)
    group = file.create_group(name)
    group["data"], group["indices"] = matrix[rows, columns], columns.astype(np.int32)
    group["indptr"] = np.searchsorted(rows, np.arange(len(matrix) + 1)).astype(np.int32)
    group.attrs.update({"encoding-type": form, "shape": matrix.shape})


def test_a_sparse_matrix_of_anndata_is_read_in_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = anndata(tmp_path / "a.h5ad")
    thin = np.where(RNG.random(X.shape) < 0.3, X, 0)
    thin[4] = 0
    with h5py.File(path, "r+") as file:
        del file["X"]
        sparse(file, "X", thin)
        sparse(file, "layers/columns", thin, "csc_matrix")
    store = open_store(path)
    np.testing.assert_array_equal(store.read("X", 0, 12), thin)
    np.testing.assert_array_equal(store.read("X", 3, 7), thin[3:7])
    assert "layers/columns (a sparse matrix not in rows; save it with .tocsr(), or dense)" in passed(path, caplog)


@pytest.mark.parametrize("harm", ["indices", "indptr", "shape", "missing", "text"])
def test_a_sparse_matrix_that_cannot_be_is_refused(tmp_path: Path, harm: str) -> None:
    path = anndata(tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        del file["X"]
        sparse(file, "X", np.eye(12, 5))
        group = file["X"]
        if harm == "indices":
            group["indices"][2] = 1 << 30
        elif harm == "indptr":
            group["indptr"][3] = -7
        elif harm == "shape":
            group.attrs["shape"] = (12, 2**40)
        else:
            del group["data"]
            if harm == "text":
                group["data"] = ["a"]
    with pytest.raises(InputError, match="the file is damaged"):
        open_store(path).read("X", 0, 12)


def test_a_scipy_archive_of_a_sparse_matrix(tmp_path: Path) -> None:
    sp = pytest.importorskip("scipy.sparse")
    thin = np.where(RNG.random(X.shape) < 0.3, X, 0)
    sp.save_npz(tmp_path / "a.npz", sp.csr_matrix(thin))
    np.testing.assert_array_equal(open_store(tmp_path / "a.npz").read("a", 0, 12), thin)
    for form in ("csc", "coo", "dia", "bsr"):
        sp.save_npz(tmp_path / "b.npz", sp.csr_matrix(thin).asformat(form))
        with pytest.raises(InputError, match="a sparse matrix not in rows"):
            open_store(tmp_path / "b.npz")


def test_an_anndata_of_before_tables_were_groups_says_that_its_names_are_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["X"] = X
        file["obs"] = np.zeros(12, dtype=[("index", "S5"), ("n", "i4")])
        file["var"] = np.zeros(5, dtype=[("index", "S5")])
    assert passed(tmp_path / "a.h5ad", caplog).startswith("obs (a table of an old AnnData, whose names are not read")


def test_plain_hdf5_with_scales_is_plain(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["time"] = values(12, 3), np.linspace(0, 1, 12)
        file["time"].make_scale("time")
        file["x"].dims[0].attach_scale(file["time"])
    assert open_store(tmp_path / "a.h5").kind == "HDF5"
