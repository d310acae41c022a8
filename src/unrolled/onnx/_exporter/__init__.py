"""Exports modules as ONNX models: layers become standard operators if possible, else Scan."""
