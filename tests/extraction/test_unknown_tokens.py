"""Tokens that a tokenizer does not know: which are counted, and when a run warns of them."""

import json
from pathlib import Path

import pytest
import tiny
from helpers import run
from networks import reading

from contrasim_cli.store import open_store

QUESTION = "to this tokenizer; does it fit the model and the texts' language?"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def warnings(*options: object) -> list[str]:
    done = run("extract", *options)
    assert done.code == 0, done.stderr
    return [line.removeprefix("contrasim: warning: ") for line in done.stderr.splitlines() if "warning" in line]


def counts(name: str) -> tuple[int, int]:
    store = open_store(Path(name))
    found = store.provenance["unknown_tokens"], store.provenance["tokens"]
    store.close()
    return found


@pytest.mark.parametrize(
    ("options", "unknown", "tokens"),
    [
        ([], 5, 8),
        (["--special-tokens", "pool-without"], 5, 8),
        (["--special-tokens", "none"], 5, 8),
        (["--pool", "none"], 5, 8),
        (["--unit", "word"], 5, 8),
        (["--max-length", "4"], 3, 4),  # two tokens of each text
        (["--position", "1"], 1, 2),
        (["--position", "0"], 0, 0),  # [CLS]
    ],
)
def test_tokens_of_rows_are_counted_without_special_ones(
    bert: Path, options: list[str], unknown: int, tokens: int
) -> None:
    Path("t.txt").write_text("w1 neu w2 neu\nneu neu neu w3\n")
    warnings("--model", bert, "--text", "t.txt", *options, "-o", "o.h5")
    assert counts("o.h5") == (unknown, tokens)


@pytest.mark.parametrize(("known", "is_told"), [(18, True), (19, False), (20, False)])
def test_more_than_one_in_twenty_is_told(bert: Path, known: int, is_told: bool) -> None:
    Path("t.txt").write_text("neu\n" + "w1\n" * known)
    said = [f"o.h5: 5 % of the tokens are unknown ([UNK]) {QUESTION}"] if is_told else []
    assert warnings("--model", bert, "--text", "t.txt", "-o", "o.h5") == said


def test_every_store_is_told_by_itself_and_inspect_shows_the_share(bert: Path) -> None:
    Path("t.tsv").write_text("en\tde\nw1 w2\tw1 neu\nw3 w4\tneu neu\n")
    given = ("--model", bert, "--text", "t.tsv", "--column", "en", "--column", "de")
    assert warnings(*given, "-o", "{column}.h5") == [f"de.h5: 75 % of the tokens are unknown ([UNK]) {QUESTION}"]
    stores = json.loads(run("inspect", "en.h5", "de.h5", "--format", "json").stdout)["stores"]
    assert {name: facts["unknown_token_share"] for name, facts in stores.items()} == {"en": 0.0, "de": 0.75}
    assert "unknown_token_share" in run("inspect", "de.h5", "--format", "table").stdout


def test_parts_are_told_together_and_one_alone_by_itself(bert: Path) -> None:
    Path("t.txt").write_text("w1 neu\n" * 3 + "neu neu\n" * 3)
    given = ("--model", bert, "--text", "t.txt", "-o", "o.acts")
    assert warnings(*given, "--parts", 2) == [f"o.acts: 75 % of the tokens are unknown ([UNK]) {QUESTION}"]
    assert counts("o.acts") == (9, 12)
    given = (*given[:-1], "p.acts")
    (said,) = warnings(*given, "--shard", "1/2")
    assert said.startswith("p.acts/")
    assert said.endswith(f".h5: 100 % of the tokens are unknown ([UNK]) {QUESTION}")
    assert warnings(*given, "--shard", "0/2") == [f"p.acts: 75 % of the tokens are unknown ([UNK]) {QUESTION}"]


def test_tokenizers_of_bytes_that_lack_such_a_token_count_nothing(tmp_path: Path) -> None:
    tiny.from_config(tmp_path / "bytes", tiny.TEXT_CONFIGS["llama"]())
    tiny.byte_tokenizer(False, bos_token="<s>", eos_token="</s>", unk_token="</s>").save_pretrained(tmp_path / "bytes")
    Path("t.txt").write_text("Привет 你好\n</s> </s>\n")
    assert warnings("--model", "bytes", "--text", "t.txt", "-o", "o.h5") == []
    store = open_store(Path("o.h5"))
    assert not {"unknown_tokens", "tokens", "unknown_token"} & set(store.provenance)
    store.close()


def test_a_token_that_pads_too_is_counted(tmp_path: Path, bert: Path) -> None:
    tiny.tokenizer(True, pad_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]").save_pretrained(tmp_path / "pads")
    Path("t.txt").write_text("w1 neu\n")
    network = reading(bert, Path("t.txt"), tokenizer=str(tmp_path / "pads"))
    assert network.prepare(["w1 neu", "w1"], 0).unknown == [(1, 2), (0, 1)]
