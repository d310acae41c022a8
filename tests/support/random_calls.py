"""Random calls over the space of options, each drawn from one number.

The cell of a call is one of the library's, or (``draw(seed, cells=True)``) one of
``random_cells``; ``random_checks`` runs a call and checks its results.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from tests.support.block_cells import HeadsLSTM
from tests.support.random_cells import RandomCell, draw_cell
from tests.support.subjects import Peephole, ResetBefore
from unrolled import _core, cells, nn
from unrolled._spec import Spec
from unrolled.cells import Cell, CellError
from unrolled.program import ProgramError, make_program

CLASSIC: dict[str, Callable[..., nn.Recurrent]] = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
CELLS: dict[str, Callable[[], Cell]] = {
    name: value
    for name in cells.__all__
    if isinstance(value := getattr(cells, name), type) and issubclass(value, Cell)
}
del CELLS["Cell"]
# With their usual epsilon a row of nearly equal numbers, which few units often are, is divided by
# 0.003: each step multiplies what rounding did by 300.
CELLS["LayerNormLSTM"] = lambda: cells.LayerNormLSTM(epsilon=0.1)
CELLS["LayerNormGRU"] = lambda: cells.LayerNormGRU(epsilon=0.1)
CELLS |= {
    "relu": lambda: cells.RNN(cells.relu),
    "linear": lambda: cells.RAN(lambda v: v),
    "heads": lambda: cells.SLSTM(heads=2, forget="exp"),
    "block LSTM": lambda: HeadsLSTM(2),
    "peephole": Peephole,
    "reset_before": ResetBefore,
}


def _takes_projection(cell_name: str) -> bool:
    """Whether a step distinguishes the output from the state that it is computed from."""
    try:
        make_program(CELLS[cell_name](), projected=True)
    except ProgramError:
        return False
    return True


# A half as wide state need not consist of two blocks.
PROJECTED = {cell_name for cell_name in CELLS if _takes_projection(cell_name)} - {
    "heads",
    "block LSTM",
    "ExpRNN",
}  # whose matrix is square
# Their derivative jumps somewhere, and rounding moves values across: gradients in float64 alone.
KINKED = {"relu", "LiGRU", "IndRNN", "SLSTM", "heads", "ExpRNN"}
# Between its two stable states a unit doubles at each step what rounding did: float64 alone.
BISTABLE = {"BRC", "NBRC"}

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FORMS = ("batched", "unbatched", "packed", "step", "alone", "grad", "vmap")
MEMORY = ("contiguous", "transposed", "strided", "expanded batch", "expanded time")
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 32, 33, 40, 63, 64, 65, 96, 129)
COST = 2e7  # multiplications of a forward run, at most


@dataclass(frozen=True)
class Call:
    """One call of a layer, or (``step``, ``alone``) of a cell, batched or not."""

    seed: int
    cell_name: str
    dtype: torch.dtype
    form: str
    T: int
    N: int
    I: int  # noqa: E741
    H: int
    options: dict[str, Any]
    lengths: tuple[int, ...] | None
    resets: float  # probability of a cut
    reset_state: str  # "none", "each", "shared"
    with_states: bool  # hx
    memory: str
    poisoned: bool  # NaN in the padding
    mode: str  # "grad", "no_grad", "inference"
    frozen: float  # probability that a leaf wants no gradient
    output_grads: str  # which results backward starts from
    expanded: bool  # output gradients without memory of their own
    threads: int
    build: str
    recorded: bool
    random_cell: RandomCell | None = None

    @property
    def cell(self) -> Cell:
        return self.random_cell.cell_class() if self.random_cell else CELLS[self.cell_name]()

    @property
    def kinked(self) -> bool:
        return self.random_cell.kinked if self.random_cell else self.cell_name in KINKED

    @property
    def batch_first(self) -> bool:
        return bool(self.options.get("batch_first")) and self.batched

    @property
    def batched(self) -> bool:
        return self.form not in ("unbatched", "alone")

    @property
    def is_step(self) -> bool:
        return self.form in ("step", "alone")


def draw(seed: int, cells: bool = False) -> Call:
    """The call of a number; with ``cells`` the cell is a random one, of the same number."""
    random = Random(seed)
    form = random.choices(FORMS, (50, 8, 10, 14, 4, 4, 4))[0]
    cell_name = random.choice([*CLASSIC, *CELLS, *CLASSIC])
    random_cell = draw_cell(seed) if cells else None
    if random_cell is not None:
        cell_name = "random"
    N = (
        1
        if form in ("unbatched", "alone")
        else random.choice((1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 33))
    )
    I, H = (random.choice(SIZES[: random.choice((5, 12, len(SIZES)))]) for _ in "IH")  # noqa: E741
    H += cell_name in ("heads", "block LSTM") and H % 2
    if random_cell is not None:
        I, H = random_cell.fit(I, H)  # noqa: E741
    T = random.choice((1, 1, 2, 3, 4, 5, 8, 13, 40, 100))
    if random_cell is not None:
        T = min(T, 13)  # some double at each step what rounding did
    options: dict[str, Any] = {"bias": random.random() < 0.8}
    if form in ("step", "alone"):
        T = 1
    else:
        projects = random_cell.projectable if random_cell else cell_name in PROJECTED - {"RNN"}
        options |= _layer_options(random, projects, H)
        if random_cell is not None:
            options["checkpoint"] = random.choice((False, False, False, 2, True))
            fit_layers(options, random_cell, I, H)
    L, D = options.get("num_layers", 1), 1 + options.get("bidirectional", False)
    while T > 1 and T * N * L * D * 4 * H * (I + 2 * H) > COST:
        T //= 2
    if form in ("grad", "vmap"):
        N, T = min(N, 5), min(T, 5)
    elif form in ("batched", "step") and random.random() < 0.02:
        N = 0
    ragged = form == "packed" or (N > 0 and random.random() < 0.35)
    return Call(
        seed=seed,
        cell_name=cell_name,
        dtype=torch.float64
        if cell_name in BISTABLE
        else random.choices(DTYPES, (45, 35, 12, 8))[0],
        form=form,
        T=T,
        N=N,
        I=I,
        H=H,
        options=options,
        lengths=_draw_lengths(random, form, T, N) if ragged else None,
        resets=random.choice((0.0, 0.0, 0.05, 0.5)) if form != "vmap" else 0.0,
        reset_state=random.choice(("none", "each", "shared")),
        with_states=random.random() < 0.6,
        memory=random.choice((*MEMORY, "contiguous", "contiguous")),
        poisoned=random.random() < 0.5,
        mode=random.choices(("grad", "no_grad", "inference"), (70, 20, 10))[0],
        frozen=random.choice((0.0, 0.0, 0.3, 0.9, 1.0)),
        output_grads=random.choice(("all", "all", "output", "states", "last")),
        expanded=random.random() < 0.2,
        threads=random.choice((1, 2, 3)),
        build=random.choice(["", *_core.builds()]),
        recorded=random.random() < 0.5,
        random_cell=random_cell,
    )


def fit_layers(options: dict[str, Any], drawn: RandomCell, I: int, H: int) -> None:  # noqa: E741
    """One layer where the input of further layers does not fit the cell: a state is as wide as the
    input, or its matrix has blocks."""
    sizes = {name: options.get(name, 0) for name in ("num_layers", "bidirectional", "proj_size")}
    try:
        spec = Spec(drawn.cell_class(), I, H, merge=options["merge"], **sizes)
        spec.parameters(min(1, spec.num_layers - 1))
    except CellError:
        options["num_layers"] = 1


def _layer_options(random: Random, projects: bool, H: int) -> dict[str, Any]:
    actual: dict[str, Any] = {
        "num_layers": random.choice((1, 1, 1, 2, 3)),
        "bidirectional": random.random() < 0.4,
        "batch_first": random.random() < 0.4,
        "merge": random.choice(("concat", "concat", "sum")),
    }
    if projects and H > 1 and random.random() < 0.3:
        actual["proj_size"] = random.choice((1, (H + 1) // 2, H - 1))
    return actual


def _draw_lengths(random: Random, form: str, T: int, N: int) -> tuple[int, ...]:
    low = 1 if form == "packed" else 0
    lengths = [random.randint(low, T) for _ in range(N)]
    if form == "packed" or random.random() < 0.5:
        lengths[random.randrange(N)] = T
    return tuple(lengths)


def make(call: Call) -> Any:
    """The layer or cell of a call, with random numbers in every parameter."""
    torch.manual_seed(call.seed)
    module = _module(call).to(call.dtype)
    random = Random(call.seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.startswith(("weight_", "bias_")):
                parameter += torch.empty_like(parameter).uniform_(-0.3, 0.3)
            if parameter.dim() == 2 and random.random() < 0.05:
                parameter.data = parameter.data.t().contiguous().t()
    for parameter in module.parameters():
        parameter.requires_grad_(random.random() >= call.frozen)
    return module


def _module(call: Call) -> Any:
    sizes = (call.I, call.H)
    if call.is_step:
        return nn.RecurrentCell(call.cell, *sizes, **call.options)
    if call.cell_name in CLASSIC:
        return CLASSIC[call.cell_name](*sizes, **call.options)
    return nn.Recurrent(call.cell, *sizes, **call.options)
