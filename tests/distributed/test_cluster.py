"""The job scripts of the guide run as they stand there, by a stand-in for SLURM: on two nodes where this process may make some."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from ranks import free_port, program
from slurm.nodes import nodes

from contrasim_cli import encoder
from contrasim_cli.store import open_store

TESTS = Path(__file__).parents[1]
GUIDE = TESTS.parent / "contrasim_cli" / "guide" / "cluster.md"
SCRIPT = re.compile(r"```bash\n(#!/bin/bash\n# (\w+\.sbatch)\n.*?)```", re.DOTALL)
ROWS = 96


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Bench"]:
    """A folder with the scripts of the guide, a model, sentences, and two stores."""
    folder, rng = tmp_path_factory.mktemp("cluster"), np.random.default_rng(0)
    for script, name in SCRIPT.findall(GUIDE.read_text()):
        (folder / name).write_text(script)
    tiny.bert(folder / "model")
    lines = [f"{k}\t{text}" for k, text in enumerate(tiny.sentences(ROWS))]
    (folder / "sentences.tsv").write_text("\n".join(["row\ten", *lines]) + "\n")
    shared = rng.normal(size=(ROWS, 6))
    np.savez(folder / "ru.npz", x=shared @ rng.normal(size=(6, 8)))
    np.savez(folder / "en.npz", x=shared @ rng.normal(size=(6, 8)))
    commands = folder / "bin"
    commands.mkdir()
    for name in ("sbatch", "srun", "scontrol"):
        standin = TESTS / "slurm" / "standin.py"
        (commands / name).write_text(f'#!/bin/bash\nexec {sys.executable} {standin} {name} "$@"\n')
        (commands / name).chmod(0o755)
    with nodes(folder) as found:
        yield Bench(folder, [node.name for node in found], [node.prefix for node in found])


class Bench:
    """Where jobs are submitted."""

    def __init__(self, folder: Path, names: list[str], prefixes: list[str]) -> None:
        self.folder = folder
        self.env = os.environ | {
            "PATH": os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "STANDIN": str(folder),
            "STANDIN_NAMES": " ".join(names),
            "STANDIN_NODES": "\n".join(prefixes),
            "MODEL": str(folder / "model"),
            "OMP_NUM_THREADS": "1",
        }

    def submit(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a job to its end."""
        env = {"PORT": str(free_port()), **env}
        return subprocess.run(
            ["sbatch", *words],
            cwd=self.folder,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )


def test_the_guide_has_three_scripts_without_mistakes_of_the_shell() -> None:
    scripts = SCRIPT.findall(GUIDE.read_text())
    assert [name for _, name in scripts] == ["extract.sbatch", "baseline.sbatch", "train.sbatch"]
    for script, _ in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.slow
def test_an_array_of_jobs_writes_a_sharded_store(bench: Bench) -> None:
    script = (bench.folder / "extract.sbatch").read_text()
    (bench.folder / "small.sbatch").write_text(
        script.replace("--resume", "--resume --memory 8K")
    )  # by which blocks are small
    job = ["--array", "0-1", "small.sbatch"]
    done = bench.submit(*job)
    assert done.returncode == 0, done.stderr
    store, folder = open_store(bench.folder / "en.acts"), bench.folder / "en.acts"
    assert (store.n_rows, len(list(folder.glob("part-*.h5")))) == (ROWS, 2)
    (folder / "part-00001-of-00002.h5").unlink()
    again = bench.submit(*job)
    assert again.returncode == 0, again.stderr
    assert open_store(bench.folder / "en.acts").n_rows == ROWS


@pytest.fixture
def stores(bench: Bench) -> None:
    """Stores en.acts and ru.acts, each in two parts."""
    for name in ("en", "ru"):
        shutil.rmtree(bench.folder / f"{name}.acts", ignore_errors=True)
        made = program(
            "extract",
            "--from",
            bench.folder / f"{name}.npz",
            "--parts",
            2,
            "-o",
            bench.folder / f"{name}.acts",
        )
        assert made.code == 0, made


@pytest.mark.slow
@pytest.mark.usefixtures("stores")
def test_two_nodes_compare(bench: Bench) -> None:
    done = bench.submit("baseline.sbatch")
    assert done.returncode == 0, done.stderr
    alone = program(
        "baseline", bench.folder / "en.acts", bench.folder / "ru.acts", "--measure", "cka", "--measure", "cka_debiased"
    )
    rows = [
        [line.split("\t") for line in text.splitlines()]
        for text in ((bench.folder / "cka.tsv").read_text(), alone.stdout)
    ]
    assert len(rows[0]) == 3
    assert [row[:5] for row in rows[0]] == [row[:5] for row in rows[1]]
    for mine, expected in zip(rows[0][1:], rows[1][1:], strict=True):
        assert float(mine[5]) == pytest.approx(float(expected[5]), rel=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("stores")
def test_training_that_is_preempted_goes_on(bench: Bench) -> None:
    script = bench.folder / "train.sbatch"
    few = script.read_text().replace(
        "--save-every 50", "--save-every 1 --epochs 30 --batch-size 8 --hidden 8 --dim 4 --recipe paper"
    )
    (bench.folder / "small.sbatch").write_text(few)
    done = bench.submit("small.sbatch", STANDIN_PREEMPT=str(bench.folder / "enc.pt.partial"))
    assert done.returncode == 0, done.stderr
    assert (bench.folder / "preempted").exists()
    assert done.stderr.count("the state is saved, --resume goes on") == 1
    assert done.stderr.count("continuing in epoch") == 1
    training = encoder.load(bench.folder / "enc.pt").training
    assert training["finished"]
    assert len(training["loss_curve"]) == 30
    assert not list(bench.folder.glob("enc.pt.*"))


@pytest.mark.slow
def test_a_script_with_a_mistake_fails(bench: Bench) -> None:
    """So that the stand-in does not run whatever it is given."""
    (bench.folder / "wrong.sbatch").write_text("#!/bin/bash\n#SBATCH --ntask=2 --time=00:10:00\ntrue\n")
    done = bench.submit("wrong.sbatch")
    assert done.returncode != 0
    assert "unrecognized arguments: --ntask=2" in done.stderr
