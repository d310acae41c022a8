"""The tagger: a label for each word, from the word and optionally its characters."""

import torch
from torch import Tensor, nn

from unrolled.models._cell_lookup import CellLike, make_stack
from unrolled.models._sequence_model import check_sizes
from unrolled.nn.types import HiddenState, Lengths


class Tagger(nn.Module):
    """Word embeddings, concatenated with the final states of a recurrent layer over the characters
    of each word; recurrent layers; logits of the labels (Lample et al. 2016, without the CRF).

    Args:
        words, characters, labels: the numbers of different ones; with 0 ``characters`` the model
            reads words alone.
        hidden_size, num_layers, cell, dropout, bidirectional: see :class:`SequenceModel`.
        embedding_size: width of the word embedding. The embedding of characters and the
            bidirectional layer over them have half of this width.

    Raises:
        ValueError: an argument is out of its range; the message names it.
        unrolled.models.CellNameError: there is no such cell.
    """

    def __init__(
        self,
        words: int,
        characters: int,
        labels: int,
        *,
        hidden_size: int = 128,
        cell: CellLike = "GRU",
        num_layers: int = 1,
        embedding_size: int = 64,
        dropout: float = 0.0,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        sizes = {
            "words": words,
            "labels": labels,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "embedding_size": embedding_size,
        }
        check_sizes("Tagger", sizes, dropout)
        if characters < 0:
            raise ValueError(
                f"Tagger: characters must be at least 0, got {characters}; 0 reads words alone"
            )
        self.arguments: dict[str, object] = {
            **sizes,
            "characters": characters,
            "cell": cell,
            "dropout": dropout,
            "bidirectional": bidirectional,
        }
        self.words = nn.Embedding(words, embedding_size)
        width, half = embedding_size, max(1, embedding_size // 2)
        self.characters: nn.Embedding | None = None
        if characters:
            self.characters = nn.Embedding(characters, half)
            self.spelling = make_stack(cell, half, half, bidirectional=True)
            width += self.spelling.spec.output_size
        self.dropout = nn.Dropout(dropout)
        self.recurrent = make_stack(
            cell,
            width,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        self.head = nn.Linear(self.recurrent.spec.output_size, labels)

    def forward(
        self,
        words: Tensor,
        lengths: Lengths,
        characters: Tensor | None = None,
        spellings: Tensor | None = None,
    ) -> Tensor:
        """Logits `[T, N, labels]` of words `[T, N]` in sentences of ``lengths`` `[N]`.

        Column t·N + n of ``characters`` `[C, T·N]` has the characters of word (t, n);
        ``spellings`` `[T·N]` are their numbers, zero where there is no word.

        Raises:
            ValueError: the model reads characters and none were passed.
        """
        hidden = self.words(words)
        if self.characters is not None:
            if characters is None or spellings is None:
                raise ValueError(
                    "Tagger: characters and spellings must be tensors, got None; a tagger made "
                    "with characters=0 reads words alone"
                )
            final_state: HiddenState
            _, final_state = self.spelling(self.characters(characters), lengths=spellings)
            state = final_state if isinstance(final_state, Tensor) else final_state[0]
            spelling = torch.cat(list(state), -1)  # [T·N, width]
            hidden = torch.cat([hidden, spelling.view(*words.shape, spelling.shape[1])], -1)
        hidden, _ = self.recurrent(self.dropout(hidden), lengths=lengths)
        logits: Tensor = self.head(self.dropout(hidden))
        return logits
