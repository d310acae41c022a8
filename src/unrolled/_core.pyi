from collections.abc import Callable, Sequence
from typing import Any

class Program:
    state_widths: list[int]
    saved_width: int
    saved_whole: bool
    room: int
    reached: tuple[list[bool], list[bool], list[bool]]
    def __init__(self, text: str, H: int, P: int, I: int = 0) -> None: ...

def instruction_sets() -> dict[str, bool]: ...
def builds() -> list[str]: ...
def forward(
    program: Program, build: str, wide: bool, shape: Sequence[int], arrays: Sequence[int]
) -> None: ...
def backward(
    program: Program, build: str, wide: bool, shape: Sequence[int], arrays: Sequence[int]
) -> None: ...
def name_tensors(kind: type, single: Any) -> None: ...

class Work:
    total: int
    def reached(self, tensor: int) -> bool: ...
    def __init__(
        self,
        program: Program,
        build: str,
        place: tuple[int, int, int, int, int, int],
        counts: Any,
        table: Any,
        states: int,
        parameters: Sequence[int],
        form: Sequence[Sequence[int]],
        groups: int,
    ) -> None: ...
    def forward(self, tensors: Sequence[Any], training: bool, threads: int) -> Any: ...
    def backward(
        self,
        tensors: Sequence[Any],
        output: Any,
        saved: Any,
        slopes: Sequence[Any],
        needs: Sequence[bool],
        threads: int,
    ) -> list[Any]: ...
    def forward_each(
        self,
        count: int,
        stacked: Sequence[bool],
        tensors: Sequence[Any],
        training: bool,
        threads: int,
    ) -> Any: ...
    def backward_each(
        self,
        count: int,
        stacked: Sequence[bool],
        tensors: Sequence[Any],
        output: Any,
        saved: Any,
        slopes: Sequence[Any],
        needs: Sequence[bool],
        threads: int,
    ) -> list[Any]: ...
    def forward_both(
        self,
        other: Work,
        own: Sequence[Any],
        others: Sequence[Any],
        training: bool,
        threads: int,
    ) -> Any: ...
    def backward_both(
        self, other: Work, own: tuple[Any, ...], others: tuple[Any, ...], threads: int
    ) -> tuple[list[Any], list[Any]]: ...

class Direct:
    def __init__(
        self,
        ways: list[tuple[Program, tuple[str | None, ...], list[tuple[int, ...]], bool, int]],
        widths: list[int],
        cell: dict[str, Any],
        kinds: tuple[type, type],
        watchers: tuple[Callable[[], Any], ...],
        merge: Callable[[list[Any]], Any] | None,
        step: bool,
    ) -> None: ...
    def __call__(
        self,
        input: Any,
        hx: Any,
        parameters: dict[str, Any],
        batch_first: bool,
        grad: bool,
        build: str,
        threads: int,
    ) -> Any: ...

class Layer:
    def __init__(
        self, program: Program, inputs: int, arrays: list[Any], weights: str, build: str
    ) -> None: ...
    def run(self, shape: Sequence[int], arrays: Sequence[int]) -> None: ...

class Line:
    def __init__(
        self, weight: Any, bias: Any, width: int, source: int, weights: str, build: str
    ) -> None: ...
    def run(self, rows: Any, to: Any, count: int) -> None: ...

class Pooling:
    def __init__(self, name: str, width: int, keys: Any, query: Any) -> None: ...
    def run(self, rows: Any, lengths: Any, T: int, N: int, to: Any) -> None: ...

def activate(name: str, rows: Any, count: int, width: int) -> None: ...

class Stream:
    def __init__(
        self,
        table: Any,
        tokens: int,
        scale: Any,
        width: int,
        stages: list[Any],
        starts: list[Any],
        batch: int,
        empty: Callable[[tuple[int, int]], Any],
        threads: int,
    ) -> None: ...
    def step(self, x: Any, out: Any = None) -> Any: ...
    def copy_state(self, k: int, array: Any, written: bool) -> None: ...
    def begin(self, rows: Any) -> None: ...
