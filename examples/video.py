"""Video classification: a digit moves over the image, and the label is the direction.

    v_t = relu(W x_t + b)        h_t = GRU(v_t, h_{t-1})        ŷ = softmax(V h_T + c)

The direction cannot be predicted from a single frame, only from the change between frames: on the
first frame, the same network guesses, and is correct one time in eight.

    python examples/video.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.nn import GRU
from unrolled.tasks.datasets import DIRECTIONS, ClassifiedSequences, moving_digits


class Video(nn.Module):
    """Frames [T, N, rows, columns] to logits [N, classes]."""

    def __init__(self, pixels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Linear(pixels, 64)
        self.recurrent = GRU(64, 64)
        self.head = nn.Linear(64, classes)

    def forward(self, frames: Tensor) -> Tensor:
        features = torch.relu(self.features(frames.flatten(2)))
        _, h_n = self.recurrent(features)
        logits: Tensor = self.head(h_n[0])
        return logits


def learn(data: ClassifiedSequences, frames: int, epochs: int) -> Video:
    """Train a network on the first frames of the videos, for this number of epochs."""
    torch.manual_seed(0)
    model = Video(data.inputs[0, 0].numel(), len(data.classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for items in torch.randperm(len(data.labels)).split(50):
            loss = F.cross_entropy(model(data.inputs[:frames, items]), data.labels[items])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def accuracy(model: Video, data: ClassifiedSequences, frames: int) -> float:
    """The fraction of videos that are classified correctly from their first frames."""
    with torch.no_grad():
        guesses = model(data.inputs[:frames]).argmax(-1)
    return float((guesses == data.labels).double().mean())


def compare(epochs: int) -> dict[int, float]:
    """The accuracy on held-out videos, by the number of frames."""
    training, validation = moving_digits()
    return {
        frames: accuracy(learn(training, frames, epochs), validation, frames)
        for frames in (1, len(training.inputs))
    }


def main(epochs: int = 12) -> None:
    print(f"directions: {', '.join(DIRECTIONS)}")
    for frames, fraction in compare(epochs).items():
        print(
            f"{frames} frame{'s' if frames > 1 else ''}: {fraction:.1%} of 400 held-out videos are "
            "correct"
        )


if __name__ == "__main__":
    main()
