"""Spoken words without a download: said by espeak-ng in many voices, with pauses and noise between.

Frames are `runtime.frames`', models and what they are asked are the task's and the user's.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library
from functools import cache
from importlib import import_module
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.runtime.frames import LogMel
from unrolled.tasks.data.source import DataError
from unrolled.tasks.datasets import espeak

__all__ = [
    "HELD_OUT",
    "SILENCE",
    "SPEAKERS",
    "WORDS",
    "SpeechRequest",
    "SpokenWords",
    "Utterance",
    "WordSpan",
    "phrases",
    "spoken_words",
    "synthesize",
    "utterances",
]

RATE = 22050
"""Samples a second, espeak-ng's own."""
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
)
"""The digits, and the commands of the data set Speech Commands (Warden 2018)."""
SILENCE = "silence"
_VOICES = (
    *("Alex", "Alicia", "Andrea", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Marco", "Mario"),
    *("Mike", "Nguyen", "Storm", "adam", "anika", "antonio", "belinda", "benjamin", "boris"),
    *("david", "ed", "f1", "f2", "f3", "f4", "f5", "grandma", "grandpa", "klatt", "linda", "m1"),
    *("m2", "m3", "m4", "m5", "m6", "m7", "m8", "marcelo", "max", "pedro", "quincy", "rob"),
    *("robert", "sandro", "shelby", "steph", "travis", "victor", "zac"),
)
HELD_OUT = _VOICES[2::5]
"""Voices of espeak-ng that are only for validation: every fifth, in the order of the alphabet."""
SPEAKERS = tuple(voice for voice in _VOICES if voice not in HELD_OUT)
"""Voices that are learned from."""
_ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-029")

_LEVEL = 0.1  # of a word, root mean square, before its loudness is drawn
_NOISES = 4  # kinds, from white to 1/f
_NOISE = 2**18
_PROCESS = 1000  # words that one process says
_CURE = "pip install 'unrolled[speech]', or apt-get install libespeak-ng1"


class SpeechRequest(NamedTuple):
    """A text for espeak-ng; whole numbers: words a minute, pitch and its range from 0 to 99."""

    text: str
    voice: str
    rate: int = 175
    pitch: int = 50
    range: int = 50


class WordSpan(NamedTuple):
    """A word, and the samples from start to end that it takes."""

    word: str
    start: int
    end: int


class Utterance(NamedTuple):
    """Samples [n], float32, full scale ±1, 22050 a second; who said which words, when; and what
    was said last, a word or "silence"."""

    samples: np.ndarray
    label: str
    voice: str
    spans: tuple[WordSpan, ...]


class SpokenWords(NamedTuple):
    """Frames [T, 32] of each utterance, float32; what was said last in it; the voice."""

    inputs: list[Tensor]
    labels: list[str]
    voices: list[str]


def spoken_words(
    training: int = 6000, validation: int = 600, seed: int = 0
) -> tuple[SpokenWords, SpokenWords]:
    """Utterances as log-mel frames, ten milliseconds each, with what was said last as the label.

    Source: made by espeak-ng, see `utterances`; frames by `LogMel` with its defaults. Validation is
    said by other voices than training.

    Args:
        training: utterances to train on.
        validation: utterances to measure on.
        seed: of what is drawn.

    Raises:
        ValueError: a number is out of its range.
        DataError: there is no espeak-ng, or it lacks a voice.
    """
    frames = LogMel(RATE)

    def part(count: int, held_out: bool) -> SpokenWords:
        found = utterances(count, held_out=held_out, seed=seed)
        inputs = [torch.from_numpy(frames(one.samples)) for one in found]
        return SpokenWords(inputs, [one.label for one in found], [one.voice for one in found])

    for name, count in (("training", training), ("validation", validation)):
        if count < 1:
            raise ValueError(f"{name}: wanted at least 1, got {count}")
    return part(training, False), part(validation, True)


def utterances(
    count: int, *, held_out: bool = False, snr: float | None = None, seed: int = 0
) -> list[Utterance]:
    """Words, each as often as the others, as they come out of a microphone that is always on.

    Said in one of the `SPEAKERS` (or of those `HELD_OUT`), in one of five accents of English, 120
    to 230 words a minute, at a pitch of its own. Before the word there is up to 0.3 s without any,
    or, in half of the utterances, another word, 0.05 to 0.6 s earlier; after it up to 0.2 s. One
    utterance in 21 is silence: nothing is said at all, or nothing any more since 0.4 to 0.8 s. The
    loudness varies by 18 dB.

    Args:
        snr: of the words and the noise behind everything, in decibels; inf has no noise. By default
            5 to 30, and no noise in a quarter of the utterances. Noise is white, or falls with the
            frequency, up to 1/f.
        seed: 0 or more. Equal arguments give equal bits.

    Raises:
        ValueError: count, snr or seed is out of its range.
        DataError: there is no espeak-ng, or it lacks a voice.
    """
    _check({"count": count}, snr, seed)
    chance = np.random.default_rng([seed, held_out])
    classes = (*WORDS, SILENCE)
    plans = []
    for n in chance.permutation(count):
        label = classes[n % len(classes)]
        words = [str(chance.choice(WORDS))] if chance.random() < 0.5 else []
        after = chance.uniform(0.4, 0.8) if label == SILENCE else chance.uniform(0, 0.2)
        words += [label] if label != SILENCE else []
        pauses = [chance.uniform(0, 0.3), chance.uniform(0.05, 0.6)][: len(words)]
        squeeze = 1.0 if held_out else float(np.exp(chance.uniform(-0.2, 0.2)))
        plans.append(_Plan(label, _voice(chance, held_out), words, [*pauses, after], squeeze))
    return _Scene(chance, snr).play(plans)


def phrases(
    count: int,
    *,
    words: int = 5,
    held_out: bool = True,
    snr: float | None = None,
    seed: int = 0,
) -> list[Utterance]:
    """So many words one after the other, in one voice each: 0.15 to 0.6 s between them, and 0.25 s
    at the end. Else, and in their arguments and errors, they are as `utterances`.
    """
    _check({"count": count, "words": words}, snr, seed)
    chance = np.random.default_rng([seed, held_out, words])
    plans = []
    for _ in range(count):
        said = [str(word) for word in chance.choice(WORDS, words)]
        pauses = [*chance.uniform(0.15, 0.6, words), 0.25]
        plans.append(_Plan(said[-1], _voice(chance, held_out), said, pauses))
    return _Scene(chance, snr).play(plans)


class _Plan(NamedTuple):
    """What is said how; the pauses, in seconds, before each word and after the last."""

    label: str
    how: SpeechRequest
    words: list[str]
    pauses: list[float]
    squeeze: float = 1.0


def _voice(chance: np.random.Generator, held_out: bool) -> SpeechRequest:
    speaker = chance.choice(HELD_OUT if held_out else SPEAKERS)
    rate, pitch, span = (int(chance.integers(*ends)) for ends in ((120, 231), (30, 71), (30, 71)))
    return SpeechRequest("", f"{chance.choice(_ACCENTS)}+{speaker}", rate, pitch, span)


class _Scene:
    """Lays words into noise."""

    def __init__(self, chance: np.random.Generator, snr: float | None) -> None:
        self._chance, self._snr = chance, snr
        white = np.fft.rfft(chance.standard_normal(_NOISE))
        falling = np.maximum(np.fft.rfftfreq(_NOISE, 1 / RATE), 50.0)
        kinds = [np.fft.irfft(white / falling ** (k / 2)) for k in np.linspace(0, 1, _NOISES)]
        self._noises = [kind / _strength(kind) for kind in kinds]

    def play(self, plans: list[_Plan]) -> list[Utterance]:
        sounds = iter(
            synthesize([plan.how._replace(text=word) for plan in plans for word in plan.words])
        )
        return [
            self._one(plan, [_squeezed(_trimmed(next(sounds)), plan.squeeze) for _ in plan.words])
            for plan in plans
        ]

    def _one(self, plan: _Plan, sounds: list[np.ndarray]) -> Utterance:
        silences = [np.zeros(round(pause * RATE)) for pause in plan.pauses]
        pieces, spans, at = [], [], 0
        for word, silence, sound in zip(plan.words, silences, sounds, strict=False):
            pieces += [silence, sound * (_LEVEL / _strength(sound))]
            start = at + len(silence)
            at = start + len(sound)
            spans.append(WordSpan(word, start, at))
        speech = np.concatenate([*pieces, silences[-1]])
        loudness = 10 ** (-self._chance.uniform(0, 18) / 20)
        samples = loudness * (speech + self._noise(len(speech)))
        return Utterance(samples.astype(np.float32), plan.label, plan.how.voice, tuple(spans))

    def _noise(self, count: int) -> np.ndarray:
        # All is drawn in any case, so that the same seed says the same at each strength of noise.
        kind, begin = self._chance.integers(_NOISES), self._chance.integers(_NOISE)
        snr = self._chance.uniform(5, 30) if self._chance.random() < 0.75 else math.inf
        snr = snr if self._snr is None else self._snr
        strength = _LEVEL * 10 ** (-snr / 20)
        return strength * np.take(self._noises[kind], begin + np.arange(count), mode="wrap")


def _strength(sound: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(sound))))


def _trimmed(sound: np.ndarray) -> np.ndarray:
    """Without what is hardly heard at both ends."""
    heard = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    return sound[heard[0] : heard[-1] + 1]


def _squeezed(sound: np.ndarray, factor: float) -> np.ndarray:
    """So many times as fast, with pitch and formants so many times as high: another throat."""
    places = np.arange(0, len(sound) - 1, factor)
    return np.interp(places, np.arange(len(sound)), sound)


def synthesize(sayings: Sequence[SpeechRequest]) -> list[np.ndarray]:
    """Each as samples [n], float32, full scale ±1, 22050 a second. The same list gives the same
    bits.

    Raises:
        DataError: there is no espeak-ng, or it lacks a voice.
    """
    # To change the voice takes as long as to say a word.
    order = sorted(range(len(sayings)), key=lambda n: sayings[n].voice)
    # The cut is always the same, as a process goes on from what it said before.
    parts = [order[k : k + _PROCESS] for k in range(0, len(order), _PROCESS)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        raw = b"".join(pool.map(_run, ([sayings[n] for n in part] for part in parts)))
    found = dict(zip(order, _cut(raw), strict=True))
    return [found[n] for n in range(len(sayings))]


def _run(sayings: list[SpeechRequest]) -> bytes:
    """What the program writes that says them."""
    asked = json.dumps({"libraries": _libraries(), "requests": sayings}).encode()
    command = [sys.executable, "-I", "-S", espeak.__file__]
    ran = subprocess.run(command, input=asked, capture_output=True)
    told = " ".join(ran.stderr.decode(errors="replace").split())
    if ran.returncode == espeak.NOT_FOUND:
        raise DataError(f"speech: wanted the library espeak-ng, got none ({told}); {_CURE}")
    if ran.returncode != 0:
        raise DataError(
            f"speech: {told or 'espeak-ng failed'}, exit code {ran.returncode}; {_CURE}"
        )
    return ran.stdout


@cache
def _libraries() -> list[tuple[str, str | None]]:
    """Files that may be the library, with the folder of its data where it does not know it."""
    found: list[tuple[str, str | None]] = []
    try:
        wheel = import_module("espeakng_loader")
    except ModuleNotFoundError:
        pass
    else:
        found.append((wheel.get_library_path(), wheel.get_data_path()))
    name = find_library("espeak-ng")
    return found if name is None else [*found, (name, None)]


def _cut(raw: bytes) -> Iterator[np.ndarray]:
    """What the program wrote, taken apart."""
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], sys.byteorder)
        yield np.frombuffer(raw, np.int16, size, at + 4).astype(np.float32) / 32768
        at += 4 + 2 * size


def _check(sizes: dict[str, int], snr: float | None, seed: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: wanted at least 1, got {size}")
    if snr is not None and not snr > -math.inf:
        raise ValueError(f"snr: wanted decibels, or inf for no noise, got {snr}")
    if seed < 0:
        raise ValueError(f"seed: wanted 0 or more, got {seed}")
