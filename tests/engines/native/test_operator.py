"""The operator of torch.library: torch's own checks of it, and its values against the layers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.subjects import tokens
from unrolled import cells, engines, nn
from unrolled.engines._native import programs

OP = torch.ops.unrolled.sweep
T, N, I, H = 5, 4, 3, 6  # noqa: E741
LAYERS = {
    "rnn": lambda **o: nn.RNN(I, H, **o),
    "gru": lambda **o: nn.GRU(I, H, bias=False, **o),
    "lstm": lambda **o: nn.LSTM(I, H, **o),
    "projected": lambda **o: nn.LSTM(I, H, proj_size=2, **o),
    "peephole": lambda **o: nn.Recurrent(cells.PeepholeLSTM, I, H, **o),
    "reset_before": lambda **o: nn.Recurrent(cells.ResetBeforeGRU, I, H, **o),
}
CUTS = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]).bool()
FORMS: dict[str, dict[str, Any]] = {
    "dense": {},
    "batch_first": {"batch_first": True},
    "reverse": {"reverse": True},
    "lengths": {"lengths": torch.tensor([3, 5, 0, 1])},
    "resets": {"resets": CUTS, "reverse": True},
    "all": {"lengths": torch.tensor([3, 5, 0, 1]), "resets": CUTS, "reset_states": True},
}


def states_of(layer: nn.Recurrent, seed: int) -> list[Tensor]:
    return [tokens(N, w, seed=seed + k) for k, w in enumerate(layer.spec.state_widths)]


def arguments(layer: nn.Recurrent, x: Tensor, training: bool = True, **form: Any) -> list[Any]:
    """What the operator takes, for a layer's parameters."""
    spec = layer.spec
    sizes = spec.sizes(0)
    actual = programs.traced_program(spec.cell, sizes.projected)
    parameters = {name.removesuffix("_l0"): p for name, p in layer.named_parameters()}
    matrices = [parameters.get(name, x.new_empty(0)) for name in actual.matrix_names()]
    vectors = [parameters[name] for name in spec.cell.vectors]
    reset_states = states_of(layer, 20) if form.get("reset_states") else []
    form = {"batch_first": False, "reverse": False, "lengths": None, "resets": None} | form
    flags = [form[key] for key in ("batch_first", "reverse", "lengths", "resets")]
    states = form.get("states") or states_of(layer, 10)
    program = [actual.text, [sizes.H, sizes.P]]
    return [x, states, reset_states, matrices, vectors, *program, *flags, training]


def input_for(form: dict[str, Any], seed: int = 1) -> Tensor:
    return tokens(N, T, I, seed=seed) if form.get("batch_first") else tokens(T, N, I, seed=seed)


def doubled(states: list[Tensor]) -> Any:
    """States for both directions, as a layer takes them."""
    pairs = tuple(torch.stack([state, state]) for state in states)
    return pairs if len(pairs) > 1 else pairs[0]


@pytest.mark.sampled
@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("form", FORMS)
def test_torch_approves_of_the_operator(layer_name: str, form: str) -> None:
    layer = LAYERS[layer_name](dtype=torch.float64)
    operands = arguments(layer, input_for(FORMS[form]), **FORMS[form])
    actual = torch.library.opcheck(OP.default, operands)
    assert set(actual.values()) == {"SUCCESS"}


def test_torch_approves_of_it_without_gradient() -> None:
    layer = LAYERS["lstm"](dtype=torch.float64)
    operands = torch.utils._pytree.tree_map(
        lambda t: t.detach() if isinstance(t, Tensor) else t,
        arguments(layer, input_for({}), training=False),
    )
    assert set(torch.library.opcheck(OP.default, operands).values()) == {"SUCCESS"}
    *_, saved = OP(*operands)
    assert saved.numel() == 0
    with pytest.raises(RuntimeError, match="training must be True"):
        OP(*arguments(layer, input_for({}), training=False))[0].sum().backward()


@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_the_layer_s(layer_name: str, form: str) -> None:
    options = FORMS[form]
    batch_first, reverse = options.get("batch_first", False), options.get("reverse", False)
    layer = LAYERS[layer_name](dtype=torch.float64, batch_first=batch_first)
    x = input_for(options)
    operands = arguments(layer, x, **options)
    output, final, _ = OP(*operands)
    bidirectional = LAYERS[layer_name](
        dtype=torch.float64, batch_first=batch_first, bidirectional=True
    )
    for name, p in layer.named_parameters():
        for suffix in ("", "_reverse"):
            getattr(bidirectional, name + suffix).data = p.data.clone()
    reset_states = doubled(operands[2]) if operands[2] else None
    with engines.use("reference"):
        both_directions, ends = bidirectional(
            x,
            doubled(operands[1]),
            lengths=options.get("lengths"),
            resets=options.get("resets"),
            reset_state=reset_states,
        )
    width = output.shape[2]
    expected = both_directions[..., width:] if reverse else both_directions[..., :width]
    ends = ends if isinstance(ends, tuple) else (ends,)
    expected_states = [end[1 if reverse else 0] for end in ends]
    for a, b in zip([output, *final], [expected, *expected_states], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    output_grads = [torch.randn_like(part) for part in (output, *final)]
    suffix = "_reverse" if reverse else ""
    mine = [x, *operands[1], *operands[2], *layer.parameters()]
    theirs = [x, *operands[1], *operands[2]]
    theirs += [getattr(bidirectional, name + suffix) for name, _ in layer.named_parameters()]
    grads = torch.autograd.grad([output, *final], mine, output_grads, materialize_grads=True)
    true = torch.autograd.grad(
        [expected, *expected_states], theirs, output_grads, materialize_grads=True
    )
    for a, b in zip(grads, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_a_compiled_function_holds_it_whole() -> None:
    layer, x = LAYERS["lstm"](dtype=torch.float64), input_for({})
    operands = arguments(layer, x)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def run(x: Tensor) -> Tensor:
        return OP(x, *operands[1:])[0].tanh()

    torch.testing.assert_close(run(x), OP(*operands)[0].tanh(), rtol=0, atol=0)


def test_lists_that_are_none_are_empty() -> None:
    """As AOTInductor passes them; gradients are those of empty lists."""
    layer, x = LAYERS["gru"](dtype=torch.float64), tokens(T, N, I)
    results = []
    for empty in ([], None):
        operands = arguments(layer, x)
        operands[2] = operands[4] = empty
        leaves = [x, *layer.parameters()]
        results.append(torch.autograd.grad(OP(*operands)[0].square().sum(), leaves))
    for mine, expected in zip(*results, strict=True):
        assert torch.equal(mine, expected)


def test_flat_values_and_other_texts_are_refused() -> None:
    layer, x = LAYERS["gru"](dtype=torch.float64), input_for({})
    operands = arguments(layer, x)
    with pytest.raises(ValueError, match="values must be 3D, got 2D"):
        OP(x[0], *arguments(layer, x)[1:])
    with pytest.raises(ValueError, match="must be `unrolled-program 1`"):
        OP(*operands[:5], "hello", *operands[6:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_tensors_of_several_or_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    """The core would read out of bounds."""
    layer, x = LAYERS["lstm"](), input_for({}).float()
    operands = arguments(layer, x)
    operands[1] = [state.float() for state in operands[1]]
    OP(*operands)
    for place in (0, 1, 3):
        wrong = list(operands)
        wrong[place] = x.to(dtype) if place == 0 else [t.to(dtype) for t in operands[place]]
        with pytest.raises(RuntimeError, match="must be on the CPU, all in float32, float64"):
            OP(*wrong)
    output, finals, saved = OP(*operands)
    gradient, ends = torch.ones_like(output), [torch.ones_like(end) for end in finals]
    task = operands[:-1]
    back = torch.ops.unrolled.sweep_backward
    back(*task, output, saved, gradient, ends)
    for tensors in ((output.to(dtype), saved, gradient), (output, saved.to(dtype), gradient)):
        with pytest.raises(RuntimeError, match="must be on the CPU, all in float32, float64"):
            back(*task, *tensors, ends)
    with pytest.raises(RuntimeError, match="must be on the CPU, all in float32, float64"):
        back(*task, output, saved, gradient.to(dtype), ends)
