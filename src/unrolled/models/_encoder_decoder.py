"""Sequence to sequence: a decoder starts from the final state of an encoder."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrolled.models._cell_lookup import CellLike, StackOptions, make_stack
from unrolled.models._pooling import length_mask
from unrolled.models._sequence_model import check_sizes
from unrolled.nn.types import HiddenState, Lengths


class Memory(NamedTuple):
    """The encoder's outputs [T, N, H], and the mask [T, N] of steps within their sources."""

    outputs: Tensor
    mask: Tensor


class DotAttention(nn.Module):
    """Global attention with dot products (Luong et al. 2015, without input feeding).

    a_ts = softmax_s(y_t · m_s), c_t = Σ_s a_ts m_s, ỹ_t = tanh(W [c_t; y_t] + b).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.combine = nn.Linear(2 * width, width)

    def weights(self, outputs: Tensor, memory: Memory) -> Tensor:
        """The attention of each step of outputs [U, N, H] to each of the memory: [N, U, T]."""
        scores = torch.einsum("unh,tnh->nut", outputs, memory.outputs)
        mask = memory.mask.t()[:, None]
        weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), -1)
        return weights.where(mask.any(-1, keepdim=True), 0.0)

    def forward(self, outputs: Tensor, memory: Memory) -> Tensor:
        """Outputs [U, N, H], each combined with its context."""
        # Masked first: a NaN past the end of a source would reach the gradients.
        masked = memory.outputs.where(memory.mask[..., None], 0.0)
        weights = self.weights(outputs, Memory(masked, memory.mask))
        context = torch.einsum("nut,tnh->unh", weights, masked)
        return torch.tanh(self.combine(torch.cat([context, outputs], -1)))


class EncoderDecoder(nn.Module):
    """An encoder (embedding and recurrent layers over the source), a decoder (the same over the
    target, from the encoder's final state; Sutskever et al. 2014), and a head for the logits of the
    next token.

    Args:
        source_size, target_size: numbers of different tokens.
        hidden_size, num_layers, cell: of both encoder and decoder, see :class:`SequenceModel`.
        embedding_size: width of both embeddings.
        dropout: probability, after the embeddings, between the layers and before the head.
        bidirectional: the encoder reads in both directions; their outputs and final states are
            added. The decoder has one direction: it generates the target from left to right.
        attention: the decoder attends to the encoder's outputs before the head.

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
        check_sizes("EncoderDecoder", sizes, dropout)
        self.arguments: dict[str, object] = {
            **sizes,
            "cell": cell,
            "dropout": dropout,
            "bidirectional": bidirectional,
            "attention": attention,
        }
        options: StackOptions = {
            "num_layers": num_layers,
            "dropout": dropout if num_layers > 1 else 0.0,
        }
        self.source = nn.Embedding(source_size, embedding_size)
        self.target = nn.Embedding(target_size, embedding_size)
        encoder_options = options.copy()
        encoder_options["bidirectional"] = bidirectional
        encoder_options["merge"] = "sum" if bidirectional else "concat"
        self.encoder = make_stack(cell, embedding_size, hidden_size, **encoder_options)
        self.decoder = make_stack(cell, embedding_size, hidden_size, **options)
        width = self.decoder.spec.output_size
        self.attention = DotAttention(width) if attention else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, target_size)

    def encode(self, source: Tensor, lengths: Lengths | None = None) -> tuple[Memory, HiddenState]:
        """Read sources `[T, N]`: the memory, and the initial state of the decoder."""
        outputs: Tensor
        state: HiddenState
        outputs, state = self.encoder(self.dropout(self.source(source)), lengths=lengths)
        mask = length_mask(source.shape[0], source.shape[1], lengths, source.device)
        if self.encoder.bidirectional:
            state = _sum_directions(state)
        return Memory(outputs, mask), state

    def decode(
        self, target: Tensor, state: HiddenState, memory: Memory, lengths: Lengths | None = None
    ) -> tuple[Tensor, HiddenState]:
        """Logits `[U, N, V]` of the tokens that follow targets `[U, N]`, and the final state."""
        hidden: Tensor = self.dropout(self.target(target))
        final_state: HiddenState
        hidden, final_state = self.decoder(hidden, state, lengths=lengths)
        if self.attention is not None:
            hidden = self.attention(hidden, memory)
        return self.head(self.dropout(hidden)), final_state

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        source_lengths: Lengths | None = None,
        target_lengths: Lengths | None = None,
    ) -> Tensor:
        """Logits of each next token, given the true ones before it (teacher forcing)."""
        memory, state = self.encode(source, source_lengths)
        return self.decode(target, state, memory, target_lengths)[0]


def _sum_directions(state: HiddenState) -> HiddenState:
    """Add the states of the two directions: [2L, N, W] to [L, N, W]."""
    if isinstance(state, Tensor):
        return state.view(len(state) // 2, 2, *state.shape[1:]).sum(1)
    return tuple(part.view(len(part) // 2, 2, *part.shape[1:]).sum(1) for part in state)
