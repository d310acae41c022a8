"""Online recognition of spoken words: a prediction every ten milliseconds.

    y_t = log-mel energies of the last 23 ms
    h_t = GRU(y_t, h_{t-1})        ŷ_t = softmax(V h_t + c)

espeak-ng speaks twenty words in many voices, accents and speeds, with noise. The network is trained
to predict the most recent word, or silence, from the state after the last frame. Because it reads
in one direction, its head can be applied after any frame. It is tested on phrases of held-out
voices: their samples arrive 10 ms at a time, without marks of where a word begins. The exported
model runs on numpy and the native core, without torch.

    pip install 'unrolled[train,speech]'
    python examples/spoken_words.py

The same network is trained on the command line, with the hidden size and the learning rate of
CONFIG, by

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


class Predictions(NamedTuple):
    """The predictions of a stream for a phrase: probabilities [T, labels] after each of T frames,
    and the seconds from the arrival of each block of samples to its prediction."""

    probabilities: np.ndarray
    seconds: np.ndarray


def learn(config: ClassificationConfig, folder: Path) -> Path:
    """Train a model and export it for the runtime, with a softmax.

    It is the last checkpoint, not that of the best validation, because the validation uses the
    voices that the model is tested on.
    """
    model, codec = load_trained(fit(config, folder / "run").last, find_task("classify"))
    path = folder / "words.safetensors"
    export(nn.Sequential(model, nn.Softmax(-1)), path, task="classify", codec=codec.state())
    return path


def labels_of(model: Model) -> list[str]:
    """The names of the model's labels."""
    assert isinstance(model.codec, dict)
    labels = model.codec["labels"]
    return list(labels["entries"])


def predict_online(model: Model, samples: np.ndarray) -> Predictions:
    """Process the samples in blocks of 10 ms, as from a microphone, one step for each frame."""
    framer, stream = FRAMES.framer(), model.stream()
    probabilities, seconds = [], []
    for at in range(0, len(samples), FRAMES.hop):
        start = time.perf_counter()
        for frame in framer.push(samples[at : at + FRAMES.hop]):
            probabilities.append(stream.step(frame[None])[0])
        seconds.append(time.perf_counter() - start)
    return Predictions(np.stack(probabilities), np.array(seconds))


def label_at(predictions: Predictions, seconds: float) -> int:
    """The predicted label after this much of the phrase."""
    t = max(0, (round(seconds * FRAMES.rate) - FRAMES.window) // FRAMES.hop)
    return int(predictions.probabilities[t].argmax())


def accuracy(
    labels: list[str], spoken: list[Utterance], predictions: list[Predictions], moment: str
) -> float:
    """The fraction of words that are predicted correctly at a moment such as "start + 0.2", in
    seconds."""
    edge, _, delay = moment.partition(" + ")
    correct = [
        labels[label_at(prediction, getattr(span, edge) / FRAMES.rate + float(delay))] == span.word
        for phrase, prediction in zip(spoken, predictions, strict=True)
        for span in phrase.spans
    ]
    return sum(correct) / len(correct)


def transcript(labels: list[str], phrase: Utterance, predictions: Predictions) -> list[str]:
    """The spoken words with their times, then the predictions that are stable for STEADY frames."""
    words = (f"{word} at {start / FRAMES.rate:.2f} s" for word, start, _ in phrase.spans)
    lines, shown_label, since = [f"{phrase.voice} says {', '.join(words)}"], -1, 0
    best = predictions.probabilities.argmax(-1)
    for t in range(1, len(best)):
        since = t if best[t] != best[t - 1] else since
        if best[t] != shown_label and t - since == STEADY - 1:
            shown_label = best[t]
            seconds = (FRAMES.window + t * FRAMES.hop) / FRAMES.rate
            lines.append(
                f"  {seconds:4.2f} s  {labels[shown_label]} "
                f"({predictions.probabilities[t, shown_label]:.0%})"
            )
    return lines


def main(config: ClassificationConfig = CONFIG, count: int = 60) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = load(learn(config, Path(folder)))
    labels, seconds, length = labels_of(model), [], 0.0
    print(
        f"{5 * count} words of held-out voices: accuracy by the seconds since a word's start or end"
    )
    print(f"{'noise':>8}  {'  '.join(MOMENTS)}")
    for snr in NOISES:
        spoken = phrases(count, snr=snr)
        predictions = [predict_online(model, phrase.samples) for phrase in spoken]
        accuracies = [f"{accuracy(labels, spoken, predictions, moment):.1%}" for moment in MOMENTS]
        name = "none" if snr == math.inf else f"{snr:.0f} dB"
        row = "  ".join(
            f"{text:>{len(moment)}}" for text, moment in zip(accuracies, MOMENTS, strict=True)
        )
        print(f"{name:>8}  {row}")
        seconds += [prediction.seconds for prediction in predictions]
        length += sum(len(phrase.samples) for phrase in spoken) / FRAMES.rate
        if snr == 20.0:
            lines = [line for n in (0, 1) for line in transcript(labels, spoken[n], predictions[n])]
    print("\nat a signal-to-noise ratio of 20 dB", *lines, sep="\n")
    latencies = np.concatenate(seconds)
    median, slow = np.quantile(latencies, (0.5, 0.99)) * 1e6
    print(f"\na frame takes {median:.0f} µs (features and step); 99 % take at most {slow:.0f} µs")
    print(
        f"{length:.0f} s of sound take {latencies.sum():.1f} s, "
        f"{latencies.sum() / length:.2%} of real time"
    )


if __name__ == "__main__":
    main()
