"""What defines a training run, as plain values: the same configuration, the same run.

Each field stands here once, with its default, its range and its line of help; the command line and
the checks read them. Imports nothing heavy.
"""

from dataclasses import MISSING, dataclass, field, fields
from math import inf
from os import PathLike
from types import NoneType, UnionType
from typing import Any, ClassVar, get_args, get_origin

from unrolled.cells import Cell
from unrolled.cells.naming import cell_name
from unrolled.limits import brief

__all__ = [
    "CONFIGS",
    "TYPES",
    "ClassificationConfig",
    "Config",
    "DataConfig",
    "ForecastConfig",
    "LanguageModelConfig",
    "ProblemConfig",
    "TaggingConfig",
    "TranslationConfig",
    "check",
    "option",
]


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with its line of help and its range; ``choices`` are of a string."""
    metadata = {"help": help, "least": least, "above": above, "below": below, "choices": choices}
    return field(default=default, metadata=metadata)


def _initial() -> Any:
    return option(
        "zero", "State that a sequence begins with: zero or learned.", choices=("zero", "learned")
    )


def check(config: Any) -> None:
    """Hold each field of a configuration to its range; None is in every range.

    Raises:
        ValueError: one is out of it; the message names the field.
    """
    for one in fields(config):
        value, told = getattr(config, one.name), one.metadata
        _check_type(one.name, value, one.type)
        if value is None:
            continue
        if told["choices"] and value not in told["choices"]:
            wanted = ", ".join(told["choices"])
            raise ValueError(f"{one.name}: wanted one of {wanted}, got {brief(value)}")
        bounds = [
            ("at least", told["least"], lambda v, b: v >= b),
            ("above", told["above"], lambda v, b: v > b),
            ("below", told["below"], lambda v, b: v < b),
        ]
        given = [(word, bound, holds) for word, bound, holds in bounds if bound is not None]
        if not all(holds(value, bound) for _, bound, holds in given):
            wanted = " and ".join(f"{word} {bound:g}" for word, bound, _ in given)
            raise ValueError(f"{one.name}: wanted {wanted}, got {value}")


def _check_type(name: str, value: Any, kind: Any) -> None:
    """Hold a value to a field's type; a whole number is a number, and fits 64 bits."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if get_origin(kind) is tuple:
        listed = isinstance(value, tuple | list)
        if not listed or not all(isinstance(item, str | PathLike) for item in value):
            raise ValueError(f"{name}: wanted texts, got {brief(value)}")
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and abs(value) >= 2**63:
        raise ValueError(f"{name}: wanted a number below 2**63, got a larger one")
    fits = (whole and {int, float} & set(kinds)) or (isinstance(value, str) and str in kinds)
    if not fits and type(value) not in kinds:
        wanted = " or ".join(TYPES[kind] for kind in kinds)
        raise ValueError(f"{name}: wanted {wanted}, got {brief(value)}")


TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "nothing",
}

CELLS = "a published cell (unrolled.cells: GRU, LSTM, RNN, …), or path/to/file.py:MyCell"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What all tasks have: the recurrent stack, the training.

    ``cell`` may also be a class or an object: the field has the name by which it is found again.

    Raises:
        ValueError: a value is out of its range, or a cell cannot be found again by a name; the
            message names the field.
    """

    one_direction: ClassVar[str] = ""
    """Why the task cannot read in both directions; empty where it can."""

    cell: str = option("GRU", f"Recurrent cell: {CELLS}.")
    hidden_size: int = option(128, "Units of a layer.", least=1)
    num_layers: int = option(1, "Recurrent layers.", least=1)
    dropout: float = option(
        0.0, "Dropout after the input, between and after the layers.", least=0, below=1
    )
    bidirectional: bool = option(False, "Read in both directions.")
    remember: int | None = option(
        None, "Start the gates so that up to so many steps are remembered (chrono).", least=3
    )

    batch_size: int = option(32, "Sequences side by side.", least=1)
    steps: int = option(2000, "Optimizer steps in all.", least=1)
    learning_rate: float = option(3e-3, "Largest learning rate of AdamW.", above=0, below=inf)
    recurrent_rate: float = option(
        1.0, "Learning rate of the recurrent matrices, as a part of that.", above=0, below=inf
    )
    schedule: str = option(
        "cosine",
        "Learning rate after the warm-up: cosine (falling) or constant.",
        choices=("cosine", "constant"),
    )
    weight_decay: float = option(0.01, "Decay of the weight matrices.", least=0, below=inf)
    clip: float = option(1.0, "Largest norm of the gradient; 0 switches clipping off.", least=0)
    precision: str = option(
        "32",
        "Arithmetic: 32, bf16 (autocast) or 16 (autocast with scaled losses, on GPUs).",
        choices=("32", "bf16", "16"),
    )
    validate_every: int = option(
        200, "Steps between validations, which also write checkpoints.", least=1
    )
    patience: int | None = option(
        None, "Stop after so many validations without a better one.", least=1
    )
    log_every: int = option(20, "Steps between rows of metrics.", least=1)
    watch: int | None = option(
        None,
        "Steps between rows of watch.csv: gradients by lag, saturated gates, spectral radius.",
        least=1,
    )
    tensorboard: bool = option(False, "Write TensorBoard's event files as well.")
    seed: int = option(0, "Seed of all randomness.", least=0, below=2**32)
    accelerator: str = option(
        "auto", "Where to compute: auto, cpu or gpu.", choices=("auto", "cpu", "gpu")
    )
    devices: int = option(1, "Processes (or GPUs) of each machine.", least=1)
    nodes: int = option(1, "Machines; start each with torchrun.", least=1)

    def __post_init__(self) -> None:
        cell: Any = self.cell
        if isinstance(cell, Cell) or (isinstance(cell, type) and issubclass(cell, Cell)):
            object.__setattr__(self, "cell", cell_name(cell))
        check(self)
        if self.bidirectional and self.one_direction:
            raise ValueError(f"bidirectional: wanted one direction: {self.one_direction}")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """What the tasks have that read data."""

    paths: tuple[str, ...] = option((), "The data; without any, the task's own.")
    validation_fraction: float = option(
        0.1, "Part of DATA that is kept for validation.", above=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(DataConfig):
    """The text, the model and the training of a language model.

    `batch_size` is the number N of streams read side by side, `window` the length T of truncated
    backpropagation. Losses are in nats a token.
    """

    one_direction = "a language model must not have seen the token that it predicts"

    suffixes: tuple[str, ...] = option((), "From folders, only files ending so (.txt).")
    limit: int | None = option(None, "Read at most so many bytes of text.", least=1)
    vocabulary: str = option(
        "bytes",
        "What a token is: bytes, characters (UTF-8, those seen), or bpe (learned pieces of text).",
        choices=("bytes", "characters", "bpe"),
    )
    vocabulary_size: int = option(1000, "Pieces that bpe learns.", least=257)
    validation_fraction: float = option(
        0.05, "Part of the text, its end, kept for validation.", above=0, below=1
    )
    validation_limit: int = option(
        1_000_000, "Keep at most so many tokens for validation.", least=1
    )

    input: str = option(
        "embedding", "How tokens enter: embedding or one-hot.", choices=("embedding", "one-hot")
    )
    embedding_size: int = option(
        128, "Width of the embedding; not used with one-hot input.", least=1
    )
    hidden_size: int = option(256, "Units of a layer.", least=1)
    initial: str = _initial()
    batch_size: int = option(32, "Streams of text read side by side.", least=1)
    window: int = option(
        128, "Steps of truncated backpropagation; the state carries over.", least=1
    )
    steps: int = option(5000, "Optimizer steps in all.", least=1)
    validate_every: int = option(
        500, "Steps between validations, which also write checkpoints.", least=1
    )


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(DataConfig):
    """A label for each text, or for each numeric sequence."""

    data: str = option(
        "languages",
        "What is learned without DATA: the language of a snippet of source; a handwritten digit, "
        "row by row; which way a digit moves, frame by frame; spoken words, heard through noise.",
        choices=("languages", "digits", "moving-digits", "spoken-words"),
    )
    label: str | None = option(
        None, "Column of the labels in a table; without it, the column called label."
    )
    text: str | None = option(
        None, "Column of the texts in a table; without it, all other columns are numbers in time."
    )
    max_length: int | None = option(400, "Read at most so many characters of a text.", least=1)
    min_count: int = option(1, "Characters seen less often are one unknown character.", least=1)
    embedding_size: int = option(64, "Width of the embedding of characters.", least=1)
    bidirectional: bool = option(True, "Read in both directions.")
    initial: str = _initial()
    pooling: str = option(
        "mean",
        "What the label is told from: the last state, or the mean, max or attention over all.",
        choices=("last", "mean", "max", "attention"),
    )


@dataclass(frozen=True, kw_only=True)
class TaggingConfig(DataConfig):
    """A label for each token, in files with a token and its label on a line (CoNLL)."""

    column: int = option(
        -1, "Column of the labels, the first is 0; columns are split at tabs or blanks."
    )
    token_column: int | None = option(
        None, "Column of the tokens; without it the first, in CoNLL-U files the words (1)."
    )
    min_count: int = option(2, "Words seen less often are one unknown word.", least=1)
    characters: bool = option(True, "Read each word's characters too.")
    embedding_size: int = option(64, "Width of the embedding of words.", least=1)
    bidirectional: bool = option(True, "Read in both directions.")


@dataclass(frozen=True, kw_only=True)
class ForecastConfig(DataConfig):
    """The next values of one or several series, from a window of the past."""

    one_direction = "a forecast goes on from where the series ends, and so does the state"

    data: str = option(
        "sunspots",
        "What is forecast without DATA: yearly sunspots, weekly CO2, monthly sea temperature "
        "(elnino), quarterly unemployment (macrodata), daily prices of a share.",
        choices=("sunspots", "co2", "elnino", "macrodata", "prices"),
    )
    target: tuple[str, ...] = option((), "Columns to forecast; without any, all numeric ones.")
    covariate: tuple[str, ...] = option((), "Columns to look at but not to forecast.")
    time: str | None = option(None, "Column of the times, in order; read for its order alone.")
    series: str | None = option(None, "Column that names the series, in a table of several.")
    window: int = option(48, "Values of the past that a forecast sees.", least=1)
    horizon: int = option(12, "Values to forecast.", least=1)
    season: int | None = option(
        None, "Steps of a season, for the seasonal naive baseline.", least=2
    )
    hidden_size: int = option(64, "Units of a layer.", least=1)
    initial: str = _initial()
    validation_fraction: float = option(
        0.2, "Part of each series, its end, kept for the backtest.", above=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class TranslationConfig(DataConfig):
    """Text to text: pairs on lines, source and target separated by a tab."""

    data: str = option(
        "both",
        "What is learned without DATA: dates in words to digits, numbers in words to digits, both.",
        choices=("both", "dates", "numbers"),
    )
    source_unit: str = option(
        "words",
        "What a token of the source is: words (and signs), or characters.",
        choices=("words", "characters"),
    )
    target_unit: str = option(
        "characters",
        "What a token of the target is: words (and signs), or characters.",
        choices=("words", "characters"),
    )
    min_count: int = option(1, "Tokens seen less often are one unknown token.", least=1)
    attention: bool = option(True, "Let the decoder look at the encoder's states.")
    bidirectional: bool = option(
        False, "Let the encoder read in both directions; the decoder cannot."
    )
    embedding_size: int = option(64, "Width of the embeddings.", least=1)
    max_length: int = option(200, "Characters of a source or target, at most.", least=1)
    hidden_size: int = option(192, "Units of a layer.", least=1)
    batch_size: int = option(64, "Pairs side by side.", least=1)
    beam: int = option(1, "Hypotheses of the search when it is measured; 1 is greedy.", least=1)


@dataclass(frozen=True, kw_only=True)
class ProblemConfig(Config):
    """A problem on which recurrent networks are compared, drawn anew for each batch."""

    one_direction = "each answer follows from what came before it"

    data: str = option(
        "adding",
        "The sum of two marked numbers; tokens to recall after so many steps; whether the ones so "
        "far are odd in number; whether all brackets are closed.",
        choices=("adding", "copy", "parity", "dyck"),
    )
    length: int = option(100, "Steps T of a sequence, or until copy's recall.", least=2)
    validation_sequences: int = option(500, "Sequences of a validation.", least=1)
    initial: str = _initial()


CONFIGS: dict[str, type[Config]] = {
    "lm": LanguageModelConfig,
    "classify": ClassificationConfig,
    "tag": TaggingConfig,
    "forecast": ForecastConfig,
    "seq2seq": TranslationConfig,
    "problem": ProblemConfig,
}
assert MISSING not in [one.default for kind in CONFIGS.values() for one in fields(kind)]
