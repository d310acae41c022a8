"""A conditioned start: features of a picture start the network that writes its caption.

    h_0 = tanh(W₂ relu(W₁ image + b₁) + b₂)
    h_t = GRU(character_{t-1}, h_{t-1})        o_t = V h_t + c

Pictures are scikit-learn's handwritten digits (8×8), captions their English words. In training the
writer reads the true characters; then it reads its own, until it writes the end. Show and Tell
(Vinyals et al. 2015) in small.

    python examples/digits_to_words.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unrolled.nn import GRU

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
END = "."  # also what the writer reads first
LETTERS = END + "".join(sorted(set("".join(WORDS))))
T = max(map(len, WORDS)) + 1


class Writer(nn.Module):
    """A picture's features are the state that the characters start from."""

    def __init__(self, pixels: int = 64, H: int = 64) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Linear(pixels, H), nn.ReLU(), nn.Linear(H, H), nn.Tanh())
        self.embed = nn.Embedding(len(LETTERS), 16)
        self.recurrent = GRU(16, H)
        self.head = nn.Linear(H, len(LETTERS))

    def forward(self, images: Tensor, read: Tensor) -> Tensor:
        """Logits [T, N, K] after reading the characters [T, N], for images [N, 64]."""
        h_0 = self.look(images).unsqueeze(0)  # [1, N, H]
        y, _ = self.recurrent(self.embed(read), h_0)
        return self.head(y)

    @torch.no_grad()
    def write(self, images: Tensor) -> list[str]:
        """The likeliest word, character by character."""
        h = self.look(images).unsqueeze(0)
        read = torch.zeros(1, len(images), dtype=torch.long)
        written = []
        for _ in range(T):
            y, h = self.recurrent(self.embed(read), h)
            read = self.head(y).argmax(-1)
            written.append(read)
        rows = torch.cat(written).T.tolist()
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
    """Fit all characters of the words, the end that fills them up included."""
    torch.manual_seed(seed)
    words = torch.tensor([[LETTERS.index(k) for k in word.ljust(T, END)] for word in WORDS])
    writer = Writer()
    optimizer = torch.optim.Adam(writer.parameters(), lr=0.005)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            wanted = words[digits[rows]].T  # [T, N]
            read = F.pad(wanted[:-1], (0, 0, 1, 0), value=LETTERS.index(END))
            logits = writer(images[rows], read)
            optimizer.zero_grad()
            F.cross_entropy(logits.flatten(0, 1), wanted.flatten()).backward()
            optimizer.step()
    return writer


def captions(seed: int = 0, epochs: int = 30) -> list[tuple[str, str]]:
    """What is written of each of 450 pictures kept from training, and the right word."""
    images, digits = data(seed)
    kept = 450
    writer = train(images[kept:], digits[kept:], seed, epochs)
    right = [WORDS[digit] for digit in digits[:kept]]
    return list(zip(writer.write(images[:kept]), right, strict=True))


def main() -> None:
    torch.set_num_threads(1)  # at these sizes a second thread costs more than it brings
    results = captions()
    correct = sum(written == word for written, word in results)
    print(f"{correct} of {len(results)} words exactly right, {correct / len(results):.1%}")
    print("first:", ", ".join(written for written, _ in results[:8]))
    print("wrong:", ", ".join(f"{a} for {b}" for a, b in results if a != b))


if __name__ == "__main__":
    main()
