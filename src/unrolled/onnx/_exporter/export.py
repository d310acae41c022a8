"""Exports modules as ONNX files, which are checked and written atomically."""

import json
import os

import onnx
from onnx import helper
from torch import nn

from unrolled import __version__, io
from unrolled.export import ExportError
from unrolled.onnx._exporter.model_graph import model_graph

OPSET = 18
"""The oldest opset whose reductions read axes from an input and whose Split takes a number of
parts; later opsets do not change the operators that are used."""
IR_VERSION = 8
"""The IR version of the ONNX release that introduced OPSET."""
MAX_BYTES = 2**31 - 1
"""The largest size that the file format allows."""


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    task: str | None = None,
    codec: object = None,
    lengths: bool = False,
    states: bool = False,
    portable: bool = False,
) -> None:
    """Write a module as an ONNX file, for any runtime that reads opset 18.

    Layers with the equations of the standard operators RNN, LSTM and GRU become these operators;
    all other cells, and projections, become a Scan whose body is the cell's program. T and N are
    dynamic. Dropout does nothing, as in evaluation.

    ========== ========================================== ==========================================
    ``x``      numbers [T, N, I], or tokens [T, N]        input; [N, T, …] with batch_first
    ``lengths`` int64 [N], 0 to T                         input, with ``lengths=True``
    ``h_0`` …  [L·D, N, width], by the cell's names       optional inputs, with ``states=True``
    ``y``      [T, N, …], or [N, …] after pooling         output
    ``h_n`` …  [L·D, N, width]                            outputs
    ========== ========================================== ==========================================

    In a chain of several recurrent layers the states of the k-th are ``h_0_k`` and ``h_n_k``. A
    tagger that reads characters has inputs ``characters`` and ``spellings``, as ``encode`` of its
    runtime model returns them. After the end of a sequence the head reads zeros, as in our layers.
    Numbers are float32; a module in float64 is written in float64, with all its layers as Scan.

    Args:
        module: what ``unrolled.export.export`` takes: a layer of ``unrolled.nn``, a model of
            ``unrolled.models``, a chain of layers, embeddings, linear layers and activations.
        path: the file.
        task, codec: written to the file's metadata as text (JSON). The scale of a codec of numbers
            is applied before the module, and inverted after forecasts.
        lengths: add an input for lengths.
        states: add inputs for the states before the first step. Their default values are zero, or
            the learned initial state of the model.
        portable: use only operators that ONNX Runtime, OpenVINO and tract compute alike; see
            docs/onnx-runtimes.md. The operators RNN, LSTM and GRU are then used only for layers
            without lengths whose activation functions are the default ones, and Scan for all
            others; inputs for states are then required.

    Raises:
        ExportError: the module is not such a chain, or too large for a file (2 GiB); or
            ``portable`` and ``states`` with a learned initial state, or ``portable`` in float64.
        TypeError: an argument has the wrong type, or the codec holds a value that JSON cannot.
        OSError: the file cannot be written.
    """
    _check_arguments(module, task, lengths=lengths, states=states, portable=portable)
    model = helper.make_model(
        model_graph(module, codec, lengths, states, portable),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="unrolled",
        producer_version=__version__,
    )
    properties = {} if task is None else {"task": task}
    if codec is not None:
        properties["codec"] = json.dumps(codec, default=_as_list)
    helper.set_model_props(model, properties)
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(
            f"{type(module).__name__}: the file must have at most {MAX_BYTES} bytes, got "
            f"{model.ByteSize()}"
        )
    onnx.checker.check_model(model, full_check=True)
    io.write(path, model.SerializeToString())


def _check_arguments(module: object, task: object, **flags: object) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"export: module must be a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(task, str | None):
        raise TypeError(f"export: task must be a str or None, got {task!r}")
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"export: {name} must be True or False, got {type(flag).__name__}")


def _as_list(value: object) -> object:
    """Arrays and tensors as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(
        f"export: codec must have plain values and arrays only, got {type(value).__name__}"
    )
