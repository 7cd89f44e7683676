"""`contrasim extract` of texts: which tokens make a row, as a user asks for it."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from helpers import run

from contrasim_cli.store import open_store

TEXTS = ["the unbelievable winter", "a winter's tale", "talking, walked"]
SPANS = ["4:16", "2:8", "0:7"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tiny.llama(folder / "llama")
    table = "".join(f"r{k}\t{text}\t{span}\t{k - 2}\n" for k, (text, span) in enumerate(zip(TEXTS, SPANS, strict=True)))
    (folder / "s.tsv").write_text("id\ten\tspan\tat\n" + table)
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def by_hand(ids: list[int]) -> torch.Tensor:
    """[tokens, width] of the last layer, by a plain call."""
    model = transformers.AutoModel.from_pretrained("llama").eval()
    with torch.no_grad():
        states: torch.Tensor = model(torch.tensor([ids])).last_hidden_state
    return states[0]


def tokens(text: str, **options: Any) -> Any:
    return transformers.AutoTokenizer.from_pretrained("llama")(text, **options)


def read(path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    store = open_store(path)
    assert store.ids is not None
    found = store.ids.read(0, store.n_rows), store.read("hidden_2", 0, store.n_rows)
    store.close()
    return found


GIVEN: tuple[str, ...] = ("extract", "--model", "llama", "--text", "s.tsv", "--column", "en", "--id-column", "id")


def test_rows_at_positions(tmp_path: Path) -> None:
    output = tmp_path / "p.h5"
    assert run(*GIVEN, "--position", "-1", "--position", "at", "-o", output, "-q") == (0, "", "")
    ids, rows = read(output)
    assert ids == [f"r{k}:{name}" for k in range(3) for name in ("-1", "at")]
    states = [by_hand(tokens(text)["input_ids"]) for text in TEXTS]
    wanted = torch.cat([states[k][[-1, k - 2]] for k in range(3)])
    np.testing.assert_allclose(rows, wanted.numpy(), atol=1e-5)
    single = tmp_path / "s.h5"
    assert run(*GIVEN, "--position", "at", "-o", single, "-q") == (0, "", "")
    assert read(single)[0] == ["r0", "r1", "r2"]
    store = open_store(single)
    assert [store.attrs[name] for name in ("unit", "pooling")] == ["token", "position"]


def test_rows_of_spans(tmp_path: Path) -> None:
    output = tmp_path / "s.h5"
    assert run(*GIVEN, "--span", "span", "-o", output, "-q") == (0, "", "")
    wanted = []
    for text, span in zip(TEXTS, SPANS, strict=True):
        start, stop = map(int, span.split(":"))
        encoded = tokens(text, return_offsets_mapping=True)
        places = [k for k, (a, b) in enumerate(encoded["offset_mapping"]) if a < stop and b > start]
        wanted.append(by_hand(encoded["input_ids"])[places].mean(0))
    ids, rows = read(output)
    assert ids == ["r0", "r1", "r2"]
    np.testing.assert_allclose(rows, torch.stack(wanted).numpy(), atol=1e-5)
    assert open_store(output).attrs["unit"] == "span"


def test_rows_of_a_span_in_a_prompt_in_a_chat(tmp_path: Path) -> None:
    output = tmp_path / "c.h5"
    prompt = "the tale of {en} {{walked}}"
    given = (*GIVEN, "--template", "chat", "--generation-prompt", "--prompt", prompt, "--span", "span")
    assert run(*given, "-o", output, "-q") == (0, "", "")
    tokenizer = transformers.AutoTokenizer.from_pretrained("llama")
    wanted = []
    for text, span in zip(TEXTS, SPANS, strict=True):
        start, stop = map(int, span.split(":"))
        message = {"role": "user", "content": f"the tale of {text} {{walked}}"}
        written = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(written, add_special_tokens=False, return_offsets_mapping=True)
        at = written.index(text)
        places = [k for k, (a, b) in enumerate(encoded["offset_mapping"]) if a < at + stop and b > at + start]
        wanted.append(by_hand(encoded["input_ids"])[places].mean(0))
    np.testing.assert_allclose(read(output)[1], torch.stack(wanted).numpy(), atol=1e-5)
    store = open_store(output)
    config = store.provenance["config"]
    assert [config[name] for name in ("prompt", "template", "generation_prompt", "span")] == [
        prompt,
        "chat",
        True,
        "span",
    ]
    changed = run(*given[:-4], "--prompt", "{en}", "--span", "span", "-o", output, "--resume")
    assert (changed.code, changed.stderr.count("\n")) == (5, 1)


def test_a_run_goes_on_only_with_the_same_options(tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    assert run(*GIVEN, "--span", "span", "-o", output, "-q").code == 0
    assert run(*GIVEN, "--span", "span", "-o", output, "--resume").stderr.endswith("is complete already\n")
    changed = {
        ("--span", "span", "--special-tokens", "none"): "special tokens was keep and is none",
        ("--span", "span", "--pool", "max"): "pool was span-mean and is span-max",
        ("--position", "at"): "pool was span-mean and is position",
    }
    for options, difference in changed.items():
        result = run(*GIVEN, *options, "-o", output, "--resume")
        assert (result.code, result.stderr.count("\n")) == (5, 1)
        assert f"already exists and differs ({difference})" in result.stderr


def test_bad_rows_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    lines = [{"en": "the winter", "span": [4, 10], "id": "a"}, {"en": "the", "span": [0, 9], "id": "b"}]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ("extract", "--model", "llama", "--text", tmp_path / "s.jsonl", "--field", "en", "--id-column", "id")
    refused = run(*given, "--span", "span", "-o", tmp_path / "o.h5")
    said = f"{tmp_path}/s.jsonl: line 2 holds [0, 9] in field span, which is outside of the text of 3 characters"
    assert refused == (3, "", f"contrasim: error: {said}; correct it, or leave it out with --skip-bad\n")
    assert run(*given, "--span", "span", "--skip-bad", "-o", tmp_path / "o.h5", "-q").code == 0
    refused = run(*given, "--position", "2", "-o", tmp_path / "p.h5")
    said = (
        f"{tmp_path}/s.jsonl: row b: has no token at position 2: it has 2; correct it, or leave it out with --skip-bad"
    )
    assert (refused.code, refused.stderr) == (3, f"contrasim: error: {said}\n")
    assert run(*given, "--position", "2", "--skip-bad", "-o", tmp_path / "p.h5", "-q").code == 0
    nowhere = run(*given, "--position", "9", "-o", tmp_path / "n.h5")
    said = "nothing that can be read (row a: has no token at position 9: it has 3) in the first 256 rows"
    assert nowhere == (3, "", f"contrasim: error: {tmp_path}/s.jsonl: {said}\n")
    assert read(tmp_path / "p.h5")[0] == ["a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--span", "where"), "s.tsv: has no column where; it has id, en, span, at"),
        (
            ("--prompt", "{fr}", "--span", "span"),
            "--span span: column en is in the prompt 0 times; it has to be there once",
        ),
        (("--prompt", "{en}"), "--prompt says which columns it takes; leave out --column"),
        (("--generation-prompt",), "--generation-prompt is for --template chat; give both, or leave it out"),
        (("--position", "1.5"), "s.tsv: has no column 1.5; it has id, en, span, at"),
    ],
)
def test_every_mistake_is_one_line(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    assert run(*GIVEN, *options, "-o", tmp_path / "o.h5") == (2, "", f"contrasim: error: {message}\n")


def test_a_data_set_is_text(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for split, texts in (("a", TEXTS), ("b", TEXTS[::-1])):
        made = datasets.Dataset.from_dict({"en": texts, "id": ["x", "y", "z"]})
        datasets.DatasetDict({"train": made, "test": made.select([1])}).save_to_disk(tmp_path / split)
    given = ("extract", "--model", "llama", "--dataset", tmp_path / "a", "--column", "en", "--id-column", "id")
    output = tmp_path / "d.h5"
    assert run(*given, "--split", "train", "-o", output, "-q") == (0, "", "")
    ids, rows = read(output)
    assert ids == ["x", "y", "z"]
    wanted = torch.stack([by_hand(tokens(text)["input_ids"]).mean(0) for text in TEXTS])
    np.testing.assert_allclose(rows, wanted.numpy(), atol=1e-5)
    assert run(*given, "--split", "train", "-o", output, "--resume").stderr.endswith("is complete already\n")
    other = ("extract", "--model", "llama", "--dataset", tmp_path / "b", *given[5:])
    assert run(*other, "--split", "train", "-o", output, "--resume").code == 5
    assert run(*given, "--split", "test", "-o", tmp_path / "t.h5", "-q") == (0, "", "")
    assert read(tmp_path / "t.h5")[0] == ["y"]
    unchosen = run(*given, "-o", tmp_path / "u.h5")
    assert unchosen == (2, "", f"contrasim: error: {tmp_path}/a: say which split (--split); it has train, test\n")
    missing = run("extract", "--model", "llama", "--dataset", "./none", "--column", "en", "-o", tmp_path / "u.h5")
    assert missing == (3, "", "contrasim: error: ./none: there is no such folder\n")


def test_a_packed_table_gives_the_rows_of_the_plain_one(tmp_path: Path) -> None:
    (tmp_path / "s.tsv.gz").write_bytes(gzip.compress(Path("s.tsv").read_bytes()))
    plain, packed = tmp_path / "p.h5", tmp_path / "g.h5"
    options = ("--column", "en", "--id-column", "id", "--span", "span", "-q")
    for source, output in (("s.tsv", plain), (tmp_path / "s.tsv.gz", packed)):
        assert run("extract", "--model", "llama", "--text", source, *options, "-o", output) == (0, "", "")
    np.testing.assert_array_equal(read(plain)[1], read(packed)[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--dataset", "d", "--text", "s.tsv"),
            "give one of --text, --dataset, --arrays, --images, --audio and --from; found --text and --dataset",
        ),
        (("--text", "s.tsv", "--split", "test"), "--split does not go with --text; leave it out"),
        (("--dataset", "d", "--image-column", "x"), "--image-column does not go with --dataset; leave it out"),
    ],
)  # fmt: skip
def test_a_data_set_is_one_input(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    result = run("extract", "--model", "llama", *options, "--column", "en", "-o", tmp_path / "o.h5")
    assert result == (2, "", f"contrasim: error: {message}\n")
