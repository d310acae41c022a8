"""Problems on which others published results, with the settings that we try on each.

All of them run without a download. What a trial does not reach stays in the table.
"""

from dataclasses import dataclass, replace
from typing import Any

from unrolled.config import (
    ClassificationConfig,
    Config,
    ForecastConfig,
    LanguageModelConfig,
    ProblemConfig,
)

__all__ = ["COMPARISONS", "Comparison", "Published"]


@dataclass(frozen=True)
class Published:
    """A figure that others gave."""

    what: str
    value: str
    source: str


@dataclass(frozen=True)
class Comparison:
    """One problem: the trials, and what they are held against.

    Args:
        about: what is measured, on what, in a sentence or two.
        measure: its name among the task's.
        unit: as the table heads the column.
        trials: configurations, each a row.
        lengths: for problems that are drawn, the lengths measured, if more than the learned one.
    """

    title: str
    about: str
    task: str
    measure: str
    unit: str
    trials: tuple[Config, ...]
    lengths: tuple[int, ...] = ()
    published: tuple[Published, ...] = ()


def _each(config: Any, *changes: dict[str, Any]) -> tuple[Config, ...]:
    return tuple(replace(config, **change) for change in changes)


_BAI = (
    "Bai, Kolter & Koltun 2018, An empirical evaluation of generic convolutional and recurrent "
    "networks for sequence modeling"
)
_DELETANG = (
    "Delétang et al. 2023, Neural networks and the Chomsky hierarchy: one answer a string, lengths "
    "up to 500 after learning up to 40"
)
_SUZGUN = "Suzgun et al. 2019, LSTM networks can perform dynamic counting"

_ADDING = ProblemConfig(
    data="adding",
    length=600,
    steps=3000,
    learning_rate=2e-3,
    schedule="constant",
    weight_decay=0.0,
    validate_every=500,
    validation_sequences=200,
)
_COPY = ProblemConfig(
    data="copy",
    length=1000,
    steps=1000,
    learning_rate=1e-3,
    weight_decay=0.0,
    validate_every=250,
    validation_sequences=64,
)
_PARITY = ProblemConfig(
    data="parity", length=40, hidden_size=32, batch_size=64, steps=2000, validate_every=500
)
_DIGITS = ClassificationConfig(
    data="digits", bidirectional=False, pooling="last", dropout=0.3, steps=1500
)
_SUNSPOTS = ForecastConfig(data="sunspots", steps=200)
_BYTES = LanguageModelConfig(limit=4_000_000, window=64, steps=3000)

COMPARISONS = {
    "adding": Comparison(
        "Adding problem, T = 600",
        "Mean squared error of the sum of two marked numbers, on 1000 new sequences.",
        "problem",
        "loss",
        "MSE",
        _each(
            _ADDING,
            {"cell": "GRU", "remember": 600, "steps": 4000},
            {"cell": "LSTM", "remember": 600},
            {"cell": "GRU"},
            {"cell": "LSTM"},
        ),
        published=(Published("GRU", "5.3e-5", _BAI), Published("LSTM", "0.164", _BAI)),
    ),
    "copy": Comparison(
        "Copy memory, T = 1000",
        "Cross-entropy in nats a step: ten tokens are to be recalled after 1000 steps; on 1000 new "
        "sequences.",
        "problem",
        "loss",
        "nats a step",
        _each(
            _COPY,
            {"cell": "ExpRNN", "hidden_size": 190, "recurrent_rate": 0.1},
            {"cell": "LSTM", "remember": 1000},
            {"cell": "GRU"},
        ),
        published=(Published("GRU, LSTM", "0.0204, the memoryless baseline", _BAI),),
    ),
    "parity": Comparison(
        "Parity, learned at T = 40",
        "Part of the sequences at whose every step it is said rightly whether the ones so far are "
        "odd in number; on 1000 new sequences of each length.",
        "problem",
        "solved",
        "solved",
        _each(_PARITY, {"cell": "RNN"}, {"cell": "GRU"}, {"cell": "LSTM"}),
        lengths=(40, 100, 500),
        published=(Published("RNN and LSTM", "1.000", _DELETANG),),
    ),
    "dyck": Comparison(
        "Dyck-1, learned at T = 50",
        "Part of the sequences at whose every step it is said rightly whether all brackets are "
        "closed; on 1000 new sequences of each length.",
        "problem",
        "solved",
        "solved",
        _each(
            replace(_PARITY, data="dyck", length=50),
            {"cell": "RNN"},
            {"cell": "GRU"},
            {"cell": "LSTM"},
            {"cell": "LSTM", "hidden_size": 4},
        ),
        lengths=(50, 100, 500),
        published=(Published("LSTM", "learned, one unit is enough", _SUZGUN),),
    ),
    "digits": Comparison(
        "Handwritten digits, row by row",
        "Accuracy on a tenth of scikit-learn's 1797 digits, read in 8 steps of 8 numbers.",
        "classify",
        "accuracy",
        "accuracy",
        _each(_DIGITS, {"cell": "RNN"}, {"cell": "GRU"}, {"cell": "LSTM"}),
        published=(
            Published(
                "support vector machine, the whole picture",
                "0.97",
                "scikit-learn's example on recognizing hand-written digits, on half of them",
            ),
        ),
    ),
    "sunspots": Comparison(
        "Sunspots, 12 years ahead",
        "Mean absolute error over the backtest on the last fifth of statsmodels' series.",
        "forecast",
        "mae",
        "MAE",
        _each(_SUNSPOTS, {"cell": "RNN"}, {"cell": "GRU"}, {"cell": "LSTM"}),
    ),
    "bytes": Comparison(
        "Bytes of Python's standard library",
        "Bits a byte of the last twentieth of the first 4 MB of its sources.",
        "lm",
        "bits_per_character",
        "bits a byte",
        _each(_BYTES, {"cell": "GRU"}, {"cell": "LSTM"}),
    ),
}
"""By the name that ``--only`` goes by; all seeds are 0."""
