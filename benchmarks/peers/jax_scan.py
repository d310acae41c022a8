"""JAX: a jitted ``lax.scan`` with the input projection hoisted out as one product.

Parameters keep torch's names and layout. Training is `value_and_grad` of the sum of output times
output gradient. Calls are dispatched synchronously, which is faster for calls that wait for their
result.
"""

import os
from typing import Any

import numpy as np
import torch

from peers import Peer
from problems import Case, Problem

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from jax import Array, lax

jax.config.update("jax_cpu_enable_async_dispatch", False)

Parameters = dict[str, Array]


def make(case: Case, threads: int) -> Peer:
    """The compiled function; XLA reads its number of threads when it starts (``NPROC``)."""
    problem = case.problem
    weights = {name: jnp.asarray(p.detach().numpy()) for name, p in case.layer.named_parameters()}
    x = jnp.asarray(case.x.detach().numpy())
    output_gradient = jnp.asarray(case.output_gradient.numpy())

    def loss(weights: Parameters, x: Array, output_gradient: Array) -> Array:
        return (forward(problem, weights, x) * output_gradient).sum()

    if problem.training:
        gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        return Peer(
            lambda: jax.block_until_ready(gradients(weights, x, output_gradient)), _read_gradients
        )
    infer = jax.jit(lambda weights, x: forward(problem, weights, x))
    return Peer(
        lambda: jax.block_until_ready(infer(weights, x)), lambda output: {"output": _tensor(output)}
    )


def forward(problem: Problem, weights: Parameters, x: Array) -> Array:
    """All layers and directions: [T, N, I] → [T, N, D·H]."""
    for layer in range(problem.layers):
        outputs = [
            sweep(problem.cell, weights, f"_l{layer}{suffix}", x, bool(suffix))
            for suffix in ("", "_reverse")[: problem.directions]
        ]
        x = jnp.concatenate(outputs, -1) if len(outputs) > 1 else outputs[0]
    return x


def sweep(cell: str, weights: Parameters, suffix: str, x: Array, reverse: bool) -> Array:
    """One layer in one direction."""
    w_ih, w_hh = weights["weight_ih" + suffix], weights["weight_hh" + suffix]
    b_ih, b_hh = weights["bias_ih" + suffix], weights["bias_hh" + suffix]
    T, N, _ = x.shape
    H = w_hh.shape[1]
    # The recurrent biases are added to the projection, except that of the GRU's n, which r scales.
    hoisted_bias = b_hh if cell != "GRU" else jnp.concatenate([b_hh[: 2 * H], jnp.zeros(H)])
    projected = (x.reshape(T * N, -1) @ w_ih.T + (b_ih + hoisted_bias)).reshape(T, N, -1)

    def step(states: tuple[Array, ...], px: Array) -> tuple[tuple[Array, ...], Array]:
        states = STEPS[cell](px, states[0] @ w_hh.T, states, b_hh[-H:])
        return states, states[0]

    start = (jnp.zeros((N, H)),) * (2 if cell == "LSTM" else 1)
    return lax.scan(step, start, projected, reverse=reverse)[1]


def _rnn(px: Array, ph: Array, states: tuple[Array, ...], bias: Array) -> tuple[Array, ...]:
    return (jnp.tanh(px + ph),)


def _gru(px: Array, ph: Array, states: tuple[Array, ...], bias: Array) -> tuple[Array, ...]:
    (xr, xz, xn), (hr, hz, hn) = jnp.split(px, 3, -1), jnp.split(ph, 3, -1)
    r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
    n = jnp.tanh(xn + r * (hn + bias))
    return ((1 - z) * n + z * states[0],)


def _lstm(px: Array, ph: Array, states: tuple[Array, ...], bias: Array) -> tuple[Array, ...]:
    i, f, g, o = jnp.split(px + ph, 4, -1)
    c = jax.nn.sigmoid(f) * states[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


STEPS = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}


def _read_gradients(outputs: Any) -> dict[str, torch.Tensor]:
    _, (weights, x) = outputs
    return {"input": _tensor(x), **{name: _tensor(gradient) for name, gradient in weights.items()}}


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
