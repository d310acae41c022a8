"""Hidden states over time, and their components, against the layer's and scikit-learn's."""

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from tests.support.subjects import double
from tests.support.tolerances import close
from unrolled.diagnostics import (
    activity,
    coloured_text,
    most_variable,
    principal_components,
)
from unrolled.diagnostics.steps import layers_of, listening
from unrolled.models import LanguageModel
from unrolled.nn import GRU, LSTM


def test_activity_is_the_hidden_state() -> None:
    model = LanguageModel(7, 4, cell="LSTM", num_layers=2, embedding_size=3, dropout=0.5)
    tokens = torch.randint(7, (6, 2))
    model.eval()
    hidden, _ = model.recurrent(model.encoder(tokens))
    model.train()
    close(activity(model, tokens, row=1), hidden[:, 1].detach(), "output")
    assert model.training
    below = LSTM(3, 4)
    states = model.recurrent.state_dict()
    below.load_state_dict({name: states[name] for name in below.state_dict()})
    wanted, (_, c_n) = below(model.encoder(tokens))
    close(activity(model, tokens, layer=0), wanted[:, 0].detach(), "output")
    close(activity(model, tokens, layer=0, state="c")[-1], c_n[0, 0].detach(), "output")
    assert not model.recurrent._forward_pre_hooks


def test_activity_in_reverse_is_in_the_inputs_order() -> None:
    layer, x = GRU(3, 4, bidirectional=True), torch.randn(6, 3)
    output, _ = layer(x)
    close(activity(layer, x, reverse=True), output[:, 4:].detach(), "output")


def test_activity_names_a_wrong_argument() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = GRU(3, 4), GRU(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(x)[0]

    model, x = Two(), torch.randn(5, 2, 3)
    close(activity(model, x, name="b"), model(x)[:, 0].detach(), "output")
    for arguments, said in (
        ({}, "one that calls 'a'"),
        ({"name": "c"}, "name: wanted one of 'a', 'b', got 'c'"),
        ({"name": "b", "layer": 1}, "layer: wanted below 1, got 1"),
        ({"name": "b", "reverse": True}, "reverse: wanted False"),
        ({"name": "b", "row": 2}, "row: wanted 0 to 1, got 2"),
        ({"name": "b", "state": "c"}, "state: wanted one of h, got 'c'"),
    ):
        with pytest.raises(ValueError, match=said):
            activity(model, x, **arguments)
    with pytest.raises(ValueError, match="Linear has none"):
        layers_of(nn.Linear(2, 2))


def test_ragged_batches_are_heard_in_their_longest_rows() -> None:
    layer = LSTM(3, 4, batch_first=True)
    x, hx = torch.randn(4, 6, 3), (torch.randn(1, 4, 4), torch.randn(1, 4, 4))
    lengths = [2, 5, 3, 5]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    for given, options in ((x, {"lengths": lengths}), (packed, {})):
        with listening({"": layer}, rows=4) as calls:
            layer(given, hx, **options)
            layer(torch.zeros(1, 1, 3))
        assert torch.equal(calls[""].x, x[[1, 3], :5])
        assert torch.equal(calls[""].hx[1], hx[1][:, [1, 3]])


def test_coloured_text_by_hand() -> None:
    shown = coloured_text("a<b\n&", torch.tensor([0.5, 0.5, 0.0, -0.25, -0.01]))
    assert shown == (
        '<div class="text"><span class="u10">a&lt;</span>b<span class="d5">↵\n</span>&amp;</div>'
    )
    assert coloured_text("\r\0\x7f\t", torch.zeros(4)) == '<div class="text">␍␀␡\t</div>'
    assert coloured_text(["a\n", "b"], torch.zeros(2)) == '<div class="text">a↵\nb</div>'
    assert coloured_text("ab", torch.zeros(2)) == '<div class="text">ab</div>'
    with pytest.raises(ValueError, match=r"a piece for each .* shape \[2\], got 3"):
        coloured_text("abc", torch.zeros(2))


def test_the_most_variable_units_come_first() -> None:
    states = torch.tensor([[0.0, 5.0, 1.0], [0.1, 5.0, -1.0]])
    assert most_variable(states, 2) == [2, 0]
    assert most_variable(states, 9) == [2, 0, 1]


def test_principal_components_are_those_of_scikit_learn() -> None:
    states = double(30, 5) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])
    found = principal_components(states, 3)
    judge = PCA(3).fit(states.numpy())
    signs = torch.from_numpy(judge.components_ * found.axes.numpy()).sum(1).sign()
    close(found.axes * signs[:, None], torch.from_numpy(judge.components_), "random")
    close(found.points * signs, torch.from_numpy(judge.transform(states.numpy())), "random")
    close(found.explained, torch.from_numpy(judge.explained_variance_ratio_), "random")
    assert (found.axes.gather(1, found.axes.abs().argmax(1, keepdim=True)) > 0).all()
    assert principal_components(torch.ones(3, 2)).explained.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"count: .* got 6 for states of shape \[30, 5\]"):
        principal_components(states, 6)
