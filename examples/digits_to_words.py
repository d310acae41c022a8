"""Image captioning: features of an image are the initial state of a network that writes a caption.

    h_0 = tanh(W₂ relu(W₁ image + b₁) + b₂)
    h_t = GRU(character_{t-1}, h_{t-1})        o_t = V h_t + c

The images are scikit-learn's handwritten digits (8×8), the captions their English words. In
training the network reads the true characters; afterwards it reads its own predictions until it
predicts the end. This is a small version of Show and Tell (Vinyals et al. 2015).

    python examples/digits_to_words.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unrolled.nn import GRU

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
END = "."  # also the first input
LETTERS = END + "".join(sorted(set("".join(WORDS))))
T = max(map(len, WORDS)) + 1


class Writer(nn.Module):
    """Predicts the characters of a caption; the initial state is computed from the image."""

    def __init__(self, pixels: int = 64, H: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(pixels, H), nn.ReLU(), nn.Linear(H, H), nn.Tanh())
        self.embed = nn.Embedding(len(LETTERS), 16)
        self.recurrent = GRU(16, H)
        self.head = nn.Linear(H, len(LETTERS))

    def forward(self, images: Tensor, read: Tensor) -> Tensor:
        """Logits [T, N, K] after each of the characters [T, N], for images [N, 64]."""
        h_0 = self.features(images).unsqueeze(0)  # [1, N, H]
        y, _ = self.recurrent(self.embed(read), h_0)
        logits: Tensor = self.head(y)
        return logits

    @torch.no_grad()
    def write(self, images: Tensor) -> list[str]:
        """The captions by greedy decoding."""
        h = self.features(images).unsqueeze(0)
        read = torch.zeros(1, len(images), dtype=torch.long)
        predicted = []
        for _ in range(T):
            y, h = self.recurrent(self.embed(read), h)
            read = self.head(y).argmax(-1)
            predicted.append(read)
        rows = torch.cat(predicted).T.tolist()
        return ["".join(LETTERS[k] for k in row).split(END)[0] for row in rows]


def data(seed: int) -> tuple[Tensor, Tensor]:
    """Images [1797, 64] in [0, 1] and digits [1797], shuffled."""
    digits = load_digits()
    order = torch.randperm(
        len(digits.target), generator=torch.Generator().manual_seed(seed)
    ).numpy()
    images = torch.tensor(digits.data[order] / 16, dtype=torch.float32)
    return images, torch.tensor(digits.target[order])


def train(images: Tensor, digits: Tensor, seed: int = 0, epochs: int = 30) -> Writer:
    """Fit all characters of the words, including the padding with the end character."""
    torch.manual_seed(seed)
    words = torch.tensor([[LETTERS.index(k) for k in word.ljust(T, END)] for word in WORDS])
    writer = Writer()
    optimizer = torch.optim.Adam(writer.parameters(), lr=0.005)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            targets = words[digits[rows]].T  # [T, N]
            read = F.pad(targets[:-1], (0, 0, 1, 0), value=LETTERS.index(END))
            logits = writer(images[rows], read)
            optimizer.zero_grad()
            F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
    return writer


def captions(seed: int = 0, epochs: int = 30) -> list[tuple[str, str]]:
    """The predicted and the true word for each of 450 held-out images."""
    images, digits = data(seed)
    held_out = 450
    writer = train(images[held_out:], digits[held_out:], seed, epochs)
    true_words = [WORDS[digit] for digit in digits[:held_out]]
    return list(zip(writer.write(images[:held_out]), true_words, strict=True))


def main() -> None:
    torch.set_num_threads(1)  # more threads are slower at these sizes
    results = captions()
    correct = sum(predicted == word for predicted, word in results)
    print(f"{correct} of {len(results)} words are correct, {correct / len(results):.1%}")
    print("first:", ", ".join(predicted for predicted, _ in results[:8]))
    print("wrong:", ", ".join(f"{a} for {b}" for a, b in results if a != b))


if __name__ == "__main__":
    main()
