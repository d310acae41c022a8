"""ONNX models as torch modules: files are read and checked, nodes become layers and functions."""
