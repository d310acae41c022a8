"""Forms of forward that are not exported: a sentence names the line and what to do."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.support.modules import Forward, H, Net, attributes, net_of
from unrolled import onnx
from unrolled.export import ExportError, export
from unrolled.nn import GRU


def attention(net: Net, x: Tensor) -> Tensor:
    out, h = net.rnn(x)
    scores = torch.softmax(torch.bmm(out, h[-1].unsqueeze(2)).squeeze(2), 1)
    return net.fc(torch.bmm(out.transpose(1, 2), scores.unsqueeze(2)).squeeze(2))


def rows_of_steps(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.rnn(x)[0].contiguous().view(-1, H))


def last_of_both(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.rnn(x)[0][:, -1, :])


def drawn_states(net: Net, x: Tensor) -> Tensor:
    h0 = torch.randn(net.rows, x.size(0), H)
    return net.fc(net.rnn(x, h0)[0])


def states_of_steps(net: Net, x: Tensor) -> Tensor:
    h0 = torch.zeros(net.rows, x.size(1), H)
    return net.fc(net.rnn(x, h0)[0])


def states_of_values(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.rnn(x, torch.zeros_like(x[:, :1]))[0])


def narrow_states(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.rnn(x, x.new_zeros(net.rows, x.size(0), H - 1))[0])


def wrong_order(net: Net, x: Tensor) -> Tensor:
    _, h = net.rnn(x)
    return net.fc(torch.cat((h[-1], h[-2]), dim=1))


def length_of_input(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.rnn(x, torch.zeros(1, len(x), H))[0])


def branch(net: Net, x: Tensor) -> Tensor:
    if x.sum() > 0:
        x = -x
    return net.fc(net.rnn(x)[0])


def unpacked_otherwise(net: Net, x: Tensor, lengths: Tensor) -> Tensor:
    rows = pack_padded_sequence(x, lengths, batch_first=True)
    out, _ = pad_packed_sequence(net.rnn(rows)[0], batch_first=False)
    return net.fc(out)


def own_lengths(net: Net, x: Tensor) -> Tensor:
    return net.rnn(pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True))[0]


def masked_in_place(net: Net, x: Tensor) -> Tensor:
    out, _ = net.rnn(x)
    out[:, :2].mul_(2.0)
    return net.fc(out)


def relu_in_place(net: Net, x: Tensor) -> Tensor:
    out, _ = net.rnn(x)
    F.relu(out, inplace=True)
    return net.fc(out)


def filled_in_place(net: Net, x: Tensor) -> Tensor:
    h0 = torch.zeros(net.rows, x.size(0), H)
    h0.fill_(0.5)
    return net.fc(net.rnn(x, h0)[0])


def drawn_in_place(net: Net, x: Tensor) -> Tensor:
    h0 = torch.zeros(net.rows, x.size(0), H)
    nn.init.normal_(h0)
    return net.fc(net.rnn(x, h0)[0])


def input_in_place(net: Net, x: Tensor) -> Tensor:
    torch.clamp(x, min=0.0, out=x)
    return net.fc(net.rnn(x)[0])


LOST = r"must be a function whose result is read, got {}; in-place changes are not exported"
REFUSED: list[tuple[Forward, dict[str, Any], str]] = [
    (
        attention,
        {},
        r"`scores = torch\.softmax.*got bmm; attention is exported from unrolled\.models",
    ),
    (rows_of_steps, {}, r"view\(-1, H\)\)`: must be relu, .*, got view; linear layers and functio"),
    (last_of_both, {"bidirectional": True}, r"torch\.cat\(\(h\[-2\], h\[-1\]\), 1\) has the"),
    (
        drawn_states,
        {},
        r"`h0 = torch\.randn.*must be initial states of zeros.*got randn; torch\.zer",
    ),
    (states_of_steps, {}, r"`h0 = .*a row for each sequence, of which there are x\.size\(0\)"),
    (states_of_values, {}, r"must be initial states of zeros, or .*, got getitem"),
    (narrow_states, {}, r"initial states of shape \[1, N, 6\], not \[1, N, 5\]"),
    (wrong_order, {"bidirectional": True}, r"`return net\.fc.*is exported"),
    (length_of_input, {}, r"Net: forward cannot be traced at .*len\(x\).*use x\.size\(0\)"),
    (branch, {}, r"`if x\.sum\(\) > 0:` \(a branch or loop that depends on the input cannot be"),
    (unpacked_otherwise, {}, "a layer's outputs with batch_first=True, padded with zeros"),
    (own_lengths, {}, "lengths that are an input"),
    (masked_in_place, {}, r"`out\[:, :2\]\.mul_\(2\.0\)`: " + LOST.format("mul_")),
    (relu_in_place, {}, r"`F\.relu\(out, inplace=True\)`: " + LOST.format("relu")),
    (filled_in_place, {}, LOST.format("fill_")),
    (drawn_in_place, {}, LOST.format("normal_")),
    (input_in_place, {}, LOST.format("clamp")),
]


@pytest.mark.parametrize(("run", "options", "message"), REFUSED, ids=lambda one: str(one)[:20])
def test_what_is_refused_names_the_line(
    run: Forward, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    net = net_of(run, layer_class=GRU, **options)
    previous = attributes(net)
    for write in (export, onnx.export):
        with pytest.raises(ExportError, match=message) as caught:
            write(net, tmp_path / "m")
        assert f"{Path(__file__).name}:" in str(caught.value)
        assert "%" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert attributes(net) == previous
    assert not list(tmp_path.iterdir())
