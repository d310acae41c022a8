"""Examples as modules."""

import importlib.util
import sys
from functools import cache
from types import ModuleType

from tests.support.paths import EXAMPLES


@cache
def example(name: str) -> ModuleType:
    """An example by name; importing it runs nothing."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
