"""Language modeling: text in windows, loss and metrics, and loading a trained model."""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.config import LanguageModelConfig
from unrolled.models import LanguageModel
from unrolled.nn.types import HiddenState
from unrolled.tasks._load_trained import load_trained
from unrolled.tasks._metrics import bits_per_character
from unrolled.tasks._number_format import format_full, format_short
from unrolled.tasks._task import Shard, Task
from unrolled.tasks.codecs._subword import SubwordState, SubwordVocabulary
from unrolled.tasks.codecs._vocabulary import (
    Vocabulary,
    VocabularyState,
    build_vocabulary,
    vocabulary_from_state,
)
from unrolled.tasks.data._source import DataError
from unrolled.tasks.data._text_files import TextError, read_text
from unrolled.tasks.data._windows import Window, Windows, split_tokens

_MAX_EXAMPLE = 400
"""Tokens of the example for plots."""

AnyVocabulary = Vocabulary | SubwordVocabulary


@dataclass(frozen=True)
class LanguageModelScore:
    """Mean cross-entropy over `tokens` predicted tokens, in nats per token, and in other units."""

    loss: float
    tokens: int = 1
    characters_per_token: float = 1.0

    @property
    def bits_per_character(self) -> float:
        """The loss in bits per character, or per byte for vocabularies of bytes and subwords."""
        return bits_per_character(self.loss, self.characters_per_token)

    @property
    def perplexity(self) -> float:
        """exp(loss): the number of equally likely tokens that would be as hard to predict."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def __str__(self) -> str:
        return _line(format_short, self.loss, self.bits_per_character, self.perplexity)


def _line(
    format_number: Callable[[float], str], loss: float, bits: float, perplexity: float
) -> str:
    return (
        f"loss {format_number(loss)}  {format_number(bits)} bits/char  "
        f"perplexity {format_number(perplexity)}"
    )


def next_token_loss(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of logits `[T, N, V]` and targets `[T, N]`, in nats: mean or sum."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction)


def detach_state(state: HiddenState) -> HiddenState:
    """The same state, detached from the autograd graph."""
    return state.detach() if isinstance(state, Tensor) else tuple(part.detach() for part in state)


class LanguageModeling(Task[LanguageModelConfig, LanguageModel, AnyVocabulary, Window]):
    """Truncated backpropagation: the state is carried from window to window, gradients are not."""

    name = "lm"
    unit = "tokens"
    metric_names = ("loss", "bits_per_character", "perplexity")
    loss_metrics = metric_names
    progress_metric = "bits_per_character"

    def __init__(
        self,
        config: LanguageModelConfig,
        text: bytes,
        codec: AnyVocabulary,
        validate_on_all: bool = False,
    ) -> None:
        self.config = config
        self.codec = codec
        self.digest = hashlib.sha256(text).hexdigest()
        tokens = codec.encode(text)
        if validate_on_all:
            self.training_windows = self.validation_windows = _validation_windows(config, tokens)
        else:
            self.training_windows, self.validation_windows = make_windows(config, tokens)

    @override
    @classmethod
    def read(
        cls,
        config: LanguageModelConfig,
        codec: AnyVocabulary | None = None,
        validate_on_all: bool = False,
    ) -> "LanguageModeling":
        text = read_text(config.paths, suffixes=config.suffixes, limit=config.limit)
        try:
            return cls(config, text, codec or build_vocabulary(config, text), validate_on_all)
        except TextError as error:
            if not config.paths:
                raise
            message = str(error).removeprefix("text: ")
            raise TextError(f"{', '.join(config.paths)}: {message}") from None

    @override
    @classmethod
    def codec_from_state(cls, state: VocabularyState | SubwordState) -> AnyVocabulary:
        return vocabulary_from_state(state)

    @override
    @classmethod
    def build_model(cls, arguments: Mapping[str, Any]) -> LanguageModel:
        return LanguageModel(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: AnyVocabulary) -> dict[str, object]:
        return {"vocabulary_size": len(codec)}

    @override
    def model_arguments(self) -> dict[str, object]:
        names = ("hidden_size", "cell", "num_layers", "input", "embedding_size", "dropout")
        options = {name: getattr(self.config, name) for name in (*names, "initial")}
        return self.codec_arguments(self.codec) | options

    @override
    def batch(self, step: int, shard: Shard) -> Window:
        return self.training_windows[step % len(self.training_windows)].shard(shard)

    @override
    def validation(self, shard: Shard) -> Iterator[Window]:
        return (window.shard(shard) for window in self.validation_windows)

    @override
    def loss(
        self, model: LanguageModel, batch: Window, carried: HiddenState | None
    ) -> tuple[Tensor, HiddenState]:
        logits, final_state = model(batch.inputs, None if batch.at_start else carried)
        return next_token_loss(logits, batch.targets, "sum"), detach_state(final_state)

    @override
    def tally(
        self, model: LanguageModel, batch: Window, carried: HiddenState | None
    ) -> tuple[dict[str, Tensor], HiddenState]:
        loss, final_state = self.loss(model, batch, carried)
        count = torch.tensor(float(batch.size), dtype=torch.float64, device=loss.device)
        return {"loss": loss.double(), "tokens": count}, final_state

    @override
    def example(self, text: str | None) -> tuple[tuple[Tensor], list[str]]:
        tokens = self.validation_windows[0].inputs[:_MAX_EXAMPLE, :1]
        if text is not None:
            tokens = self.codec.encode(text.encode())[:, None].long()
        if len(tokens) < 2:
            raise DataError(f"text: must have at least two tokens, got {len(tokens)}")
        return (tokens,), [self.codec.decode([token]) for token in tokens[:, 0].tolist()]

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return self._scores((sums["loss"] / sums["tokens"]).item(), self._characters_per_token)

    @override
    def scores_from_loss(self, loss: float) -> dict[str, float]:
        return self._scores(loss, self.codec.characters_per_token)

    def _scores(self, loss: float, characters_per_token: float) -> dict[str, float]:
        score = LanguageModelScore(loss, characters_per_token=characters_per_token)
        return {name: getattr(score, name) for name in self.metric_names}

    @cached_property
    def _characters_per_token(self) -> float:
        """Characters per token of the validation part; the codec has those of the training part."""
        if isinstance(self.codec, Vocabulary):
            return 1.0
        tokens = [window.targets.flatten() for window in self.validation_windows]
        return len(self.codec.decode_bytes(torch.cat(tokens))) / sum(map(len, tokens))

    @override
    def format_scores(
        self, scores: dict[str, float], format_number: Callable[[float], str] = format_full
    ) -> str:
        return _line(format_number, *(scores[name] for name in self.metric_names))


def make_windows(config: LanguageModelConfig, tokens: Tensor) -> tuple[Windows, Windows]:
    """The windows for training and for validation.

    A short validation part is read in fewer streams. All of it is predicted except its first token
    and, if its length is not a multiple of the streams, fewer tokens than streams at its end.
    """
    training, validation = split_tokens(tokens, config.validation_fraction, config.validation_limit)
    return (
        Windows(training, config.batch_size, config.window),
        _validation_windows(config, validation),
    )


def split_bytes(config: LanguageModelConfig, text: bytes) -> tuple[bytes, bytes]:
    """What a model of bytes has read before a validation, and all that it then predicts.

    The first byte of the validation part is only an input, so it belongs to the former.
    """
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    size = len(split_tokens(tokens, config.validation_fraction, config.validation_limit)[0])
    _, validation = make_windows(config, tokens)
    return text[: size + 1], text[size + 1 :][: validation.targets]


def _validation_windows(config: LanguageModelConfig, tokens: Tensor) -> Windows:
    streams = min(config.batch_size, max(1, len(tokens) // config.window))
    return Windows(tokens, streams, config.window, partial=True)


@torch.no_grad()
def score_language_model(
    model: LanguageModel, windows: Iterable[Window], characters_per_token: float = 1.0
) -> LanguageModelScore:
    """The score of a model on consecutive windows, the state carried from each to the next.

    Call `model.eval()` before if the model has dropout.
    """
    device = next(model.parameters()).device
    state: HiddenState | None = None
    total, tokens = 0.0, 0
    for window in windows:
        logits, state = model(window.inputs.to(device), None if window.at_start else state)
        total += next_token_loss(logits, window.targets.to(device), "sum").item()
        tokens += window.targets.numel()
    return LanguageModelScore(total / tokens, tokens, characters_per_token)


def load_language_model(path: str | os.PathLike[str]) -> tuple[LanguageModel, AnyVocabulary]:
    """The model of a checkpoint file, in evaluation mode, and its vocabulary.

    Raises:
        unrolled.io.FileError: there is no such file, or it is damaged, or not a language model.
    """
    return load_trained(path, LanguageModeling)
