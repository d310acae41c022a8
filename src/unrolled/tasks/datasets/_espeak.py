"""Synthesizes words with the library espeak-ng: a separate program, which `_speech` starts.

The library keeps state between utterances (pitch, echo, noise), so that only a new process gives
the same samples for the same text. It imports only the standard library, to start fast.

It reads JSON, {"libraries": [[file, folder of its data or null], …], "requests": [[text, voice,
words per minute, pitch, range of the pitch], …]}, the last three integers; for each request it
writes the number of samples as 4 bytes, then the samples as 2 bytes each, at 22050 Hz. The first of
the libraries that loads is used; without any the exit code is 3.
"""

import ctypes
import json
import os
import sys
from typing import Any, cast

_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _BY_CHARACTER = 2, 0x8000, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # of espeak_PARAMETER
_SEED = 1
NOT_FOUND = 3
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def _load(libraries: list[list[str | None]]) -> tuple[ctypes.CDLL, str | None]:
    messages = []
    for file, data in libraries:
        try:
            return ctypes.CDLL(file), data
        except OSError as error:
            messages.append(str(error))
    print(*messages or ["nothing is installed"], sep="; ", file=sys.stderr)
    sys.exit(NOT_FOUND)


def _start(library: ctypes.CDLL, data: str | None) -> str:
    """Initialize the library, and return the folder of its data."""
    path = None if data is None else os.fsencode(data)
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, path, _DO_NOT_EXIT)
    if rate != 22050:
        sys.exit(f"espeak-ng: the rate must be 22050 Hz, got {rate}; are its data installed?")
    if hasattr(library, "espeak_ng_SetRandSeed"):  # else it uses libc's generator, seeded alike
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        library.espeak_ng_SetRandSeed(_SEED)
    folder = ctypes.c_char_p()
    library.espeak_Info(ctypes.byref(folder))
    return os.fsdecode(folder.value or b"")


def _set_voice(library: ctypes.CDLL, folder: str, voice: str) -> None:
    _, _, variant = voice.partition("+")
    # The library ignores a variant that it does not have.
    missing = variant and not os.path.exists(os.path.join(folder, "voices", "!v", variant))
    if missing or library.espeak_SetVoiceByName(voice.encode()) != 0:
        sys.exit(f"espeak-ng in {folder} has no voice {voice!r}")


def main() -> None:
    message: dict[str, Any] = json.load(sys.stdin)
    library, data = _load(message["libraries"])
    folder = _start(library, data)
    samples = bytearray()

    def collect(pointer: object, count: int, events: object) -> int:
        if count > 0:
            samples.extend(ctypes.string_at(cast(int, pointer), 2 * count))
        return 0

    callback = _CALLBACK(collect)
    library.espeak_SetSynthCallback(callback)
    current_voice = None
    for text, voice, *numbers in message["requests"]:
        if voice != current_voice:
            _set_voice(library, folder, voice)
            current_voice = voice
        for parameter, value in zip((_RATE, _PITCH, _RANGE), numbers, strict=True):
            library.espeak_SetParameter(parameter, value, 0)
        samples.clear()
        encoded = text.encode() + b"\0"
        size = ctypes.c_size_t(len(encoded))
        if library.espeak_Synth(encoded, size, 0, _BY_CHARACTER, 0, _UTF8, None, None) != 0:
            sys.exit(f"espeak-ng could not synthesize {text!r}")
        sys.stdout.buffer.write((len(samples) // 2).to_bytes(4, sys.byteorder) + samples)


if __name__ == "__main__":
    main()
