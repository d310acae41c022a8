"""OpenVINO on the CPU, with the same ONNX model."""

from typing import Any

import numpy as np
import openvino

from checks import Results
from peers import Peer
from peers.onnx_model import make_model, read_output
from problems import Case

# One for all models, because several leave a freed signal stack behind
# (findings/openvino_leaves_a_signal_stack_behind.sh).
_CORE = openvino.Core()


def make(case: Case, threads: int, precision: str | None = "f32") -> Peer | None:
    """A request with its input in place; it cannot train. ``precision`` None: OpenVINO's own
    choice, which is bfloat16 where the processor multiplies it."""
    if case.problem.training:
        return None
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    model = _CORE.read_model(make_model(case).SerializeToString(), b"")
    request = _CORE.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(case.x.numpy(), shared_memory=True))

    def read(outputs: Any) -> Results:
        return {"output": read_output(np.asarray(outputs[0]))}

    return Peer(lambda: request.infer(share_outputs=True), read)
