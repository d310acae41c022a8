"""Tasks: data, loss and metrics around the models; the training loop is in ``unrolled.train``.

Readers of data are in ``unrolled.tasks.data``, codecs in ``unrolled.tasks.codecs``, built-in data
sets in ``unrolled.tasks.datasets``.
"""

from unrolled.tasks.classification import (
    Classification,
    class_probabilities,
    prefix_probabilities,
)
from unrolled.tasks.codecs import Vocabulary
from unrolled.tasks.data.source import DataError
from unrolled.tasks.data.text_files import TextError, read_text, standard_library
from unrolled.tasks.data.windows import Window, Windows, split_tokens
from unrolled.tasks.forecasting import Forecaster, Forecasting, forecast
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
from unrolled.tasks.search import beam, greedy
from unrolled.tasks.synthetic import SyntheticProblems
from unrolled.tasks.tagging import Tagging, predict_tags
from unrolled.tasks.task import Batch, PredictionInput, Shard, Task, measure
from unrolled.tasks.translation import Translation, translate

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
