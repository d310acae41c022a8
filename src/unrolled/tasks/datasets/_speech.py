"""Spoken words without a download: synthesized by espeak-ng in many voices, with pauses and noise.

Frames are computed by `runtime.frames`.
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
from numpy.typing import NDArray
from torch import Tensor

from unrolled.runtime.frames import LogMel
from unrolled.tasks.data._source import DataError
from unrolled.tasks.datasets import _espeak as espeak

Samples = NDArray[np.floating]

RATE = 22050
"""Samples per second, as espeak-ng gives them."""
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
"""Voices of espeak-ng for validation: every fifth, in alphabetical order."""
SPEAKERS = tuple(voice for voice in _VOICES if voice not in HELD_OUT)
"""Voices for training."""
_ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-029")

_LEVEL = 0.1  # root mean square of a word, before its loudness is drawn
_NOISE_COLORS = 4  # from white to 1/f
_NOISE_LENGTH = 2**18
_WORDS_PER_PROCESS = 1000
_CURE = "pip install 'unrolled[speech]', or apt-get install libespeak-ng1"


class SpeechRequest(NamedTuple):
    """A text for espeak-ng; integers: words per minute, pitch and its range from 0 to 99."""

    text: str
    voice: str
    rate: int = 175
    pitch: int = 50
    range: int = 50


class WordSpan(NamedTuple):
    """A word, and the samples from `start` up to, not including, `end` that have it."""

    word: str
    start: int
    end: int


class Utterance(NamedTuple):
    """Samples [n], float32, full scale ±1, at 22050 Hz; the label, its last word or "silence"; the
    voice; and its words with their positions."""

    samples: Samples
    label: str
    voice: str
    spans: tuple[WordSpan, ...]


class SpokenWords(NamedTuple):
    """Frames [T, 32] of each utterance, float32; its label; its voice."""

    inputs: list[Tensor]
    labels: list[str]
    voices: list[str]


def spoken_words(
    training: int = 6000, validation: int = 600, seed: int = 0
) -> tuple[SpokenWords, SpokenWords]:
    """Utterances as log-mel frames of ten milliseconds, labelled with the last word.

    Source: synthesized by espeak-ng, see `utterances`; frames by `LogMel` with its defaults.
    Training and validation have different voices.

    Args:
        training: utterances for training.
        validation: utterances for validation.
        seed: of the random number generator.

    Raises:
        ValueError: a number is out of its range.
        DataError: espeak-ng is not installed, or lacks a voice.
    """
    frames = LogMel(RATE)

    def part(count: int, held_out: bool) -> SpokenWords:
        utterance_list = utterances(count, held_out=held_out, seed=seed)
        inputs = [torch.from_numpy(frames(utterance.samples)) for utterance in utterance_list]
        labels = [utterance.label for utterance in utterance_list]
        return SpokenWords(inputs, labels, [utterance.voice for utterance in utterance_list])

    _check("spoken_words", {"training": training, "validation": validation}, None, seed)
    return part(training, False), part(validation, True)


def utterances(
    count: int, *, held_out: bool = False, snr: float | None = None, seed: int = 0
) -> list[Utterance]:
    """Words with equal frequencies, as recorded by a microphone that is always on.

    The voice is one of the `SPEAKERS` (or one of `HELD_OUT`), with one of five English accents, 120
    to 230 words per minute, and a random pitch. Before the word there is a pause of up to 0.3 s,
    or, in half of the utterances, another word, 0.05 to 0.6 s earlier; after it a pause of up to
    0.2 s. One utterance in 21 is silence: it has no word, or ends with a pause of 0.4 to 0.8 s. The
    loudness varies by 18 dB.

    Args:
        snr: signal-to-noise ratio in decibels; inf is without noise. By default 5 to 30, and no
            noise in a quarter of the utterances. The color of the noise is between white and 1/f.
        seed: 0 or more. Equal arguments give the same samples.

    Raises:
        ValueError: count, snr or seed is out of its range.
        DataError: espeak-ng is not installed, or lacks a voice.
    """
    _check("utterances", {"count": count}, snr, seed)
    generator = np.random.default_rng([seed, held_out])
    classes = (*WORDS, SILENCE)
    plans = []
    for n in generator.permutation(count):
        label = classes[n % len(classes)]
        words = [str(generator.choice(WORDS))] if generator.random() < 0.5 else []
        is_silence = label == SILENCE
        final_pause = generator.uniform(0.4, 0.8) if is_silence else generator.uniform(0, 0.2)
        words += [] if is_silence else [label]
        pauses = [generator.uniform(0, 0.3), generator.uniform(0.05, 0.6)][: len(words)]
        speed = 1.0 if held_out else float(np.exp(generator.uniform(-0.2, 0.2)))
        voice = _draw_voice(generator, held_out)
        plans.append(_Plan(label, voice, words, [*pauses, final_pause], speed))
    return _Mixer(generator, snr).mix(plans)


def phrases(
    count: int,
    *,
    words: int = 5,
    held_out: bool = True,
    snr: float | None = None,
    seed: int = 0,
) -> list[Utterance]:
    """Sequences of words in one voice each, with pauses of 0.15 to 0.6 s between them, and 0.25 s
    at the end. Otherwise, also in arguments and errors, they are like `utterances`.
    """
    _check("phrases", {"count": count, "words": words}, snr, seed)
    generator = np.random.default_rng([seed, held_out, words])
    plans = []
    for _ in range(count):
        chosen = [str(word) for word in generator.choice(WORDS, words)]
        pauses = [*generator.uniform(0.15, 0.6, words), 0.25]
        plans.append(_Plan(chosen[-1], _draw_voice(generator, held_out), chosen, pauses))
    return _Mixer(generator, snr).mix(plans)


class _Plan(NamedTuple):
    """The content of an utterance; the pauses, in seconds, are before each word and at the end."""

    label: str
    voice: SpeechRequest
    words: list[str]
    pauses: list[float]
    speed: float = 1.0


def _draw_voice(generator: np.random.Generator, held_out: bool) -> SpeechRequest:
    """A random voice, as a request without a text."""
    speaker = generator.choice(HELD_OUT if held_out else SPEAKERS)
    rate = int(generator.integers(120, 231))
    pitch = int(generator.integers(30, 71))
    pitch_range = int(generator.integers(30, 71))
    return SpeechRequest("", f"{generator.choice(_ACCENTS)}+{speaker}", rate, pitch, pitch_range)


class _Mixer:
    """Puts words, pauses and noise together."""

    def __init__(self, generator: np.random.Generator, snr: float | None) -> None:
        self._generator, self._snr = generator, snr
        white = np.fft.rfft(generator.standard_normal(_NOISE_LENGTH))
        frequency = np.maximum(np.fft.rfftfreq(_NOISE_LENGTH, 1 / RATE), 50.0)
        exponents = np.linspace(0, 1, _NOISE_COLORS)
        noises = [np.fft.irfft(white / frequency ** (exponent / 2)) for exponent in exponents]
        self._noises = [noise / _root_mean_square(noise) for noise in noises]

    def mix(self, plans: list[_Plan]) -> list[Utterance]:
        requests = [plan.voice._replace(text=word) for plan in plans for word in plan.words]
        sounds = iter(synthesize(requests))
        return [
            self._utterance(plan, [_resample(_trim(next(sounds)), plan.speed) for _ in plan.words])
            for plan in plans
        ]

    def _utterance(self, plan: _Plan, sounds: list[Samples]) -> Utterance:
        silences = [np.zeros(round(pause * RATE)) for pause in plan.pauses]
        pieces, spans, end = [], [], 0
        for word, silence, sound in zip(plan.words, silences, sounds, strict=False):
            pieces += [silence, sound * (_LEVEL / _root_mean_square(sound))]
            start = end + len(silence)
            end = start + len(sound)
            spans.append(WordSpan(word, start, end))
        speech = np.concatenate([*pieces, silences[-1]])
        loudness = 10 ** (-self._generator.uniform(0, 18) / 20)
        samples = loudness * (speech + self._noise(len(speech)))
        return Utterance(samples.astype(np.float32), plan.label, plan.voice.voice, tuple(spans))

    def _noise(self, count: int) -> Samples:
        # The same numbers are drawn for each snr, so that a seed gives the same words.
        generator = self._generator
        color, start = generator.integers(_NOISE_COLORS), generator.integers(_NOISE_LENGTH)
        random_snr = generator.uniform(5, 30) if generator.random() < 0.75 else math.inf
        snr = random_snr if self._snr is None else self._snr
        level = _LEVEL * 10 ** (-snr / 20)
        noise: Samples = level * np.take(self._noises[color], start + np.arange(count), mode="wrap")
        return noise


def _root_mean_square(sound: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(sound))))


def _trim(sound: Samples) -> Samples:
    """Without the parts at both ends that are hardly audible."""
    audible = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    return sound[audible[0] : audible[-1] + 1]


def _resample(sound: Samples, speed: float) -> Samples:
    """Faster by a factor, and with pitch and formants higher by it: another vocal tract."""
    positions = np.arange(0, len(sound) - 1, speed)
    resampled: Samples = np.interp(positions, np.arange(len(sound)), sound)
    return resampled


def synthesize(requests: Sequence[SpeechRequest]) -> list[Samples]:
    """The samples [n] of each request, float32, full scale ±1, at 22050 Hz. The same list gives the
    same samples.

    Raises:
        DataError: espeak-ng is not installed, or lacks a voice.
    """
    # Changing the voice takes as long as synthesizing a word.
    order = sorted(range(len(requests)), key=lambda n: requests[n].voice)
    # The parts are always the same, since a process keeps state from word to word.
    parts = [order[k : k + _WORDS_PER_PROCESS] for k in range(0, len(order), _WORDS_PER_PROCESS)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        raw = b"".join(pool.map(_run, ([requests[n] for n in part] for part in parts)))
    samples = dict(zip(order, _split(raw), strict=True))
    return [samples[n] for n in range(len(requests))]


def _run(requests: list[SpeechRequest]) -> bytes:
    """The output of a process that synthesizes requests."""
    message = json.dumps({"libraries": _libraries(), "requests": requests}).encode()
    command = [sys.executable, "-I", "-S", espeak.__file__]
    process = subprocess.run(command, input=message, capture_output=True)
    fault = " ".join(process.stderr.decode(errors="replace").split())
    if process.returncode == espeak.NOT_FOUND:
        raise DataError(
            f"speech: the library espeak-ng must be installed, got none ({fault}); {_CURE}"
        )
    if process.returncode != 0:
        raise DataError(
            f"speech: {fault or 'espeak-ng failed'}, exit code {process.returncode}; {_CURE}"
        )
    return process.stdout


@cache
def _libraries() -> list[tuple[str, str | None]]:
    """Candidate files of the library, with the folder of its data if it does not know it."""
    libraries: list[tuple[str, str | None]] = []
    try:
        wheel = import_module("espeakng_loader")
    except ModuleNotFoundError:
        pass
    else:
        libraries.append((wheel.get_library_path(), wheel.get_data_path()))
    name = find_library("espeak-ng")
    return libraries if name is None else [*libraries, (name, None)]


def _split(raw: bytes) -> Iterator[Samples]:
    """The samples of each request in the output of a process."""
    position = 0
    while position < len(raw):
        size = int.from_bytes(raw[position : position + 4], sys.byteorder)
        yield np.frombuffer(raw, np.int16, size, position + 4).astype(np.float32) / 32768
        position += 4 + 2 * size


def _check(function: str, sizes: dict[str, int], snr: float | None, seed: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{function}: {name} must be at least 1, got {size}")
    if snr is not None and not snr > -math.inf:
        raise ValueError(f"{function}: snr must be in decibels, or inf for no noise, got {snr}")
    if seed < 0:
        raise ValueError(f"{function}: seed must be at least 0, got {seed}")
