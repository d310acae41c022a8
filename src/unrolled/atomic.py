"""Files replaced in one step, whoever else writes to them.

The standard library alone. Temporary files have names that no other program gives, and are locked
while they are written: one that can be locked was left behind by a process that was killed.
"""

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator

__all__ = ["is_temporary", "sweep", "write"]

_TEMPORARY = re.compile(r"\.unrolled-[0-9a-f]{16}\.tmp")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Put `data` at `path` in one step: a reader, or a crash, meets the old file or the new one.

    Threads, processes and containers may write to one path at the same time; the last one wins.
    Mode and owner of a file that is replaced are kept, and a symbolic link stays: its target is
    replaced. What is no regular file (a device, a pipe) is written to as it is.

    Raises:
        OSError: it cannot be written; ``filename`` is `path`.
    """
    try:
        replaced = _status(path)
        if replaced is None or stat.S_ISREG(replaced.st_mode):
            _replace(os.path.realpath(path), data, replaced)
        else:  # by its own name: of /dev/stdout, the path of what it leads to may be no file's
            with open(path, "wb") as file:
                file.write(data)
    except OSError as error:
        if error.errno is None:
            raise
        # The user knows the path, not the name beside it; errno keeps the class.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _status(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Of the file that `path` leads to; None if there is none yet."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _replace(target: str, data: bytes, replaced: os.stat_result | None) -> None:
    folder = os.path.dirname(target)
    with _temporary(folder, 0o666 if replaced is None else 0o600) as (descriptor, name):
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        if replaced is not None:
            # Only root may give a file away; what others replace becomes theirs. Some file systems
            # have neither owners nor modes, and containers owners that they cannot name.
            with contextlib.suppress(OSError):
                os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode))
        os.fsync(descriptor)
        os.replace(name, target)
    sweep(folder)
    # The rename itself must reach the disk; file systems that cannot sync a folder do so alone.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _temporary(folder: str, mode: int) -> Iterator[tuple[int, str]]:
    """A new locked file, which is no longer there at the end, unless it was renamed."""
    name = os.path.join(folder, f".unrolled-{secrets.token_hex(8)}.tmp")
    descriptor = _create(name, mode)
    try:
        yield descriptor, name
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    finally:
        os.close(descriptor)


def _create(name: str, mode: int) -> int:
    while True:
        descriptor = os.open(name, _FLAGS, mode)
        # Where a file system has no locks, nobody takes this file for a stale one either.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        # Before it was locked, another process took it for one that was left behind.
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that `write` makes before it renames it."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed processes left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_temporary(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_stale(entry.path)


def _remove_stale(name: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the listing and the lock its process may have renamed it to where it belongs.
            if os.path.samestat(os.fstat(descriptor), os.lstat(name)):
                os.unlink(name)
        finally:
            os.close(descriptor)
