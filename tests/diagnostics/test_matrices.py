"""Recurrent matrices and parameters against NumPy."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tolerances import close
from unrolled import cells
from unrolled.cells import Cell, product, tanh
from unrolled.diagnostics import (
    parameter_table,
    recurrent_matrices,
)
from unrolled.models import LanguageModel
from unrolled.nn import LSTM, Recurrent


def test_recurrent_matrices_are_those_of_numpy() -> None:
    layer = LSTM(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    found = recurrent_matrices(layer)
    assert [(m.layer, m.reverse, m.gate) for m in found[12:]] == [
        (1, True, gate) for gate in ("i", "f", "g", "o")
    ]
    W = layer.weight_hh_l1_reverse.detach().numpy()
    for k, matrix in enumerate(found[12:]):
        block = W[4 * k : 4 * k + 4]
        assert matrix.radius == pytest.approx(max(abs(np.linalg.eigvals(block))), rel=1e-12)
        wanted = np.linalg.svd(block, compute_uv=False)
        assert matrix.singular.tolist() == pytest.approx(wanted.tolist(), rel=1e-12)


def test_a_prepared_matrix_is_measured_as_it_is_used() -> None:
    layer = Recurrent(cells.AntisymmetricRNN, 3, 4, dtype=torch.float64)
    (found,) = recurrent_matrices(layer)
    assert found.eigenvalues is not None
    assert found.eigenvalues.real.abs().max() < 1e-14
    W = layer.weight_hh_l0.detach()
    assert found.singular[0].item() == pytest.approx(torch.linalg.matrix_norm(W - W.T, 2).item())


def test_blocks_and_products_of_a_cells_own() -> None:
    layer = Recurrent(cells.SLSTM(heads=2), 3, 4, dtype=torch.float64)
    first = recurrent_matrices(layer)[0]
    rows = layer.weight_hh_l0.detach()[:4]
    whole = torch.zeros(4, 4, dtype=torch.float64)
    whole[:2, :2], whole[2:, 2:] = rows[:2], rows[2:]
    close(first.singular, torch.linalg.svdvals(whole), "output")
    names = [(m.product, m.gate) for m in recurrent_matrices(Recurrent(cells.MGU, 3, 4))]
    assert names == [("recurrent", "f"), ("candidate", "")]
    projected = recurrent_matrices(LSTM(3, 4, proj_size=2))
    assert [m.radius for m in projected] == [None] * 4
    assert projected[0].singular.shape == (2,)
    assert recurrent_matrices(Recurrent(cells.IndRNN, 3, 4)) == []


def test_parameter_table() -> None:
    model = LanguageModel(7, 4, cell="GRU", embedding_size=3)
    model.head.weight.data.fill_(2.0)
    rows = {row.name: row for row in parameter_table(model)}
    assert list(rows) == [name for name, _ in model.named_parameters()]
    head = rows["head.weight"]
    assert (head.shape, head.count, head.norm) == ((7, 4), 28, pytest.approx(math.sqrt(28) * 2))
    assert sum(row.count for row in rows.values()) == sum(p.numel() for p in model.parameters())


def test_an_unused_product_is_declared() -> None:
    """A cell's own product that is not square has no radius, and its gate is told."""

    class Narrow(Cell):
        inner = product("a", "b", width=2)
        outer = product(source=2)

        def step(self, x: Any, h: Any, state: Any) -> Any:
            v = self.inner(state.h)
            return tanh(x + h + self.outer(v.a * v.b))

    found = recurrent_matrices(Recurrent(Narrow, 3, 4))
    assert [(m.product, m.gate, m.radius is None) for m in found] == [
        ("recurrent", "", False), ("inner", "a", True), ("inner", "b", True), ("outer", "", True),
    ]  # fmt: skip
