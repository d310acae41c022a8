"""Spoken words recognised while they are said: a decision every ten milliseconds.

    y_t = log-mel energies of the last 23 ms
    h_t = GRU(y_t, h_{t-1})        ŷ_t = softmax(V h_t + c)

espeak-ng says twenty words in many voices, accents and speeds, into noise. The network learned
which one was said last, or that there is silence, from the state after the last frame. As it reads
in one direction, its head may be asked after any frame. It is tried on phrases of voices that it
never heard: their samples arrive 10 ms at a time, and nobody tells the stream where a word begins.
What runs then is numpy and the core, no torch.

    pip install 'unrolled[train,speech]'
    python examples/spoken_words.py

The same network is learned on the command line, with the hidden size and the rate of CONFIG, by

    unrolled train classify --data spoken-words --no-bidirectional --pooling last
"""

import math
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from unrolled.config import ClassificationConfig
from unrolled.export import export
from unrolled.runtime import Model, load
from unrolled.runtime.frames import LogMel
from unrolled.tasks import find_task, load_trained
from unrolled.tasks.datasets import Utterance, phrases
from unrolled.train import fit

FRAMES = LogMel()
CONFIG = ClassificationConfig(
    data="spoken-words",
    bidirectional=False,
    pooling="last",
    hidden_size=96,
    learning_rate=5e-3,
    steps=2000,
)
NOISES = (math.inf, 20.0, 10.0, 5.0)
MOMENTS = ("start + 0.1", "start + 0.2", "start + 0.3", "end + 0.0", "end + 0.1")  # seconds
STEADY = 8


class Heard(NamedTuple):
    """What a stream said of a phrase: probabilities [T, labels] after each of T frames, and the
    seconds that each piece of samples took, from its arrival to the decision."""

    chances: np.ndarray
    seconds: np.ndarray


def learn(config: ClassificationConfig, folder: Path) -> Path:
    """A trained model as a file for the runtime; its last part gives probabilities.

    It is the last one, not that with the best validation: that would be chosen by the voices which
    it is tried on.
    """
    model, codec = load_trained(fit(config, folder / "run").last, find_task("classify"))
    path = folder / "words.safetensors"
    export(nn.Sequential(model, nn.Softmax(-1)), path, task="classify", codec=codec.state())
    return path


def labels_of(model: Model) -> list[str]:
    """The names of what the model tells apart."""
    return list(model.codec["labels"]["entries"])


def listen(model: Model, samples: np.ndarray) -> Heard:
    """The samples in pieces of 10 ms, as a microphone gives them: one step a frame."""
    framer, stream = FRAMES.framer(), model.stream()
    chances, seconds = [], []
    for at in range(0, len(samples), FRAMES.hop):
        start = time.perf_counter()
        for frame in framer.push(samples[at : at + FRAMES.hop]):
            chances.append(stream.step(frame[None])[0])
        seconds.append(time.perf_counter() - start)
    return Heard(np.stack(chances), np.array(seconds))


def decision(heard: Heard, seconds: float) -> int:
    """The label that the stream told last when so much had been said."""
    t = max(0, (round(seconds * FRAMES.rate) - FRAMES.window) // FRAMES.hop)
    return int(heard.chances[t].argmax())


def right(labels: list[str], said: list[Utterance], heard: list[Heard], after: str) -> float:
    """The part of words that were told when "start + 0.2" or "end + 0.1" seconds had passed."""
    edge, _, delay = after.partition(" + ")
    found = [
        labels[decision(one, getattr(span, edge) / FRAMES.rate + float(delay))] == span.word
        for phrase, one in zip(said, heard, strict=True)
        for span in phrase.spans
    ]
    return sum(found) / len(found)


def caption(labels: list[str], phrase: Utterance, heard: Heard) -> list[str]:
    """Who says what when; then what the stream tells, once it has done so for STEADY frames."""
    told = (f"{word} at {start / FRAMES.rate:.2f} s" for word, start, _ in phrase.spans)
    lines, last, since = [f"{phrase.voice} says {', '.join(told)}"], -1, 0
    best = heard.chances.argmax(-1)
    for t in range(1, len(best)):
        since = t if best[t] != best[t - 1] else since
        if best[t] != last and t - since == STEADY - 1:
            last = best[t]
            seconds = (FRAMES.window + t * FRAMES.hop) / FRAMES.rate
            lines.append(f"  {seconds:4.2f} s  {labels[last]} ({heard.chances[t, last]:.0%})")
    return lines


def main(config: ClassificationConfig = CONFIG, count: int = 60) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = load(learn(config, Path(folder)))
    labels, seconds, length = labels_of(model), [], 0.0
    print(f"{5 * count} words of voices that were never learned from: right so long after")
    print(f"{'noise':>8}  {'  '.join(MOMENTS)}")
    for snr in NOISES:
        said = phrases(count, snr=snr)
        heard = [listen(model, phrase.samples) for phrase in said]
        shares = [f"{right(labels, said, heard, after):.1%}" for after in MOMENTS]
        name = "none" if snr == math.inf else f"{snr:.0f} dB"
        row = "  ".join(
            f"{share:>{len(after)}}" for share, after in zip(shares, MOMENTS, strict=True)
        )
        print(f"{name:>8}  {row}")
        seconds += [one.seconds for one in heard]
        length += sum(len(phrase.samples) for phrase in said) / FRAMES.rate
        if snr == 20.0:
            live = [line for n in (0, 1) for line in caption(labels, said[n], heard[n])]
    print("\nin noise of 20 dB", *live, sep="\n")
    every = np.concatenate(seconds)
    middle, most = np.quantile(every, (0.5, 0.99)) * 1e6
    print(f"\na frame takes {middle:.0f} µs, features and step; 99 % at most {most:.0f} µs")
    print(f"{length:.0f} s of sound in {every.sum():.1f} s: {every.sum() / length:.2%} of its time")


if __name__ == "__main__":
    main()
