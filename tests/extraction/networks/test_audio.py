"""Models of sound: a row is what a plain call says of its sound alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile
import tiny
import torch
import transformers
from helpers import run
from networks import Rows
from torch import Tensor

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.load import load
from contrasim_cli.extraction.networks.network import ALIKE, ModelOptions, Network
from contrasim_cli.extraction.sources.files import folder_source
from contrasim_cli.extraction.sources.sounds import SOUNDS

KINDS = [*tiny.WAVE_CONFIGS, *tiny.SPECTRUM_CONFIGS]
SECONDS = {"a.wav": 0.4, "b.wav": 0.6, "c.wav": 0.4}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda frames: frames.mean(0, keepdim=True),
    "max": lambda frames: frames.amax(0, keepdim=True),
    "first": lambda frames: frames[:1],
    "last": lambda frames: frames[-1:],
    "none": lambda frames: frames,
}
LEADING = {"ast": 2}  # CLS and distillation tokens


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for name, seconds in SECONDS.items():
        soundfile.write(folder / name, 0.1 * rng.standard_normal(round(16_000 * seconds)), 16_000, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tiny.hearing(tmp_path_factory.mktemp(kind) / kind, kind)
        return made[kind]

    return make


@torch.no_grad()
def plain(folder: Path, kind: str, path: Path) -> tuple[list[Tensor], Any]:
    """The hidden states of one sound [frames, width] and, for CLAP, its embedding."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    sound, rate = soundfile.read(path, dtype="float32")
    if extractor.sampling_rate != rate:
        import soxr

        sound = soxr.resample(sound, rate, extractor.sampling_rate)
    given = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    if kind == "clap":
        states = model.audio_model(**given, output_hidden_states=True).hidden_states
        return [state[0].flatten(1).T for state in states], model.get_audio_features(**given).pooler_output
    model = model.get_encoder() if kind == "whisper" else model
    states = model(**given, output_hidden_states=True).hidden_states
    return [state[0, LEADING.get(kind, 0) :] for state in states], None


def listening(folder: Path, sounds: Path, **options: Any) -> Network:
    return load(ModelOptions(str(folder), **options), folder_source(sounds, SOUNDS))


def rows(folder: Path, sounds: Path, out: Path, *options: str) -> Rows:
    """The rows of a store that the command line writes."""
    result = run("extract", "--model", folder, "--audio", sounds, "-o", out, "--force", "-q", *options)
    assert result.code == 0, result.stderr
    with h5py.File(out) as store:
        names = sorted(store["layers"], key=lambda name: int(store["layers"][name].attrs["index"]))
        return {name: store["layers"][name][:] for name in names}


def assert_close(found: np.ndarray[Any, Any], expected: Tensor) -> None:
    """Rows differ by less than rounding in another batch makes them differ, relative to their length."""
    assert found.shape == expected.shape
    assert (np.linalg.norm(found - expected.numpy(), axis=1) / np.linalg.norm(expected, axis=1)).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_that_of_the_sound_alone(
    kind: str, folder_of: Callable[[str], Path], sounds: Path, tmp_path: Path
) -> None:
    folder = folder_of(kind)
    items = [plain(folder, kind, sounds / name) for name in SECONDS]
    for pool in ("mean", "max") if kind == "clap" else POOLS:
        found = rows(folder, sounds, tmp_path / "o.h5", "--pool", pool)
        assert [name for name in found if name != "projected"] == [f"hidden_{k}" for k in range(len(items[0][0]))]
        for index, name in enumerate(name for name in found if name != "projected"):
            expected = torch.cat([POOLS[pool](states[index]) for states, _ in items])
            assert_close(found[name], expected)
        if kind == "clap":
            assert_close(found["projected"], torch.cat([one for _, one in items]))


def test_a_row_per_frame_is_named_by_its_number(folder_of: Callable[[str], Path], sounds: Path, tmp_path: Path) -> None:
    folder = folder_of("wav2vec2")
    rows(folder, sounds, tmp_path / "o.h5", "--pool", "none")
    counts = [len(plain(folder, "wav2vec2", sounds / name)[0][0]) for name in SECONDS]
    assert len(set(counts)) == 2
    with h5py.File(tmp_path / "o.h5") as store:
        names = [name.decode() for name in store["ids"][:]]
        assert store.attrs["unit"] == "frame"
    assert names == [f"{name}:{k}" for name, count in zip(SECONDS, counts, strict=True) for k in range(count)]


def test_sounds_share_a_batch_only_if_they_are_equally_long(folder_of: Callable[[str], Path], sounds: Path) -> None:
    network = listening(folder_of("wav2vec2"), sounds)
    prepared = network.prepare([sounds / name for name in SECONDS], 0)
    network.discover(prepared.batch([0]))
    assert (network.grouping, list(prepared.lengths)) == (ALIKE, [6400, 9600, 6400])
    assert list(listening(folder_of("whisper"), sounds).prepare([sounds / "a.wav", sounds / "b.wav"], 0).lengths) == [
        1,
        1,
    ]


@torch.no_grad()
def test_padding_would_change_rows(folder_of: Callable[[str], Path], sounds: Path) -> None:
    """So that the test of rows can fail."""
    folder = folder_of("wav2vec2")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    both = [soundfile.read(sounds / name, dtype="float32")[0] for name in ("a.wav", "b.wav")]
    given = extractor(both, sampling_rate=16_000, return_tensors="pt", padding=True)
    alone = plain(folder, "wav2vec2", sounds / "a.wav")[0][-1]
    padded = model(**given).last_hidden_state[0, : len(alone)]
    assert (padded - alone).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "layer", "time"),
    [
        ("wav2vec2", "feature_extractor.conv_layers.3", 2),
        ("wav2vec2", "feature_projection.projection", 1),
        ("whisper", "conv1", 2),
        ("whisper", "layers.0.fc1", 1),
    ],
)
def test_what_modules_put_out_is_averaged_over_time(
    kind: str, layer: str, time: int, folder_of: Callable[[str], Path], sounds: Path, tmp_path: Path
) -> None:
    folder = folder_of(kind)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if kind == "whisper" else model
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    expected: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda module, given, output: expected.append(output.mean(time)))
    for name in SECONDS:
        model(**extractor(soundfile.read(sounds / name)[0], sampling_rate=16_000, return_tensors="pt"))
    found = rows(folder, sounds, tmp_path / "o.h5", "--layers", layer)
    assert list(found) == [layer]
    assert_close(found[layer], torch.cat(expected))


@torch.no_grad()
def test_the_cls_token_is_a_row_where_there_is_one(
    folder_of: Callable[[str], Path], sounds: Path, tmp_path: Path
) -> None:
    folder = folder_of("ast")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    given = [extractor(soundfile.read(sounds / name)[0], sampling_rate=16_000, return_tensors="pt") for name in SECONDS]
    expected = [model(**one, output_hidden_states=True).hidden_states[-1][:, 0] for one in given]
    found = rows(folder, sounds, tmp_path / "o.h5", "--pool", "cls", "--layers", "-1")
    assert_close(found["hidden_2"], torch.cat(expected))
    with pytest.raises(UsageError, match=r"^wav2vec2 has no CLS token; give --pool mean$"):
        listening(folder_of("wav2vec2"), sounds, pool="cls")


def test_a_piece_drawn_at_random_is_the_same_piece_every_time(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    soundfile.write(tmp_path / "s" / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(48_000 * 12), 48_000)
    first, second = (rows(folder_of("clap"), tmp_path / "s", tmp_path / "o.h5", "--layers", "-1") for _ in range(2))
    np.testing.assert_array_equal(first["projected"], second["projected"])
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder_of("clap"))
    sound = soundfile.read(tmp_path / "s" / "long.wav", dtype="float32")[0]
    drawn = [extractor(sound, sampling_rate=48_000, return_tensors="pt")["input_features"] for _ in range(2)]
    assert not torch.equal(*drawn)


def test_what_is_filled_up_is_said(
    folder_of: Callable[[str], Path], sounds: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listening(folder_of("whisper"), sounds)
    assert caplog.messages == [
        "whisper: its feature extractor makes all sounds equally long, shorter ones are filled up and longer ones cut: a row is "
        "made of all frames, filled ones too, as in a plain call"
    ]
    caplog.clear()
    listening(folder_of("wav2vec2"), sounds)
    assert caplog.messages == []


def test_a_sound_that_is_too_short_is_named_and_can_be_left_out(
    folder_of: Callable[[str], Path], sounds: Path, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "s" / name).write_bytes((sounds / name).read_bytes())
    soundfile.write(tmp_path / "s" / "short.wav", np.zeros(10), 16_000)
    given = ("extract", "--model", folder_of("wav2vec2"), "--audio", tmp_path / "s", "-o", tmp_path / "o.h5")
    problem = f"{tmp_path}/s/short.wav: is too short for the model, which makes no frame of it"
    failed = run(*given)
    assert (failed.code, failed.stdout) == (3, "")
    assert failed.stderr == (
        f"contrasim: error: {tmp_path}/s: row short.wav: {problem}; correct it, or leave it out with --skip-bad\n"
    )
    done = run(*given, "--skip-bad")
    assert (done.code, f"row short.wav is left out: {problem}\n" in done.stderr) == (0, True)
    with h5py.File(tmp_path / "o.h5") as store:
        assert store["ids"][:].tolist() == [b"a.wav", b"b.wav"]


@pytest.mark.parametrize("pool", ["none", "mean"])
def test_a_damaged_sound_is_named_and_can_be_left_out(
    folder_of: Callable[[str], Path], tmp_path: Path, pool: str
) -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal(8000)
    (tmp_path / "s").mkdir()
    for name in ("a", "b", "c"):
        if name == "b":
            sound[5] = np.nan
        soundfile.write(tmp_path / "s" / f"{name}.wav", np.nan_to_num(sound) if name == "c" else sound, 16_000, "FLOAT")
    given = ("extract", "--model", folder_of("wav2vec2"), "--audio", tmp_path / "s", "--pool", pool, "-q")
    said = f"{tmp_path}/s/b.wav: holds NaN or Inf, first at sample 5"
    refused = f"contrasim: error: {tmp_path}/s: row b.wav: {said}; correct it, or leave it out with --skip-bad\n"
    assert run(*given, "-o", tmp_path / "o.h5") == (3, "", refused)
    assert run(*given, "--skip-bad", "--resume", "-o", tmp_path / "o.h5") == (0, "", "")
    with h5py.File(tmp_path / "o.h5") as store:
        assert {name.decode().partition(":")[0] for name in store["ids"][:]} == {"a.wav", "c.wav"}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "wav2vec2",
            ("--pool", "patch-mean"),
            "--pool patch-mean is not for sounds; choose mean, max, first, last, cls or none",
        ),
        ("wav2vec2", ("--max-length", "9"), "--max-length does not go with sounds; leave it out"),
        ("wav2vec2", ("--unit", "word"), "--unit word does not go with --audio; leave it out"),
        ("clap", ("--part", "text"), "--part text takes --text, not --audio; leave --part out or change the data"),
        (
            "clap",
            ("--pool", "none"),
            "--pool none: the number of frames that clap makes of a sound is not known before it runs; give another --pool",
        ),
    ],
)
def test_what_does_not_go_with_sounds_is_one_line(
    kind: str, options: tuple[str, ...], message: str, folder_of: Callable[[str], Path], sounds: Path, tmp_path: Path
) -> None:
    result = run("extract", "--model", folder_of(kind), "--audio", sounds, "-o", tmp_path / "o.h5", *options)
    assert result == (2, "", f"contrasim: error: {message}\n")


def test_a_model_of_something_else_is_refused(sounds: Path, tmp_path: Path) -> None:
    folder = tiny.from_config(tmp_path / "vit", tiny.IMAGE_CONFIGS["vit"]())
    with pytest.raises(UsageError, match=r"vit: is a model of images, not of sound$"):
        listening(folder, sounds)


def test_layers_are_listed_without_data(folder_of: Callable[[str], Path]) -> None:
    listed = run("extract", "--model", folder_of("wav2vec2"), "--list-layers")
    assert listed.code == 0
    assert "feature_extractor.conv_layers.0\t[rows, 16, 3199]\n" in listed.stdout
    sides = run("extract", "--model", folder_of("clap"), "--part", "audio", "--list-layers", "-q")
    assert sides.stdout.startswith("layer\tshape\nhidden_0\t[rows, 8]\n")
