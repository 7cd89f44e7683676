"""Trained on all models of a zoo: does `train --task layers` find the same layer on other rows, and on another data set?

Run: python tests/studies/domains.py --zoos FOLDER [--zoo NAME …] [--rows 1500] [--recipe default paper] [--seeds 3]

The paper's protocol, on the zoos that `zoos.py` makes, in both directions: encoders are trained on rows of one data set, and
tested on other rows of it (in domain) and on the other data set. Every ordered pair of models, %, over all trials and encoders.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import h5py

from contrasim_cli.cli import main as contrasim


def cut(source: Path, target: Path, rows: slice) -> Path:
    """Some rows of a store as a store."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as read, h5py.File(target, "w") as written:
        written.attrs.update(
            {name: read.attrs[name] for name in ("format", "format_version", "complete", "model", "data")}
        )
        for name, layer in read["layers"].items():
            written[f"layers/{name}"] = layer[rows]
            written[f"layers/{name}"].attrs["index"] = layer.attrs["index"]
        written.create_dataset("ids", data=read["ids"].asstr()[rows], dtype=h5py.string_dtype())
    return target


def directions(zoo: Path, rows: int, work: Path) -> Iterator[tuple[str, list[Path], list[Path], list[Path]]]:
    """Stores to train on, of other rows, and of another data set: learned data first, then the other."""
    members = sorted(path.name for path in (zoo / "test").glob("s*.h5") if path.stem[1:].isdigit())

    def part(data: str, name: str, which: slice) -> list[Path]:
        return [cut(zoo / data / member, work / name / member, which) for member in members]

    yield (
        "own",
        part("train", "own_train", slice(rows)),
        part("test", "own_test", slice(None)),
        part("other", "far", slice(None)),
    )
    end = min(rows, 1500)
    other_train, other_test = part("other", "other_train", slice(end)), part("other", "other_test", slice(end, None))
    yield "other", other_train, other_test, part("test", "near", slice(None))


def accuracies(
    train: Sequence[Path], tested: Sequence[Sequence[Path]], options: Sequence[str], work: Path
) -> dict[tuple[str, str], float]:
    """By measure and data set, over all pairs."""
    stores = [str(path) for paths in tested for path in paths]
    trains = [word for path in train for word in ("--train", str(path))]
    command = [
        "contrasim",
        "bench",
        "layers",
        *stores,
        *trains,
        "--pairs",
        "all",
        "--measure",
        "cka",
        "--format",
        "json",
        "-q",
    ]
    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [*command, "--encoder-dir", str(work / "encoders"), *options]),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        contrasim()
    rows = json.loads(out.getvalue())["results"]
    return {(r["measure"], r["test_data"]): 100 * r["accuracy"] for r in rows if r["layer"] == r["pair"] == "all"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoos", type=Path, required=True)
    parser.add_argument("--zoo", nargs="+")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--recipe", nargs="+", default=["default", "paper"])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("| zoo | trained on | recipe | own rows | another data set | cka |\n" + "|---" * 6 + "|")
    for zoo in options.zoo or sorted(path.name for path in options.zoos.iterdir()):
        with tempfile.TemporaryDirectory() as folder:
            for name, train, own, far in directions(options.zoos / zoo, options.rows, Path(folder)):
                for recipe in options.recipe:
                    more = ["--recipe", recipe, "--seeds", str(options.seeds)]
                    found = accuracies(train, [own, far], more, Path(folder))
                    kind = next(m for m, _ in found if m not in ("cka", "universal"))
                    here, there = own[0].parent.name, far[0].parent.name
                    print(
                        f"| {zoo} | {name} | {recipe} | {found[kind, here]:.1f} | {found[kind, there]:.1f} | "
                        f"{found['cka', here]:.1f}, {found['cka', there]:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
