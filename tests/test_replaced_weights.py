"""Weights that another thread or a signal handler replaces during a call: nothing freed is read."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import signal, sys, threading, time
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


def serve_while(replace, module, x, options, seconds):
    wanted = run(module, x, False, options)
    end, wrong = time.monotonic() + seconds, []

    def serve(grad):
        while time.monotonic() < end:
            if not torch.equal(run(module, x, grad, options), wanted):
                wrong.append(grad)

    def reload():
        while time.monotonic() < end:
            replace(module)

    threads = [threading.Thread(target=serve, args=(grad,)) for grad in (False, True)]
    threads.append(threading.Thread(target=reload))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong)


lstm, cell = nn.LSTM(8, 16, num_layers=2), nn.GRUCell(8, 16)
both = nn.GRU(8, 16, bidirectional=True)
calls = [
    (lstm, torch.randn(3, 2, 8), {}),
    (lstm, torch.randn(60, 2, 8), {}),
    (lstm, torch.randn(5, 2, 8), {"lengths": [3, 5]}),
    (cell, torch.randn(2, 8), {}),
    (both, torch.randn(3, 2, 8), {}),
]
for replace in (assign, exchange):
    for module, x, options in calls:
        if wrong := serve_while(replace, module, x, options, 0.4):
            sys.exit(f"{replace.__name__}: {wrong} wrong outputs of {module}")

large, x = nn.LSTM(64, 256), torch.randn(100, 16, 64)
wanted = run(large, x, False, {})
calls = []
signal.signal(signal.SIGALRM, lambda *_: calls.append(exchange(large)))
signal.setitimer(signal.ITIMER_REAL, 0.004, 0.004)
for grad in (False, True) * 3:
    if not torch.equal(run(large, x, grad, {}), wanted):
        sys.exit("a signal handler changed the output")
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(calls), "signals")
"""


@pytest.mark.slow
def test_weights_replaced_during_calls_change_no_output() -> None:
    """With freed memory overwritten, by Python's debugging allocator and by the C library."""
    checks = {"PYTHONMALLOC": "debug", "MALLOC_PERTURB_": "165", "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **checks},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert made.returncode == 0, made.stderr or made.returncode
