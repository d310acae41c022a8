"""Convert a model of torch.nn's layers, and convert it back: same parameters, same numbers.

`convert` reports what it replaced, and which modules check for torch's classes: this model does so
to select h from the states. With `subclass=True` the new layers are instances of torch's classes,
too.

    python examples/convert_model.py
"""

import torch
from torch import Tensor, nn

from unrolled.nn import convert


class Tagger(nn.Module):
    """Predicts a tag for each step; the final state is added to every step."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.layer = layer
        self.head = nn.Linear(32, 5)

    def forward(self, words: Tensor) -> Tensor:
        y, state = self.layer(self.embed(words))  # [T, N, H]
        h = state[0] if isinstance(self.layer, nn.LSTM) else state  # [1, N, H]
        logits: Tensor = self.head(y + h)  # [T, N, 5]
        return logits


def main() -> None:
    torch.manual_seed(0)
    words = torch.randint(100, (12, 3))  # [T, N]
    models = nn.ModuleDict({"gru": Tagger(nn.GRU(16, 32)), "lstm": Tagger(nn.LSTM(16, 32))})
    expected = {name: model(words) for name, model in models.items()}
    parameters = list(models.parameters())

    print(f"convert(models)\n{convert(models)}\n")
    print(f"convert(models, subclass=True)\n{convert(models, subclass=True)}\n")
    is_same = all(p is q for p, q in zip(models.parameters(), parameters, strict=True))
    print(f"the same parameters: {is_same}")
    for name, model in models.items():
        error = (model(words) - expected[name]).abs().max()
        print(f"{name}: torch's outputs and ours differ by {error:.1e}")

    convert(models, to="torch")
    error = max((model(words) - expected[name]).abs().max() for name, model in models.items())
    print(f"after converting back they differ by {error:.1e}")


if __name__ == "__main__":
    main()
