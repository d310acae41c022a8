"""Tasks: data, loss and measures around the models, without a training loop."""

from importlib import import_module

from unrolled.tasks.generation import distribution, generate
from unrolled.tasks.language import (
    LanguageModeling,
    Score,
    detach,
    load_language_model,
    loss,
    score,
)
from unrolled.tasks.reading import DataError
from unrolled.tasks.task import Batch, Share, Task, measure
from unrolled.tasks.text import TextError, read_text, standard_library
from unrolled.tasks.trained import load_trained, name_of
from unrolled.tasks.vocabulary import Vocabulary
from unrolled.tasks.windows import Window, Windows, split

__all__ = [
    "Batch",
    "DataError",
    "LanguageModeling",
    "Score",
    "Share",
    "Task",
    "TextError",
    "Vocabulary",
    "Window",
    "Windows",
    "detach",
    "distribution",
    "find_task",
    "generate",
    "load_language_model",
    "load_trained",
    "loss",
    "measure",
    "name_of",
    "read_text",
    "score",
    "split",
    "standard_library",
]

_TASKS = {
    "lm": ("language", "LanguageModeling"),
    "classify": ("classification", "Classification"),
    "tag": ("tagging", "Tagging"),
    "forecast": ("forecasting", "Forecasting"),
    "seq2seq": ("translation", "Translation"),
    "problem": ("problems", "Problems"),
}


def find_task(name: str) -> type[Task]:
    """The task of that name, as in ``unrolled train NAME``.

    Raises:
        ValueError: there is none.
    """
    if name not in _TASKS:
        raise ValueError(f"task: wanted one of {', '.join(_TASKS)}, got {name!r}")
    module, own = _TASKS[name]
    found: type[Task] = getattr(import_module(f"unrolled.tasks.{module}"), own)
    return found
