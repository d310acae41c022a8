Array = tuple[int, int]

class Program:
    def __init__(self, text: str, H: int, P: int) -> None: ...
    @property
    def state_sources(self) -> list[bool]: ...
    @property
    def stored_widths(self) -> list[int]: ...

class Inputs:
    def __init__(
        self,
        sizes: list[int],
        I: int,
        tokens: Array,
        weights: list[Array],
        biases: list[Array],
        vectors: list[Array],
        initial: list[Array],
        history: list[Array],
        final: list[Array],
        stored: list[Array],
        threads: int,
    ) -> None: ...

def instruction_sets() -> dict[str, bool]: ...
def builds() -> list[str]: ...
def forward(program: Program, build: str, wide: bool, inputs: Inputs) -> None: ...
def backward(
    program: Program,
    build: str,
    wide: bool,
    inputs: Inputs,
    grad_output: Array,
    grad_final: list[Array],
    grad_x: Array,
    grad_products: list[Array],
    sources: list[Array],
    grad_initial: list[Array],
    grad_vectors: list[Array],
    grad_tokens: Array,
    grad_weights: list[Array],
    grad_biases: list[Array],
) -> None: ...
