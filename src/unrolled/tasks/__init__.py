"""Tasks: data, loss and measures around the models, without a training loop."""

from unrolled.tasks.generation import distribution, generate
from unrolled.tasks.language import Score, detach, load_language_model, loss, score
from unrolled.tasks.text import TextError, read_text, standard_library
from unrolled.tasks.vocabulary import Vocabulary
from unrolled.tasks.windows import Window, Windows, split

__all__ = [
    "Score",
    "TextError",
    "Vocabulary",
    "Window",
    "Windows",
    "detach",
    "distribution",
    "generate",
    "load_language_model",
    "loss",
    "read_text",
    "score",
    "split",
    "standard_library",
]
