"""Python files of the user's, run to have what they define."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["CodeError", "import_by_name", "load_python_file"]


class CodeError(ValueError):
    """A file is no Python that runs; the message says what was wanted."""


def import_by_name(name: str) -> ModuleType:
    """The module of a dotted name.

    Raises:
        CodeError: there is none, or it cannot be run.
    """
    try:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise CodeError(f"wanted a Python file before the colon, there is no {name}")
        return importlib.import_module(name)
    except CodeError:
        raise
    except Exception as error:
        raise CodeError(
            f"wanted a Python file or a module before the colon, {name} cannot be imported "
            f"({type(error).__name__}: {error})"
        ) from error


def load_python_file(path: Path) -> ModuleType:
    """The module of a file, run once in a process, under a name that nothing else has; where it was
    imported or is the script that runs, that module.

    Raises:
        CodeError: there is no such file, or it cannot be run.
    """
    if not os.path.isfile(path):  # unlike Path's own, it raises nothing for names too long
        raise CodeError(f"wanted a Python file before the colon, there is no {path}")
    name = f"unrolled code {path.resolve()}"
    if name in sys.modules:
        return sys.modules[name]
    for loaded in list(sys.modules.values()):
        file = getattr(loaded, "__file__", None)
        if isinstance(file, str) and os.path.realpath(file) == str(path.resolve()):
            return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CodeError(f"wanted a Python file ending in .py, got {path}")
    try:
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        # A file that calls sys.exit must not end the program that runs it.
        if not isinstance(error, Exception | SystemExit):
            raise
        raise CodeError(f"{path} cannot be run ({type(error).__name__}: {error})") from error
    return module
