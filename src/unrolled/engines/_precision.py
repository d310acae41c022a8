"""The dtypes of a call: casts by autocast, half precision computed in float32, dtype checks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)

States = tuple[Tensor, ...]
RunOnTensors = Callable[[Tensor, States, dict[str, Tensor]], tuple[Tensor, States]]
"""Takes tokens, states and parameters; returns outputs and final states."""


def autocast_dtype(tokens: Tensor) -> torch.dtype | None:
    """The dtype that autocast casts to on the device of these tokens, or None if it does not
    cast."""
    device = tokens.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    if not tokens.is_floating_point() or tokens.dtype == torch.float64:
        return None
    return torch.get_autocast_dtype(device)


def cast_for_autocast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor in the dtype of autocast, which treats a sweep like a matrix product."""
    if dtype is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(dtype)


def casts_parameters(dtype: torch.dtype | None, tensors: Iterable[Tensor]) -> bool:
    """Whether autocast casts the parameters of a sweep, as it does those of a matrix product.

    For bfloat16 on the CPU it need not: engines can take float32 and round what products multiply,
    which spares casts of parameters and of their gradients.
    """
    is_rounded = dtype == torch.bfloat16
    return not is_rounded or any(t.dtype != torch.float32 or not t.is_cpu for t in tensors)


switch_precision = partial(torch._C._get_fp32_precision_getter, "mkldnn", "rnn")
"""The precision that torch's switch asks for in recurrent layers in float32."""


def allows_bf16_products() -> bool:
    """Whether torch's switch ``torch.backends.mkldnn.rnn.fp32_precision``, or one that it falls
    back to, allows recurrent layers in float32 to round what products multiply to bfloat16."""
    return switch_precision() == "bf16"


def check_dtypes(
    cell: str, tokens: Tensor, states: Sequence[Tensor], parameters: Mapping[str, Tensor]
) -> None:
    """Check that all tensors have one dtype: engines cast no tensor themselves.

    Raises:
        RuntimeError: a state or a parameter has another dtype than the tokens.
    """
    named = {f"state {k}": state for k, state in enumerate(states)} | dict(parameters)
    for name, tensor in named.items():
        if tensor.dtype != tokens.dtype:
            raise RuntimeError(
                f"{cell}: {name} must have dtype {tokens.dtype}, which the input has, got "
                f"{tensor.dtype} (autocast converts all but float64)"
            )


def in_float32(
    run: RunOnTensors, tokens: Tensor, states: States, parameters: dict[str, Tensor]
) -> tuple[Tensor, States]:
    """The results of ``run``; half precision is computed in float32, state included."""
    dtype = tokens.dtype
    if dtype not in HALF:
        return run(tokens, states, parameters)
    parameters = {name: parameter.float() for name, parameter in parameters.items()}
    outputs, final = run(tokens.float(), tuple(state.float() for state in states), parameters)
    return outputs.to(dtype), tuple(state.to(dtype) for state in final)
