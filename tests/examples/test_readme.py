"""The code in README.md runs as it is printed."""

import re
from typing import Any

from tests.support.paths import ROOT
from tests.support.tolerances import close
from unrolled import engines


def test_the_example_runs_as_printed() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    values: dict[str, Any] = {}
    with engines.record() as engines_run:
        exec(blocks[0], values)
    assert set(engines_run) == {"native"}
    assert all(p.grad is not None for p in values["lstm"].parameters())
    layer, x = values["layer"].eval(), values["x"]
    output, h_n = layer(x)
    with engines.use("reference"):
        expected_output, expected_h_n = layer(x)
    close(output, expected_output, "random")
    close(h_n, expected_h_n, "random")
