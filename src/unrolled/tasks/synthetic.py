"""Problems on which recurrent networks are compared, as a task: each batch is drawn anew."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unrolled.models import SequenceModel
from unrolled.tasks.data.source import DataError
from unrolled.tasks.datasets import synthetic as classics
from unrolled.tasks.task import Shard, Task

__all__ = ["SyntheticBatch", "SyntheticCodec", "SyntheticProblems"]

NEAR = 0.04
"""A sum that is less far off is right, as Hochreiter & Schmidhuber (1997) count."""
_VALIDATION = 2**32 - 1


class SyntheticBatch(NamedTuple):
    """Inputs `[T, N]` (tokens) or `[T, N, F]` (numbers), what is wanted, `[N]` or `[T, N]`. Answers
    are counted: one a sequence, or one a step."""

    inputs: Tensor
    wanted: Tensor
    total: int

    @property
    def count(self) -> int:  # type: ignore[override]  # a tuple's own counts what it holds
        return self.wanted.numel()


@dataclass(frozen=True)
class SyntheticCodec:
    """Which problem a model was trained on: all that its checkpoint needs."""

    name: str

    def state(self) -> dict[str, Any]:
        return {"name": self.name}


@dataclass(frozen=True)
class _Kind:
    """How a problem is drawn, and the model that it asks for."""

    draw: Callable[[int, int, torch.Generator], classics.SyntheticProblem]
    sizes: dict[str, Any]
    signs: str = ""


def _tokens(signs: str, outputs: int) -> dict[str, Any]:
    shape = {"input": "one-hot", "input_size": len(signs), "output_size": outputs}
    return shape | {"pooling": None}


_KINDS = {
    "adding": _Kind(
        classics.adding, {"input": "numbers", "input_size": 2, "output_size": 1, "pooling": "last"}
    ),
    "copy": _Kind(classics.copy_memory, _tokens("_abcdefgh?", 9), "_abcdefgh?"),
    "parity": _Kind(classics.parity, _tokens("01", 2), "01"),
    "dyck": _Kind(classics.dyck, _tokens("()", 2), "()"),
}


class SyntheticProblems(Task):
    """The adding problem (squared error of the sum), copy memory, parity and Dyck-1 (cross-entropy
    of each step, in nats).

    The accuracy is that of sums (less than 0.04 off), of the tokens that are recalled, or of all
    steps; solved is the part of the sequences all of whose answers are right.
    """

    name = "problem"
    unit = "steps"
    metric_names = ("loss", "accuracy", "solved")

    def __init__(self, config: Any, codec: SyntheticCodec | None = None) -> None:
        self.config = config
        self.codec = codec or SyntheticCodec(config.data)
        self.kind = _KINDS[config.data]
        told = f"{config.data} {config.length} {config.validation_sequences} {config.seed}"
        self.digest = hashlib.sha256(told.encode()).hexdigest()

    @override
    @classmethod
    def read(
        cls, config: Any, codec: SyntheticCodec | None = None, whole: bool = False
    ) -> "SyntheticProblems":
        if codec is not None and codec.name != config.data:
            raise DataError(f"data: wanted {codec.name}, on which the model learned, not another")
        return cls(config, codec)

    @override
    @classmethod
    def codec_from_state(cls, state: dict[str, Any]) -> SyntheticCodec:
        if state["name"] not in _KINDS:
            raise ValueError(f"name: wanted one of {', '.join(_KINDS)}, got {state['name']!r}")
        return SyntheticCodec(state["name"])

    @override
    @classmethod
    def build_model(cls, arguments: dict[str, Any]) -> SequenceModel:
        return SequenceModel(**arguments)

    @override
    @classmethod
    def codec_arguments(cls, codec: SyntheticCodec) -> dict[str, Any]:
        return _KINDS[codec.name].sizes

    @override
    def model_arguments(self) -> dict[str, Any]:
        names = ("hidden_size", "cell", "num_layers", "dropout", "initial")
        return self.codec_arguments(self.codec) | {
            name: getattr(self.config, name) for name in names
        }

    def _draw(self, number: int, count: int, shard: Shard) -> SyntheticBatch:
        """So many sequences, the same whenever the number is; a share of them."""
        # A generator heeds 32 bits of its seed alone.
        digest = hashlib.sha256(f"{self.config.seed} {number}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
        found = self.kind.draw(self.config.length, count, generator)
        total = found.wanted.numel()
        return SyntheticBatch(found.inputs[:, shard.slice], found.wanted[..., shard.slice], total)

    @override
    def batch(self, step: int, shard: Shard) -> SyntheticBatch:
        return self._draw(step, self.config.batch_size, shard)

    @override
    def validation(self, shard: Shard) -> Iterator[SyntheticBatch]:
        left, size = self.config.validation_sequences, self.config.batch_size
        for k in range(-(-left // size)):
            batch = self._draw(_VALIDATION - k, min(size, left - k * size), shard)
            if batch.count:
                yield batch

    @override
    def loss(self, model: Any, batch: SyntheticBatch, carried: Any) -> tuple[Tensor, None]:
        return _loss(model(batch.inputs)[0], batch.wanted), None

    @override
    def tally(
        self, model: Any, batch: SyntheticBatch, carried: Any
    ) -> tuple[dict[str, Tensor], None]:
        found, _ = model(batch.inputs)
        right, asked = self._right(found, batch.wanted)
        return {
            "loss": _loss(found, batch.wanted).double(),
            "count": torch.tensor(batch.count),
            "right": (right & asked).sum(),
            "asked": asked.sum(),
            "solved": (right | ~asked).view(-1, right.shape[-1]).all(0).sum(),
            "sequences": torch.tensor(right.shape[-1]),
        }, None

    def _right(self, found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Which answers are right, and which are counted."""
        if wanted.is_floating_point():
            right = (found[:, 0] - wanted).abs() < NEAR
            return right, torch.ones_like(right)
        asked = wanted > 0 if self.config.data == "copy" else torch.ones_like(wanted).bool()
        return found.argmax(-1) == wanted, asked

    @override
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return {
            "loss": (sums["loss"] / sums["count"]).item(),
            "accuracy": (sums["right"] / sums["asked"]).item(),
            "solved": (sums["solved"] / sums["sequences"]).item(),
        }

    @override
    def example(self, text: str | None) -> tuple[tuple[Any, ...], list[str] | None]:
        signs = self.kind.signs
        inputs = next(self.validation(Shard())).inputs[:, :1]
        if text is not None:
            if not signs:
                raise DataError(f"text: wanted none, {self.codec.name} is of numbers")
            if len(text) < 2 or not set(text) <= set(signs):
                raise DataError(f"text: wanted two or more of the signs {signs}, got {text!r}")
            inputs = torch.tensor([signs.index(sign) for sign in text])[:, None]
        return (inputs,), [signs[token] for token in inputs[:, 0].tolist()] if signs else None

    @override
    def baselines(self) -> dict[str, dict[str, float]]:
        if self.config.data == "copy":
            loss = classics.memoryless_loss(self.config.length)
            return {"without memory": {"loss": loss, "accuracy": 1 / 8}}
        wanted = torch.cat([batch.wanted.flatten() for batch in self.validation(Shard())])
        if self.config.data == "adding":
            error = wanted - 1
            near = (error.abs() < NEAR).double().mean()
            return {"always 1": {"loss": error.square().mean().item(), "accuracy": near.item()}}
        positive = wanted.double().mean().item()
        return {"majority": {"accuracy": max(positive, 1 - positive)}}


def _loss(found: Tensor, wanted: Tensor) -> Tensor:
    if wanted.is_floating_point():
        return F.mse_loss(found[:, 0].float(), wanted, reduction="sum")
    logits = found.flatten(0, -2).float()
    return F.cross_entropy(logits, wanted.flatten(), reduction="sum")
