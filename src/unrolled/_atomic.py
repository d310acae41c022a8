"""Atomic replacement of files, also with concurrent writers.

Imports the standard library only. Temporary files have names that no other program uses, and are
locked while they are written: one that can be locked belongs to a process that was killed.
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
    """Write `data` to `path` atomically: a reader, or a crash, sees the old file or the new one.

    Threads, processes and containers may write to one path at the same time; the last one wins.
    Mode and owner of a file that is replaced are kept, and a symbolic link stays: its target is
    replaced. Devices, pipes and other special files are written to directly.

    Raises:
        OSError: the file cannot be written; ``filename`` is `path`.
    """
    try:
        replaced = _status(path)
        if replaced is None or stat.S_ISREG(replaced.st_mode):
            _replace(os.path.realpath(path), data, replaced)
        else:  # by its own name: the target of /dev/stdout may have no path
            with open(path, "wb") as file:
                file.write(data)
    except OSError as error:
        if error.errno is None:
            raise
        # The user knows the path, not the temporary name; errno preserves the class.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _status(path: str | os.PathLike[str]) -> os.stat_result | None:
    """The status of the file that `path` leads to; None if it does not exist yet."""
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
            # Only root may change the owner; files that others replace become theirs. Some file
            # systems have neither owners nor modes, and containers have owners without names.
            with contextlib.suppress(OSError):
                os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode))
        os.fsync(descriptor)
        os.replace(name, target)
    sweep(folder)
    # The rename itself must reach the disk; file systems that cannot sync a folder do that alone.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _temporary(folder: str, mode: int) -> Iterator[tuple[int, str]]:
    """A new locked file, which is removed at the end unless it was renamed."""
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
        # On a file system without locks no process can take this file for a stale one either.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        # Before it was locked, another process took it for a stale one and removed it.
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that `write` makes before it renames it."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of killed processes from a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_temporary(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_stale(entry.path)


def _remove_stale(name: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the listing and the lock its process may have renamed it to its target.
            if os.path.samestat(os.fstat(descriptor), os.lstat(name)):
                os.unlink(name)
        finally:
            os.close(descriptor)
