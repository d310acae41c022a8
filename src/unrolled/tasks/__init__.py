"""Tasks: data, loss and measures around the models, without a training loop."""

from importlib import import_module

from unrolled.tasks.codecs.vocabulary import Vocabulary
from unrolled.tasks.data.source import DataError
from unrolled.tasks.data.text_files import TextError, read_text, standard_library
from unrolled.tasks.data.windows import Window, Windows, split
from unrolled.tasks.generation import distribution, generate
from unrolled.tasks.language_modeling import (
    LanguageModeling,
    Score,
    detach,
    load_language_model,
    loss,
    score,
)
from unrolled.tasks.load_trained import load_trained, name_of
from unrolled.tasks.task import Batch, Share, Task, measure

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
    "lm": ("language_modeling", "LanguageModeling"),
    "classify": ("classification", "Classification"),
    "tag": ("tagging", "Tagging"),
    "forecast": ("forecasting", "Forecasting"),
    "seq2seq": ("translation", "Translation"),
    "problem": ("synthetic", "Problems"),
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
