"""Problems with published results, and the configurations that are trained on each.

All of them run without a download. Trials that fall short of the published results stay in the
table.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from unrolled.config import (
    ClassificationConfig,
    Config,
    ForecastConfig,
    LanguageModelConfig,
    ProblemConfig,
)


@dataclass(frozen=True)
class Published:
    """A published result: of which model, its value, and where it was published."""

    model: str
    value: str
    source: str


@dataclass(frozen=True)
class Comparison:
    """One problem, with its trials and published results.

    Args:
        title: the heading.
        about: what is measured, and on which data, in a sentence or two.
        task: the task's name.
        measure: the name of the score among the task's.
        unit: the heading of the score's column.
        trials: configurations, one for each row.
        lengths: for generated problems, the sequence lengths to evaluate on, if not only the one
            of the training.
        published: results to compare with.
    """

    title: str
    about: str
    task: str
    measure: str
    unit: str
    trials: tuple[Config, ...]
    lengths: tuple[int, ...] = ()
    published: tuple[Published, ...] = ()


C = TypeVar("C", bound=Config)


def _variants(config: C, *changes: dict[str, Any]) -> tuple[C, ...]:
    return tuple(replace(config, **change) for change in changes)


_BAI = (
    "Bai, Kolter & Koltun 2018, An empirical evaluation of generic convolutional and recurrent "
    "networks for sequence modeling"
)
_DELETANG = (
    "Delétang et al. 2023, Neural networks and the Chomsky hierarchy: one answer per string, "
    "evaluated up to length 500, trained up to 40"
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
        _variants(
            _ADDING,
            {"cell": "GRU", "chrono_steps": 600, "steps": 4000},
            {"cell": "LSTM", "chrono_steps": 600},
            {"cell": "GRU"},
            {"cell": "LSTM"},
        ),
        published=(Published("GRU", "5.3e-5", _BAI), Published("LSTM", "0.164", _BAI)),
    ),
    "copy": Comparison(
        "Copy memory, T = 1000",
        "Cross-entropy in nats per step. Ten tokens must be recalled after 1000 steps; on 1000 new "
        "sequences.",
        "problem",
        "loss",
        "nats per step",
        _variants(
            _COPY,
            {"cell": "ExpRNN", "hidden_size": 190, "recurrent_lr_scale": 0.1},
            {"cell": "LSTM", "chrono_steps": 1000},
            {"cell": "GRU"},
        ),
        published=(Published("GRU, LSTM", "0.0204, the memoryless baseline", _BAI),),
    ),
    "parity": Comparison(
        "Parity, trained at T = 40",
        "Fraction of the sequences with a correct answer at every step. The answer is whether the "
        "number of ones so far is odd; on 1000 new sequences of each length.",
        "problem",
        "solved",
        "solved",
        _variants(_PARITY, {"cell": "RNN"}, {"cell": "GRU"}, {"cell": "LSTM"}),
        lengths=(40, 100, 500),
        published=(Published("RNN and LSTM", "1.000", _DELETANG),),
    ),
    "dyck": Comparison(
        "Dyck-1, trained at T = 50",
        "Fraction of the sequences with a correct answer at every step. The answer is whether all "
        "brackets so far are closed; on 1000 new sequences of each length.",
        "problem",
        "solved",
        "solved",
        _variants(
            replace(_PARITY, data="dyck", length=50),
            {"cell": "RNN"},
            {"cell": "GRU"},
            {"cell": "LSTM"},
            {"cell": "LSTM", "hidden_size": 4},
        ),
        lengths=(50, 100, 500),
        published=(Published("LSTM", "solved, with a single unit", _SUZGUN),),
    ),
    "digits": Comparison(
        "Handwritten digits, row by row",
        "Accuracy on a held-out tenth of scikit-learn's 1797 digits, read in 8 steps of 8 pixels.",
        "classify",
        "accuracy",
        "accuracy",
        _variants(_DIGITS, {"cell": "RNN"}, {"cell": "GRU"}, {"cell": "LSTM"}),
        published=(
            Published(
                "support vector machine on the complete image",
                "0.97",
                "scikit-learn's example of recognizing hand-written digits, evaluated on half of "
                "them",
            ),
        ),
    ),
    "sunspots": Comparison(
        "Sunspots, 12 years ahead",
        "Mean absolute error of a backtest on the last fifth of statsmodels' series.",
        "forecast",
        "mae",
        "MAE",
        _variants(_SUNSPOTS, {"cell": "RNN"}, {"cell": "GRU"}, {"cell": "LSTM"}),
    ),
    "bytes": Comparison(
        "Bytes of Python's standard library",
        "Bits per byte on the last 5 % of the first 4 MB of its source code.",
        "lm",
        "bits_per_character",
        "bits per byte",
        _variants(_BYTES, {"cell": "GRU"}, {"cell": "LSTM"}),
    ),
}
"""By the name that `--only` matches; all seeds are 0."""
