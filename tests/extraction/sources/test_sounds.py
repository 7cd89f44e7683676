"""Sound files: what a table or folder names, and the samples that are read from them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from contrasim_cli.errors import InputError, MissingError, Problems, UsageError
from contrasim_cli.extraction.sources.open import Choice, InputOptions, open_sources
from contrasim_cli.extraction.sources.sounds import read_sound, sample_count
from contrasim_cli.extraction.sources.source import BadItem

BAD = "correct it, or leave it out with --skip-bad"
RATE = 16_000
SAMPLES = 7680  # of 0.48 seconds


def tone(rate: int, seconds: float = 0.48, pitch: float = 440) -> np.ndarray:
    """A sine, which a resampled sound must be too."""
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)


def written(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(("suffix", "within"), [("wav", 1e-3), ("flac", 1e-3), ("ogg", 5e-2), ("mp3", 5e-2)])
def test_a_tone_stays_that_tone_at_another_rate(tmp_path: Path, rate: int, suffix: str, within: float) -> None:
    path = written(tmp_path / f"a.{suffix}", tone(rate), rate)
    found = read_sound(path, RATE)
    assert (found.dtype, found.ndim) == (np.float32, 1)
    assert len(found) == sample_count(path, RATE) == SAMPLES
    inside = slice(1000, -1000)  # the ends ring
    np.testing.assert_allclose(found[inside], tone(RATE)[inside], atol=within)


def test_what_the_model_cannot_hear_is_not_folded_back(tmp_path: Path) -> None:
    high = read_sound(written(tmp_path / "a.wav", tone(44_100, pitch=15_000), 44_100), RATE)
    assert np.abs(high[1000:-1000]).max() < 1e-3
    assert np.abs(tone(44_100, pitch=15_000)[::3]).max() > 0.4  # as leaving samples out would make it


def test_channels_are_averaged(tmp_path: Path) -> None:
    both = np.stack([tone(RATE), 0.2 * np.ones(SAMPLES)], axis=1)
    found = read_sound(written(tmp_path / "a.wav", both, subtype="FLOAT"), RATE)
    np.testing.assert_allclose(found, both.mean(1), atol=1e-6)


def test_sounds_of_a_folder_are_sorted_by_their_paths(tmp_path: Path) -> None:
    for name in ("b.wav", "sub/a.FLAC", "a.ogg"):
        written(tmp_path / name, tone(RATE))
    (tmp_path / "notes.txt").write_text("no sound")
    (source,) = open_sources(InputOptions("audio", tmp_path))
    assert list(source.ids()) == ["a.ogg", "b.wav", "sub/a.FLAC"]
    assert (source.kind, source.automatic) == ("audio", False)
    (tmp_path / "none").mkdir()
    with pytest.raises(
        InputError, match=r"holds no sound \(\.aif \.aiff \.au \.flac \.mp3 \.oga \.ogg \.opus \.wav\)$"
    ):
        open_sources(InputOptions("audio", tmp_path / "none"))
    with pytest.raises(InputError, match=r"--audio takes a folder of sound files, or a table with --audio-column$"):
        open_sources(InputOptions("audio", tmp_path / "b.wav"))


def test_a_table_names_sounds(tmp_path: Path) -> None:
    for name in "ab":
        written(tmp_path / "s" / f"{name}.wav", tone(RATE))
    table = tmp_path / "t.tsv"
    table.write_text("path\tname\ns/b.wav\tbee\ns/a.wav\tay\n")
    (source,) = open_sources(InputOptions("audio", table, file_column="path", id_column="name"))
    assert list(source.ids()) == ["bee", "ay"]
    assert next(source.blocks(9)) == [tmp_path / "s/b.wav", tmp_path / "s/a.wav"]
    with pytest.raises(UsageError, match=r"say which column holds the paths of the sounds \(--audio-column\)"):
        open_sources(InputOptions("audio", table))


def test_sounds_that_cannot_be_opened_are_named_together(tmp_path: Path) -> None:
    written(tmp_path / "a.wav", tone(RATE))
    written(tmp_path / "empty.wav", np.zeros(0))
    written(tmp_path / "long.wav", np.zeros(9000), 1)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(Problems) as caught:
        open_sources(InputOptions("audio", tmp_path, choice=Choice(memory=1 << 30)))
    assert caught.value.lines == [
        f"{tmp_path}/empty.wav: holds no sound (0 samples); {BAD}",
        f"{tmp_path}/long.wav: 9000 samples of 1 channel(s) take 6.91 GB of memory, and there are 1.07 GB for it; give --memory, "
        f"or cut it into pieces; {BAD}",
        f"{tmp_path}/text.wav: cannot be read as sound (Error opening: Format not recognised.); {BAD}",
    ]
    (source,) = open_sources(InputOptions("audio", tmp_path, choice=Choice(memory=1 << 30, skip_bad=True)))
    assert list(source.ids()) == ["a.wav"]


def test_damage_inside_is_found_when_a_sound_is_read(tmp_path: Path) -> None:
    broken = tone(RATE).astype(np.float32)
    broken[7] = np.nan
    with pytest.raises(BadItem, match=r"nan\.wav: holds NaN or Inf, first at sample 7$"):
        read_sound(written(tmp_path / "nan.wav", broken, subtype="FLOAT"), RATE)
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    for suffix in ("flac", "mp3"):
        path = written(tmp_path / f"cut.{suffix}", noise)
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(BadItem, match=rf"cut\.{suffix}: (cannot be read as sound|ends after)"):
            read_sound(path, RATE)
    with pytest.raises(BadItem, match="there is no such file"):
        read_sound(tmp_path / "none.wav", RATE)


def test_without_soundfile_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.wav", tone(RATE))
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(
        MissingError, match=r"^extract --audio needs the extra audio: pip install 'contrasim\[audio\]'$"
    ):
        open_sources(InputOptions("audio", path.parent))
