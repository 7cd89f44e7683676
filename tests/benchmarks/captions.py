"""Learned similarity of pairs against every untrained way, layer by layer: sentences told in several ways, few rows and many.

Run: python tests/benchmarks/captions.py --model DIR_OF_A_BERT --text FILE --own-text FILE [--folder captions_study]
     [--rows 200 500 1000 4000] [--seeds 5] [--only NAME …]

Two encoders, the BERT given and a small one that is trained here on `--own-text` (small_bert.py), by their [CLS] rows and by the
means of their word pieces. An encoder of pairs learns from two tellings (text_views.py) of some sentences, and is judged by
three tellings and 800 sentences it has not seen: every ordered pair of these, batches of 8 against their nearest neighbours, as
`bench multilingual --negatives faiss` has it. Training and test tellings, text, and the design of the recipe share nothing:
the recipe was settled on other tellings of another text.

A row of the table is a layer: the mean over seeds of the learned accuracy in %, its difference to the best untrained way, which is
picked on the very test rows, and the paired 95 % interval of the difference (bootstrap of batches, over seeds and pairs).
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from small_bert import train_bert
from text_views import NEW, VIEWS, near_words, run, sentences

POOL, TEST_ROWS, DISTRACT = 4000, 800, 0.15
TRAINED = ("plain", "reworded")
WAYS = ("none", "center", "zscore", "whiten 0.6", "whiten 0.1", "whiten 0.01")
DRAWS = 4000


def told(arguments: argparse.Namespace) -> dict[tuple[str, str], list[str]]:
    """Texts by split and telling."""
    rng, near = random.Random(1), near_words(arguments.model)
    rows = sentences(arguments.text)
    rng.shuffle(rows)
    parts = {"train": rows[:POOL], "test": rows[POOL : POOL + TEST_ROWS]}
    found: dict[tuple[str, str], list[str]] = {}
    for split, tellings in (("train", {name: VIEWS[name] for name in TRAINED}), ("test", NEW)):
        for words in parts[split]:
            for name, tell in tellings.items():
                other = [word for word in rng.choice(rows) if rng.random() < DISTRACT]
                both = [tell(words, near, rng), other]
                rng.shuffle(both)
                found.setdefault((split, name), []).append(" ".join(both[0] + both[1]))
    return found


@torch.inference_mode()
def write_activations(model: Path, texts: Sequence[str], paths: dict[str, Path]) -> None:
    """Stores of the [CLS] rows and of the means of all word pieces, by pooling."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    rows: dict[str, list[np.ndarray]] = {pool: [] for pool in paths}
    for start in range(0, len(order), 64):
        part = [texts[k] for k in order[start : start + 64]]
        inputs = tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="pt")
        hidden = torch.stack(network(**inputs, output_hidden_states=True).hidden_states[1:])
        weights = inputs["attention_mask"] / inputs["attention_mask"].sum(dim=1, keepdim=True)
        pooled = {"cls": hidden[:, :, 0], "mean": (hidden * weights[..., None]).sum(dim=2)}
        for pool in rows:
            rows[pool].append(pooled[pool].numpy())
    for pool, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_store(path, np.concatenate(rows[pool], axis=1)[:, np.argsort(order)])


def write_store(path: Path, layers: np.ndarray) -> None:
    """Layers [layers, n, p] as a plain HDF5 file."""
    with h5py.File(path, "w") as file:
        for k, layer in enumerate(layers, 1):
            file[f"hidden_{k}"] = layer.astype(np.float32)


def activations(arguments: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Name and folder of each study, whose stores are `train/plain.h5` and so on; what is there already is taken."""
    small = arguments.folder / "small_bert"
    if not (small / "config.json").exists():
        train_bert(arguments.own_text, small)
    texts = None
    for name, model in (("pretrained", arguments.model), ("own", small)):
        folders = {pool: arguments.folder / f"{name}_{pool}" for pool in ("cls", "mean")}
        for split, telling in [("train", one) for one in TRAINED] + [("test", one) for one in NEW]:
            paths = {pool: folder / split / f"{telling}.h5" for pool, folder in folders.items()}
            if not all(path.exists() for path in paths.values()):
                texts = texts or told(arguments)
                write_activations(model, texts[split, telling], paths)
        yield from ((f"{name} {pool}", folder) for pool, folder in folders.items())
