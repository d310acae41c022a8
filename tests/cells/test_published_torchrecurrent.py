"""A second oracle of published cells: the package torchrecurrent, by other authors.

Its LEM is left out: there y_t sees z_{t-1}, in the paper and its authors' code z_t. Its FastGRNN
squashes the gate by tanh by default, and its JANET learns beta.
"""

from typing import Any

import pytest
import torch

from tests.support.subjects import pack, run, states, tokens
from tests.support.tolerances import close
from unrolled import cells
from unrolled.cells import Cell
from unrolled.nn import Recurrent

torchrecurrent = pytest.importorskip("torchrecurrent")

# Their parameters as stacks of ours, where the names differ; what we do not have is zero there.
CASES: list[tuple[Cell, str, dict[str, Any], dict[str, list[str]]]] = [
    (cells.PeepholeLSTM(), "PeepholeLSTM", {}, {"weight_ph": ["p_i", "p_f", "p_o"]}),
    (
        cells.MultiplicativeLSTM(),
        "MultiplicativeLSTM",
        {},
        {"weight_mh": ["weight_modulate"], "bias_mh": ["bias_modulate"]},
    ),
    (cells.RAN(), "RAN", {}, {}),
    (
        cells.MGU(),
        "MGU",
        {},
        {
            "weight_hh": ["weight_hh", "weight_candidate"],
            "bias_hh": ["bias_hh", "bias_candidate"],
        },
    ),
    (cells.LiGRU(), "LiGRU", {"nonlinearity": "relu"}, {}),
    (cells.JANET(0.5), "JANET", {"beta": 0.5}, {}),
    (cells.UGRNN(), "UGRNN", {}, {}),
    (cells.MinimalRNN(), "MinimalRNN", {}, {"weight_mm": ["weight_latent"]}),
    (cells.ATR(), "ATR", {}, {}),
    (cells.STAR(), "STAR", {}, {}),
    (cells.IndRNN(), "IndRNN", {"nonlinearity": "relu"}, {"vector_u": ["u"]}),
    (cells.BRC(), "BR", {}, {"weight_hh": ["w_a", "w_c"]}),
    (cells.NBRC(), "NBR", {}, {}),
    (cells.AntisymmetricRNN(0.3, 0.2), "AntisymmetricRNN", {"epsilon": 0.3, "gamma": 0.2}, {}),
    (
        cells.GatedAntisymmetricRNN(0.3, 0.2),
        "GatedAntisymmetricRNN",
        {"epsilon": 0.3, "gamma": 0.2},
        {},
    ),
    (
        cells.CoRNN(0.2, 2.7, 4.7),
        "coRNN",
        {"dt": 0.2, "gamma": 2.7, "epsilon": 4.7},
        {"weight_ch": ["weight_velocity"]},
    ),
    (cells.FastRNN(), "FastRNN", {}, {}),
    (cells.FastGRNN(), "FastGRNN", {"nonlinearity": "sigmoid"}, {"bias_ih": ["b_z", "b_n"]}),
]


@pytest.mark.parametrize(
    ("cell", "name", "options", "stacks"), [pytest.param(*case, id=case[1]) for case in CASES]
)
def test_cells_agree(
    cell: Cell, name: str, options: dict[str, Any], stacks: dict[str, list[str]]
) -> None:
    T, N, I, H = 5, 3, 4, 7  # noqa: E741
    layer = Recurrent(cell, I, H, dtype=torch.float64)
    theirs = getattr(torchrecurrent, f"{name}Cell")(I, H, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-0.9, 0.9)
        ours = {key.removesuffix("_l0"): p for key, p in layer.named_parameters()}
        ours |= {key: torch.cat([ours[part] for part in parts]) for key, parts in stacks.items()}
        for key, parameter in theirs.named_parameters():
            if key not in options:
                parameter.copy_(ours.get(key, torch.zeros_like(parameter)))
    x, hx = tokens(T, N, I), states(layer, N)
    actual = run(layer, x, pack(hx))
    state: Any = pack([s[0] for s in hx])
    if name == "JANET":
        state = (state, state)  # it returns its one state twice
    outputs = []
    for x_t in x:
        state = theirs(x_t, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    close(actual[0], torch.stack(outputs), "output")
    ends = state if isinstance(state, tuple) else (state,)
    for mine, end in zip(actual[1:], ends, strict=name != "JANET"):
        close(mine[0], end, "output")
