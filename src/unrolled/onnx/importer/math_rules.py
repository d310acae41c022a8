"""What operators on numbers become in torch: functions, products with weights, constants."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

from unrolled.onnx.importer import torch_functions
from unrolled.onnx.importer.graph_builder import Builder, Node, RefusedError, Rules, Value, axes_of

__all__ = ["RULES"]

RULES = Rules()
_EACH: dict[str, Callable[..., Any]] = {
    "Relu": torch.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Exp": torch.exp,
    "Log": torch.log, "Sqrt": torch.sqrt, "Neg": torch.neg, "Abs": torch.abs,
    "Not": torch.logical_not, "Softplus": F.softplus, "Softsign": F.softsign, "Sign": torch.sign,
}  # fmt: skip
_JOINED: dict[str, Callable[..., Any]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch_functions.divide,
    "Pow": torch.pow, "Less": torch.lt, "LessOrEqual": torch.le, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "Equal": torch.eq, "And": torch.logical_and, "Or": torch.logical_or,
    "Where": torch.where, "Max": torch.maximum, "Min": torch.minimum,
}  # fmt: skip


@RULES.of("Identity", "Dropout")
def _same(b: Builder, n: Node) -> list[Value]:
    training = n.inputs[2] if len(n.inputs) > 2 else None
    if training is not None and (training.array is None or training.array.any()):
        raise RefusedError(f"{n.where}: wanted no training_mode")
    return [n.inputs[0]]


@RULES.of("Constant")
def _constant(b: Builder, n: Node) -> list[Value]:
    ((name, value),) = n.told.items()
    if name == "value":
        return [Value(array=onnx.numpy_helper.to_array(value))]
    kinds: dict[str, Any] = {"value_float": np.float32, "value_floats": np.float32}
    kinds |= {"value_int": np.int64, "value_ints": np.int64}
    if name not in kinds:
        raise RefusedError(f"{n.where}: wanted numbers, got {name}")
    return [Value(array=np.array(value, kinds[name]))]


@RULES.of(*_EACH)
def _each(b: Builder, n: Node) -> list[Value]:
    function = _EACH[n.proto.op_type]
    folded = b.fold(n, function)
    if folded is not None:
        return [folded]
    return [Value(b.call(function, b.raw(n.inputs[0])), turned=n.inputs[0].turned)]


@RULES.of(*_JOINED)
def _joined(b: Builder, n: Node) -> list[Value]:
    function = _JOINED[n.proto.op_type]
    if n.proto.op_type in ("Max", "Min") and len(n.inputs) != 2:
        raise RefusedError(f"{n.where}: wanted two n.inputs, got {len(n.inputs)}")
    folded = b.fold(n, function, _broadcast)
    if folded is not None:
        return [folded]
    if n.proto.op_type == "Add":
        biased = _biased(b, n)
        if biased is not None:
            return [biased]
    # One number, or one row behind two axes, is the same for all of the first two axes.
    names = list(zip(n.proto.input, n.inputs, strict=True))
    ranks = {len(b.dims(name) or ()) for name, one in names if one.turned}
    if len(ranks) == 1 and all(
        b.is_rows(name, one) if one.turned else one.array is not None and one.array.ndim <= 1
        for name, one in names
    ):
        return [Value(b.call(function, *(b.raw(one) for one in n.inputs)), turned=True)]
    nodes = [b.node(one) for one in n.inputs]
    ends = b.dims(n.proto.input[1]) if n.proto.op_type == "Less" else None
    below = n.inputs[0].counts and ends is not None and len(ends) == 1
    return [Value(b.call(function, *nodes), until=nodes[1] if below else None)]


def _broadcast(*arrays: np.ndarray) -> int:
    """How many numbers arrays are together."""
    return math.prod(np.broadcast_shapes(*(one.shape for one in arrays)))


def _multiplied(x: np.ndarray, y: np.ndarray) -> int:
    """How many numbers a product of matrices has, and what its sums cost."""
    if x.ndim < 2 or y.ndim < 2:
        return x.size + y.size
    rows = math.prod(np.broadcast_shapes(x.shape[:-2], y.shape[:-2]))
    return rows * x.shape[-2] * y.shape[-1] * (1 + x.shape[-1] // 64)


def _biased(b: Builder, n: Node) -> Value | None:
    """A product with weights to which a row is added: the bias of a linear layer."""
    for one, other in (n.inputs, n.inputs[::-1]):
        if one.product is None or other.array is None:
            continue
        if other.array.shape != (one.product.out_features,):
            continue
        one.product.bias = b.parameter(other.array, n.where)
        return replace(one, product=None)
    return None


@RULES.of("MatMul")
def _matmul(b: Builder, n: Node) -> list[Value]:
    x, W = n.inputs
    folded = b.fold(n, torch.matmul, _multiplied)
    if folded is not None:
        return [folded]
    if W.array is not None and W.array.ndim == 2 and W.array.dtype.kind == "f":
        alone = b.reads[n.proto.output[0]] == 1
        return [_linear(b, n, x, W.array.T, None, open_=alone)]
    return [Value(b.call(torch.matmul, b.node(x), b.node(W)))]


@RULES.of("Gemm")
def _gemm(b: Builder, n: Node) -> list[Value]:
    x, W = n.inputs[:2]
    C = n.inputs[2] if len(n.inputs) > 2 else None
    scaled = (
        n.told.get("alpha", 1.0) != 1 or n.told.get("beta", 1.0) != 1 or n.told.get("transA", 0)
    )
    known = W.array is not None and (C is None or C.array is not None)
    if scaled or not known or W.array.ndim != 2:
        raise RefusedError(f"{n.where}: wanted x W + b with constant W and b, without factors")
    weight = W.array if n.told.get("transB", 0) else W.array.T
    if x.array is not None:
        b.take(_multiplied(x.array, weight.T), n.where)
        product = x.array @ weight.T
        return [Value(array=product if C is None else product + C.array)]
    bias = None if C is None else np.broadcast_to(C.array, (1, len(weight)))[0]
    return [_linear(b, n, x, weight, bias, open_=False)]


def _linear(
    b: Builder, n: Node, x: Value, weight: np.ndarray, bias: np.ndarray | None, open_: bool
) -> Value:
    M, K = weight.shape
    layer = nn.Linear(K, M, bias=bias is not None, device="meta")
    layer.weight = b.parameter(weight, n.where)
    if bias is not None:
        layer.bias = b.parameter(bias, n.where)
    rows = b.is_rows(n.proto.input[0], x)
    made = b.module("linear", layer, b.raw(x) if rows else b.node(x))
    return Value(made, turned=x.turned and rows, product=layer if open_ else None)


@RULES.of("Softmax", "LogSoftmax")
def _softmax(b: Builder, n: Node) -> list[Value]:
    axis = n.told.get("axis", -1 if b.opset >= 13 else 1)
    dims = b.dims(n.proto.input[0])
    last = axis == -1 or (dims is not None and axis == len(dims) - 1)
    if b.opset < 13 and not last:
        raise RefusedError(f"{n.where}: wanted the last axis, got {axis}")
    function = torch.softmax if n.proto.op_type == "Softmax" else torch.log_softmax
    x = n.inputs[0]
    folded = b.fold(n, lambda one: function(one, dim=axis))
    if folded is not None:
        return [folded]
    if last and b.is_rows(n.proto.input[0], x):
        return [Value(b.call(function, b.raw(x), dim=-1), turned=x.turned)]
    return [Value(b.call(function, b.node(x), dim=-1 if last else axis))]


@RULES.of("Cast")
def _cast(b: Builder, n: Node) -> list[Value]:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(n.told["to"])
    wanted = torch.from_numpy(np.empty(0, dtype)).dtype
    folded = b.fold(n, lambda one: one.to(wanted))
    if folded is not None:
        return [folded]
    x = n.inputs[0]
    if wanted in (torch.int32, torch.int64) and b.is_whole(n.proto.input[0]):
        return [x]  # to torch they are the same wherever lengths, indices and shapes are read
    made = b.call(torch_functions.cast, b.raw(x), wanted)
    return [Value(made, fill=x.fill, turned=x.turned)]


@RULES.of("CastLike")
def _cast_like(b: Builder, n: Node) -> list[Value]:
    x, other = n.inputs
    folded = b.fold(n, torch_functions.cast_like)
    if folded is not None:
        return [folded]
    return [Value(b.call(torch_functions.cast_like, b.raw(x), b.node(other)), turned=x.turned)]


@RULES.of("Range")
def _range(b: Builder, n: Node) -> list[Value]:
    start, _, delta = (one.array for one in n.inputs)
    counts = start is not None and delta is not None and (start, delta) == (0, 1)
    folded = b.fold(n, torch_functions.steps, _count_of)
    if folded is not None:
        return [replace(folded, counts=counts)]
    return [Value(b.call(torch_functions.steps, *(b.node(one) for one in n.inputs)), counts=counts)]


def _count_of(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> int:
    """How many numbers a Range has."""
    return max(0, math.ceil((limit.item() - start.item()) / delta.item()))


@RULES.of("HardSigmoid", "LeakyRelu", "ThresholdedRelu", "Elu")
def _activate(b: Builder, n: Node) -> list[Value]:
    x, name = n.inputs[0], n.proto.op_type
    parameters = (n.told.get("alpha"), n.told.get("beta"))
    folded = b.fold(n, lambda one: torch_functions.activate(one, name, *parameters))
    if folded is not None:
        return [folded]
    made = b.call(torch_functions.activate, b.raw(x), name, *parameters)
    return [Value(made, turned=x.turned)]


@RULES.of("ReduceMean", "ReduceSum", "ReduceMax")
def _reduced(b: Builder, n: Node) -> list[Value]:
    axes = axes_of(n)
    if not axes:
        raise RefusedError(f"{n.where}: axes must be given as constants, got none")
    function: dict[str, Callable[..., Any]] = {
        "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax,
    }  # fmt: skip
    kept = bool(n.told.get("keepdims", 1))
    reduce = function[n.proto.op_type]
    folded = b.fold(n, lambda one: reduce(one, axes, keepdim=kept), inputs=n.inputs[:1])
    if folded is not None:
        return [folded]
    return [Value(b.call(reduce, b.node(n.inputs[0]), axes, keepdim=kept))]
