"""Rows of `extract` beside a plain transformers call on single items, for every architecture that transformers knows.

Architectures are not chosen: every kind of configuration is made tiny by the names of its numbers, and those that can be built and
called are compared: `equal` (within 1e-5 of the row's length), `refused` (one line that says what to do), or `wrong`.

Sounds are three of two lengths; their plain call gets what the architecture's own feature extractor makes of one of them.

    python tests/studies/architectures.py [--ci] [--part text|image|audio|encoder|decoder] [NAME ...]
"""

import argparse
import collections
import contextlib
import copy
import functools
import inspect
import io
import itertools
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
import transformers
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

import tiny

from contrasim_cli.errors import ContraSimError
from contrasim_cli.extraction.batching import BatchSize, by_length
from contrasim_cli.extraction.networks.load import load
from contrasim_cli.extraction.networks.network import ModelOptions
from contrasim_cli.extraction.sources.arrays import array_source
from contrasim_cli.extraction.sources.files import folder_source
from contrasim_cli.extraction.sources.sounds import SOUNDS
from contrasim_cli.extraction.sources.texts import text_source

TEXTS = [
    "the unbelievable winter",
    "talking",
    "a winter's tale of the talkers, walking and walked",
    "the winter talking",
]
PARTS = ("text", "image", "audio", "encoder", "decoder")
# what the parts are fed, and the options of `extract` for it
INPUTS = {
    "text": ("text", "`--text`, `--dataset`"),
    "image": ("images", "`--images`, `--arrays`"),
    "audio": ("sound", "`--audio`"),
    "encoder": ("text, by an encoder that has a decoder", "`--text` (`--part encoder`)"),
    "decoder": ("text, by a decoder that has an encoder", "`--text --part decoder`"),
}
SIDE, TOKENS = 32, 128
MOST = 8_000_000  # weights of a model that is tiny
CI = 40
WITHIN = 1e-5
PADDED = ("siglip", "siglip2")  # whose documentation pads texts to one length, without a mask
DATA = {"image": "i.npy", "audio": "sounds"}
RATE = 16_000
SECONDS = (0.8, 1.2, 0.8)  # of sounds
LEADING = {
    "audio-spectrogram-transformer": 2
}  # tokens before the frames, where their papers have them: CLS and distillation
EXTRACTORS = {  # as in their documentation
    "wav2vec2-bert": transformers.SeamlessM4TFeatureExtractor,
    "clap": functools.partial(transformers.ClapFeatureExtractor, truncation="rand_trunc"),
}
SOUND_INPUTS = ("input_values", "input_features")
# what the numbers of a configuration are made to be, by their names; the first name that is part of theirs counts
SIZES = {
    "vocab_size": TOKENS, "max_position_embeddings": 64, "n_positions": 64, "max_target_positions": 64,
    "num_key_value_heads": 2, "num_attention_heads": 4, "attention_heads": 4, "num_heads": 4, "n_head": 4, "head_dim": 8,
    "intermediate_size": 64, "ffn_dim": 64, "d_ff": 64, "d_kv": 8, "hidden_size": 32, "d_model": 32, "n_embd": 32,
    "embedding_size": 32, "num_hidden_layers": 2, "num_layers": 2, "n_layer": 2, "encoder_layers": 2, "decoder_layers": 2,
    "image_size": SIDE, "patch_size": 8, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "projection_dim": 16,
    "patch_embeds_hidden_size": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4,
}  # fmt: skip
SPREAD = {"initializer_range": 0.2, "init_std": 0.2}


@dataclass(frozen=True)
class Case:
    """What was found of one architecture fed one kind of input."""

    name: str
    part: str
    verdict: str
    note: str = ""


def shrunk(config: Any) -> Any:
    """A configuration, and those within it, made tiny."""
    config = copy.deepcopy(config)
    for name, value in list(vars(config).items()):
        if hasattr(value, "to_dict"):
            setattr(config, name, shrunk(value))
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        elif name in SIZES and isinstance(value, int):
            with contextlib.suppress(Exception):
                setattr(config, name, min(value, SIZES[name]) or SIZES[name])
        elif name in SPREAD:
            setattr(config, name, SPREAD[name])
        elif name.endswith("token_id") and value >= TOKENS:
            setattr(config, name, 1)
    if isinstance(getattr(config, "layer_types", None), list):
        config.layer_types = config.layer_types[:2]
    return config


def built(name: str, folder: Path) -> Any:
    """A tiny model of an architecture, saved in a folder; None where it cannot be built."""
    try:
        config = shrunk(transformers.CONFIG_MAPPING[name]())
        with torch.device("meta"):
            weights = sum(one.numel() for one in transformers.AutoModel.from_config(config).parameters())
        if weights > MOST:
            return None
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config).eval()
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        if (extractor := extractor_of(config)) is not None:
            extractor.save_pretrained(folder)
        return transformers.AutoModel.from_pretrained(folder).eval()
    except Exception:  # each says in its own way that sizes do not fit
        return None


def extractor_of(config: Any) -> Any:
    """The feature extractor of an architecture, with as many mel bins as the model takes; None where it has none."""
    sides = (getattr(config, name, None) for name in ("audio_config", "encoder_config"))
    sound = next((side for side in sides if side is not None), config)
    bins = getattr(sound, "num_mel_bins", None) or getattr(sound, "input_feat_per_channel", None)
    known = type(config) in transformers.FEATURE_EXTRACTOR_MAPPING
    if not known and bins is None:
        return None
    kind = transformers.FEATURE_EXTRACTOR_MAPPING[type(config)] if known else transformers.WhisperFeatureExtractor
    kind = EXTRACTORS.get(config.model_type, kind)
    for name in ("feature_size", "num_mel_bins") if bins else ():
        with contextlib.suppress(Exception):
            return kind(**{name: bins})
    return kind()


def tokenizer() -> Any:
    """Of WordPiece, with fewer tokens than the models know."""
    return tiny.wordpiece_tokenizer()


def plain_parts(model: Any) -> Iterator[tuple[str, Any]]:
    """The parts that transformers' own functions find, and what kind of input each takes: text, image, encoder or decoder."""
    taken = {"input_ids": "text", "pixel_values": "image"}
    sound, image = sound_part(model), _got(model, "get_encoder", modality="image")
    if sound is not None:
        yield "audio", sound
    if image is not None:
        yield "image", image
    if image is not None or sound is not None:
        text = _got(model, "get_decoder") or _got(model, "get_encoder")
        if text is not None and text is not sound and not getattr(model.config, "is_encoder_decoder", False):
            yield "text", text
        return
    if getattr(model.config, "is_encoder_decoder", False) and model.main_input_name == "input_ids":
        yield "encoder", model.get_encoder()
        yield "decoder", model
    elif model.main_input_name in taken:
        yield taken[model.main_input_name], model


def sound_part(model: Any) -> Any:
    """What hears of a model: its audio side, the encoder of a pair, or all of it."""
    side = _got(model, "get_encoder", modality="audio") or getattr(model, "audio_model", None)
    if side is not None:
        return side
    if model.main_input_name not in SOUND_INPUTS:
        return None
    return model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model


def _got(model: Any, method: str, **given: Any) -> Any:
    try:
        found = getattr(model, method)(**given)
    except Exception:
        return None
    return None if found is model else found


@torch.no_grad()
def plain_rows(part: str, model: Any, items: Sequence[Any], folder: Path) -> list[list[Tensor]]:
    """For each item alone the hidden states: [tokens, width] of a text, anything of an image, [1, width] of a sound."""
    if part == "audio":
        return [plain_sound(model, item, folder) for item in items]
    found = []
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    for item in items:
        if part == "image":
            states = model(pixel_values=torch.from_numpy(item[None]), output_hidden_states=True).hidden_states
        elif part == "decoder":
            ids = tokens(item, return_tensors="pt")["input_ids"]
            states = model(
                input_ids=ids, decoder_input_ids=ids, output_hidden_states=True, use_cache=False
            ).decoder_hidden_states
        else:
            ids = tokens(item, return_tensors="pt")["input_ids"]
            count = ids.shape[1]
            if model.config.model_type.startswith(PADDED):
                ids = torch.nn.functional.pad(
                    ids, (0, SIZES["max_position_embeddings"] - count), value=tokens.pad_token_id
                )
            states = [state[:, :count] for state in model(input_ids=ids, output_hidden_states=True).hidden_states]
        found.append([state[0].float() for state in states])
    return found


def plain_sound(model: Any, path: Path, folder: Path) -> list[Tensor]:
    """The means of a sound's hidden states over its frames, [1, width] each."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    sound, rate = soundfile.read(path, dtype="float32")
    if rate != extractor.sampling_rate:
        sound = soxr.resample(sound, rate, extractor.sampling_rate)
    np.random.seed(0)
    given = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    names = inspect.signature(model.forward).parameters
    output = model(**{name: given[name] for name in given if name in names}, output_hidden_states=True)
    leading, found = LEADING.get(getattr(model.config, "model_type", ""), 0), []
    for state in output.hidden_states:
        frames = state[0].float()
        if frames.ndim == 3:
            found.append(frames.mean((1, 2))[None])
            continue
        frames = frames[leading:]
        masks = [given[name][0] for name in given if "mask" in name and given[name].shape[1:] == frames.shape[:1]]
        found.append((frames[masks[0].bool()] if masks else frames).mean(0, keepdim=True))
    return found


def our_rows(folder: Path, part: str, asked: str | None, items: Any, data: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What `extract` makes of the items, in batches as it forms them."""
    sources: dict[str, Any] = {"image": array_source, "audio": lambda folder: folder_source(folder, SOUNDS)}
    source = sources.get(part, text_source)(data)
    network = load(ModelOptions(str(folder), part=asked, pool="flatten" if part == "image" else "mean"), source)
    widths = network.discover(network.prepare(items[:1], 0).batch([0]))
    prepared = network.prepare(items, 0)
    found = {name: np.full((len(items), width), np.nan, np.float32) for name, width in widths.items()}
    for members in by_length(range(len(items)), np.asarray(prepared.lengths), BatchSize(8), network.grouping):
        for name, rows in network.rows(prepared.batch(members)).items():
            found[name][members] = rows.numpy()
    return found


def compared(part: str, ours: Any, plain: Sequence[Sequence[Tensor]]) -> str | None:
    """The first layer whose rows are not those of single items, and by how much."""
    layers = [name for name in ours if name.startswith("hidden_")]
    if not layers:
        return "no hidden states"
    for name in layers:
        states = [item[int(name.removeprefix("hidden_"))] for item in plain]
        expected = torch.stack([state.flatten() if part == "image" else state.mean(0) for state in states]).numpy()
        lengths = np.linalg.norm(expected, axis=1).clip(1e-12)
        if expected.shape != ours[name].shape:
            return f"{name}: {ours[name].shape} for {expected.shape}"
        worst = float((np.linalg.norm(ours[name] - expected, axis=1) / lengths).max())
        if not worst <= WITHIN:
            return f"{name}: off by {worst:.1e}"
    return None


def written_sounds(folder: Path) -> list[Path]:
    """Noises of two lengths."""
    folder.mkdir()
    rng, paths = np.random.default_rng(0), [folder / f"{number}.wav" for number in range(len(SECONDS))]
    for path, seconds in zip(paths, SECONDS, strict=True):
        soundfile.write(path, 0.1 * rng.standard_normal(round(RATE * seconds)), RATE, subtype="FLOAT")
    return paths


def studied(name: str, parts: Sequence[str]) -> Iterator[Case]:
    """The cases of an architecture; none where no tiny model of it can be built, or called plainly."""
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(place) / "model"
        model = built(name, folder)
        if model is None:
            return
        images = np.random.default_rng(0).random((3, 3, SIDE, SIDE)).astype(np.float32)
        np.save(Path(place) / "i.npy", images)
        sounds = written_sounds(Path(place) / "sounds")
        (Path(place) / "s.txt").write_text("\n".join(TEXTS) + "\n")
        for part, module in plain_parts(model):
            if part not in parts:
                continue
            items: Any = {"image": images, "audio": sounds}.get(part, TEXTS)
            try:
                plain = plain_rows(part, module, items, folder)
            except Exception:  # a plain call fails too: its sizes do not fit, or it takes something else
                continue
            asked = part if part in ("encoder", "decoder") else None
            try:
                ours = our_rows(folder, part, asked, items, Path(place) / DATA.get(part, "s.txt"))
            except ContraSimError as error:
                yield Case(name, part, "refused", str(error).replace(place + "/", ""))
                continue
            except Exception as error:
                yield Case(name, part, "wrong", f"{type(error).__name__}: {str(error).splitlines()[:1]}")
                continue
            problem = compared(part, ours, plain)
            yield Case(name, part, "wrong" if problem else "equal", problem or "")


def architectures() -> list[str]:
    """The names of all that AutoModel makes."""
    known = {config.model_type for config in transformers.MODEL_MAPPING if hasattr(config, "model_type")}
    return sorted(known)


def spread(names: Sequence[str], step: int = 6) -> list[str]:
    """Every sixth name, then the others in the same way, so that the first of them are of all kinds."""
    return [name for start in range(step) for name in names[start::step]]


def cases_of(names: Sequence[str], parts: Sequence[str], most: int | None = None) -> Iterator[list[Case]]:
    """The cases of every architecture that has some, of so many of them."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    found = (cases for name in names if (cases := list(studied(name, parts))))
    yield from itertools.islice(found, most)


def summary(cases: Sequence[Case]) -> str:
    """The cases by kind of input, as a table in Markdown, and the reasons why some are refused."""
    lines = [
        "| input | option | architectures | rows of the item alone | refused | wrong |",
        "|---|---|---|---|---|---|",
    ]
    for part in PARTS:
        of = [case for case in cases if case.part == part]
        counts = collections.Counter(case.verdict for case in of)
        names = len({case.name for case in of})
        judged = (names, *(counts[verdict] for verdict in ("equal", "refused", "wrong")))
        lines.append(f"| {' | '.join([*INPUTS[part], *map(str, judged)])} |")
    reasons = collections.Counter(_reason(case.note) for case in cases if case.verdict == "refused")
    return "\n".join(
        [*lines, "", "Refused:", "", *(f"- {reason} ({count})" for reason, count in reasons.most_common())]
    )


def _reason(note: str) -> str:
    """Why a case is refused, without the name of its model."""
    return note.split(": ", 1)[-1].split(";", maxsplit=1)[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--ci", action="store_true", help=f"stop behind {CI} architectures")
    parser.add_argument("--part", choices=PARTS, help="only this kind of input")
    parser.add_argument("--markdown", action="store_true", help="print the summary that the guide shows")
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    names = options.names or (spread(architectures()) if options.ci else architectures())
    every: list[Case] = []
    for cases in cases_of(names, [options.part] if options.part else PARTS, CI if options.ci else None):
        every += cases
        for case in () if options.markdown else cases:
            print(f"{case.name}\t{case.part}\t{case.verdict}\t{case.note}", flush=True)
    print(f"{len({case.name for case in every})} architectures", file=sys.stderr)
    print(summary(every), file=sys.stdout if options.markdown else sys.stderr)


if __name__ == "__main__":
    main()
