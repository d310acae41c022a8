"""The language model's task: text in windows, loss and measures, reading a trained one back."""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.models import LanguageModel
from unrolled.nn.types import HiddenState
from unrolled.tasks.codecs.vocabulary import Vocabulary, build_vocabulary, vocabulary_from_state
from unrolled.tasks.data.source import DataError
from unrolled.tasks.data.text_files import TextError, read_text
from unrolled.tasks.data.windows import Window, Windows, split_tokens
from unrolled.tasks.load_trained import load_trained
from unrolled.tasks.metrics import bits_per_character
from unrolled.tasks.number_format import format_full, format_short
from unrolled.tasks.task import Shard, Task

__all__ = [
    "LanguageModelScore",
    "LanguageModeling",
    "detach_state",
    "load_language_model",
    "next_token_loss",
    "score_language_model",
]


_EXAMPLE = 400  # tokens, at most


@dataclass(frozen=True)
class LanguageModelScore:
    """Mean cross-entropy over `tokens` predicted tokens, in nats a token, and its other units."""

    loss: float
    tokens: int = 1
    characters_per_token: float = 1.0

    @property
    def bits_per_character(self) -> float:
        """The loss in bits a character: a byte, or a character, as the vocabulary has it."""
        return bits_per_character(self.loss, self.characters_per_token)

    @property
    def perplexity(self) -> float:
        """The number of equally likely tokens that would be as hard to guess."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def __str__(self) -> str:
        return _line(format_short, self.loss, self.bits_per_character, self.perplexity)


def _line(text: Callable[[float], str], loss: float, bits: float, perplexity: float) -> str:
    return f"loss {text(loss)}  {text(bits)} bits/char  perplexity {text(perplexity)}"


def next_token_loss(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of logits `[T, N, V]` against targets `[T, N]`, in nats: mean or sum."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction)


def detach_state(state: HiddenState) -> HiddenState:
    """The same state, cut off from the graph that led to it."""
    return state.detach() if isinstance(state, Tensor) else tuple(part.detach() for part in state)


class LanguageModeling(Task):
    """Truncated backpropagation: the state goes from window to window, the gradient does not."""

    name = "lm"
    unit = "tokens"
    metric_names = ("loss", "bits_per_character", "perplexity")
    loss_metrics = metric_names
    progress_metric = "bits_per_character"

    def __init__(self, config: Any, text: bytes, codec: Vocabulary, whole: bool = False) -> None:
        self.config = config
        self.codec = codec
        self.digest = hashlib.sha256(text).hexdigest()
        tokens = codec.encode(text)
        if whole:
            self.training = self.held_out = _validation(config, tokens)
        else:
            self.training, self.held_out = make_windows(config, tokens)

    @override
    @classmethod
    def read(
        cls, config: Any, codec: Vocabulary | None = None, whole: bool = False
    ) -> "LanguageModeling":
        text = read_text(config.paths, suffixes=config.suffixes, limit=config.limit)
        try:
            return cls(config, text, codec or build_vocabulary(config, text), whole)
        except TextError as error:
            if not config.paths:
                raise
            said = str(error).removeprefix("text: ")
            raise TextError(f"{', '.join(config.paths)}: {said}") from None

    @override
    @classmethod
    def codec_from_state(cls, state: dict[str, Any]) -> Vocabulary:
        return vocabulary_from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: dict[str, Any]) -> LanguageModel:
        return LanguageModel(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: Vocabulary) -> dict[str, Any]:
        return {"vocabulary_size": len(codec)}

    @override
    def model_arguments(self) -> dict[str, Any]:
        names = ("hidden_size", "cell", "num_layers", "input", "embedding_size", "dropout")
        given = {name: getattr(self.config, name) for name in (*names, "initial")}
        return self.codec_arguments(self.codec) | given

    @override
    def batch(self, step: int, shard: Shard) -> Window:
        return self.training[step % len(self.training)].shard(shard)

    @override
    def validation(self, shard: Shard) -> Iterator[Window]:
        return (window.shard(shard) for window in self.held_out)

    @override
    def loss(
        self, model: Any, batch: Window, carried: HiddenState | None
    ) -> tuple[Tensor, HiddenState]:
        logits, after = model(batch.inputs, None if batch.first else carried)
        return next_token_loss(logits, batch.targets, "sum"), detach_state(after)

    @override
    def tally(
        self, model: Any, batch: Window, carried: HiddenState | None
    ) -> tuple[dict[str, Tensor], HiddenState]:
        found, after = self.loss(model, batch, carried)
        count = torch.tensor(float(batch.count), dtype=torch.float64, device=found.device)
        return {"loss": found.double(), "tokens": count}, after

    @override
    def example(self, text: str | None) -> tuple[tuple[Any, ...], list[str]]:
        tokens = self.held_out[0].inputs[:_EXAMPLE, :1]
        if text is not None:
            tokens = self.codec.encode(text.encode())[:, None].long()
        if len(tokens) < 2:
            raise DataError(f"text: wanted two tokens or more, got {len(tokens)}")
        return (tokens,), [self.codec.decode([t]) for t in tokens[:, 0].tolist()]

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return self._scores((sums["loss"] / sums["tokens"]).item(), self._characters_per_token)

    @override
    def scores_from_loss(self, loss: float) -> dict[str, float]:
        return self._scores(loss, self.codec.characters_per_token)

    def _scores(self, loss: float, characters_per_token: float) -> dict[str, float]:
        found = LanguageModelScore(loss, characters_per_token=characters_per_token)
        return {name: getattr(found, name) for name in self.metric_names}

    @cached_property
    def _characters_per_token(self) -> float:
        """Of what the validation predicts; the codec's is that of the training text."""
        if self.codec.unit != "piece":
            return 1.0
        tokens = [window.targets.flatten() for window in self.held_out]
        return len(self.codec.decode_bytes(torch.cat(tokens))) / sum(map(len, tokens))

    @override
    def format_scores(
        self, scores: dict[str, float], text: Callable[[float], str] = format_full
    ) -> str:
        return _line(text, *(scores[name] for name in self.metric_names))


def make_windows(config: Any, tokens: Tensor) -> tuple[Windows, Windows]:
    """The windows for training and for validation.

    A short validation text is read in fewer streams. All of it is predicted but its first token
    and, where the streams do not divide it, fewer than a token a stream at its end.
    """
    kept, held_out = split_tokens(tokens, config.validation_fraction, config.validation_limit)
    return Windows(kept, config.batch_size, config.window), _validation(config, held_out)


def split_bytes(config: Any, text: bytes) -> tuple[bytes, bytes]:
    """What a model of bytes has seen before a validation, and all that it then predicts.

    The first byte of the validation's part is only ever an input, and so has been seen.
    """
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    learned = len(split_tokens(tokens, config.validation_fraction, config.validation_limit)[0])
    _, validation = make_windows(config, tokens)
    return text[: learned + 1], text[learned + 1 :][: validation.targets]


def _validation(config: Any, tokens: Tensor) -> Windows:
    streams = min(config.batch_size, max(1, len(tokens) // config.window))
    return Windows(tokens, streams, config.window, partial=True)


@torch.no_grad()
def score_language_model(
    model: LanguageModel, batches: Iterable[Window], characters_per_token: float = 1.0
) -> LanguageModelScore:
    """Measure a model on consecutive windows, the state carried from each to the next.

    The model is measured in the mode it is in: call `model.eval()` before if it has dropout.
    """
    device = next(model.parameters()).device
    state: HiddenState | None = None
    total, tokens = 0.0, 0
    for window in batches:
        before = None if window.first else state
        logits, state = model(window.inputs.to(device), before)
        total += next_token_loss(logits, window.targets.to(device), "sum").item()
        tokens += window.targets.numel()
    return LanguageModelScore(total / tokens, tokens, characters_per_token)


def load_language_model(path: str | os.PathLike[str]) -> tuple[LanguageModel, Vocabulary]:
    """Read the model, in evaluation mode, and its vocabulary from a checkpoint file.

    Raises:
        unrolled.io.FileError: no such file, or it is damaged, or holds no language model.
    """
    return load_trained(path, LanguageModeling)
