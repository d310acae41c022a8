"""An ONNX model of a case: one RNN, GRU or LSTM node per layer, weights as constants, one output.

Gate orders are ONNX's: z, r, h of the GRU and i, o, f, c of the LSTM, where torch has r, z, n and
i, f, g, o. The last node's output stays [T, D, N, H].
"""

from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from torch import Tensor

from problems import Case

ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}  # torch's gates in ONNX's order
PARTS = {"W": ["weight_ih"], "R": ["weight_hh"], "B": ["bias_ih", "bias_hh"]}
OPSET, IR = 17, 10  # old enough for every runtime


def make_model(case: Case) -> ModelProto:
    """The checked model, input ``x`` [T, N, I] and output ``y`` [T, D, N, H] of fixed shapes."""
    problem = case.problem
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    below = "x"
    for layer in range(problem.layers):
        is_top = layer == problem.layers - 1
        above = "y" if is_top else f"y{layer}"
        nodes.append(_recurrent(case, layer, below, above, constants))
        if not is_top:
            below = f"x{layer + 1}"
            nodes += _merge_directions(case, layer, above, below, constants)
    shape = [problem.T, problem.directions, problem.N, problem.H]
    wide = [problem.T, problem.N, problem.I]
    graph = helper.make_graph(
        nodes,
        problem.cell,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, wide)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    checker.check_model(model, full_check=True)
    return model


def read_output(y: np.ndarray) -> Tensor:
    """[T, D, N, H] as torch's output [T, N, D·H]."""
    return torch.from_numpy(np.array(y)).transpose(1, 2).flatten(2)


def _recurrent(
    case: Case, layer: int, below: str, above: str, constants: list[TensorProto]
) -> NodeProto:
    """The node of one layer in all directions; its weights become constants."""
    problem, names = case.problem, []
    for letter, parts in (
        ("W", ["weight_ih"]),
        ("R", ["weight_hh"]),
        ("B", ["bias_ih", "bias_hh"]),
    ):
        names.append(f"{letter}{layer}")
        rows = [
            torch.cat([_in_onnx_order(case, f"{part}_l{layer}{suffix}") for part in parts])
            for suffix in ("", "_reverse")[: problem.directions]
        ]
        constants.append(numpy_helper.from_array(torch.stack(rows).numpy(), names[-1]))
    attributes: dict[str, Any] = {"hidden_size": problem.H}
    attributes["direction"] = "bidirectional" if problem.bidirectional else "forward"
    if problem.cell == "GRU":
        attributes["linear_before_reset"] = 1
    return helper.make_node(
        problem.cell,
        [below, *names],
        [above],
        **attributes,
    )


def _in_onnx_order(case: Case, name: str) -> Tensor:
    """A parameter with its gates in ONNX's order."""
    order = ORDER[case.problem.cell]
    gates = getattr(case.layer, name).detach().chunk(len(order))
    return torch.cat([gates[k] for k in order])


def _merge_directions(
    case: Case, layer: int, above: str, below: str, constants: list[TensorProto]
) -> list[NodeProto]:
    """[T, D, N, H] → [T, N, D·H], the input of the next layer."""
    shape, transposed = f"shape{layer}", f"transposed{layer}"
    width = case.problem.directions * case.problem.H
    wide = np.array([case.problem.T, case.problem.N, width])
    constants.append(numpy_helper.from_array(wide, shape))
    return [
        helper.make_node("Transpose", [above], [transposed], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [transposed, shape], [below]),
    ]
