"""Lightning checkpoints stored as safetensors and JSON, and the callback that writes them."""

import math
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import CheckpointIO
from typing_extensions import override

from unrolled.models import load_tree, save_tree
from unrolled.train._folder import BEST, LAST
from unrolled.train._module import Training


class TreeCheckpointIO(CheckpointIO):
    """Stores a Lightning checkpoint as one safetensors file, with its structure as metadata."""

    @override
    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: object = None,
    ) -> None:
        if storage_options is not None:
            raise TypeError(
                f"TreeCheckpointIO: storage_options must be None, got {storage_options!r}"
            )
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_tree(path, checkpoint)

    @override
    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: object = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        # The tensors are on the CPU; Lightning moves them to their devices.
        tree: dict[str, Any] = load_tree(path)
        return tree

    @override
    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(Callback):
    """Keeps two checkpoints in a folder: the latest, and the one of the lowest validation loss.

    Both are written at the end of a validation; `save_last` writes the latest at any other time.
    `step` and `scores` are those of the best one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lowest = math.inf
        self.step = 0
        self.scores: dict[str, float] = {}

    def save_last(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / LAST)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Training)
        scores = pl_module.scores
        loss = scores["loss"]
        if not math.isfinite(loss):
            return
        if loss < self.lowest:
            self.lowest, self.step, self.scores = loss, trainer.global_step, dict(scores)
            trainer.save_checkpoint(self.folder / BEST)
        self.save_last(trainer)

    @override
    def state_dict(self) -> dict[str, object]:
        return {"least": self.lowest, "step": self.step, "scores": self.scores}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lowest = state_dict["least"]
        # Checkpoints of earlier versions have neither.
        self.step, self.scores = state_dict.get("step", 0), state_dict.get("scores", {})
