"""What several ranks find is what one finds: retrieval, encoders and replicates, which are cut without a sum."""

import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from pages import data_of
from ranks import program, run
from stores import write

ROWS = 53


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three views of one set of rows, with three layers each."""
    folder, draw = tmp_path_factory.mktemp("views"), np.random.default_rng(0)
    shared = draw.normal(size=(ROWS, 8))
    return [
        write(
            folder / f"{name}.h5",
            {
                f"l{k}": shared @ draw.normal(size=(8, 8)) + (k + 1) * 0.5 * draw.normal(size=(ROWS, 8))
                for k in range(3)
            },
        )
        for name in ("ar", "en", "ru")
    ]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of two layers, with rows for several blocks."""
    folder = tmp_path_factory.mktemp("many")
    return [
        write(folder / f"{name}.h5", layers) for name, layers in zip("ab", made.related(2, 2, 400, (8,)), strict=True)
    ]


def both(world: int, *arguments: object) -> tuple[str, str]:
    """What one process and rank 0 of several print; the others print nothing."""
    alone, done = program(*arguments), run(world, *arguments)
    assert (alone.code, [one.code for one in done]) == (0, [0] * world), (alone, done)
    assert all(one.stdout == "" and one.stderr == "" for one in done[1:])
    return alone.stdout, done[0].stdout


def close(one: Any, other: Any, most: float) -> None:
    """Check that numbers agree and everything else is the same."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one.keys() - {"created", "file", "date", "argv"}:
            close(one[name], other[name], most)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            close(a, b, most)
    elif isinstance(one, float) and isinstance(other, float):
        assert other == pytest.approx(one, rel=most, abs=most)
    else:
        assert one == other


@pytest.mark.slow
def test_retrieval_is_shared_by_layers(views: list[Path]) -> None:
    """Among more ranks than there are layers."""
    measures = [word for name in ("cka", "dot", "mutual_knn") for word in ("--measure", name)]
    arguments = [
        "bench",
        "multilingual",
        *views,
        *measures,
        "--negatives",
        "faiss",
        "--negatives",
        "random",
        "--format",
        "tsv",
    ]
    alone, ranks = both(5, *arguments)
    assert ranks == alone


@pytest.mark.slow
@pytest.mark.parametrize("with_gpu", [0, 1, None])
def test_all_ranks_work_by_the_library_of_one_process(views: list[Path], with_gpu: int | None) -> None:
    """More than a little, of which machines without a GPU leave more to NumPy: rank 0's machine decides."""
    told = (
        "import os, sys; import contrasim_cli.device as d\n"
        f"d.LITTLE, d.ON_PROCESSOR, d._without_gpu = 1.0, 1e12, lambda: os.environ.get('RANK', '0') != '{with_gpu}'\n"
        "plain = d.pick_device\n"
        "def pick(*asked, **work):\n    found = plain(*asked, **work)\n"
        "    print('by', type(found).__module__, file=sys.stderr)\n    return found\n"
        "d.pick_device = pick\nfrom contrasim_cli.cli import main\nmain()"
    )
    arguments = ["bench", "multilingual", *views, "--measure", "cka", "--negatives", "random", "--format", "tsv"]
    (alone,), ranks = (run(world, *arguments, python=("-c", told)) for world in (1, 2))
    assert (alone.code, [one.code for one in ranks]) == (0, [0, 0]), (alone, ranks)
    assert ranks[0].stdout == alone.stdout
    libraries = {line for one in (alone, *ranks) for line in one.stderr.splitlines() if line.startswith("by ")}
    assert libraries == {"by torch" if with_gpu == 0 else "by contrasim_cli.arrays.array"}


@pytest.mark.slow
def test_one_layer_is_searched_and_compared_together(tmp_path: Path) -> None:
    """Where neighbours come from another store, of which each rank reads a part, and where from wide rows of the store itself."""
    draw = np.random.default_rng(0)
    rows = draw.integers(0, 3, size=(ROWS, 600)) / 1.0  # with many that are equally near
    sides = [
        write(tmp_path / f"{name}.h5", {"l": rows + draw.integers(0, 2, size=rows.shape)}) for name in ("img", "cap")
    ]
    pool = write(
        tmp_path / "pool.h5", {"l": draw.integers(0, 4, size=(3000, 600)) / 1.0}, [f"p{k}" for k in range(3000)]
    )
    measures = ["--measure", "cka", "--measure", "dot", "--measure", "cca", "--batch-size", 4, "--format", "tsv"]
    shared = ["bench", "image-caption", *sides, "--negatives", "faiss", "--negatives", "random", *measures]
    for more in (["--memory", "4M", "--candidates-from", pool], []):
        alone, ranks = both(2, *shared, *more)
        assert ranks == alone


@pytest.mark.slow
def test_replicates_are_shared(views: list[Path]) -> None:
    measures = [word for name in ("cka", "dot", "pwcca", "mutual_knn") for word in ("--measure", name)]
    arguments = ["baseline", *views, *measures, "--bootstrap", 21, "--permutations", 20, "--format", "json"]
    alone, ranks = both(2, *arguments)
    close(json.loads(alone), json.loads(ranks), 1e-6)
    shuffled = [row["p_value"] for row in json.loads(ranks)["results"]]
    assert len(set(shuffled)) > 1


@pytest.mark.slow
def test_shuffles_of_rows_on_disk_are_shared(many: list[Path]) -> None:
    """In both runs a process has no room for its rows."""
    measures = [word for name in ("cosine", "norm") for word in ("--measure", name)]
    arguments = ["baseline", *many, *measures, "--permutations", 20, "--bootstrap", 20, "--memory", "64K"]
    alone, ranks = both(2, *arguments, "--format", "json")
    close(json.loads(alone), json.loads(ranks), 1e-9)
    assert "times rolled" in alone


@pytest.mark.slow
def test_encoders_are_shared_and_are_those_of_one_process(views: list[Path], tmp_path: Path) -> None:
    options = ["--seeds", 2, "--epochs", 1, "--negatives", "faiss", "--format", "tsv"]
    train = [word for view in views for word in ("--train", view)]
    alone = program("bench", "multilingual", *views, *train, *options, "--encoder-dir", tmp_path / "alone")
    done = run(2, "bench", "multilingual", *views, *train, *options, "--encoder-dir", tmp_path / "ranks")
    assert (alone.code, [one.code for one in done]) == (0, [0, 0]), (alone, done)
    assert done[0].stdout == alone.stdout
    files = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "ranks").iterdir())
    assert len([name for name in files if name.endswith(".pt")]) == 6
    again = run(2, "bench", "multilingual", *views, *train, *options, "--encoder-dir", tmp_path / "ranks")
    assert again[0].stdout == alone.stdout
    assert "training" not in again[0].stderr


@pytest.mark.slow
def test_one_process_writes_what_is_asked_for_besides_results(views: list[Path], tmp_path: Path) -> None:
    outputs = {"--trials": "t.json", "--plot-pairs": "p.png", "-o": "o.tsv"}
    asked = [word for option, name in outputs.items() for word in (option, tmp_path / name)]
    arguments = ["bench", "multilingual", *views, "--measure", "cka", *asked]
    for code, more in ((0, []), (5, []), (0, ["--force"])):
        done = run(2, *arguments, *more)
        assert [one.code for one in done] == [code, code], done
        assert done[0].stderr.count("error") == (1 if code else 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(outputs.values())
    done = run(2, "score", *views[:2], "--plot-rows", tmp_path / "r.png")
    assert [one.code for one in done] == [0, 0], done
    assert (tmp_path / "r.png").stat().st_size > 1000


@pytest.mark.slow
def test_one_process_writes_the_page(many: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "r.html"
    for code in (0, 5):
        done = run(2, "baseline", *many, "--measure", "cka", "--measure", "norm", "--report", page)
        assert [one.code for one in done] == [code, code], done
        assert done[0].stderr.count("error") == (1 if code else 0)
    found = data_of(page.read_text())
    assert program("baseline", *many, "--measure", "cka", "--measure", "norm", "--report", page, "--force").code == 0
    close(data_of(page.read_text()), found, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["score", "bench"])
def test_grids_of_commands_are_shared(many: list[Path], tmp_path: Path, command: str) -> None:
    arguments = {
        "score": ["score", *many, "--standardize", "zscore", "--encoder", tmp_path / "enc.pt"],
        "bench": ["bench", "layers", *many, "--measure", "cka", "--measure", "pwcca", "--measure", "norm"],
    }
    made.encoder_file(tmp_path / "enc.pt", widths=(8,))
    alone, ranks = both(2, *arguments[command], "--format", "json")
    close(json.loads(alone), json.loads(ranks), 1e-6)


@pytest.mark.slow
def test_the_same_ranks_write_the_same_bytes(many: list[Path], tmp_path: Path) -> None:
    measures = [word for name in ("cka", "gulp", "dot", "rsa") for word in ("--measure", name)]
    for name in ("one", "two"):
        done = run(2, "baseline", *many, *measures, "--memory", "64K", "-o", tmp_path / f"{name}.tsv")
        assert [one.code for one in done] == [0, 0], done
    assert (tmp_path / "one.tsv").read_bytes() == (tmp_path / "two.tsv").read_bytes()
    assert (tmp_path / "one.tsv").read_text().count("\n") == 1 + 4 * 4
