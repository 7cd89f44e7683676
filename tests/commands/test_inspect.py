"""`contrasim inspect`."""

import json
import os
import zipfile
from pathlib import Path

import made
import numpy as np
import pytest
from helpers import run
from stores import names, values, write, write_by_hand

from contrasim_cli import encoder

HEADER = "store\tlayer\trows\twidth\tdtype\tnan\tinf\tconstant_columns\tmean_cosine\twidest_share\teffective_rank\n"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A store with bad values."""
    matrix = values(20, 4)
    matrix[:, 0] = 1
    matrix[3:5, 1] = np.nan
    matrix[19, 3] = np.inf
    return write_by_hand(
        tmp_path / "bad.h5", {"second": values(20, 2).astype("f2"), "first": matrix}, names(20), model="m"
    )


def test_tables_leave_out_what_was_not_counted(bad: Path) -> None:
    shown = [run("inspect", bad, *more, "--format", "table").stdout.splitlines()[1] for more in ([], ["--no-scan"])]
    heads = [[head.strip(" ┃") for head in line.split("┃") if head.strip(" ┃")] for line in shown]
    assert (len(heads[0]), heads[1]) == (11, ["store", "layer", "rows", "width", "dtype"])


def test_counts_in_tsv(bad: Path) -> None:
    code, out, err = run("inspect", bad)
    assert (code, err) == (0, "")
    assert out.startswith(HEADER + "bad\tsecond\t20\t2\tfloat16\t0\t0\t0\t")
    assert out.splitlines()[2].split("\t")[:8] == ["bad", "first", "20", "4", "float32", "2", "1", "1"]
    assert [len(value.partition(".")[2]) <= 4 for value in out.splitlines()[2].split("\t")[8:]] == [True] * 3
    assert run("inspect", bad, "--no-scan").stdout == (
        HEADER + "bad\tsecond\t20\t2\tfloat16\t\t\t\t\t\t\nbad\tfirst\t20\t4\tfloat32\t\t\t\t\t\t\n"
    )


def test_json_says_where_a_store_comes_from(bad: Path) -> None:
    code, out, _ = run("inspect", bad, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["schema_version"] == 1
    assert found["inputs"] == [str(bad)]
    assert found["results"][1] == {
        "store": "bad", "layer": "first", "rows": 20, "width": 4, "dtype": "float32", "nan": 2, "inf": 1,
        "constant_columns": 1, "mean_cosine": 0.272, "widest_share": 1.0, "effective_rank": 2.8547,
    }  # fmt: skip
    about = found["stores"]["bad"]
    assert (about["kind"], about["ids"], about["model"]) == ("contrasim store", "given", "m")


def test_a_table_shows_layers_and_facts(bad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    out = run("inspect", bad, "--format", "table").stdout
    for word in ("second", "float16", "contrasim store", "given", "model"):
        assert word in out


def test_an_output_file_holds_the_same(bad: Path, tmp_path: Path) -> None:
    shown = run("inspect", bad, "-o", tmp_path / "a.tsv").stdout
    assert (tmp_path / "a.tsv").read_text() == shown
    again = run("inspect", bad, "-o", tmp_path / "a.tsv")
    assert again == (5, "", f"contrasim: error: {tmp_path / 'a.tsv'}: already exists; give --force to replace it\n")


def test_files_that_do_not_line_up_are_reported_all_the_same(tmp_path: Path) -> None:
    a = write(tmp_path / "a.h5", {"x": values(4)})
    b = write(tmp_path / "b.h5", {"x": values(4)}, ["row 0", "row 2", "row 1", "row 3"])
    code, out, err = run("inspect", a, b)
    assert code == 4
    assert out == HEADER + "".join(f"{name}\tx\t4\t3\tfloat32\t0\t0\t0\t-0.1508\t1.0\t1.6158\n" for name in "ab")
    assert err == (
        f"contrasim: error: {b}: ids differ from those of {a} (4 and 4 rows, 4 ids in common); the first difference is in "
        "row 1: row 2 instead of row 1; give --align ids to compare the common rows\n"
    )
    assert run("inspect", a, b, "--align", "ids").code == 0
    assert run("inspect", a, b, "--align", "position", "-q") == (0, out, "")


def test_duplicate_ids_are_reported_too(tmp_path: Path) -> None:
    a = write(tmp_path / "a.h5", {"x": values(2)}, ["p", "p"])
    code, out, err = run("inspect", a)
    assert (code, out.count("\n")) == (3, 2)
    assert err == f"contrasim: error: {a}: id p occurs twice, in rows 0 and 1; ids must be unique\n"


def test_a_note_says_that_lining_up_is_assumed(tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", values(4))
    code, _, err = run("inspect", tmp_path / "a.npy", tmp_path / "b.npy")
    assert code == 0
    assert err == (
        f"contrasim: note: rows are matched by position: {tmp_path / 'a.npy'} has no ids, so that nothing shows whether its "
        "rows line up\n"
    )


def test_an_encoder_tells_how_it_was_trained(tmp_path: Path) -> None:
    """Everything that repeats or judges a run: options, place, data by digest, every epoch."""
    stores = [
        made.store(tmp_path / f"{name}.h5", x) for name, x in zip("ab", made.related(2, 2, 40, (6,)), strict=True)
    ]
    options = ["--task", "pairs", "--recipe", "paper", "--hidden", "4", "--batch-size", "16", "--validation", "0.2"]
    output = tmp_path / "e.pt"
    assert run("train", *stores, *options, "--epochs", "3", "-o", output)[0] == 0
    facts = dict(line.split("\t")[1:] for line in run("inspect", output)[1].splitlines()[1:])
    saved = encoder.load(output)
    assert set(vars(saved.config)) <= set(facts)
    assert (facts["finished"], facts["epochs_done"], facts["steps_of_the_epoch_done"]) == ("True", "3", "0")
    for store in saved.provenance["stores"]:
        assert facts[f"trained on {store['name']}"] == "40 rows, layers layer_0 layer_1"
        assert facts[f"digests of {store['name']}"] == f"content {store['content']}, ids {store['ids']}"
        assert store["content"]
        assert store["ids"]
    losses = saved.training["validation_loss_curve"]
    assert facts["epoch of least validation loss"] == str(1 + losses.index(min(losses)))
    for k in range(3):
        words = [f"{name} {saved.training[name + '_curve'][k]:.6g}" for name in ("loss", "validation_loss")]
        assert facts[f"epoch {k + 1}"].startswith(", ".join(words))


def test_an_encoder(tmp_path: Path) -> None:
    path = made.encoder_file(tmp_path / "enc.pt", widths=(3, 5))
    code, out, err = run("inspect", path)
    assert (code, err) == (0, "")
    assert out.startswith("file\tname\tvalue\n")
    assert f"{path}\twidths\t3 5\n" in out
    assert f"{path}\tobjective\tcontrasim\n" in out
    code, _, err = run("inspect", path, path)
    assert code == 3
    remedy = "give it to contrasim score or bench as --encoder"
    assert err == f"contrasim: error: {path}: is an encoder, not a store of activations; {remedy}\n"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fifo = run("inspect", tmp_path / "fifo")
    assert fifo == (3, "", f"contrasim: error: {tmp_path / 'fifo'}: cannot be read: it is not a regular file\n")
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"contrasim-encoder")
    assert run("inspect", tmp_path / "a.pt").code == 3


def test_one_score_there_is_not(bad: Path) -> None:
    assert run("inspect", bad, "--format", "value") == (
        2, "", "contrasim: error: --format value prints one score; inspect has none\n",
    )  # fmt: skip


def test_damage_is_one_line(tmp_path: Path) -> None:
    matrix = values(20)
    path = write(tmp_path / "a.h5", {"x": matrix})
    whole = bytearray(path.read_bytes())
    whole[whole.find(matrix.tobytes()) + 7] ^= 1
    path.write_bytes(whole)
    code, out, err = run("inspect", path)
    assert (code, out) == (3, "")
    assert err.startswith(f"contrasim: error: {path}: layer x: rows 0 to 19 cannot be read (")
    assert err.count("\n") == 1
    assert run("inspect", path, "--no-scan").code == 0


def test_no_file_stays_open(bad: Path) -> None:
    run("inspect", bad)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run("inspect", bad, bad)
    assert len(os.listdir("/proc/self/fd")) == before
