"""A whole training step of a small language model: ours and torch's, in float32 and under autocast.

    python benchmarks/training_step.py [--rounds 15] [--threads 2] [--only REGEX] [--quick]

Embedding, one recurrent layer, linear head, cross-entropy, clipping of gradients and a fused AdamW,
written once for both; they differ in the class of the layer. `unrolled lm` is the model that
`unrolled train lm` trains, without its trainer. The state is carried from step to step. The
gradients of the first step are compared with those of torch's model in float64.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness
from checks import Results
from harness import Row, Settings
from peers import OURS, Peer
from unrolled import nn as unrolled_nn
from unrolled.models import LanguageModel

CELLS = ("LSTM", "GRU")
SHAPE = (64, 32, 256, 256)  # T, N, width of the embedding and of the layer, V
QUICK_SHAPE = (5, 3, 16, 16)

Step = Callable[[], None]


class Model(nn.Module):
    """A language model as a user of torch writes it."""

    def __init__(self, layer: nn.Module, H: int, V: int) -> None:
        super().__init__()
        self.encoder = nn.Embedding(V, H)
        self.recurrent = layer
        self.head = nn.Linear(H, V)

    def forward(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.recurrent(self.encoder(tokens), state)
        return self.head(hidden), state


def rows(settings: Settings) -> list[Row]:
    """Each cell in float32 and under bfloat16 autocast."""
    T, N, H, V = QUICK_SHAPE if settings.quick else SHAPE
    table = []
    for cell in CELLS:
        for precision in ("float32", "autocast"):
            name = f"{cell} {T},{N},{H},{V} step {precision}"
            if settings.wants(name):
                table.append(_row(name, cell, precision == "autocast", (T, N, H, V), settings))
    return table


def _row(
    name: str, cell: str, autocast: bool, shape: tuple[int, int, int, int], settings: Settings
) -> Row:
    T, N, H, V = shape
    torch.manual_seed(0)
    tokens, targets = torch.randint(V, (2, T, N))
    theirs = Model(getattr(nn, cell)(H, H), H, V)
    models: dict[str, nn.Module] = {
        "torch": theirs,
        OURS: Model(getattr(unrolled_nn, cell)(H, H), H, V),
        f"{OURS} lm": LanguageModel(V, H, cell=cell, embedding_size=H),
    }
    expected = _expected(theirs, tokens, targets)
    peers, truths = {}, {}
    for who, model in models.items():
        model.load_state_dict(theirs.state_dict())
        step = _make_step(model, tokens, targets, autocast)
        peers[who] = Peer(step, _reader(model, autocast))
        truths[who] = expected
    measured = harness.measure(name, peers, truths, True, settings.plan)
    sizes = dict(zip(("T", "N", "H", "V"), shape, strict=True))
    return {**measured, "cell": cell, "precision": "bfloat16" if autocast else "float32", **sizes}


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _make_step(model: nn.Module, tokens: Tensor, targets: Tensor, autocast: bool) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    carried: list[Any] = [None]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits, state = model(tokens, carried[0])
            loss = _loss(logits, targets)
        carried[0] = (
            tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _reader(model: nn.Module, autocast: bool) -> Callable[[Any], Results]:
    """Reads the gradients, under autocast as bfloat16, whose tolerance applies."""

    def read(_: Any) -> Results:
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return {name: g.bfloat16() if autocast else g.clone() for name, g in gradients.items()}

    return read


def _expected(model: nn.Module, tokens: Tensor, targets: Tensor) -> Results:
    """The clipped gradients of the first step in float64."""
    exact = copy.deepcopy(model).double()
    _loss(exact(tokens, None)[0], targets).backward()
    nn.utils.clip_grad_norm_(exact.parameters(), 1.0)
    return {name: p.grad for name, p in exact.named_parameters() if p.grad is not None}


if __name__ == "__main__":
    harness.main(__doc__, {"training_step": rows})
