"""Files of NeuroX and of ELMo: HDF5 with one dataset per sentence, "0" to "N-1", and `sentence_to_index`.

A dataset is [layers, words, width], or [words, width] where there is one layer. Every word is a row, named
`sentence:word` by its two numbers.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py

from contrasim_cli.errors import InputError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.store.array_views import Joined
from contrasim_cli.store.axes import LAYERS, ROWS, WIDTH, Arranged
from contrasim_cli.store.hdf5 import check_dataset, is_text, read_text
from contrasim_cli.store.layout import place_names
from contrasim_cli.store.store import Layer, Store

INDEX = "sentence_to_index"
AXES = (LAYERS, ROWS, WIDTH)


def is_neurox(datasets: Mapping[str, h5py.Dataset]) -> bool:
    """Whether an HDF5 file says that it is of this kind."""
    return INDEX in datasets


def read_neurox(path: Path, file: h5py.File, datasets: Mapping[str, h5py.Dataset]) -> Store:
    """The store in such a file.

    Raises:
        InputError: datasets are missing, have no number, or do not agree on layers and width.
    """
    corpus = _corpus(path, datasets[INDEX])
    sentences = _in_order(path, {name: dataset for name, dataset in datasets.items() if name != INDEX})
    first = sentences[0]
    raise_all([problem for name, s in enumerate(sentences) if (problem := _difference(path, name, s, first))])
    if first.ndim == 2:
        layers = [Joined(sentences)]
    else:
        layers = [Joined([Arranged(s, AXES, index) for s in sentences]) for index in range(first.shape[0])]
    if not layers or not layers[0].shape[0]:
        raise InputError(f"{quoted(path)}: its {len(sentences)} sentences have no words in any layer")
    numbers = list(map(str, range(len(sentences))))
    return Store(
        path,
        "NeuroX or ELMo HDF5",
        {f"layer_{index}": Layer(f"layer_{index}", layer) for index, layer in enumerate(layers)},
        # the words of one corpus line up, whatever model they went through
        replace(place_names(numbers, [(s.shape[-2],) for s in sentences]), automatic=True, source=corpus),
        attrs={"unit": "word"},
        close=file.close,
    )


def _corpus(path: Path, index: h5py.Dataset) -> str:
    """Digest of the sentences, by which files of the same corpus are known."""
    if not is_text(index) or index.size != 1:
        raise InputError(f"{quoted(path)}: {INDEX} is {index.dtype} {index.shape}; expected one string of JSON")
    check_dataset(path, INDEX, index)
    text = index.asstr()[()] if index.shape == () else read_text(path, index, 0, 1)[0]
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{quoted(path)}: {INDEX} is not valid JSON; the file is damaged") from error
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _in_order(path: Path, sentences: Mapping[str, h5py.Dataset]) -> list[h5py.Dataset]:
    """The datasets by their numbers, every one of which is there."""
    count = len(sentences)
    names = {str(number) for number in range(count)}
    strange = [name for name in sentences if name not in names]
    if strange or not count:
        missing = sorted(names - set(sentences), key=int)
        content = f"it holds {quoted(strange[0])}" if strange else "it holds none"
        lacks = f" and lacks {missing[0]}" if missing else ""
        raise InputError(
            f"{quoted(path)}: has {INDEX}, and so its datasets are sentences 0 to {max(count - 1, 0)}; {content}{lacks}"
        )
    return [sentences[str(number)] for number in range(count)]


def _difference(path: Path, name: int, sentence: h5py.Dataset, first: h5py.Dataset) -> InputError | None:
    if sentence.dtype.kind not in "fiu" or sentence.ndim not in (2, 3):
        return InputError(
            f"{quoted(path)}: sentence {name} is {sentence.dtype} {sentence.shape}; expected numbers [layers, words, width]"
        )
    alike = (
        sentence.ndim == first.ndim
        and sentence.shape[-1] == first.shape[-1]
        and sentence.shape[:-2] == first.shape[:-2]
    )
    if not alike:
        return InputError(
            f"{quoted(path)}: sentence {name} is {sentence.shape} where sentence 0 is {first.shape}; layers and width must agree"
        )
    check_dataset(path, str(name), sentence)
    return None
