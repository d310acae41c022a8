"""Weights that are replaced: by tensors of a wrong shape, or by another thread during a call."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unrolled
from unrolled import cells, engines, nn

X = torch.ones(5, 2, 3)


def in_a_graph(layer: nn.Recurrent) -> Any:
    torch._dynamo.reset()
    return torch.compile(layer, backend="eager", fullgraph=True)(X)


def by_engine(name: str) -> Callable[[nn.Recurrent], Any]:
    def run(layer: nn.Recurrent) -> Any:
        with engines.use(name):
            return layer(X)

    return run


def mapped(layer: nn.Recurrent) -> Any:
    return torch.func.vmap(lambda x: layer(x)[0])(X[None])


def with_checkpoint(layer: nn.Recurrent) -> Any:
    layer.checkpoint = True
    return layer(X)


def packed(layer: nn.Recurrent) -> Any:
    return layer(torch.nn.utils.rnn.pack_padded_sequence(X, torch.tensor([5, 3])))


CALLS: dict[str, Callable[[nn.Recurrent], Any]] = {
    "training": lambda layer: layer(X),
    "inference": torch.no_grad()(lambda layer: layer(X)),
    "lengths": lambda layer: layer(X, lengths=[5, 3]),
    "resets": lambda layer: layer(X, resets=torch.ones(5, 2, dtype=torch.bool)),
    "packed": packed,
    "checkpoint": with_checkpoint,
    "vmap": mapped,
    "graph": in_a_graph,
    "reference": by_engine("reference"),
    "aten": by_engine("aten"),
    "explain": lambda layer: engines.explain(layer, X),
}


@pytest.mark.parametrize("call_name", CALLS)
@pytest.mark.parametrize("assign", ["parameter", "data"])
@pytest.mark.parametrize("size", [0, 1])
def test_a_bias_of_another_size_is_refused_on_every_way_in(
    call_name: str, assign: str, size: int
) -> None:
    layer = nn.LSTM(3, 4)
    if assign == "data":
        layer.bias_hh_l0.data = torch.zeros(size)
    else:
        layer.bias_hh_l0 = torch.nn.Parameter(torch.zeros(size))
    message = rf"LSTM: bias_hh_l0 must have shape \[16\], got \[{size}\]"
    with pytest.raises(RuntimeError, match=message):
        CALLS[call_name](layer)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("module", "x", "name"),
    [
        (lambda m: m.GRUCell(3, 4), X[0], "bias_ih"),
        (lambda m: m.GRU(3, 4, 2, bidirectional=True), X, "bias_ih_l1_reverse"),
        (lambda m: m.LSTM(3, 4, proj_size=2), X, "weight_hr_l0"),
        (lambda m: m.RNN(3, 4), X, "weight_hh_l0"),
    ],
)
def test_an_empty_parameter_raises_as_in_torch(
    module: Callable[[Any], Any], x: Tensor, name: str, grad: bool
) -> None:
    for library in (torch.nn, nn):
        layer = module(library)
        getattr(layer, name).data = torch.zeros(0)
        with pytest.raises(RuntimeError), torch.set_grad_enabled(grad):
            layer(x)


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "bias_ih"])
def test_a_parameter_that_was_removed_is_named(name: str) -> None:
    layer, cell = nn.LSTM(3, 4), nn.LSTMCell(3, 4)
    setattr(layer, f"{name}_l0", None)
    setattr(cell, name, None)
    with pytest.raises(RuntimeError, match=rf"LSTM: {name}_l0 must have shape .*, got None"):
        layer(X)
    with pytest.raises(RuntimeError, match=rf"LSTMCell: {name} must have shape .*, got None"):
        cell(X[0])


def test_an_empty_vector_of_a_cell_is_refused() -> None:
    layer = nn.Recurrent(cells.PeepholeLSTM, 3, 4)
    name = next(name for name, p in layer.named_parameters() if p.shape == (4,))
    setattr(layer, name, torch.nn.Parameter(torch.zeros(0)))
    with pytest.raises(RuntimeError, match=re.escape(f"{name} must have shape [4], got [0]")):
        layer(X)


def test_an_empty_bias_is_refused_by_streams_and_files(tmp_path: Path) -> None:
    layer = nn.LSTM(3, 4)
    layer.bias_hh_l0 = torch.nn.Parameter(torch.zeros(0))
    message = r"bias_hh_l0 must have shape \[16\], got \[0\]"
    with pytest.raises(ValueError, match=message):
        layer.stream()
    with pytest.raises(ValueError, match=message):
        unrolled.export.export(layer, tmp_path / "lstm.safetensors")
    with pytest.raises(ValueError, match=message):
        unrolled.onnx.export(layer, tmp_path / "lstm.onnx")


SMALLER = r"at least \d+ bytes|out of bounds for storage"  # the second is torch's own


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("bytes_left", [0, 8])
@pytest.mark.parametrize("name", ["weight_hh_l0", "bias_hh_l0", "input", "h0"])
def test_a_storage_that_was_made_smaller_is_refused(name: str, bytes_left: int, grad: bool) -> None:
    """The sizes are such that a call gives up the interpreter's lock."""
    layer, x, h0 = nn.GRU(16, 32), torch.zeros(100, 4, 16), torch.zeros(1, 4, 32)
    tensor = {"input": x, "h0": h0}.get(name)
    tensor = getattr(layer, name) if tensor is None else tensor
    tensor.untyped_storage().resize_(bytes_left)
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match=SMALLER):
        layer(x, h0)


def test_many_steps_of_a_narrow_layer_give_up_the_lock() -> None:
    """Its products are few, but a step costs more than they do; such calls look at the storages."""
    layer = nn.RNN(1, 1)
    layer.weight_hh_l0.untyped_storage().resize_(2)
    with torch.no_grad(), pytest.raises(RuntimeError, match=SMALLER):
        layer(torch.zeros(20_000, 1, 1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_one_tensor_for_two_states_and_a_nested_input() -> None:
    layer, state = nn.LSTM(3, 4), torch.zeros(1, 2, 4)
    for layer_name in (TypeError, RuntimeError, IndexError):
        with pytest.raises(layer_name, match="hx must be a tuple of 2 tensors"):
            layer(X, state)
    nested = torch.nested.nested_tensor([torch.zeros(5, 3), torch.zeros(2, 3)])
    with pytest.raises(RuntimeError, match="must be a Tensor, got a nested one"):
        layer(nested)


SCRIPT = """
import signal, sys, threading
import torch
from unrolled import nn

sys.setswitchinterval(1e-6)
torch.set_num_threads(1)
torch.manual_seed(0)


def assign(module):
    module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()}, assign=True)


def exchange(module):
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()


def run(module, x, grad, options):
    with torch.set_grad_enabled(grad):
        output = module(x, **options)
        output = output[0] if isinstance(output, tuple) else output
        if grad:
            output.sum().backward()
    return output.detach()


def serve_while(replace, module, x, options, count=200):
    expected = run(module, x, False, options)
    wrong, finished = [], threading.Event()

    def serve(grad):
        for _ in range(count):
            if not torch.equal(run(module, x, grad, options), expected):
                wrong.append(grad)

    def reload():
        while not finished.is_set():
            replace(module)

    servers = [threading.Thread(target=serve, args=(grad,)) for grad in (False, True)]
    reloader = threading.Thread(target=reload)
    for thread in (*servers, reloader):
        thread.start()
    for thread in servers:
        thread.join()
    finished.set()
    reloader.join()
    return len(wrong)


lstm, cell = nn.LSTM(8, 16, num_layers=2), nn.GRUCell(8, 16)
bidirectional = nn.GRU(8, 16, bidirectional=True)
calls = [
    (lstm, torch.randn(3, 2, 8), {}),
    (lstm, torch.randn(60, 2, 8), {}),
    (lstm, torch.randn(5, 2, 8), {"lengths": [3, 5]}),
    (cell, torch.randn(2, 8), {}),
    (bidirectional, torch.randn(3, 2, 8), {}),
]
for replace in (assign, exchange):
    for module, x, options in calls:
        if wrong := serve_while(replace, module, x, options):
            sys.exit(f"{replace.__name__}: {wrong} wrong outputs of {module}")

large, x = nn.LSTM(64, 256), torch.randn(100, 16, 64)
expected = run(large, x, False, {})
calls = []
signal.signal(signal.SIGALRM, lambda *_: calls.append(exchange(large)))
signal.setitimer(signal.ITIMER_REAL, 0.004, 0.004)
for grad in (False, True) * 3:
    if not torch.equal(run(large, x, grad, {}), expected):
        sys.exit("a signal handler changed the output")
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(calls), "signals")
"""


@pytest.mark.slow
def test_weights_replaced_during_calls_change_no_output() -> None:
    """With freed memory overwritten, by Python's debugging allocator and by the C library."""
    checks = {"PYTHONMALLOC": "debug", "MALLOC_PERTURB_": "165", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **checks},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr or process.returncode
