"""Activations, coloured text and principal components, against layers and scikit-learn."""

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
from unrolled.diagnostics._steps import layers_of
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
    expected, (_, c_n) = below(model.encoder(tokens))
    close(activity(model, tokens, layer=0), expected[:, 0].detach(), "output")
    close(activity(model, tokens, layer=0, state="c")[-1], c_n[0, 0].detach(), "output")
    assert not model.recurrent._forward_pre_hooks


def test_activity_of_the_reverse_direction_is_in_input_order() -> None:
    layer, x = GRU(3, 4, bidirectional=True), torch.randn(6, 3)
    output, _ = layer(x)
    close(activity(layer, x, reverse=True), output[:, 4:].detach(), "output")


def test_errors_name_the_wrong_argument() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = GRU(3, 4), GRU(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(x)[0]

    model, x = Two(), torch.randn(5, 2, 3)
    close(activity(model, x, name="b"), model(x)[:, 0].detach(), "output")
    for arguments, message in (
        ({}, "module must call its layer 'a'"),
        ({"name": "c"}, "name must be one of 'a', 'b', got 'c'"),
        ({"name": "b", "layer": 1}, "layer must be at least -1 and below 1, got 1"),
        ({"name": "b", "reverse": True}, "reverse must be False"),
        ({"name": "b", "row": 2}, "row must be at least 0 and below 2, got 2"),
        ({"name": "b", "state": "c"}, "state must be one of h, got 'c'"),
    ):
        with pytest.raises(ValueError, match=message):
            activity(model, x, **arguments)
    with pytest.raises(ValueError, match="Linear has none"):
        layers_of(nn.Linear(2, 2))


def test_coloured_text_of_known_activations() -> None:
    markup = coloured_text("a<b\n&", torch.tensor([0.5, 0.5, 0.0, -0.25, -0.01]))
    assert markup == (
        '<div class="text"><span class="u10">a&lt;</span>b<span class="d5">↵\n</span>&amp;</div>'
    )
    assert coloured_text("\r\0\x7f\t", torch.zeros(4)) == '<div class="text">␍␀␡\t</div>'
    assert coloured_text(["a\n", "b"], torch.zeros(2)) == '<div class="text">a↵\nb</div>'
    assert coloured_text("ab", torch.zeros(2)) == '<div class="text">ab</div>'
    with pytest.raises(ValueError, match=r"one token for each .* shape \[2\], got 3"):
        coloured_text("abc", torch.zeros(2))


def test_units_of_the_largest_variance_are_first() -> None:
    states = torch.tensor([[0.0, 5.0, 1.0], [0.1, 5.0, -1.0]])
    assert most_variable(states, 2) == [2, 0]
    assert most_variable(states, 9) == [2, 0, 1]


def test_principal_components_agree_with_scikit_learn() -> None:
    states = double(30, 5) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])
    components = principal_components(states, 3)
    expected = PCA(3).fit(states.numpy())
    signs = torch.from_numpy(expected.components_ * components.axes.numpy()).sum(1).sign()
    close(components.axes * signs[:, None], torch.from_numpy(expected.components_), "random")
    close(components.points * signs, torch.from_numpy(expected.transform(states.numpy())), "random")
    close(components.explained, torch.from_numpy(expected.explained_variance_ratio_), "random")
    assert (components.axes.gather(1, components.axes.abs().argmax(1, keepdim=True)) > 0).all()
    assert principal_components(torch.ones(3, 2)).explained.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"count must be .* got 6 for states of shape \[30, 5\]"):
        principal_components(states, 6)
