"""The forms in which tutorials write recurrent models: exported with the numbers of the module, for
the runtime and as ONNX, or refused by a sentence that names the line and what to do. The module is
as it was afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Variable
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.support.modules import Forward, H, I, N, Net, T, attributes, net_of
from tests.support.runtime_models import exported, random
from tests.support.tolerances import close
from unrolled import onnx
from unrolled.export import ExportError, export
from unrolled.nn import GRU, LSTM


def zeros(net: Net, x: Tensor) -> Tensor:
    h0 = torch.zeros(net.rows, x.size(0), H, device=x.device, dtype=torch.float32)
    c0 = torch.zeros((net.rows, x.size(0), H)).to(x.device)
    return net.fc(net.rnn(x, (h0, c0))[0][:, -1, :])


def detached(net: Net, x: Tensor) -> Tensor:
    h0 = torch.zeros(net.rows, x.size(0), H).requires_grad_()
    out, _ = net.rnn(x, (h0.detach(), torch.zeros_like(h0).detach()))
    return net.fc(out[:, -1, :])


def new_zeros(net: Net, x: Tensor) -> Tensor:
    batch, _, _ = x.shape
    state = (x.new_zeros(net.rows, batch, H), x.new_zeros((net.rows, x.shape[0], H)))
    _, (h, _) = net.rnn(x, state)
    return F.log_softmax(net.fc(h[-1]), dim=1)


def of_parameters(net: Net, x: Tensor) -> Tensor:
    weight = next(net.parameters())
    state = tuple(weight.new_zeros(net.rows, x.size(0), H) for _ in range(2))
    return net.fc(net.drop(net.rnn(x, state)[0]))


def variable(net: Net, x: Tensor) -> Tensor:
    h0 = Variable(torch.zeros(net.rows, x.size(0), H))
    return net.fc(torch.relu(net.rnn(x, (h0, h0))[0].contiguous()))


def transposed(net: Net, x: Tensor) -> Tensor:
    h0 = torch.zeros(x.size(0), net.rows, H).transpose(0, 1)
    return net.fc(net.rnn(x, h0)[0])


def expanded(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.rnn(x, net.h0.expand(-1, x.size(0), -1))[0])


def repeated(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.rnn(x, net.h0.repeat(1, x.size(0), 1).contiguous())[0])


def ones(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.rnn(x, torch.ones(net.rows, x.size(0), H))[0])


def time_first(net: Net, x: Tensor) -> Tensor:
    h0 = torch.zeros(net.rows, x.size(1), H)
    return net.fc(net.rnn(x, h0)[0][-1])


def both_directions(net: Net, x: Tensor) -> Tensor:
    _, h = net.rnn(x)
    return net.fc(torch.cat((h[-2, :, :], h[-1, :, :]), dim=1))


def squeezed(net: Net, x: Tensor) -> Tensor:
    _, (h, _) = net.rnn(x)
    return net.fc(h.squeeze(0))


def first_row(net: Net, x: Tensor) -> Tensor:
    _, (h, _) = net.rnn(x)
    return net.fc(h[0])


def with_states(net: Net, x: Tensor) -> Any:
    net.hidden = torch.zeros(net.rows, x.size(0), H)
    out, net.hidden = net.rnn(x, net.hidden)
    return F.relu(net.fc(out)), net.hidden


FORMS: list[tuple[Forward, dict[str, Any]]] = [
    (zeros, {"num_layers": 2}), (detached, {}), (new_zeros, {"num_layers": 2}),
    (of_parameters, {}), (variable, {}), (transposed, {"layer_class": GRU, "num_layers": 2}),
    (expanded, {"layer_class": GRU}), (repeated, {"layer_class": GRU, "bidirectional": True}),
    (ones, {"layer_class": GRU}), (time_first, {"layer_class": GRU, "batch_first": False}),
    (squeezed, {}), (both_directions, {"layer_class": GRU, "bidirectional": True, "num_layers": 2}),
    (first_row, {}), (with_states, {"layer_class": GRU}),
]  # fmt: skip


class LastStep(nn.Module):
    """What takes the last step of a layer's results, within a Sequential."""

    def forward(self, results: Any) -> Tensor:
        return results[0][:, -1, :]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = LSTM(I, H, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        h0 = torch.zeros(1, x.size(0), H)
        out, (h, _) = self.lstm(x, (h0, h0.clone()))
        return out * 2, h


class Nested(nn.Module):
    """A module within a module."""

    def __init__(self, item: int) -> None:
        super().__init__()
        self.encoder, self.fc, self.item = Encoder(), nn.Linear(H, 2), item

    def forward(self, x: Tensor) -> Tensor:
        results = self.encoder(x)
        return self.fc(results[1][-1] if self.item else results[0])


@pytest.mark.parametrize(
    "module",
    [nn.Sequential(LSTM(I, H, batch_first=True), LastStep(), nn.Linear(H, 2)), Nested(1)],
    ids=["Sequential", "Nested"],
)
def test_modules_of_modules(module: nn.Module, tmp_path: Path) -> None:
    module = random(module).eval()
    x = torch.randn(N, T, I)
    with torch.no_grad():
        close(torch.from_numpy(exported(module, tmp_path).run(x.numpy())), module(x), "output")


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # of torch.compile
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_what_is_compiled_or_parallel(wrap: Callable[..., Any], tmp_path: Path) -> None:
    net = random(net_of(zeros)).eval()
    x = torch.randn(N, T, I)
    with torch.no_grad():
        expected = net(x)
    close(torch.from_numpy(exported(wrap(net), tmp_path).run(x.numpy())), expected, "output")


def doubles(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.rnn(x, x.new_ones(net.rows, x.size(0), H))[0])


def test_states_of_a_model_in_float64(tmp_path: Path) -> None:
    net = random(net_of(doubles, layer_class=GRU)).double().eval()
    onnx.export(net, tmp_path / "m.onnx")
    x = torch.randn(N, T, I, dtype=torch.float64)
    y = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(["y"], {"x": x.numpy()})[0]
    with torch.no_grad():
        close(torch.from_numpy(y), net(x), "output")


def test_a_refusal_names_the_module_within(tmp_path: Path) -> None:
    message = (
        r"^Nested\.encoder at .*test_tracing_forms\.py:\d+, `return out \* 2, h`: must be relu"
    )
    with pytest.raises(ExportError, match=message):
        export(Nested(0), tmp_path / "m")


@pytest.mark.parametrize(("run", "options"), FORMS, ids=lambda one: getattr(one, "__name__", ""))
def test_forms_of_tutorials(run: Forward, options: dict[str, Any], tmp_path: Path) -> None:
    net = random(net_of(run, **options))
    net.drop.eval()  # and the others in training
    previous = attributes(net)
    model = exported(net, tmp_path)
    assert attributes(net) == previous
    x = torch.randn(T, N, I) if not net.rnn.batch_first else torch.randn(N, T, I)
    with torch.no_grad():
        expected = net.eval()(x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    close(torch.from_numpy(model.run(x.numpy())), expected, "output", run.__name__)
    onnx.export(net, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    close(torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0]), expected, "output", "ONNX")


def packed(net: Net, x: Tensor, lengths: Tensor) -> Tensor:
    rows = pack_padded_sequence(net.embedding(x), lengths.cpu(), batch_first=True,
                                enforce_sorted=False)  # fmt: skip
    out, _ = pad_packed_sequence(net.rnn(rows)[0], batch_first=True)
    return net.fc(out)


def packed_state(net: Net, x: Tensor, lengths: Tensor) -> Tensor:
    rows = nn.utils.rnn.pack_padded_sequence(net.embedding(x), lengths, True, False)
    _, (h, _) = net.rnn(rows)
    return net.fc(h[-1])


@pytest.mark.parametrize("run", [packed, packed_state])
def test_packed_sequences(run: Forward, tmp_path: Path) -> None:
    net = random(net_of(run)).eval()
    original = nn.utils.rnn.pack_padded_sequence
    model = exported(net, tmp_path)
    assert nn.utils.rnn.pack_padded_sequence is original is pack_padded_sequence
    x, lengths = torch.randint(0, 7, (N, T)), torch.tensor([2, T, 4])
    with torch.no_grad():
        expected = net(x, lengths)
    output = model.run(x.numpy(), lengths.numpy())
    close(torch.from_numpy(output), expected, "output")


def optional(net: Net, x: Tensor, h: Tensor | None = None) -> Tensor:
    """Begins with what it is given, or with ones."""
    h = torch.ones(net.rows, x.size(0), H) if h is None else h
    return net.fc(net.rnn(x, h)[0])


def test_states_that_are_made_unless_given(tmp_path: Path) -> None:
    """The file begins with what the module makes, not with zeros."""
    net = random(net_of(optional, layer_class=GRU)).eval()
    x = torch.randn(N, T, I)
    output = exported(net, tmp_path).run(x.numpy())
    with torch.no_grad():
        close(torch.from_numpy(output), net(x), "output")
        assert not torch.allclose(net(x), net(x, torch.zeros(1, N, H)))


def one_given(net: Net, x: Tensor, h: Tensor) -> Tensor:
    return net.fc(net.rnn(x, (h, torch.zeros_like(h)))[0])


def one_given_one_made(net: Net, x: Tensor, h: Tensor) -> Tensor:
    return net.fc(net.rnn(x, (h, torch.ones(net.rows, x.size(0), H)))[0])


def test_one_of_two_states_is_an_input(tmp_path: Path) -> None:
    """Zeros beside it are what a file begins with; other numbers would be lost."""
    net = random(net_of(one_given)).eval()
    x = torch.randn(N, T, I)
    with torch.no_grad():
        expected = net(x, torch.zeros(1, N, H))
    close(torch.from_numpy(exported(net, tmp_path).run(x.numpy())), expected, "output")
    with pytest.raises(ExportError, match="initial states that are all inputs, or all created in"):
        export(net_of(one_given_one_made), tmp_path / "m")


class Changing(nn.Module):
    """Changes itself whenever it is called, and may fail at the end."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.rnn, self.fails = GRU(I, H), fails
        self.inputs: list[Any] = ["first"]
        self.places: dict[str, Any] = {"last": []}
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last_input = x
        self.inputs.append(x)
        self.places["last"].append(x)
        self.rnn.batch_first = True
        self.rnn.noted = x
        self.added = nn.Linear(1, 1)
        self.fixed = torch.randn(1)
        self.train()
        if self.fails:
            raise ArithmeticError("on purpose")
        return self.rnn(x)[0]


@pytest.mark.parametrize("fails", [True, False])
def test_a_module_that_changes_itself_is_as_before(fails: bool, tmp_path: Path) -> None:
    module = Changing(fails)
    module.rnn.eval()
    previous, names = attributes(module), list(module.state_dict())
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    if fails:
        with pytest.raises(ExportError, match=r"raise Arith.*\(on purpose\)"):
            export(module, tmp_path / "m")
    else:
        export(module, tmp_path / "m")
    assert attributes(module) == previous
    assert list(module.state_dict()) == names
    assert module.inputs == ["first"]
    assert module.places == {"last": []}
    assert module.calls == 0
    assert (module.training, module.rnn.training) == (True, False)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.isfinite(module.rnn(torch.zeros(2, 2, I))[0].detach().numpy()).all()
