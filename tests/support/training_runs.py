"""What training runs leave, to be compared to the bit."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.models import load_tree
from unrolled.train._callbacks import read_rows

__all__ = ["assert_equal_trees", "learned_tree", "rows_without_seconds"]


def assert_equal_trees(actual: Any, expected: Any, name: str = "tree") -> None:
    """Equal to the bit, except entries with the name "seconds"."""
    assert type(actual) is type(expected), name
    if isinstance(expected, Tensor):
        assert actual.dtype == expected.dtype, name
        assert torch.equal(actual, expected), name
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys(), name
        for key in expected.keys() - {"seconds"}:
            assert_equal_trees(actual[key], expected[key], f"{name}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), name
        for k, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
            assert_equal_trees(ours, theirs, f"{name}.{k}")
    else:
        assert actual == expected, name


def learned_tree(path: Path) -> dict[str, Any]:
    """A checkpoint without Lightning's counters of loops."""
    tree = load_tree(path)
    assert {"state_dict", "optimizer_states", "lr_schedulers", "processes", "codec"} < tree.keys()
    del tree["loops"]
    return tree


def rows_without_seconds(path: Path) -> list[dict[str, str]]:
    return [row | {"seconds": ""} for row in read_rows(path)]
