"""The folder of a run: its file names, its configuration, and a lock against a second run in it."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from unrolled._atomic import is_temporary, sweep
from unrolled._limits import brief
from unrolled.config import CONFIGS, RENAMED_OPTIONS, Config
from unrolled.io import CORRUPT_FILE_ERRORS, FileError, write

CONFIG = "config.json"
METRICS = "metrics.csv"
CURVE = "curve.png"
BEST = "best.safetensors"
LAST = "last.safetensors"
_LOCK = ".lock"


class BusyError(OSError):
    """Another process is training in the folder."""


def is_first() -> bool:
    """Whether this process is the only one, or of several the one that writes."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def is_unused(run: Path) -> bool:
    """Whether a folder is empty but for files of a process that was killed before its run began."""
    return all(path.name == _LOCK or is_temporary(path.name) for path in run.iterdir())


@contextmanager
def locked(run: Path, enabled: bool = True) -> Iterator[None]:
    """Prevent other processes from training in a folder; the lock is released with the process.

    Does nothing unless `enabled`.

    Raises:
        BusyError: another process is training there.
        OSError: the lock file cannot be created, or its file system has no locks.
    """
    if not enabled:
        yield
        return
    with _lock_file(run):
        sweep(run)
        try:
            yield
        finally:
            (run / _LOCK).unlink(missing_ok=True)


def _lock_file(run: Path) -> IO[bytes]:
    path = run / _LOCK
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        file = open(os.open(path, flags, 0o666), "r+b")  # noqa: SIM115  the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BusyError(
                f"{run}: the folder must have one run at a time, but another process is training "
                "in it"
            ) from None
        except OSError as error:
            file.close()
            raise OSError(
                error.errno,
                f"a run folder must be on a file system with locks, got {error.strerror}",
                str(path),
            ) from None
        # The previous owner of the lock may have removed the file since it was opened.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                return file
        file.close()


def read_config(path: str | os.PathLike[str]) -> tuple[str, Config]:
    """The task and the configuration of a run, from its `config.json`.

    Raises:
        unrolled.io.FileError: the file does not exist, or is not a configuration.
    """
    try:
        return config_of_values(json.loads(Path(path).read_bytes()))
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    except CORRUPT_FILE_ERRORS as error:
        raise FileError(path, f"not a valid configuration of a run ({error})") from None


def config_of_values(values: object) -> tuple[str, Config]:
    """A task and its configuration from the result of `values_of_config`.

    Lists are accepted in place of tuples, and the option names of earlier versions.

    Raises:
        ValueError: the task is unknown, or a value is out of range.
        TypeError: an option is unknown.
    """
    name = values.get("task") if isinstance(values, dict) else None
    if not isinstance(values, dict) or not isinstance(name, str) or name not in CONFIGS:
        raise ValueError(f"task must be one of {', '.join(CONFIGS)}, got {brief(name)}")
    options: dict[str, Any] = {
        RENAMED_OPTIONS.get(str(key), str(key)): tuple(value) if isinstance(value, list) else value
        for key, value in values.items()
        if key != "task"
    }
    return name, CONFIGS[name](**options)


def values_of_config(name: str, config: Config) -> dict[str, object]:
    """A task and its configuration as plain values."""
    return {"task": name} | dataclasses.asdict(config)


def write_config(name: str, config: Config, path: Path) -> None:
    """Write a task and its configuration as JSON."""
    write(path, (json.dumps(values_of_config(name, config), indent=2) + "\n").encode())
