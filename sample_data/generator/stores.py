"""From a trained model to a committed store: save the model, run `contrasim extract` on it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .digits import Labelled

ROOT = Path(__file__).resolve().parents[2]


def save_model(model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """`model` as a float16 Hugging Face folder; stores are made from this file, so that they can be made again."""
    model.to(torch.float16).save_pretrained(folder)
    model.to(torch.float32)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def save_images(data: Labelled, stem: Path) -> Path:
    """`stem.npy` (float16: pixels are sixteenths, so nothing is lost) and `stem.txt` with the ids."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    np.save(stem.with_suffix(".npy"), data.images.astype(np.float16))
    stem.with_suffix(".txt").write_text("\n".join(data.ids) + "\n", encoding="utf-8")
    return stem.with_suffix(".npy")


def save_table(columns: dict[str, list[str]], path: Path) -> Path:
    """Columns of text as TSV with a header line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns), *("\t".join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def extract_images(model: Path, images: Path, output: Path, pool: str) -> None:
    """Run `contrasim extract` on an array saved by `save_images`."""
    source = ["--arrays", str(images), "--ids", str(images.with_suffix(".txt")), "--unit-name", "image"]
    _extract(model, output, pool, source)


def extract_texts(model: Path, table: Path, columns: Sequence[str], output: str, pool: str) -> None:
    """Run `contrasim extract` on columns of a table with ids; `output` holds '{column}' if there are several."""
    chosen = [part for column in columns for part in ("--column", column)]
    _extract(model, Path(output), pool, ["--text", str(table), *chosen, "--id-column", "id"])


def _extract(model: Path, output: Path, pool: str, source: list[str]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "contrasim_cli", "extract", "--model", str(model), *source, "--pool", pool]
    # hidden_0 is left out: as the CLS row it is one and the same vector for every input.
    layers = ["--layers", "hidden_[1-9]*"]
    subprocess.run(
        [*command, *layers, "--store-dtype", "float16", "--device", "cpu", "--force", "-q", "-o", str(output)],
        cwd=ROOT,
        check=True,
    )
