"""The interface of tasks, for the code that trains, evaluates and applies them.

The training loop is in ``unrolled.train``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from unrolled.config import Config
from unrolled.nn.types import HiddenState
from unrolled.tasks._number_format import format_full
from unrolled.tasks.data._source import DataError, Source


@dataclass(frozen=True)
class Shard:
    """The part of every batch that one process computes: the items ``rank``, ``rank + count``, …"""

    rank: int = 0
    count: int = 1

    @property
    def slice(self) -> slice:
        return slice(self.rank, None, self.count)


class Batch(Protocol):
    """The data of one step. A mean over the batch is a mean over ``total`` items, of which this
    process has ``size``."""

    @property
    def size(self) -> int: ...

    @property
    def total(self) -> int: ...


class Codec(Protocol):
    """Turns data into tensors and back (vocabularies, labels, scales)."""

    def state(self) -> Mapping[str, object]:
        """Plain values and tensors from which ``codec_from_state`` restores the codec."""


ConfigT = TypeVar("ConfigT", bound=Config, default=Any)
ModelT = TypeVar("ModelT", bound=nn.Module, default=Any)
CodecT = TypeVar("CodecT", bound=Codec, default=Any)
BatchT = TypeVar("BatchT", bound=Batch, default=Any)
ValueT = TypeVar("ValueT", default=Any)


class PredictionInput(NamedTuple, Generic[ValueT]):
    """One input of a prediction: its name in messages and output, a value that the codec encodes,
    and the columns that identify it if the output is a table."""

    name: str
    value: ValueT
    key_columns: Mapping[str, str] = MappingProxyType({})


class Task(ABC, Generic[ConfigT, ModelT, CodecT, BatchT]):
    """Data, model, loss and metrics of one configuration.

    Batches are numbered, so that a run can resume at any step: batch k is the same in every process
    and every run, and each process computes its ``Shard`` of it.
    """

    name: ClassVar[str]
    """The name of the command: ``unrolled train NAME``."""
    unit: ClassVar[str]
    """The items of a batch, in the plural."""
    metric_names: ClassVar[tuple[str, ...]]
    """The names in ``scores``: the loss, then the metrics of a full validation."""
    loss_metrics: ClassVar[tuple[str, ...]] = ("loss",)
    """The names in ``metric_names`` that depend only on the loss."""
    progress_metric: ClassVar[str] = "loss"
    """The name in ``loss_metrics`` that the progress line and the curve show."""

    baselines_use_training: ClassVar[bool] = False
    """Whether a baseline is fitted to the training part, which with ``validate_on_all`` is the
    validation data."""

    config: ConfigT
    codec: CodecT
    digest: str
    """A hash of the data: a resumed run must have the same data."""

    @classmethod
    @abstractmethod
    def read(
        cls, config: ConfigT, codec: CodecT | None = None, validate_on_all: bool = False
    ) -> Self:
        """Read the data of a configuration.

        Args:
            codec: the codec of a trained model; by default a new one, made from the training part.
            validate_on_all: use all of the user's data for validation.

        Raises:
            DataError: the data are missing or unusable.
        """

    @classmethod
    def read_inputs(
        cls, config: ConfigT, codec: CodecT, sources: Sequence[Source], texts: Sequence[str] = ()
    ) -> list[PredictionInput]:
        """Read the items to predict from, by the same functions as ``read``.

        Args:
            config: the configuration of the run, which defines what is read and how.
            codec: the codec of the trained model.
            sources: files and standard input.
            texts: further items, which come first.

        Raises:
            DataError: a source cannot be read or used, or the task makes no predictions.
        """
        raise DataError(f"task: must make predictions from data, got {cls.name}")

    @classmethod
    @abstractmethod
    def codec_from_state(cls, state: Any) -> CodecT:
        """Restore a codec from its ``state()``."""

    @classmethod
    @abstractmethod
    def build_model(cls, arguments: Mapping[str, Any]) -> ModelT:
        """Build a model with these arguments."""

    @classmethod
    @abstractmethod
    def codec_arguments(cls, codec: CodecT) -> dict[str, object]:
        """The arguments of the model that follow from the codec."""

    @abstractmethod
    def model_arguments(self) -> dict[str, object]:
        """All arguments of the model for this configuration and codec, as plain values."""

    @abstractmethod
    def batch(self, step: int, shard: Shard) -> BatchT:
        """The training batch of a step."""

    @abstractmethod
    def validation(self, shard: Shard) -> Iterator[BatchT]:
        """The batches of a full validation."""

    @abstractmethod
    def loss(
        self, model: ModelT, batch: BatchT, carried: HiddenState | None
    ) -> tuple[Tensor, HiddenState | None]:
        """The sum of the loss over the items of a batch, and the state for the next batch."""

    @abstractmethod
    def tally(
        self, model: ModelT, batch: BatchT, carried: HiddenState | None
    ) -> tuple[dict[str, Tensor], HiddenState | None]:
        """Sums over a batch, which a validation adds up, and the state for the next batch."""

    @abstractmethod
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """The metrics, by name, from the sums of all tallies."""

    def scores_from_loss(self, loss: float) -> dict[str, float]:
        """The ``loss_metrics`` of a mean loss."""
        return {"loss": loss}

    @abstractmethod
    def example(self, text: str | None) -> tuple[tuple[Tensor, ...], list[str] | None]:
        """An example for plots, from a text or from the validation part: the arguments of the
        model, and a label for each step of the first sequence.

        Raises:
            DataError: the text is too short, or the task does not read texts.
        """

    def baselines(self) -> dict[str, dict[str, float]]:
        """The metrics of simple methods on the validation part, by the name of the method."""
        return {}

    def format_scores(
        self, scores: dict[str, float], format_number: Callable[[float], str] = format_full
    ) -> str:
        """The metrics on one line."""
        return "  ".join(
            f"{name.replace('_', ' ')} {format_number(value)}" for name, value in scores.items()
        )


@torch.no_grad()
def measure(task: Task, model: nn.Module) -> dict[str, float]:
    """The metrics of a model on the validation part; call ``model.eval()`` first."""
    carried: HiddenState | None = None
    sums: dict[str, Tensor] = {}
    for batch in task.validation(Shard()):
        tally, carried = task.tally(model, batch, carried)
        sums = {name: sums.get(name, 0) + value for name, value in tally.items()}
    return task.scores(sums)
