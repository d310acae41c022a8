"""Gradients by lag: how much of the past reaches the present, and whether it vanishes or explodes.

Measurements only; they are drawn in `pictures`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled.diagnostics.steps import Steps, check_layer, unroll
from unrolled.nn import Recurrent

__all__ = ["GradientByLag", "gradient_by_lag", "input_gradient_by_lag"]


@dataclass(frozen=True)
class GradientByLag:
    """Of one layer in one direction: `norms` [K + 1], float64, at lags 0 to K; `norms[0]` is 1."""

    layer: int
    reverse: bool
    norms: Tensor


def gradient_by_lag(
    layer: Recurrent,
    x: Tensor,
    hx: Any = None,
    *,
    lags: int | None = None,
    directions: int | None = None,
    seed: int = 0,
) -> list[GradientByLag]:
    r"""The size of the Jacobian of the last state by the state k steps before it.

    With s_t all states of a layer side by side (of an LSTM h and c), S numbers together,

        ∂s_T/∂s_{T-k} = J_T J_{T-1} … J_{T-k+1}        J_t = ∂s_t/∂s_{t-1}
        norm(k) = sqrt(mean over n of ‖∂s_T/∂s_{T-k}‖²_F / S)

    the root mean square factor by which a small change of the state has grown or shrunk k steps
    later. It begins at 1 for every cell and depends on no loss and no output layer, so that cells
    can be compared. A geometric fall is a vanishing gradient, a geometric rise an exploding one
    (Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013). Layers of a stack and
    directions are measured each for itself, on the inputs that they get there: no gradient comes
    back to a layer's past through another layer. Computed in float64.

    Args:
        x: `[T, N, I]`, with `batch_first` `[N, T, I]`, unbatched `[T, I]`; of equal lengths.
        hx: the states before the first step, as the layer takes them; zeros if None.
        lags: the largest lag K, at most T; None for T.
        directions: None computes whole Jacobians; a number, that many random orthogonal directions
            of s_T, whose mean square estimates that of all without bias, at S/directions of the
            cost.
        seed: of the directions; torch's own generator is not used.

    Raises:
        ValueError: the shape of `x` or `hx`, `lags` or `directions` is out of its range.
    """
    check_layer(layer)
    T = x.shape[1] if layer.batch_first and x.dim() == 3 else x.shape[0]
    K = T if lags is None else lags
    if not 1 <= K <= T:
        raise ValueError(f"lags: wanted 1 to the number of steps, {T}, got {lags}")
    if directions is not None and directions < 1:
        raise ValueError(f"directions: wanted at least 1, got {directions}")
    double = copy.deepcopy(layer).double().requires_grad_(False)
    return [
        GradientByLag(steps.place.layer, steps.place.reverse, _norms(steps, K, directions, seed))
        for steps in unroll(double, x, hx)
    ]


def _norms(steps: Steps, lags: int, directions: int | None, seed: int) -> Tensor:
    first = steps.states[0]
    widths = [state.shape[1] for state in first]
    N, S = first[0].shape[0], sum(widths)
    rows = _directions(S, min(directions or S, S), seed).to(first[0])
    slopes = rows[:, None].expand(-1, N, -1).split(widths, -1)  # [V, N, width] each
    norms = [1.0]
    T = len(steps.inputs)
    for t in reversed(range(T - lags, T)):
        before = tuple(state.clone().requires_grad_() for state in steps.states[t])
        with torch.enable_grad():
            after = steps.advance(t, before)
        pairs = [(a, s) for a, s in zip(after, slopes, strict=True) if a.requires_grad]
        slopes = torch.autograd.grad(
            [a for a, _ in pairs],
            before,
            [s for _, s in pairs],
            is_grads_batched=True,
            materialize_grads=True,
        )
        squares = sum(slope.square().sum().item() for slope in slopes)
        norms.append((squares / (len(rows) * N)) ** 0.5)
    return torch.tensor(norms, dtype=torch.float64)


def _directions(S: int, count: int, seed: int) -> Tensor:
    """Orthonormal rows [count, S]."""
    if count == S:
        return torch.eye(S, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(S, count, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(drawn)[0].T


def input_gradient_by_lag(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Norms `[T]` of ∂loss/∂x_{T-k}, k = 0 … T - 1, over all but the first axis of x.

    What the inputs of k steps ago still do to a loss of the last step (Pascanu, Mikolov & Bengio
    2013): beside `gradient_by_lag` it contains the input's weights and whatever stands above, and
    it runs on any engine, through whole stacks and models.

    Args:
        loss: from an input like x to a tensor with one element, for example
            `lambda x: layer(x)[0][-1].sum()`.
        x: `[T, ...]`, time first.

    Raises:
        ValueError: the loss has more than one element, or does not depend on x.
    """
    leaf = x.detach().clone().requires_grad_()
    value = loss(leaf)
    if value.numel() != 1 or not value.requires_grad:
        raise ValueError(
            f"loss: wanted one number that depends on x, got shape {list(value.shape)}"
            + ("" if value.requires_grad else " without a gradient")
        )
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return slope.flatten(1).norm(dim=1).flip(0)
