"""What defines a training run, as plain values: the same configuration, the same run.

Imports nothing heavy: the command line takes its defaults from here.
"""

from dataclasses import dataclass

__all__ = ["LanguageModelConfig"]


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """The text, the model and the training of a language model.

    `batch_size` is the number N of streams read side by side, `window` the length T of truncated
    backpropagation. Losses are in nats a token.

    Raises:
        ValueError: a value is out of its range; the message names the field.
    """

    # The text: files and folders (none: the standard library's sources), and its split.
    paths: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    limit: int | None = None  # bytes of text
    vocabulary: str = "bytes"
    validation_fraction: float = 0.05
    validation_limit: int = 1_000_000  # tokens

    cell: str = "GRU"
    input: str = "embedding"
    hidden_size: int = 256
    embedding_size: int = 128
    num_layers: int = 1
    dropout: float = 0.0

    batch_size: int = 32
    window: int = 128
    steps: int = 5000
    learning_rate: float = 3e-3
    schedule: str = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient; 0 leaves it
    validate_every: int = 500  # steps
    log_every: int = 20  # steps
    seed: int = 0
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ValueError(f"{name}: wanted at least {least}, got {value}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                wanted = ", ".join(choices)
                raise ValueError(f"{name}: wanted one of {wanted}, got {getattr(self, name)!r}")
        if not 0.0 < self.validation_fraction < 1.0:
            got = self.validation_fraction
            raise ValueError(f"validation_fraction: wanted above 0 and below 1, got {got}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout: wanted at least 0 and below 1, got {self.dropout}")
        if not self.learning_rate > 0.0:
            raise ValueError(f"learning_rate: wanted above 0, got {self.learning_rate}")


_CHOICES = {
    "vocabulary": ("bytes", "characters"),
    "cell": ("GRU", "LSTM", "RNN"),
    "input": ("embedding", "one-hot"),
    "schedule": ("cosine", "constant"),
    "accelerator": ("auto", "cpu", "gpu"),
}

_LEAST = {
    "limit": 1,
    "validation_limit": 1,
    "hidden_size": 1,
    "embedding_size": 1,
    "num_layers": 1,
    "batch_size": 1,
    "window": 1,
    "steps": 1,
    "weight_decay": 0,
    "clip": 0,
    "validate_every": 1,
    "log_every": 1,
    "seed": 0,
}
