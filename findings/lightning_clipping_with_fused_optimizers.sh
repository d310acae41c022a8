#!/usr/bin/env bash
# Lightning 2.6.6 with torch 2.13.0 on the CPU: the Trainer clips gradients for a fused optimizer with
# precision "32-true", and refuses to with "bf16-mixed". Its reason is that such an optimizer may unscale
# gradients itself; but bfloat16 needs no scaler of gradients, and there is none.
#
# Seen: "32-true: trained", then "bf16-mixed: RuntimeError".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 lightning==2.6.6
cd "$place"
"$place/venv/bin/python" -W ignore - <<'PYTHON'
import logging
import sys

import lightning
import torch
from torch.utils.data import DataLoader

logging.getLogger("lightning").setLevel(logging.ERROR)


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, index):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), fused=True)


def outcome(precision):
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision=precision,
        gradient_clip_val=1.0,
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    assert getattr(trainer.precision_plugin, "scaler", None) is None
    try:
        trainer.fit(Model(), DataLoader(torch.randn(8, 4), batch_size=4))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return "RuntimeError"
    return "trained"


outcomes = [f"{precision}: {outcome(precision)}" for precision in ("32-true", "bf16-mixed")]
print(*outcomes, sep="\n")
sys.exit(outcomes != ["32-true: trained", "bf16-mixed: RuntimeError"])
PYTHON
