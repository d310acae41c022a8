"""Weights from and to Keras: its layers give the numbers of ours, in both directions."""

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
CELLS: dict[str, Any] = {"SimpleRNN": cells.RNN, "LSTM": cells.LSTM, "GRU": cells.GRU}
every_case = pytest.mark.parametrize(("class_name", "settings"), CASES)
directions = pytest.mark.parametrize("bidirectional", [False, True])
biases = pytest.mark.parametrize("bias", [True, False])


def ours(
    class_name: str, settings: dict[str, Any], bias: bool, bidirectional: bool
) -> nn.Recurrent:
    cell = CELLS[class_name] if settings.get("reset_after", True) else cells.ResetBeforeGRU
    options: dict[str, Any] = {"bias": bias, "bidirectional": bidirectional}
    return nn.Recurrent(cell, I, H, batch_first=True, **options)


def theirs(class_name: str, settings: dict[str, Any], bias: bool, bidirectional: bool) -> Any:
    keras = pytest.importorskip("keras")
    layer = getattr(keras.layers, class_name)(
        H, use_bias=bias, return_sequences=True, return_state=True, **settings
    )
    layer = keras.layers.Bidirectional(layer) if bidirectional else layer
    layer.build((None, T, I))
    rng = np.random.default_rng(5)
    shapes = [array.shape for array in layer.get_weights()]
    layer.set_weights([np.float32(rng.standard_normal(shape) * 0.6) for shape in shapes])
    return layer


def equal(layer: nn.Recurrent, keras_layer: Any, name: str) -> None:
    """Both say the same of random numbers, outputs and final states; in float32, as products of
    Keras are even where its layers are in float64."""
    x = torch.randn(N, T, I)
    with torch.no_grad():
        y, final = layer(x)
        expected, *states = keras_layer(x)
    close(y, expected, "output", name)
    final_states = final if isinstance(final, tuple) else (final,)
    actual = [state[d] for d in range(final_states[0].shape[0]) for state in final_states]
    assert len(actual) == len(states)
    for ours, theirs in zip(actual, states, strict=True):
        close(ours, theirs, "output", name)


@every_case
@directions
@biases
def test_from_keras(
    class_name: str, settings: dict[str, Any], bidirectional: bool, bias: bool
) -> None:
    keras_layer = theirs(class_name, settings, bias, bidirectional)
    weights = keras_layer.get_weights()
    actual = from_keras(class_name, weights, bidirectional=bidirectional, **settings)
    layer = ours(class_name, settings, bias, bidirectional)
    layer.load_state_dict({name: torch.from_numpy(array) for name, array in actual.items()})
    equal(layer, keras_layer, f"{class_name} {settings}")
    back = to_keras(class_name, actual, bidirectional=bidirectional, **settings)
    assert len(back) == len(weights)
    for array, weight in zip(back, weights, strict=True):
        np.testing.assert_array_equal(array, weight)


@every_case
@directions
@biases
def test_to_keras(
    class_name: str, settings: dict[str, Any], bidirectional: bool, bias: bool
) -> None:
    layer = ours(class_name, settings, bias, bidirectional)
    parameters = {name: array.detach().numpy() for name, array in layer.state_dict().items()}
    keras_layer = theirs(class_name, settings, bias, bidirectional)
    weights = to_keras(class_name, parameters, bidirectional=bidirectional, **settings)
    keras_layer.set_weights(weights)
    equal(layer, keras_layer, f"{class_name} {settings}")
    back = from_keras(class_name, weights, bidirectional=bidirectional, **settings)
    assert set(back) == set(parameters)
    exact = class_name == "GRU" and settings["reset_after"]
    for name, array in back.items():
        if exact or name.startswith("weight"):
            np.testing.assert_array_equal(array, parameters[name], name)
    if bias and not exact and class_name != "GRU":
        for end in ("_l0", "_l0_reverse")[: 2 if bidirectional else 1]:
            summed = parameters[f"bias_ih{end}"] + parameters[f"bias_hh{end}"]
            np.testing.assert_array_equal(back[f"bias_ih{end}"], summed)
            assert not back[f"bias_hh{end}"].any()


def test_the_second_layer_of_a_stack() -> None:
    stack = nn.LSTM(I, H, num_layers=2)
    parameters = {name: array.detach().numpy() for name, array in stack.state_dict().items()}
    kernel = to_keras("LSTM", parameters, layer=1)[0]
    assert kernel.shape == (H, 4 * H)
    np.testing.assert_array_equal(kernel[:, :H].T, parameters["weight_ih_l1"][:H])
    actual = from_keras("LSTM", to_keras("LSTM", parameters, layer=1), layer=1)
    np.testing.assert_array_equal(actual["weight_hh_l1"], parameters["weight_hh_l1"])


@pytest.mark.parametrize("class_name", ["SimpleRNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [I, H])
def test_stacked_cells_are_not_directions(class_name: str, bias: bool, width: int) -> None:
    """Each cell alone is a layer of a stack; the whole is refused wherever its shapes show."""
    keras = pytest.importorskip("keras")
    sizes = (H, H) if width == I else (H, H - 1)
    cell = getattr(keras.layers, f"{class_name}Cell")
    keras_layer = keras.layers.RNN(
        [cell(size, use_bias=bias) for size in sizes], return_sequences=True
    )
    keras_layer.build((None, T, width))
    weights = keras_layer.get_weights()
    with pytest.raises(
        ValueError, match=rf"{class_name}: weights .* got .*; of stacked cells pass"
    ):
        from_keras(class_name, weights, bidirectional=True, reset_after=True)
    with pytest.raises(
        ValueError, match=rf"{class_name}: weights must be kernel, .* of 1 directions"
    ):
        from_keras(class_name, weights, reset_after=True)
    if width == H:
        return
    count = len(weights) // 2
    actual = [
        from_keras(class_name, weights[k * count : (k + 1) * count], reset_after=True, layer=k)
        for k in range(2)
    ]
    stack = nn.Recurrent(CELLS[class_name], I, H, 2, bias=bias, batch_first=True)
    together = {name: torch.from_numpy(array) for part in actual for name, array in part.items()}
    stack.load_state_dict(together)
    x = torch.randn(N, T, I)
    with torch.no_grad():
        close(stack(x)[0], keras_layer(x), "output", f"stacked {class_name}")


@every_case
def test_a_layer_within_another(class_name: str, settings: dict[str, Any]) -> None:
    """TimeDistributed has the weights of what it repeats."""
    keras = pytest.importorskip("keras")
    keras_layer = keras.layers.TimeDistributed(
        getattr(keras.layers, class_name)(H, return_sequences=True, **settings)
    )
    x = torch.randn(2, N, T, I)
    expected = keras_layer(x)
    layer = ours(class_name, settings, bias=True, bidirectional=False)
    actual = from_keras(class_name, keras_layer.get_weights())  # the bias says reset_after
    layer.load_state_dict({name: torch.from_numpy(array) for name, array in actual.items()})
    with torch.no_grad():
        close(torch.stack([layer(array)[0] for array in x]), expected, "output", class_name)


def arrays(class_name: str = "LSTM") -> list[np.ndarray]:
    G = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[class_name]
    return [np.ones((I, G * H)), np.ones((H, G * H)), np.ones(G * H)]


@pytest.mark.parametrize(
    ("class_name", "weights", "message"),
    [
        ("Dense", arrays(), "class_name must be one of SimpleRNN, LSTM, GRU, got 'Dense'"),
        ("LSTM", arrays()[:1], "LSTM: weights must be kernel, .* got 1 arrays"),
        ("LSTM", arrays() * 2, "LSTM: weights must be kernel, .* got 6 arrays; of sta"),
        ("LSTM", [np.ones(3), *arrays()[1:]], "LSTM: kernel and recurrent kernel must be 2D"),
        ("LSTM", arrays("GRU"), r"recurrent kernel must have shape \[5, 20\], got \[5, 15\]"),
        (
            "LSTM",
            [np.ones((I, 7)), *arrays()[1:]],
            r"kernel must have shape \[4, 20\], got \[4, 7\]",
        ),
        ("GRU", arrays("GRU")[:2], "GRU: reset_after must be given if there is no bias"),
        (
            "GRU",
            [*arrays("GRU")[:2], np.ones(30)],
            r"bias must have .* \[30\], the layout of CuDNNGRU",
        ),
        ("GRU", [*arrays("GRU")[:2], np.ones((2, 14))], r"bias must have shape \[2, 15\], got \[2"),
        (
            "LSTM",
            [*arrays()[:2], np.ones(40)],
            r"bias must have .* \[40\], the layout of CuDNNLSTM",
        ),
        ("LSTM", [*arrays()[:2], np.ones((2, 20))], r"bias must have shape \[20\], got \[2, 20\]"),
        ("LSTM", [*arrays()[:2], np.ones(20, int)], "LSTM: weights must be floating-point numbers"),
        (
            "LSTM",
            [np.ones((0, 20)), *arrays()[1:]],
            "kernel and recurrent kernel must not be empty",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    class_name: str, weights: list[np.ndarray], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        from_keras(class_name, weights)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("weight_ih_l0", "parameters must include weight_ih_l0"),
        ("bias_hh_l0", "must have both bias_ih_l0 and bias_hh_l0"),
        ("weight_candidate_l0", "must have both weight_hh_l0 and weight_candidate_l0"),
    ],
)
def test_parameters_that_are_missing_are_named(missing: str, message: str) -> None:
    settings = {"reset_after": False}
    actual = from_keras("GRU", arrays("GRU"), **settings)
    del actual[missing]
    actual.pop("bias_candidate_l0" if missing == "bias_hh_l0" else "", None)
    with pytest.raises(ValueError, match=message):
        to_keras("GRU", actual, **settings)
    with pytest.raises(ValueError, match="class_name must be one of"):
        to_keras("Dense", actual)
