"""Digits of scikit-learn as rows of pictures, and as videos of moving digits."""

import math

import pytest
import torch

from unrolled.tasks.datasets import (
    DIRECTIONS,
    digits,
    moving_digits,
)


def test_digits_are_rows_of_scikit_learns_pictures() -> None:
    from sklearn.datasets import load_digits

    data = load_digits()
    training, validation = digits()
    assert training.inputs.shape == (8, 1437, 8)
    assert validation.inputs.shape == (8, 360, 8)
    images = torch.cat([training.inputs, validation.inputs], 1)
    for t, n in ((0, 0), (3, 77), (7, 1796)):
        assert (images[t, n] * 16).tolist() == data.images[n][t].tolist()
    assert torch.cat([training.labels, validation.labels]).tolist() == data.target.tolist()
    assert training.classes[3] == "3"
    assert images.max() == 1.0


def test_digits_move_as_their_label_says() -> None:
    steps = {"up": -1, "down": 1, "left": -1, "right": 1}
    training, validation = moving_digits(60, 30, frames=5, size=11, seed=3)
    assert training.inputs.shape == (5, 60, 11, 11)
    assert validation.inputs.shape == (5, 30, 11, 11)
    speeds = set()
    for video, label in zip(training.inputs.unbind(1), training.labels, strict=True):
        words = DIRECTIONS[label].split()
        rows = sum(steps[w] for w in words if w in ("up", "down"))
        columns = sum(steps[w] for w in words if w in ("left", "right"))
        assert (rows, columns) != (0, 0)
        fits = [
            speed
            for speed in (1, 2)
            if all(
                torch.equal(video[t].roll((speed * rows, speed * columns), (0, 1)), video[t + 1])
                for t in range(4)
            )
        ]
        assert len(fits) == 1
        speeds.update(fits)
    assert speeds == {1, 2}
    assert set(training.labels.tolist()) == set(range(8))


def test_videos_show_digits_that_training_lacks() -> None:
    def shapes(part: torch.Tensor) -> set[tuple[float, ...]]:
        return {tuple(sorted(frame.flatten().tolist())) for frame in part[0]}

    training, validation = moving_digits(300, 100, frames=2, size=8)
    still = [digits()[i].inputs.transpose(0, 1).flatten(1) for i in range(2)]
    digit_shapes = [{tuple(sorted(picture.tolist())) for picture in part} for part in still]
    assert shapes(training.inputs) <= digit_shapes[0]
    assert shapes(validation.inputs) <= digit_shapes[1]
    assert not digit_shapes[0] & digit_shapes[1]


def test_no_single_frame_shows_the_direction() -> None:
    training, _ = moving_digits(4000, 1, frames=3, size=12)
    mass = training.inputs.sum((2, 3), keepdim=True)
    angle = torch.arange(12) * (2 * math.pi / 12)
    for t in range(3):
        frame = training.inputs[t] / mass[t]
        for direction in range(8):
            of_it = frame[training.labels == direction]
            for axis in (1, 2):
                along = of_it.sum(3 - axis)
                mean = torch.stack([(along * angle.cos()).sum(1), (along * angle.sin()).sum(1)])
                # About 500 directions on the circle: their mean is shorter than 3 deviations.
                assert mean.mean(1).norm() < 3 / 500**0.5


def test_the_seed_decides_the_videos() -> None:
    videos, repeated_videos, other_videos = (
        moving_digits(20, 5, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(videos.inputs, repeated_videos.inputs)
    assert not torch.equal(videos.inputs, other_videos.inputs)
    for name, least in (("training", 1), ("validation", 1), ("frames", 2), ("size", 8)):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {least - 1}"):
            moving_digits(**{name: least - 1})
