"""What is exported: chains of parts, modules of users, and modules that are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.runtime_models import exported, random, run_reference, steps
from tests.support.tolerances import close
from unrolled import cells
from unrolled.export import ExportError, export
from unrolled.nn import GRU, LSTM, Recurrent, RecurrentCell


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, inputs, output: 2 * output)
    return module


def test_a_module_may_be_in_a_chain_twice(tmp_path: Path) -> None:
    """And before the first layer."""
    relu, square = nn.ReLU(), random(nn.Linear(5, 5))
    layer, input_layer = random(GRU(4, 5)), random(nn.Linear(3, 4))
    model = exported(nn.Sequential(input_layer, relu, layer, square, relu, square, relu), tmp_path)
    x = np.random.default_rng(16).standard_normal((6, 2, 3), np.float32)
    with torch.no_grad():
        hidden = layer(torch.relu(input_layer(torch.from_numpy(x))))[0]
        expected = torch.relu(square(torch.relu(square(hidden))))
    result = model.run(x)
    close(torch.from_numpy(result), expected, "output")
    assert np.array_equal(steps(model, x, 2), result)


def test_a_chain_of_modules(tmp_path: Path) -> None:
    activations = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(),
            "softmax": nn.Softmax(-1), "log_softmax": nn.LogSoftmax(-1)}  # fmt: skip
    layer, head = random(GRU(3, 5)), random(nn.Linear(5, 70))
    x = np.random.default_rng(6).standard_normal((6, 2, 3), np.float32)
    hidden = run_reference(layer, x)[0]
    for module in activations.values():
        chain = nn.Sequential(layer, nn.Tanh(), nn.Dropout(0.5), head, module)
        model = exported(chain, tmp_path)
        result = model.run(x)
        with torch.no_grad():
            close(torch.from_numpy(result), module(head(torch.tanh(hidden))), "output")
        assert np.array_equal(steps(model, x, 2), result)


class UserModel(nn.Module):
    """An embedding, layers and a head, as users write them."""

    def __init__(self, layer_class: Any = GRU, how: str = "outputs", **options: Any) -> None:
        super().__init__()
        self.how = how
        self.table = nn.Embedding(7, 3)
        self.rnn = layer_class(3, 5, **options)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Any:
        y, h = self.rnn(self.table(x))
        if self.how == "state":
            y = (h[0] if isinstance(self.rnn, LSTM) else h)[-1]
        elif self.how == "pair":
            y = h[-1]
        elif self.how == "step":
            y = y[-1]
        elif self.how == "sum":
            y = y + 1
        elif self.how == "mean":
            y = y.mean(0)
        elif self.how == "max":
            y = torch.amax(y, dim=(0,))
        elif self.how == "method":
            return self.head(y).softmax(-1)
        elif self.how == "log":
            return self.head(y).log_softmax(dim=2).tanh()
        elif self.how == "values":
            y = y.max(0).values
        elif self.how == "unused":
            return self.head(x)
        elif self.how == "units of steps":
            return self.head(y).softmax(0)
        elif self.how == "units":
            y = y.mean(2)
        elif self.how == "whole":
            y = y[-1, :]
        y = torch.softmax(self.head(torch.tanh(self.drop(y))), dim=-1)
        return (y, h) if self.how == "both" else y


@pytest.mark.parametrize("layer_class", [GRU, LSTM])
@pytest.mark.parametrize(
    "how", ["outputs", "state", "step", "both", "mean", "max", "whole", "method", "log"]
)
def test_a_module_of_the_user_is_traced(layer_class: Any, how: str, tmp_path: Path) -> None:
    module = random(UserModel(layer_class, how, num_layers=2).eval())
    model = exported(module, tmp_path)
    tokens = np.random.default_rng(14).integers(0, 7, (6, 3))
    expected = run_reference(module, tokens)
    expected = expected[0] if how == "both" else expected
    result = model.run(tokens)
    close(torch.from_numpy(result), expected, "output")
    stream = model.stream(3)
    stepped = np.stack([stream.step(row) for row in tokens])
    assert np.array_equal(stepped if result.ndim == 3 else stepped[-1], result)


class Dropping(nn.Module):
    """Drops by the function, in a way that is given."""

    def __init__(self, drop: Any, **options: Any) -> None:
        super().__init__()
        self.drop = drop
        self.rnn = GRU(3, 5, **options)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self, self.rnn(self.drop(self, x))[0]))


DROPS: list[Any] = [
    lambda m, y: F.dropout(y, 0.5, m.training),
    lambda m, y: F.dropout(y, p=0.5, training=m.training),
    lambda m, y: F.dropout(y, training=m.training, inplace=False),
]


@pytest.mark.parametrize("drop", DROPS)
def test_dropout_as_a_function_does_nothing(drop: Any, tmp_path: Path) -> None:
    """Of a module in training too, which stays in training."""
    module = random(Dropping(drop))
    module.head.eval()
    model = exported(module, tmp_path)
    assert [part.training for part in (module, module.rnn, module.head)] == [True, True, False]
    x = np.random.default_rng(17).standard_normal((4, 2, 3), np.float32)
    close(torch.from_numpy(model.run(x)), run_reference(module.eval(), x), "output")


class LastOf(nn.Module):
    """One thing of the steps of a layer that is batch-first, and chances by their dimension."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.rnn = GRU(3, 5, batch_first=True, num_layers=2)
        self.head = nn.Linear(5, 2)
        self.chances = nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        y, h = self.rnn(x)
        if self.how == "steps":
            return F.softmax(self.head(y), dim=2)
        if self.how == "mean":
            return F.log_softmax(self.head(torch.mean(y, 1)), 1)
        ends = {"outputs": lambda: y[:, -1], "whole": lambda: y[:, -1, :], "state": lambda: h[-1]}
        return self.chances(self.head(ends[self.how]()))


@pytest.mark.parametrize("lengths", [None, [4, 7]])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_batch_first(bidirectional: bool, lengths: Any, tmp_path: Path) -> None:
    """Whole sequences are as in the module; steps are steps."""
    layer = random(GRU(3, 5, batch_first=True, bidirectional=bidirectional))
    model = exported(layer, tmp_path)
    x = np.random.default_rng(18).standard_normal((2, 7, 3), np.float32)
    result, state = model.run(x, lengths=lengths, return_state=True)
    tensor_of_lengths = None if lengths is None else torch.tensor(lengths)
    output, final = run_reference(layer, x, lengths=tensor_of_lengths)
    close(torch.from_numpy(result), output, "output")
    close(torch.from_numpy(np.stack([rows[0] for rows in state[0]])), final, "output")
    with pytest.raises(ValueError, match=r"Model: x must have shape \[N, T, 3\], got \[2, 7\]"):
        model.run(x[..., 0])
    if not bidirectional and lengths is None:
        assert np.array_equal(steps(model, x.swapaxes(0, 1), 2).swapaxes(0, 1), result)
        halves = [model.run(x[:, :3], return_state=True)]
        halves.append(model.run(x[:, 3:], state=halves[0][1], return_state=True))
        assert np.array_equal(np.concatenate([half for half, _ in halves], 1), result)


@pytest.mark.parametrize("how", ["outputs", "whole", "state", "mean", "steps"])
def test_one_output_of_a_sequence_with_batch_first(how: str, tmp_path: Path) -> None:
    module = random(LastOf(how))
    x = np.random.default_rng(19).standard_normal((2, 7, 3), np.float32)
    result = exported(module, tmp_path).run(x)
    close(torch.from_numpy(result), run_reference(module, x), "output")


def test_tokens_that_are_batch_first(tmp_path: Path) -> None:
    chain = random(nn.Sequential(nn.Embedding(7, 3), GRU(3, 5, batch_first=True)))
    tokens = np.random.default_rng(20).integers(0, 7, (4, 6))
    model = exported(chain, tmp_path)
    close(torch.from_numpy(model.run(tokens)), run_reference(chain, tokens)[0], "output")
    with pytest.raises(
        ValueError, match=r"Model: x must be tokens of shape \[N, T\], got shape \[4\]"
    ):
        model.run(tokens[:, 0])


@pytest.mark.parametrize("lengths", [None, [4, 0, 7]])
@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_directions_that_are_added(cell: Any, lengths: Any, tmp_path: Path) -> None:
    layer = random(cell(3, 5, num_layers=2, bidirectional=True, merge="sum"))
    head = random(nn.Linear(5, 2))
    x = np.random.default_rng(21).standard_normal((7, 3, 3), np.float32)
    tensor_of_lengths = None if lengths is None else torch.tensor(lengths)
    output, _ = run_reference(layer, x, lengths=tensor_of_lengths)
    with torch.no_grad():
        expected = head(output)
    result = exported(nn.Sequential(layer, head), tmp_path).run(x, lengths=lengths)
    close(torch.from_numpy(result), expected, "output")


class Ragged(nn.Module):
    """A layer with lengths and an initial state, and a function of its results."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.rnn = GRU(3, 5)
        self.head = nn.Linear(5, 2)
        self.of = of

    def forward(self, x: Tensor, lengths: Any = None, h: Any = None) -> Tensor:
        y, state = self.rnn(x, h, lengths=lengths)
        return self.head(self.of(y, state))


class Started(Ragged):
    """Begins with a state that is not the one it is given."""

    def forward(self, x: Tensor, lengths: Any = None, h: Any = None) -> Tensor:
        return self.head(self.rnn(x, torch.tanh(h))[0])


def test_what_lengths_and_states_mean(tmp_path: Path) -> None:
    """The runtime's are those of the module, or it is refused."""
    lengths = [2, 6, 4]
    x = np.random.default_rng(22).standard_normal((6, 3, 3), np.float32)
    for of in (lambda y, h: y, lambda y, h: h[-1]):
        module = random(Ragged(of))
        result = exported(module, tmp_path).run(x, lengths=lengths)
        close(torch.from_numpy(result), run_reference(module, x, torch.tensor(lengths)), "output")
    for of, message in (
        (lambda y, h: y[-1], r"or \[-1\] of its state, where sequences have lengths"),
        (lambda y, h: y.mean(0), "without lengths, over dim=0"),
    ):
        with pytest.raises(ExportError, match=message):
            export(Ragged(of), tmp_path / "m")
    with pytest.raises(ExportError, match=r"must be initial states of zeros, or .*, got tanh"):
        export(Started(None), tmp_path / "m")


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = GRU(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0] + x if x.sum() > 0 else x


class WithTail(nn.Module):
    """A layer, followed by another module."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.rnn, self.tail = GRU(3, 5), tail

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.rnn(x)[0][-1])[0]


class Stepping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = RecurrentCell(cells.MGU, 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for row in x:
            h = self.cell(row, h)
        return h


def test_what_is_not_a_module_is_reported(tmp_path: Path) -> None:
    faults: list[tuple[Any, str]] = [
        (GRU(3, 5).state_dict(), "Module, got OrderedDict; load a state_dict into its module"),
        (GRU, "export: module must be a torch.nn.Module, got type GRU, not an instance of it"),
        (None, "export: module must be a torch.nn.Module, got NoneType"),
    ]
    for module, message in faults:
        with pytest.raises(TypeError, match=message):
            export(module, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_is_not_a_chain_is_reported(tmp_path: Path) -> None:
    faults: list[tuple[nn.Module, str]] = [
        (UserModel(how="sum"), "relu, tanh, sigmoid, or softmax over the last dimension, got add"),
        (
            UserModel(how="units"),
            "must be a layer's outputs, without lengths, over dim=0, got mean",
        ),
        (UserModel(how="values"), r"must be a maximum over the steps as amax\(0\), got max"),
        (
            UserModel(how="units of steps"),
            "must be relu, .* softmax over the last dimension, got softmax",
        ),
        (
            UserModel(how="unused"),
            "UserModel: output must be computed from a layer's, .* not read rnn",
        ),
        (
            WithTail(nn.LSTM(5, 5)),
            r"tail: must be a layer .*, got LSTM; unrolled.nn.convert replaces",
        ),
        (
            WithTail(nn.Sequential(nn.LSTM(5, 5))),
            r"tail\.0: must be a layer .*, got LSTM; unrolled",
        ),
        (
            WithTail(RecurrentCell(cells.MGU, 5, 5)),
            "tail: must be .*, got RecurrentCell; single steps .*: Rec",
        ),
        (
            Stepping(),
            r"got Stepping; single steps are not exported: RecurrentCell \(cell\); use a layer",
        ),
        (UserModel(LSTM, how="pair"), r"a layer's outputs, or \[-1\] of them"),
        (UserModel(how="step", bidirectional=True), r"a layer's outputs, or \[-1\] of them in one"),
        (
            UserModel(how="step", batch_first=True),
            r"a layer's outputs, or \[:, -1\] of them in one",
        ),
        (Dropping(lambda m, y: F.dropout(y, 0.3)), "must be dropout with training=self.training"),
        (Dropping(lambda m, y: F.dropout(y, 0.3, True)), "must be dropout with training=self.tr"),
        (
            Branching(),
            r"Branching: forward cannot be traced at .*_chains\.py:\d+, `return .* \(a branch",
        ),
        (nn.Conv1d(1, 1, 1), "Conv1d: must be a layer of unrolled.nn"),
    ]
    for module, message in faults:
        with pytest.raises(ExportError, match=message):
            export(module, tmp_path / "m")


def test_what_has_no_steps_or_no_program(tmp_path: Path) -> None:
    bidirectional_model = exported(GRU(3, 5, bidirectional=True), tmp_path)
    with pytest.raises(ValueError, match="Model: stream needs one direction, got two"):
        bidirectional_model.stream()
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        exported(GRU(3, 5), tmp_path).stream(0)
    path = tmp_path / "no"
    faults: list[tuple[nn.Module, str]] = [
        (
            nn.Sequential(GRU(3, 5), nn.Conv1d(1, 1, 1)),
            "1: must be a layer of unrolled.nn, .*Conv1d",
        ),
        (nn.LSTM(3, 5), "LSTM: must be .*; unrolled.nn.convert replaces torch's layers .*: L"),
        (
            UserModel(nn.GRU),
            "UserModel: must be .*, got UserModel; unrolled.nn.convert replaces to",
        ),
        (GRU(3, 5).double(), "GRU: parameters must be torch.float32, got torch.float64"),
        (
            nn.Sequential(GRU(3, 5, batch_first=True), GRU(5, 5)),
            "export: batch_first must be the same in all layers, got both",
        ),
        (nn.Linear(3, 5), "Linear: blocks: one block must be recurrent, got none"),
        (
            nn.Sequential(GRU(3, 5), nn.Linear(6, 2)),
            "Sequential: linear: inputs must be 5, .*got 6",
        ),
        (nn.Sequential(GRU(3, 5), Doubled(5, 5)), "1: must be a layer of unrolled.nn, .*Doubled"),
        (nn.Sequential(GRU(3, 5), hooked(nn.Linear(5, 5))), "1: must have no hooks"),
        (Recurrent(cells.RNN(nn.GELU()), 3, 4), "Recurrent: cell must have a program, got none"),
        (nn.Sequential(GRU(3, 5), nn.Softmax(0)), "1: dim of softmax must be -1"),
    ]
    for module, message in faults:
        with pytest.raises(ExportError, match=message):
            export(module, path)
    assert not path.exists()
    with pytest.raises(ValueError, match=r"export: weights must be one of .* int8, got 'int4'"):
        export(GRU(3, 5), path, weights="int4")
