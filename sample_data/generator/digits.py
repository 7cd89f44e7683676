"""Real handwritten digits (scikit-learn's `load_digits`), alone and four to an image.

Images are float32 `[n, 1, height, width]` in 0..1. No test image is ever shown to a model or encoder in training.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

TEST_DIGITS = 540
THEMED_SHARE = 0.75
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


@dataclass(frozen=True)
class Labelled:
    """Images `[n, 1, h, w]`, their digits (`[n]`, or `[n, 4]` for scenes) and a name for each."""

    images: Floats
    labels: Ints
    ids: list[str]


def split_digits(seed: int) -> tuple[Labelled, Labelled]:
    """The 1,797 digits as train (1,257) and test (540)."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    return _digits(images, labels, order[TEST_DIGITS:]), _digits(images, labels, order[:TEST_DIGITS])


def _digits(images: npt.NDArray[np.float64], labels: Ints, rows: Ints) -> Labelled:
    scaled = (images[rows] / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    return Labelled(scaled, labels[rows].astype(np.int64), [f"digit_{row:04d}" for row in rows])


def shifted(image: Floats, dy: int, dx: int) -> Floats:
    """`image` `[..., h, w]` moved by (dy, dx) pixels, the gap filled with background."""
    height, width = image.shape[-2:]
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(1, 1), (1, 1)])
    return padded[..., 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]


def with_shifted_copies(digits: Labelled, total: int, seed: int) -> Labelled:
    """`digits` and, up to `total` rows, copies of them moved by one pixel (no image twice)."""
    rng = np.random.default_rng(seed)
    choices = [(row, shift) for shift in range(len(SHIFTS)) for row in range(len(digits.ids))]
    picked = [choices[i] for i in rng.permutation(len(choices))[: total - len(digits.ids)]]
    copies = np.stack([shifted(digits.images[row], *SHIFTS[shift]) for row, shift in picked])
    names = ["{}_{:+d}{:+d}".format(digits.ids[row], *SHIFTS[shift]) for row, shift in picked]
    return Labelled(
        np.concatenate([digits.images, copies]),
        np.concatenate([digits.labels, digits.labels[[row for row, _ in picked]]]),
        digits.ids + names,
    )


def random_shifts(images: Floats, rng: np.random.Generator) -> Floats:
    """Each image moved by at most one pixel: the only augmentation in training."""
    moves = [(0, 0), *SHIFTS]
    choice = rng.integers(len(moves), size=len(images))
    return np.stack([shifted(image, *moves[c]) for image, c in zip(images, choice, strict=True)])


def scenes(digits: Labelled, count: int, seed: int, prefix: str) -> Labelled:
    """`count` distinct 16 × 16 images of four digits each: top left, top right, bottom left, bottom right.

    A scene has a theme, one digit that most of its corners show, as the parts of a real picture belong together.
    """
    rng = np.random.default_rng(seed)
    themes = rng.integers(10, size=(count, 1))
    labels = np.where(rng.random((count, 4)) < THEMED_SHARE, themes, rng.integers(10, size=(count, 4)))
    parts = np.empty_like(labels)
    for digit in range(10):
        where = labels == digit
        parts[where] = rng.choice(np.flatnonzero(digits.labels == digit), size=int(where.sum()))
    if len(np.unique(parts, axis=0)) < count:
        raise ValueError(f"seed {seed} makes a scene twice; take another")
    corners = digits.images[parts]
    top = np.concatenate([corners[:, 0], corners[:, 1]], axis=-1)
    bottom = np.concatenate([corners[:, 2], corners[:, 3]], axis=-1)
    ids = [f"{prefix}_{row:05d}" for row in range(count)]
    return Labelled(np.concatenate([top, bottom], axis=-2), labels, ids)
