"""Sound files, read as one channel at the rate that a model takes.

Resampled by soxr, whose filters are band-limited at any ratio of rates, and which needs nothing but numpy.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import MissingError
from contrasim_cli.extraction.sources.files import Kind, unreadable
from contrasim_cli.extraction.sources.source import BadItem
from contrasim_cli.memory import memory_budget
from contrasim_cli.names import quoted

Sound = npt.NDArray[np.float32]  # [samples], of one channel

UNREADABLE = (OSError, ValueError, RuntimeError)  # what soundfile raises for damaged files
SAMPLE_BYTES = 16  # that a sample of a channel takes while it is read, averaged and resampled
HIGHEST = 48_000  # samples per second that a model takes
SUFFIXES = frozenset({".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"})


def problem_of(path: Path, memory: int | None = None) -> str | None:
    """Why a sound file cannot be opened, holds nothing, or takes more than `memory` bytes (None: half of what is free) to read.

    Whether all of it can be decoded is seen when it is.
    """
    soundfile, _ = _libraries()
    try:
        about = _about(path, soundfile)
    except UNREADABLE as error:
        return unreadable(path, "sound", error)
    if about.frames < 1:
        return f"{quoted(path)}: holds no sound (0 samples)"
    size = SAMPLE_BYTES * about.frames * (about.channels + max(1.0, HIGHEST / about.samplerate))
    limit = memory_budget(memory)
    if size <= limit:
        return None
    return (
        f"{quoted(path)}: {about.frames} samples of {about.channels} channel(s) take {size / 1e9:.3g} GB of memory, and there "
        f"are {limit / 1e9:.3g} GB for it; give --memory, or cut it into pieces"
    )


def sample_count(path: Path, rate: int) -> int:
    """About how many samples a sound has at a rate; sounds of equal length and rate have equally many.

    Raises:
        BadItem: it cannot be opened.
    """
    try:
        about = _about(path, _libraries()[0])
    except UNREADABLE as error:
        raise BadItem(unreadable(path, "sound", error)) from error
    return round(int(about.frames) * rate / int(about.samplerate))


def read_sound(path: Path, rate: int) -> Sound:
    """The samples [n] of a sound file at a rate (samples per second), the mean of its channels.

    Raises:
        BadItem: it cannot be read, ends early, is empty, or holds NaN or Inf.
        MissingError: soundfile or soxr is not installed.
    """
    soundfile, soxr = _libraries()
    try:
        promised = _about(path, soundfile).frames
        samples, own_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except UNREADABLE as error:
        raise BadItem(unreadable(path, "sound", error)) from error
    if len(samples) != promised:
        raise BadItem(f"{quoted(path)}: ends after {len(samples)} of {promised} samples: the file is damaged")
    if not len(samples):
        raise BadItem(f"{quoted(path)}: holds no sound (0 samples)")
    if not np.isfinite(samples).all():
        raise BadItem(f"{quoted(path)}: holds NaN or Inf, first at sample {_first_bad(samples)}")
    sound: Sound = samples.mean(axis=1)
    return sound if own_rate == rate else np.asarray(soxr.resample(sound, own_rate, rate), np.float32)


def _first_bad(samples: npt.NDArray[np.float32]) -> int:
    return int((~np.isfinite(samples)).any(axis=1).argmax())


def _about(path: Path, soundfile: Any) -> Any:
    if not path.is_file():
        raise FileNotFoundError(path)
    return soundfile.info(path)


def _libraries() -> tuple[Any, Any]:
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as error:  # OSError: soundfile without the C library under it
        raise MissingError("extract --audio needs the extra audio: pip install 'contrasim[audio]'") from error
    return soundfile, soxr


SOUNDS = Kind("audio", "sound", "--audio-column", SUFFIXES, problem_of)
