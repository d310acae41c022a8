"""A text classified while it arrives: a decision after every character.

    h_t = GRU(e(c_t), h_{t-1})        ŷ_t = softmax(V h_t + c)

The network learned from whole texts, from the state after the last character. As it reads in one
direction, its head may be asked after any character, and says what it would if the text ended
there. Exported, it does so in microseconds a character, where no torch is installed.

    python examples/online.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from unrolled.config import ClassificationConfig
from unrolled.export import export
from unrolled.runtime import Stream, load
from unrolled.tasks import Shard
from unrolled.tasks.classification import Classification, prefix_probabilities

CONFIG = ClassificationConfig(
    bidirectional=False, pooling="last", max_length=100, hidden_size=96, batch_size=64
)
SHOWN = (1, 3, 10, 30, 100)


def learn(task: Classification, steps: int) -> torch.nn.Module:
    """A classifier after so many steps of Adam."""
    torch.manual_seed(0)
    model = task.build_model(task.model_arguments())
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for step in range(steps):
        batch = task.batch(step, Shard())
        loss = task.loss(model, batch, None)[0] / batch.total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def right_after(model: torch.nn.Module, task: Classification) -> dict[int, float]:
    """The part of unseen snippets whose language is right after so many characters."""
    right = dict.fromkeys(SHOWN, 0)
    for n in task.out:
        guesses = prefix_probabilities(model, task.codec, task.data.inputs[n]).argmax(-1)
        for count in SHOWN:
            right[count] += int(guesses[min(count, len(guesses)) - 1] == task.targets[n])
    return {count: found / len(task.out) for count, found in right.items()}


def stream_of(model: torch.nn.Module) -> Stream:
    """The model by way of a file, as another machine would have it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "languages.safetensors"
        export(torch.nn.Sequential(model, torch.nn.Softmax(-1)), path)
        return load(path).stream()


def read_along(stream: Stream, tokens: list[int]) -> tuple[np.ndarray, float]:
    """Probabilities [T, languages] after each token, and the microseconds that one took."""
    start = time.perf_counter()
    chances = np.concatenate([stream.step(token) for token in tokens])
    return chances, (time.perf_counter() - start) / len(tokens) * 1e6


def main(steps: int = 500) -> None:
    task = Classification.read(CONFIG)
    model = learn(task, steps)
    print(f"{len(task.codec.labels)} languages; {len(task.out)} snippets of unseen files")
    for count, right in right_after(model, task).items():
        print(f"after {count:3} characters {right:.1%} are right")
    text = "import os\n\n\ndef show(names):\n    for name in names:\n        print(name)\n"
    chances, micros = read_along(stream_of(model), task.codec.encode(text).tolist())
    for t in range(4, len(text), 8):
        best = int(chances[t].argmax())
        label = task.codec.labels.decode([best])[0]
        print(f"… {text[max(0, t - 24) : t + 1]!r:32} {label} ({chances[t, best]:.0%})")
    print(f"{micros:.0f} µs a character")


if __name__ == "__main__":
    main()
