"""Says words by the library espeak-ng: a program of its own, which `speech` starts.

The library goes on from what it said before, with its pitch, its echo and its noise: only a fresh
process says the same thing twice. Nothing but the standard library, so that it starts at once.

Reads JSON, {"libraries": [[file, folder of its data or null], …], "requests": [[text, voice, words
a minute, pitch, range of the pitch], …]}, the last three whole numbers; writes for each request the
number of samples as 4 bytes, then so many of 2, at 22050 a second. Of the libraries the first one
that loads is taken; where none does it ends with 3.
"""

import ctypes
import json
import os
import sys
from typing import Any

_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _BY_CHARACTER = 2, 0x8000, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # of espeak_PARAMETER
_SEED = 1
NOT_FOUND = 3
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def _load(libraries: list[list[str | None]]) -> tuple[ctypes.CDLL, str | None]:
    faults = []
    for file, data in libraries:
        try:
            return ctypes.CDLL(file), data
        except OSError as error:
            faults.append(str(error))
    print(*faults or ["nothing is installed"], sep="; ", file=sys.stderr)
    sys.exit(NOT_FOUND)


def _start(library: ctypes.CDLL, data: str | None) -> str:
    """The folder where the library has its data."""
    given = None if data is None else os.fsencode(data)
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, given, _DO_NOT_EXIT)
    if rate != 22050:
        sys.exit(f"espeak-ng: wanted 22050 samples a second, got {rate}; are its data installed?")
    if hasattr(library, "espeak_ng_SetRandSeed"):  # else it draws from libc, which starts the same
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        library.espeak_ng_SetRandSeed(_SEED)
    folder = ctypes.c_char_p()
    library.espeak_Info(ctypes.byref(folder))
    return os.fsdecode(folder.value or b"")


def _choose(library: ctypes.CDLL, folder: str, voice: str) -> None:
    _, _, variant = voice.partition("+")
    # A variant that it lacks the library passes over in silence.
    lacks = variant and not os.path.exists(os.path.join(folder, "voices", "!v", variant))
    if lacks or library.espeak_SetVoiceByName(voice.encode()) != 0:
        sys.exit(f"espeak-ng in {folder} has no voice {voice!r}")


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    library, data = _load(asked["libraries"])
    folder = _start(library, data)
    said = bytearray()

    @_CALLBACK
    def keep(samples: Any, count: int, events: Any) -> int:
        if count > 0:
            said.extend(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(keep)
    chosen = None
    for text, voice, *numbers in asked["requests"]:
        if voice != chosen:
            _choose(library, folder, voice)
            chosen = voice
        for parameter, value in zip((_RATE, _PITCH, _RANGE), numbers, strict=True):
            library.espeak_SetParameter(parameter, value, 0)
        said.clear()
        given = text.encode() + b"\0"
        size = ctypes.c_size_t(len(given))
        if library.espeak_Synth(given, size, 0, _BY_CHARACTER, 0, _UTF8, None, None) != 0:
            sys.exit(f"espeak-ng could not say {text!r}")
        sys.stdout.buffer.write((len(said) // 2).to_bytes(4, sys.byteorder) + said)


if __name__ == "__main__":
    main()
