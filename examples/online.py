"""Online classification of a text: a prediction after every character.

    h_t = GRU(e(c_t), h_{t-1})        ŷ_t = softmax(V h_t + c)

The network is trained on complete texts, with the state after the last character. Because it reads
in one direction, its head can be applied after any character, and predicts the label of the text so
far. The exported model does this in microseconds per character, without torch.

    python examples/online.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from unrolled.config import ClassificationConfig
from unrolled.export import export
from unrolled.models import SequenceModel
from unrolled.runtime import Stream, load
from unrolled.tasks import Shard
from unrolled.tasks._classification import Classification, prefix_probabilities

CONFIG = ClassificationConfig(
    bidirectional=False, pooling="last", max_length=100, hidden_size=96, batch_size=64
)
PREFIX_LENGTHS = (1, 3, 10, 30, 100)


def learn(task: Classification, steps: int) -> SequenceModel:
    """Train a classifier for this number of steps of Adam."""
    torch.manual_seed(0)
    model = task.build_model(task.model_arguments())
    assert isinstance(model, SequenceModel)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for step in range(steps):
        batch = task.batch(step, Shard())
        loss = task.loss(model, batch, None)[0] / batch.total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def accuracy_by_length(model: SequenceModel, task: Classification) -> dict[int, float]:
    """The accuracy on held-out snippets, by the number of characters read."""
    correct = dict.fromkeys(PREFIX_LENGTHS, 0)
    for n in task.validation_items:
        guesses = prefix_probabilities(model, task.codec, task.data.inputs[n]).argmax(-1)
        for count in PREFIX_LENGTHS:
            correct[count] += int(guesses[min(count, len(guesses)) - 1] == task.targets[n])
    return {count: hits / len(task.validation_items) for count, hits in correct.items()}


def stream_of(model: SequenceModel) -> Stream:
    """Export the model to a file, and load it as on another machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "languages.safetensors"
        export(torch.nn.Sequential(model, torch.nn.Softmax(-1)), path)
        return load(path).stream()


def predict_online(stream: Stream, tokens: list[int]) -> tuple[np.ndarray, float]:
    """Probabilities [T, languages] after each token, and microseconds per token."""
    start = time.perf_counter()
    probabilities = np.concatenate([stream.step(token) for token in tokens])
    return probabilities, (time.perf_counter() - start) / len(tokens) * 1e6


def main(steps: int = 500) -> None:
    task = Classification.read(CONFIG)
    model = learn(task, steps)
    print(f"{len(task.codec.labels)} languages; {len(task.validation_items)} held-out snippets")
    for count, accuracy in accuracy_by_length(model, task).items():
        print(f"after {count:3} characters {accuracy:.1%} are correct")
    text = "import os\n\n\ndef show(names):\n    for name in names:\n        print(name)\n"
    probabilities, micros = predict_online(stream_of(model), task.codec.encode(text).tolist())
    for t in range(4, len(text), 8):
        best = int(probabilities[t].argmax())
        label = task.codec.labels.decode([best])[0]
        print(f"… {text[max(0, t - 24) : t + 1]!r:32} {label} ({probabilities[t, best]:.0%})")
    print(f"{micros:.0f} µs per character")


if __name__ == "__main__":
    main()
