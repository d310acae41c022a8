"""Sequences of images without a download: scikit-learn's digits, by rows and in motion."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.tasks.data._source import DataError

# Rows are numbered downwards: a step of (1, 0) is one down.
_STEPS = {
    "down": (1, 0),
    "down right": (1, 1),
    "right": (0, 1),
    "up right": (-1, 1),
    "up": (-1, 0),
    "up left": (-1, -1),
    "left": (0, -1),
    "down left": (1, -1),
}
DIRECTIONS = tuple(_STEPS)
_VALIDATION_SIZE = 360


class ClassifiedSequences(NamedTuple):
    """Sequences `[T, N, …]`, float32; a class number for each, `[N]`, int64; the class names."""

    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def digits() -> tuple[ClassifiedSequences, ClassifiedSequences]:
    """Images of handwritten digits as 8 steps, the rows, of 8 numbers in [0, 1].

    Source: scikit-learn's `load_digits`, 1797 images of 8 x 8, from the data set "Optical
    recognition of handwritten digits" (Alpaydin and Kaynak 1998). The last 360, a fifth, are for
    validation.

    Returns:
        training and validation, inputs `[8, N, 8]`; ten classes.

    Raises:
        DataError: scikit-learn is not installed.
    """
    images, labels = _load_images()
    names = tuple(map(str, range(10)))
    rows = images.transpose(0, 1).contiguous()
    training = len(labels) - _VALIDATION_SIZE
    return (
        ClassifiedSequences(rows[:, :training], labels[:training], names),
        ClassifiedSequences(rows[:, training:], labels[training:], names),
    )


def moving_digits(
    training: int = 2000,
    validation: int = 400,
    frames: int = 8,
    size: int = 16,
    seed: int = 0,
) -> tuple[ClassifiedSequences, ClassifiedSequences]:
    """Videos of a digit that moves over a larger image; the label is the direction.

    Source: made from `digits`; the digits of validation are not in training. The image is a torus:
    what leaves it on one side enters on the other, and a digit starts anywhere. So no single frame
    determines the direction, only the change between frames. A digit moves by 1 or 2 pixels per
    frame, in one of the eight `DIRECTIONS`.

    Args:
        training: videos for training.
        validation: videos for validation.
        frames: T, at least 2.
        size: rows and columns of the image, at least 8.
        seed: of the random number generator.

    Returns:
        training and validation, inputs `[T, N, size, size]` in [0, 1].

    Raises:
        ValueError: an argument is out of its range.
        DataError: scikit-learn is not installed.
    """
    for name, value, minimum in (
        ("training", training, 1),
        ("validation", validation, 1),
        ("frames", frames, 2),
        ("size", size, 8),
    ):
        if value < minimum:
            raise ValueError(f"moving_digits: {name} must be at least {minimum}, got {value}")
    images, _ = _load_images()
    generator = torch.Generator().manual_seed(seed)
    return (
        _make_videos(images[:-_VALIDATION_SIZE], training, frames, size, generator),
        _make_videos(images[-_VALIDATION_SIZE:], validation, frames, size, generator),
    )


def _make_videos(
    images: Tensor, count: int, frames: int, size: int, generator: torch.Generator
) -> ClassifiedSequences:
    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count,), generator=generator)

    label, speed = draw(0, len(DIRECTIONS)), draw(1, 3)
    canvas = torch.zeros(count, size, size)
    canvas[:, :8, :8] = images[draw(0, len(images))]
    step = torch.tensor(list(_STEPS.values()))[label] * speed[:, None]  # [N, 2]
    start = torch.stack([draw(0, size), draw(0, size)], 1)
    time = torch.arange(frames)[:, None, None]
    row, column = (start + step * time).unbind(-1)  # [T, N], of the digit's corner
    grid = torch.arange(size)
    rows = (grid[:, None] - row[..., None, None]) % size  # [T, N, size, 1]
    columns = (grid - column[..., None, None]) % size  # [T, N, 1, size]
    return ClassifiedSequences(
        canvas[torch.arange(count)[:, None, None], rows, columns], label, DIRECTIONS
    )


def _load_images() -> tuple[Tensor, Tensor]:
    """All images `[N, 8, 8]` in [0, 1], and their labels `[N]`."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise DataError(
            "digits: scikit-learn must be installed, which includes them, got none; "
            "pip install 'unrolled[train]'"
        ) from None
    data = load_digits()
    return torch.from_numpy(data.images).float() / 16, torch.from_numpy(data.target).long()
