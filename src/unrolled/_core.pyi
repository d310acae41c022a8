from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64] | NDArray[np.int32]
Tensors = Sequence[Tensor]
BackwardArguments = tuple[Tensors, Tensor, Tensor | None, Sequence[Tensor | None], Sequence[bool]]
"""Tensors, output, saved, gradients of output and final states, which gradients are needed."""

class Program:
    state_widths: list[int]
    saved_width: int
    saved_whole: bool
    footprint: int
    reached: tuple[list[bool], list[bool], list[bool]]
    def __init__(self, text: str, H: int, P: int, I: int = 0) -> None: ...

def instruction_sets() -> dict[str, bool]: ...
def builds() -> list[str]: ...
def multiplies_bfloat16(build: str) -> bool: ...
def forward(
    program: Program, build: str, wide: bool, shape: Sequence[int], arrays: Sequence[int]
) -> None: ...
def backward(
    program: Program, build: str, wide: bool, shape: Sequence[int], arrays: Sequence[int]
) -> None: ...
def name_tensors(kind: type[Tensor], single: Tensor) -> None: ...

class WeightCache:
    bytes: int
    hits: int
    packed: int
    def __init__(self) -> None: ...
    def clear(self) -> None: ...

class CompiledSweep:
    total: int
    bf16_products: bool
    def reached(self, tensor: int) -> bool: ...
    def __init__(
        self,
        program: Program,
        build: str,
        rows: tuple[int, int, int, int, int, int],
        counts: Tensor | None,
        table: Tensor | None,
        states: int,
        parameters: Sequence[int],
        state_shapes: Sequence[Sequence[int]],
        groups: int,
        bf16_products: bool,
    ) -> None: ...
    def forward(
        self,
        tensors: Tensors,
        training: bool,
        threads: int,
        saved_size: int = 0,
        cache: WeightCache | None = None,
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]: ...
    def backward(
        self,
        tensors: Tensors,
        output: Tensor,
        saved: Tensor | None,
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
        threads: int,
    ) -> list[Tensor | None]: ...
    def forward_batched(
        self,
        count: int,
        stacked: Sequence[bool],
        tensors: Tensors,
        training: bool,
        threads: int,
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]: ...
    def backward_batched(
        self,
        count: int,
        stacked: Sequence[bool],
        tensors: Tensors,
        output: Tensor,
        saved: Tensor | None,
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
        threads: int,
    ) -> list[Tensor | None]: ...
    def forward_bidirectional(
        self,
        reverse: CompiledSweep,
        tensors: Tensors,
        reverse_tensors: Tensors,
        training: bool,
        threads: int,
    ) -> tuple[
        tuple[Tensor, Tensor | None, list[Tensor]], tuple[Tensor, Tensor | None, list[Tensor]]
    ]: ...
    def backward_bidirectional(
        self,
        reverse: CompiledSweep,
        arguments: BackwardArguments,
        reverse_arguments: BackwardArguments,
        threads: int,
    ) -> tuple[list[Tensor | None], list[Tensor | None]]: ...

class Environment:
    def __init__(
        self,
        observers: tuple[Callable[[], object], ...],
        forward_ad: dict[str, Any],
        variables: tuple[ContextVar[Any], ...],
        functions: tuple[Callable[[], object], ...],
    ) -> None: ...

class FastPath:
    def __init__(
        self,
        sweeps: list[
            tuple[Program, tuple[str | None, ...], list[tuple[int, ...]], bool, int, WeightCache]
        ],
        widths: list[int],
        classes: tuple[type[Tensor], type[Tensor]],
        environment: Environment,
        merge: Callable[[list[Tensor]], Tensor] | None,
        training: Callable[..., tuple[Tensor, Tensor | tuple[Tensor, ...]] | None],
        step: bool,
    ) -> None: ...
    def __call__(
        self,
        input: object,
        hx: object,
        parameters: dict[str, Parameter | None],
        batch_first: bool,
        /,
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]] | None: ...

class Layer:
    def __init__(
        self,
        program: Program,
        inputs: int,
        arrays: list[Float32Array | None],
        weights: str,
        build: str,
    ) -> None: ...
    def run(self, shape: Sequence[int], arrays: Sequence[int]) -> None: ...

class Linear:
    def __init__(
        self,
        weight: Float32Array,
        bias: Float32Array | None,
        width: int,
        source: int,
        weights: str,
        build: str,
    ) -> None: ...
    def run(self, rows: Float32Array, to: Float32Array, count: int) -> None: ...

class Pooling:
    def __init__(
        self, name: str, width: int, keys: Linear | None, query: Linear | None
    ) -> None: ...
    def run(
        self, rows: Float32Array, lengths: IntArray | None, T: int, N: int, to: Float32Array
    ) -> None: ...

def activate(name: str, rows: Float32Array, count: int, width: int) -> None: ...

class Stream:
    def __init__(
        self,
        table: Float32Array | None,
        tokens: int,
        scale: NDArray[np.float64] | None,
        width: int,
        blocks: list[Layer | Linear | Pooling | str],
        starts: list[tuple[Float32Array, ...] | None],
        batch: int,
        empty: Callable[[tuple[int, int]], Float32Array],
        threads: int,
    ) -> None: ...
    def step(self, x: Any, out: Any = None) -> Any: ...
    def copy_state(self, k: int, array: Float32Array, written: bool) -> None: ...
    def begin(self, rows: IntArray) -> None: ...
