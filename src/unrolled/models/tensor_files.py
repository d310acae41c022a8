"""Trees of torch tensors in one safetensors file: the twin of `unrolled.io.save` and `load`.

Here for the dtypes that numpy lacks (bfloat16) and for tensors of other devices. The encoding is
that of `unrolled.io`.
"""

import os
from typing import Any

import safetensors.torch
import torch

from unrolled.io import encode, parse, write

__all__ = ["load_tree", "save_tree"]


def save_tree(path: str | os.PathLike[str], tree: Any) -> None:
    """Write a tree of tensors (of any device) and plain values to `path`, whole or not at all.

    Tensors that share memory are written each for itself.

    Raises:
        TypeError: a value is neither a tensor nor plain, nor dict, list, tuple.
    """
    tensors, metadata = encode(tree, torch.Tensor)
    # safetensors refuses views of one storage (tied weights), so each gets its own.
    own = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    write(path, safetensors.torch.save(own, metadata))


def load_tree(path: str | os.PathLike[str]) -> Any:
    """Read the tree that `save_tree` or `unrolled.io.save` wrote, as tensors on the CPU.

    Raises:
        unrolled.io.FileError: no such file, or it is truncated, corrupt, or not one of ours.
    """
    return parse(path, safetensors.torch.load)
