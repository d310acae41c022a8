"""Builds the graph of a whole model: inputs, the nodes of each block, outputs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from onnx import GraphProto, ValueInfoProto, helper
from torch import nn

from unrolled import io
from unrolled.export import ExportError
from unrolled.export._model_description import describe_model
from unrolled.onnx._exporter import block_nodes
from unrolled.onnx._exporter.graph import INTEGERS, Dim, FileGraph, Value, concatenate, value_info
from unrolled.onnx._exporter.portability import refusal
from unrolled.onnx._exporter.recurrent_layers import layer_stack
from unrolled.onnx._exporter.sequences import Lengths, sizes_of
from unrolled.onnx._exporter.sweep import Sweep
from unrolled.program._decode import decode_forward
from unrolled.runtime._schema import (
    ActivationBlock,
    Block,
    ChainModel,
    EmbeddingBlock,
    ForecastBlock,
    LastBlock,
    LayerDirection,
    LinearBlock,
    PoolingBlock,
    RecurrentBlock,
    ScaleBlock,
    WordsBlock,
)
from unrolled.runtime._validate import check_model

_FLOAT64 = np.dtype(np.float64)
_RESERVED_NAMES = ("x", "y", "lengths", "characters", "spellings")


def model_graph(
    module: nn.Module, codec: object, lengths: bool, states: bool, portable: bool = False
) -> GraphProto:
    """The graph of a module; see ``unrolled.onnx.export``.

    Raises:
        ExportError: the module is not a chain that contains a layer.
    """
    name = type(module).__name__
    model = _chain_of(module, codec)
    reason = refusal(model.blocks, states) if portable else None
    if reason is not None:
        raise ExportError(f"{name}: portable must be False here, got True: {reason}")
    return _ChainWriter(model, lengths, states, portable).graph(name)


def _chain_of(module: nn.Module, codec: object) -> ChainModel:
    """The module in the schema of exported files, in float64 if all its parameters are."""
    name = type(module).__name__
    dtypes = {p.dtype for p in module.parameters() if p.dtype.is_floating_point}
    dtype = torch.float64 if dtypes == {torch.float64} else torch.float32
    model = describe_model(module, codec, dtype)
    if not isinstance(model, ChainModel):
        raise ExportError(
            f"{name}: module must be a chain, got an encoder and a decoder, whose input depends on "
            "its output: export the layers of encoder and decoder"
        )
    try:
        check_model(model)
    except io.CORRUPT_FILE_ERRORS as error:
        raise ExportError(f"{name}: {error}") from error
    return model


class _ChainWriter:
    """Adds the nodes of one block after another."""

    def __init__(self, model: ChainModel, lengths: bool, states: bool, portable: bool) -> None:
        self.blocks, self.batch_first = model.blocks, model.batch_first
        self.state_inputs = states
        recurrent = [block for block in self.blocks if isinstance(block, RecurrentBlock)]
        self.g = FileGraph(_dtype_of(recurrent[0]), portable=portable)
        self.numbered = len(recurrent) > 1
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        for name in _RESERVED_NAMES:
            self.g.unique_name(name)
        self.row: list[int] = []  # the axes of x after T and N
        self.x = self.sequence = self._add_input()
        self.lengths: Lengths | None = None
        if lengths:
            self.inputs.append(value_info("lengths", INTEGERS, ["N"]))
            self.lengths = Lengths(self.g, self.x, "lengths")
        self.recurrent_count = 0
        self.latest: tuple[RecurrentBlock, Value] | None = None  # with its final output states
        self.pooled = False
        self.output_dtype = self.g.dtype

    def graph(self, name: str) -> GraphProto:
        """The graph of all blocks."""
        self.g.unique_name(name)
        for block in self.blocks:
            self._add_block(block)
        y = self.x
        if not self.pooled and self.batch_first:
            y = self.g.op("Transpose", y, perm=[1, 0, 2])
        self._add_output("y", y, [*(["N"] if self.pooled else self._steps()), *self.row])
        self.outputs.insert(0, self.outputs.pop())
        g = self.g
        return helper.make_graph(g.nodes, name, self.inputs, self.outputs, g.initializers())

    def _steps(self) -> list[str]:
        return ["N", "T"] if self.batch_first else ["T", "N"]

    def _add_output(self, name: str, value: Value, shape: Sequence[Dim]) -> None:
        self.g.add_output(name, value)
        dtype = self.output_dtype if name == "y" else self.g.dtype
        self.outputs.append(value_info(name, dtype, shape))

    def _add_input(self) -> Value:
        """The input of the first block, as [T, N, …]."""
        reads_tokens = isinstance(self.blocks[0], EmbeddingBlock | WordsBlock)
        self.row = [] if reads_tokens else [_input_width(self.blocks)]
        dtype = INTEGERS if reads_tokens else self.g.dtype
        self.inputs.append(value_info("x", dtype, [*self._steps(), *self.row]))
        if not self.batch_first:
            return "x"
        return self.g.op("Transpose", "x", perm=[1, 0] if reads_tokens else [1, 0, 2])

    def _add_block(self, block: Block) -> None:
        g = self.g
        match block:
            case EmbeddingBlock():
                self.x = block_nodes.embedding(g, block.weight, self.x, "embedding")
                self.row = [block.width]
            case WordsBlock():
                self._add_words(block)
            case ScaleBlock():
                self.x = self.sequence = block_nodes.scale(g, self.x, block)
            case RecurrentBlock():
                self._add_recurrent(block)
            case LinearBlock():
                self.x = block_nodes.linear(g, self.x, block)
                self.row = [block.width]
            case ActivationBlock():
                self.x = block_nodes.ACTIVATIONS[block.function](g, self.x)
            case LastBlock():
                assert self.latest is not None
                recurrent, state = self.latest
                D, merge = recurrent.num_directions, recurrent.merge
                self.x = block_nodes.final_output(g, state, D, merge)
                self.pooled = True
            case PoolingBlock():
                self.x = block_nodes.pooling(g, self.x, block, self.lengths)
                self.pooled = True
            case ForecastBlock():
                self.x = block_nodes.forecast(g, self.x, self.sequence, block, self.lengths)
                self.row = [block.horizon, block.targets]
                self.output_dtype = _FLOAT64

    def _add_words(self, block: WordsBlock) -> None:
        """Word embeddings, concatenated with the final states of layers over their characters."""
        g, spelling = self.g, block.spelling
        self.inputs.append(value_info("characters", INTEGERS, ["C", "TN"]))
        self.inputs.append(value_info("spellings", INTEGERS, ["TN"]))
        characters = block_nodes.embedding(
            g, block.characters, "characters", "characters_embedding"
        )
        lengths = Lengths(g, characters, "spellings")
        sweeps = _sweeps(spelling, "spelling")
        _, states = layer_stack(g, characters, sweeps, None, lengths, spelling.merge)
        spelled = block_nodes.final_output(g, states[0], spelling.num_directions, spelling.merge)
        words = block_nodes.embedding(g, block.words, self.x, "embedding")
        sizes = sizes_of(g, self.x, 0, 2)
        shape = g.op("Concat", sizes, np.array([-1], INTEGERS), axis=0)
        self.x = concatenate(g, [words, g.op("Reshape", spelled, shape)], axis=-1)
        self.row = [block.width]

    def _add_recurrent(self, block: RecurrentBlock) -> None:
        self.recurrent_count += 1
        name = f"layers_{self.recurrent_count}" if self.numbered else "layer"
        sweeps = _sweeps(block, name)
        widths = sweeps[0][0].state_widths
        rows = len(sweeps) * len(sweeps[0])
        initial_states = self._initial_states(block, rows, widths)
        self.x, final_states = layer_stack(
            self.g, self.x, sweeps, initial_states, self.lengths, block.merge
        )
        for state, final_state, width in zip(block.states, final_states, widths, strict=True):
            self._add_output(self._state_name(state, "n"), final_state, [rows, "N", width])
        self.latest, self.row = (block, final_states[0]), [block.width]

    def _state_name(self, state: str, step: str) -> str:
        suffix = f"_{self.recurrent_count}" if self.numbered else ""
        return self.g.unique_name(f"{state}_{step}{suffix}")

    def _initial_states(
        self, block: RecurrentBlock, rows: int, widths: Sequence[int]
    ) -> list[Value] | None:
        """The states before the first step, [L·D, N, width] each; None for zeros."""
        g = self.g
        if block.start is None and not self.state_inputs:
            return None
        defaults = [
            np.zeros((rows, 1, width), g.dtype)
            if block.start is None
            else np.stack([row[k] for row in block.start]).astype(g.dtype)
            for k, width in enumerate(widths)
        ]
        one = np.array([1], INTEGERS)
        shape = g.op("Concat", one, sizes_of(g, self.x, 1), one, axis=0)
        if not self.state_inputs:
            return [g.op("Expand", state, shape) for state in defaults]
        names: list[Value] = []
        for state, default in zip(block.states, defaults, strict=True):
            name = self._state_name(state, "0")
            self.inputs.append(value_info(name, g.dtype, [rows, "N", default.shape[-1]]))
            if not g.portable:  # OpenVINO and tract treat a default value as a constant
                g.set_default(name, default)
            names.append(name)
        return names if g.portable else [g.op("Expand", name, shape) for name in names]


def _dtype_of(block: RecurrentBlock) -> np.dtype[np.generic]:
    arrays = block.layers[0][0].arrays
    return next(array.dtype for array in arrays if array is not None)


def _input_width(blocks: Sequence[Block]) -> int:
    """The width of the input: that of the first block which determines it."""
    for block in blocks:
        if isinstance(block, ScaleBlock):
            return block.width
        if isinstance(block, LinearBlock | RecurrentBlock):
            return block.inputs
    raise AssertionError("a chain without a layer")


def _sweeps(block: RecurrentBlock, name: str) -> list[list[Sweep]]:
    """The sweeps of a block, [L][D]."""
    return [
        [
            _sweep(direction, bool(d), f"{name}_{k}" + "_reverse" * d)
            for d, direction in enumerate(layer)
        ]
        for k, layer in enumerate(block.layers)
    ]


def _sweep(direction: LayerDirection, reverse: bool, name: str) -> Sweep:
    I, H, P = direction.sizes  # noqa: E741
    forward = decode_forward(direction.program)
    count = 2 * (1 + len(forward.products))
    matrices, vectors = direction.arrays[:count], direction.arrays[count:]
    sweep = Sweep(forward, I, H, P, reverse, matrices, (), name)
    dtype = next(array.dtype for array in matrices if array is not None)
    present = (
        np.zeros(sweep.width(size), dtype) if array is None else array
        for size, array in zip(forward.vectors, vectors, strict=True)
    )
    return replace(sweep, vectors=tuple(present))
