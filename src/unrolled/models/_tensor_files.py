"""Trees of torch tensors in one safetensors file, as `unrolled.io.save` and `load` for NumPy.

For dtypes that NumPy lacks (bfloat16) and for tensors on other devices. The encoding is that of
`unrolled.io`.
"""

import os
from typing import Any

import safetensors.torch
import torch

from unrolled.io import encode, parse, write


def save_tree(path: str | os.PathLike[str], tree: object) -> None:
    """Write a tree of tensors (on any device) and plain values to `path`, atomically.

    Tensors that share memory are written separately.

    Raises:
        TypeError: a value is neither a tensor nor plain, nor a dict, list or tuple.
    """
    tensors, metadata = encode(tree, torch.Tensor)
    # safetensors refuses views of one storage (tied weights), so each tensor is copied.
    copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    write(path, safetensors.torch.save(copies, metadata))


def load_tree(path: str | os.PathLike[str]) -> Any:
    """Read the tree that `save_tree` or `unrolled.io.save` wrote, as tensors on the CPU.

    Raises:
        unrolled.io.FileError: there is no such file, or it is truncated, corrupt, or was not
            written by this library.
    """
    return parse(path, safetensors.torch.load)
