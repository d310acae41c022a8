"""Models of torch's layers continue with ours: one with several classes, and one of Lightning's."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from tests.support.subjects import tokens
from tests.support.tolerances import assert_equal, close
from unrolled import nn

CLASSES = (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU)


class Encoder(torch.nn.Module):
    """Asks twice: what to start, and which state is h."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.start()

    def start(self) -> None:
        for module in self.modules():
            if isinstance(module, torch.nn.RNNBase):
                for names in module._all_weights:
                    for name in names:
                        torch.nn.init.normal_(getattr(module, name), std=0.3)
            if isinstance(module, torch.nn.LSTM):
                torch.nn.init.ones_(module.bias_ih_l0[4:8])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.layer(x)
        return y, (state[0] if isinstance(self.layer, torch.nn.LSTM) else state)[-1]


class Mixed(torch.nn.Module):
    """Encoders of all kinds in a row, then cells in a loop."""

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
        self.encoder = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
        rows = [Encoder(layer_class(3, 4)) for layer_class in CLASSES]
        self.rows = torch.nn.ModuleDict({type(row.layer).__name__: row for row in rows})
        self.deep = Encoder(torch.nn.LSTM(4, 4, proj_size=2, **options))
        self.cells = torch.nn.ModuleList([torch.nn.LSTMCell(4, 4), torch.nn.GRUCell(4, 4)])
        self.readout = torch.nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        outputs = [self.rows[name](x) for name in ("LSTM", "GRU", "RNN")]
        y, h = self.deep(torch.stack([y for y, _ in outputs]).sum(0))
        hc, g = None, torch.stack([h for _, h in outputs]).sum(0)
        for x in y:
            hc = self.cells[0](x, hc)
            g = self.cells[1](hc[0], g)
        predicted: Tensor = self.readout(torch.cat([g, h], -1))
        return predicted


LAYERS = ("rows.RNN.layer", "rows.LSTM.layer", "rows.GRU.layer", "deep.layer")
CELLS = ("cells.0", "cells.1")


def curve(model: Mixed, plan: dict[int, dict[str, Any]], steps: int = 16) -> tuple[Tensor, Tensor]:
    """Losses, and momenta at the end, of a training with conversions before some of its steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses, x = [], tokens(5, 7, 3).detach()
    for step in range(steps):
        if step in plan:
            nn.convert(model, **plan[step])
        optimizer.zero_grad()
        loss = (model(x) - x.sum((0, 2))[:, None].tanh()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    momenta = [optimizer.state[p]["momentum_buffer"].flatten() for p in model.parameters()]
    return torch.stack(losses), torch.cat(momenta)


def test_training_continues_after_conversion() -> None:
    model = Mixed().double()
    unconverted = copy.deepcopy(model)
    converted = nn.convert(copy.deepcopy(model), subclass=True)
    assert converted.replaced == (*LAYERS, *CELLS)
    plan: dict[int, dict[str, Any]] = {3: {"subclass": True}, 6: {"to": "torch"}}
    plan[9] = {"subclass": True}
    losses, momenta = curve(model, plan)
    expected, theirs = curve(unconverted, {})
    assert expected[-1] < 0.5 * expected[0]
    close(losses, expected, "gradient")
    close(momenta, theirs, "gradient")
    assert isinstance(model.deep.layer, nn.LSTM)


def test_a_model_that_asks_needs_both() -> None:
    model, x = Mixed().double(), tokens(5, 7, 3).detach()
    expected = model(x)
    converted = nn.convert(model)
    assert list(converted.type_checks) == [name.removesuffix(".layer") for name in LAYERS]
    asks = converted.type_checks["deep"]
    assert [ask.text for ask in asks] == [
        "isinstance(module, torch.nn.RNNBase)",
        "isinstance(module, torch.nn.LSTM)",
        "isinstance(self.layer, torch.nn.LSTM)",
    ]
    source = Path(__file__).read_text().splitlines()
    assert all(ask.file == Path(__file__).name for ask in asks)
    assert all(ask.text in source[ask.line - 1] for ask in asks)
    # It takes the last of (h, c) for the last layer's h.
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        model(x)
    assert nn.convert(model, subclass=True).type_checks == converted.type_checks
    close(model(x), expected, "output")


def test_a_model_that_initialises_again() -> None:
    model = Mixed().double()
    unconverted = copy.deepcopy(model)
    nn.convert(model, subclass=True)
    for network in (model, unconverted):
        torch.manual_seed(3)
        for name in LAYERS:
            network.get_submodule(name.removesuffix(".layer")).start()
    for (name, mine), theirs in zip(
        model.named_parameters(), unconverted.parameters(), strict=True
    ):
        assert_equal(mine, theirs, name)
    assert model.deep.layer.bias_ih_l0[4:8].eq(1).all()


class Training(LightningModule):
    """A small model as one trains it with Lightning."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = Encoder(torch.nn.LSTM(3, hidden_size, num_layers=2))
        self.head = torch.nn.Linear(hidden_size, 1)
        self.losses: list[Tensor] = []
        self.double()

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        loss = (self.head(self.encoder(batch)[1]) - batch.sum((0, 2))[:, None]).square().mean()
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def train(module: Training, epochs: int, ckpt_path: Path | None = None) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = [tokens(5, 7, 3, seed=k).detach() for k in range(3)]
    trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path)
    return trainer


@pytest.fixture
def quiet_lightning() -> Iterator[None]:
    """Lightning without its messages about devices, and tips."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.usefixtures("quiet_lightning")
@pytest.mark.filterwarnings("ignore:::lightning")
def test_lightning_resumes_a_checkpoint_of_torch_layers_and_back(tmp_path: Path) -> None:
    start = Training(4)
    uninterrupted = copy.deepcopy(start)
    train(uninterrupted, 4)
    train(start, 2).save_checkpoint(tmp_path / "torchs")

    module = Training.load_from_checkpoint(tmp_path / "torchs")
    converted = nn.convert(module, subclass=True)
    assert converted.replaced == ("encoder.layer",)
    assert list(converted.type_checks) == ["encoder"]
    train(module, 3, tmp_path / "torchs").save_checkpoint(tmp_path / "ours")
    assert isinstance(module.encoder.layer, nn.LSTM)

    loaded = Training.load_from_checkpoint(tmp_path / "ours")
    assert type(loaded.encoder.layer) is torch.nn.LSTM
    for (name, mine), theirs in zip(loaded.named_parameters(), module.parameters(), strict=True):
        assert_equal(mine, theirs, name)
    trainer = train(loaded, 4, tmp_path / "ours")
    assert trainer.global_step == 12
    losses = torch.stack([*start.losses, *module.losses, *loaded.losses])
    close(losses, torch.stack(uninterrupted.losses), "gradient")
    for (name, mine), theirs in zip(
        loaded.named_parameters(), uninterrupted.parameters(), strict=True
    ):
        close(mine, theirs, "gradient", name)
