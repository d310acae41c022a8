"""Errors about a module's forward: the line of code, what is expected there, and advice."""

from collections.abc import Mapping

import torch
from torch import fx, nn

from unrolled.export._known_modules import describe
from unrolled.export._tracing import source_of
from unrolled.nn._snapshot import ExportError

_ATTENTION = (
    "attention is exported from unrolled.models.SequenceModel(pooling='attention') and from "
    "EncoderDecoder only"
)
_SHAPES = (
    "linear layers and functions take [N, T, H] as it is, y[:, -1] is the last step of a layer "
    "that is batch_first and h[-1] its final state; batch_first, not permute, sets the order of "
    "axes"
)
_ADVICE: Mapping[object, str] = {
    **dict.fromkeys(
        (torch.bmm, torch.matmul, torch.einsum, "bmm", "matmul", torch.baddbmm), _ATTENTION
    ),
    **dict.fromkeys(
        ("view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "transpose",
         torch.flatten, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose,
         torch.reshape),
        _SHAPES,
    ),
    torch.cat: "torch.cat((h[-2], h[-1]), 1) is exported for a bidirectional layer",
    **dict.fromkeys(
        (torch.randn, torch.rand, "normal_", "uniform_"), "torch.zeros gives the same each time"
    ),
}  # fmt: skip


def error_at(node: fx.Node, expected: str, advice: str | None = None) -> ExportError:
    """An error that names the line of a node and what is expected there."""
    name = getattr(node.target, "__name__", str(node.target))
    if name.startswith("_tensor_constant"):  # torch.fx's name for it
        name = "a tensor that the module holds"
    advice = _ADVICE.get(node.target) if advice is None else advice
    hint = f"; {advice}" if advice else ""
    source = source_of(node)
    if source is None:  # the graph was not traced from code
        return ExportError(f"{node.name}: must be {expected}, got {node.format_node()}{hint}")
    return ExportError(f"{source}: must be {expected}, got {name}{hint}")


def unknown_module_error(node: fx.Node, module: nn.Module) -> ExportError:
    """An error that a module cannot be exported, with the line that calls it."""
    source = source_of(node)
    prefix = "" if source is None else f"{source}: "
    try:
        describe(module, str(node.target), torch.float32)
    except ExportError as error:
        return ExportError(f"{prefix}{error}")
    raise AssertionError(f"{node.target} is known")
