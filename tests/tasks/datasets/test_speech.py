"""Spoken words: frames against a plain Fourier sum, as they arrive as of the whole; what is said by
whom, and how loud the noise behind it is; that nothing of the held-out voices is learned from."""

import itertools
import math
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.signal
import torch

import unrolled.tasks.datasets
from tests.support.tolerances import close
from unrolled.config import ClassificationConfig
from unrolled.runtime.frames import LogMel
from unrolled.tasks._classification import Classification
from unrolled.tasks.data._source import DataError
from unrolled.tasks.datasets import _espeak as espeak
from unrolled.tasks.datasets import _speech as speech
from unrolled.tasks.datasets import phrases, spoken_words, utterances
from unrolled.tasks.datasets._speech import (
    HELD_OUT,
    SILENCE,
    SPEAKERS,
    WORDS,
    SpeechRequest,
    synthesize,
)

DRAW = np.random.default_rng(0)
RATE = 22050
SETTINGS = [
    {},
    {"rate": 16000, "window": 401, "hop": 160, "bands": 7, "low": 0.0, "floor": 1e-3},
    {"rate": 8000, "window": 64, "hop": 64, "bands": 1, "low": 100.0, "high": 4000.0},
    {"rate": 9000, "window": 90, "hop": 1, "bands": 3, "high": 4500.0},
]


def noise(count: int) -> np.ndarray:
    return (0.3 * DRAW.standard_normal(count)).astype(np.float32)


# Frames


def mel(frequency: float) -> float:
    return 2595 * math.log10(1 + frequency / 700)


def by_sums(
    x: np.ndarray,
    rate: int,
    window: int,
    hop: int,
    bands: int,
    low: float,
    high: float,
    floor: float,
) -> list[list[float]]:
    """The docstring's equations, one number at a time."""
    shape = scipy.signal.get_window("hann", window)
    step = (mel(high) - mel(low)) / (bands + 1)
    feet = [700 * (10 ** ((mel(low) + b * step) / 2595) - 1) for b in range(bands + 2)]
    frames = []
    for start in range(0, len(x) - window + 1, hop):
        power = []
        for k in range(window // 2 + 1):
            wave = np.exp(-2j * np.pi * k * np.arange(window) / window)
            power.append(abs((shape * x[start : start + window] * wave).sum()) ** 2)
        frame = []
        for below, centre, above in zip(feet, feet[1:], feet[2:], strict=False):
            energy = floor
            for k, value in enumerate(power):
                f = k * rate / window
                if below < f <= centre:
                    energy += value * (f - below) / (centre - below)
                elif centre < f < above:
                    energy += value * (above - f) / (above - centre)
            frame.append(math.log(energy))
        frames.append(frame)
    return frames


@pytest.mark.parametrize("settings", SETTINGS)
def test_frames_are_the_sums_of_their_equations(settings: dict[str, float]) -> None:
    frames = LogMel(**settings)
    x = noise(frames.window + 4 * frames.hop + 3)
    x[: frames.window] *= 1e-4  # the floor counts
    defaults = {"rate": RATE, "window": 512, "hop": 220, "bands": 32, "low": 60.0, "high": 8000.0}
    expected = by_sums(x.astype(np.float64), **({**defaults, "floor": 1e-5} | settings))
    assert len(expected) >= 5
    close(torch.from_numpy(frames(x)), torch.tensor(expected), "output")


def test_a_tone_is_loudest_in_its_band() -> None:
    frames = LogMel()
    for frequency in (300.0, 1000.0, 4000.0):
        tone = np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)
        step = (mel(8000.0) - mel(60.0)) / 33
        band = round((mel(frequency) - mel(60.0)) / step) - 1
        assert (frames(tone).argmax(1) == band).all()


@pytest.mark.parametrize("settings", SETTINGS)
def test_frames_as_they_arrive_are_those_of_the_whole(settings: dict[str, float]) -> None:
    frames = LogMel(**settings)
    x = noise(9001)
    full = frames(x)
    assert full.shape == (1 + (9001 - frames.window) // frames.hop, frames.bands)
    framer = frames.framer()
    cuts = [0, 0, *np.sort(DRAW.integers(0, len(x), 40)), len(x)]
    for pieces in (
        [x[start:stop] for start, stop in itertools.pairwise(cuts)],
        np.split(x, range(frames.hop, len(x), frames.hop)),
        [x[:5000].astype(np.float64), x[5000:]],
    ):
        assert np.array_equal(np.concatenate([framer.push(piece) for piece in pieces]), full)
        framer.reset()
    count = 0
    for k, sample in enumerate(x[: frames.window + frames.hop]):
        count += len(framer.push(x[k : k + 1]))
        assert count == (k + 1 >= frames.window) + (k + 1 >= frames.window + frames.hop), sample


def test_a_long_signal_is_cut_into_equal_rows() -> None:
    frames = LogMel(window=64, hop=16, bands=3)
    x = noise(40_000)
    late = frames(x[16 * 2000 :])
    assert np.array_equal(frames(x)[2000:], late)
    assert len(late) > 400
    assert frames(x[:63]).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0}, "LogMel: rate must be a whole number of at least 1, got 0"),
        ({"window": 0}, "LogMel: window must be a whole number"),
        ({"bands": 2.5}, "LogMel: bands must be a whole number of at least 1, got 2.5"),
        ({"hop": 0}, "LogMel: hop must be a whole number"),
        ({"hop": 513}, "LogMel: hop must be at most window = 512, got 513"),
        ({"high": 12000.0}, "LogMel: low and high must be from 0 to 11025 Hz, .* got 60 and 12000"),
        ({"low": -1.0}, "LogMel: low and high must "),
        ({"low": 500.0, "high": 500.0}, "LogMel: low and high must "),
        ({"floor": 0.0}, "LogMel: floor must be a finite number above 0, got 0.0"),
        ({"floor": math.nan}, "LogMel: floor must "),
        (
            {"bands": 200},
            "LogMel: bands .* got 200 bands, of which the one from .* Hz contains none; use fewer",
        ),
    ],
)
def test_frames_refuse(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogMel(**arguments)


def test_samples_are_checked() -> None:
    for take in (LogMel(), LogMel().framer().push):
        with pytest.raises(
            TypeError, match=r"LogMel: samples must be floating .* int16; divide 16-bit"
        ):
            take(np.zeros(600, np.int16))
        with pytest.raises(
            ValueError, match=r"LogMel: samples must be one channel of shape \[n\], got \[600, 2"
        ):
            take(np.zeros((600, 2), np.float32))


# What is said


def low_share(sound: np.ndarray) -> float:
    """The part of the power below 400 Hz that lies below 125 Hz, where this voice has its pitch."""
    power = np.square(np.abs(np.fft.rfft(sound, RATE)))
    return float(power[60:125].sum() / power[60:400].sum())


@pytest.mark.parametrize("at_once", [1, 1000])
def test_words_follow_voice_rate_and_pitch(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "_WORDS_PER_PROCESS", at_once)
    sayings = [
        SpeechRequest("seven", "en+m1"),
        SpeechRequest("no", "en-us+f1"),
        SpeechRequest("seven", "en+m1", rate=90),
        SpeechRequest("seven", "en+m1", pitch=95),
    ]
    recordings = synthesize(sayings)
    assert all(x.dtype == np.float32 and 0.05 < np.abs(x).max() <= 1 for x in recordings)
    assert len(recordings[2]) > 1.4 * len(recordings[0])
    assert low_share(recordings[3]) < 0.3 * low_share(recordings[0])
    # In another order each is still where it was asked for.
    repeated_recordings = synthesize(sayings[::-1])[::-1]
    assert [
        abs(len(x) - len(y)) < 300 for x, y in zip(recordings, repeated_recordings, strict=True)
    ] == [True] * 4
    assert synthesize([]) == []


def test_utterances_are_spans_in_silence() -> None:
    sample = utterances(43, snr=math.inf, seed=4)
    labels = [utterance.label for utterance in sample]
    assert {label: labels.count(label) for label in (*WORDS, SILENCE)} == {
        label: 2 + (label == WORDS[0]) for label in (*WORDS, SILENCE)
    }
    for utterance in sample:
        seconds = len(utterance.samples) / RATE
        inside = np.zeros(len(utterance.samples), bool)
        for word, start, stop in utterance.spans:
            assert word in WORDS
            assert 0.05 < (stop - start) / RATE < 1.5
            inside[start:stop] = True
            assert np.abs(utterance.samples[[start, stop - 2]]).min() > 0, (
                "spans are cut to what is heard"
            )
        assert not utterance.samples[~inside].any()
        assert len(utterance.spans) <= 2
        end_of_speech = utterance.spans[-1].end / RATE if utterance.spans else 0.0
        if utterance.label == SILENCE:
            assert seconds - end_of_speech + 1e-4 >= 0.4
        else:
            assert utterance.spans[-1].word == utterance.label
            assert seconds - end_of_speech < 0.2 + 1e-4
    assert {len(utterance.spans) for utterance in sample if utterance.label != SILENCE} == {1, 2}


def test_noise_has_the_given_strength() -> None:
    clean, noisy = (utterances(15, snr=snr, seed=2) for snr in (math.inf, 10.0))
    for clean_utterance, noisy_utterance in zip(clean, noisy, strict=True):
        assert (clean_utterance.spans, clean_utterance.voice, clean_utterance.label) == (
            noisy_utterance.spans,
            noisy_utterance.voice,
            noisy_utterance.label,
        )
        behind = noisy_utterance.samples - clean_utterance.samples
        for _, start, stop in clean_utterance.spans:
            word = np.sqrt(
                np.mean(np.square(clean_utterance.samples[start:stop].astype(np.float64)))
            )
            level = 20 * math.log10(word / np.sqrt(np.mean(np.square(behind.astype(np.float64)))))
            assert level == pytest.approx(10, abs=1.5), "a piece of the noise may be louder"
    drawn = utterances(15, seed=2)
    assert [utterance.spans for utterance in drawn] == [utterance.spans for utterance in clean]
    without_noise = [
        np.array_equal(x.samples, y.samples) for x, y in zip(drawn, clean, strict=True)
    ]
    assert 0 < sum(without_noise) < 15, "a quarter is without noise"


def test_phrases_are_words_with_pauses() -> None:
    for utterance in phrases(4, words=3, snr=20.0):
        assert len(utterance.spans) == 3
        assert utterance.spans[-1].word == utterance.label
        ends = [0, *(span.end for span in utterance.spans)]
        pauses = [
            (span.start - end) / RATE for span, end in zip(utterance.spans, ends, strict=False)
        ]
        assert all(0.15 - 1e-4 <= pause <= 0.6 + 1e-4 for pause in pauses)
        assert len(utterance.samples) - ends[-1] == round(0.25 * RATE)
        assert utterance.voice.partition("+")[2] in HELD_OUT


def test_equal_arguments_give_equal_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "_WORDS_PER_PROCESS", 7)
    sample, repeated, sample_of_other_seed = (utterances(12, seed=seed) for seed in (7, 7, 8))
    assert all(np.array_equal(x.samples, y.samples) for x, y in zip(sample, repeated, strict=True))
    assert [x.spans for x in sample] != [x.spans for x in sample_of_other_seed]


def test_held_out_voices_are_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    training, validation = spoken_words(80, 40, seed=3)
    voices = [{voice.partition("+")[2] for voice in part.voices} for part in (training, validation)]
    assert voices[0] <= set(SPEAKERS)
    assert voices[1] <= set(HELD_OUT)
    assert not set(SPEAKERS) & set(HELD_OUT)
    assert min(map(len, voices)) >= 9
    frames = LogMel()
    for part, held_out in ((training, False), (validation, True)):
        sample = utterances(len(part.labels), held_out=held_out, seed=3)
        assert [utterance.label for utterance in sample] == part.labels
        assert all(
            np.array_equal(frames(utterance.samples), x)
            for utterance, x in zip(sample, part.inputs, strict=True)
        )

    def small(seed: int) -> object:
        assert seed == 3
        return training, validation

    monkeypatch.setattr(unrolled.tasks.datasets, "spoken_words", small)
    task = Classification.read(ClassificationConfig(data="spoken-words", seed=3))
    assert (task.training_items, task.validation_items) == (list(range(80)), list(range(80, 120)))
    assert (
        task.targets.tolist()
        == task.codec.labels.encode(training.labels + validation.labels).tolist()
    )
    close(task.codec.mean, torch.cat(training.inputs).double().mean(0), "output")


# Faults


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(utterances, 0), "count must be at least 1, got 0"),
        (
            partial(utterances, 1, snr=math.nan),
            "snr must be in decibels, or inf for no noise, got nan",
        ),
        (partial(utterances, 1, snr=-math.inf), "snr must be"),
        (partial(utterances, 1, seed=-1), "seed must be at least 0, got -1"),
        (partial(phrases, 0), "count must be"),
        (partial(phrases, 1, words=0), "words must be at least 1, got 0"),
        (partial(spoken_words, 0, 1), "training must be at least 1, got 0"),
        (partial(spoken_words, 1, 0), "validation must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_raise(make: partial, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("voice", ["xx", "en+nobody"])
def test_unknown_voices_raise(voice: str) -> None:
    with pytest.raises(DataError, match=r"speech: espeak-ng in .* has no voice") as caught:
        synthesize([SpeechRequest("one", voice)])
    assert f"'{voice}'" in str(caught.value)


@pytest.mark.parametrize("files", [[], ["/no/libespeak.so", "/nor/this.so"]])
def test_a_missing_library_raises_with_both_remedies(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "_libraries", lambda: [(file, None) for file in files])
    with pytest.raises(
        DataError, match="speech: the library espeak-ng must be installed, got none"
    ) as caught:
        synthesize([SpeechRequest("one", "en")])
    message = str(caught.value)
    assert message.endswith("; pip install 'unrolled[speech]', or apt-get install libespeak-ng1")
    assert all(file in message for file in files)
    assert "\n" not in message


def test_a_library_that_crashes_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "espeak.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(espeak, "__file__", str(program))
    with pytest.raises(DataError, match="speech: espeak-ng failed, exit code -9; pip"):
        synthesize([SpeechRequest("one", "en")])


def test_the_systems_library_serves_where_the_package_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wheel = SimpleNamespace(get_library_path=lambda: "lib", get_data_path=lambda: "data")
    find = speech._libraries.__wrapped__
    for package, system, expected in (
        (wheel, None, [("lib", "data")]),
        (wheel, "libespeak-ng.so.1", [("lib", "data"), ("libespeak-ng.so.1", None)]),
        (None, "libespeak-ng.so.1", [("libespeak-ng.so.1", None)]),
        (None, None, []),
    ):
        monkeypatch.setitem(sys.modules, "espeakng_loader", package)
        monkeypatch.setattr(speech, "find_library", lambda name, system=system: system)
        assert find() == expected
