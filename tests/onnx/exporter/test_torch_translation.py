"""Models that hold our layers through ``torch.onnx.export``, with the translation table."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.onnx_files import randomize, session, with_nan_padding
from tests.support.tolerances import close
from unrolled import cells, engines
from unrolled.nn import GRU, LSTM, Recurrent
from unrolled.onnx import translation_table

pytestmark = [
    pytest.mark.slow,  # a second or two for each export
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]
FREE = torch.export.Dim.DYNAMIC


class Model(nn.Module):
    """Layers in a graph that is not a chain: sums, and states of one layer that start another."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 3)
        self.lstm = LSTM(3, 5, num_layers=2, bidirectional=True, **options)
        self.slstm = Recurrent(cells.SLSTM(heads=2), 10, 4, bidirectional=True, **options)
        self.gru = GRU(8, 4, **options)
        self.head = nn.Linear(4, 2)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        y, (h, _) = self.lstm(self.table(tokens), lengths=lengths)
        z, (s, *_) = self.slstm(y, lengths=lengths)
        w, n = self.gru(z + 1, s[:1] + h[:1, :, :4], lengths=lengths)
        return self.head(w) + w.sum(-1, keepdim=True), h, s, n


def exported(model: nn.Module, inputs: tuple[Any, ...], shapes: Any, **options: Any) -> Any:
    model.eval()
    program = torch.onnx.export(
        model, inputs, dynamo=True, dynamic_shapes=shapes, verbose=False,
        custom_translation_table=translation_table(), **options,
    )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    return session(proto.SerializeToString()), Counter(node.op_type for node in proto.graph.node)


def check(model: nn.Module, run: Any, inputs: tuple[Tensor, ...], fed: tuple[Tensor, ...]) -> None:
    with torch.no_grad(), engines.use("reference"):
        expected = model(*inputs)
    names = [info.name for info in run.get_inputs()]
    results = run.run(None, {k: v.numpy() for k, v in zip(names, fed, strict=True)})
    expected = expected if isinstance(expected, tuple) else (expected,)
    for got, value in zip(results, expected, strict=True):
        close(torch.from_numpy(got), value, "output")


def test_a_model_with_lengths() -> None:
    model = randomize(Model(batch_first=True))
    lengths = torch.tensor([4, 2, 3])
    tokens = torch.randint(0, 9, (3, 4))
    shapes = {"tokens": {0: FREE, 1: FREE}, "lengths": {0: FREE}}
    run, node_counts = exported(model, (tokens, lengths), shapes)
    assert (node_counts["LSTM"], node_counts["Scan"], node_counts["GRU"]) == (4, 2, 1)
    for N, T in ((5, 7), (1, 1)):
        tokens = torch.randint(0, 9, (N, T))
        lengths = torch.tensor([T, 0, 3, 2, 7])[:N]
        check(model, run, (tokens, lengths), (tokens, lengths))


class Inner(nn.Module):
    """One layer on numbers."""

    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        y: Tensor = self.layer(x, lengths=lengths)[0]
        return y


def test_padding_has_no_effect() -> None:
    """Of a projected layer, which becomes a Scan, in float64."""
    model = randomize(Inner(LSTM(3, 5, bidirectional=True, proj_size=2))).double()
    x, lengths = torch.rand(4, 3, 3).double(), torch.tensor([4, 2, 3])
    run, node_counts = exported(
        model, (x, lengths), {"x": {0: FREE, 1: FREE}, "lengths": {0: FREE}}
    )
    assert node_counts["Scan"] == 2
    x, lengths = torch.rand(6, 4, 3).double(), torch.tensor([1, 6, 0, 5])
    check(model, run, (x, lengths), (with_nan_padding(x, lengths, False), lengths))


def test_a_graph_that_is_not_optimized() -> None:
    """Without biases and free sizes."""
    model = randomize(Inner(Recurrent(cells.CoRNN, 3, 5, num_layers=2, bias=False)))
    x = torch.rand(4, 3, 3)
    run, _ = exported(model, (x,), None, optimize=False)
    check(model, run, (x,), (x,))


class WithResets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = GRU(3, 5)

    def forward(self, x: Tensor, resets: Tensor) -> Tensor:
        y: Tensor = self.layer(x, resets=resets)[0]
        return y


def test_resets_are_refused() -> None:
    with pytest.raises(Exception, match="Failed to convert") as caught:
        exported(WithResets(), (torch.rand(4, 3, 3), torch.zeros(4, 3, dtype=torch.bool)), None)
    messages, error = [], caught.value
    while error is not None:
        messages.append(str(error))
        error = error.__cause__
    assert any("resets must be None" in line for line in messages)
