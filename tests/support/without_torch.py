"""The wheel as a device has it, with numpy and safetensors and no torch: run by `make wheel`.

    python tests/support/without_torch.py WHEEL

Every golden file loads and gives the numbers that stand beside it; models take steps that are their
whole sequences to the bit.
"""

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import unrolled.runtime
from unrolled.runtime import Model, load

GOLDEN = Path(__file__).parents[1] / "golden"
MOST_BYTES = 2_000_000


def check_environment(wheel: Path) -> None:
    """Nothing is there but what the wheel asks for, and it is the wheel that is used."""
    names = {found.metadata["Name"].lower() for found in importlib.metadata.distributions()}
    assert names <= {"unrolled", "numpy", "safetensors", "pip", "setuptools"}, names
    assert importlib.util.find_spec("torch") is None
    assert Path(unrolled.runtime.__file__).is_relative_to(sys.prefix), unrolled.runtime.__file__
    assert wheel.stat().st_size < MOST_BYTES, f"{wheel.name}: {wheel.stat().st_size} bytes"


def check_numbers(model: Model, told: dict[str, Any]) -> None:
    """``run`` gives what is told."""
    x = [np.array(part, told["dtype"]) for part in told["x"]]
    given: Any = tuple(x) if told.get("parts") else np.stack(x)
    found = model.run(given, **told.get("options", {}))
    if isinstance(found, list):  # of a translator, sentences with their scores
        assert [one.tokens for one in found] == [tokens for tokens, _ in told["y"]]
        return
    assert np.abs(found - np.array(told["y"])).max() < 1e-6


def check_steps(model: Model, told: dict[str, Any]) -> bool:
    """Whether it takes steps; they have the bits of the whole."""
    if told.get("parts") or told.get("options"):
        return False
    x = np.array(told["x"], told["dtype"])
    whole = model.run(x)
    if model.batch_first:
        x, whole = x.swapaxes(0, 1), whole.swapaxes(0, 1)
    try:
        stream = model.stream(x.shape[1])
    except (TypeError, ValueError):
        return False
    steps = np.stack([stream.step(np.ascontiguousarray(row)) for row in x])
    assert np.array_equal(steps[-1] if steps[-1].shape == whole.shape else steps, whole)
    return True


def main(wheel: Path) -> None:
    check_environment(wheel)
    stepped, files = 0, sorted(GOLDEN.glob("*.safetensors"))
    for path in files:
        model, told = load(path), json.loads(path.with_suffix(".json").read_text())
        if "x" in told:
            check_numbers(model, told)
            stepped += check_steps(model, told)
    assert len(files) > 10
    assert stepped > 2
    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes; {len(files)} files, {stepped} stepped")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
