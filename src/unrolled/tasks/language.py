"""Loss and measures of language models, and reading a trained one back."""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled.io import FileError
from unrolled.models import LanguageModel, load_tree
from unrolled.models.language import State
from unrolled.tasks.vocabulary import Vocabulary
from unrolled.tasks.windows import Window

__all__ = ["Score", "detach", "load_language_model", "loss", "score"]


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy over `tokens` predicted tokens, in nats a token, and its other units."""

    loss: float
    tokens: int = 1

    @property
    def bits_per_character(self) -> float:
        """The loss in bits a token; a token is a byte or a character, as the vocabulary has it."""
        return self.loss / math.log(2)

    @property
    def perplexity(self) -> float:
        """The number of equally likely tokens that would be as hard to guess."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}  {self.bits_per_character:.4f} bits/char  "
            f"perplexity {self.perplexity:.3f}"
        )


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits `[T, N, V]` against targets `[T, N]`, in nats a token."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def detach(state: State) -> State:
    """The same state, cut off from the graph that led to it."""
    return state.detach() if isinstance(state, Tensor) else (state[0].detach(), state[1].detach())


@torch.no_grad()
def score(model: LanguageModel, windows: Iterable[Window]) -> Score:
    """Measure a model on consecutive windows, the state carried from each to the next.

    The model is measured in the mode it is in: call `model.eval()` before if it has dropout.
    """
    device = next(model.parameters()).device
    state: State | None = None
    total, tokens = 0.0, 0
    for window in windows:
        before = None if window.first else state
        logits, state = model(window.inputs.to(device), before)
        total += loss(logits, window.targets.to(device)).item() * window.targets.numel()
        tokens += window.targets.numel()
    return Score(total / tokens, tokens)


def load_language_model(path: str | os.PathLike[str]) -> tuple[LanguageModel, Vocabulary]:
    """Read the model, in evaluation mode, and its vocabulary from a checkpoint file.

    Raises:
        unrolled.io.FileError: no such file, or it is damaged, or holds no language model.
    """
    tree = load_tree(path)
    try:
        vocabulary = Vocabulary.from_state(tree["vocabulary"])
        model = LanguageModel(**tree["model"])
        weights = {k.removeprefix("model."): v for k, v in tree["state_dict"].items()}
        model.load_state_dict(weights)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise FileError(path, f"holds no language model ({error})".replace("\n", " ")) from None
    return model.eval(), vocabulary
