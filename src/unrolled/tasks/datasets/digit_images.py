"""Numeric sequences without a download: scikit-learn's digits, as rows and in motion."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.tasks.data.source import DataError

__all__ = ["DIRECTIONS", "ClassifiedSequences", "digits", "moving_digits"]

# Rows count downwards: a step of (1, 0) is one down.
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
_VALIDATION = 360


class ClassifiedSequences(NamedTuple):
    """Sequences `[T, N, …]`, float32; a class number for each, `[N]`, int64; the classes' names."""

    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def digits() -> tuple[ClassifiedSequences, ClassifiedSequences]:
    """Pictures of handwritten digits as 8 steps, the rows, of 8 numbers in [0, 1].

    Source: scikit-learn's `load_digits`, 1797 pictures of 8 x 8, from the data set "Optical
    recognition of handwritten digits" (Alpaydin and Kaynak 1998). The last 360, a fifth, are for
    validation.

    Returns:
        training and validation, inputs `[8, N, 8]`; ten classes.

    Raises:
        DataError: scikit-learn is not installed.
    """
    pictures, labels = _pictures()
    names = tuple(map(str, range(10)))
    rows = pictures.transpose(0, 1).contiguous()
    cut = len(labels) - _VALIDATION
    return (
        ClassifiedSequences(rows[:, :cut], labels[:cut], names),
        ClassifiedSequences(rows[:, cut:], labels[cut:], names),
    )


def moving_digits(
    training: int = 2000,
    validation: int = 400,
    frames: int = 8,
    size: int = 16,
    seed: int = 0,
) -> tuple[ClassifiedSequences, ClassifiedSequences]:
    """Videos of a digit that moves over a larger picture; the label is the direction.

    Source: made from `digits`; those of validation are not in training. The picture is a torus:
    what leaves it on one side comes in on the other, and a digit starts anywhere. So no single
    frame tells the direction, only the change from one to the next. Each video moves by 1 or 2
    pixels a frame, in one of the eight `DIRECTIONS`.

    Args:
        training: videos to train on.
        validation: videos to measure on.
        frames: T, at least 2.
        size: rows and columns of the picture, at least 8.
        seed: of what is drawn.

    Returns:
        training and validation, inputs `[T, N, size, size]` in [0, 1].

    Raises:
        ValueError: an argument is out of its range.
        DataError: scikit-learn is not installed.
    """
    least = {"training": 1, "validation": 1, "frames": 2, "size": 8}
    given = {"training": training, "validation": validation, "frames": frames, "size": size}
    for name, value in given.items():
        if value < least[name]:
            raise ValueError(f"{name}: wanted at least {least[name]}, got {value}")
    pictures, _ = _pictures()
    generator = torch.Generator().manual_seed(seed)
    parts = (pictures[:-_VALIDATION], training), (pictures[-_VALIDATION:], validation)
    first, second = (_videos(part, n, frames, size, generator) for part, n in parts)
    return first, second


def _videos(
    pictures: Tensor, count: int, frames: int, size: int, generator: torch.Generator
) -> ClassifiedSequences:
    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count,), generator=generator)

    label, speed = draw(0, len(DIRECTIONS)), draw(1, 3)
    canvas = torch.zeros(count, size, size)
    canvas[:, :8, :8] = pictures[draw(0, len(pictures))]
    step = torch.tensor(list(_STEPS.values()))[label] * speed[:, None]  # [N, 2]
    start = torch.stack([draw(0, size), draw(0, size)], 1)
    time = torch.arange(frames)[:, None, None]
    row, column = (start + step * time).unbind(-1)  # [T, N], of the canvas' corner
    grid = torch.arange(size)
    rows = (grid[:, None] - row[..., None, None]) % size  # [T, N, size, 1]
    columns = (grid - column[..., None, None]) % size  # [T, N, 1, size]
    return ClassifiedSequences(
        canvas[torch.arange(count)[:, None, None], rows, columns], label, DIRECTIONS
    )


def _pictures() -> tuple[Tensor, Tensor]:
    """All pictures `[N, 8, 8]` in [0, 1], and their labels `[N]`."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise DataError(
            "digits: wanted scikit-learn, which brings them, got none; "
            "pip install 'unrolled[train]'"
        ) from None
    data = load_digits()
    return torch.from_numpy(data.images).float() / 16, torch.from_numpy(data.target).long()
