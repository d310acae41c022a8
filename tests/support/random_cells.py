"""Random cells, each drawn from one number: a declaration, and the lines of a step.

Which states, gates and vectors a step reads, which products there are and how wide everything is,
is drawn; so are the functions. New states are bounded, so that no sequence diverges. ``str`` of a
drawn cell is its source.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from math import lcm
from random import Random
from typing import Any

from unrolled import cells
from unrolled.cells import Cell

Size = int | str

NUMBERS = (1, 2, 3, 4, 8, 17)
SMOOTH = (
    "tanh({a})",
    "sigmoid({a})",
    "softplus({a})",
    "softsign({a})",
    "exp(0.3 * tanh({a}))",
    "log(1.5 + tanh({a}))",
    "sqrt(1 + {a} * {a})",
    "(1 + {a} ** 2) ** 0.7",
    "-{a}",
    "1 - {a}",
    "{a} + {b}",
    "{a} + {b}",
    "{a} - {b}",
    "0.5 * {a} * {b}",
    "sigmoid({a}) * {b}",
    "{a} / (1 + {b} * {b})",
    "sigmoid({a}) * {b} + (1 - sigmoid({a})) * {c}",
)
# Without hard_sigmoid, whose derivative torch rounds to float32 in float64 too.
KINKED = (
    "abs({a})",
    "relu({a})",
    "hard_tanh(2 * {a})",
    "clip({a}, -0.4, 0.6)",
    "minimum({a}, {b})",
    "maximum({a}, {b})",
    "maximum({a}, 0.1)",
    "where({a} < {b}, {c}, {b})",
    "where(({a} <= {b}) * ({b} > {c}), {a}, {c})",
)


@dataclass(frozen=True)
class RandomCell:
    """What was drawn."""

    seed: int
    source: str
    kinked: bool  # some derivative jumps
    divisors: dict[Size, int] = field(compare=False)  # of I and H, whose matrices have blocks
    projectable: bool  # whether a projection may follow the output
    cell_class: type[Cell] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.source

    def fit(self, I: int, H: int) -> tuple[int, int]:  # noqa: E741
        """The sizes that are not below these, and that the blocks of matrices divide."""
        return I + -I % self.divisors["I"], H + -H % self.divisors["H"]


@lru_cache(maxsize=64)
def draw_cell(seed: int) -> RandomCell:
    """The cell of a number."""
    draft = _Draft(Random(seed))
    source = draft.source(f"Random{seed}")
    names: dict[str, Any] = {name: getattr(cells, name) for name in cells.__all__}
    exec(source, names)
    projectable = draft.projectable and "h" not in draft.widths
    return RandomCell(
        seed, source, draft.kinked, draft.divisors, projectable, names[f"Random{seed}"]
    )


class _Draft:
    """Declarations and lines of one cell, and the values that a further line may read."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.declared: list[str] = []
        self.lines: list[str] = []
        self.values: dict[Size, list[str]] = {}  # by width
        self.batched: set[str] = set()  # values that differ from sequence to sequence
        self.linear: set[str] = set()  # values that may become a state as they are
        self.widths: dict[str, Size] = {}
        self.kinked = False
        self.divisors: dict[Size, int] = {"I": 1, "H": 1}
        self.projectable = random.random() < 0.3
        self.has_kinks = random.random() < 0.4

    def coin(self, chance: float) -> bool:
        return self.random.random() < chance

    def size(self) -> Size:
        number = self.random.choice(NUMBERS)
        return self.random.choice(
            ("H", "H", "H", "H", "I", "P" if self.projectable else "H", number)
        )

    def source(self, name: str) -> str:
        """All of the cell as Python."""
        states = ("h", "u", "w")[: self.random.choice((1, 1, 2, 2, 3))]
        gates = ("a", "b", "c", "d")[: self.random.choice((0, 1, 2, 3, 4))]
        for state in states:
            if self.coin(0.25 if state == "h" else 0.5):
                self.widths[state] = self.size()
        self.declare_usual(gates)
        self.read_states(states)
        for k in range(self.random.choice((0, 0, 1, 2))):
            self.declare_vector(f"v{k}")
        for k in range(self.random.choice((0, 0, 1, 2))):
            self.declare_product(f"p{k}")
        for _ in range(self.random.randint(1, 8)):
            self.compute()
        results = ", ".join(self.new_state(state) for state in states)
        head = [f"gates = {gates!r}", f"states = {states!r}", f"widths = {self.widths!r}"]
        step = [*self.lines, f"return {results}"]
        return "\n".join(
            [
                f"class {name}(Cell):",
                *(f"    {line}" for line in [*head, *self.declared]),
                *self.prepare(),
                "    def step(self, x, h, state):",
                *(f"        {line}" for line in step),
            ]
        )

    def prepare(self) -> list[str]:
        """Sometimes a weight is not used as it is stored."""
        if not self.coin(0.1):
            return []
        return [
            "    def prepare(self, parameters):",
            "        return parameters | {'weight_ih': 0.7 * parameters['weight_ih']}",
        ]

    def declare_usual(self, gates: tuple[str, ...]) -> None:
        """The input and the recurrent product; often their results are not all read."""
        for name, letter in (("input", "x"), ("recurrent", "h")):
            if name == "recurrent" and self.coin(0.35):
                self.declared.append("recurrent = None")
                continue
            targets, width, bias = gates, "H", True
            if self.coin(0.4):
                width, bias = self.size(), self.coin(0.8)
                targets = tuple(gate for gate in gates if self.coin(0.7))
            output: Size = self.widths.get("h", "P" if self.projectable else "H")
            source = "I" if name == "input" else output
            blocks = self.find_blocks(source, width) if self.coin(0.25) else 1
            declared = _product(targets, width, bias=bias, blocks=blocks)
            if declared != _product(gates, "H"):
                self.declared.append(f"{name} = {declared}")
            if name == "input" or self.coin(0.85):
                for gate in targets or ("",):
                    if self.coin(0.9):
                        self.add(width, f"{letter}.{gate}" if gate else letter, linear=True)

    def read_states(self, states: tuple[str, ...]) -> None:
        for state in states:
            default = "P" if state == "h" and self.projectable else "H"
            if self.coin(0.65):
                self.add(self.widths.get(state, default), f"state.{state}", linear=True)

    def declare_vector(self, name: str) -> None:
        width = self.size()
        bias = ", bias=True" * self.coin(0.3)
        self.declared.append(f"{name} = vector({width!r}{bias})")
        if self.coin(0.85):
            self.add(width, f"self.{name}", batched=False)

    def declare_product(
        self, name: str, source: Size | None = None, width: Size | None = None
    ) -> str:
        """A product of a value, or of none; its (first) result."""
        fixed = width is not None
        sizes = [size for size in self.values if self.choices(size)]
        source = source or (self.random.choice(sizes) if sizes else self.size())
        width = width or self.size()
        targets = () if fixed else ("k", "l", "m")[: self.random.choice((0, 0, 1, 2, 3))]
        blocks = 1
        if not fixed and self.coin(0.3):
            blocks = self.find_blocks(source, width)
        bias = self.coin(0.7)
        self.declared.append(f"{name} = {_product(targets, width, source, bias, blocks)}")
        if not self.choices(source) or not (fixed or self.coin(0.85)):
            return ""
        result = self.line(f"self.{name}({self.random.choice(self.choices(source))})")
        results = [f"{result}.{target}" for target in targets] or [result]
        for value in results:
            self.add(width, value, linear=True)
        return results[0]

    def find_blocks(self, source: Size, width: Size) -> int:
        """Of a block-diagonal matrix, up to a diagonal one; 1 where the sizes do not allow it."""
        if isinstance(source, int) and isinstance(width, int):
            common = [n for n in range(1, source + 1) if source % n == width % n == 0]
            return self.random.choice(common)
        blocks = self.random.choice((2, 2, 3, 4))
        for size in (source, width):
            if size == "P" or (isinstance(size, int) and size % blocks):
                return 1
        for size in (source, width):
            if size in self.divisors:
                self.divisors[size] = lcm(self.divisors[size], blocks)
        return blocks

    def choices(self, size: Size) -> list[str]:
        """Values of a width that a product may multiply."""
        return [value for value in self.values.get(size, []) if value in self.batched]

    def compute(self) -> None:
        """A line more."""
        if not self.values:
            return
        size = self.random.choice(list(self.values))
        if size != 1 and self.coin(0.12):
            self.compute_mean(size)
            return
        forms = KINKED if self.has_kinks and self.coin(0.4) else SMOOTH
        form = self.random.choice(forms)
        self.kinked |= forms is KINKED
        names = {letter: self.random.choice(self.operands(size)) for letter in "abc"}
        used = [names[letter] for letter in "abc" if f"{{{letter}}}" in form]
        width = size if any(value in self.values[size] for value in used) else 1
        batched = any(value in self.batched for value in used)
        self.add(width, self.line(form.format(**names)), batched=batched)

    def compute_mean(self, size: Size) -> None:
        value = self.random.choice(self.values[size])
        self.add(1, self.line(f"mean({value})"), batched=value in self.batched)

    def operands(self, size: Size) -> list[str]:
        """Values of a width, and numbers that all its units share."""
        vectors = self.values[size]
        return vectors if size == 1 or not self.coin(0.5) else vectors + self.values.get(1, [])

    def new_state(self, state: str) -> str:
        """An expression for a state at t."""
        width = self.widths.get(state, "H")
        values = self.choices(width)
        if not values:
            source = next((size for size in self.values if self.choices(size)), None)
            if source is None:
                return self.from_input(state, width)
            values = [self.declare_product(f"to_{state}", source, width)]
        value = self.random.choice(values[-3:])
        if value in self.linear and self.coin(0.3):
            return value
        operand = self.random.choice(values)
        form = self.random.choice(
            (
                "tanh({a})",
                "tanh({a} + {b})",
                "sigmoid({a})",
                "sigmoid({a}) * tanh({b})",
                "0.6 * tanh({a}) + 0.3 * softsign({b})",
            )
        )
        return form.format(a=value, b=operand)

    def from_input(self, state: str, width: Size) -> str:
        """A new state of the input alone, where the step reads nothing else."""
        self.declared = [line for line in self.declared if not line.startswith("input =")]
        self.declared.append("input = product()")
        self.add("H", "x", linear=True)
        return self.new_state(state)

    def line(self, expression: str) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return name

    def add(self, width: Size, value: str, batched: bool = True, linear: bool = False) -> None:
        self.values.setdefault(width, []).append(value)
        if batched:
            self.batched.add(value)
        if linear:
            self.linear.add(value)


def _product(
    targets: tuple[str, ...], width: Size, source: Size = "H", bias: bool = True, blocks: int = 1
) -> str:
    arguments = [repr(target) for target in targets]
    arguments += [f"width={width!r}"] * (width != "H") + [f"source={source!r}"] * (source != "H")
    arguments += ["bias=False"] * (not bias) + [f"blocks={blocks}"] * (blocks > 1)
    return f"product({', '.join(arguments)})"
