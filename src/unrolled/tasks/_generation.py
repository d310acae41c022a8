"""Sampling text from a language model, one token at a time, with the state carried along."""

import torch
from torch import Tensor

from unrolled.models import LanguageModel
from unrolled.nn.types import HiddenState


def distribution(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """The probabilities `[V]` from which the next token is sampled, given its logits `[V]`.

    Args:
        logits: of any floating dtype; the result is float32 (float64 stays float64).
        temperature: divides the logits; 0 gives the most likely token probability 1.
        top_k: keep the k most likely tokens; None keeps all.
        top_p: then keep the most likely tokens, until their probabilities (after temperature and
            top_k) sum to `top_p` or more; at least one is kept.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """
    _check("distribution", temperature, top_k, top_p)
    logits = logits.float() if logits.dtype != torch.float64 else logits
    if temperature == 0.0 or top_k == 1:
        return torch.zeros_like(logits).scatter_(0, logits.argmax().view(1), 1.0)
    # The largest becomes 0 first, so that no division by a small temperature overflows.
    scaled = (logits - logits.max()) / temperature
    ordered, tokens = scaled.sort(descending=True, stable=True)
    probabilities = torch.softmax(ordered[:top_k], 0)
    sum_before = probabilities.cumsum(0) - probabilities
    if top_p < 1.0:
        # The most likely token stays, whatever rounding does to a tiny top_p.
        dropped = sum_before >= top_p
        dropped[0] = False
        probabilities = probabilities.masked_fill(dropped, 0.0)
        probabilities = probabilities / probabilities.sum()
    return torch.zeros_like(logits).scatter_(0, tokens[:top_k], probabilities)


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
        prefix: token numbers `[tokens]`, at least one, which warm up the hidden state; they are not
            part of the result.
        length: the number of tokens to generate.
        temperature, top_k, top_p: see `distribution`.
        generator: random number generator on the CPU; torch's default if None.

    Returns:
        Token numbers `[length]`, int64 on the CPU.

    Raises:
        ValueError: an argument is out of its range, the message names it; or the logits of the
            model are NaN.
    """
    _check("generate", temperature, top_k, top_p)
    if prefix.dim() != 1 or len(prefix) < 1:
        raise ValueError(
            f"generate: prefix must have at least one token, got shape {list(prefix.shape)}"
        )
    if length < 0:
        raise ValueError(f"generate: length must be at least 0, got {length}")
    device = next(model.parameters()).device
    tokens = prefix.long().to(device).unsqueeze(1)
    state: HiddenState | None = None
    generated = []
    for _ in range(length):
        logits, state = model(tokens, state)
        probabilities = distribution(logits[-1, 0].cpu(), temperature, top_k, top_p)
        if bool(probabilities.isnan().any()):
            raise ValueError("generate: the model's logits are NaN; its weights are too large")
        # A draw advances the generator even if the outcome is certain.
        token = torch.multinomial(probabilities, 1, generator=generator)
        generated.append(token)
        tokens = token.to(device).unsqueeze(1)
    return torch.cat(generated) if generated else torch.empty(0, dtype=torch.int64)


def _check(function: str, temperature: float, top_k: int | None, top_p: float) -> None:
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"{function}: temperature must be at least 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"{function}: top_k must be at least 1, got {top_k}")
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"{function}: top_p must be above 0 and at most 1, got {top_p}")
