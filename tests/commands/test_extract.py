import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tiny
import transformers
from helpers import run
from made import encoder_file
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from contrasim_cli.store import align, close_stores, open_store, open_stores

TABLE = "id\ten\tde\n" + "".join(
    f"r{row}\t{en}\t{de}\n"
    for row, (en, de) in enumerate(zip(tiny.sentences(30, 20), tiny.sentences(30, 8, seed=1), strict=True))
)
JSON_LINES = """{"en": 5, "de": "w1"}
{"en": "w1 w2", "de": "w3"}
{"en": "", "de": "w3"}
{"en": "w4", "de": "w5 w6 w7"}
{"en": "w8 w9", "de": "w1"}
"""
SLOW = """
import os
import time
import torch
from torch import nn

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))

    def forward(self, x):
        time.sleep(float(os.environ.get("DELAY", 0)))
        return self.blocks(x)

def slow():
    torch.set_num_threads(1)
    return Slow()
"""


LOUD = """
from torch import nn

class Loud(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Linear(5, 3)

    def forward(self, x):
        print("ran")
        return self.block(x)

def loud():
    print("made")
    return Loud()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tiny.bert(folder / "bert")
    tiny.gpt2(folder / "gpt2")
    tiny.vit(folder / "vit")
    (folder / "s.tsv").write_text(TABLE)
    (folder / "slow_nets.py").write_text(SLOW)
    (folder / "ids.txt").write_text("4\nr3\n")
    (folder / "s.jsonl").write_text(JSON_LINES)
    tiny.image_processor(tiny.vit(folder / "seeing", channels=3))
    for shade in range(5):
        Image.new("RGB", (9, 9), (50 * shade, 9, 9)).save(folder / f"{shade}.png")
    rows = (f"{4 - shade}.png\tw{shade} w1\n" for shade in range(5))
    (folder / "p.tsv").write_text("path\tcaption\n" + "".join(rows))
    np.save(folder / "i.npy", np.random.default_rng(0).random((5, 8, 8)).astype(np.float32))
    np.save(folder / "x.npy", np.random.default_rng(0).random((60, 5)).astype(np.float32))
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def contents(path: str) -> dict[str, Any]:
    with h5py.File(path) as file:
        return {name: file["layers"][name][:] for name in file["layers"]}


@pytest.mark.slow
def test_the_stores_of_two_columns_line_up(tmp_path: Path) -> None:
    given = ("--model", "bert", "--text", "s.tsv", "--pool", "cls", "--store-dtype", "float16")
    result = run("extract", *given, "--column", "en", "--column", "de", "-o", tmp_path / "{column}.h5")
    assert result == (
        0,
        "",
        "contrasim: warning: 14 of 30 texts were longer than 12 tokens and were cut there\n"
        f"contrasim: note: wrote {tmp_path}/en.h5: 3 layers x 30 rows x 16\n"
        f"contrasim: note: wrote {tmp_path}/de.h5: 3 layers x 30 rows x 16\n",
    )
    stores = [open_store(tmp_path / name) for name in ("en.h5", "de.h5")]
    assert [view.n_rows for view in align(stores)] == [30, 30]
    assert {name: stores[0].attrs[name] for name in ("model", "data", "unit", "pooling")} == {
        "model": "bert",
        "data": "s.tsv",
        "unit": "sentence",
        "pooling": "cls",
    }
    assert stores[0].provenance["truncated_rows"] == 14
    assert stores[0].layer("hidden_1").dtype == np.float16


def test_ids_and_names_can_be_given(tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    names = ("--model-name", "tiny", "--data-name", "toy", "--unit-name", "word", "--id-column", "id")
    given = ("--model", "gpt2", "--text", "s.tsv", "--column", "de", "--pool", "last", "--limit", "4", "--layers", "-1")
    assert run("extract", *given, *names, "-o", output).code == 0
    store = open_store(output)
    assert store.ids is not None
    assert store.ids.read(0, 4) == ["r0", "r1", "r2", "r3"]
    assert (store.n_rows, list(store.layers)) == (4, ["hidden_2"])
    assert [store.attrs[name] for name in ("model", "data", "unit")] == ["tiny", "toy", "word"]


def test_images_of_an_array(tmp_path: Path) -> None:
    output = tmp_path / "v.h5"
    result = run("extract", "--model", "vit", "--arrays", "i.npy", "--pool", "patch-mean", "-o", output)
    assert result == (0, "", f"contrasim: note: wrote {output}: 3 layers x 5 rows x 16\n")
    assert open_store(output).attrs["unit"] == "image"


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    output = tmp_path / "m.h5"
    assert run("extract", "--model", "slow_nets.py:slow", "--arrays", "x.npy", "--limit", "3", "-o", output) == (
        0,
        "",
        f"contrasim: note: wrote {output}: 2 layers x 3 rows x 3-4\n",
    )
    assert open_store(output).attrs["model"] == "slow_nets.py:slow"


def test_existing_activations(tmp_path: Path) -> None:
    output = tmp_path / "f.h5"
    assert run("extract", "--from", "x.npy", "-o", output) == (
        0,
        "",
        f"contrasim: note: wrote {output}: 1 layer x 60 rows x 5\n",
    )
    np.testing.assert_array_equal(contents(str(output))["x"], np.load("x.npy"))


def test_layers_can_be_listed() -> None:
    assert run("extract", "--model", "bert", "--text", "s.tsv", "--column", "en", "--list-layers") == (
        0,
        "layer\tshape\nhidden_0\t[rows, 16]\nhidden_1\t[rows, 16]\nhidden_2\t[rows, 16]\n",
        "",
    )


def test_layers_are_listed_without_data() -> None:
    result = run("extract", "--model", "bert", "--list-layers")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith("layer\tshape\nhidden_0\t[rows, 16]\n")
    assert "encoder.layer.1.attention.output\t" in result.stdout
    asked = run("extract", "--model", "slow_nets.py:slow", "--list-layers")
    assert (asked.code, asked.stdout) == (2, "")
    assert "--arrays" in asked.stderr


def test_stores_of_two_columns_score_without_align(tmp_path: Path) -> None:
    given = ("--model", "bert", "--text", "s.jsonl", "--field", "en", "--field", "de", "--skip-bad")
    result = run("extract", *given, "--skip-pattern", "^$", "-o", tmp_path / "{column}.h5", "-q")
    assert result == (0, "", "")
    stores = [tmp_path / name for name in ("en.h5", "de.h5")]
    assert run("score", *stores, "--encoder", encoder_file(tmp_path / "e.pt", widths=(16,)), "-q").code == 0
    scored = run("baseline", *stores, "--layers", "-1", "--format", "value")
    assert scored.code == 0
    assert scored.stderr.startswith(
        "contrasim: warning: cka: 3 rows are fewer than the 16 neurons of layer hidden_2 of "
    )
    assert len(scored.stderr.splitlines()) == 2
    assert "3 rows: too few to distinguish any score" in scored.stderr
    store = open_store(stores[0])
    assert store.ids is not None
    assert store.ids.read(0, 3) == ["1", "3", "4"]


def test_images_and_captions_of_one_table_line_up(tmp_path: Path) -> None:
    images, captions = tmp_path / "i.h5", tmp_path / "c.h5"
    assert run("extract", "--model", "seeing", "--images", "p.tsv", "--image-column", "path", "-o", images).code == 0
    assert run("extract", "--model", "bert", "--text", "p.tsv", "--text-column", "caption", "-o", captions).code == 0
    assert [view.n_rows for view in align([open_store(images), open_store(captions)])] == [5, 5]
    only = tmp_path / "only.txt"
    only.write_text("4\n2\n")
    less = tmp_path / "less.h5"
    given = ("--model", "bert", "--text", "p.tsv", "--column", "caption", "--only-ids", only)
    assert run("extract", *given, "-o", less).code == 0
    assert align([open_store(images), open_store(less)], "ids")[0].n_rows == 2


def test_an_image_that_is_cut_short_is_left_out_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "img"
    folder.mkdir()
    for name in "abc":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:5000])
    given = ("extract", "--model", "seeing", "--images", folder, "-o", tmp_path / "o.h5")
    stopped = run(*given)
    start = f"contrasim: error: {folder}: row b.png: {folder}/b.png: cannot be read as an image ("
    assert (stopped.code, stopped.stdout, stopped.stderr.count("\n")) == (3, "", 1)
    assert stopped.stderr.startswith(start)
    assert stopped.stderr.endswith("; correct it, or leave it out with --skip-bad\n")
    done = run(*given, "--skip-bad", "--resume")
    assert done.code == 0
    assert done.stderr.startswith(f"contrasim: warning: row b.png is left out: {folder}/b.png: cannot be read as")
    store = open_store(tmp_path / "o.h5")
    assert store.ids is not None
    assert store.ids.read(0, 2) == ["a.png", "c.png"]
    assert str(tmp_path) not in str(store.provenance)


def test_words_are_rows(tmp_path: Path) -> None:
    output = tmp_path / "w.h5"
    (tmp_path / "s.txt").write_text("= heading =\nw1 w2\n\nw3\n")
    given = ("--model", "bert", "--text", tmp_path / "s.txt", "--unit", "word", "--skip-pattern", "^=|^$")
    assert run("extract", *given, "-o", output) == (
        0,
        "",
        f"contrasim: note: wrote {output}: 3 layers x 3 rows x 16\n",
    )
    store = open_store(output)
    assert store.ids is not None
    assert store.ids.read(0, 3) == ["1:0", "1:1", "3:0"]
    assert store.attrs["unit"] == "word"


def test_only_some_words_are_rows(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("w1 w2 w3\n\nw3 w1\nw2\n")
    (tmp_path / "only.txt").write_text("0:2\n3\n0:0\n2:1\n")
    given = ("extract", "--model", "bert", "--text", tmp_path / "s.txt", "--unit", "word")
    assert run(*given, "-o", tmp_path / "all.h5", "-q").code == 0
    assert run(*given, "--only-ids", tmp_path / "only.txt", "-o", tmp_path / "some.h5", "-q") == (0, "", "")
    everything, some = (open_store(tmp_path / name) for name in ("all.h5", "some.h5"))
    assert everything.ids is not None
    assert some.ids is not None
    names = everything.ids.read(0, 6)
    assert some.ids.read(0, 4) == ["0:0", "0:2", "2:1", "3:0"]
    assert align([everything, some], "ids")[1].n_rows == 4
    where = [names.index(name) for name in some.ids.read(0, 4)]
    for layer in some.layers:
        np.testing.assert_allclose(some.read(layer, 0, 4), everything.read(layer, 0, 6)[where], atol=1e-5)
    (tmp_path / "only.txt").write_text("0:3\n2:1\n9:0\nx\n")
    assert run(*given, "--only-ids", tmp_path / "only.txt", "-o", tmp_path / "no.h5", "-q") == (
        4,
        "",
        f"contrasim: error: {tmp_path}/only.txt: 3 ids are not in {tmp_path}/s.txt: 0:3, 9:0, x; take them out\n",
    )
    (tmp_path / "only.txt").write_text("0:2\n")
    changed = run(*given, "--only-ids", tmp_path / "only.txt", "-o", tmp_path / "some.h5", "--resume", "-q")
    assert changed.code == 5


def test_some_words_are_those_asked_for_behind_a_bad_row(tmp_path: Path) -> None:
    numbers = {token: number for token, number in tiny.VOCABULARY.items() if token != "w29"}
    words = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_tokens(["w5 w6"])  # one token of two words, which have no rows of their own
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(
        tmp_path / "joined"
    )
    (tmp_path / "s.txt").write_text("w5 w6\nw1 w2 w3\nw3 w1\nw4 w5 w6\n")
    (tmp_path / "only.txt").write_text("0:0\n1:2\n2:1\n3:0\n")
    given = ("--model", "bert", "--tokenizer", tmp_path / "joined", "--unit", "word", "--skip-bad", "-q")
    asked = ("extract", "--text", tmp_path / "s.txt", "--only-ids", tmp_path / "only.txt", "-o", tmp_path / "some.h5")
    assert run(*asked, *given).code == 0
    (tmp_path / "plain.txt").write_text("w1 w2 w3\nw3 w1\n")
    assert run("extract", "--text", tmp_path / "plain.txt", *given, "-o", tmp_path / "all.h5").code == 0
    some, everything = (open_store(tmp_path / name) for name in ("some.h5", "all.h5"))
    assert some.ids is not None
    assert some.ids.read(0, some.n_rows) == ["1:2", "2:1"]
    for layer in some.layers:
        np.testing.assert_allclose(some.read(layer, 0, 2), everything.read(layer, 0, 5)[[2, 4]], atol=1e-5)


def test_texts_that_would_be_cut_can_be_refused(tmp_path: Path) -> None:
    result = run("extract", "--model", "bert", *TEXT, "--limit", "5", "--on-truncate", "error", "-o", tmp_path / "o.h5")
    assert result == (
        3,
        "",
        "contrasim: error: s.tsv: 3 of 5 texts are longer than 12 tokens (rows 0, 1, 3); shorten them, or let them be cut "
        "(--on-truncate warn)\n",
    )


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    assert run("extract", "--model", "bert", *TEXT, "--layers", "-1", "--dry-run", "-o", output) == (
        0,
        f"store\tlayer\trows\twidth\tdtype\tbytes\n{output}\thidden_2\t30\t16\tfloat32\t1920\n",
        f"contrasim: note: would write {output}: 1 layer x 30 rows x 16, 1.92 kB, and as much again for 1 shard while it "
        "runs; nothing was written\n",
    )
    assert run("extract", "--from", "x.npy", "--limit", "7", "--dry-run", "-o", output) == (
        0,
        f"store\tlayer\trows\twidth\tdtype\tbytes\n{output}\tx\t7\t5\tfloat32\t140\n",
        f"contrasim: note: would write {output}: 1 layer x 7 rows x 5, 140 B; nothing was written\n",
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", ["auto", "7"])
def test_no_value_depends_on_the_size_of_batches(tmp_path: Path, size: str) -> None:
    for name, given in (("a.h5", "64"), ("b.h5", size)):
        assert run("extract", "--model", "bert", *TEXT, "--batch-size", given, "-o", tmp_path / name).code == 0
    for name, rows in contents(str(tmp_path / "a.h5")).items():
        np.testing.assert_allclose(contents(str(tmp_path / "b.h5"))[name], rows, rtol=1e-5, atol=1e-5)


TEXT = ("--text", "s.tsv", "--column", "en")
OUT = ("-o", "o.h5")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ("--model", "bert", *OUT),
            2,
            "give one of --text, --dataset, --arrays, --images, --audio and --from; found none",
        ),
        (
            ("--model", "bert", *TEXT, "--arrays", "i.npy", *OUT),
            2,
            "give one of --text, --dataset, --arrays, --images, --audio and --from; found --text and --arrays",
        ),
        ((*TEXT, *OUT), 2, "--text needs --model: a Hugging Face folder or hub id, or file.py:function"),
        (("--model", "bert", *TEXT), 2, "-o is missing: say where the store goes, such as -o acts.h5"),
        (("--from", "x.npy", "--pool", "cls", *OUT), 2, "--pool does not go with --from; leave it out"),
        (("--model", "bert", *TEXT, "--batch-size", "0", *OUT), 2, "--batch-size '0': write a number from 1, or auto"),
        (
            ("--model", "bert", *TEXT, "--batch-size", "all", *OUT),
            2,
            "--batch-size 'all': write a number from 1, or auto",
        ),
        (
            ("--model", "bert", *TEXT, "--subword", "first", *OUT),
            2,
            "--subword is for --unit word; give both, or leave it out",
        ),
        (
            ("--model", "vit", "--arrays", "i.npy", "--unit", "word", *OUT),
            2,
            "--unit word does not go with --arrays; leave it out",
        ),
        (("--from", "x.npy", "--dtype", "bfloat16", *OUT), 2, "--dtype does not go with --from; leave it out"),
        (
            ("--from", "x.npy", "--axes", "width", *OUT),
            2,
            "--axes width: no axis is rows; where each key of the file is a row, add --keys rows",
        ),
        (
            ("--model", "bert", *TEXT, "--skip-pattern", "*", *OUT),
            2,
            "--skip-pattern *: is not a regular expression (nothing to repeat at position 0)",
        ),
        (
            ("--model", "seeing", "--images", "p.tsv", *OUT),
            2,
            "p.tsv: say which column holds the paths of the images (--image-column)",
        ),
        (
            ("--model", "bert", *TEXT, "--only-ids", "ids.txt", *OUT),
            4,
            "ids.txt: 1 id is not in s.tsv: r3; take it out",
        ),
        (
            ("--model", "bert", *TEXT, "--zero-rows", "keep", *OUT),
            2,
            "--zero-rows does not go with --text; leave it out",
        ),
        (
            ("--model", "bert", *TEXT, "--axes", "rows,layers,width", *OUT),
            2,
            "--axes does not go with --text; leave it out",
        ),
        (
            ("--model", "vit", "--arrays", "i.npy", "--column", "x", *OUT),
            2,
            "--column does not go with --arrays; leave it out",
        ),
        (
            ("--model", "bert", *TEXT, "--column", "de", *OUT),
            2,
            "several columns become several stores: put {column} into the name, such as -o '{column}.h5'",
        ),
        (
            ("--model", "bert", "--text", "s.tsv", "--column", "fr", *OUT),
            2,
            "s.tsv: has no column fr; it has id, en, de",
        ),
        (
            ("--model", "bert", *TEXT, "--pool", "patch-mean", *OUT),
            2,
            "--pool patch-mean is not for text; choose cls, mean, first, last, max or none",
        ),
        (("--model", "vit", *TEXT, *OUT), 2, "vit: is a model of images, not of text"),
        (
            ("--model", "bert", *TEXT, "--layers", "hiden_1", *OUT),
            2,
            "--layers hiden_1 matches no layer of bert; did you mean hidden_1, hidden_2, hidden_0?",
        ),
        (("--model", "./none", *TEXT, *OUT), 3, "./none: there is no such folder"),
        (
            ("--model", "vit", "--images", "bert", *OUT),
            3,
            "bert: holds no image (.bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp)",
        ),
        (("--model", "bert", "--text", "none.txt", *OUT), 3, "none.txt: cannot be read: No such file or directory"),
        (("--model", "bert", *TEXT, "-o", "x.npy"), 2, "-o x.npy: extract writes HDF5, not .npy; call it x.h5"),
        (
            ("--model", "bert", *TEXT, "-o", "./s.tsv", "--force"),
            2,
            "-o s.tsv: is an input of this run, which it would replace; give another name",
        ),
        (
            ("--model", "slow_nets.py:slow", "--arrays", "x.npy", "-o", "slow_nets.py", "--force"),
            2,
            "-o slow_nets.py: is an input of this run, which it would replace; give another name",
        ),
        (("--from", "s.tsv", "--skip-bad", *OUT), 2, "--skip-bad does not go with --from; leave it out"),
        (
            ("--model", "bert", *TEXT, "-o", "none/o.h5"),
            7,
            "none/o.h5: cannot be written: there is no folder {home}/none; create it first",
        ),
    ],
)
def test_every_mistake_is_one_line(home: Path, options: tuple[str, ...], code: int, message: str) -> None:
    result = run("extract", *options)
    wanted = message.replace("{home}", str(home.resolve()))
    assert result == (code, "", f"contrasim: error: {wanted}\n")
    assert not Path("o.h5").exists()


def test_a_pipe_is_refused_where_a_file_is_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.txt")
    pipe = tmp_path / "f.txt"
    wanted = (3, "", f"contrasim: error: {pipe}: cannot be read: it is not a regular file\n")
    assert run("extract", "--model", "bert", "--text", pipe, *OUT) == wanted
    assert run("extract", "--model", "bert", *TEXT, "--ids", pipe, *OUT) == wanted


def test_what_a_model_prints_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    given = ("extract", "--model", f"{tmp_path}/loud.py:loud", "--arrays", "x.npy")
    found = run(*given, "--list-layers")
    assert (found.code, found.stdout) == (0, "layer\tshape\nblock\t[rows, 3]\n")
    assert found.stderr.startswith("made\nran\n")
    assert run(*given, "--dry-run", *OUT).stdout.startswith("store\tlayer\t")
    assert run(*given, "-o", tmp_path / "o.h5").stdout == ""


def test_a_run_that_fails_before_a_shard_is_done_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_text(LOUD.replace("return self.block(x)", "return self.block(x * 1e9)"))
    given = ("--model", f"{tmp_path}/big.py:loud", "--arrays", "x.npy", "--store-dtype", "float16")
    assert run("extract", *given, "-o", tmp_path / "o.h5").code == 3
    assert not (tmp_path / "o.h5.parts").exists()


def test_a_model_that_is_nowhere_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = run("extract", "--model", "no-such/model", *TEXT, *OUT)
    start = "contrasim: note: no-such/model is not a local folder: it is taken from the Hugging Face hub or its cache\n"
    start += "contrasim: error: no-such/model: is not a local folder and cannot be fetched from the Hugging Face hub ("
    assert (result.code, result.stderr.count("\n")) == (3, 2)
    assert result.stderr.startswith(start)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = run("extract", "--model", "bert", *TEXT, *OUT)
    assert result == (6, "", "contrasim: error: extract --model needs the extra hf: pip install 'contrasim[hf]'\n")


def test_usage_errors_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom helpers import run\n"
        "assert run('extract', '--text', 'a', '--arrays', 'b').code == 2\n"
        "assert run('extract', '--pool', 'median').code == 2\n"
        "print(sorted({'torch', 'transformers', 'h5py', 'numpy', 'faiss'} & sys.modules.keys()))"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert result.stdout == "[]\n"


# Ctrl-C works even if pytest itself runs in the background, where shells have it ignored
MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from contrasim_cli.cli import main
main()
"""


def start(output: Path) -> "subprocess.Popen[str]":
    """A run of 30 shards of two rows, in a process of its own."""
    command = [
        "--model",
        "slow_nets.py:slow",
        "--arrays",
        "x.npy",
        "--batch-size",
        "1",
        "--memory",
        "240",
        "-o",
        str(output),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "DELAY": "0.02"}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "extract", *command], stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for_shards(output: Path, count: int, process: "subprocess.Popen[str]") -> None:
    folder = output.with_name(f"{output.name}.parts")
    while process.poll() is None and len(list(folder.glob("*.npz"))) < count:
        time.sleep(0.005)


RESUMED = ("--model", "slow_nets.py:slow", "--arrays", "x.npy", "--batch-size", "1")


def resumed(output: Path) -> dict[str, Any]:
    assert run("extract", *RESUMED, "--resume", "-o", output).code == 0
    return contents(str(output))


@pytest.fixture(scope="module")
def uninterrupted(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("whole") / "o.h5"
    given = ("--model", f"{home}/slow_nets.py:slow", "--arrays", home / "x.npy", "--batch-size", "1", "--memory", "240")
    assert run("extract", *given, "-o", output).code == 0
    return contents(str(output))


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 13, 30])
def test_a_killed_run_leaves_nothing_and_goes_on(tmp_path: Path, uninterrupted: dict[str, Any], shards: int) -> None:
    output = tmp_path / "o.h5"
    process = start(output)
    wait_for_shards(output, shards, process)
    process.kill()
    process.communicate()
    if output.exists():  # the kill came after the rename
        assert contents(str(output)).keys() == uninterrupted.keys()
    found = resumed(output)
    for name, rows in uninterrupted.items():
        np.testing.assert_array_equal(found[name], rows)
    assert os.listdir(tmp_path) == ["o.h5"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_go_on(
    tmp_path: Path, uninterrupted: dict[str, Any], number: signal.Signals, code: int
) -> None:
    output = tmp_path / "o.h5"
    process = start(output)
    wait_for_shards(output, 4, process)
    process.send_signal(number)
    stderr = process.communicate()[1]
    assert process.returncode == code
    assert f"{output}: stopped after " in stderr
    assert " of 60 rows; --resume goes on\n" in stderr
    if number == signal.SIGTERM:
        folder = output.with_name(f"{output.name}.parts")
        rows = 2 * len(list(folder.glob("*-*.npz")))
        more = (1, 2) if (folder / "begun.npz").exists() else (0,)  # of a shard of two batches of a row
        assert any(f"stopped after {rows + some} of 60 rows" in stderr for some in more)
    assert not output.exists()
    left = sum(int(path.stem[13:]) - int(path.stem[:12]) for path in output.with_name("o.h5.parts").glob("*-*.npz"))
    done = run("extract", *RESUMED, "--resume", "-o", output)
    (said,) = re.findall(r"note: continuing after (\d+) of 60 rows\n", done.stderr)
    assert left <= int(said) <= left + 2
    found = contents(str(output))
    for name, rows in uninterrupted.items():
        np.testing.assert_array_equal(found[name], rows)


@pytest.mark.slow
def test_resume_of_other_options_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    process = start(output)
    wait_for_shards(output, 1, process)
    process.kill()
    process.communicate()
    given = ("--model", "slow_nets.py:slow", "--arrays", "x.npy", "--limit", "7", "--resume", "-o", output)
    assert run("extract", *given) == (
        2,
        "",
        f"contrasim: error: {output}.parts: --resume cannot continue, as its rows were made with other options: rows was 60 and is "
        "7; give the same options, or leave out --resume and give --force to start again\n",
    )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_inputs_in_an_archive_are_those_in_a_file(
    home: Path, tmp_path: Path, save: Callable[..., None], order: str
) -> None:
    inputs = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", inputs)
    save(tmp_path / "x.npz", np.asarray(inputs, order=order))  # type: ignore[call-overload]
    for name in ("x.npy", "x.npz"):
        output = tmp_path / f"{name}.h5"
        given = ("--arrays", tmp_path / name, "--batch-size", "4", "-o", output)
        assert run("extract", "--model", f"{home}/slow_nets.py:slow", *given).code == 0
    stores = open_stores([tmp_path / "x.npy.h5", tmp_path / "x.npz.h5"])
    first, second = ({name: found.read(name, 0, 11) for name in found.layers} for found in stores)
    assert list(first) == list(second)
    assert all(np.array_equal(rows, second[name]) for name, rows in first.items())
    assert np.abs(first[next(iter(first))]).sum() > 0
    close_stores(stores)
