"""Rules for operators on numbers: functions, products with weights, constants, reductions."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.onnx._importer import torch_functions
from unrolled.onnx._importer.graph_builder import GraphBuilder, ImportedNode, RuleTable, axes_of
from unrolled.onnx._importer.values import RefusedError, Value

RULES = RuleTable()
_UNARY: dict[str, Callable[..., Tensor]] = {
    "Relu": torch.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Exp": torch.exp,
    "Log": torch.log, "Sqrt": torch.sqrt, "Neg": torch.neg, "Abs": torch.abs,
    "Not": torch.logical_not, "Softplus": F.softplus, "Softsign": F.softsign, "Sign": torch.sign,
}  # fmt: skip
_BROADCAST: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch_functions.divide,
    "Pow": torch.pow, "Less": torch.lt, "LessOrEqual": torch.le, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "Equal": torch.eq, "And": torch.logical_and, "Or": torch.logical_or,
    "Where": torch.where, "Max": torch.maximum, "Min": torch.minimum,
}  # fmt: skip
_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax,
}  # fmt: skip
_CONSTANT_TYPES: dict[str, type[np.generic]] = {
    "value_float": np.float32, "value_floats": np.float32,
    "value_int": np.int64, "value_ints": np.int64,
}  # fmt: skip


@RULES.register("Identity", "Dropout")
def _identity(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    training = n.optional_input(2)
    if training is not None and (training.array is None or training.array.any()):
        raise RefusedError(f"{n.label}: training_mode must be false, got true or a computed value")
    return [n.input(0)]


@RULES.register("Constant")
def _constant(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    (name,) = n.attributes
    tensor = n.attributes.tensor(name) if name == "value" else None
    if tensor is not None:
        return [Value(array=onnx.numpy_helper.to_array(tensor))]
    if name not in _CONSTANT_TYPES:
        raise RefusedError(f"{n.label}: the attribute must be value or numbers, got {name}")
    return [Value(array=np.array(n.attributes.get(name), _CONSTANT_TYPES[name]))]


@RULES.register(*_UNARY)
def _unary(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    function, x = _UNARY[n.proto.op_type], n.input(0)
    folded = b.fold(n, function)
    if folded is not None:
        return [folded]
    return [Value(b.call(function, b.stored_node(x)), swapped=x.swapped)]


@RULES.register(*_BROADCAST)
def _broadcast(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    op, inputs = n.proto.op_type, n.required_inputs()
    if op in ("Max", "Min") and len(inputs) != 2:
        raise RefusedError(f"{n.label}: inputs must be two, got {len(inputs)}")
    function = _BROADCAST[op]
    folded = b.fold(n, function, _broadcast_size)
    if folded is not None:
        return [folded]
    if op == "Add":
        with_bias = _with_bias(b, n)
        if with_bias is not None:
            return [with_bias]
    if _can_stay_swapped(b, n):
        return [Value(b.call(function, *(b.stored_node(x) for x in inputs)), swapped=True)]
    nodes = [b.node(x) for x in inputs]
    dims = b.dims(n.proto.input[1]) if op == "Less" else None
    is_mask = inputs[0].is_range and dims is not None and len(dims) == 1
    return [Value(b.call(function, *nodes), lengths=nodes[1] if is_mask else None)]


def _can_stay_swapped(b: GraphBuilder, n: ImportedNode) -> bool:
    """Whether a function may be applied with the first two axes exchanged: one number, or one row
    along the last of three axes, is the same for all of the first two."""
    named_values = list(zip(n.proto.input, n.required_inputs(), strict=True))
    ranks = {len(b.dims(name) or ()) for name, x in named_values if x.swapped}
    return len(ranks) == 1 and all(
        b.is_rowwise(name, x) if x.swapped else x.array is not None and x.array.ndim <= 1
        for name, x in named_values
    )


def _broadcast_size(*arrays: np.ndarray) -> int:
    """The number of elements of arrays that are broadcast to one another."""
    return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))


def _matmul_cost(x: np.ndarray, y: np.ndarray) -> int:
    """The number of elements of a product of matrices, and the cost of its sums."""
    if x.ndim < 2 or y.ndim < 2:
        return x.size + y.size
    rows = math.prod(np.broadcast_shapes(x.shape[:-2], y.shape[:-2]))
    return rows * int(x.shape[-2]) * int(y.shape[-1]) * (1 + int(x.shape[-1]) // 64)


def _with_bias(b: GraphBuilder, n: ImportedNode) -> Value | None:
    """A product with weights to which a row is added: the bias of a linear layer."""
    x, y = n.required_inputs()
    for product, bias in ((x, y), (y, x)):
        layer = product.open_linear
        if layer is None or bias.array is None or bias.array.shape != (layer.out_features,):
            continue
        layer.bias = b.parameter(bias.array, n.label)
        return replace(product, open_linear=None)
    return None


@RULES.register("MatMul")
def _matmul(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, W = n.required_inputs()
    folded = b.fold(n, torch.matmul, _matmul_cost)
    if folded is not None:
        return [folded]
    if W.array is not None and W.array.ndim == 2 and W.array.dtype.kind == "f":
        may_get_bias = b.uses[n.proto.output[0]] == 1
        return [_linear(b, n, W.array.T, None, may_get_bias)]
    return [Value(b.call(torch.matmul, b.node(x), b.node(W)))]


@RULES.register("Gemm")
def _gemm(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, W, C = n.input(0), n.input(1).array, n.optional_input(2)
    factors = (n.attributes.get("alpha", 1.0), n.attributes.get("beta", 1.0))
    is_plain = factors == (1, 1) and not n.attributes.flag("transA")
    bias = None if C is None else C.array
    if not is_plain or W is None or W.ndim != 2 or (C is not None and bias is None):
        raise RefusedError(
            f"{n.label}: W and b must be constant, alpha and beta 1 and transA 0, got alpha and "
            f"beta {factors} and transA {n.attributes.get('transA', 0)}"
        )
    weight = W if n.attributes.flag("transB") else W.T
    if x.array is not None:
        b.charge(_matmul_cost(x.array, weight.T), n.label)
        product = x.array @ weight.T
        return [Value(array=product if bias is None else product + bias)]
    row = None if bias is None else np.broadcast_to(bias, (1, len(weight)))[0]
    return [_linear(b, n, weight, row, may_get_bias=False)]


def _linear(
    b: GraphBuilder,
    n: ImportedNode,
    weight: np.ndarray,
    bias: np.ndarray | None,
    may_get_bias: bool,
) -> Value:
    x = n.input(0)
    M, K = weight.shape
    layer = nn.Linear(K, M, bias=bias is not None, device="meta")
    layer.weight = b.parameter(weight, n.label)
    if bias is not None:
        layer.bias = b.parameter(bias, n.label)
    rowwise = b.is_rowwise(n.proto.input[0], x)
    node = b.call_module("linear", layer, b.stored_node(x) if rowwise else b.node(x))
    return Value(node, swapped=x.swapped and rowwise, open_linear=layer if may_get_bias else None)


@RULES.register("Softmax", "LogSoftmax")
def _softmax(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, axis = n.input(0), n.attributes.integer("axis", -1 if b.opset >= 13 else 1)
    dims = b.dims(n.proto.input[0])
    is_final_axis = axis == -1 or (dims is not None and axis == len(dims) - 1)
    if b.opset < 13 and not is_final_axis:
        raise RefusedError(f"{n.label}: axis must be the final one before opset 13, got {axis}")
    function = torch.softmax if n.proto.op_type == "Softmax" else torch.log_softmax
    folded = b.fold(n, lambda array: function(array, dim=axis))
    if folded is not None:
        return [folded]
    if is_final_axis and b.is_rowwise(n.proto.input[0], x):
        return [Value(b.call(function, b.stored_node(x), dim=-1), swapped=x.swapped)]
    return [Value(b.call(function, b.node(x), dim=-1 if is_final_axis else axis))]


@RULES.register("Cast")
def _cast(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x = n.input(0)
    numpy_dtype = onnx.helper.tensor_dtype_to_np_dtype(n.attributes.integer("to"))
    dtype = torch.from_numpy(np.empty(0, numpy_dtype)).dtype
    folded = b.fold(n, lambda array: array.to(dtype))
    if folded is not None:
        return [folded]
    if dtype in (torch.int32, torch.int64) and b.is_integer(n.proto.input[0]):
        return [x]  # torch reads lengths, indices and shapes of either type
    node = b.call(torch_functions.cast_to, b.stored_node(x), dtype)
    return [Value(node, fill=x.fill, swapped=x.swapped)]


@RULES.register("CastLike")
def _cast_like(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, like = n.required_inputs()
    folded = b.fold(n, torch_functions.cast_like)
    if folded is not None:
        return [folded]
    node = b.call(torch_functions.cast_like, b.stored_node(x), b.node(like))
    return [Value(node, swapped=x.swapped)]


@RULES.register("Range")
def _range(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    start, _, delta = (x.array for x in n.required_inputs())
    is_range = bool(start is not None and delta is not None and start == 0 and delta == 1)
    folded = b.fold(n, torch_functions.arange, _range_size)
    if folded is not None:
        return [replace(folded, is_range=is_range)]
    nodes = [b.node(x) for x in n.required_inputs()]
    return [Value(b.call(torch_functions.arange, *nodes), is_range=is_range)]


def _range_size(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> int:
    """The number of elements of a Range."""
    count: int = math.ceil((limit.item() - start.item()) / delta.item())
    return max(0, count)


@RULES.register("HardSigmoid", "LeakyRelu", "ThresholdedRelu", "Elu")
def _activation(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    x, name = n.input(0), n.proto.op_type
    alpha, beta = n.attributes.number("alpha"), n.attributes.number("beta")
    folded = b.fold(n, lambda array: torch_functions.activate(array, name, alpha, beta))
    if folded is not None:
        return [folded]
    node = b.call(torch_functions.activate, b.stored_node(x), name, alpha, beta)
    return [Value(node, swapped=x.swapped)]


@RULES.register(*_REDUCTIONS)
def _reduce(b: GraphBuilder, n: ImportedNode) -> list[Value]:
    axes = axes_of(n)
    if not axes:
        raise RefusedError(f"{n.label}: axes must be constant and at least one, got none")
    keepdim = n.attributes.flag("keepdims", True)
    function = _REDUCTIONS[n.proto.op_type]
    folded = b.fold(n, lambda array: function(array, axes, keepdim=keepdim), inputs=n.inputs[:1])
    if folded is not None:
        return [folded]
    return [Value(b.call(function, b.node(n.input(0)), axes, keepdim=keepdim))]
