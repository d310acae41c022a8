"""Writing text with a language model, one token at a time, the state carried from step to step."""

import torch
from torch import Tensor

from unrolled.models import LanguageModel
from unrolled.nn.types import HiddenState

__all__ = ["distribution", "generate"]


def distribution(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """The probabilities `[V]` from which the next token is drawn, given its logits `[V]`.

    Args:
        logits: of any floating dtype; the result is float32 (float64 stays).
        temperature: divides the logits; 0 puts all probability on the likeliest token.
        top_k: keep the k likeliest tokens; None keeps all.
        top_p: then keep the likeliest tokens up to the first with which their probabilities, as
            the former two left them, sum to `top_p` or more. At least one is kept.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """
    _check(temperature, top_k, top_p)
    logits = logits.float() if logits.dtype != torch.float64 else logits
    if temperature == 0.0 or top_k == 1:
        return torch.zeros_like(logits).scatter_(0, logits.argmax().view(1), 1.0)
    # The largest becomes 0 first, so that no division by a small temperature overflows.
    scaled = (logits - logits.max()) / temperature
    ordered, places = scaled.sort(descending=True, stable=True)
    probabilities = torch.softmax(ordered[:top_k], 0)
    before = probabilities.cumsum(0) - probabilities
    if top_p < 1.0:
        # The likeliest stays, whatever rounding does to a tiny top_p.
        dropped = before >= top_p
        dropped[0] = False
        probabilities = probabilities.masked_fill(dropped, 0.0)
        probabilities = probabilities / probabilities.sum()
    return torch.zeros_like(logits).scatter_(0, places[:top_k], probabilities)


@torch.no_grad()
def generate(
    model: LanguageModel,
    prefix: Tensor,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue a text.

    Args:
        model: in evaluation mode if it has dropout.
        prefix: token numbers `[tokens]`, one or more: they bring the state up, and are not repeated
            in the result.
        length: the number of tokens to write.
        temperature, top_k, top_p: see `distribution`.
        generator: the source of chance, on the CPU; torch's own if None.

    Returns:
        Token numbers `[length]`, int64 on the CPU.

    Raises:
        ValueError: an argument is out of its range, the message names it; or the model's logits
            are no numbers.
    """
    _check(temperature, top_k, top_p)
    if prefix.dim() != 1 or len(prefix) < 1:
        raise ValueError(f"prefix: wanted one token or more, got shape {list(prefix.shape)}")
    if length < 0:
        raise ValueError(f"length: wanted 0 or more, got {length}")
    device = next(model.parameters()).device
    tokens = prefix.long().to(device).unsqueeze(1)
    state: HiddenState | None = None
    written = []
    for _ in range(length):
        logits, state = model(tokens, state)
        chances = distribution(logits[-1, 0].cpu(), temperature, top_k, top_p)
        if bool(chances.isnan().any()):
            raise ValueError("the model's logits are no numbers: its weights are too large")
        # A draw consumes the generator also where the outcome is certain: no special case.
        token = torch.multinomial(chances, 1, generator=generator)
        written.append(token)
        tokens = token.to(device).unsqueeze(1)
    return torch.cat(written) if written else torch.empty(0, dtype=torch.int64)


def _check(temperature: float, top_k: int | None, top_p: float) -> None:
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"temperature: wanted 0 or more, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: wanted 1 or more, got {top_k}")
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p: wanted above 0 and at most 1, got {top_p}")
