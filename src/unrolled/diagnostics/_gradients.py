"""Gradients by lag: how much of the past reaches the present, and whether it vanishes or explodes.

Computes numbers only; `_pictures` draws them.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled.diagnostics._steps import HiddenState, Steps, check_layer, time_steps, unroll
from unrolled.nn import Recurrent


@dataclass(frozen=True)
class GradientByLag:
    """The gradient norms of one layer in one direction: `norms` [K + 1], float64, at lags 0 to K;
    `norms[0]` is 1."""

    layer: int
    reverse: bool
    norms: Tensor


def gradient_by_lag(
    layer: Recurrent,
    x: Tensor,
    hx: HiddenState = None,
    *,
    lags: int | None = None,
    directions: int | None = None,
    seed: int = 0,
) -> list[GradientByLag]:
    r"""The norm of the Jacobian of the last state with respect to the state k steps before it.

    With s_t all states of a layer concatenated (h and c of an LSTM), S numbers in total,

        ∂s_T/∂s_{T-k} = J_T J_{T-1} … J_{T-k+1}        J_t = ∂s_t/∂s_{t-1}
        norm(k) = sqrt(mean over n of ‖∂s_T/∂s_{T-k}‖²_F / S)

    This is the root mean square factor by which a small change of the state has grown or shrunk k
    steps later. It is 1 at lag 0 for every cell and depends on no loss and no output layer, so that
    cells can be compared. Exponential decay is a vanishing gradient, exponential growth an
    exploding one (Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013). Every layer and
    direction of a stack is measured separately, on its own input: gradients through other layers
    are not included. Computed in float64.

    Args:
        layer: the layers and directions to measure.
        x: `[T, N, I]`, with `batch_first` `[N, T, I]`, unbatched `[T, I]`; of equal lengths.
        hx: the initial states as the layer takes them; zeros if None.
        lags: the largest lag K, at most T; None for T.
        directions: None computes complete Jacobians; a number computes that many random orthogonal
            directions of s_T instead, which is an unbiased estimate of the mean square, and faster
            by S/directions.
        seed: of the random directions; torch's global generator is not used.

    Raises:
        ValueError: the shape of `x` or `hx` is wrong, or `lags` or `directions` is out of range.
    """
    check_layer(layer)
    T = time_steps(layer, x)
    K = T if lags is None else lags
    if not 1 <= K <= T:
        raise ValueError(
            f"gradient_by_lag: lags must be at least 1 and at most the number of steps, {T}, got "
            f"{lags}"
        )
    if directions is not None and directions < 1:
        raise ValueError(f"gradient_by_lag: directions must be at least 1, got {directions}")
    double = copy.deepcopy(layer).double().requires_grad_(False)
    return [
        GradientByLag(steps.sweep.layer, steps.sweep.reverse, _norms(steps, K, directions, seed))
        for steps in unroll(double, x, hx)
    ]


def _norms(steps: Steps, lags: int, directions: int | None, seed: int) -> Tensor:
    initial_states = steps.states[0]
    widths = [state.shape[1] for state in initial_states]
    N, S = initial_states[0].shape[0], sum(widths)
    rows = _directions(S, min(directions or S, S), seed).to(initial_states[0])
    gradients: Sequence[Tensor] = torch.split(rows[:, None].expand(-1, N, -1), widths, -1)
    # [V, N, width] each
    norms = [1.0]
    T = len(steps.inputs)
    for t in reversed(range(T - lags, T)):
        states = tuple(state.clone().requires_grad_() for state in steps.states[t])
        with torch.enable_grad():
            next_states = steps.advance(t, states)
        pairs = [(s, g) for s, g in zip(next_states, gradients, strict=True) if s.requires_grad]
        gradients = torch.autograd.grad(
            [state for state, _ in pairs],
            states,
            [gradient for _, gradient in pairs],
            is_grads_batched=True,
            materialize_grads=True,
        )
        squares = sum(gradient.square().sum().item() for gradient in gradients)
        norms.append((squares / (len(rows) * N)) ** 0.5)
    return torch.tensor(norms, dtype=torch.float64)


def _directions(S: int, count: int, seed: int) -> Tensor:
    """Orthonormal rows [count, S]."""
    if count == S:
        return torch.eye(S, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(S, count, dtype=torch.float64, generator=generator)
    orthonormal: Tensor = torch.linalg.qr(gaussian)[0]
    return orthonormal.T


def input_gradient_by_lag(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Norms `[T]` of ∂loss/∂x_{T-k}, k = 0 … T - 1, over all dimensions of x but the first.

    The effect of the inputs of k steps ago on a loss of the last step (Pascanu, Mikolov & Bengio
    2013). Unlike `gradient_by_lag`, it includes the input weights and the layers above, and it can
    be used on stacks and models with any engine.

    Args:
        loss: a function of an input like x that returns a tensor with one element, for example
            `lambda x: layer(x)[0][-1].sum()`.
        x: `[T, ...]`, time first.

    Raises:
        ValueError: the loss has more than one element, or does not depend on x.
    """
    leaf = x.detach().clone().requires_grad_()
    value = loss(leaf)
    if value.numel() != 1 or not value.requires_grad:
        raise ValueError(
            "input_gradient_by_lag: loss must return one number that depends on x, got shape "
            f"{list(value.shape)}" + ("" if value.requires_grad else " without a gradient")
        )
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return norms.flip(0)
