"""torch modules as ONNX models: standard operators where a layer is one, else Scan."""
