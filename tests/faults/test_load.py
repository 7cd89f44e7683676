"""Many runs at once over stores that are replaced meanwhile, and one run that takes long."""

import itertools
import os
import shutil
import statistics
import threading
import time
from pathlib import Path

import made
import pytest
from faults.conftest import Figures
from faults.warm import Warm
from stores import write

from contrasim_cli.benchmarks.retrieval import BYTES_PER_TRIAL

PARALLEL = 4
PAUSE = 0.02  # seconds between two replacements
GROWTH = 32 << 20  # bytes by which a long run may grow, which are those of an allocator


def versions(folder: Path) -> dict[str, list[Path]]:
    """Two whole versions of each of two stores, of different ids' content."""
    folder.mkdir()
    found: dict[str, list[Path]] = {"en.h5": [], "ar.h5": []}
    for seed in range(2):
        for name, layers in zip(found, made.related(2, 2, 400, (10,), seed=seed), strict=True):
            found[name].append(write(folder / f"{seed}_{name}", layers))
    return found


def replace_for_ever(folder: Path, stores: dict[str, list[Path]], stopped: threading.Event) -> None:
    """Put one version in the place of the other, as a writer does: a whole file, by rename."""
    for name, version in itertools.cycle(itertools.product(stores, range(2))):
        if stopped.is_set():
            return
        shutil.copy(stores[name][version], folder / ".next")
        os.replace(folder / ".next", folder / name)
        time.sleep(PAUSE)


@pytest.mark.slow
def test_scores_of_stores_that_are_replaced(warm: Warm, tmp_path: Path, long: bool, figures: Figures) -> None:
    """Each belongs to one version of each store."""
    folder, stores = tmp_path / "work", versions(tmp_path / "versions")
    folder.mkdir()
    made.encoder_file(folder / "enc.pt", widths=(10,))
    line = ("score", "en.h5", "ar.h5", "--encoder", "enc.pt", "--layers", "-1", "--format", "value")
    possible = set()
    for pair in itertools.product(range(2), repeat=2):
        for name, version in zip(stores, pair, strict=True):
            shutil.copy(stores[name][version], folder / name)
        possible.add(warm.run(*line, cwd=folder).stdout)
    assert len(possible) == 4
    assert "" not in possible
    stopped = threading.Event()
    replacing = threading.Thread(target=replace_for_ever, args=(folder, stores, stopped))
    replacing.start()
    seen, calls = set(), 2000 if long else 24
    try:
        for _ in range(calls // PARALLEL):
            running = [warm.start(*line, "-o", f"o{k}.tsv", "--force", cwd=folder) for k in range(PARALLEL)]
            for process in running:
                ended = process.wait()
                figures.add("scores of stores that are replaced", int(ended.code == 0))
                figures.add("scores refused", int(ended.code != 0))
                if ended.code:
                    ended.refused(3)
                else:
                    assert ended.stdout in possible
                    seen.add(ended.stdout)
    finally:
        stopped.set()
        replacing.join()
    assert len(seen) > 1  # or nothing was replaced
    assert {path.name for path in folder.iterdir()} - {".next"} == {
        *stores,
        "enc.pt",
        *(f"o{k}.tsv" for k in range(PARALLEL)),
    }


@pytest.mark.parametrize("kind", ["multilingual", "layers"])
def test_a_long_bench_does_not_grow(warm: Warm, tmp_path: Path, long: bool, figures: Figures, kind: str) -> None:
    if not long:
        pytest.skip("a run of a second tells no growth from warming up; --faults=long")
    count, depth = (20, 8) if kind == "layers" else (6, 20)  # layers, or encoders, are gone through one after another
    names, encoders = [f"{k}.h5" for k in range(count)], [f"{k}.pt" for k in range(8)]
    for name, layers in zip(names, made.related(count, depth, 4000, (32,)), strict=True):
        made.store(tmp_path / name, layers)
    for seed, name in enumerate(encoders):
        made.encoder_file(tmp_path / name, widths=(32,), seed=seed)
    more = ["--negatives", "faiss", "--negatives", "random"] if kind == "multilingual" else ["--pairs", "all"]
    judges = [word for name in encoders for word in ("--encoder", name)]
    process = warm.start("bench", kind, *names, *judges, *more, "--memory", "200M", "-q", cwd=tmp_path)
    sizes: list[int] = []
    status = Path(f"/proc/{process.pid}/statm")
    while (size := int(status.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")) > 0:  # 0: it has ended
        sizes.append(size)
        time.sleep(0.02)
    ended = process.wait()
    assert ended.code == 0, ended
    quarter = len(sizes) // 4
    early, late = sizes[quarter : 2 * quarter], sizes[3 * quarter :]
    assert len(early) > 100
    trials = 30 * depth * (4000 // 8) * len(encoders) * 2 if kind == "multilingual" else 0  # which are kept, of course
    grown = round(statistics.median(late) - statistics.median(early) - BYTES_PER_TRIAL * trials / 2)
    figures.add(f"seconds of bench {kind}", round(ended.seconds))
    figures.add(f"bytes by which bench {kind} grew beside its results", grown)
    assert grown < GROWTH
