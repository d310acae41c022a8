"""What a task is to those who train, measure and use it. The loop is left to ``unrolled.train``."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from unrolled.tasks.data.source import DataError, Source
from unrolled.tasks.number_format import format_full

__all__ = ["Batch", "PredictionInput", "Shard", "Task", "measure"]


@dataclass(frozen=True)
class Shard:
    """One process's part of every batch: the items ``rank``, ``rank + of``, …"""

    rank: int = 0
    count: int = 1

    @property
    def slice(self) -> slice:
        return slice(self.rank, None, self.count)


class Batch(Protocol):
    """What a loss is computed from. A mean over the batch is a mean over ``total`` items, of which
    this process has ``count``."""

    @property
    def count(self) -> int: ...

    @property
    def total(self) -> int: ...


class PredictionInput(NamedTuple):
    """One item to predict from: its name for messages and output, a value that the codec encodes,
    and the columns that tell it from others where the output is a table."""

    name: str
    value: Any
    keys: Mapping[str, str] = MappingProxyType({})


class Task(ABC):
    """Data, model, loss and measures of one configuration.

    Batches are told by number, so that a run can go on at any step: number k is the same in every
    process and run, of which each sees its ``Share``.
    """

    name: ClassVar[str]
    """Of the command."""
    unit: ClassVar[str]
    """What is counted, in the plural."""
    metric_names: ClassVar[tuple[str, ...]]
    """The names in ``scores``: the loss, then those of a whole validation."""
    loss_metrics: ClassVar[tuple[str, ...]] = ("loss",)
    """Those of them that follow from the loss alone."""
    progress_metric: ClassVar[str] = "loss"
    """The one that progress and curve show, one of ``loss_metrics``."""

    baselines_use_training: ClassVar[bool] = False
    """Whether a baseline is learned from the training part: from the data themselves where all of
    them are validation's."""

    config: Any
    codec: Any
    """What turns data into tensors and back (vocabularies, labels, scales). Its ``state()`` has
    plain values and tensors, of which ``codec_of`` makes the same one."""
    digest: str
    """Of the data: a run goes on with what it began with."""

    @classmethod
    @abstractmethod
    def read(cls, config: Any, codec: Any = None, whole: bool = False) -> "Task":
        """Read the data of a configuration; through the codec of a trained model, if given; with
        ``whole`` all of the user's data are validation's.

        Raises:
            DataError: the data are missing or not usable; the message says what was wanted.
        """

    @classmethod
    def read_inputs(
        cls, config: Any, codec: Any, sources: Sequence[Source], texts: Sequence[str] = ()
    ) -> list[PredictionInput]:
        """The items to predict from, read by the functions of ``read`` with a run's configuration.

        Args:
            config: of the run, which says what is read from a source and how.
            codec: of the trained model.
            sources: files and standard input.
            texts: items that are texts already; they come first.

        Raises:
            DataError: a source cannot be read or used, or the task predicts nothing.
        """
        raise DataError(f"task: wanted one that predicts from data, got {cls.name}")

    @classmethod
    @abstractmethod
    def codec_from_state(cls, state: dict[str, Any]) -> Any:
        """The codec of that state."""

    @classmethod
    @abstractmethod
    def build_model(cls, arguments: dict[str, Any]) -> nn.Module:
        """The untrained model of these arguments."""

    @classmethod
    @abstractmethod
    def codec_arguments(cls, codec: Any) -> dict[str, Any]:
        """Those arguments of the model that follow from the codec."""

    @abstractmethod
    def model_arguments(self) -> dict[str, Any]:
        """Of the model that the configuration and the data ask for: plain values."""

    @abstractmethod
    def batch(self, step: int, shard: Shard) -> Any:
        """The training batch of a step."""

    @abstractmethod
    def validation(self, shard: Shard) -> Iterator[Any]:
        """The batches of a whole validation."""

    @abstractmethod
    def loss(self, model: Any, batch: Any, carried: Any) -> tuple[Tensor, Any]:
        """The sum of the loss over the batch's own items, and the state for the next batch."""

    @abstractmethod
    def tally(self, model: Any, batch: Any, carried: Any) -> tuple[dict[str, Tensor], Any]:
        """What a validation adds up over its batches, and the state for the next batch."""

    @abstractmethod
    def scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """The measures, by name, from the sums of all tallies."""

    def scores_from_loss(self, loss: float) -> dict[str, float]:
        """The measures ``loss_metrics``."""
        return {"loss": loss}

    @abstractmethod
    def example(self, text: str | None) -> tuple[tuple[Any, ...], list[str] | None]:
        """One example as the model takes it, of that text or from the validation, and a piece of
        text for each step of the first sequence, for pictures.

        Raises:
            DataError: the text is empty, or the task reads no texts.
        """

    def baselines(self) -> dict[str, dict[str, float]]:
        """What simple methods reach on the validation's data: measures, by the method's name."""
        return {}

    def format_scores(
        self, scores: dict[str, float], text: Callable[[float], str] = format_full
    ) -> str:
        """The measures in a line, each number written by `text`."""
        return "  ".join(f"{name.replace('_', ' ')} {text(v)}" for name, v in scores.items())


@torch.no_grad()
def measure(task: Task, model: nn.Module) -> dict[str, float]:
    """The measures of a model, in the mode it is in, on a task's validation."""
    carried: Any = None
    sums: dict[str, Any] = {}
    for batch in task.validation(Shard()):
        found, carried = task.tally(model, batch, carried)
        sums = {name: sums.get(name, 0) + value for name, value in found.items()}
    return task.scores(sums)
