"""ONNX Runtime on its CPU provider, with default settings except for the number of threads."""

import onnxruntime

from peers import Peer
from peers.onnx_model import make_model, read_output
from problems import Case


def make(case: Case, threads: int) -> Peer | None:
    """A session of the case's model; it cannot train."""
    if case.problem.training:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        make_model(case).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": case.x.numpy()}
    return Peer(
        lambda: session.run(["y"], feed), lambda outputs: {"output": read_output(outputs[0])}
    )
