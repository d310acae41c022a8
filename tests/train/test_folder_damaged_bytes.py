"""Checkpoints whose bytes are damaged: refused in a line, or they work."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.bounded_work import WorkExceededError, bounded_work
from tests.support.damaged_runs import commands, error_line, is_refused, read
from unrolled.cli._app import run


def test_what_is_not_damaged_works(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Or the tests below would prove nothing."""
    for arguments in commands(damaged):
        assert run(list(map(str, arguments))) == 0, capsys.readouterr().err


def test_the_bound_on_work_stops_a_call() -> None:
    with pytest.raises(WorkExceededError, match="more than 1000 calls"), bounded_work(1000, 10):
        [len("") for _ in range(2000)]
    with pytest.raises(WorkExceededError, match="more than 10 elements"), bounded_work(1000, 10):
        torch.zeros(11)


def test_every_boundary_cut(damaged: Path) -> None:
    path = damaged / "last.safetensors"
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__")
    ends = {begin + end for entry in header.values() for end in entry["data_offsets"]}
    near = {place + shift for place in (0, 8, begin, *ends) for shift in (-1, 0, 1)}
    cuts = sorted(cut for cut in near if 0 <= cut < len(data))
    assert len(cuts) > 50
    for cut in cuts:
        path.write_bytes(data[:cut])
        assert is_refused(read, path, damaged.name), cut


def test_flipped_bits(damaged: Path) -> None:
    """Half of them in the header and the metadata, where they mean something."""
    path = damaged / "last.safetensors"
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    draw = random.Random(0)
    failed = 0
    for k in range(150):
        place = draw.randrange(begin if k % 2 else len(data))
        flipped = bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        failed += is_refused(read, path, damaged.name)
    assert 50 < failed < 150


def test_flipped_bits_in_a_resumed_run(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damaged / "last.safetensors"
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    draw = random.Random(1)
    for _ in range(8):
        flipped = bytearray(data)
        flipped[draw.randrange(begin)] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        code = run(["train", damaged.name, "--resume", str(damaged), "--steps", "3"])
        error = capsys.readouterr().err
        assert code == 0 or (code == 2 and error.count("\n") == 1), error


def rewritten(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    actual = change(header)
    text = json.dumps(header if actual is None else actual).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def entry(**values: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the first tensor's entry."""

    def change(header: dict[str, Any]) -> None:
        header[next(name for name in header if name != "__metadata__")].update(values)

    return change


def deep(header: dict[str, Any]) -> None:
    tree = "[" * 100_000 + "]" * 100_000
    header["__metadata__"]["unrolled"] = f'{{"version": 1, "tree": {tree}}}'


HEADERS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "length huge": lambda data: (2**63 - 1).to_bytes(8, "little") + data[8:],
    "length negative": lambda data: (-1).to_bytes(8, "little", signed=True) + data[8:],
    "length zero": lambda data: bytes(8) + data[8:],
    "length a byte short": lambda data: (
        (int.from_bytes(data[:8], "little") - 1).to_bytes(8, "little") + data[8:]
    ),
    "not UTF-8": lambda data: data[:20] + b"\xff\xfe" + data[22:],
    "shape huge": lambda data: rewritten(data, entry(shape=[10**12, 10**12])),
    "shape overflowing": lambda data: rewritten(data, entry(shape=[2**32, 2**32])),
    "shape negative": lambda data: rewritten(data, entry(shape=[-1])),
    "shape of words": lambda data: rewritten(data, entry(shape=["many"])),
    "offsets huge": lambda data: rewritten(data, entry(data_offsets=[0, 10**15])),
    "offsets turned": lambda data: rewritten(data, entry(data_offsets=[8, 0])),
    "dtype unknown": lambda data: rewritten(data, entry(dtype="F999")),
    "dtype of four bits": lambda data: rewritten(data, entry(dtype="F4")),
    "metadata nothing": lambda data: rewritten(data, lambda h: h | {"__metadata__": None}),
    "metadata a list": lambda data: rewritten(data, lambda h: h | {"__metadata__": []}),
    "no metadata": lambda data: rewritten(data, lambda h: h.pop("__metadata__") and None),
    "deep": lambda data: rewritten(data, deep),
    "deep header": lambda data: (200_000).to_bytes(8, "little") + b"[" * 100_000 + b"]" * 100_000,
}


@pytest.mark.parametrize("damage", HEADERS)
def test_headers(damaged: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = damaged / "last.safetensors"
    path.write_bytes(HEADERS[damage](path.read_bytes()))
    assert is_refused(read, path, damaged.name)
    for arguments in commands(damaged):
        assert "last.safetensors: " in error_line(capsys, *arguments)


def test_a_folder_in_place_of_a_file(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (damaged / "last.safetensors").unlink()
    (damaged / "last.safetensors").mkdir()
    assert is_refused(read, damaged / "last.safetensors", damaged.name)
    for arguments in commands(damaged):
        error_line(capsys, *arguments)
