"""A module as an ONNX file: checked, and written whole or not at all."""

import json
import os
from typing import Any

import onnx
from onnx import helper
from torch import nn

from unrolled import __version__, io
from unrolled.export import ExportError
from unrolled.onnx.exporter.model_graph import make_graph

__all__ = ["IR_VERSION", "OPSET", "export"]

OPSET = 18
"""The oldest with reductions over axes that are inputs, and Split by number; every operator that is
used has kept its meaning since."""
IR_VERSION = 8
"""That of the ONNX release of OPSET."""
MOST = 2**31 - 1
"""Bytes of a file, by its format."""


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    task: str | None = None,
    codec: Any = None,
    lengths: bool = False,
    states: bool = False,
    portable: bool = False,
) -> None:
    """Write a module as an ONNX file, for any runtime that reads opset 18.

    Layers whose equations are those of the standard operators RNN, LSTM and GRU become these; all
    other cells, and projections, become a Scan whose body is the cell's program. T and N are free.
    Dropout does nothing, as in evaluation.

    ========== ========================================== ==========================================
    ``x``      numbers [T, N, I], or tokens [T, N]        input; [N, T, …] with batch_first
    ``lengths`` int64 [N], 0 to T                         input, if asked for
    ``h_0`` …  [L·D, N, width], by the cell's names       inputs that may be left out, if asked for
    ``y``      [T, N, …], or [N, …] where sequences end   output
    ``h_n`` …  [L·D, N, width]                            outputs
    ========== ========================================== ==========================================

    With several layers of their own in a chain the states of the k-th are ``h_0_k``, ``h_n_k``. A
    tagger that reads characters has inputs ``characters`` and ``spellings``, as ``encode`` of its
    runtime model gives them. Output past a sequence's length is zero before the head, as in our
    layers. Numbers are float32; a module in float64 is written in float64, with all its layers as
    Scan.

    Args:
        module: what ``unrolled.export.export`` takes: a layer of ``unrolled.nn``, a model of
            ``unrolled.models``, a chain of layers, embeddings, linear layers and activations.
        task, codec: kept in the file's metadata as text (JSON). The scale of a codec of numbers is
            applied before the module, and taken back from forecasts.
        lengths: give the file an input for lengths.
        states: give it inputs for the states before the first step. Left out they are zero, or
            what the model learned to begin with.
        portable: use only what ONNX Runtime, OpenVINO and tract compute alike; see
            docs/onnx-runtimes.md. An operator RNN, LSTM or GRU is then used for a layer without
            lengths whose activation functions are the default ones, a Scan for every other; inputs
            for states may not be left out.

    Raises:
        ExportError: the module is no such chain, or too large for a file (2 GiB); or ``portable``
            and ``states`` with a learned initial state, or ``portable`` in float64.
        TypeError: an argument is of another kind, or the codec holds what JSON cannot.
        OSError: the file cannot be written.
    """
    _check(module, task, lengths=lengths, states=states, portable=portable)
    model = helper.make_model(
        make_graph(module, codec, lengths, states, portable),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="unrolled",
        producer_version=__version__,
    )
    told = {"task": task, "codec": None if codec is None else json.dumps(codec, default=_plain)}
    helper.set_model_props(model, {key: text for key, text in told.items() if text is not None})
    if model.ByteSize() > MOST:
        raise ExportError(
            f"{type(module).__name__}: wanted at most {MOST} bytes, got {model.ByteSize()}"
        )
    onnx.checker.check_model(model, full_check=True)
    io.write(path, model.SerializeToString())


def _check(module: Any, task: Any, **flags: Any) -> None:
    """Refuse arguments of another kind."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: wanted a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(task, str | None):
        raise TypeError(f"task: wanted a name or None, got {task!r}")
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            kind = type(flag).__name__
            raise TypeError(f"{name}: wanted True or False, whether there is an input, got {kind}")


def _plain(value: Any) -> Any:
    """Arrays and tensors as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"codec: wanted plain values and arrays, got {type(value).__name__}")
