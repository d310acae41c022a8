"""All tolerances, with a reason for each, and the comparisons that use them.

Errors are measured against the largest expected value, or 1 where all are smaller: inputs, weights
and output gradients are of order one, so that is the size of the summands.
"""

import torch
from torch import Tensor

from unrolled import _core

TOLERANCES: dict[tuple[torch.dtype, str], tuple[float, str]] = {
    (torch.float64, "output"): (
        1e-14,
        "45 eps of 2.2e-16: sums of at most 40 products in another order, some 10 steps, 4 layers",
    ),
    (torch.float64, "gradient"): (
        1e-13,
        "as outputs, and weight gradients sum over some 100 tokens in another order",
    ),
    (torch.float32, "output"): (
        1e-6,
        "8 eps of 1.2e-7: errors of sums of 40 products in another order are random, most cancel",
    ),
    (torch.float32, "gradient"): (
        5e-6,
        "as outputs, and weight gradients sum over some 100 tokens in another order",
    ),
    (torch.bfloat16, "output"): (
        2**-7,
        "2 eps, against float64: one rounding of each layer's output, at most 4 of at most half an "
        "eps, and where the processor multiplies bfloat16 those of the rows of products, each half "
        "an eps at most and of random sign; states are float32 inside a call",
    ),
    (torch.bfloat16, "gradient"): (
        2**-5,
        "8 eps: as outputs, and each layer's rounding enters the gradients of layers around it, "
        "whose own gradients are rounded before they are summed over directions",
    ),
    (torch.float16, "output"): (
        2**-10,
        "2 eps, as in bfloat16",
    ),
    (torch.float16, "gradient"): (
        2**-8,
        "8 eps, as in bfloat16",
    ),
    (torch.bfloat16, "stepwise output"): (
        2**-4,
        "against torch.nn in bfloat16, which rounds gates and state at each of some 5 steps",
    ),
    (torch.bfloat16, "stepwise gradient"): (
        2**-2,
        "as outputs, and torch.nn sums a weight's gradient over the steps in bfloat16",
    ),
    (torch.float64, "random"): (
        1e-11,
        "of calls drawn at random: sums of up to 260 products, up to 100 steps, 3 layers, cells "
        "that pass on more than they got; weight gradients sum over up to 500 tokens",
    ),
    (torch.float32, "random"): (1e-4, "as in float64"),
    (torch.bfloat16, "random"): (
        2**-4,
        "as bfloat16 gradients, with 3 layers of cells that pass on more than they got",
    ),
    (torch.float16, "random"): (2**-7, "as bfloat16, with three bits more"),
}


def tolerance_of_bfloat16_weights(float32_products: float) -> float:
    """The tolerance of runtime models with weights in bfloat16, against float32: where the
    processor multiplies bfloat16, rows of products are rounded as well."""
    if _core.multiplies_bfloat16(""):
        return TOLERANCES[torch.bfloat16, "output"][0]
    return float32_products


def close(
    actual: Tensor,
    expected: Tensor,
    label: str,
    name: str = "",
    rounded_reference: Tensor | None = None,
) -> None:
    """Assert that a tensor has the expected shape and values; its own dtype sets the tolerance.

    Where a problem magnifies what is rounded, no table can know by how much: the
    ``rounded_reference``, computed by the reference engine from equally rounded numbers, may be as
    far off, and ``actual`` twice as far.
    """
    name = name or label
    tolerance, reason = TOLERANCES[actual.dtype, label]
    assert actual.shape == expected.shape, f"{name}: {actual.shape} and not {expected.shape}"
    if not expected.numel():
        return
    expected = expected.detach().double()
    assert expected.isfinite().all(), f"{name}: nothing to compare with, {expected}"
    error = (actual.detach().double() - expected).abs().max().item()
    allowed = tolerance * max(1.0, expected.abs().max().item())
    if rounded_reference is not None:
        allowed = max(
            allowed, 2 * (rounded_reference.detach().double() - expected).abs().max().item()
        )
    assert error <= allowed, f"{name} differs by {error:.2e}, allowed {allowed:.2e}: {reason}"


def assert_equal(actual: Tensor, expected: Tensor, name: str = "") -> None:
    """Assert that two tensors are equal to the bit."""
    assert torch.equal(actual, expected), f"{name}: {actual} and not {expected}"
