"""Tasks: data, loss and measures around the models, without a training loop."""

from importlib import import_module

from unrolled.tasks.codecs.vocabulary import Vocabulary
from unrolled.tasks.data.source import DataError
from unrolled.tasks.data.text_files import TextError, read_text, standard_library
from unrolled.tasks.data.windows import Window, Windows, split_tokens
from unrolled.tasks.generation import distribution, generate
from unrolled.tasks.language_modeling import (
    LanguageModeling,
    LanguageModelScore,
    detach_state,
    load_language_model,
    next_token_loss,
    score_language_model,
)
from unrolled.tasks.load_trained import load_trained, task_name
from unrolled.tasks.task import Batch, Shard, Task, measure

__all__ = [
    "Batch",
    "DataError",
    "LanguageModelScore",
    "LanguageModeling",
    "Shard",
    "Task",
    "TextError",
    "Vocabulary",
    "Window",
    "Windows",
    "detach_state",
    "distribution",
    "find_task",
    "generate",
    "load_language_model",
    "load_trained",
    "measure",
    "next_token_loss",
    "read_text",
    "score_language_model",
    "split_tokens",
    "standard_library",
    "task_name",
]

_TASKS = {
    "lm": ("language_modeling", "LanguageModeling"),
    "classify": ("classification", "Classification"),
    "tag": ("tagging", "Tagging"),
    "forecast": ("forecasting", "Forecasting"),
    "seq2seq": ("translation", "Translation"),
    "problem": ("synthetic", "SyntheticProblems"),
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
