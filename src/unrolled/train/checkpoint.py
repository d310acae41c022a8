"""Lightning's checkpoints as safetensors and JSON, and when they are written."""

import math
import random
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import CheckpointIO
from typing_extensions import override

from unrolled.models import load_tree, save_tree
from unrolled.train.folder import BEST, LAST

__all__ = ["Checkpoints", "TreeCheckpointIO", "random_states", "set_random_states"]


class TreeCheckpointIO(CheckpointIO):
    """Store whatever Lightning hands over as one safetensors file, its structure as metadata."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        if storage_options is not None:
            raise TypeError("storage_options: wanted None, a checkpoint file has no options")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_tree(path, checkpoint)

    @override
    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        # Lightning moves the tensors where they belong; from here they come on the CPU.
        return load_tree(path)

    @override
    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(Callback):
    """Keep two checkpoints in a folder: the last one, and the one of the least validation loss.

    Both are written when a validation has ended; `save_last` writes one at any other time. `step`
    and `scores` are the best one's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.least = math.inf
        self.step = 0
        self.scores: dict[str, float] = {}

    def save_last(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / LAST)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        training: Any = pl_module
        loss = training.scores["loss"]
        if not math.isfinite(loss):
            return
        if loss < self.least:
            self.least, self.step, self.scores = loss, trainer.global_step, dict(training.scores)
            trainer.save_checkpoint(self.folder / BEST)
        self.save_last(trainer)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"least": self.least, "step": self.step, "scores": self.scores}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.least = state_dict["least"]
        # Earlier versions kept neither.
        self.step, self.scores = state_dict.get("step", 0), state_dict.get("scores", {})


def random_states() -> dict[str, Any]:
    """The states of the generators that training may draw from: Python's and torch's."""
    return {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Go back to what `random_states` gave; with another number of GPUs theirs stay."""
    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
