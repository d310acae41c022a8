"""The wheel in an environment with numpy and safetensors and no torch: run by `make wheel`.

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
MOST_BYTES = 2_700_000  # kernels for three instruction sets, and those that only tests use


def check_environment(wheel: Path) -> None:
    """Only the wheel's requirements are installed, and it is the wheel that is imported."""
    names = {actual.metadata["Name"].lower() for actual in importlib.metadata.distributions()}
    assert names <= {"unrolled", "numpy", "safetensors", "pip", "setuptools"}, names
    assert importlib.util.find_spec("torch") is None
    assert Path(unrolled.runtime.__file__).is_relative_to(sys.prefix), unrolled.runtime.__file__
    assert wheel.stat().st_size < MOST_BYTES, f"{wheel.name}: {wheel.stat().st_size} bytes"


def check_numbers(model: Model, golden: dict[str, Any]) -> None:
    """``run`` returns the golden numbers."""
    x = [np.array(part, golden["dtype"]) for part in golden["x"]]
    model_input: Any = tuple(x) if golden.get("parts") else np.stack(x)
    actual = model.run(model_input, **golden.get("options", {}))
    if isinstance(actual, list):  # of a translator, sentences with their scores
        assert [sentence.tokens for sentence in actual] == [tokens for tokens, _ in golden["y"]]
        return
    # Where the processor multiplies bfloat16, rows are rounded as well: support/tolerances.py.
    tolerance = 2**-7 if model.arithmetic.startswith("products of bfloat16") else 1e-6
    assert np.abs(actual - np.array(golden["y"])).max() < tolerance


def check_steps(model: Model, golden: dict[str, Any]) -> bool:
    """Whether it takes steps; they have the bits of the whole."""
    if golden.get("parts") or golden.get("options"):
        return False
    x = np.array(golden["x"], golden["dtype"])
    unsplit = model.run(x)
    if model.batch_first:
        x, unsplit = x.swapaxes(0, 1), unsplit.swapaxes(0, 1)
    try:
        stream = model.stream(x.shape[1])
    except (TypeError, ValueError):
        return False
    steps = np.stack([stream.step(np.ascontiguousarray(row)) for row in x])
    assert np.array_equal(steps[-1] if steps[-1].shape == unsplit.shape else steps, unsplit)
    return True


def main(wheel: Path) -> None:
    check_environment(wheel)
    stepped, files = 0, sorted(GOLDEN.glob("*.safetensors"))
    for path in files:
        model, golden = load(path), json.loads(path.with_suffix(".json").read_text())
        if "x" in golden:
            check_numbers(model, golden)
            stepped += check_steps(model, golden)
    assert len(files) > 10
    assert stepped > 2
    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes; {len(files)} files, {stepped} stepped")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
