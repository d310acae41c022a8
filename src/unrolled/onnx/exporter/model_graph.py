"""A chain of parts as a graph: its inputs, a node or more for each part, its results."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from onnx import GraphProto, ValueInfoProto, helper
from torch import nn

from unrolled import io
from unrolled.export import ExportError
from unrolled.export.model_description import describe_model
from unrolled.onnx.exporter import blocks
from unrolled.onnx.exporter.graph import INTS, FileGraph, Value, info, join
from unrolled.onnx.exporter.portability import refusal
from unrolled.onnx.exporter.recurrent_layers import stack
from unrolled.onnx.exporter.sweep import Lengths, Sweep, sizes_of
from unrolled.program.decode import decode_forward
from unrolled.runtime.encode import encode_model
from unrolled.runtime.schema import ChainModel, TranslatorModel
from unrolled.runtime.validate import check_model

__all__ = ["make_graph"]

_DOUBLE = np.dtype(np.float64)


def make_graph(
    module: nn.Module, codec: Any, lengths: bool, states: bool, portable: bool = False
) -> GraphProto:
    """The graph of a module; see ``exporting.export``.

    Raises:
        ExportError: the module is no chain with a layer in it.
    """
    name = type(module).__name__
    model = _model_of(module, codec)
    if not isinstance(model, ChainModel):
        raise ExportError(
            f"{name}: wanted a chain; what a decoder reads depends on what it said: export the "
            "layers of encoder and decoder"
        )
    try:
        check_model(model)
    except io.CORRUPT_FILE_ERRORS as error:
        raise ExportError(f"{name}: {error}") from error
    told: dict[str, Any] = encode_model(model)
    reason = refusal(told["blocks"], states) if portable else None
    if reason is not None:
        raise ExportError(f"{name}: portable must be False here, got True: {reason}")
    chain = _Chain(told["blocks"], told.get("batch_first", False), lengths, states, portable)
    return chain.graph(name)


def _model_of(module: nn.Module, codec: Any) -> ChainModel | TranslatorModel:
    """The module in the schema of exported files, in float64 if that is what it is in."""
    floats = {p.dtype for p in module.parameters() if p.dtype.is_floating_point}
    dtype = torch.float64 if floats == {torch.float64} else torch.float32
    return describe_model(module, codec, dtype)


class _Chain:
    """Walks along the parts and makes their nodes."""

    def __init__(
        self,
        blocks: list[dict[str, Any]],
        batch_first: bool,
        lengths: bool,
        states: bool,
        portable: bool,
    ) -> None:
        self.blocks, self.batch_first, self.states = blocks, batch_first, states
        layers = [block for block in blocks if block["block"] == "recurrent"]
        self.g = FileGraph(_dtype(layers[0]), portable=portable)
        self.several = len(layers) > 1
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.results: list[tuple[str, Value]] = []
        for name in ("x", "y", "lengths", "characters", "spellings"):
            self.g.free(name)
        self.width = 0
        self.x = self.known = self._enter()
        self.lengths: Lengths | None = None
        if lengths:
            self.inputs.append(info("lengths", INTS, ["N"]))
            self.lengths = Lengths(self.g, self.x, "lengths")
        self.layers = 0  # how many there were
        self.final: Value = None  # output states of the last one
        self.layer: dict[str, Any] = {}
        self.ended = False
        self.numbers = self.g.dtype  # of what comes out

    def graph(self, name: str) -> GraphProto:
        """All of it."""
        self.g.free(name)
        for block in self.blocks:
            getattr(self, "_" + block["block"], self._activation)(block)
        y = self.x
        if not self.ended and self.batch_first:
            y = self.g.op("Transpose", y, perm=[1, 0, 2])
        shape = ["N"] if self.ended else self._steps()
        last = [self.width] if self.blocks[-1]["block"] != "forecast" else self._forecasts()
        self._leave("y", y, [*shape, *last], self.numbers)
        self.outputs.insert(0, self.outputs.pop())
        g = self.g
        return helper.make_graph(g.nodes, name, self.inputs, self.outputs, g.initializers())

    def _steps(self) -> list[str]:
        return ["N", "T"] if self.batch_first else ["T", "N"]

    def _forecasts(self) -> list[int]:
        told = self.blocks[-1]
        return [told["horizon"], told["targets"]]

    def _leave(self, name: str, value: Value, shape: list[Any], dtype: np.dtype[Any]) -> None:
        self.g.nodes.append(helper.make_node("Identity", [value], [name], name=f"give_{name}"))
        self.outputs.append(info(name, dtype, shape))

    def _enter(self) -> Value:
        """What the first part reads, as [T, N, …]."""
        tokens = self.blocks[0]["block"] in ("embedding", "words")
        width = [] if tokens else [_read_by(self.blocks)]
        self.width = 0 if tokens else width[0]
        self.inputs.append(info("x", INTS if tokens else self.g.dtype, [*self._steps(), *width]))
        if not self.batch_first:
            return "x"
        return self.g.op("Transpose", "x", perm=[1, 0] if tokens else [1, 0, 2])

    def _embedding(self, told: dict[str, Any]) -> None:
        self.x = self._rows(told["weight"], self.x, "embedding")
        self.width = told["weight"].shape[1]

    def _rows(self, table: np.ndarray, tokens: Value, name: str) -> Value:
        return self.g.op("Gather", self.g.named(table.astype(self.g.dtype), name), tokens, axis=0)

    def _words(self, told: dict[str, Any]) -> None:
        """Words beside how they are spelt, as ``runtime.task_blocks.Words`` has them."""
        g = self.g
        self.inputs.append(info("characters", INTS, ["C", "TN"]))
        self.inputs.append(info("spellings", INTS, ["TN"]))
        characters = self._rows(told["characters"], "characters", "characters_embedding")
        spelling = told["spelling"]
        lengths = Lengths(g, characters, "spellings")
        layers = _sweeps(spelling, "spelling")
        _, finals = stack(g, characters, layers, None, lengths, _merge(spelling))
        spelt = blocks.ends(g, finals[0], len(layers[0]), _merge(spelling))
        words = self._rows(told["words"], self.x, "embedding")
        shape = g.op("Concat", sizes_of(g, self.x, 0, 2), np.array([-1], INTS), axis=0)
        self.x = join(g, [words, g.op("Reshape", spelt, shape)], axis=-1)
        self.width = told["words"].shape[1] + _width(spelling)

    def _scale(self, told: dict[str, Any]) -> None:
        self.x = self.known = blocks.scale(self.g, self.x, told)

    def _linear(self, told: dict[str, Any]) -> None:
        self.x = blocks.linear(self.g, self.x, told)
        self.width = len(told["weight"])

    def _activation(self, told: dict[str, Any]) -> None:
        self.x = blocks.ACTIVATIONS[told["block"]](self.g, self.x)

    def _last(self, told: dict[str, Any]) -> None:
        self.x = blocks.ends(self.g, self.final, len(self.layer["layers"][0]), _merge(self.layer))
        self.ended = True

    def _pooling(self, told: dict[str, Any]) -> None:
        self.x = blocks.pooling(self.g, self.x, told, self.lengths)
        self.ended = True

    def _forecast(self, told: dict[str, Any]) -> None:
        self.x = blocks.forecast(self.g, self.x, self.known, told, self.lengths)
        self.numbers = _DOUBLE

    def _recurrent(self, told: dict[str, Any]) -> None:
        self.layers += 1
        name = f"layers_{self.layers}" if self.several else "layer"
        layers = _sweeps(told, name)
        widths = layers[0][0].widths
        rows = len(layers) * len(layers[0])
        starts = self._starts(told, rows, widths)
        self.x, finals = stack(self.g, self.x, layers, starts, self.lengths, _merge(told))
        for state, final, width in zip(told["states"], finals, widths, strict=True):
            self._leave(self._called(state, "n"), final, [rows, "N", width], self.g.dtype)
        self.final, self.layer, self.width = finals[0], told, _width(told)

    def _called(self, state: str, when: str) -> str:
        return self.g.free(f"{state}_{when}" + f"_{self.layers}" * self.several)

    def _starts(self, told: dict[str, Any], rows: int, widths: list[int]) -> list[Value] | None:
        """States before the first step, [L·D, N, width] each; None for zeros."""
        g = self.g
        begin = told["start"]
        if begin is None and not self.states:
            return None
        shared = [
            np.zeros((rows, 1, width), g.dtype)
            if begin is None
            else np.stack([row[k] for row in begin]).astype(g.dtype)
            for k, width in enumerate(widths)
        ]
        one = np.array([1], INTS)
        shape = g.op("Concat", one, sizes_of(g, self.x, 1), one, axis=0)
        values: list[Value] = list(shared)
        if self.states:
            for k, (state, array) in enumerate(zip(told["states"], shared, strict=True)):
                values[k] = self._called(state, "0")
                self.inputs.append(info(values[k], g.dtype, [rows, "N", widths[k]]))
                if not g.portable:  # OpenVINO and tract take such a value for a constant
                    g.initial(values[k], array)
            if g.portable:
                return values
        return [g.op("Expand", value, shape) for value in values]


def _dtype(layer: dict[str, Any]) -> np.dtype[Any]:
    return next(a.dtype for a in layer["layers"][0][0]["arrays"] if a is not None)


def _read_by(blocks: list[dict[str, Any]]) -> int:
    """Numbers of a row that the first part reads which has an opinion."""
    for told in blocks:
        if told["block"] == "scale":
            return len(told["mean"])
        if told["block"] == "linear":
            return int(told["weight"].shape[1])
        if told["block"] == "recurrent":
            return int(told["layers"][0][0]["sizes"][0])
    raise AssertionError("a chain without a layer")


def _merge(layer: dict[str, Any]) -> str:
    return str(layer.get("merge", "concat"))


def _width(layer: dict[str, Any]) -> int:
    """Of the output of layers."""
    each = [one["sizes"][2] for one in layer["layers"][-1]]
    return int(each[0] if _merge(layer) == "sum" else sum(each))


def _sweeps(layer: dict[str, Any], name: str) -> list[list[Sweep]]:
    """The layers of a description, [L][D]."""
    found = []
    for k, directions in enumerate(layer["layers"]):
        called = f"{name}_{k}"
        found.append(
            [
                _sweep(one, bool(reverse), called + "_reverse" * reverse)
                for reverse, one in enumerate(directions)
            ]
        )
    return found


def _sweep(told: dict[str, Any], reverse: bool, name: str) -> Sweep:
    arrays, (I, H, P) = told["arrays"], told["sizes"]  # noqa: E741
    forward = decode_forward(told["program"])
    count = 2 * (1 + len(forward.products))
    bare = Sweep(forward, I, H, P, reverse, tuple(arrays[:count]), (), name)
    vectors = (
        np.zeros(bare.width(size), arrays[0].dtype) if array is None else array
        for size, array in zip(forward.vectors, arrays[count:], strict=True)
    )
    return replace(bare, vectors=tuple(vectors))
