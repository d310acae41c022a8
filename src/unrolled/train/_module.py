"""A task as Lightning modules: steps, optimizer, data, and the additions to a checkpoint."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from unrolled.config import Config
from unrolled.nn.types import HiddenState
from unrolled.tasks import Batch, DataError, Shard, Task
from unrolled.train._folder import values_of_config
from unrolled.train._random_state import random_states, set_random_states

_WARMUP = 50
_FINAL_FACTOR = 0.05

V = TypeVar("V")


class Diverged(ValueError):  # noqa: N818  it is an outcome of training, not an error in the code
    """The loss is not finite; the last checkpoint is from an earlier step."""


class ProcessesError(ValueError):
    """A run must be resumed with the number of processes that it was started with."""


class Training(LightningModule):
    """A model in training on a task; its recurrent state is carried over from batch to batch.

    `scores` are those of the latest validation; `stepped` is True after the first step of this
    process.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.carried: HiddenState | None = None
        self.scores: dict[str, float] = {}
        self.stepped = False
        self._validation_state: HiddenState | None = None
        self._sums: dict[str, Tensor] = {}
        self._restored: dict[str, Any] | None = None

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        total: Tensor
        total, self.carried = self.task.loss(self.model, batch, self.carried)
        if not bool(total.isfinite()):
            raise Diverged(
                f"the loss must be finite, got {total.item()} at step {self.global_step + 1}; try "
                "a lower --learning-rate or --clip, or --precision 32"
            )
        # Lightning averages gradients over the processes; each has a part of the batch.
        return total * (self.trainer.world_size / batch.total)

    @override
    def on_validation_epoch_start(self) -> None:
        self._validation_state, self._sums = None, {}

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        sums, self._validation_state = self.task.tally(self.model, batch, self._validation_state)
        self._sums = {name: self._sums.get(name, 0) + value for name, value in sums.items()}

    @override
    def on_validation_epoch_end(self) -> None:
        strategy = self.trainer.strategy
        sums = {k: strategy.reduce(v, reduce_op="sum") for k, v in self._sums.items()}
        self.scores = self.task.scores({k: torch.as_tensor(v).cpu() for k, v in sums.items()})
        for name, value in self.scores.items():
            # Metrics passes them to the logger, with the right step.
            number = torch.tensor(value, dtype=torch.float64)
            self.log(f"validation_{name}", number, logger=False)
        self._validation_state, self._sums = None, {}

    @override
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        config: Config = self.task.config
        parameters = dict(self.model.named_parameters())
        recurrent = []
        if config.recurrent_lr_scale != 1.0:
            recurrent = [parameters.pop(name) for name in [*parameters] if "weight_hh" in name]
        matrices = [p for p in parameters.values() if p.dim() > 1]
        vectors = [p for p in parameters.values() if p.dim() <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        if recurrent:
            rate = config.recurrent_lr_scale * config.learning_rate
            groups.append({"params": recurrent, "weight_decay": config.weight_decay, "lr": rate})
        # One pass over all numbers, where no scaler of gradients comes between.
        fused = self.device.type == "cpu" and config.precision != "16"
        optimizer = AdamW(groups, lr=config.learning_rate, fused=fused or None)
        scheduler = LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @override
    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning refuses to clip for a fused optimizer under autocast.
        if gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["task"] = self.task.name
        checkpoint["config"] = values_of_config(self.task.name, self.task.config)
        checkpoint["model"] = self.task.model_arguments()
        checkpoint["codec"] = self.task.codec.state()
        state = {"carried": self.carried, "random": random_states()}
        checkpoint["processes"] = _all_gather(state, self.trainer.world_size)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        processes, world_size = checkpoint["processes"], self.trainer.world_size
        if len(processes) != world_size:
            raise ProcessesError(
                f"resume: devices must give the number of processes that the run was started with, "
                f"{len(processes)}, got {world_size}"
            )
        self._restored = processes[self.trainer.global_rank]

    @override
    def on_train_start(self) -> None:
        if self._restored is None:
            return
        # Immediately before the first step, so that nothing uses the generators in between.
        carried = self._restored["carried"]
        if carried is not None:
            self.carried = self.transfer_batch_to_device(carried, self.device, 0)
        set_random_states(self._restored["random"])
        self._restored = None
        for optimizer in self.trainer.optimizers:
            _check_optimizer(optimizer)

    @override
    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int) -> None:
        self.stepped = True


def loss_of(outputs: STEP_OUTPUT) -> Tensor:
    """The loss of a training step, from the outputs that Lightning passes to callbacks."""
    assert isinstance(outputs, Mapping)
    loss: Tensor = outputs["loss"]
    return loss


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Check the restored moments of AdamW against the parameters.

    Raises:
        ValueError: one is missing, has another shape or is not finite.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                value = state.get(name)
                if not isinstance(value, Tensor) or value.shape != parameter.shape:
                    raise ValueError(f"AdamW: {name} must have shape {list(parameter.shape)}")
                if not bool(value.isfinite().all()):
                    raise ValueError(f"AdamW: {name} must have finite numbers")


def _all_gather(value: V, world_size: int) -> list[V]:
    """The values of all processes, ordered by rank, in every process."""
    values = [value] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values


class Data(LightningDataModule):
    """The batches of a task: endless ones for training, and those of a validation."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def _share(self) -> Shard:
        assert self.trainer is not None
        return Shard(self.trainer.global_rank, self.trainer.world_size)

    @override
    def train_dataloader(self) -> Iterable[Batch]:
        assert self.trainer is not None
        # One optimizer step is one batch, so a resumed run starts with the batch of its step.
        return _TrainingBatches(self.task, self._share(), self.trainer.global_step)

    @override
    def val_dataloader(self) -> Iterable[Batch]:
        return _ValidationBatches(self.task, self._share())

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"digest": self.task.digest}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["digest"] != self.task.digest:
            raise DataError(
                "resume: data must be those that the run was started with, but they have changed"
            )


class _TrainingBatches:
    """Endless batches, so that the whole run is a single epoch for Lightning.

    Not a DataLoader, because that draws from torch's generator whenever it is iterated.
    """

    def __init__(self, task: Task, share: Shard, start: int) -> None:
        self.task = task
        self.share = share
        self.start = start

    def __iter__(self) -> Iterator[Batch]:
        step = self.start
        while True:
            yield self.task.batch(step, self.share)
            step += 1


class _ValidationBatches:
    """The batches of one validation."""

    def __init__(self, task: Task, share: Shard) -> None:
        self.task = task
        self.share = share

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.task.validation(self.share))


def learning_rate_factor(step: int, config: Config) -> float:
    """The factor on the peak learning rate at step `step`, counted from 0.

    A linear warm-up over the first 50 steps (a tenth of a short run); then constant, or a half
    cosine down to 5 % at the end.
    """
    warmup = max(1, min(_WARMUP, config.steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, config.steps - warmup))
    return _FINAL_FACTOR + (1.0 - _FINAL_FACTOR) * 0.5 * (1.0 + math.cos(math.pi * progress))
