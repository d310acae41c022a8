"""A video told from its frames: a digit moves over a picture, and the label is where to.

    v_t = relu(W x_t + b)        h_t = GRU(v_t, h_{t-1})        ŷ = softmax(V h_T + c)

No single frame tells the direction, only the change from one to the next: the same network on the
first frame alone can but guess, one time in eight.

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
        _, last = self.recurrent(features)
        return self.head(last[0])


def learn(data: ClassifiedSequences, frames: int, epochs: int) -> Video:
    """A network that has seen the first frames of the videos so many times."""
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
    """The part of videos that the network tells right from the first frames."""
    with torch.no_grad():
        guesses = model(data.inputs[:frames]).argmax(-1)
    return (guesses == data.labels).double().mean().item()


def compare(epochs: int) -> dict[int, float]:
    """Accuracy on unseen videos by the number of frames."""
    training, validation = moving_digits()
    return {
        frames: accuracy(learn(training, frames, epochs), validation, frames)
        for frames in (1, len(training.inputs))
    }


def main(epochs: int = 12) -> None:
    print(f"directions: {', '.join(DIRECTIONS)}")
    for frames, right in compare(epochs).items():
        print(f"{frames} frame{'s' if frames > 1 else ''}: {right:.1%} of 400 unseen videos right")


if __name__ == "__main__":
    main()
