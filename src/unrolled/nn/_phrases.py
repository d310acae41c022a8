"""The phrases of torch.nn's error messages.

Code that matches the text of these errors keeps working: messages of layers and cells contain them,
and continue with the value that is allowed. ``tests/nn/test_errors.py`` compares each with what
torch.nn itself raises.
"""

from collections.abc import Sequence

import torch

DROPOUT = (
    "dropout should be a number in range [0, 1] representing the probability of an element being "
    "zeroed"
)
NEGATIVE_PROJECTION = "proj_size should be a positive integer or zero to disable projections"
WIDE_PROJECTION = "proj_size has to be smaller than hidden_size"
NO_PROJECTION = "proj_size argument is only supported for LSTM, not RNN or GRU"
NO_STEPS = "Expected sequence length to be larger than 0 in RNN"


def unused_dropout(dropout: object, num_layers: int) -> str:
    return (
        "dropout option adds dropout after all but last recurrent layer, so non-zero dropout "
        f"expects num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}"
    )


def wrong_type(argument: str, type_name: str, value: object) -> str:
    return f"{argument} should be of type {type_name}, got: {type(value).__name__}"


def not_positive(argument: str) -> str:
    return f"{argument} must be greater than zero"


def unknown_nonlinearity(name: object, step: bool) -> str:
    if step:
        return f"Unknown nonlinearity: {name}."
    return f"Unknown nonlinearity '{name}'. Select from 'tanh' or 'relu'."


def input_dimensions(layer: str, got: int, step: bool) -> str:
    expected = "1D or 2D" if step else "2D or 3D"
    tensor = " tensor" if layer == "RNN" else ""
    return f"{layer}: Expected input to be {expected}, got {got}D{tensor} instead"


def dimensions(expected: int, got: int) -> str:
    return f"input must have {expected} dimensions, got {got}"


def input_size(expected: int, got: int, step: bool) -> str:
    if step:
        return f"input has inconsistent input_size: got {got} expected {expected}"
    return f"input.size(-1) must be equal to input_size. Expected {expected}, got {got}"


def input_dtype(expected: torch.dtype, got: torch.dtype) -> str:
    return (
        f"RNN input dtype ({got}) does not match weight dtype ({expected}). "
        f"Convert input: input.to({expected}), or convert model: model.to({got})"
    )


def devices(argument: str, input: torch.device, device: torch.device) -> str:
    """``argument`` is on ``device``: a parameter, or a hidden state."""
    return (
        f"Input and {argument} tensors are not at the same device, found input tensor at {input} "
        f"and {argument} tensor at {device}"
    )


def state_dimensions(unbatched: bool, got: Sequence[int]) -> str:
    """For the states of a layer, which have ``got`` dimensions."""
    count = "2-D" if unbatched else "3-D"
    batch = "unbatched" if unbatched else "batched"
    listed = ", ".join(f"{dim}-D" for dim in got)
    if len(got) == 1:
        return f"For {batch} {count} input, hx should also be {count} but got {listed} tensor"
    return f"For {batch} {count} input, hx and cx should also be {count} but got ({listed}) tensors"


def state_dimensions_of_step(layer: str, state: str, got: int) -> str:
    """``state`` is ``hidden``, or with several states ``hx[k]``."""
    return f"{layer}: Expected {state} to be 1D or 2D, got {got}D instead"


def state_size(state: str, expected: tuple[int, ...], got: list[int]) -> str:
    """``state`` is ``hidden``, or with several states ``hidden[k]``."""
    return f"Expected {state} size {expected}, got {got}"


def state_size_of_step(k: int, expected: Sequence[int], got: Sequence[int]) -> str:
    """For state k of a cell, [N, width]."""
    if expected[0] != got[0]:
        return f"Input batch size {expected[0]} doesn't match hidden{k} batch size {got[0]}"
    return f"hidden{k} has inconsistent hidden_size: got {got[1]}, expected {expected[1]}"
