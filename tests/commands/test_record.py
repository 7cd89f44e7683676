"""Results say what is needed to find them again: the command line, the date, and digests of what was read."""

import hashlib
import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import made
import pytest
from helpers import run

from contrasim_cli.commands import record
from contrasim_cli.stacking import universal


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    return [made.store(tmp_path / f"{k}.h5", x) for k, x in enumerate(made.related(2, 2, 20, (5,)))]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_json_holds_what_is_needed_to_run_it_again(stores: list[Path], tmp_path: Path) -> None:
    arguments = ["baseline", *map(str, stores), "--seed", "3", "-o", str(tmp_path / "o.json")]
    assert run(*arguments).code == 0
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["argv"] == ["contrasim", *arguments]
    now = datetime.now(timezone.utc)
    assert now - timedelta(minutes=5) < datetime.fromisoformat(content["date"]) <= now
    assert content["digests"] == {str(path): sha256(path) for path in stores}
    assert set(content["versions"]) == {"contrasim", "torch", "numpy", "python"}
    (tmp_path / "o.json").unlink()
    again = run(*content["argv"][1:])
    assert again.code == 0
    assert json.loads((tmp_path / "o.json").read_text())["results"] == content["results"]


@pytest.mark.parametrize("command", ["score", "layers", "multilingual"])
def test_encoders_are_digested_too(stores: list[Path], tmp_path: Path, command: str) -> None:
    encoder = made.encoder_file(tmp_path / "e.pt", widths=(5,))
    words = [command] if command == "score" else ["bench", command]
    done = run(*words, *stores, "--encoder", encoder, "--format", "json")
    wanted = {str(path): sha256(path) for path in [*stores, encoder]}
    found = json.loads(done.stdout)["digests"]
    assert {name: digest for name, digest in found.items() if name != "universal"} == wanted
    if command == "layers":
        assert found["universal"] == sha256(universal.FILE)


def test_files_are_read_once_more_only_where_a_digest_is_written(
    stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digested: list[Any] = []
    monkeypatch.setattr(record, "_digest", lambda path: digested.append(path) or "0")
    assert run("baseline", *stores, "-o", tmp_path / "o.tsv").code == 0
    assert digested == []
    assert run("baseline", *stores, "-o", tmp_path / "o.json").code == 0
    assert digested == stores


def test_of_a_file_too_large_no_digest_is_known(stores: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "DIGESTED", 100)
    done = run("baseline", *stores, "--format", "json")
    assert json.loads(done.stdout)["digests"] == dict.fromkeys(map(str, stores))


def test_what_others_wrote_of_their_stores_is_json(stores: list[Path], tmp_path: Path) -> None:
    import h5py

    with h5py.File(stores[0], "a") as file:
        file.attrs["model"] = "a </script> model"
        file["provenance"] = '{"loss": NaN, "lr": [1e-3, Infinity], "name": "x"}'
    done = run("baseline", *stores, "--format", "json", "--report", tmp_path / "r.html")
    assert done.code == 0
    source = json.loads(done.stdout, parse_constant=pytest.fail)["sources"][str(stores[0])]
    assert source["model"] == "a </script> model"
    assert source["provenance"] in ({}, {"loss": None, "lr": [1e-3, None], "name": "x"})
    assert "a &lt;/script&gt; model" in (tmp_path / "r.html").read_text()


def test_parquet_holds_the_same(stores: list[Path], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run("baseline", *stores, "-o", tmp_path / "o.parquet").code == 0
    table = parquet.read_table(tmp_path / "o.parquet")
    about = json.loads(table.schema.metadata[b"contrasim"])
    content = json.loads(run("baseline", *stores, "--format", "json").stdout)
    assert table.to_pylist() == content["results"]
    assert about["digests"] == content["digests"]
    assert run("baseline", *stores, "-o", tmp_path / "o.parquet").code == 5


def test_parquet_needs_its_extra(stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = run("baseline", *stores, "-o", tmp_path / "o.parquet")
    assert (done.code, done.stdout) == (6, "")
    path = tmp_path / "o.parquet"
    wanted = f"contrasim: error: --output {path} needs the extra table: pip install 'contrasim[table]'\n"
    assert done.stderr == wanted
