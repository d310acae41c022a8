"""The language model as Lightning wants it: steps, optimizer, data, and what a checkpoint adds."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from unrolled.models import LanguageModel
from unrolled.models.language import State
from unrolled.tasks import TextError, Vocabulary, Window, Windows, detach, loss
from unrolled.train.checkpoint import random_states, set_random_states
from unrolled.train.config import LanguageModelConfig

__all__ = ["LanguageData", "LanguageTraining", "rate_factor"]

_WARMUP = 50
_FINAL_FACTOR = 0.05


class LanguageTraining(LightningModule):
    """Truncated backpropagation: the state goes from window to window, the gradient does not."""

    def __init__(
        self, model: LanguageModel, vocabulary: Vocabulary, config: LanguageModelConfig
    ) -> None:
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary
        self.config = config
        self.carried: State | None = None
        self._validation: State | None = None
        self._restored: dict[str, Any] | None = None

    @override
    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        before = None if batch.first else self.carried
        logits, after = self.model(batch.inputs, before)
        self.carried = detach(after)
        return loss(logits, batch.targets)

    @override
    def validation_step(self, batch: Window, batch_idx: int) -> None:
        before = None if batch.first else self._validation
        logits, self._validation = self.model(batch.inputs, before)
        # The mean over windows weighs them by their tokens: the last may be shorter.
        self.log(
            "validation_loss",
            loss(logits, batch.targets),
            on_step=False,
            on_epoch=True,
            batch_size=batch.targets.numel(),
        )

    @override
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer = AdamW(groups, lr=self.config.learning_rate)
        scheduler = LambdaLR(optimizer, lambda step: rate_factor(step, self.config))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model"] = self.model.arguments
        checkpoint["vocabulary"] = self.vocabulary.state()
        checkpoint["carried"] = self.carried
        checkpoint["random"] = random_states()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored = {name: checkpoint[name] for name in ("carried", "random")}

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


class LanguageData(LightningDataModule):
    """Windows of training text, over and over, and windows of validation text.

    Args:
        digest: of the whole text; a checkpoint made on other text is refused.
    """

    def __init__(self, training: Windows, validation: Windows, digest: str) -> None:
        super().__init__()
        self.training = training
        self.validation = validation
        self.digest = digest
        self._start = 0

    @override
    def train_dataloader(self) -> Iterable[Window]:
        return _Endless(self.training, self._start)

    @override
    def val_dataloader(self) -> Iterable[Window]:
        return self.validation

    @override
    def state_dict(self) -> dict[str, Any]:
        # Lightning fetches a window ahead: the loader knows where it reads, not what was learned.
        # One optimizer step is one window.
        assert self.trainer is not None
        place = self.trainer.global_step % len(self.training)
        return {"next_window": place, "windows": len(self.training), "digest": self.digest}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["digest"] != self.digest or state_dict["windows"] != len(self.training):
            raise TextError("text: wanted the text that the run began with, it has changed since")
        self._start = state_dict["next_window"]


class _Endless:
    """A loader without an end, so that the whole run is one of Lightning's epochs.

    Not a DataLoader: that one draws from torch's generator whenever it is iterated.
    """

    def __init__(self, windows: Windows, start: int) -> None:
        self.windows = windows
        self.start = start

    def __iter__(self) -> Iterator[Window]:
        return self.windows.endless(self.start)


def rate_factor(step: int, config: LanguageModelConfig) -> float:
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
