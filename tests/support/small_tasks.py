"""Small data for every task, written into a folder, with a configuration that learns them fast.

What they must do is in the tests.
"""

import math
import random
from pathlib import Path
from typing import Any

from unrolled.config import CONFIGS, Config

__all__ = ["EXAMPLES", "NAMES", "READ", "config_of", "write_data"]

READ = ["lm", "classify", "numbers", "tag", "forecast", "seq2seq"]
"""The tasks that read data, and classification of numbers beside that of texts."""
EXAMPLES = [*READ, "adding", "copy", "dyck"]
"""And those that draw theirs."""
NAMES = dict.fromkeys(EXAMPLES, "problem") | {example: example for example in READ}
"""The task of each."""
NAMES["numbers"] = "classify"

_OPTIONS: dict[str, dict[str, Any]] = {
    "lm": {"batch_size": 4, "window": 8, "validation_fraction": 0.2, "embedding_size": 4},
    "classify": {"text": "body", "embedding_size": 4},
    "numbers": {"pooling": "last"},
    "tag": {"embedding_size": 4, "min_count": 1},
    "forecast": {"time": "day", "window": 6, "horizon": 3},
    "seq2seq": {"embedding_size": 4},
}
_DIGITS = ["one", "two", "three", "four", "five", "six"]


def config_of(example: str, folder: Path, **options: Any) -> Config:
    """The configuration of small data, which are written in a folder if they are read."""
    common = {"hidden_size": 12, "batch_size": 7, "seed": 1, "accelerator": "cpu"}
    if example not in READ:
        small = {"data": example, "length": 9, "validation_sequences": 17}
        return CONFIGS["problem"](**{**common, **small, **options})
    values = {**common, "validation_fraction": 0.25, **_OPTIONS[example], **options}
    return CONFIGS[NAMES[example]](paths=(str(write_data(example, folder)),), **values)


def write_data(example: str, folder: Path) -> Path:
    """The path of the data, the same on every call."""
    writers = {"lm": _text, "classify": _texts, "numbers": _numbers, "tag": _sentences,
               "forecast": _waves, "seq2seq": _pairs}  # fmt: skip
    suffix = {"lm": "txt", "tag": "conll", "seq2seq": "tsv.txt"}.get(example, "csv")
    path = folder / f"{example}.{suffix}"
    path.write_text("\n".join(writers[example](random.Random(5))) + "\n")
    return path


def _text(draw: random.Random) -> list[str]:
    return ["abcde fgh " * 60]


def _texts(draw: random.Random) -> list[str]:
    """Texts of vowels or of consonants, 1 to 9 characters long."""
    letters = {"soft": "aeiou", "hard": "krtpd"}
    labels = draw.choices(["soft", "hard"], [2, 1], k=45)
    rows = []
    for label in labels:
        rows.append(f"{label},{''.join(draw.choices(letters[label], k=draw.randint(1, 9)))}")
    return ["label,body", *rows]


def _numbers(draw: random.Random) -> list[str]:
    """Rising and falling lines, of 3 to 5 numbers."""
    rows = ["label,a,b,c,d,e"]
    for _ in range(45):
        label, count, start = draw.choice(["up", "down"]), draw.randint(3, 5), draw.uniform(-5, 5)
        step = 2.0 if label == "up" else -2.0
        line = [f"{start + step * t:.3f}" for t in range(count)]
        rows.append(",".join([label, *line, *[""] * (5 - count)]))
    return rows


def _sentences(draw: random.Random) -> list[str]:
    """Names of one or two words among verbs, 1 to 6 tokens."""
    rows = []
    for _ in range(40):
        for _ in range(draw.randint(1, 3)):
            rows.append(f"{draw.choice(['Ada', 'Bo', 'Cy'])} B-PER")
            if draw.random() < 0.5:
                rows.append(f"{draw.choice(['Lee', 'Moe'])} I-PER")
            rows.append(f"{draw.choice(['saw', 'met', 'left'])} O")
        rows.append("")
    return rows


def _waves(draw: random.Random) -> list[str]:
    """Two waves of 12 days, far from zero and of different size."""
    rows = ["day,warm,wet"]
    for day in range(80):
        angle = 2 * math.pi * day / 12
        rows.append(f"{day},{50 + 10 * math.sin(angle):.5f},{3 + math.cos(angle):.5f}")
    return rows


def _pairs(draw: random.Random) -> list[str]:
    """Digits in words and as signs, 1 to 4."""
    chosen = [draw.choices(range(6), k=draw.randint(1, 4)) for _ in range(60)]
    return [
        " ".join(_DIGITS[i] for i in row) + "\t" + "".join(str(i + 1) for i in row)
        for row in chosen
    ]
