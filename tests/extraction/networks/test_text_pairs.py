"""Decoders that read another text than their encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tiny
import torch
import transformers
from helpers import run

PAIRS = [
    ("the unbelievable winter", "winter"),
    ("talking", "a winter's tale of the talkers, walking and walked"),
    ("a tale", "the talkers"),
    ("the winter talking", "a winter"),
]
CONFIGS = {
    "t5": tiny.TEXT_CONFIGS["t5"],
    "bart": lambda: transformers.BartConfig(max_position_embeddings=64, **{**tiny.SPEECH, "vocab_size": 320}),
}


@pytest.fixture(params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made = tiny.from_config(tmp_path / request.param, CONFIGS[request.param]())
    tiny.wordpiece_tokenizer().save_pretrained(made)
    lines = [f"{name}\t{source}\t{target}" for name, (source, target) in zip("abcd", PAIRS, strict=True)]
    (tmp_path / "t.tsv").write_text("\n".join(["id\tfrom\tto", *lines]) + "\n")
    return made


def extracted(folder: Path, *options: str) -> Any:
    table, out = folder.parent / "t.tsv", folder.parent / "o.h5"
    given = ("--text", table, "--column", "from", "--decoder-text", "to", "--part", "decoder", "--id-column", "id")
    result = run("extract", "--model", folder, *given, "-o", out, "--force", *options)
    assert result.code == 0, result.stderr
    with h5py.File(out) as store:
        names = sorted(store["layers"], key=lambda name: int(store["layers"][name].attrs["index"]))
        return {name: store["layers"][name][:] for name in names}, [name.decode() for name in store["ids"][:]]


@torch.no_grad()
def plain(folder: Path, source: str, target: str) -> list[torch.Tensor]:
    """The states [tokens, width] of the decoder."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    ids = {"input_ids": tokens(source, return_tensors="pt")["input_ids"]}
    ids["decoder_input_ids"] = tokens(target, return_tensors="pt")["input_ids"]
    return [state[0] for state in model(**ids, output_hidden_states=True, use_cache=False).decoder_hidden_states]


@pytest.mark.parametrize(
    ("pool", "row"),
    [
        ("mean", lambda state: state.mean(0, keepdim=True)),
        ("last", lambda state: state[-1:]),
        ("none", lambda state: state),
    ],
)
def test_rows_are_of_the_decoder_beside_its_encoder(
    pool: str, row: Callable[[torch.Tensor], torch.Tensor], folder: Path
) -> None:
    found, ids = extracted(folder, "--pool", pool)
    items = [plain(folder, *pair) for pair in PAIRS]
    assert len(found) == len(items[0])
    for index, name in enumerate(found):
        expected = torch.cat([row(item[index]) for item in items])
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    if pool != "none":
        assert ids == list("abcd")
    assert np.abs(found[name] - torch.cat([row(plain(folder, to, to)[-1]) for _, to in PAIRS]).numpy()).max() > 1e-3


def test_words_are_those_of_the_decoder(folder: Path) -> None:
    found, ids = extracted(folder, "--unit", "word", "--layers", "-1")
    assert ids == [
        f"{name}:{word}" for name, (_, to) in zip("abcd", PAIRS, strict=True) for word in range(len(to.split()))
    ]
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    state, words = plain(folder, *PAIRS[2])[-1], tokens(PAIRS[2][1]).word_ids()
    first = torch.stack([state[place] for place, word in enumerate(words) if word == 0]).mean(0)
    np.testing.assert_allclose(found[next(iter(found))][ids.index("c:0")], first, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    tiny.bert(tmp_path / "bert")
    (tmp_path / "t.tsv").write_text("a\tb\nw1\tw2\n")
    given = (
        "extract",
        "--model",
        tmp_path / "bert",
        "--text",
        tmp_path / "t.tsv",
        "-o",
        tmp_path / "o.h5",
        "--column",
        "a",
    )
    both = "--decoder-text goes with --part decoder and --column, the text of the encoder; give both"
    assert run(*given, "--decoder-text", "b") == (2, "", f"contrasim: error: {both}\n")
    missing = run(*given, "--decoder-text", "c", "--part", "decoder")
    assert missing == (2, "", f"contrasim: error: {tmp_path}/t.tsv: has no column c; it has a, b\n")
    none = run(*given, "--decoder-text", "b", "--part", "decoder")
    assert (none.code, none.stderr) == (
        2,
        f"contrasim: error: --part decoder: {tmp_path}/bert has none; leave --part out\n",
    )
