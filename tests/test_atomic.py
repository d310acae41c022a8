"""Files replaced atomically: many writers at once, links, kills, modes."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from unrolled import _atomic as atomic
from unrolled._atomic import sweep, write


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_many_writers_never_tear_a_file(tmp_path: Path) -> None:
    """Each version is one letter, so that a mixture shows; no writer fails, nothing is left."""
    path = tmp_path / "file"
    write(path, b"x" * 5000)
    faults: list[object] = []

    def keep_writing(letter: bytes) -> None:
        try:
            for _ in range(25):
                write(path, letter * 5000)
        except BaseException as error:
            faults.append(error)

    writers = [threading.Thread(target=keep_writing, args=(b"%d" % k,)) for k in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        data = path.read_bytes()
        if len(data) != 5000 or len(set(data)) != 1:
            faults.append(data[:20])
            break
    for writer in writers:
        writer.join()
    assert not faults
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("old_mode", [0o600, 0o640, 0o444, 0o755])
def test_the_mode_of_a_replaced_file_is_kept(tmp_path: Path, old_mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(old_mode)
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == old_mode


def test_a_new_file_has_the_mode_of_the_process(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        write(tmp_path / "file", b"new")
    finally:
        os.umask(previous)
    assert mode(tmp_path / "file") == 0o640


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "elsewhere" / "target"
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
    (tmp_path / "link").symlink_to(Path("elsewhere") / "target")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["elsewhere", "link"]
    assert names(target.parent) == ["target"]


def test_names_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    write(tmp_path / "pipe", b"new")
    assert reader.communicate(timeout=60)[0] == b"new"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_pipe_without_a_name_is_written_to() -> None:
    """As /dev/stdout is in a pipeline: what it leads to is no path."""
    source, sink = os.pipe()
    write(f"/dev/fd/{sink}", b"new")
    os.close(sink)
    with open(source, "rb") as file:
        assert file.read() == b"new"


def test_a_file_system_without_owners_and_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(atomic.os, "fchown", refuse)
    monkeypatch.setattr(atomic.os, "fchmod", refuse)
    write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["", "absent/file", "folder", "loop"])
def test_a_failure_names_the_path_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    previous = names(tmp_path)
    path = f"{tmp_path}/{name}" if name else name
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        write(path, b"new")
    assert raised.value.filename == path
    assert names(tmp_path) == previous


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


KILLED = """
import os, signal, sys
from unrolled import _atomic as atomic
atomic.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
atomic.write(sys.argv[1], b"new")
"""


@pytest.mark.slow
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = names(tmp_path)
    assert atomic.is_temporary(leftover)
    write(tmp_path / "other", b"new")
    assert names(tmp_path) == ["other"]


def test_only_own_temporary_files_that_nobody_writes_are_swept(tmp_path: Path) -> None:
    foreign = [".x.tmp", ".swp.tmp", ".unrolled-notes.tmp", "unrolled-0123456789abcdef.tmp"]
    for name in foreign:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".unrolled-0000000000000000.tmp").symlink_to(tmp_path / ".x.tmp")
    (tmp_path / ".unrolled-0123456789abcdef.tmp").write_bytes(b"stale")
    with atomic._temporary(os.fspath(tmp_path), 0o600) as (_, name):
        sweep(tmp_path)
        assert set(names(tmp_path)) == {
            *foreign,
            ".unrolled-0000000000000000.tmp",
            os.path.basename(name),
        }
        os.unlink(name)
