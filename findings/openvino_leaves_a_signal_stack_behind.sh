#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU: each Core that compiles a model gives the calling thread an alternate
# signal stack, and frees it when Core and models are gone. Where two such Cores are dropped in
# the order in which they were made, the second puts the first one's stack back, whose memory is
# unmapped by then: the kernel goes on using that address. A signal that arrives afterwards ends
# the process, or, where the address was mapped anew in between, overwrites memory, since Python
# (from 3.10 on) handles its signals on the alternate stack: SIGCHLD of a loader's workers does.
# A single Core for the whole process keeps its stack, and is safe.
#
# Seen: "two Cores: unmapped, one Core: mapped".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6 openvino==2026.4.1
"$place/venv/bin/python" - <<'PYTHON'
import ctypes
import gc
import sys

import numpy as np
import openvino
from openvino import opset15


class Stack(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


def signal_stack():
    """Whether the alternate signal stack of this thread is memory of this process."""
    stack = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    if not stack.address:
        return "none"
    with open("/proc/self/maps") as maps:
        ranges = [line.split()[0].split("-") for line in maps]
    inside = any(int(low, 16) <= stack.address < int(high, 16) for low, high in ranges)
    return "mapped" if inside else "unmapped"


def compiled(core):
    x = opset15.parameter([1, 2], np.float32)
    return core.compile_model(openvino.Model([opset15.relu(x)], [x], "model"), "CPU")


def drop(models):
    """Drop models in the order in which they were made."""
    while models:
        del models[0]
        gc.collect()


drop([compiled(openvino.Core()), compiled(openvino.Core())])
two = signal_stack()

core = openvino.Core()
drop([compiled(core), compiled(core)])
one = signal_stack()
print(f"two Cores: {two}, one Core: {one}")
sys.exit((two, one) != ("unmapped", "mapped"))
PYTHON
