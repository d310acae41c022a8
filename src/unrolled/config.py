"""The configuration of a training run, as plain values: equal configurations give equal runs.

Each option is declared here once, with its default, range and help line; the command line and the
checks read them from here. Imports nothing heavy.
"""

from dataclasses import MISSING, dataclass, fields
from math import inf
from typing import ClassVar

from unrolled._option import check, option
from unrolled.cells import Cell
from unrolled.cells._naming import cell_name

__all__ = [
    "CONFIGS",
    "ClassificationConfig",
    "Config",
    "DataConfig",
    "ForecastConfig",
    "LanguageModelConfig",
    "ProblemConfig",
    "TaggingConfig",
    "TranslationConfig",
]


RENAMED_OPTIONS = {"remember": "chrono_steps", "recurrent_rate": "recurrent_lr_scale"}
"""Names that fields had in earlier versions; files written then still load."""


def _initial_state() -> str:
    return option(
        "zero",
        "Initial hidden state of every sequence: zero, or learned together with the weights.",
        choices=("zero", "learned"),
    )


CELLS = "a class of unrolled.cells (GRU, LSTM, RNN, …), or your own as path/to/file.py:MyCell"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of all tasks: the recurrent layers and the training.

    `cell` may also be a `Cell` class or instance; the field then holds the name that it can be
    imported by.

    Raises:
        ValueError: a value is out of its range, or a cell cannot be imported by a name; the
            message names the field.
    """

    one_direction: ClassVar[str] = ""
    """Why the task cannot read in both directions; empty if it can."""

    cell: str = option("GRU", f"Recurrent cell: {CELLS}.")
    hidden_size: int = option(128, "Hidden units in each recurrent layer.", minimum=1)
    num_layers: int = option(1, "Number of stacked recurrent layers.", minimum=1)
    dropout: float = option(
        0.0,
        "Probability of dropping an activation, before, between and after the recurrent layers.",
        minimum=0,
        below=1,
    )
    bidirectional: bool = option(False, "Read each sequence in both directions.")
    chrono_steps: int | None = option(
        None,
        "Initialize the gate biases for dependencies of up to this many steps (chrono "
        "initialization, Tallec & Ollivier 2018).",
        minimum=3,
    )

    batch_size: int = option(32, "Sequences in each batch, over all processes together.", minimum=1)
    steps: int = option(2000, "Total number of optimizer steps.", minimum=1)
    learning_rate: float = option(
        3e-3, "Peak learning rate of AdamW, reached after the warm-up.", above=0, below=inf
    )
    recurrent_lr_scale: float = option(
        1.0,
        "Factor on the learning rate of the recurrent matrices (weight_hh).",
        above=0,
        below=inf,
    )
    schedule: str = option(
        "cosine",
        "Learning rate after the warm-up: cosine decay to 5 % of the peak, or constant.",
        choices=("cosine", "constant"),
    )
    weight_decay: float = option(
        0.01,
        "AdamW's weight decay, for matrices only; vectors (biases) have none.",
        minimum=0,
        below=inf,
    )
    clip: float = option(
        1.0, "Clip the gradient to this norm, over all parameters; 0 disables clipping.", minimum=0
    )
    precision: str = option(
        "32",
        "Floating-point precision: 32, bf16 (autocast: products in bfloat16, sums and weights in "
        "float32), or 16 (autocast with loss scaling; GPU only).",
        choices=("32", "bf16", "16"),
    )
    validate_every: int = option(
        200, "Steps between validations; each one also writes checkpoints.", minimum=1
    )
    patience: int | None = option(
        None, "Stop after this many validations without a lower loss; never by default.", minimum=1
    )
    log_every: int = option(20, "Steps between training rows in metrics.csv.", minimum=1)
    watch: int | None = option(
        None,
        "Steps between measurements of gradient norms by lag, gate saturation and spectral radii, "
        "written to watch.csv; none by default.",
        minimum=1,
    )
    tensorboard: bool = option(False, "Also write TensorBoard event files.")
    seed: int = option(0, "Random seed; the same seed gives the same run.", minimum=0, below=2**32)
    accelerator: str = option(
        "auto", "Device: cpu, gpu, or auto (a GPU if there is one).", choices=("auto", "cpu", "gpu")
    )
    devices: int = option(1, "Processes on each machine; on GPUs, one for each GPU.", minimum=1)
    nodes: int = option(
        1,
        "Number of machines; with more than one, start the command with torchrun on each.",
        minimum=1,
    )

    def __post_init__(self) -> None:
        cell: object = self.cell
        if isinstance(cell, Cell) or (isinstance(cell, type) and issubclass(cell, Cell)):
            object.__setattr__(self, "cell", cell_name(cell))
        check(self)
        if self.bidirectional and self.one_direction:
            raise ValueError(
                f"{type(self).__name__}: bidirectional must be False, got True: "
                f"{self.one_direction}"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Options of the tasks that read data files."""

    paths: tuple[str, ...] = option((), "Files to train on; a built-in data set by default.")
    validation_fraction: float = option(
        0.1, "Fraction of DATA to hold out for validation.", above=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(DataConfig):
    """Options of a language model.

    `batch_size` is the number N of parallel streams of text, `window` the length T of truncated
    backpropagation. Losses are in nats per token.
    """

    one_direction = "a language model must not see the token that it predicts"

    suffixes: tuple[str, ...] = option(
        (), "Read only files with this suffix (such as .txt) from folders."
    )
    limit: int | None = option(None, "Read at most this many bytes of text.", minimum=1)
    vocabulary: str = option(
        "bytes",
        "What a token is: a byte, a Unicode character of the text, or a subword (byte-pair "
        "encoding).",
        choices=("bytes", "characters", "bpe"),
    )
    vocabulary_size: int = option(1000, "Number of tokens of a bpe vocabulary.", minimum=257)
    validation_fraction: float = option(
        0.05, "Fraction of the text, at its end, to hold out for validation.", above=0, below=1
    )
    validation_limit: int = option(1_000_000, "Hold out at most this many tokens.", minimum=1)

    input: str = option(
        "embedding",
        "Input encoding of a token: a learned embedding, or a one-hot vector.",
        choices=("embedding", "one-hot"),
    )
    embedding_size: int = option(
        128, "Width of the token embedding; ignored with --input one-hot.", minimum=1
    )
    hidden_size: int = option(256, "Hidden units in each recurrent layer.", minimum=1)
    initial: str = _initial_state()
    batch_size: int = option(
        32, "Streams of text in each batch, over all processes together.", minimum=1
    )
    window: int = option(
        128,
        "Tokens per step of truncated backpropagation; the state carries over to the next window.",
        minimum=1,
    )
    steps: int = option(5000, "Total number of optimizer steps.", minimum=1)
    validate_every: int = option(
        500, "Steps between validations; each one also writes checkpoints.", minimum=1
    )


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(DataConfig):
    """Options of a classifier: one label for each text or numeric sequence."""

    data: str = option(
        "languages",
        "Built-in data, used without DATA: the programming language of a code snippet; "
        "handwritten digits, row by row; the direction in which a digit moves, frame by frame; "
        "spoken words in noise.",
        choices=("languages", "digits", "moving-digits", "spoken-words"),
    )
    label: str | None = option(None, "Name of the table's label column; 'label' by default.")
    text: str | None = option(
        None,
        "Name of the table's text column; by default all other columns form a numeric sequence.",
    )
    max_length: int | None = option(
        400, "Read at most this many characters of each text.", minimum=1
    )
    min_count: int = option(
        1, "Replace characters that occur less often than this by an unknown character.", minimum=1
    )
    embedding_size: int = option(64, "Width of the character embedding.", minimum=1)
    bidirectional: bool = option(True, "Read each sequence in both directions.")
    initial: str = _initial_state()
    pooling: str = option(
        "mean",
        "Summary of the steps that the label is predicted from: the last state, or the mean, the "
        "maximum or an attention-weighted mean over all steps.",
        choices=("last", "mean", "max", "attention"),
    )


@dataclass(frozen=True, kw_only=True)
class TaggingConfig(DataConfig):
    """Options of a tagger: one label for each token. Files have a token and its label on each line
    (CoNLL)."""

    column: int = option(-1, "Column of the labels, counted from 0, or back from -1 (the last).")
    token_column: int | None = option(
        None, "Column of the tokens; by default 0, or 1 (FORM) in CoNLL-U files."
    )
    min_count: int = option(
        2, "Replace words that occur less often than this by an unknown word.", minimum=1
    )
    characters: bool = option(True, "Also encode each word from its characters.")
    embedding_size: int = option(64, "Width of the word embedding.", minimum=1)
    bidirectional: bool = option(True, "Read each sequence in both directions.")


@dataclass(frozen=True, kw_only=True)
class ForecastConfig(DataConfig):
    """Options of a forecaster: the next values of one or several series, from a window of past
    values."""

    one_direction = "a forecast continues from the state at the end of the series"

    data: str = option(
        "sunspots",
        "Built-in series, used without DATA: yearly sunspots, weekly CO2, monthly sea temperature "
        "(elnino), quarterly unemployment (macrodata), or daily share prices.",
        choices=("sunspots", "co2", "elnino", "macrodata", "prices"),
    )
    target: tuple[str, ...] = option((), "Column to forecast; all numeric columns by default.")
    covariate: tuple[str, ...] = option((), "Column to read as an input but not to forecast.")
    time: str | None = option(
        None, "Column of time stamps; used only to check that rows are in order."
    )
    series: str | None = option(
        None, "Column that names the series of each row, for tables of several series."
    )
    window: int = option(48, "Past time steps that each forecast is computed from.", minimum=1)
    horizon: int = option(12, "Time steps to forecast.", minimum=1)
    season: int | None = option(
        None,
        "Time steps in a season (such as 12 for monthly data), for the seasonal naive baseline.",
        minimum=2,
    )
    hidden_size: int = option(64, "Hidden units in each recurrent layer.", minimum=1)
    initial: str = _initial_state()
    validation_fraction: float = option(
        0.2, "Fraction of each series, at its end, to hold out for the backtest.", above=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class TranslationConfig(DataConfig):
    """Options of a text-to-text model. Files have a source and a target on each line, separated by
    a tab."""

    data: str = option(
        "both",
        "Built-in data, used without DATA: dates or numbers from words to digits, or both.",
        choices=("both", "dates", "numbers"),
    )
    source_unit: str = option(
        "words",
        "Tokens of the source: words (and punctuation), or characters.",
        choices=("words", "characters"),
    )
    target_unit: str = option(
        "characters",
        "Tokens of the target: words (and punctuation), or characters.",
        choices=("words", "characters"),
    )
    min_count: int = option(
        1, "Replace tokens that occur less often than this by an unknown token.", minimum=1
    )
    attention: bool = option(True, "Let the decoder attend to the encoder's outputs.")
    bidirectional: bool = option(False, "Let the encoder read each source in both directions.")
    embedding_size: int = option(64, "Width of the token embeddings.", minimum=1)
    max_length: int = option(200, "Largest number of characters of a source or target.", minimum=1)
    hidden_size: int = option(192, "Hidden units in each recurrent layer.", minimum=1)
    batch_size: int = option(64, "Pairs in each batch, over all processes together.", minimum=1)
    beam: int = option(1, "Beam width of decoding in validation; 1 is greedy decoding.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class ProblemConfig(Config):
    """Options of a synthetic problem on which recurrent networks are compared; every batch is drawn
    at random."""

    one_direction = "each answer depends on earlier steps only"

    data: str = option(
        "adding",
        "Problem: adding (the sum of two marked numbers), copy (recall tokens after a delay), "
        "parity (whether the number of ones so far is odd), or dyck (whether all brackets so far "
        "are closed).",
        choices=("adding", "copy", "parity", "dyck"),
    )
    length: int = option(
        100, "Steps of each sequence; for copy, of the delay before the recall.", minimum=2
    )
    validation_sequences: int = option(500, "Sequences in each validation.", minimum=1)
    initial: str = _initial_state()


CONFIGS: dict[str, type[Config]] = {
    "lm": LanguageModelConfig,
    "classify": ClassificationConfig,
    "tag": TaggingConfig,
    "forecast": ForecastConfig,
    "seq2seq": TranslationConfig,
    "problem": ProblemConfig,
}
assert MISSING not in [f.default for config in CONFIGS.values() for f in fields(config)]
