"""A model of torch's layers, converted and back: the same parameters, the same numbers.

`convert` says what it replaced, and which modules ask for torch's classes: this one does, to find h
among its states. With `subclass=True` its layers are instances of torch's classes and of ours.

    python examples/convert_model.py
"""

import torch
from torch import Tensor, nn

from unrolled.nn import convert


class Tagger(nn.Module):
    """A tag for each step; the end of the sentence is added to every step."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.layer = layer
        self.head = nn.Linear(32, 5)

    def forward(self, words: Tensor) -> Tensor:
        y, state = self.layer(self.embed(words))  # [T, N, H]
        h = state[0] if isinstance(self.layer, nn.LSTM) else state  # [1, N, H]
        return self.head(y + h)  # [T, N, 5]


def main() -> None:
    torch.manual_seed(0)
    words = torch.randint(100, (12, 3))  # [T, N]
    models = nn.ModuleDict({"gru": Tagger(nn.GRU(16, 32)), "lstm": Tagger(nn.LSTM(16, 32))})
    wanted = {name: model(words) for name, model in models.items()}
    before = list(models.parameters())

    print(f"convert(models)\n{convert(models)}\n")
    print(f"convert(models, subclass=True)\n{convert(models, subclass=True)}\n")
    same = all(p is q for p, q in zip(models.parameters(), before, strict=True))
    print(f"the same parameters: {same}")
    for name, model in models.items():
        apart = (model(words) - wanted[name]).abs().max()
        print(f"{name}: torch's outputs and ours differ by {apart:.1e}")

    convert(models, to="torch")
    apart = max((model(words) - wanted[name]).abs().max() for name, model in models.items())
    print(f"there and back they differ by {apart:.1e}")


if __name__ == "__main__":
    main()
