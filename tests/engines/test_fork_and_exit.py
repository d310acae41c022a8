"""Forks while another thread packs weights, and a process that ends while one computes."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

FORKS = """
import os, signal, sys, threading, time
import numpy as np
from unrolled import cells, nn
from unrolled.nn._snapshot import describe_layer
from unrolled.runtime import Model
from unrolled.runtime._schema import ChainModel

chain = ChainModel((describe_layer(nn.LSTM(700, 700), "layer"),))
x = np.ones((1, 1, 700), np.float32)
expected = Model(chain).run(x)
began = time.perf_counter()
Model(chain).run(x)
seconds = time.perf_counter() - began
for k in range(10):
    model = Model(chain)
    thread = threading.Thread(target=model.run, args=(x,))
    thread.start()
    time.sleep(seconds * (k + 1) / 12)  # while it packs
    child = os.fork()
    if child == 0:
        signal.alarm(200)
        os._exit(not np.array_equal(model.run(x), expected))
    thread.join()
    if status := os.waitpid(child, 0)[1]:
        sys.exit(f"fork {k}: the child ended with {status}")
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_forked_child_waits_for_no_thread_of_its_parent() -> None:
    ran = run(FORKS)
    assert ran.returncode == 0, ran.stderr


EXIT = """
import sys, threading, time
import numpy as np
from unrolled import nn
from unrolled.nn._snapshot import describe_layer
from unrolled.runtime import Model
from unrolled.runtime._schema import ChainModel

if sys.argv[1] == "sweep":
    model = Model(ChainModel((describe_layer(nn.LSTM(128, 128), "layer"),)))
    x = np.zeros((30, 16, 128), "f")
    work = lambda: model.run(x)
else:
    stream, x = nn.LSTM(512, 512).stream(), np.zeros((1, 512), "f")
    work = lambda: stream.step(x)


def forever():
    while True:
        work()


threads = [threading.Thread(target=forever, daemon=True) for _ in range(2)]
threads = threads[: 1 if sys.argv[1] == "step" else 2]
for thread in threads:
    thread.start()
time.sleep(0.05)
"""


@pytest.mark.parametrize("work", ["step", "sweep"])
def test_a_process_ends_while_daemon_threads_compute(work: str) -> None:
    """Without torch, whose own calls crash such a process: they take the lock again, too."""
    for _ in range(2):
        ran = run(EXIT, work)
        assert ran.returncode == 0, ran.stderr
