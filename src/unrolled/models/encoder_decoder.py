"""Sequence to sequence: an encoder, and a decoder that is started from the encoder's state."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.models.cell_lookup import CellLike, Lengths, State, make_stack
from unrolled.models.sequence_model import check_sizes

__all__ = ["DotAttention", "EncoderDecoder", "Memory"]


class Memory(NamedTuple):
    """What the encoder leaves: its outputs [T, N, H], and which of them are tokens [T, N]."""

    outputs: Tensor
    inside: Tensor


class DotAttention(nn.Module):
    """Global attention with dot products (Luong et al. 2015, without input feeding).

    a_ts = softmax_s(y_t · m_s), c_t = Σ_s a_ts m_s, ỹ_t = tanh(W [c_t; y_t] + b).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.combine = nn.Linear(2 * width, width)

    def weights(self, outputs: Tensor, memory: Memory) -> Tensor:
        """How much each step of outputs [U, N, H] looks at each step of the memory: [N, U, T]."""
        scores = torch.einsum("unh,tnh->nut", outputs, memory.outputs)
        inside = memory.inside.t()[:, None]
        weights = torch.softmax(scores.masked_fill(~inside, -torch.inf), -1)
        return weights.where(inside.any(-1, keepdim=True), 0.0)

    def forward(self, outputs: Tensor, memory: Memory) -> Tensor:
        """Outputs [U, N, H] that have looked."""
        # Taken out first: a NaN behind a source would reach the gradients.
        kept = memory.outputs.where(memory.inside[..., None], 0.0)
        weights = self.weights(outputs, Memory(kept, memory.inside))
        context = torch.einsum("nut,tnh->unh", weights, kept)
        return torch.tanh(self.combine(torch.cat([context, outputs], -1)))


class EncoderDecoder(nn.Module):
    """Embedding and recurrent layers over the source; the same over the target, which begins with
    the encoder's final state (Sutskever et al. 2014); a head to the logits of the next token.

    Args:
        source_size, target_size: numbers of different tokens.
        hidden_size, num_layers, cell: of encoder and decoder alike, see :class:`SequenceModel`.
        embedding_size: width of both embeddings.
        dropout: probability, after the embeddings, between the layers and before the head.
        bidirectional: the encoder reads in both directions; outputs and states of the two are
            added. The decoder cannot: it has not written what comes after.
        attention: the decoder looks at the encoder's outputs before the head.

    Raises:
        ValueError: an argument is out of its range; the message names it.
        unrolled.models.CellNameError: there is no such cell.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        *,
        hidden_size: int = 128,
        cell: CellLike = "GRU",
        num_layers: int = 1,
        embedding_size: int = 64,
        dropout: float = 0.0,
        bidirectional: bool = False,
        attention: bool = True,
    ) -> None:
        super().__init__()
        sizes = {
            "source_size": source_size,
            "target_size": target_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "embedding_size": embedding_size,
        }
        check_sizes(sizes, dropout)
        self.arguments: dict[str, Any] = {
            **sizes,
            "cell": cell,
            "dropout": dropout,
            "bidirectional": bidirectional,
            "attention": attention,
        }
        between = dropout if num_layers > 1 else 0.0
        options = {"num_layers": num_layers, "dropout": between}
        self.source = nn.Embedding(source_size, embedding_size)
        self.target = nn.Embedding(target_size, embedding_size)
        self.encoder = make_stack(
            cell,
            embedding_size,
            hidden_size,
            bidirectional=bidirectional,
            merge="sum" if bidirectional else "concat",
            **options,
        )
        self.decoder = make_stack(cell, embedding_size, hidden_size, **options)
        width = self.decoder.spec.output_size
        self.attention = DotAttention(width) if attention else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, target_size)

    def encode(self, source: Tensor, lengths: Lengths | None = None) -> tuple[Memory, State]:
        """Read sources `[T, N]`: the memory, and the state that the decoder starts from."""
        outputs, state = self.encoder(self.dropout(self.source(source)), lengths=lengths)
        T, N = source.shape
        if lengths is None:
            lengths = torch.full((N,), T, device=source.device)
        ends = torch.as_tensor(lengths, device=source.device)
        inside = torch.arange(T, device=source.device)[:, None] < ends
        if self.encoder.bidirectional:
            state = _added(state)
        return Memory(outputs, inside), state

    def decode(
        self, target: Tensor, state: State, memory: Memory, lengths: Lengths | None = None
    ) -> tuple[Tensor, State]:
        """Logits `[U, N, V]` of the tokens that follow targets `[U, N]`, and the state after."""
        hidden = self.dropout(self.target(target))
        hidden, state = self.decoder(hidden, state, lengths=lengths)
        if self.attention is not None:
            hidden = self.attention(hidden, memory)
        return self.head(self.dropout(hidden)), state

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        source_lengths: Lengths | None = None,
        target_lengths: Lengths | None = None,
    ) -> Tensor:
        """Logits of each next token, given the right ones before it (teacher forcing)."""
        memory, state = self.encode(source, source_lengths)
        return self.decode(target, state, memory, target_lengths)[0]


def _added(state: State) -> State:
    """States of both directions as one: [2L, N, W] to [L, N, W]."""
    if isinstance(state, Tensor):
        return state.unflatten(0, (-1, 2)).sum(1)
    return tuple(part.unflatten(0, (-1, 2)).sum(1) for part in state)
