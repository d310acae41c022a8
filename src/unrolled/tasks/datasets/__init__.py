"""Data that need no download: drawn from this machine, from installed libraries, or made up.

Each function gives plain texts, tensors or tables, training apart from validation. What a model
makes of them is left to the tasks.
"""

from unrolled.tasks.datasets._code_snippets import Snippets, languages
from unrolled.tasks.datasets._dates_and_numbers import (
    dates,
    number_in_words,
    numbers,
    ordinal,
    year_in_words,
)
from unrolled.tasks.datasets._digit_images import (
    DIRECTIONS,
    ClassifiedSequences,
    digits,
    moving_digits,
)
from unrolled.tasks.datasets._python_tokens import python_tags
from unrolled.tasks.datasets._speech import (
    SpokenWords,
    Utterance,
    phrases,
    spoken_words,
    utterances,
)
from unrolled.tasks.datasets._synthetic import (
    SyntheticProblem,
    adding,
    copy_memory,
    dyck,
    memoryless_loss,
    parity,
)
from unrolled.tasks.datasets._time_series import SERIES, SeriesDataset, series

__all__ = [
    "DIRECTIONS",
    "SERIES",
    "ClassifiedSequences",
    "SeriesDataset",
    "Snippets",
    "SpokenWords",
    "SyntheticProblem",
    "Utterance",
    "adding",
    "copy_memory",
    "dates",
    "digits",
    "dyck",
    "languages",
    "memoryless_loss",
    "moving_digits",
    "number_in_words",
    "numbers",
    "ordinal",
    "parity",
    "phrases",
    "python_tags",
    "series",
    "spoken_words",
    "utterances",
    "year_in_words",
]
