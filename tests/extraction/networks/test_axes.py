"""Which axis of a module's output is its width: by what its parts are, or by what `--axes` says, never by a guess."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Result, run
from torch import Tensor, nn

from contrasim_cli.extraction.networks.load import load
from contrasim_cli.extraction.networks.network import ModelOptions
from contrasim_cli.extraction.sources.open import array_source
from contrasim_cli.store import open_store

NETS = '''
import torch
from torch import nn

class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.norm, self.act = nn.Conv2d(3, 24, 4, 4), nn.LayerNorm(24), nn.GELU()
        self.features = nn.Sequential(nn.Sequential(nn.Linear(24, 24), nn.GELU()), nn.Sequential(nn.Linear(24, 24), nn.GELU()))

    def forward(self, x):
        return self.act(self.features(self.norm(self.patch(x).permute(0, 2, 3, 1))))

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.ReLU()
        self.down = nn.MaxPool2d(2)
        self.dense = Dense()

    def forward(self, x):
        return self.dense(self.down(self.act(self.norm(self.conv(x)))))

class Dense(nn.Module):
    """Puts out more channels than its last part."""

    def __init__(self):
        super().__init__()
        self.grow = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return torch.cat([x, self.grow(x)], 1)

class MapNorm(nn.LayerNorm):
    """Moves the axes itself, as those of torchvision and timm do."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

class Next(nn.Module):
    """Linear maps of channels that come last, between convolutions."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 5, 2, 2), MapNorm(5)
        self.block = Block(5)

    def forward(self, x):
        return self.block(self.norm(self.stem(x)))

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.deep, self.wide, self.back = nn.Conv2d(width, width, 3, 1, 1), nn.Linear(width, 20), nn.Linear(20, width)

    def forward(self, x):
        return x + self.back(self.wide(self.deep(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv1d(3, 5, 3, padding=1), nn.ReLU()
        self.tokens = Turned()

    def forward(self, x):
        return self.tokens(self.act(self.conv(x)))

class Turned(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(5), nn.MultiheadAttention(5, 1, batch_first=True)

    def forward(self, x):
        x = self.norm(x.transpose(1, 2))
        return self.attention(x, x, x)[0]

class Unknown(nn.Module):
    def forward(self, x):
        return torch.sin(x)

class Alone(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = Unknown()

    def forward(self, x):
        return self.part(x)

class Turning(nn.Module):
    """As many channels as places, turned within the part: neither its parts nor its shape tell."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(3, 4, 4, 4), Permuted(), nn.Linear(4, 4))

    def forward(self, x):
        return self.part(x)

class Permuted(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)

def made(kind):
    torch.manual_seed(0)
    return kind().eval()

windows, residual, following, waves = (lambda kind=kind: made(kind) for kind in (Windows, Residual, Next, Waves))
alone, turning = (lambda kind=kind: made(kind) for kind in (Alone, Turning))
'''
FIRST, LAST = (2, 3), (1, 2)  # the axes that are averaged where channels come first, or last


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("axis_nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    np.save("images.npy", rng.normal(size=(7, 3, 16, 24)).astype("f4"))
    np.save("square.npy", rng.normal(size=(7, 3, 16, 16)).astype("f4"))
    np.save("signals.npy", rng.normal(size=(7, 3, 12)).astype("f4"))
    return tmp_path


def outputs(module: nn.Module, layers: list[str], arrays: str) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    for layer in layers:
        part = module.get_submodule(layer)
        part.register_forward_hook(lambda part, given, output, layer=layer: kept.update({layer: output.clone()}))
    with torch.no_grad():
        module(torch.from_numpy(np.load(arrays)))
    return kept


@pytest.mark.parametrize(
    ("function", "arrays", "averaged"),
    [
        (
            "windows",
            "images.npy",
            {"patch": FIRST, "norm": LAST, "features.0": LAST, "features.1.1": LAST, "act": LAST},
        ),
        ("residual", "images.npy", {"conv": FIRST, "norm": FIRST, "act": FIRST, "down": FIRST, "dense": FIRST}),
        ("following", "images.npy", {"stem": FIRST, "norm": FIRST, "block.wide": LAST, "block": FIRST}),
        ("waves", "signals.npy", {"conv": (2,), "act": (2,), "tokens.norm": (1,), "tokens": (1,)}),
    ],
)
def test_width_is_where_the_parts_have_it(
    folder: Path, function: str, arrays: str, averaged: dict[str, tuple[int, ...]]
) -> None:
    source = array_source(folder / arrays)
    network = load(ModelOptions(f"{folder}/axis_nets.py:{function}", layers=list(averaged)), source)
    network.discover(network.prepare(next(source.blocks(1)), 0).batch([0]))
    found = network.rows(network.prepare(np.load(arrays), 0).batch(list(range(7))))
    expected = outputs(network.module, list(averaged), arrays)  # type: ignore[attr-defined]
    for layer, axes in averaged.items():
        torch.testing.assert_close(found[layer], expected[layer].mean(axes))


def extract(function: str, *options: str, arrays: str = "signals.npy") -> Result:
    return run("extract", "--model", f"axis_nets.py:{function}", "--arrays", arrays, *options, "-o", "o.h5")


def test_tokens_of_channels_that_come_first_are_along_the_last_axis(folder: Path) -> None:
    done = extract("waves", "--layers", "conv", "--pool", "last")
    assert done.code == 0, done
    network = load(ModelOptions(f"{folder}/axis_nets.py:waves"), array_source(folder / "signals.npy"))
    expected = outputs(network.module, ["conv"], "signals.npy")["conv"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(stored("conv"), expected[:, :, -1], rtol=1e-5, atol=1e-6)


def stored(layer: str) -> np.ndarray:
    return np.asarray(open_store(Path("o.h5")).layers[layer].array[0:7])


@pytest.mark.parametrize(("function", "layer", "axes"), [("residual", "conv", FIRST), ("windows", "norm", LAST)])
def test_the_largest_of_a_map_is_not_its_mean(folder: Path, function: str, layer: str, axes: tuple[int, int]) -> None:
    assert extract(function, "--layers", layer, "--pool", "max", arrays="images.npy").code == 0
    network = load(ModelOptions(f"{folder}/axis_nets.py:{function}"), array_source(folder / "images.npy"))
    expected = outputs(network.module, [layer], "images.npy")[layer].amax(axes)  # type: ignore[attr-defined]
    np.testing.assert_allclose(stored(layer), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", ["cls", "last"])
def test_maps_have_no_tokens(folder: Path, pool: str) -> None:
    done = extract("residual", "--layers", "conv", "--pool", pool, arrays="images.npy")
    assert (done.code, done.stderr) == (
        2,
        f"contrasim: error: axis_nets.py:residual: layer conv puts out maps, which have no {pool} token; give --pool mean, max or "
        "flatten; choose others with --layers\n",
    )


@pytest.mark.parametrize(
    ("function", "arrays", "shape", "words"),
    [
        ("alone", "signals.npy", "[n, 3, 12]", "rows,pool,width or rows,width,pool"),
        ("turning", "square.npy", "[n, 4, 4, 4]", "rows,pool,pool,width or rows,width,pool,pool"),
    ],
)
def test_what_neither_parts_nor_shape_tell_is_asked_for(
    folder: Path, function: str, arrays: str, shape: str, words: str
) -> None:
    done = extract(function, "--layers", "part", arrays=arrays)
    assert (done.code, done.stderr) == (
        2,
        f"contrasim: error: axis_nets.py:{function}: layer part puts out {shape}, and nothing says which axis is its width; say "
        f"it with --axes {words}, or take all with --pool flatten; choose others with --layers\n",
    )
    assert not Path("o.h5").exists()


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("rows,width,pool", lambda x: x.mean(2)),
        ("rows,pool,width", lambda x: x.mean(1)),
        ("rows,width,width", lambda x: x.reshape(7, -1)),
    ],
)
def test_axes_that_are_said(folder: Path, words: str, rows: Callable[[np.ndarray], np.ndarray]) -> None:
    assert extract("alone", "--axes", words).code == 0
    np.testing.assert_allclose(stored("part"), rows(np.sin(np.load("signals.npy"))), rtol=1e-5, atol=1e-6)
    again = extract("alone", "--axes", "rows,width,pool", "--resume")
    assert again.code == (0 if words == "rows,width,pool" else 5)


FORM = "with --model the first word is rows, and the others are width or pool, as in rows,pool,pool,width"
OTHER = (
    "axis_nets.py:alone: layer part puts out [1, 3, 12] for 1 row(s); expected [n, width] or 4 axes; "
    "choose others with --layers"
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--axes", "width,rows,pool"], f"--axes width,rows,pool: {FORM}"),
        (["--axes", "rows,layers,width"], f"--axes rows,layers,width: {FORM}"),
        (
            ["--axes", "rows,width,pool", "--pool", "mean"],
            "--axes says what is averaged and --pool too; give one of them",
        ),
        (["--axes", "rows,width,pool,pool"], OTHER),
    ],
)
def test_words_that_do_not_fit_are_refused(folder: Path, options: list[str], message: str) -> None:
    done = extract("alone", *options)
    assert (done.code, done.stderr) == (2, f"contrasim: error: {message}\n")
