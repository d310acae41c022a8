"""Eigenvalues, singular values and the table of parameters, against NumPy."""

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


def test_eigenvalues_and_singular_values_agree_with_numpy() -> None:
    layer = LSTM(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    matrices = recurrent_matrices(layer)
    assert [(m.layer, m.reverse, m.gate) for m in matrices[12:]] == [
        (1, True, gate) for gate in ("i", "f", "g", "o")
    ]
    W = layer.weight_hh_l1_reverse.detach().numpy()
    for k, matrix in enumerate(matrices[12:]):
        block = W[4 * k : 4 * k + 4]
        assert matrix.radius == pytest.approx(max(abs(np.linalg.eigvals(block))), rel=1e-12)
        expected = np.linalg.svd(block, compute_uv=False)
        assert matrix.singular.tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_a_prepared_matrix_is_measured_as_the_step_uses_it() -> None:
    layer = Recurrent(cells.AntisymmetricRNN, 3, 4, dtype=torch.float64)
    (matrix,) = recurrent_matrices(layer)
    assert matrix.eigenvalues is not None
    assert matrix.eigenvalues.real.abs().max() < 1e-14
    W = layer.weight_hh_l0.detach()
    assert matrix.singular[0].item() == pytest.approx(torch.linalg.matrix_norm(W - W.T, 2).item())


def test_block_diagonal_and_additional_products() -> None:
    layer = Recurrent(cells.SLSTM(heads=2), 3, 4, dtype=torch.float64)
    matrix = recurrent_matrices(layer)[0]
    rows = layer.weight_hh_l0.detach()[:4]
    dense = torch.zeros(4, 4, dtype=torch.float64)
    dense[:2, :2], dense[2:, 2:] = rows[:2], rows[2:]
    close(matrix.singular, torch.linalg.svdvals(dense), "output")
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


def test_products_that_are_not_square_have_no_radius() -> None:
    class Narrow(Cell):
        inner = product("a", "b", width=2)
        outer = product(source=2)

        def step(self, x: Any, h: Any, state: Any) -> Any:
            v = self.inner(state.h)
            return tanh(x + h + self.outer(v.a * v.b))

    matrices = recurrent_matrices(Recurrent(Narrow, 3, 4))
    assert [(m.product, m.gate, m.radius is None) for m in matrices] == [
        ("recurrent", "", False), ("inner", "a", True), ("inner", "b", True), ("outer", "", True),
    ]  # fmt: skip
