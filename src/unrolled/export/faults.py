"""What cannot be exported, by the line of the user's code, and what to do about it."""

from typing import Any

import torch
from torch import fx, nn

from unrolled.export.parts import describe
from unrolled.export.tracing import place_of
from unrolled.nn.snapshot import ExportError

__all__ = ["fault_at", "unknown_part"]

_ATTENTION = (
    "attention is exported of unrolled.models.SequenceModel(pooling='attention') and of "
    "EncoderDecoder only"
)
_SHAPES = (
    "linear layers and functions take [N, T, H] as it is, y[:, -1] is the last step of a layer "
    "that is batch_first and h[-1] its final state; batch_first, not permute, says the order of "
    "axes"
)
_CURES: dict[Any, str] = {
    **dict.fromkeys(
        (torch.bmm, torch.matmul, torch.einsum, "bmm", "matmul", torch.baddbmm), _ATTENTION
    ),
    **dict.fromkeys(
        ("view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "transpose",
         torch.flatten, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose,
         torch.reshape),
        _SHAPES,
    ),
    torch.cat: "of a bidirectional layer torch.cat((h[-2], h[-1]), 1) is taken",
    **dict.fromkeys(
        (torch.randn, torch.rand, "normal_", "uniform_"), "torch.zeros gives the same each time"
    ),
}  # fmt: skip


def fault_at(node: fx.Node, wanted: str, cure: str | None = None) -> ExportError:
    """The error that a node is not what is wanted."""
    name = getattr(node.target, "__name__", str(node.target))
    if name.startswith("_tensor_constant"):  # torch.fx's name of it
        name = "a tensor that the module holds"
    cure = _CURES.get(node.target) if cure is None else cure
    hint = f"; {cure}" if cure else ""
    place = place_of(node)
    if place is None:  # of a graph that was not made of code
        return ExportError(f"{node.name}: must be {wanted}, got {node.format_node()}{hint}")
    return ExportError(f"{place}: must be {wanted}, got {name}{hint}")


def unknown_part(node: fx.Node, part: nn.Module) -> ExportError:
    """The error that a part is not known, with the line that calls it."""
    place = place_of(node)
    where = "" if place is None else f"{place}: "
    try:
        describe(part, str(node.target))
    except ExportError as error:
        return ExportError(f"{where}{error}")
    raise AssertionError(f"{node.target} is known")
