"""Synthetic problems on which recurrent networks are compared, as a task: drawn for each batch."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.config import ProblemConfig
from unrolled.models import SequenceModel
from unrolled.nn.types import HiddenState
from unrolled.tasks._task import Shard, Task
from unrolled.tasks.data._source import DataError
from unrolled.tasks.datasets import _synthetic as problems

TOLERANCE = 0.04
"""A sum with a smaller error is correct, as Hochreiter & Schmidhuber (1997) count."""
_VALIDATION_SEED = 2**32 - 1


class SyntheticBatch(NamedTuple):
    """Inputs `[T, N]` (tokens) or `[T, N, F]` (numbers), and targets `[N]` or `[T, N]`. The items
    are the targets: one for each sequence, or one for each step."""

    inputs: Tensor
    targets: Tensor
    total: int

    @property
    def size(self) -> int:
        """Targets of this shard."""
        return self.targets.numel()


class SyntheticState(TypedDict):
    """The state of a :class:`SyntheticCodec` in a checkpoint."""

    name: str


@dataclass(frozen=True)
class SyntheticCodec:
    """The name of the problem that a model was trained on."""

    name: str

    def state(self) -> SyntheticState:
        return {"name": self.name}


@dataclass(frozen=True)
class _ProblemType:
    """How a problem is drawn, and the model that it needs. `symbols` are those of its tokens."""

    draw: Callable[[int, int, torch.Generator], problems.SyntheticProblem]
    model_arguments: dict[str, object]
    symbols: str = ""


def _token_arguments(symbols: str, outputs: int) -> dict[str, object]:
    return {
        "input": "one-hot",
        "input_size": len(symbols),
        "output_size": outputs,
        "pooling": None,
    }


_PROBLEM_TYPES = {
    "adding": _ProblemType(
        problems.adding,
        {"input": "numbers", "input_size": 2, "output_size": 1, "pooling": "last"},
    ),
    "copy": _ProblemType(problems.copy_memory, _token_arguments("_abcdefgh?", 9), "_abcdefgh?"),
    "parity": _ProblemType(problems.parity, _token_arguments("01", 2), "01"),
    "dyck": _ProblemType(problems.dyck, _token_arguments("()", 2), "()"),
}


class SyntheticProblems(Task[ProblemConfig, SequenceModel, SyntheticCodec, SyntheticBatch]):
    """The adding problem (squared error of the sum), copy memory, parity and Dyck-1 (cross-entropy
    of each step, in nats).

    The accuracy is that of sums (error below 0.04), of the tokens that are recalled, or of all
    steps; solved is the fraction of sequences without a wrong answer.
    """

    name = "problem"
    unit = "steps"
    metric_names = ("loss", "accuracy", "solved")

    def __init__(self, config: ProblemConfig, codec: SyntheticCodec | None = None) -> None:
        self.config = config
        self.codec = codec or SyntheticCodec(config.data)
        self.problem_type = _PROBLEM_TYPES[config.data]
        problem = f"{config.data} {config.length} {config.validation_sequences} {config.seed}"
        self.digest = hashlib.sha256(problem.encode()).hexdigest()

    @override
    @classmethod
    def read(
        cls,
        config: ProblemConfig,
        codec: SyntheticCodec | None = None,
        validate_on_all: bool = False,
    ) -> "SyntheticProblems":
        if codec is not None and codec.name != config.data:
            raise DataError(
                f"data: must be {codec.name}, on which the model was trained, got {config.data}"
            )
        return cls(config, codec)

    @override
    @classmethod
    def codec_from_state(cls, state: SyntheticState) -> SyntheticCodec:
        if state["name"] not in _PROBLEM_TYPES:
            names = ", ".join(_PROBLEM_TYPES)
            raise ValueError(f"SyntheticCodec: name must be one of {names}, got {state['name']!r}")
        return SyntheticCodec(state["name"])

    @override
    @classmethod
    def build_model(cls, arguments: Mapping[str, Any]) -> SequenceModel:
        return SequenceModel(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: SyntheticCodec) -> dict[str, object]:
        return _PROBLEM_TYPES[codec.name].model_arguments

    @override
    def model_arguments(self) -> dict[str, object]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "initial")
        options = {name: getattr(self.config, name) for name in names}
        return self.codec_arguments(self.codec) | options

    def _draw(self, number: int, count: int, shard: Shard) -> SyntheticBatch:
        """A shard of `count` sequences, which depend on `number` and the seed alone."""
        # A generator uses only 32 bits of its seed.
        digest = hashlib.sha256(f"{self.config.seed} {number}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
        inputs, targets = self.problem_type.draw(self.config.length, count, generator)
        return SyntheticBatch(
            inputs[:, shard.slice], targets[..., shard.slice], total=targets.numel()
        )

    @override
    def batch(self, step: int, shard: Shard) -> SyntheticBatch:
        return self._draw(step, self.config.batch_size, shard)

    @override
    def validation(self, shard: Shard) -> Iterator[SyntheticBatch]:
        count, size = self.config.validation_sequences, self.config.batch_size
        for k in range(-(-count // size)):
            batch = self._draw(_VALIDATION_SEED - k, min(size, count - k * size), shard)
            if batch.size:
                yield batch

    @override
    def loss(
        self, model: SequenceModel, batch: SyntheticBatch, carried: HiddenState | None
    ) -> tuple[Tensor, None]:
        return _loss(model(batch.inputs)[0], batch.targets), None

    @override
    def tally(
        self, model: SequenceModel, batch: SyntheticBatch, carried: HiddenState | None
    ) -> tuple[dict[str, Tensor], None]:
        outputs, _ = model(batch.inputs)
        correct, scored = self._grade(outputs, batch.targets)
        return {
            "loss": _loss(outputs, batch.targets).double(),
            "count": torch.tensor(batch.size),
            "correct": (correct & scored).sum(),
            "scored": scored.sum(),
            "solved": (correct | ~scored).view(-1, correct.shape[-1]).all(0).sum(),
            "sequences": torch.tensor(correct.shape[-1]),
        }, None

    def _grade(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Which answers are correct, and which are scored."""
        if targets.is_floating_point():
            correct = (outputs[:, 0] - targets).abs() < TOLERANCE
            return correct, torch.ones_like(correct)
        if self.config.data == "copy":
            return outputs.argmax(-1) == targets, targets > 0
        return outputs.argmax(-1) == targets, torch.ones_like(targets).bool()

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return {
            "loss": (sums["loss"] / sums["count"]).item(),
            "accuracy": (sums["correct"] / sums["scored"]).item(),
            "solved": (sums["solved"] / sums["sequences"]).item(),
        }

    @override
    def example(self, text: str | None) -> tuple[tuple[Tensor], list[str] | None]:
        symbols = self.problem_type.symbols
        inputs = next(self.validation(Shard())).inputs[:, :1]
        if text is not None:
            if not symbols:
                raise DataError(f"text: must be omitted, {self.codec.name} consists of numbers")
            if len(text) < 2 or not set(text) <= set(symbols):
                raise DataError(f"text: must be two or more of the symbols {symbols}, got {text!r}")
            inputs = torch.tensor([symbols.index(symbol) for symbol in text])[:, None]
        if not symbols:
            return (inputs,), None
        return (inputs,), [symbols[token] for token in inputs[:, 0].tolist()]

    @override
    def baselines(self) -> dict[str, dict[str, float]]:
        if self.config.data == "copy":
            loss = problems.memoryless_loss(self.config.length)
            return {"without memory": {"loss": loss, "accuracy": 1 / 8}}
        targets = torch.cat([batch.targets.flatten() for batch in self.validation(Shard())])
        if self.config.data == "adding":
            error = targets - 1
            correct = (error.abs() < TOLERANCE).double().mean()
            return {"always 1": {"loss": error.square().mean().item(), "accuracy": correct.item()}}
        positive = targets.double().mean().item()
        return {"majority": {"accuracy": max(positive, 1 - positive)}}


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        return F.mse_loss(outputs[:, 0].float(), targets, reduction="sum")
    logits = outputs.flatten(0, -2).float()
    return F.cross_entropy(logits, targets.flatten(), reduction="sum")
