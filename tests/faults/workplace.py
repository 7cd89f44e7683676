"""Tiny inputs, and a command of every kind that writes, with what a whole output of it is."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import made
import numpy as np
from stores import values

from contrasim_cli import encoder as encoders
from contrasim_cli.store import Hints, align, open_store
from contrasim_cli.store.hints import PLAIN

NETWORK = """
import torch
from torch import nn

def network():
    torch.set_num_threads(1)
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
"""
SMALL = ["--recipe", "paper", "--hidden", "16", "--dim", "8", "--batch-size", "16", "--epochs", "4"]


@dataclass(frozen=True)
class Command:
    """A command line; `content` tells whether two outputs are the same, and fails on one that is not whole."""

    args: tuple[str, ...]
    outputs: tuple[str, ...]
    content: Callable[[Path], str]
    resumes: bool = False

    @property
    def name(self) -> str:
        """Its first words."""
        return " ".join(self.args[:2] if self.args[0] == "bench" else self.args[:1])

    def again(self) -> tuple[str, ...]:
        """The command line after a run that was stopped."""
        return (*self.args, "--resume" if self.resumes else "--force")

    def contents(self, folder: Path) -> dict[str, str]:
        """What the outputs hold, of those that are there."""
        return {name: self.content(folder / name) for name in self.outputs if (folder / name).exists()}


def rows_of(path: Path, how: Hints = PLAIN) -> str:
    """A digest of the ids and values of a store, all of which are read."""
    store = open_store(path, how)
    try:
        view = align([store])[0]
        digest = hashlib.sha256(store.ids.digest.encode() if store.ids else b"")
        for name in store.layers:
            digest.update(name.encode() + view.read(name).tobytes())
        return digest.hexdigest()
    finally:
        store.close()


def trained(path: Path) -> str:
    """A digest of an encoder's weights and learning curve; of a log, its steps; of a plot, nothing but its kind."""
    if path.suffix == ".jsonl":
        return str([json.loads(line)["step"] for line in path.read_text("utf-8").splitlines()])
    if path.suffix == ".svg":
        return drawn(path)
    found = encoders.load(path)
    assert found.training["finished"]
    return encoders.weights_digest(found.encoder.state_dict()) + str(found.training["loss_curve"])


def drawn(path: Path) -> str:
    """The kind of a plot that is whole."""
    content = path.read_bytes()
    whole = content.endswith(b"</svg>\n") or content.endswith(b"IEND\xaeB`\x82")
    assert whole, path
    return path.suffix


def results(path: Path) -> str:
    """A table as it stands."""
    if path.suffix == ".json":
        return str({**json.loads(path.read_text("utf-8")), "argv": None, "date": None, "notes": None})
    return drawn(path) if path.suffix in {".png", ".svg"} else path.read_text("utf-8")


STORES = tuple(f"{name}.h5" for name in ("en", "ar", "zh", "ru"))
COMMANDS = [
    Command(
        ("extract", "--model", "nets.py:network", "--arrays", "x.npy", "--batch-size", "2", "--memory", "240", "-o", "o.h5"),
        ("o.h5",), rows_of, resumes=True,
    ),
    Command(("extract", "--from", "acts.npz", "-o", "o.h5"), ("o.h5",), rows_of, resumes=True),
    Command(
        ("train", "en.h5", "ar.h5", "--task", "pairs", *SMALL, "--save-every", "5", "--log", "l.jsonl", "--plot", "e.svg",
         "-o", "e.pt"), ("e.pt", "e.svg"), trained, resumes=True,
    ),
    Command(("train", *STORES[:3], "--task", "layers", *SMALL, "-o", "e.pt"), ("e.pt",), trained, resumes=True),
    Command(("score", *STORES[:2], "--encoder", "enc.pt", "-o", "o.tsv", "--plot", "o.png"), ("o.tsv", "o.png"), results),
    Command(("baseline", *STORES[:2], "--measure", "cka", "--measure", "pwcca", "-o", "o.json"), ("o.json",), results),
    Command(("bench", "layers", *STORES, "--encoder", "enc.pt", "--output", "o.csv", "--plot", "o.svg"),
            ("o.csv", "o.svg"), results),
    Command(("bench", "multilingual", *STORES[:2], "--measure", "cka", "--negatives", "faiss", "--output", "o.tsv"),
            ("o.tsv",), results),
]  # fmt: skip

ONE_OF_EACH = [COMMANDS[k] for k in (0, 3, 4, 5, 6)]


def furnish(folder: Path) -> Path:
    """Write what the commands read."""
    folder.mkdir(exist_ok=True)
    for name, layers in zip(STORES, made.related(4, 3, 50, (10,)), strict=True):
        made.store(folder / name, layers)
    made.encoder_file(folder / "enc.pt", widths=(10,))
    (folder / "nets.py").write_text(NETWORK, encoding="utf-8")
    np.save(folder / "x.npy", values(40, 5))
    np.savez(folder / "acts.npz", layer_0=values(300, 40), layer_1=values(300, 30, seed=1))
    return folder


def clear(folder: Path, inputs: Path) -> None:
    """Put a folder back to the inputs."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(inputs, folder)
