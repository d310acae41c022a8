"""Single steps: the numbers of torch's cells and of the cell's layer; lengths and resets."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.subjects import (
    Peephole,
    ResetBefore,
    gradients,
    pack,
    random_like,
    tokens,
    unpack,
)
from tests.support.tolerances import assert_equal, close
from unrolled import cells, engines, nn

NAMES = {"rnn": "RNNCell", "relu": "RNNCell", "lstm": "LSTMCell", "gru": "GRUCell"}
SIZES = (1, 3, 5, 17)


@settings(max_examples=100)
@given(
    class_name=st.sampled_from(list(NAMES)),
    sizes=st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)),
    bias=st.booleans(),
    batch=st.sampled_from([None, 0, 1, 2, 7]),
    given_hx=st.booleans(),
    memory=st.sampled_from(["contiguous", "strided", "expanded"]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    engine=st.sampled_from(list(engines.ENGINES)),
    seed=st.integers(0, 2**16),
)
def test_cells_give_torchs_numbers(
    class_name: str,
    sizes: tuple[int, int],
    bias: bool,
    batch: int | None,
    given_hx: bool,
    memory: str,
    dtype: torch.dtype,
    engine: str,
    seed: int,
) -> None:
    options = {"bias": bias, "dtype": dtype} | (
        {"nonlinearity": "relu"} if class_name == "relu" else {}
    )
    torch.manual_seed(seed)
    ours = getattr(nn, NAMES[class_name])(*sizes, **options)
    torch.manual_seed(seed)
    theirs = getattr(torch.nn, NAMES[class_name])(*sizes, **options)
    for (name, mine), (expected, reference) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == expected
        assert_equal(mine, reference, name)
    oracle = torch.float64 if dtype == torch.bfloat16 else dtype
    theirs = theirs.to(oracle)
    rows = [] if batch is None else [batch]
    engine = "reference" if dtype == torch.bfloat16 else engine

    def outcome(cell: Any, dtype_: torch.dtype) -> tuple[list[Any], list[Any]]:
        def view(data: torch.Tensor) -> torch.Tensor:
            data = data.to(dtype).to(dtype_)
            if memory == "strided":
                return data.repeat_interleave(2, -1)[..., ::2].requires_grad_()
            if memory == "expanded" and batch:
                return data[:1].expand(data.shape).requires_grad_()
            return data.requires_grad_()

        x = view(tokens(*rows, sizes[0], seed=seed).detach())
        count = 2 if class_name == "lstm" else 1
        hx = [view(tokens(*rows, sizes[1], seed=seed + 1 + k).detach()) for k in range(count)]
        parts = unpack(cell(x, pack(hx) if given_hx else None))
        leaves = [x, *(hx if given_hx else []), *cell.parameters()]
        output_gradients = [
            s.to(dtype).to(dtype_) for s in random_like([p.double() for p in parts])
        ]
        return list(parts), gradients(parts, leaves, output_gradients)

    wanted_parts, expected_grads = outcome(theirs, oracle)
    with engines.use(engine), engines.record() as ran:
        parts, actual = outcome(ours, dtype)
    assert ran == [engine]
    for mine, expected in zip(parts, wanted_parts, strict=True):
        assert mine.dtype == dtype
        close(mine, expected, "output")
    for mine, expected in zip(actual, expected_grads, strict=True):
        close(mine, expected, "gradient")


@pytest.mark.parametrize("class_name", NAMES)
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_looks_like_torchs(class_name: str, bias: bool) -> None:
    options = {"nonlinearity": "relu"} if class_name == "relu" else {}
    ours = getattr(nn, NAMES[class_name])(3, 4, bias, **options)
    theirs = getattr(torch.nn, NAMES[class_name])(3, 4, bias, **options)
    assert repr(ours) == f"unrolled.nn.{theirs!r}"
    assert ours.extra_repr() == theirs.extra_repr()
    assert (ours.bias_ih is None) == (theirs.bias_ih is None) == (not bias)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3)
    for duplicate in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        for mine, expected in zip(unpack(ours(x)), unpack(duplicate(x)), strict=True):
            assert_equal(mine, expected)


CELLS: list[tuple[Any, str]] = [
    (cell, engine)
    for cell in (cells.RNN, cells.LSTM, cells.GRU, Peephole, ResetBefore)
    for engine in engines.ENGINES
    if cell in (cells.RNN, cells.LSTM, cells.GRU) or engine == "reference"
]


@pytest.mark.parametrize(("cell", "engine"), CELLS)
@pytest.mark.parametrize("ragged", [False, True])
def test_steps_make_a_layer(cell: Any, engine: str, ragged: bool) -> None:
    """Step by step, with lengths and resets a column at a time, is the layer."""
    layer = nn.Recurrent(cell, 3, 4, dtype=torch.float64)
    single = nn.RecurrentCell(cell, 3, 4, dtype=torch.float64)
    single.load_state_dict({name.removesuffix("_l0"): p for name, p in layer.state_dict().items()})
    T, N = 5, 3
    x = tokens(T, N, 3)
    hx = [tokens(N, width, seed=5 + k) for k, width in enumerate(layer.spec.state_widths)]
    updated = [tokens(N, width, seed=8 + k) for k, width in enumerate(layer.spec.state_widths)]
    cuts = torch.zeros(T, N, dtype=torch.bool)
    cuts[[0, 2, 2, 4], [0, 0, 1, 2]] = ragged
    lengths = torch.tensor([4, 0, 5] if ragged else [5, 5, 5])
    with engines.use(engine):
        state: Any = pack(hx)
        for t in range(T):
            state = single(
                x[t], state, lengths=(t < lengths).long(), resets=cuts[t], reset_state=pack(updated)
            )
        _, final = layer(
            x,
            pack([s[None] for s in hx]),
            lengths=lengths,
            resets=cuts,
            reset_state=pack([s[None] for s in updated]),
        )
        parts, expected = unpack(state), [s[0] for s in unpack(final)]
        for mine, reference in zip(parts, expected, strict=True):
            close(mine, reference, "output")
        leaves = [x, *hx, *updated]
        actual = gradients(parts, [*leaves, *single.parameters()])
        for mine, reference in zip(
            actual, gradients(expected, [*leaves, *layer.parameters()]), strict=True
        ):
            close(mine, reference, "gradient")


@pytest.mark.parametrize("class_name", NAMES)
def test_a_step_aliases_nothing(class_name: str) -> None:
    cell = getattr(nn, NAMES[class_name])(3, 4)
    count = 2 if class_name == "lstm" else 1
    x, hx = torch.randn(2, 3), [torch.randn(2, 4) for _ in range(count)]
    for options in ({}, {"lengths": [0, 1]}, {"lengths": [0, 0]}):
        with torch.no_grad():
            parts = unpack(cell(x, pack(hx), **options))
        copies = [part.clone() for part in (*parts, x, *hx)]
        for k, part in enumerate(parts):
            part.fill_(7)
            for second, tensor in enumerate((*parts, x, *hx)):
                if second != k:
                    assert_equal(tensor, copies[second])
            part.copy_(copies[k])


@pytest.mark.parametrize("class_name", ["RNN", "LSTM", "GRU"])
def test_layers_survive_copies(class_name: str) -> None:
    layer = getattr(nn, class_name)(3, 4, 2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    for duplicate in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(duplicate) == repr(layer)
        assert_equal(duplicate(x)[0], layer(x)[0])
        with torch.no_grad():
            duplicate.weight_hh_l1.zero_()
        assert not torch.equal(duplicate(x)[0], layer(x)[0])
