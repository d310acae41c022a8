"""A run's folder: what is where, its configuration, and that one run at a time is in it."""

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from unrolled.config import CONFIGS, Config
from unrolled.io import DAMAGE, FileError, write

__all__ = [
    "BEST",
    "CONFIG",
    "CURVE",
    "LAST",
    "METRICS",
    "BusyError",
    "held",
    "is_first",
    "read_config",
    "write_config",
]

CONFIG = "config.json"
METRICS = "metrics.csv"
CURVE = "curve.png"
BEST = "best.safetensors"
LAST = "last.safetensors"
_LOCK = ".lock"


class BusyError(OSError):
    """Another process trains in the folder."""


def is_first() -> bool:
    """Whether this is the process that writes, or the only one."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


@contextmanager
def held(run: Path, wanted: bool = True) -> Iterator[None]:
    """Keep other processes from training in a folder; the lock ends with the process.

    Raises:
        BusyError: one does.
    """
    if not wanted:
        yield
        return
    with _locked(run):
        for left in run.glob(".*.tmp"):
            # A process that was killed had no time to remove what it was writing.
            left.unlink(missing_ok=True)
        try:
            yield
        finally:
            (run / _LOCK).unlink(missing_ok=True)


def _locked(run: Path) -> TextIO:
    path = run / _LOCK
    while True:
        file = open(path, "w")  # noqa: SIM115  the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held the lock may have removed the file between the opening and the lock.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except OSError:
            file.close()
            raise BusyError(
                f"{run}: wanted a folder for one run, another process trains in it"
            ) from None
        file.close()


def read_config(path: str | os.PathLike[str]) -> tuple[str, Any]:
    """A run's task and configuration, from its `config.json`.

    Raises:
        unrolled.io.FileError: no such file, or not a configuration.
    """
    try:
        values: dict[str, Any] = json.loads(Path(path).read_bytes())
        name = values.pop("task")
        listed = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        return name, CONFIGS[name](**(values | listed))
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    except DAMAGE as error:
        raise FileError(path, f"not the configuration of a run ({error})") from None


def write_config(name: str, config: Config, path: Path) -> None:
    values = {"task": name} | dataclasses.asdict(config)
    write(path, (json.dumps(values, indent=2) + "\n").encode())
