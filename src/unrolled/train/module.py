"""A task as Lightning wants it: steps, optimizer, data, and what a checkpoint adds."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from unrolled.config import Config
from unrolled.tasks import DataError, Shard, Task
from unrolled.train.checkpoint import random_states, set_random_states
from unrolled.train.folder import values_of_config

__all__ = ["Data", "Diverged", "ProcessesError", "Training", "rate_factor"]

_WARMUP = 50
_FINAL_FACTOR = 0.05


class Diverged(ValueError):  # noqa: N818  what happened is no fault of the code
    """The loss is no number any more; the last checkpoint is from before."""


class ProcessesError(ValueError):
    """A run can go on only with as many processes as it began with."""


class Training(LightningModule):
    """A model that learns a task; the state that it carries goes from batch to batch.

    `scores` are those of the last validation; `stepped` says whether this process has made a step.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.carried: Any = None
        self.scores: dict[str, float] = {}
        self.stepped = False
        self._validation: Any = None
        self._sums: dict[str, Tensor] = {}
        self._restored: dict[str, Any] | None = None

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        total, self.carried = self.task.loss(self.model, batch, self.carried)
        if not bool(total.isfinite()):
            raise Diverged(
                f"the loss at step {self.global_step + 1} is {total.item()}: wanted a number; try "
                "a lower --learning-rate or --clip, or --precision 32"
            )
        # Lightning averages gradients over processes, each of which has a share of the batch.
        return total * (self.trainer.world_size / batch.total)

    @override
    def on_validation_epoch_start(self) -> None:
        self._validation, self._sums = None, {}

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        found, self._validation = self.task.tally(self.model, batch, self._validation)
        self._sums = {name: self._sums.get(name, 0) + value for name, value in found.items()}

    @override
    def on_validation_epoch_end(self) -> None:
        strategy = self.trainer.strategy
        sums = {k: strategy.reduce(v, reduce_op="sum") for k, v in self._sums.items()}
        self.scores = self.task.scores({k: torch.as_tensor(v).cpu() for k, v in sums.items()})
        for name, value in self.scores.items():
            # The logger is given them by Metrics, at the right step.
            number = torch.tensor(value, dtype=torch.float64)
            self.log(f"validation_{name}", number, logger=False)
        self._validation, self._sums = None, {}

    @override
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        config: Config = self.task.config
        named = dict(self.model.named_parameters())
        recurrent = []
        if config.recurrent_rate != 1.0:
            recurrent = [named.pop(name) for name in [*named] if "weight_hh" in name]
        matrices = [p for p in named.values() if p.dim() > 1]
        vectors = [p for p in named.values() if p.dim() <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        if recurrent:
            rate = config.recurrent_rate * config.learning_rate
            groups.append({"params": recurrent, "weight_decay": config.weight_decay, "lr": rate})
        optimizer = AdamW(groups, lr=config.learning_rate)
        scheduler = LambdaLR(optimizer, lambda step: rate_factor(step, config))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["task"] = self.task.name
        checkpoint["config"] = values_of_config(self.task.name, self.task.config)
        checkpoint["model"] = self.task.model_arguments()
        checkpoint["codec"] = self.task.codec.state()
        own = {"carried": self.carried, "random": random_states()}
        checkpoint["processes"] = _gathered(own, self.trainer.world_size)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        processes, wanted = checkpoint["processes"], self.trainer.world_size
        if len(processes) != wanted:
            raise ProcessesError(
                f"devices: wanted as many processes as the run began with, {len(processes)}, "
                f"got {wanted}"
            )
        self._restored = processes[self.trainer.global_rank]

    @override
    def on_train_start(self) -> None:
        if self._restored is None:
            return
        # Last thing before the first step, so that nothing draws in between.
        carried = self._restored["carried"]
        if carried is not None:
            self.carried = self.transfer_batch_to_device(carried, self.device, 0)
        set_random_states(self._restored["random"])
        self._restored = None
        for optimizer in self.trainer.optimizers:
            _check_optimizer(optimizer)

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.stepped = True


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Hold the moments that were restored to the parameters that they are of.

    Raises:
        ValueError: some are missing or of another shape, or hold no finite numbers.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                value = state.get(name)
                if not isinstance(value, Tensor) or value.shape != parameter.shape:
                    raise ValueError(f"{name}: wanted shape {list(parameter.shape)}")
                if not bool(value.isfinite().all()):
                    raise ValueError(f"{name}: wanted finite numbers")


def _gathered(own: Any, processes: int) -> list[Any]:
    """What each process has, by rank, in all of them."""
    found = [own] * processes
    if processes > 1:
        torch.distributed.all_gather_object(found, own)
    return found


class Data(LightningDataModule):
    """A task's batches for training, without end, and for validation."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def _share(self) -> Shard:
        assert self.trainer is not None
        return Shard(self.trainer.global_rank, self.trainer.world_size)

    @override
    def train_dataloader(self) -> Iterable[Any]:
        assert self.trainer is not None
        # One optimizer step is one batch, so a resumed run begins with the batch of its step.
        return _Endless(self.task, self._share(), self.trainer.global_step)

    @override
    def val_dataloader(self) -> Iterable[Any]:
        return _Whole(self.task, self._share())

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"digest": self.task.digest}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["digest"] != self.task.digest:
            raise DataError("data: wanted those that the run began with, they have changed since")


class _Endless:
    """Batches without an end, so that the whole run is one of Lightning's epochs.

    Not a DataLoader: that one draws from torch's generator whenever it is iterated.
    """

    def __init__(self, task: Task, share: Shard, start: int) -> None:
        self.task = task
        self.share = share
        self.start = start

    def __iter__(self) -> Iterator[Any]:
        step = self.start
        while True:
            yield self.task.batch(step, self.share)
            step += 1


class _Whole:
    """The batches of a validation."""

    def __init__(self, task: Task, share: Shard) -> None:
        self.task = task
        self.share = share

    def __iter__(self) -> Iterator[Any]:
        return iter(self.task.validation(self.share))


def rate_factor(step: int, config: Config) -> float:
    """What the learning rate is multiplied with before step `step`, counted from 0.

    A linear rise over the first 50 steps (a tenth of a short run), then constant, or half a cosine
    down to a twentieth at the end.
    """
    warmup = max(1, min(_WARMUP, config.steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, config.steps - warmup))
    return _FINAL_FACTOR + (1.0 - _FINAL_FACTOR) * 0.5 * (1.0 + math.cos(math.pi * done))
