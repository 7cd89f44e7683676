"""The Python API: what is public, what it gives, what it refuses."""

import doctest
import subprocess
import sys
import typing
import warnings
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch

import contrasim_cli as contrasim
from contrasim_cli import api
from contrasim_cli.commands.baseline import Closed
from contrasim_cli.errors import ContraSimError, ContraSimWarning, InputError, MismatchError, UsageError
from contrasim_cli.measures.load import similarity

PUBLIC = ["LayerScores", "LearnedMeasure", "compare", "compare_layers", "extract", "load_encoder", "open_store"]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 4))


def test_the_public_names_are_those_and_documented() -> None:
    assert sorted(contrasim.__all__) == sorted(PUBLIC)
    guide = (Path(contrasim.__file__).parent / "guide" / "python.md").read_text()
    for name in PUBLIC:
        assert getattr(contrasim, name) is getattr(api, name)
        assert name in dir(contrasim)
        assert f"`{name}" in guide
        assert getattr(api, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'compute'"):
        _ = contrasim.compute


def test_examples_in_docstrings_run() -> None:
    found = doctest.testmod(api)
    assert found.attempted >= 10
    assert found.failed == 0


LITTLE = """
import sys
import contrasim_cli as contrasim
assert not {"torch", "numpy"} & {*sys.modules}
import numpy as np
x = np.random.default_rng(0).normal(size=(40, 6))
assert contrasim.compare(x, -x) > 1 - 1e-9
assert contrasim.compare_layers({"a": x}, {"b": -x}, "pwcca")["a", "b"] > 1 - 1e-9
assert "torch" not in sys.modules
from contrasim_cli import device
device.LITTLE = 0.0
contrasim.compare(x, x)
assert "torch" in sys.modules
"""


def test_neither_the_import_nor_little_work_loads_torch() -> None:
    done = subprocess.run([sys.executable, "-c", LITTLE], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor, lambda x: x.tolist()])
def test_two_matrices_of_any_kind_are_compared(convert: Any) -> None:
    assert contrasim.compare(convert(X), convert(Y), "jaccard_knn", k=3) == similarity(
        "jaccard_knn", X, Y, api.Options(k=3)
    )
    assert contrasim.compare(torch.as_tensor(X).bfloat16(), Y) == pytest.approx(similarity("cka", X, Y), abs=0.01)


def test_layers_are_compared_by_name_with_their_null(tmp_path: Path) -> None:
    first, second = {"a": X, "b": X[:, :2]}, {"c": Y, "d": X + 0.01}
    found = contrasim.compare_layers(first, second)
    assert (found.measure, found.first, found.second) == ("cka", ["a", "b"], ["c", "d"])
    for one, x in first.items():
        for other, y in second.items():
            assert found[one, other] == pytest.approx(similarity("cka", x, y), rel=1e-5)
    assert found.null is not None
    assert found.null_z is not None
    assert found.null.shape == (2, 2)
    assert found.null_z[0, 1] > 5 > abs(found.null_z[0, 0])
    assert found.best() == {"a": "d", "b": "d"}
    distance = contrasim.compare_layers(first, second, "procrustes")
    assert not distance.higher_is_more_similar
    assert distance.best() == {"a": "d", "b": "d"}
    assert distance.null is None
    paths = [made.store(tmp_path / f"{k}.h5", side) for k, side in enumerate((first, second))]
    assert contrasim.compare_layers(str(paths[0]), paths[1]).values == pytest.approx(found.values)
    opened = contrasim.open_store(paths[0])
    assert contrasim.compare_layers(opened, second).values == pytest.approx(found.values)
    opened.close()


def test_encoders_score_arrays(tmp_path: Path) -> None:
    universal = contrasim.load_encoder().score({"a": X, "b": Y}, {"c": X, "d": Y})
    assert universal.measure == "universal"
    assert universal.best() == {"a": "c", "b": "d"}
    assert universal.calibrated is not None
    assert universal.calibrated[0, 0] == pytest.approx(1, abs=0.05)
    path = made.encoder_file(tmp_path / "e.pt", widths=(6, 4))
    own = contrasim.load_encoder(str(path)).score({"a": X}, {"c": Y})
    assert own.calibrated is None
    assert -1 <= own["a", "c"] <= 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: contrasim.compare(X, Y, "CKA"), UsageError, "cka"),
        (lambda: contrasim.compare(X, Y, "family:cca"), UsageError, "give one"),
        (lambda: contrasim.compare(X, Y, q=3), UsageError, "no option q; they are rank_tol"),
        (lambda: contrasim.compare(X, Y, k=0), UsageError, "k=0: expected a whole number from 1"),
        (lambda: contrasim.compare(X, Y, k=2.5), UsageError, "k=2.5: expected a whole number from 1"),
        (lambda: contrasim.compare(X, Y, folds=99), UsageError, "folds=99: expected a whole number from 2 to 50"),
        (lambda: contrasim.compare(X, Y, rank_tol="a"), UsageError, "rank_tol='a': expected a number"),
        (
            lambda: contrasim.compare(X, Y, compare="tau"),
            UsageError,
            "compare='tau': expected one of spearman, pearson",
        ),
        (
            lambda: contrasim.compare(X, Y, compare="tau-a", rsm_compare="rho-a"),
            UsageError,
            "compare and rsm_compare are one option; give one of them",
        ),
        (
            lambda: contrasim.compare_layers(X, Y),  # type: ignore[arg-type]
            UsageError,
            'first: is a ndarray, not a mapping of layers; give {"name": matrix}, or use compare',
        ),
        (lambda: contrasim.compare(X, Y[:-1]), MismatchError, "equal rows"),
        (lambda: contrasim.compare(X, Y, "dot"), MismatchError, "needs equal widths"),
        (lambda: contrasim.compare(X[0], Y), InputError, r"X: has the shape \(6,\)"),
        (lambda: contrasim.compare(X * np.nan, Y), InputError, "X: row 0 holds NaN"),
        (lambda: contrasim.compare([["a"]], Y), InputError, "X: holds <U1, expected real numbers"),
        (lambda: contrasim.compare([[1], [1, 2]], Y), InputError, "X: is not an array of numbers"),
        (
            lambda: contrasim.compare_layers({}, {"a": X}),
            MismatchError,
            "first: layers must have the same rows, found none",
        ),
        (lambda: contrasim.compare_layers({"a": X, "b": X[1:]}, {"a": X}), MismatchError, "found a 40, b 39"),
        (lambda: contrasim.compare_layers({"a": X}, {"a": X[1:]}), MismatchError, "40"),
        (lambda: contrasim.compare_layers("nowhere.h5", {"a": X}), InputError, "nowhere.h5"),
        (lambda: contrasim.load_encoder("nowhere.pt"), InputError, "nowhere.pt"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(call: Any, error: type[ContraSimError], text: str) -> None:
    with pytest.raises(error, match=text) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_modules_of_a_network_are_kept_row_by_row() -> None:
    class Tokens(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return x.unsqueeze(1).expand(-1, 3, -1), 1

    network = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Dropout(0.5), Tokens())
    rows = torch.randn(7, 4)
    found = contrasim.extract(network, rows.split(3), ["0", "1"])
    assert network.training
    np.testing.assert_allclose(found["0"], network[0](rows).detach().numpy(), rtol=1e-5)
    np.testing.assert_array_equal(found["0"], found["1"])  # dropout does nothing in evaluation mode
    assert not network[0]._forward_hooks
    assert contrasim.extract(network[:2], [(rows,), {"input": rows}], ["0"])["0"].shape == (14, 5)

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.tokens, self.idle = torch.nn.Linear(4, 5), Tokens(), torch.nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.tokens(self.first(x))[0]

    pooled = contrasim.extract(Outer(), [rows], ["tokens"], pool=lambda states: states.mean(dim=1))
    assert pooled["tokens"].shape == (7, 5)
    for layers, loader, error, text in [
        (["tokens"], [rows], UsageError, r"tokens: gives \(7, 3, 5\), of which pool must make one row per example"),
        (["nothing"], [rows], UsageError, "nothing: is not a module of the network; there are first, tokens, idle"),
        ([], [rows], UsageError, "layers: is not a module"),
        (["idle"], [rows], InputError, "idle: did not run"),
        (["first"], [], InputError, "the loader gave no batch"),
    ]:
        with pytest.raises(error, match=text):
            contrasim.extract(Outer(), loader, layers)


def test_options_are_called_and_bounded_as_the_command_has_them() -> None:
    assert contrasim.compare(X, Y, "rsa", compare="tau-a") == contrasim.compare(X, Y, "rsa", rsm_compare="tau-a")
    assert contrasim.compare(X, Y, "rsa", compare="tau-a") != contrasim.compare(X, Y, "rsa")
    hints = typing.get_type_hints(Closed, include_extras=True)
    checked = set()
    for name, hint in hints.items():
        own = api.COMMANDS_NAMES.get(name, name)
        kind, *extra = typing.get_args(hint) or (None,)
        if own in api.CHOICES:
            assert typing.get_args(kind) == api.CHOICES[own]
            checked.add(own)
        elif own in api.BOUNDS:
            low, high = (
                getattr(extra[0], end) if getattr(extra[0], end) is not None else infinite
                for end, infinite in (("min", -np.inf), ("max", np.inf))
            )
            assert (low, high) == api.BOUNDS[own]
            checked.add(own)
    assert checked == {*api.CHOICES, *api.BOUNDS}


def warned(call: Any) -> list[str]:
    """What a call warns of, all of it at the line of this file that makes it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(one.category is ContraSimWarning and one.filename == __file__ for one in caught), caught
    return [str(one.message) for one in caught]


def test_what_commands_warn_of_is_warned_of_once_at_the_line_that_calls(tmp_path: Path) -> None:
    assert warned(lambda: contrasim.compare(X, Y)) == []
    few = RNG.normal(size=(20, 30))
    (text,) = warned(lambda: contrasim.compare(few, few))
    assert text.startswith("cka: 20 rows are fewer than the 30 neurons of X (and of 1 more layer), where unrelated")
    texts = warned(lambda: contrasim.compare_layers({"a": few}, {"b": few[::-1]}))
    assert texts[0].startswith("cka: 20 rows are fewer than the 30 neurons of layer a of first")
    assert texts[1].startswith("cka: no layer of first is more similar to one of second than with rows shuffled")
    assert len(texts) == 2
    with pytest.warns(ContraSimWarning, match="is undefined"):
        contrasim.compare_layers({"a": X}, {"b": X * 0 + 1})
    zeros = X.copy()
    zeros[3] = 0
    assert warned(lambda: contrasim.compare_layers({"a": zeros}, {"b": X})) == [
        "first: 1 of 40 rows is all zero in every layer, the first is row 3"
    ]


def test_two_files_without_common_ids_are_warned_of(tmp_path: Path) -> None:
    ids = [f"i{k}" for k in range(40)]
    named, other = (made.store(tmp_path / f"{k}.h5", {"a": X}, ids=ids) for k in "ab")
    bare = tmp_path / "bare.npy"
    np.save(bare, X)
    told = f"rows are matched by position: {bare} has no ids, so that nothing shows whether its rows line up"
    assert warned(lambda: contrasim.compare_layers(named, bare)) == [told]
    assert warned(lambda: contrasim.load_encoder().score(named, bare)) == [told]
    assert warned(lambda: contrasim.compare_layers(named, other)) == []
    assert warned(lambda: contrasim.compare_layers(named, bare, align="position")) == []
    assert warned(lambda: contrasim.compare_layers(named, {"a": X})) == []


def test_a_loader_that_shuffles_is_warned_of() -> None:
    data = torch.utils.data.TensorDataset(torch.randn(10, 4))
    network = torch.nn.Sequential(torch.nn.Linear(4, 3))
    batches = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(data), 4, drop_last=False)
    for loader, texts in [
        (torch.utils.data.DataLoader(data, 4), 0),
        (torch.utils.data.DataLoader(data, 4, shuffle=True), 1),
        (torch.utils.data.DataLoader(data, batch_sampler=batches), 1),
    ]:
        found = warned(lambda loader=loader: contrasim.extract(network, loader, ["0"]))
        assert (
            found
            == ["the loader shuffles, so that rows of two calls are different examples; give one with shuffle=False"]
            * texts
        )
