"""Calls of the core: tensors, sizes and programs that do not fit are refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from unrolled import _core, cells
from unrolled.program import make_program
from unrolled.program._encode import encode

TEXT = encode(make_program(cells.GRU()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "must be `unrolled-program 1`"),
        (lambda text: text.replace("program 1", "program 3"), "must be `unrolled-program 1`"),
        (lambda text: text.replace("node sig", "node xyz", 1), "unknown operation xyz"),
        (
            lambda text: text.replace("node add H 1 4", "node add H 1"),
            "2 arguments, got 1",
        ),
        (
            lambda text: text.replace("node add H 1 4", "node add H 1 400"),
            "it is read, got 400",
        ),
        (
            lambda text: text.replace("node add H 1 4", "node add 3 1 4"),
            "width must be that",
        ),
        (lambda text: text.replace("node x H 2", "node x H 7"), "an index must be below 3, got 7"),
        (lambda text: text.replace("node x H 2", "node x"), "the line ends too early"),
        (lambda text: text.replace("forward 18", "forward"), "each state must have a new value"),
        (lambda text: text.replace("dx ", "dz "), "unknown section `dz`"),
        (lambda text: text.replace("input 3 H", "input 0 H"), "must be below 0, got 0"),
        (lambda text: text.replace("state H", "state -4"), "from 0 to 16777216, got -4"),
        (lambda text: text[: len(text) // 2], "."),
    ],
)
def test_a_damaged_program_is_refused(change: Callable[[str], str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.Program(change(TEXT), 4, 4)


def test_a_run_whose_tensors_do_not_fit_is_refused() -> None:
    program = _core.Program(TEXT, 4, 4)
    place = (2, 1, 2, 0, 1, 1)
    work = _core.CompiledSweep(program, "", place, None, None, 0, [1, 2, 3, 4], [(1, 4)], 1, False)
    fitting = [torch.randn(shape) for shape in [(2, 5), (12, 5), (12,), (12, 4), (12,)]]
    output, saved, final = work.forward(fitting, True, 1)
    assert output.shape == (2, 4)
    assert final[0].shape == (1, 4)
    output_grads = [torch.ones(2, 4), None]
    assert len(work.backward(fitting, output, saved, output_grads, [True] * 5, 1)) == 5
    for k, wrong in enumerate([torch.randn(2, 5).int(), torch.randn(5, 12), torch.randn(11)]):
        with pytest.raises((RuntimeError, ValueError), match=r"must (have shape|be on the CPU)"):
            work.forward([*fitting[:k], wrong, *fitting[k + 1 :]], False, 1)
    with pytest.raises(ValueError, match="parameters: must be below the 3 tensors, got 3"):
        work.forward(fitting[:3], False, 1)
    with pytest.raises(ValueError, match="tensors: must have 1 or more, tokens and states, got 0"):
        work.forward([], False, 1)
    wide = torch.full((2, 8), torch.nan)[:, ::2].copy_(output)
    retained = torch.full((2, saved.shape[1] + 3), torch.nan)[:, 1:-2].copy_(saved)
    actual = work.backward(fitting, wide, retained, output_grads, [True] * 5, 1)
    expected = work.backward(fitting, output, saved, output_grads, [True] * 5, 1)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    with pytest.raises(ValueError, match="needs: must have one entry a tensor, got more"):
        work.backward(fitting, output, saved, output_grads, [True] * 6, 1)
    with pytest.raises(RuntimeError, match="tensors: must be on the CPU, all in float32"):
        work.backward(fitting, output, saved, [output_grads[0].double(), None], [True] * 5, 1)
    with pytest.raises(RuntimeError, match="meta"):
        work.forward([fitting[0].to("meta"), *fitting[1:]], False, 1)
    with pytest.raises(ValueError, match="state_shapes: must have 1 entries, got 0"):
        _core.CompiledSweep(program, "", place, None, None, 0, [1, 2, 3, 4], [], 1, False)
    work = _core.CompiledSweep(program, "", place, None, None, 0, [1, 2, 3, 4], [(1, 4)], 2, False)
    with pytest.raises(ValueError, match="groups: must divide the sequences of each step, got 2"):
        work.backward(fitting, output, saved, output_grads, [True] * 5, 1)


def test_runs_side_by_side_whose_tensors_do_not_fit_are_refused() -> None:
    program = _core.Program(TEXT, 4, 4)
    work = _core.CompiledSweep(
        program, "", (2, 1, 2, 0, 1, 1), None, None, 0, [1, 2, 3, 4], [(1, 4)], 1, False
    )
    fitting = [torch.randn(shape) for shape in [(2, 5), (3, 12, 5), (12,), (3, 12, 4), (12,)]]
    stacked = [False, True, False, True, False]
    output, saved, _ = work.forward_batched(3, stacked, fitting, True, 1)
    assert output.shape == (3, 2, 4)
    for k, wrong in ((1, torch.randn(12, 5)), (3, torch.randn(2, 12, 4)), (2, torch.randn(3, 12))):
        with pytest.raises(
            (RuntimeError, ValueError), match=r"must have (shape|a first dimension of 3)"
        ):
            work.forward_batched(3, stacked, [*fitting[:k], wrong, *fitting[k + 1 :]], True, 1)
    output_grads = [torch.ones(3, 2, 4), None]
    needs = [True] * 5
    actual = work.backward_batched(
        3, [*stacked, *[True] * 4], fitting, output, saved, output_grads, needs, 1
    )
    assert [grad.shape[0] for grad in actual] == [3] * 5
    with pytest.raises(ValueError, match=r"must have \d+ elements, got"):
        work.backward_batched(3, stacked, fitting, output, saved, output_grads, needs, 1)


def test_a_class_that_is_not_a_tensor_raises() -> None:
    with pytest.raises(AttributeError):
        _core.name_tensors(int, torch.empty(0))


def test_sizes_that_do_not_fit_the_program_are_refused() -> None:
    program = _core.Program(TEXT, 4, 4)
    a = torch.zeros(1000)
    stacked = torch.tensor([1, 2])
    names = ["sizes", "table", "tokens", "output", "saved", "w_x", "b_x", "w", "b", "start", "end"]
    fitting = [(0, 0), (0, 0), *((a.data_ptr(), n) for n in (10, 8)), (0, 0)]
    fitting += [(a.data_ptr(), n) for n in (12 * 5, 12, 12 * 4, 12, 4, 4)]

    def call(T: int = 2, N: int = 1, rows: int = 2, build: str = "", **changed: Any) -> None:
        parameters = {**dict(zip(names, fitting, strict=True)), **changed}
        numbers = [number for pair in parameters.values() for number in pair]
        _core.forward(program, build, False, [T, N, 5, rows, 0, 1, 1, 1], numbers)

    call()
    with pytest.raises(ValueError, match="shape: T must be at least 1, got 0"):
        call(T=0)
    with pytest.raises(ValueError, match="shape: N, I and rows must not be negative, got -1, 5, 2"):
        call(N=-1)
    with pytest.raises(ValueError, match="shape: strides must stay within the 2 rows, got 1, 1"):
        call(T=3)
    with pytest.raises(ValueError, match="sizes: must be from 0 to N and not rise, got 2 behind 1"):
        call(sizes=(stacked.data_ptr(), 2))
    with pytest.raises(ValueError, match="table: rows must be from 0 to 1, got 2"):
        call(table=(stacked.data_ptr(), 2))
    with pytest.raises(ValueError, match="tokens: must have 10 elements, got 9"):
        call(tokens=(a.data_ptr(), 9))
    with pytest.raises(ValueError, match="output: must have 8 elements, got 0"):
        call(output=(0, 0))
    with pytest.raises(ValueError, match="saved: must have 128 elements, got 33"):
        call(saved=(a.data_ptr(), 32 + 1))
    with pytest.raises(ValueError, match="arrays: must be those of the program, got more"):
        call(more=(0, 0))
    with pytest.raises(ValueError, match="sizes: product must be from 0 to"):
        call(T=1 << 40, N=1 << 40)
    with pytest.raises(ValueError, match="arrays: must have an entry for table, got too few"):
        _core.forward(program, "", False, [2, 1, 5, 2, 0, 1, 1, 1], [0, 0])
    with pytest.raises(ValueError, match="build must be one that can run here, got sse"):
        call(build="sse")
