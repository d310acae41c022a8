"""The tagger: a label for each word, from the word and, if wanted, its characters."""

from typing import Any

import torch
from torch import Tensor, nn

from unrolled.models.cell_lookup import CellLike, Lengths, make_stack
from unrolled.models.sequence_model import check_sizes

__all__ = ["Tagger"]


class Tagger(nn.Module):
    """Word embeddings beside the final states of a recurrent layer over each word's characters
    (Lample et al. 2016, without the random field), recurrent layers, logits of the labels.

    Args:
        words, characters, labels: how many different ones; no ``characters``: words alone.
        hidden_size, num_layers, cell, dropout, bidirectional: see :class:`SequenceModel`.
        embedding_size: width of the words' embedding; characters have a half of it, and so have
            the units of the layer over them, which reads in both directions.

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
        check_sizes(sizes, dropout)
        if characters < 0:
            raise ValueError(f"characters: wanted 0, for words alone, or more, got {characters}")
        self.arguments: dict[str, Any] = {
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
        """Logits `[T, N, labels]` of words `[T, N]`; the sentences end at ``lengths`` `[N]`.

        ``characters`` `[C, T·N]` are those of word (t, n) in column t·N + n, ``spellings`` `[T·N]`
        their numbers, zero where no word is.

        Raises:
            ValueError: the model reads characters and there are none.
        """
        hidden = self.words(words)
        if self.characters is not None:
            if characters is None or spellings is None:
                raise ValueError(
                    "characters, spellings: wanted both, for this tagger reads characters, got "
                    "None; one made with characters=0 reads words alone"
                )
            _, final = self.spelling(self.characters(characters), lengths=spellings)
            state = final if isinstance(final, Tensor) else final[0]
            spelt = torch.cat(list(state), -1).unflatten(0, words.shape)
            hidden = torch.cat([hidden, spelt], -1)
        hidden, _ = self.recurrent(self.dropout(hidden), lengths=lengths)
        logits: Tensor = self.head(self.dropout(hidden))
        return logits
