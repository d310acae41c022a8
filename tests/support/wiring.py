"""What models have around their layers, with torch's modules and plain loops, one sequence at a
time, so that there is no padding. The numbers are those of the model's own parameters.
"""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from tests.support import subjects
from tests.support.subjects import unpack
from unrolled.models import EncoderDecoder, Pooling, SequenceModel, Tagger
from unrolled.nn import Recurrent

Parts = tuple[Tensor, ...]

PEEPHOLE = f"{subjects.__file__}:Peephole"
"""A cell of a file, with two states of different widths."""


def drawn(model: Any, scale: float = 0.5, seed: int = 0) -> Any:
    """A model in float64 in evaluation mode, with random values in all parameters."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.double().parameters():
        parameter.data.normal_(0.0, scale, generator=generator)
    return model.eval()


def layers(stack: Recurrent, x: Tensor, hx: Parts | None = None) -> tuple[Tensor, Parts]:
    """torch.nn's layers, each a module of its own: output [T, 1, width] of x [T, 1, I]; states."""
    layer_class = getattr(torch.nn, type(stack).__name__)
    D, finals = 1 + stack.bidirectional, []
    rows = D * stack.num_layers
    if hx is None:
        count = 2 if layer_class is torch.nn.LSTM else 1
        hx = tuple(x.new_zeros(rows, 1, stack.hidden_size) for _ in range(count))
    for layer in range(stack.num_layers):
        initial = [part[layer * D : (layer + 1) * D] for part in hx]
        module = layer_class(x.shape[-1], stack.hidden_size, bidirectional=D == 2, dtype=x.dtype)
        numbers = {
            name: getattr(stack, name.replace("_l0", f"_l{layer}"))
            for name, _ in module.named_parameters()
        }
        hidden = initial[0] if len(initial) == 1 else tuple(initial)
        if len(x):
            x, final = functional_call(module, numbers, (x, hidden))
        else:
            x, final = x.new_zeros(0, 1, D * stack.hidden_size), hidden
        if stack.merge == "sum" and D == 2:
            x = x[..., : stack.hidden_size] + x[..., stack.hidden_size :]
        finals.append(unpack(final))
    return x, tuple(torch.cat(parts) for parts in zip(*finals, strict=True))


def pooled(pooling: Pooling, outputs: Tensor, final: Tensor) -> Tensor:
    """One vector of outputs [T, width] and the output state [L·D, 1, H], step by step."""
    if pooling.name == "last":
        return final[-1, 0] if pooling.directions == 1 else torch.cat([final[-2, 0], final[-1, 0]])
    total, divisor = torch.zeros(outputs.shape[1:], dtype=outputs.dtype), 0.0
    if not len(outputs):
        return total
    if pooling.name == "max":
        return torch.stack([max(column) for column in outputs.t()])
    for y in outputs:
        weight = 1.0
        if pooling.name == "attention":
            keys = torch.tanh(pooling.keys.weight @ y + pooling.keys.bias)
            weight = torch.exp(pooling.query.weight[0] @ keys)
        total, divisor = total + weight * y, divisor + weight
    return total / divisor


def sequence(model: SequenceModel, input: Tensor, hx: Parts | None = None) -> tuple[Tensor, Parts]:
    """What the model says of one sequence [T] or [T, F]: [T, outputs] or [outputs]; states."""
    input_kind = model.arguments["input"]
    if input_kind == "embedding":
        x = model.encoder.weight[input]
    elif input_kind == "one-hot":
        x = F.one_hot(input, model.encoder.num_classes).double()
    else:
        x = input
    if hx is None and model.start is not None:
        hx = tuple(model.start.states)
    outputs, final = layers(model.recurrent, x[:, None], hx)
    hidden = outputs[:, 0]
    if model.pooling is not None:
        hidden = pooled(model.pooling, hidden, final[0])
    return hidden @ model.head.weight.t() + model.head.bias, final


def tagger(model: Tagger, words: Tensor, spelt: list[Tensor]) -> Tensor:
    """Logits [T, labels] of words [T], spelt in characters."""
    hidden = model.words.weight[words]
    if model.characters is not None:
        ends = []
        for letters in spelt:
            _, final = layers(model.spelling, model.characters.weight[letters][:, None])
            ends.append(torch.cat([final[0][0, 0], final[0][1, 0]]))
        hidden = torch.cat([hidden, torch.stack(ends)], -1)
    outputs, _ = layers(model.recurrent, hidden[:, None])
    return outputs[:, 0] @ model.head.weight.t() + model.head.bias


def translation(model: EncoderDecoder, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [U, V] of the tokens that follow the target's [U], for the source [T]; weights of
    attention [U, T], zero without it.
    """
    memory, hx = layers(model.encoder, model.source.weight[source][:, None])
    if model.encoder.bidirectional:
        hx = tuple(part[0::2] + part[1::2] for part in hx)
    logits, looks = [], []
    for token in target:
        y, hx = layers(model.decoder, model.target.weight[token][None, None], hx)
        y, look = y[0, 0], torch.zeros(len(source), dtype=y.dtype)
        if model.attention is not None:
            scores = [torch.exp(m @ y) for m in memory[:, 0]]
            if scores:
                look = torch.stack(scores) / sum(scores)
            context = sum((a * m for a, m in zip(look, memory[:, 0], strict=True)), 0 * y)
            combine = model.attention.combine
            y = torch.tanh(combine.weight @ torch.cat([context, y]) + combine.bias)
        logits.append(model.head.weight @ y + model.head.bias)
        looks.append(look)
    return torch.stack(logits), torch.stack(looks)
