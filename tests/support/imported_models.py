"""What imported modules must do: give the numbers of the model, natively and in the runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support.tolerances import close
from unrolled import engines, runtime
from unrolled.export import export as export_for_runtime


def flat(values: Any) -> list[Tensor]:
    """All tensors of nested tuples."""
    return [values] if isinstance(values, Tensor) else [t for part in values for t in flat(part)]


@torch.no_grad()
def agrees(module: Any, expected_output: Any, *args: Any) -> None:
    """The imported module gives these outputs, on the native engine."""
    with engines.use("native"), engines.record() as ran:
        outputs = flat(module(*args))
    assert set(ran) == {"native"}
    assert len(outputs) == len(flat(expected_output))
    for actual, expected in zip(outputs, flat(expected_output), strict=True):
        close(actual, expected, "output", "imported")


@torch.no_grad()
def runs(module: Any, x: Tensor, folder: Path, batch_first: bool = False) -> runtime.Model:
    """An imported chain in the runtime, whole and step by step."""
    export_for_runtime(module, folder / "model")
    model = runtime.load(folder / "model")
    expected_output = flat(module(x))[0]
    y = model.run(x.numpy())
    close(torch.from_numpy(y), expected_output, "output", "in the runtime")
    steps = x.transpose(0, 1) if batch_first else x
    stream = model.stream(steps.shape[1])
    stepped = [stream.step(x.numpy().copy()) for x in steps]
    if expected_output.dim() == 3:
        joined = np.stack(stepped, 1 if batch_first else 0)
        np.testing.assert_array_equal(joined, y)
    else:
        np.testing.assert_array_equal(stepped[-1], y)
    return model
