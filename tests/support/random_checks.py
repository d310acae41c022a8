"""Runs a random call on the native engine, and compares all results with the oracle.

The oracle is the reference engine in float64, on the same rounded numbers. ``fuzz`` makes as many
calls as it is asked for, with a core that sanitizers watch if one is given.
"""

import copy
from contextlib import ExitStack
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from tests.support.random_calls import Call, make
from tests.support.subjects import unpack
from tests.support.tolerances import close
from unrolled import engines, nn

ABSENT = "no gradient of "


class Inputs:
    """Everything that a call passes, in a dtype: equal numbers whatever that is."""

    def __init__(self, call: Call, spec: Any, dtype: torch.dtype) -> None:
        self.call, self.dtype = call, dtype
        self.random = Random(call.seed)
        self.generator = torch.Generator().manual_seed(call.seed)
        self.leaves: dict[str, Tensor] = {}
        self.copies = (3,) if call.form == "vmap" else ()
        T, N = call.T, call.N
        self.time = int(call.batch_first)
        shape = [T, N] if not self.time else [N, T]
        if call.is_step:
            shape = [N]
        if not call.batched:
            shape = shape[:-1]
        self.x = self._values([*self.copies, *shape, call.I])
        layers = [] if call.is_step else [spec.num_layers * spec.num_directions]
        batch = [N] if call.batched else []
        forms = {"each": batch, "shared": batch and [1]}
        self.hx = self._states("hx", spec, [*layers, *batch]) if call.with_states else None
        self.options: dict[str, Any] = {}
        if call.lengths is not None and call.form != "packed":
            as_lengths = self.random.choice((list, torch.tensor, lambda v: torch.tensor(v).int()))
            self.options["lengths"] = as_lengths(list(call.lengths))
        if call.resets:
            cuts = torch.rand(shape, generator=self.generator)
            self.options["resets"] = cuts < call.resets
        if call.reset_state in forms:
            lead = [*layers, *forms[call.reset_state]]
            if not (call.is_step and call.reset_state == "shared"):
                self.options["reset_state"] = self._states("reset", spec, lead)

    def numbers(self, shape: list[int]) -> Tensor:
        result = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return result.to(self.call.dtype).to(self.dtype)

    def _leaf(self, name: str, shape: list[int]) -> Tensor:
        leaf = self.numbers(shape)
        if self.random.random() >= self.call.frozen:
            self.leaves[name] = leaf.requires_grad_()
        return leaf

    def _states(self, name: str, spec: Any, lead: list[int]) -> Any:
        results = []
        for state, width in zip(spec.cell.states, spec.state_widths, strict=True):
            leaf = self._leaf(f"{name} {state}", [*lead, width])
            # A normaliser is positive.
            results.append(leaf.abs() + 0.5 if state == "n" else leaf)
        return results[0] if len(results) == 1 else tuple(results)

    def _values(self, shape: list[int]) -> Any:
        call, memory = self.call, self.call.memory
        if call.form in ("grad", "vmap", "packed") or not call.batched or call.is_step:
            memory = "strided" if memory == "strided" else "contiguous"
        if memory == "transposed":
            return self._leaf("input", shape[::-1]).permute(*range(len(shape))[::-1])
        if memory == "strided":
            return self._leaf("input", [*shape[:-1], 2 * shape[-1]])[..., ::2]
        if memory.startswith("expanded"):
            axis = self.time if memory == "expanded time" else 1 - self.time
            leaf = self._leaf("input", [1 if k == axis else n for k, n in enumerate(shape)])
            return leaf.expand(shape)
        leaf = self._leaf("input", shape)
        if call.poisoned and call.lengths is not None and call.form == "batched":
            with torch.no_grad():
                for n, length in enumerate(call.lengths):
                    rows = leaf[n] if self.time else leaf[:, n]
                    rows[length:] = torch.nan
        return leaf if call.form != "packed" else self._packed(leaf)

    def _packed(self, x: Tensor) -> PackedSequence:
        lengths = list(self.call.lengths or ())
        return pack_padded_sequence(x, lengths, bool(self.time), enforce_sorted=False)


def outcome(call: Call, module: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """Everything that a caller can see of one call, and of backward after it."""
    inputs = Inputs(call, module.spec, dtype)
    if call.form in ("grad", "vmap"):
        return _transformed(call, module, inputs)
    with ExitStack() as stack:
        if call.mode != "grad":
            stack.enter_context(
                torch.no_grad() if call.mode == "no_grad" else torch.inference_mode()
            )
        parts = _results(module, inputs.x, inputs.hx, inputs.options)
    actual = dict(zip(_names(parts), parts, strict=True))
    leaves = inputs.leaves | {n: p for n, p in module.named_parameters() if p.requires_grad}
    if call.mode != "grad" or not leaves:
        return actual
    retained = {"all": parts, "output": parts[:1], "states": parts[1:], "last": parts[-1:]}
    ends = retained[call.output_grads] or parts
    output_grads = [
        inputs.numbers([]).expand(p.shape) if call.expanded else inputs.numbers(list(p.shape))
        for p in ends
    ]
    grads = _gradients(ends, leaves, output_grads)
    if call.recorded:
        repeated = _gradients(ends, leaves, output_grads)
        for name, gradient in grads.items():
            if name.startswith(ABSENT):
                continue
            # Sums beyond float16 are infinite, and what is made of those is no number: both times.
            is_equal = torch.allclose(gradient, repeated[name], rtol=0, atol=0, equal_nan=True)
            assert is_equal, f"{name}: another one the second time"
    return actual | grads


def _gradients(
    ends: list[Tensor], leaves: dict[str, Tensor], output_grads: list[Tensor]
) -> dict[str, Tensor]:
    """Gradients by name, zeros where there is none; ``ABSENT`` and a name, of parameters alone:
    whether there is none."""
    pairs = [
        (end, gradient)
        for end, gradient in zip(ends, output_grads, strict=True)
        if end.requires_grad
    ]
    expected = list(leaves.values())
    actual: tuple[Tensor | None, ...] = (None,) * len(expected)
    if pairs:
        selected, arguments = zip(*pairs, strict=True)
        actual = torch.autograd.grad(
            selected, expected, arguments, retain_graph=True, allow_unused=True
        )
    result = {}
    for (name, leaf), gradient in zip(leaves.items(), actual, strict=True):
        if isinstance(leaf, torch.nn.Parameter):
            result[ABSENT + name] = torch.tensor(gradient is None)
        result[f"gradient of {name}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return result


def _results(module: Any, x: Any, hx: Any, options: dict[str, Any]) -> list[Tensor]:
    actual = module(x, hx, **options)
    if isinstance(module, nn.RecurrentCell):
        return list(unpack(actual))
    output, final = actual
    data = output.data if isinstance(output, PackedSequence) else output
    return [data, *unpack(final)]


def _names(parts: list[Tensor]) -> list[str]:
    return [f"result {k}" for k in range(len(parts))]


def _transformed(call: Call, module: Any, inputs: Inputs) -> dict[str, Tensor]:
    """Gradients by torch.func; under vmap of several inputs side by side, one sample each."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    constants = [inputs.numbers([]) for _ in range(8)]

    def loss(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
        named = (inputs.hx,), inputs.options
        output = torch.func.functional_call(module, weights, (x, *named[0]), named[1])
        parts = [output[0], *unpack(output[1])]
        pairs = zip(parts, constants, strict=False)
        return sum((part.sin() * c).sum() for part, c in pairs), parts  # type: ignore[return-value]

    run: Any = torch.func.grad(loss, argnums=(0, 1), has_aux=True)
    if call.form == "vmap":
        run = torch.func.vmap(run, in_dims=(None, 0))
    (output_grads, gradient), parts = run(parameters, inputs.x.detach())
    named = {f"gradient of {name}": tensor for name, tensor in output_grads.items()}
    return dict(zip(_names(parts), parts, strict=True)) | named | {"gradient of input": gradient}


def check(call: Call) -> None:
    """Make a call on the native engine and compare all that comes out with the reference.

    Raises:
        AssertionError: a value or a gradient differs, or another engine ran.
    """
    module = make(call)
    reference_layer = copy.deepcopy(module).double()
    ran: list[str] | None = None
    with ExitStack() as stack:
        stack.enter_context(engines.use("native"))
        if call.build:
            stack.enter_context(engines.use_build(call.build))
        if call.recorded:
            ran = stack.enter_context(engines.record())
        torch.set_num_threads(call.threads)
        ours = outcome(call, module, call.dtype)
        torch.set_num_threads(1)
    if ran is not None:
        assert ran
        assert set(ran) == {"native"}
    with engines.use("reference"):
        expected = outcome(call, reference_layer, torch.float64)
        half = call.dtype in (torch.bfloat16, torch.float16)
        rounded = outcome(call, module, call.dtype) if half or call.random_cell else expected
    assert ours.keys() == expected.keys()
    low = call.dtype != torch.float64
    for name, actual in ours.items():
        if name.startswith(ABSENT):
            # What the step uses but no result with an output gradient depends on may have zeros.
            is_equal = actual == expected[name] or (expected[name] and call.output_grads != "all")
            assert is_equal, f"{name}: {bool(actual)}, and {bool(expected[name])} by the reference"
            continue
        gradient = name.startswith("gradient")
        if gradient and low and call.kinked:
            continue
        assert actual.dtype == call.dtype, f"{name}: {actual.dtype}"
        close(actual, expected[name], "random", name, rounded_reference=rounded[name])
