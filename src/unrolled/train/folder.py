"""A run's folder: what is where, its configuration, and that one run at a time is in it."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from unrolled.atomic import is_temporary, sweep
from unrolled.config import CONFIGS, Config
from unrolled.io import CORRUPT_FILE_ERRORS, FileError, write
from unrolled.limits import brief

__all__ = [
    "BEST",
    "CONFIG",
    "CURVE",
    "LAST",
    "METRICS",
    "BusyError",
    "held",
    "is_first",
    "is_unused",
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


def is_unused(run: Path) -> bool:
    """Whether a folder has nothing, or what a process left that was killed before a run began."""
    return all(path.name == _LOCK or is_temporary(path.name) for path in run.iterdir())


@contextmanager
def held(run: Path, wanted: bool = True) -> Iterator[None]:
    """Keep other processes from training in a folder; the lock ends with the process.

    Raises:
        BusyError: one does.
        OSError: the lock file cannot be made, or its file system has no locks.
    """
    if not wanted:
        yield
        return
    with _locked(run):
        sweep(run)
        try:
            yield
        finally:
            (run / _LOCK).unlink(missing_ok=True)


def _locked(run: Path) -> IO[bytes]:
    path = run / _LOCK
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        file = open(os.open(path, flags, 0o666), "r+b")  # noqa: SIM115  the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BusyError(
                f"{run}: wanted a folder for one run, another process trains in it"
            ) from None
        except OSError as error:
            file.close()
            raise OSError(
                error.errno,
                f"the folder of a run must be on a file system with locks, got {error.strerror}",
                str(path),
            ) from None
        # Who held the lock may have removed the file between the opening and the lock.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                return file
        file.close()


def read_config(path: str | os.PathLike[str]) -> tuple[str, Any]:
    """A run's task and configuration, from its `config.json`.

    Raises:
        unrolled.io.FileError: no such file, or not a configuration.
    """
    try:
        return config_of_values(json.loads(Path(path).read_bytes()))
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    except CORRUPT_FILE_ERRORS as error:
        raise FileError(path, f"not the configuration of a run ({error})") from None


def config_of_values(values: dict[str, Any]) -> tuple[str, Any]:
    """A task and a configuration from what ``values_of_config`` gave, whatever the kind of its
    lists.

    Raises:
        ValueError: there is no such task, or a value is out of its range.
        TypeError: an option is unknown.
    """
    name = values["task"] if isinstance(values, dict) and "task" in values else None
    if name not in CONFIGS:
        raise ValueError(f"wanted a task, one of {', '.join(CONFIGS)}, got {brief(name)}")
    fields = {key: value for key, value in values.items() if key != "task"}
    listed = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    return name, CONFIGS[name](**(fields | listed))


def values_of_config(name: str, config: Config) -> dict[str, Any]:
    """A task and its configuration as plain values."""
    return {"task": name} | dataclasses.asdict(config)


def write_config(name: str, config: Config, path: Path) -> None:
    write(path, (json.dumps(values_of_config(name, config), indent=2) + "\n").encode())
