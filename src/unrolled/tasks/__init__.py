"""Tasks: data, loss and metrics around the models; the training loop is in ``unrolled.train``.

Readers of data are in ``unrolled.tasks.data``, codecs in ``unrolled.tasks.codecs``, built-in data
sets in ``unrolled.tasks.datasets``.
"""

from unrolled.tasks._classification import (
    Classification,
    class_probabilities,
    prefix_probabilities,
)
from unrolled.tasks._forecasting import Forecaster, Forecasting, forecast
from unrolled.tasks._generation import distribution, generate
from unrolled.tasks._language_modeling import (
    LanguageModeling,
    LanguageModelScore,
    detach_state,
    load_language_model,
    next_token_loss,
    score_language_model,
)
from unrolled.tasks._load_trained import load_trained, task_name
from unrolled.tasks._search import beam, greedy
from unrolled.tasks._synthetic import SyntheticProblems
from unrolled.tasks._tagging import Tagging, predict_tags
from unrolled.tasks._task import Batch, PredictionInput, Shard, Task, measure
from unrolled.tasks._translation import Translation, translate
from unrolled.tasks.codecs import Vocabulary
from unrolled.tasks.data._source import DataError
from unrolled.tasks.data._text_files import TextError, read_text, standard_library
from unrolled.tasks.data._windows import Window, Windows, split_tokens

__all__ = [
    "Batch",
    "Classification",
    "DataError",
    "Forecaster",
    "Forecasting",
    "LanguageModelScore",
    "LanguageModeling",
    "PredictionInput",
    "Shard",
    "SyntheticProblems",
    "Tagging",
    "Task",
    "TextError",
    "Translation",
    "Vocabulary",
    "Window",
    "Windows",
    "beam",
    "class_probabilities",
    "detach_state",
    "distribution",
    "find_task",
    "forecast",
    "generate",
    "greedy",
    "load_language_model",
    "load_trained",
    "measure",
    "next_token_loss",
    "predict_tags",
    "prefix_probabilities",
    "read_text",
    "score_language_model",
    "split_tokens",
    "standard_library",
    "task_name",
    "translate",
]

_TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        LanguageModeling,
        Classification,
        Tagging,
        Forecasting,
        Translation,
        SyntheticProblems,
    )
}


def find_task(name: str) -> type[Task]:
    """The task of that name, as in ``unrolled train NAME``.

    Raises:
        ValueError: there is no such task.
    """
    if name not in _TASKS:
        raise ValueError(f"find_task: task must be one of {', '.join(_TASKS)}, got {name!r}")
    return _TASKS[name]
