from collections.abc import Callable, Sequence
from typing import Any

class Program:
    saved_width: int
    saved_whole: bool
    def __init__(self, text: str, H: int, P: int) -> None: ...

def instruction_sets() -> dict[str, bool]: ...
def builds() -> list[str]: ...
def forward(
    program: Program, build: str, wide: bool, shape: Sequence[int], arrays: Sequence[int]
) -> None: ...
def backward(
    program: Program, build: str, wide: bool, shape: Sequence[int], arrays: Sequence[int]
) -> None: ...

class Direct:
    def __init__(
        self,
        ways: list[tuple[Program, tuple[str | None, ...], bool, int]],
        widths: list[int],
        cell: dict[str, Any],
        kinds: tuple[type, type],
        dtypes: tuple[Any, Any],
        watchers: tuple[Callable[[], Any], ...],
        merge: Callable[[list[Any]], Any] | None,
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
