"""Random calls over the space of options, each drawn from one number, on the native engine.

The judge is the reference engine in float64, on the same rounded numbers. ``fuzz`` makes as many
calls as it is told, and may do so with a core that sanitizers watch. The cell of a call is one of
the library's, or (``draw(seed, cells=True)``) one of ``random_cells``.
"""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from tests.support.random_cells import RandomCell, draw_cell
from tests.support.subjects import Peephole, ResetBefore, unpack
from tests.support.tolerances import close
from unrolled import _core, cells, engines, nn
from unrolled.cells import Cell, CellError
from unrolled.engines.native import engine as native
from unrolled.program import ProgramError, make_program
from unrolled.spec import Spec

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
    "peephole": Peephole,
    "reset_before": ResetBefore,
}


def _takes_projection(kind: str) -> bool:
    """Whether a step tells the output from the state that it is made of."""
    try:
        make_program(CELLS[kind](), projected=True)
    except ProgramError:
        return False
    return True


# A half as wide state need not consist of two blocks.
PROJECTED = {kind for kind in CELLS if _takes_projection(kind)} - {
    "heads",
    "ExpRNN",
}  # whose matrix is square
# Their slope jumps somewhere, and rounding moves values across: gradients in float64 alone.
KINKED = {"relu", "LiGRU", "IndRNN", "SLSTM", "heads", "ExpRNN"}
# Between its two stable states a unit doubles at each step what rounding did: float64 alone.
BISTABLE = {"BRC", "NBRC"}

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FORMS = ("batched", "unbatched", "packed", "step", "alone", "grad", "vmap")
MEMORY = ("contiguous", "transposed", "strided", "expanded batch", "expanded time")
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 32, 33, 40, 63, 64, 65, 96, 129)
ABSENT = "no gradient of "
COST = 2e7  # multiplications of a forward run, at most


@dataclass(frozen=True)
class Call:
    """One call of a layer, or (``step``, ``alone``) of a cell, batched or not."""

    seed: int
    kind: str
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
    given: bool  # hx
    memory: str
    poisoned: bool  # NaN in the padding
    mode: str  # "grad", "no_grad", "inference"
    frozen: float  # probability that a leaf wants no gradient
    slopes: str  # which results backward starts from
    expanded: bool  # slopes without memory of their own
    threads: int
    build: str
    recorded: bool
    random_cell: RandomCell | None = None

    @property
    def cell(self) -> Cell:
        return self.random_cell.made() if self.random_cell else CELLS[self.kind]()

    @property
    def kinked(self) -> bool:
        return self.random_cell.kinked if self.random_cell else self.kind in KINKED

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
    kind = random.choice([*CLASSIC, *CELLS, *CLASSIC])
    random_cell = draw_cell(seed) if cells else None
    if random_cell is not None:
        kind = "random"
    N = (
        1
        if form in ("unbatched", "alone")
        else random.choice((1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 33))
    )
    I, H = (random.choice(SIZES[: random.choice((5, 12, len(SIZES)))]) for _ in "IH")  # noqa: E741
    H += (kind == "heads" or (random_cell is not None and random_cell.even)) and H % 2
    T = random.choice((1, 1, 2, 3, 4, 5, 8, 13, 40, 100))
    if random_cell is not None:
        T = min(T, 13)  # some double at each step what rounding did
    options: dict[str, Any] = {"bias": random.random() < 0.8}
    if form in ("step", "alone"):
        T = 1
    else:
        projects = random_cell.projectable if random_cell else kind in PROJECTED - {"RNN"}
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
        kind=kind,
        dtype=torch.float64 if kind in BISTABLE else random.choices(DTYPES, (45, 35, 12, 8))[0],
        form=form,
        T=T,
        N=N,
        I=I,
        H=H,
        options=options,
        lengths=_draw_lengths(random, form, T, N) if ragged else None,
        resets=random.choice((0.0, 0.0, 0.05, 0.5)) if form != "vmap" else 0.0,
        reset_state=random.choice(("none", "each", "shared")),
        given=random.random() < 0.6,
        memory=random.choice((*MEMORY, "contiguous", "contiguous")),
        poisoned=random.random() < 0.5,
        mode=random.choices(("grad", "no_grad", "inference"), (70, 20, 10))[0],
        frozen=random.choice((0.0, 0.0, 0.3, 0.9, 1.0)),
        slopes=random.choice(("all", "all", "output", "states", "last")),
        expanded=random.random() < 0.2,
        threads=random.choice((1, 2, 3)),
        build=random.choice(["", *_core.builds()]),
        recorded=random.random() < 0.5,
        random_cell=random_cell,
    )


def fit_layers(options: dict[str, Any], drawn: RandomCell, I: int, H: int) -> None:  # noqa: E741
    """One layer where a state is as wide as the input and that differs from layer to layer."""
    sizes = {name: options.get(name, 0) for name in ("num_layers", "bidirectional", "proj_size")}
    try:
        Spec(drawn.made(), I, H, merge=options["merge"], **sizes)
    except CellError:
        options["num_layers"] = 1


def _layer_options(random: Random, projects: bool, H: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "num_layers": random.choice((1, 1, 1, 2, 3)),
        "bidirectional": random.random() < 0.4,
        "batch_first": random.random() < 0.4,
        "merge": random.choice(("concat", "concat", "sum")),
    }
    if projects and H > 1 and random.random() < 0.3:
        found["proj_size"] = random.choice((1, (H + 1) // 2, H - 1))
    return found


def _draw_lengths(random: Random, form: str, T: int, N: int) -> tuple[int, ...]:
    low = 1 if form == "packed" else 0
    lengths = [random.randint(low, T) for _ in range(N)]
    if form == "packed" or random.random() < 0.5:
        lengths[random.randrange(N)] = T
    return tuple(lengths)


def make(call: Call) -> Any:
    """The layer or cell of a call, with random numbers in every parameter."""
    torch.manual_seed(call.seed)
    found = _module(call).to(call.dtype)
    random = Random(call.seed)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if not name.startswith(("weight_", "bias_")):
                parameter += torch.empty_like(parameter).uniform_(-0.3, 0.3)
            if parameter.dim() == 2 and random.random() < 0.05:
                parameter.data = parameter.data.t().contiguous().t()
    for parameter in found.parameters():
        parameter.requires_grad_(random.random() >= call.frozen)
    return found


def _module(call: Call) -> Any:
    sizes = (call.I, call.H)
    if call.is_step:
        return nn.RecurrentCell(call.cell, *sizes, **call.options)
    if call.kind in CLASSIC:
        return CLASSIC[call.kind](*sizes, **call.options)
    return nn.Recurrent(call.cell, *sizes, **call.options)


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
        self.hx = self._states("hx", spec, [*layers, *batch]) if call.given else None
        self.options: dict[str, Any] = {}
        if call.lengths is not None and call.form != "packed":
            kind = self.random.choice((list, torch.tensor, lambda v: torch.tensor(v).int()))
            self.options["lengths"] = kind(list(call.lengths))
        if call.resets:
            cuts = torch.rand(shape, generator=self.generator)
            self.options["resets"] = cuts < call.resets
        if call.reset_state in forms:
            lead = [*layers, *forms[call.reset_state]]
            if not (call.is_step and call.reset_state == "shared"):
                self.options["reset_state"] = self._states("reset", spec, lead)

    def numbers(self, shape: list[int]) -> Tensor:
        made = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return made.to(self.call.dtype).to(self.dtype)

    def _leaf(self, name: str, shape: list[int]) -> Tensor:
        leaf = self.numbers(shape)
        if self.random.random() >= self.call.frozen:
            self.leaves[name] = leaf.requires_grad_()
        return leaf

    def _states(self, name: str, spec: Any, lead: list[int]) -> Any:
        made = []
        for state, width in zip(spec.cell.states, spec.state_widths, strict=True):
            leaf = self._leaf(f"{name} {state}", [*lead, width])
            # A normaliser is positive.
            made.append(leaf.abs() + 0.5 if state == "n" else leaf)
        return made[0] if len(made) == 1 else tuple(made)

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
    seen = dict(zip(_names(parts), parts, strict=True))
    leaves = inputs.leaves | {n: p for n, p in module.named_parameters() if p.requires_grad}
    if call.mode != "grad" or not leaves:
        return seen
    kept = {"all": parts, "output": parts[:1], "states": parts[1:], "last": parts[-1:]}
    ends = kept[call.slopes] or parts
    slopes = [
        inputs.numbers([]).expand(p.shape) if call.expanded else inputs.numbers(list(p.shape))
        for p in ends
    ]
    found = _gradients(ends, leaves, slopes)
    if call.recorded:
        again = _gradients(ends, leaves, slopes)
        for name, gradient in found.items():
            if name.startswith(ABSENT):
                continue
            # Sums beyond float16 are infinite, and what is made of those is no number: both times.
            same = torch.allclose(gradient, again[name], rtol=0, atol=0, equal_nan=True)
            assert same, f"{name}: another one the second time"
    return seen | found


def _gradients(
    ends: list[Tensor], leaves: dict[str, Tensor], slopes: list[Tensor]
) -> dict[str, Tensor]:
    """Gradients by name, zeros where there is none; ``ABSENT`` and a name, of parameters alone:
    whether there is none."""
    pairs = [(end, slope) for end, slope in zip(ends, slopes, strict=True) if end.requires_grad]
    wanted = list(leaves.values())
    found: tuple[Tensor | None, ...] = (None,) * len(wanted)
    if pairs:
        some, given = zip(*pairs, strict=True)
        found = torch.autograd.grad(some, wanted, given, retain_graph=True, allow_unused=True)
    made = {}
    for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
        if isinstance(leaf, torch.nn.Parameter):
            made[ABSENT + name] = torch.tensor(gradient is None)
        made[f"gradient of {name}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return made


def _results(module: Any, x: Any, hx: Any, options: dict[str, Any]) -> list[Tensor]:
    found = module(x, hx, **options)
    if isinstance(module, nn.RecurrentCell):
        return list(unpack(found))
    output, final = found
    data = output.data if isinstance(output, PackedSequence) else output
    return [data, *unpack(final)]


def _names(parts: list[Tensor]) -> list[str]:
    return [f"result {k}" for k in range(len(parts))]


def _transformed(call: Call, module: Any, inputs: Inputs) -> dict[str, Tensor]:
    """Gradients by torch.func; under vmap of several inputs side by side, one sample each."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    constants = [inputs.numbers([]) for _ in range(8)]

    def loss(given: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
        named = (inputs.hx,), inputs.options
        found = torch.func.functional_call(module, given, (x, *named[0]), named[1])
        parts = [found[0], *unpack(found[1])]
        pairs = zip(parts, constants, strict=False)
        return sum((part.sin() * c).sum() for part, c in pairs), parts  # type: ignore[return-value]

    run: Any = torch.func.grad(loss, argnums=(0, 1), has_aux=True)
    if call.form == "vmap":
        run = torch.func.vmap(run, in_dims=(None, 0))
    (slopes, slope), parts = run(parameters, inputs.x.detach())
    named = {f"gradient of {name}": tensor for name, tensor in slopes.items()}
    return dict(zip(_names(parts), parts, strict=True)) | named | {"gradient of input": slope}


def check(call: Call) -> None:
    """Make a call on the native engine and compare all that comes out with the reference.

    Raises:
        AssertionError: a value or a gradient differs, or another engine ran.
    """
    module = make(call)
    twin = copy.deepcopy(module).double()
    ran: list[str] | None = None
    with ExitStack() as stack:
        stack.enter_context(engines.use("native"))
        if call.build:
            stack.enter_context(native.use_build(call.build))
        if call.recorded:
            ran = stack.enter_context(engines.record())
        torch.set_num_threads(call.threads)
        seen = outcome(call, module, call.dtype)
        torch.set_num_threads(1)
    if ran is not None:
        assert ran
        assert set(ran) == {"native"}
    with engines.use("reference"):
        wanted = outcome(call, twin, torch.float64)
        half = call.dtype in (torch.bfloat16, torch.float16)
        rounded = outcome(call, module, call.dtype) if half or call.random_cell else wanted
    assert seen.keys() == wanted.keys()
    low = call.dtype != torch.float64
    for name, found in seen.items():
        if name.startswith(ABSENT):
            # What the step uses but no result that has a slope depends on may have zeros.
            same = found == wanted[name] or (wanted[name] and call.slopes != "all")
            assert same, f"{name}: {bool(found)}, and {bool(wanted[name])} by the reference"
            continue
        gradient = name.startswith("gradient")
        if gradient and low and call.kinked:
            continue
        assert found.dtype == call.dtype, f"{name}: {found.dtype}"
        close(found, wanted[name], "random", name, twin=rounded[name])
