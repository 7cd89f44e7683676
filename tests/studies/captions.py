"""Learned similarity of pairs against every untrained way, layer by layer: sentences told in several ways, few rows and many.

Run: python tests/studies/captions.py --model DIR_OF_A_BERT --text FILE --own-text FILE [--folder captions_study]
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
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from small_bert import train_bert
from text_views import NEW, VIEWS, near_words, run, sentences

from contrasim_cli import encoder as encoders
from contrasim_cli.encoder import Checkpoint, Config
from contrasim_cli.store import View, open_store
from contrasim_cli.training.hard_negatives import nearest
from contrasim_cli.transforms import Standardization, Standardizer

POOL, TEST_ROWS, DISTRACT, BATCH = 4000, 800, 0.15, 8
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
        for pool, blocks in rows.items():
            blocks.append(pooled[pool].numpy())
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


class Judge:
    """The trials of `bench multilingual --negatives faiss` over every ordered pair of the test views."""

    def __init__(self, folder: Path) -> None:
        self.views = [View(open_store(folder / "test" / f"{name}.h5")) for name in NEW]
        self.layers = list(self.views[0].store.layers)
        self.standardizer = Standardizer(self.views)
        self.raw = {(v, name): view.read(name) for v, view in enumerate(self.views) for name in self.layers}
        self.near = {key: nearest((rows - rows.mean(axis=0)).astype(np.float64)) for key, rows in self.raw.items()}

    def outcomes(self, how: Standardization, checkpoint: Checkpoint | None = None) -> np.ndarray:
        """The part of the pairs for which each batch was right [layers, batches]."""
        return np.stack([self._layer(name, how, checkpoint) for name in self.layers])

    def _layer(self, name: str, how: Standardization, checkpoint: Checkpoint | None) -> np.ndarray:
        unit = []
        for v in range(len(self.views)):
            rows = self.standardizer.transform(v, name, how)(self.raw[v, name])
            rows = (
                torch.from_numpy(rows) if checkpoint is None else checkpoint.encode(rows, 0, name, torch.device("cpu"))
            )
            unit.append(torch.nn.functional.normalize(rows.double(), dim=-1))
        found = []
        for i, j in itertools.permutations(range(len(unit)), 2):
            own = (unit[i] * unit[j]).sum(dim=1, keepdim=True)
            others = torch.einsum("rd,rkd->rk", unit[i], unit[j][self.near[j, name]])
            margins = (own - others)[: len(own) // BATCH * BATCH].view(-1, BATCH, others.shape[1]).mean(dim=1)
            found.append((margins > 1e-6).all(dim=1).double())
        return torch.stack(found).mean(dim=0).numpy()


def untrained(judge: Judge) -> dict[str, np.ndarray]:
    """Outcomes by cosine, rows standardised in every way."""
    ways = {way: Standardization(way.split()[0], float(way.split()[-1]) if " " in way else 0.01) for way in WAYS}
    return {name: judge.outcomes(way) for name, way in ways.items()}


def learned(folder: Path, rows: int, seed: int) -> Checkpoint:
    """An encoder that learned from some of the rows, which ones the seed says; one that is there already is taken."""
    encoder = folder / "trained" / f"{rows}_{seed}.pt"
    if not encoder.exists():
        encoder.parent.mkdir(exist_ok=True)
        chosen = np.sort(np.random.default_rng(seed).choice(POOL, rows, replace=False))
        stores = [encoder.with_name(f"{name}_{rows}_{seed}.h5") for name in TRAINED]
        for name, store in zip(TRAINED, stores, strict=True):
            with h5py.File(folder / "train" / f"{name}.h5") as file:
                write_store(store, np.stack([layer[:][chosen] for layer in file.values()]))
        run("train", *stores, "--task", "pairs", "--seed", seed, "-o", encoder)
        for store in stores:
            store.unlink()
    return encoders.load(encoder)


def table(name: str, folder: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of the table, one per number of rows and layer."""
    judge = Judge(folder)
    ways = untrained(judge)
    for rows in arguments.rows:
        trained = [learned(folder, rows, seed) for seed in range(arguments.seeds)]
        seeds = np.stack([judge.outcomes(one.standardization, one) for one in trained])
        chosen = [ways_of(one.config) for one in trained]
        for k in range(seeds.shape[1]):
            best = max(ways, key=lambda way: ways[way][k].mean())
            low, high = interval(seeds[:, k], ways[best][k])
            mean = 100 * seeds[:, k].mean()
            apart = mean - 100 * ways[best][k].mean()
            each = " ".join(f"{100 * way[k].mean():.2f}" for way in ways.values())
            verdict = "below" if high < 0 else "above" if low > 0 else "level"
            picked = ", ".join(dict.fromkeys(layers[k] for layers in chosen))
            cells = [
                name,
                rows,
                k + 1,
                f"{mean:.2f}",
                each,
                best,
                f"{apart:+.2f}",
                f"{low:+.2f} to {high:+.2f}",
                verdict,
            ]
            yield "| " + " | ".join(map(str, [*cells, picked])) + " |"


def ways_of(config: Config) -> list[str]:
    """The standardisation and step of each layer."""
    if not config.by_layer:
        return [config.standardization.text] * 99
    return [f"{kind} {shrinkage:g} step {step:g}" for _, kind, shrinkage, step in config.by_layer]


def interval(seeds: np.ndarray, way: np.ndarray) -> tuple[float, float]:
    """95 % interval, in points, of the mean difference of seeds [seeds, batches] to a way [batches]: both are resampled."""
    rng = np.random.default_rng(0)
    apart = 100 * (seeds - way)
    drawn = rng.integers(len(way), size=(DRAWS, len(way)))
    which = rng.integers(len(seeds), size=(DRAWS, len(seeds)))
    means = np.stack([apart[which[d]].mean(axis=0)[drawn[d]].mean() for d in range(DRAWS)])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a BERT in a folder, with vocab.txt")
    parser.add_argument("--text", type=Path, required=True, help="sentences that end in full stops")
    parser.add_argument("--own-text", type=Path, required=True, help="what the small BERT is trained on")
    parser.add_argument("--folder", type=Path, default=Path("captions_study"))
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 500, 1000, 4000])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="names of studies, such as 'own cls'")
    arguments = parser.parse_args()
    print(f"| rows of | trained on | layer | learned | {', '.join(WAYS)} | best | difference | 95 % | | chosen |")
    print("|---" * 10 + "|", flush=True)
    for name, folder in activations(arguments):
        if not arguments.only or name in arguments.only:
            for line in table(name, folder, arguments):
                print(line, flush=True)


if __name__ == "__main__":
    main()
