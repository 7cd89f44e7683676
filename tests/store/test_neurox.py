"""Files of NeuroX and ELMo: one dataset per sentence; every word is a row."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from contrasim_cli.errors import InputError
from contrasim_cli.store import Hints, align, open_store

COUNTS = [3, 0, 1, *range(1, 9), 2]  # words of sentence 0 to 11; "10" sorts before "2" as text
RNG = np.random.default_rng(0)
SENTENCES = [RNG.normal(size=(2, count, 4)).astype(np.float32) for count in COUNTS]
INDEX = json.dumps({f"sentence {k}": str(k) for k in range(len(COUNTS))})


def write(path: Path, sentences: list[np.ndarray] = SENTENCES, index: object = INDEX) -> Path:
    with h5py.File(path, "w") as file:
        for number, sentence in enumerate(sentences):
            file[str(number)] = sentence
        if index is not None:
            file.create_dataset("sentence_to_index", (1,), dtype=h5py.string_dtype())[0] = index
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_store(path)
    return caught.value.lines[0].removeprefix(f"{path}: ")


def test_words_are_rows_in_the_order_of_the_sentences(tmp_path: Path) -> None:
    store = open_store(write(tmp_path / "a.hdf5"))
    assert (store.kind, list(store.layers), store.attrs) == (
        "NeuroX or ELMo HDF5",
        ["layer_0", "layer_1"],
        {"unit": "word"},
    )
    everything = np.concatenate(SENTENCES, axis=1)
    assert store.ids is not None
    names = [f"{sentence}:{word}" for sentence, count in enumerate(COUNTS) for word in range(count)]
    for index in range(2):
        np.testing.assert_array_equal(align([store])[0].read(f"layer_{index}"), everything[index])
        for start, stop in [(0, 1), (2, 5), (3, 3), (4, 20), (0, store.n_rows), (30, 99)]:
            np.testing.assert_array_equal(store.read(f"layer_{index}", start, stop), everything[index, start:stop])
    for start, stop in [(0, 1), (2, 5), (4, 20), (0, store.n_rows)]:
        assert store.ids.read(start, stop) == names[start:stop]
    store.close()


def test_one_layer_needs_no_axis(tmp_path: Path) -> None:
    store = open_store(write(tmp_path / "a.h5", [sentence[0] for sentence in SENTENCES]))
    assert list(store.layers) == ["layer_0"]
    np.testing.assert_array_equal(store.read("layer_0", 0, store.n_rows), np.concatenate(SENTENCES, axis=1)[0])


def test_files_of_one_corpus_line_up_and_others_do_not(tmp_path: Path) -> None:
    a = open_store(write(tmp_path / "a.h5"))
    b = open_store(write(tmp_path / "b.h5", [sentence * 2 for sentence in SENTENCES]))
    c = open_store(write(tmp_path / "c.h5", index=json.dumps({"another": "0"})))
    assert a.ids is not None
    assert b.ids is not None
    assert c.ids is not None
    assert a.ids.automatic
    assert a.ids.source == b.ids.source != c.ids.source


@pytest.mark.parametrize(
    ("sentences", "index", "message"),
    [
        ([*SENTENCES[:1], SENTENCES[2][:, :, :3]], INDEX, "sentence 1 is (2, 1, 3) where sentence 0 is (2, 3, 4); layers and"),
        ([*SENTENCES[:1], SENTENCES[2][:1]], INDEX, "sentence 1 is (1, 1, 4) where sentence 0 is (2, 3, 4); layers and width"),
        ([*SENTENCES[:1], SENTENCES[2][0]], INDEX, "sentence 1 is (1, 4) where sentence 0 is (2, 3, 4); layers and width"),
        ([SENTENCES[0][0, 0]], INDEX, "sentence 0 is float32 (4,); expected numbers [layers, words, width]"),
        ([SENTENCES[0][:, :0]], INDEX, "its 1 sentences have no words in any layer"),
        (SENTENCES, "no JSON", "sentence_to_index is not valid JSON; the file is damaged"),
        ([], INDEX, "has sentence_to_index, and so its datasets are sentences 0 to 0; it holds none"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, sentences: list[np.ndarray], index: str, message: str) -> None:
    assert refusal(write(tmp_path / "a.h5", sentences, index)).startswith(message)


def test_a_gap_between_sentences_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["5"]
    assert refusal(path) == "has sentence_to_index, and so its datasets are sentences 0 to 10; it holds 11 and lacks 5"


def test_sentences_without_their_index_are_ambiguous_until_keys_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", SENTENCES[:3], None)
    said = refusal(path)
    assert said.startswith(
        "3 arrays have 3 dimensions, and shapes alone do not say which are layers, rows and neurons: "
    )
    assert said.count("float32 (2, 3, 4)") == 1
    assert "--keys rows --axes layers,rows,width (2 layers of 4 rows x 4)" in said
    store = open_store(write(tmp_path / "b.h5", SENTENCES, None), Hints(axes="layers,rows,width", keys="rows"))
    np.testing.assert_array_equal(store.read("layer_1", 0, store.n_rows), np.concatenate(SENTENCES, axis=1)[1])
    assert store.ids is not None
    assert store.ids.read(1, 4) == open_store(write(tmp_path / "c.h5", SENTENCES)).ids.read(1, 4)
