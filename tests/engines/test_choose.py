"""Engines are listed, chosen, forced, recorded and explained."""

import copy
import re
import threading

import pytest
import torch

from tests.support.subjects import LAYERS, RUNS
from tests.support.tolerances import close
from unrolled import cells, engines, nn

X = torch.zeros(3, 2, 3)


def test_the_engines_and_what_they_run() -> None:
    assert list(engines.ENGINES) == ["native", "aten", "reference"]
    fused = {"rnn", "relu", "lstm", "projected", "gru"}
    assert {layer_name for layer_name, engine in RUNS if engine == "aten"} == fused
    assert {layer_name for layer_name, engine in RUNS if engine == "native"} == set(LAYERS)
    assert {layer_name for layer_name, engine in RUNS if engine == "reference"} == set(LAYERS)


@pytest.mark.parametrize("layer_name", LAYERS)
def test_the_default_engine(layer_name: str) -> None:
    layer = LAYERS[layer_name](3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = X.double()
    expected = "native"
    with engines.record() as ran:
        layer(x)
        layer(x, lengths=[1, 3])
        layer(x, resets=torch.ones(3, 2, dtype=torch.bool))
    assert ran == [expected] * 12
    assert engines.explain(layer, x).engine == expected
    assert not engines.explain(layer, x).forced


# torch says so once a process, of its own slow path.
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize(
    ("layer", "dtype", "reason"),
    [
        (nn.Recurrent(cells.GRU, 3, 4), torch.float32, {}),
        (nn.GRU(3, 4), torch.bfloat16, {"aten": "half precision"}),
        (nn.GRU(3, 4), torch.float16, {"aten": "half precision"}),
        (nn.RNN(3, 4, nonlinearity=cells.softsign), torch.float32, {"aten": "no fused function"}),
        (
            nn.RNN(3, 4, nonlinearity=torch.nn.Tanh()),
            torch.float32,
            {"aten": "no fused function", "native": "cell RNN, .*must be Tensor, not Tracer"},
        ),
        (nn.Recurrent(cells.LSTM, 3, 4, proj_size=2), torch.float32, {}),
        (nn.Recurrent(cells.RNN, 3, 4, proj_size=2), torch.float32, {"aten": "no fused function"}),
        (
            nn.Recurrent(type("Own", (cells.LSTM,), {}), 3, 4),
            torch.float32,
            {"aten": "no fused function"},
        ),
    ],
)
def test_explain_has_reasons(
    layer: nn.Recurrent, dtype: torch.dtype, reason: dict[str, str]
) -> None:
    explanation = engines.explain(layer.to(dtype), X.to(dtype))
    assert explanation.engine == next(name for name in engines.ENGINES if name not in reason)
    lines = str(explanation).splitlines()
    assert lines[0] == f"engine: {explanation.engine}"
    for name, why in explanation.refusals.items():
        if name in reason:
            assert re.search(reason[name], str(why))
            assert f"  {name}: {why}" in lines
        else:
            assert why is None
            assert f"  {name}: can run this" in lines
    with engines.record() as ran:
        layer(X.to(dtype))
    assert ran == [explanation.engine]


def test_explain_takes_what_forward_takes_and_fails_as_it_does() -> None:
    layer = nn.LSTM(3, 4)
    hx = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    cuts = torch.ones(3, 2, dtype=torch.bool)
    explanation = engines.explain(layer, X, hx, lengths=[1, 2], resets=cuts, reset_state=hx)
    assert explanation.engine == "native"
    with pytest.raises(RuntimeError, match="hx"):
        engines.explain(layer, X, (hx[0], hx[1][:, :1]))
    assert engines.explain(nn.GRUCell(3, 4), X[0], hx[0][0]).engine == "native"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("T", [1, 3])
def test_the_native_engine_is_the_default(dtype: torch.dtype, T: int) -> None:
    for layer in (
        nn.RNN(3, 4),
        nn.GRU(3, 4),
        nn.LSTM(3, 4, proj_size=2),
        nn.Recurrent(cells.MGU, 3, 4),
    ):
        for lengths in (None, [1, T]):
            with engines.record() as ran:
                layer.to(dtype)(X[:T].to(dtype), lengths=lengths)
                with torch.no_grad():
                    layer(X[:T].to(dtype), lengths=lengths)
            assert ran == ["native"] * 2


def test_explain_does_not_run() -> None:
    with engines.record() as ran:
        engines.explain(nn.GRU(3, 4), X)
    assert ran == []


def test_transforms_run_natively() -> None:
    layer = nn.GRU(3, 4)
    with engines.record() as ran:
        torch.func.vmap(layer, 1, (1, 1))(X)
        torch.func.grad(lambda x: layer(x)[0].sum())(X)
    assert ran == ["native"] * 2


@pytest.mark.parametrize("layer_name", ["rnn", "gru", "lstm", "peephole"])
def test_autocast_is_the_lower_precision(layer_name: str) -> None:
    """Inputs, states and weights are rounded as .bfloat16() rounds them; gradients come back in the
    parameters' dtype; both engines agree."""
    layer = LAYERS[layer_name](3, 4, num_layers=2, bidirectional=True)
    low = copy.deepcopy(layer).bfloat16()
    x = torch.randn(5, 2, 3)
    start = tuple(torch.randn(4, 2, width) for width in layer.spec.state_widths)
    cut = tuple(state.bfloat16() for state in start)
    stacked = len(start) > 1
    expected, _ = low(x.bfloat16(), cut if stacked else cut[0])
    expected.float().sum().backward()
    for name in ("native", "reference"):
        for layer_input in (x, x.bfloat16()):
            layer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16), engines.use(name):
                assert engines.explain(layer, layer_input).engine == name
                with engines.record() as ran:
                    output, _ = layer(layer_input, start if stacked else start[0])
            assert ran == [name] * 4
            assert output.dtype == torch.bfloat16
            close(output, expected, "output")
            output.float().sum().backward()
            for ours, theirs in zip(layer.parameters(), low.parameters(), strict=True):
                assert ours.grad is not None
                assert theirs.grad is not None
                assert ours.grad.dtype == torch.float32
                close(ours.grad.bfloat16(), theirs.grad, "gradient")


def test_autocast_leaves_float64_alone() -> None:
    layer = nn.GRU(3, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), engines.record() as ran:
        assert layer.double()(X.double())[0].dtype == torch.float64
    assert ran == ["native"]


def test_forcing(engine: str) -> None:
    layer = nn.LSTM(3, 4, 2)
    explanation = engines.explain(layer, X)
    assert (explanation.engine, explanation.forced) == (engine, True)
    assert str(explanation).startswith(f"engine: {engine} (forced)")
    with engines.record() as ran:
        layer(X)
        nn.LSTMCell(3, 4)(X[0])
    assert ran == [engine] * 3


def test_forcing_nests_and_ends() -> None:
    layer = nn.GRU(3, 4)
    with engines.record() as ran:
        with engines.use("reference"):
            layer(X)
            with engines.use("aten"):
                layer(X)
            layer(X)
            with pytest.raises(KeyError), engines.use("aten"):
                raise KeyError
            layer(X)
        layer(X)
    assert ran == ["reference", "aten", "reference", "reference", "native"]


def test_records_nest() -> None:
    layer = nn.GRU(3, 4)
    with engines.record() as outer:
        layer(X)
        with engines.record() as inner:
            layer(X)
        layer(X)
    layer(X)
    assert (len(outer), len(inner)) == (3, 1)


def test_forcing_and_recording_stay_in_their_thread() -> None:
    layer = nn.GRU(3, 4)
    inside: list[str] = []
    forced, finished = threading.Event(), threading.Event()

    def other_thread() -> None:
        with engines.use("reference"), engines.record() as ran:
            forced.set()
            assert finished.wait(60)
            layer(X)
            inside.extend(ran)

    thread = threading.Thread(target=other_thread)
    with engines.record() as ran:
        thread.start()
        assert forced.wait(60)
        layer(X)
        assert not engines.explain(layer, X).forced
        finished.set()
        thread.join()
    assert ran == ["native"]
    assert inside == ["reference"]


def test_backward_keeps_the_engine_of_forward() -> None:
    """Backward through a cut re-runs what forward ran, whatever is forced by then."""
    layer = nn.GRU(3, 4)
    x = X.clone()
    x[0] = float("nan")
    cuts = torch.zeros(3, 2, dtype=torch.bool)
    cuts[1] = True
    with engines.record() as ran:
        with engines.use("reference"):
            output = layer(x, resets=cuts)[0]
        output[1:].sum().backward()
    assert ran == ["reference"]
    assert all(p.grad.isfinite().all() for p in layer.parameters())
