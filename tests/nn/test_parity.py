"""Layers give torch.nn's numbers: outputs, states and gradients, over the whole space of options.

In bfloat16 the oracle is torch.nn in float64 on the same rounded numbers: closer than torch.nn in
bfloat16, which rounds the state at each step.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from tests.support.subjects import unpack
from tests.support.tolerances import close
from unrolled import engines, nn

# torch says so once a process, of its own slow path; our layers, when they take it, as well.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")

SIZES = (1, 3, 5, 7, 13, 17)
FORMS = ("batched", "unbatched", "packed", "packed unsorted")
MEMORY = ("contiguous", "transposed", "strided", "expanded batch", "expanded time")


@dataclass(frozen=True)
class Case:
    """One point of the option space."""

    class_name: str
    options: dict[str, Any]
    dtype: torch.dtype
    engine: str
    training: bool
    form: str
    memory: str
    lengths: tuple[int, ...]
    T: int
    N: int
    with_states: bool
    input_gradient: bool
    frozen: str
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    class_name = draw(st.sampled_from(["RNN", "relu", "LSTM", "GRU"]))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    H = draw(st.sampled_from(SIZES))
    # ReLU's derivative jumps at 0, and rounding between layers moves values across it.
    max_layers = 1 if class_name == "relu" and dtype == torch.bfloat16 else 4
    L = draw(st.integers(1, max_layers))
    options = {
        "input_size": draw(st.sampled_from(SIZES)),
        "hidden_size": H,
        "num_layers": L,
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.0, 0.3, 1.0])) if L > 1 else 0.0,
    }
    if class_name == "LSTM" and H > 1:
        options["proj_size"] = draw(st.sampled_from([0, 0, 1, (H + 1) // 2, H - 1]))
    if class_name == "relu":
        options["nonlinearity"] = "relu"
    form = draw(st.sampled_from(FORMS))
    T = draw(st.sampled_from([1, 2, 3, 5, 8]))
    N = draw(st.sampled_from([1, 2, 3, 5, 7] if form.startswith("packed") else [0, 1, 2, 3, 7]))
    lengths = [T, *(draw(st.integers(1, T)) for _ in range(N - 1))]
    if form == "packed":
        lengths.sort(reverse=True)
    elif form == "packed unsorted":
        lengths = draw(st.permutations(lengths))
    return Case(
        class_name=class_name,
        options=options,
        dtype=dtype,
        engine="reference"
        if dtype == torch.bfloat16
        else draw(st.sampled_from(list(engines.ENGINES))),
        training=draw(st.booleans()),
        form=form,
        memory=draw(st.sampled_from(MEMORY)),
        lengths=tuple(lengths),
        T=T,
        N=N,
        with_states=draw(st.booleans()),
        input_gradient=draw(st.booleans()),
        frozen=draw(st.sampled_from(["none", "none", "every second", "all but one", "all"])),
        seed=draw(st.integers(0, 2**16)),
    )


def build(module: Any, case: Case) -> Any:
    torch.manual_seed(case.seed)
    name = "RNN" if case.class_name == "relu" else case.class_name
    layer = getattr(module, name)(**case.options, dtype=case.dtype).train(case.training)
    for k, parameter in enumerate(layer.parameters()):
        keep = {"none": True, "every second": k % 2 == 1, "all but one": k == 1, "all": False}
        parameter.requires_grad_(keep[case.frozen])
    return layer


def numbers(shape: list[int], case: Case, dtype: torch.dtype) -> Tensor:
    """Random leaf with the case's rounding, in the dtype of the run."""
    return torch.randn(shape, dtype=torch.float64).to(case.dtype).to(dtype)


def arrange(shape: list[int], case: Case, dtype: torch.dtype, time: int) -> tuple[Tensor, Tensor]:
    """A leaf, and the tensor of the given shape that is a view of it in the case's memory."""
    memory, batch = case.memory, len(shape) - 2 - time

    def leaf_of(shape: list[int]) -> Tensor:
        return numbers(shape, case, dtype).requires_grad_(case.input_gradient)

    if case.form == "unbatched" and memory == "expanded batch":
        memory = "strided"
    if memory == "transposed":
        leaf = leaf_of(shape[::-1])
        return leaf, leaf.permute(*range(len(shape))[::-1])
    if memory == "strided":
        leaf = leaf_of([*shape[:-1], 2 * shape[-1]])
        return leaf, leaf[..., ::2]
    if memory.startswith("expanded"):
        axis = time if memory == "expanded time" else batch
        leaf = leaf_of([1 if k == axis else size for k, size in enumerate(shape)])
        return leaf, leaf.expand(shape)
    leaf = leaf_of(shape)
    return leaf, leaf


def outcome(layer: Any, case: Case, dtype: torch.dtype) -> dict[str, Tensor | None]:
    """Everything that a caller can see of one forward and backward."""
    torch.manual_seed(case.seed + 1)
    o, (T, N) = case.options, (case.T, case.N)
    time = int(o["batch_first"] and case.form != "unbatched")
    batch = [] if case.form == "unbatched" else [N]
    order = [N, T] if time else [T, *batch]
    leaf, x = arrange([*order, o["input_size"]], case, dtype, time)
    data_in: Any = x
    if case.form.startswith("packed"):
        sorted_ = case.form == "packed"
        data_in = pack_padded_sequence(x, list(case.lengths), bool(time), enforce_sorted=sorted_)
    LD = o["num_layers"] * (2 if o["bidirectional"] else 1)
    widths = [o.get("proj_size") or o["hidden_size"]]
    widths += [o["hidden_size"]] if case.class_name == "LSTM" else []
    hx = [numbers([LD, *batch, width], case, dtype).requires_grad_() for width in widths]
    passed = (hx[0] if len(hx) == 1 else tuple(hx)) if case.with_states else None
    output, final = layer(data_in, passed)
    data = output.data if isinstance(output, PackedSequence) else output
    actual: dict[str, Tensor | None] = {"output": data}
    actual |= {f"final state {k}": state for k, state in enumerate(unpack(final))}
    if isinstance(output, PackedSequence):
        actual["batch sizes"], actual["order"], actual["inverse"] = output[1:]
    results = [data, *unpack(final)]
    output_grads = [numbers(list(part.shape), case, dtype) for part in results]
    if data.requires_grad:
        torch.autograd.backward(results, output_grads)
    actual["gradient of input"] = leaf.grad
    actual |= {f"gradient of hx {k}": state.grad for k, state in enumerate(hx)}
    actual |= {f"gradient of {name}": p.grad for name, p in layer.named_parameters()}
    return actual


@settings(max_examples=200)
@given(case=cases())
def test_layers_give_torchs_numbers(case: Case) -> None:
    ours, theirs = build(nn, case), build(torch.nn, case)
    for (name, mine), (expected, reference) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == expected
        assert torch.equal(mine, reference), f"{name} starts from other numbers"
    oracle = torch.float64 if case.dtype == torch.bfloat16 else case.dtype
    wanted_all = outcome(theirs.to(oracle), case, oracle)
    with engines.use(case.engine), engines.record() as ran:
        outcomes = outcome(ours, case, case.dtype)
    assert ran == [case.engine] * len(ours.all_weights)
    assert outcomes.keys() == wanted_all.keys()
    for name, expected in wanted_all.items():
        actual = outcomes[name]
        if expected is None or actual is None:
            assert actual is expected, f"{name}: {actual} and not {expected}"
        elif expected.dtype == torch.int64:
            assert torch.equal(actual, expected), name
        else:
            assert actual.dtype == case.dtype, name
            close(actual, expected, "gradient" if "gradient" in name else "output", name)


@pytest.mark.parametrize("class_name", ["RNN", "LSTM", "GRU"])
def test_bfloat16_is_close_to_torch_in_bfloat16(class_name: str) -> None:
    x = torch.randn(5, 3, 7, dtype=torch.bfloat16)
    theirs = getattr(torch.nn, class_name)(7, 5, 2, bidirectional=True, dtype=torch.bfloat16)
    ours = getattr(nn, class_name)(7, 5, 2, bidirectional=True, dtype=torch.bfloat16)
    ours.load_state_dict(theirs.state_dict())
    for layer in (ours, theirs):
        layer(x)[0].square().sum().backward()
    close(ours(x)[0], theirs(x)[0], "stepwise output")
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(mine.grad, reference.grad, "stepwise gradient")


ATTRIBUTES = ["mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first"]
ATTRIBUTES += ["dropout", "bidirectional", "proj_size"]
OPTIONS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("RNN", (3, 5), {}),
    ("RNN", (3, 5, 2, "relu", False, True, 0.25, True), {}),
    ("RNN", (3, 5), {"nonlinearity": "relu"}),
    ("LSTM", (3, 5), {}),
    ("LSTM", (3, 5, 2, False, True, 0.25, True, 2), {}),
    ("LSTM", (3, 5), {"proj_size": 4, "bidirectional": True}),
    ("LSTM", (), {"input_size": 3, "hidden_size": 5, "dropout": 1, "num_layers": 3}),
    ("GRU", (3, 5), {}),
    ("GRU", (3, 5, 2, False, True, 0.25, True), {}),
    ("GRU", (3, 5), {"bias": False, "bidirectional": 1}),
]


@pytest.mark.parametrize(("class_name", "args", "options"), OPTIONS)
def test_a_layer_looks_like_torchs(
    class_name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    ours, theirs = (
        getattr(nn, class_name)(*args, **options),
        getattr(torch.nn, class_name)(*args, **options),
    )
    assert ours.extra_repr() == theirs.extra_repr()
    assert repr(ours) == f"unrolled.nn.{theirs!r}"
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name in ATTRIBUTES:
        mine, expected = getattr(ours, name), getattr(theirs, name)
        assert (type(mine), mine) == (type(expected), expected), name
    ours.load_state_dict(theirs.state_dict())
    for mine, expected in zip(ours.all_weights, theirs.all_weights, strict=True):
        assert [w.shape for w in mine] == [w.shape for w in expected]
        assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))
    theirs.load_state_dict(getattr(nn, class_name)(*args, **options).state_dict())
    assert ours.flatten_parameters() is None
    torch.manual_seed(3)
    ours.reset_parameters()
    torch.manual_seed(3)
    theirs.reset_parameters()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_dropout_acts_in_training_only() -> None:
    x = torch.randn(5, 3, 4)
    layer = nn.GRU(4, 6, 2, dropout=0.5)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
