"""Weights from and to Keras: its layers say the same as ours with them, both ways."""

import os
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tolerances import close
from unrolled import cells, nn
from unrolled.keras import from_keras, to_keras

os.environ.setdefault("KERAS_BACKEND", "torch")
# Importing Keras takes seconds, and it asks tensors for arrays in a way that NumPy warns of.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

T, N, I, H = 6, 3, 4, 5  # noqa: E741
CASES = [
    ("SimpleRNN", {}),
    ("LSTM", {}),
    ("GRU", {"reset_after": True}),
    ("GRU", {"reset_after": False}),
]
KINDS: dict[str, Any] = {"SimpleRNN": cells.RNN, "LSTM": cells.LSTM, "GRU": cells.GRU}
every_case = pytest.mark.parametrize(("kind", "told"), CASES)
directions = pytest.mark.parametrize("bidirectional", [False, True])
biases = pytest.mark.parametrize("bias", [True, False])


def ours(kind: str, told: dict[str, Any], bias: bool, bidirectional: bool) -> nn.Recurrent:
    cell = KINDS[kind] if told.get("reset_after", True) else cells.ResetBeforeGRU
    options: dict[str, Any] = {"bias": bias, "bidirectional": bidirectional}
    return nn.Recurrent(cell, I, H, batch_first=True, **options)


def theirs(kind: str, told: dict[str, Any], bias: bool, bidirectional: bool) -> Any:
    keras = pytest.importorskip("keras")
    layer = getattr(keras.layers, kind)(
        H, use_bias=bias, return_sequences=True, return_state=True, **told
    )
    layer = keras.layers.Bidirectional(layer) if bidirectional else layer
    layer.build((None, T, I))
    rng = np.random.default_rng(5)
    shapes = [one.shape for one in layer.get_weights()]
    layer.set_weights([np.float32(rng.standard_normal(shape) * 0.6) for shape in shapes])
    return layer


def equal(layer: nn.Recurrent, other: Any, name: str) -> None:
    """Both say the same of random numbers, outputs and final states; in float32, as products of
    Keras are even where its layers are in float64."""
    x = torch.randn(N, T, I)
    with torch.no_grad():
        y, final = layer(x)
        wanted, *states = other(x)
    close(y, wanted, "output", name)
    kinds = final if isinstance(final, tuple) else (final,)
    found = [kind[d] for d in range(kinds[0].shape[0]) for kind in kinds]
    assert len(found) == len(states)
    for one, state in zip(found, states, strict=True):
        close(one, state, "output", name)


@every_case
@directions
@biases
def test_from_keras(kind: str, told: dict[str, Any], bidirectional: bool, bias: bool) -> None:
    other = theirs(kind, told, bias, bidirectional)
    weights = other.get_weights()
    found = from_keras(kind, weights, bidirectional=bidirectional, **told)
    layer = ours(kind, told, bias, bidirectional)
    layer.load_state_dict({name: torch.from_numpy(one) for name, one in found.items()})
    equal(layer, other, f"{kind} {told}")
    back = to_keras(kind, found, bidirectional=bidirectional, **told)
    assert len(back) == len(weights)
    for one, weight in zip(back, weights, strict=True):
        np.testing.assert_array_equal(one, weight)


@every_case
@directions
@biases
def test_to_keras(kind: str, told: dict[str, Any], bidirectional: bool, bias: bool) -> None:
    layer = ours(kind, told, bias, bidirectional)
    parameters = {name: one.detach().numpy() for name, one in layer.state_dict().items()}
    other = theirs(kind, told, bias, bidirectional)
    weights = to_keras(kind, parameters, bidirectional=bidirectional, **told)
    other.set_weights(weights)
    equal(layer, other, f"{kind} {told}")
    back = from_keras(kind, weights, bidirectional=bidirectional, **told)
    assert set(back) == set(parameters)
    exact = kind == "GRU" and told["reset_after"]
    for name, one in back.items():
        if exact or name.startswith("weight"):
            np.testing.assert_array_equal(one, parameters[name], name)
    if bias and not exact and kind != "GRU":
        for end in ("_l0", "_l0_reverse")[: 2 if bidirectional else 1]:
            summed = parameters[f"bias_ih{end}"] + parameters[f"bias_hh{end}"]
            np.testing.assert_array_equal(back[f"bias_ih{end}"], summed)
            assert not back[f"bias_hh{end}"].any()


def test_the_second_layer_of_a_stack() -> None:
    stack = nn.LSTM(I, H, num_layers=2)
    parameters = {name: one.detach().numpy() for name, one in stack.state_dict().items()}
    kernel = to_keras("LSTM", parameters, layer=1)[0]
    assert kernel.shape == (H, 4 * H)
    np.testing.assert_array_equal(kernel[:, :H].T, parameters["weight_ih_l1"][:H])
    found = from_keras("LSTM", to_keras("LSTM", parameters, layer=1), layer=1)
    np.testing.assert_array_equal(found["weight_hh_l1"], parameters["weight_hh_l1"])


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [I, H])
def test_stacked_cells_are_no_directions(kind: str, bias: bool, width: int) -> None:
    """Each cell by itself is a layer of a stack; the whole is refused wherever its shapes show."""
    keras = pytest.importorskip("keras")
    sizes = (H, H) if width == I else (H, H - 1)
    cell = getattr(keras.layers, f"{kind}Cell")
    other = keras.layers.RNN([cell(size, use_bias=bias) for size in sizes], return_sequences=True)
    other.build((None, T, width))
    weights = other.get_weights()
    with pytest.raises(ValueError, match=rf"{kind}: weights .* got .*; of stacked cells give"):
        from_keras(kind, weights, bidirectional=True, reset_after=True)
    with pytest.raises(ValueError, match=rf"{kind}: weights must be kernel, .* of 1 directions"):
        from_keras(kind, weights, reset_after=True)
    if width == H:
        return
    count = len(weights) // 2
    found = [
        from_keras(kind, weights[k * count : (k + 1) * count], reset_after=True, layer=k)
        for k in range(2)
    ]
    stack = nn.Recurrent(KINDS[kind], I, H, 2, bias=bias, batch_first=True)
    together = {name: torch.from_numpy(one) for part in found for name, one in part.items()}
    stack.load_state_dict(together)
    x = torch.randn(N, T, I)
    with torch.no_grad():
        close(stack(x)[0], other(x), "output", f"stacked {kind}")


@every_case
def test_a_layer_within_another(kind: str, told: dict[str, Any]) -> None:
    """TimeDistributed has the weights of what it repeats."""
    keras = pytest.importorskip("keras")
    other = keras.layers.TimeDistributed(
        getattr(keras.layers, kind)(H, return_sequences=True, **told)
    )
    x = torch.randn(2, N, T, I)
    wanted = other(x)
    layer = ours(kind, told, bias=True, bidirectional=False)
    found = from_keras(kind, other.get_weights())  # the bias says reset_after
    layer.load_state_dict({name: torch.from_numpy(one) for name, one in found.items()})
    with torch.no_grad():
        close(torch.stack([layer(one)[0] for one in x]), wanted, "output", kind)


def arrays(kind: str = "LSTM") -> list[np.ndarray]:
    G = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[kind]
    return [np.ones((I, G * H)), np.ones((H, G * H)), np.ones(G * H)]


@pytest.mark.parametrize(
    ("kind", "weights", "message"),
    [
        ("Dense", arrays(), "kind: wanted one of SimpleRNN, LSTM, GRU, got 'Dense'"),
        ("LSTM", arrays()[:1], "LSTM: weights must be kernel, .* got 1 arrays"),
        ("LSTM", arrays() * 2, "LSTM: weights must be kernel, .* got 6 arrays; of sta"),
        ("LSTM", [np.ones(3), *arrays()[1:]], "kernel and recurrent kernel: wanted two dimensions"),
        ("LSTM", arrays("GRU"), r"recurrent kernel: wanted shape \[5, 20\], got \[5, 15\]"),
        ("LSTM", [np.ones((I, 7)), *arrays()[1:]], r"kernel: wanted shape \[4, 20\], got \[4, 7\]"),
        ("GRU", arrays("GRU")[:2], "GRU: reset_after must be given where there is no bias"),
        (
            "GRU",
            [*arrays("GRU")[:2], np.ones(30)],
            r"bias must have .* \[30\], the layout of CuDNNGRU",
        ),
        ("GRU", [*arrays("GRU")[:2], np.ones((2, 14))], r"bias: wanted shape \[2, 15\], got \[2"),
        (
            "LSTM",
            [*arrays()[:2], np.ones(40)],
            r"bias must have .* \[40\], the layout of CuDNNLSTM",
        ),
        ("LSTM", [*arrays()[:2], np.ones((2, 20))], r"bias: wanted shape \[20\], got \[2, 20\]"),
        ("LSTM", [*arrays()[:2], np.ones(20, int)], "LSTM: weights must be floating-point numbers"),
        (
            "LSTM",
            [np.ones((0, 20)), *arrays()[1:]],
            "kernel and recurrent kernel must not be empty",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    kind: str, weights: list[np.ndarray], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        from_keras(kind, weights)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("weight_ih_l0", "weight_ih_l0 is missing"),
        ("bias_hh_l0", "wanted both of bias_ih_l0 and bias_hh_l0"),
        ("weight_candidate_l0", "wanted both of weight_hh_l0 and weight_candidate_l0"),
    ],
)
def test_parameters_that_are_missing_are_named(missing: str, message: str) -> None:
    told = {"reset_after": False}
    found = from_keras("GRU", arrays("GRU"), **told)
    del found[missing]
    found.pop("bias_candidate_l0" if missing == "bias_hh_l0" else "", None)
    with pytest.raises(ValueError, match=message):
        to_keras("GRU", found, **told)
    with pytest.raises(ValueError, match="kind: wanted one of"):
        to_keras("Dense", found)
