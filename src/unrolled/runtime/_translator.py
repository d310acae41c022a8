"""Runs sequence-to-sequence models without torch: an encoder, and a decoder with a search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike

from unrolled._token_rows import BatchLayout, layout_of_lengths
from unrolled.runtime._blocks import (
    Activation,
    Float32Array,
    Float64Array,
    IntArray,
    LayerStates,
    Linear,
    TokenArray,
    dense_layout,
)
from unrolled.runtime._build import build_embedding, build_linear, build_recurrent
from unrolled.runtime._model import Model, checked_lengths, names_of
from unrolled.runtime._schema import TranslatorModel
from unrolled.runtime._search import Hypothesis, beam, greedy
from unrolled.runtime._validate import check_format, check_model, check_token


class Translator(Model):
    """An encoder and a decoder, which map source tokens to target tokens.

    Attributes:
        task, codec, threads: as for :class:`Model`.
        begin, end: tokens that a target starts with and ends with.
    """

    def __init__(
        self,
        model: TranslatorModel,
        weights: str = "float32",
        task: str | None = None,
        codec: object = None,
        size: int | None = None,
    ) -> None:
        """Takes the arguments of :class:`Model`, and raises its errors."""
        check_format("Translator", weights)
        check_model(model, size)
        source, encoder = model.encoder
        target, decoder, attention, head = model.decoder
        self.source, self.encoder = build_embedding(source), build_recurrent(encoder, weights)
        self.target, self.decoder = build_embedding(target), build_recurrent(decoder, weights)
        self.combine = None if attention is None else build_linear(attention.combine, weights)
        self.head = build_linear(head, weights)
        self.begin, self.end = model.begin, model.end
        self._set_up([self.source, self.encoder], weights, False, task, codec)

    def run(  # type: ignore[override]
        self,
        x: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        width: int = 1,
        limit: int = 200,
        penalty: float = 1.0,
        begin: int | None = None,
        end: int | None = None,
    ) -> list[Hypothesis]:
        """The target of each source: tokens [T, N] to N hypotheses (tokens, score).

        Args:
            lengths: [N], those of the sources.
            width: the beam width; 1 is greedy search.
            limit: the maximum number of tokens of a target, including its end.
            penalty: exponent p of the length by which a beam ranks hypotheses, score / lengthᵖ.
            begin, end: tokens to use in place of those in the file.

        Raises:
            TypeError: x has no tokens.
            IndexError: a token is not in the vocabulary.
            ValueError: a shape, a length or a number is wrong.
        """
        begin_token, end_token = self._token("begin", begin), self._token("end", end)
        if width < 1:
            raise ValueError(f"Translator: width must be at least 1, got {width}")
        tokens = self._check_tokens(x)
        T, N = tokens.shape
        checked = checked_lengths(lengths, T, N)
        outputs, states = self._encode_source(tokens, layout_of_lengths(T, N, "time", checked))
        memories = self._memories(outputs, checked)
        if width == 1:
            writer = _Writer(self, states, memories)
            return greedy(writer, N, limit=limit, begin=begin_token, end=end_token)
        best = []
        for n in range(N):
            states_of_n = [tuple(state[n : n + 1] for state in layer) for layer in states]
            writer = _Writer(self, states_of_n, memories[n : n + 1])
            ranked = beam(
                writer, width=width, limit=limit, penalty=penalty, begin=begin_token, end=end_token
            )
            best.append(ranked[0])
        return best

    def translate(
        self,
        texts: Sequence[str],
        *,
        width: int = 1,
        limit: int = 200,
        penalty: float = 1.0,
        begin: int | None = None,
        end: int | None = None,
    ) -> list[str]:
        """The target of each source, as texts; the options are those of ``run``.

        Raises:
            ValueError: a text is empty, or the model was exported without its codec.
        """
        x, lengths = self.encode(texts)
        assert isinstance(x, np.ndarray)
        hypotheses = self.run(
            x, lengths, width=width, limit=limit, penalty=penalty, begin=begin, end=end
        )
        decoded = self.decode(hypotheses)
        assert isinstance(decoded, list)
        return [str(text) for text in decoded]

    def stream(self, batch: int = 1, threads: int = 1) -> NoReturn:
        """Raise an error: a translator has no stream.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "Translator: stream needs a model that answers at each step, got a translator, which "
            "writes when it has read the end of its source"
        )

    def _encode_source(
        self, tokens: TokenArray, layout: BatchLayout
    ) -> tuple[Float32Array, LayerStates]:
        """Outputs [T, N, W] and the initial states of the decoder."""
        initial = self.encoder.initial_states(layout.N)
        rows = self.source.run(tokens)
        outputs, states = self.encoder.run(rows, layout, initial, self.threads)
        if self.encoder.num_directions == 1:
            return outputs, states
        pairs = zip(states[::2], states[1::2], strict=True)
        return outputs, [tuple(a + b for a, b in zip(*pair, strict=True)) for pair in pairs]

    def _memories(
        self, outputs: Float32Array, lengths: IntArray | None
    ) -> "list[_AttentionMemory | None]":
        T, N, _ = outputs.shape
        if self.combine is None:
            return [None] * N
        counts = [T] * N if lengths is None else lengths.tolist()
        return [_AttentionMemory.of(outputs[:length, n]) for n, length in enumerate(counts)]

    def _token(self, name: str, token: int | None) -> int:
        if token is None:
            return self.begin if name == "begin" else self.end
        check_token(name, token, min(len(self.target.table), self.head.width))
        return token

    def __repr__(self) -> str:
        decoder = names_of([self.target, self.decoder, self.head])
        return f"Translator({names_of(self.blocks)}; {decoder}; {self.arithmetic})"


@dataclass(frozen=True)
class _AttentionMemory:
    """An encoder's outputs [T, W] for one source, with the products that attention computes."""

    scores: Linear
    values: Linear

    @classmethod
    def of(cls, outputs: Float32Array) -> "_AttentionMemory | None":
        """The memory of a source; None for an empty source."""
        if not len(outputs):
            return None
        rows, columns = (np.ascontiguousarray(matrix) for matrix in (outputs, outputs.T))
        return cls(Linear(rows, None, "float32"), Linear(columns, None, "float32"))

    def context(self, rows: Float32Array) -> Float32Array:
        """Σ_s softmax_s(y · m_s) m_s of each row y: [N, W]."""
        weights = Activation("softmax").run(self.scores.run(rows))
        return self.values.run(weights)


class _Writer:
    """The decoder for N sources, or for several hypotheses of one source."""

    def __init__(
        self, model: Translator, states: LayerStates, memories: Sequence[_AttentionMemory | None]
    ) -> None:
        self.model, self.states, self.memories = model, states, memories

    def most_likely(self, tokens: Sequence[int]) -> tuple[list[float], list[int]]:
        log_probabilities = self._read(tokens)
        best = log_probabilities.argmax(-1)
        return log_probabilities[np.arange(len(best)), best].tolist(), best.tolist()

    def best(
        self, tokens: Sequence[int], rows: Sequence[int], scores: Sequence[float], count: int
    ) -> tuple[list[float], list[tuple[int, int]]]:
        chosen = list(rows)
        self.states = [tuple(state[chosen] for state in layer) for layer in self.states]
        totals = self._read(tokens) + np.array(scores)[:, None]
        flat = totals.ravel()
        indices = np.argpartition(-flat, min(count, flat.size) - 1)[:count]
        indices = indices[np.argsort(-flat[indices], kind="stable")]
        return flat[indices].tolist(), [divmod(k, totals.shape[1]) for k in indices.tolist()]

    def _read(self, tokens: Sequence[int]) -> Float64Array:
        """Log probabilities [N, V] of the next token."""
        model, N = self.model, len(tokens)
        x = model.target.run(np.array([tokens]))
        outputs, self.states = model.decoder.run(x, dense_layout(1, N), self.states, model.threads)
        logits = model.head.run(self._attend(outputs[0])).astype(np.float64)
        shifted = logits - logits.max(-1, keepdims=True)
        log_probabilities: Float64Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return log_probabilities

    def _attend(self, rows: Float32Array) -> Float32Array:
        """tanh(W [c; y] + b) with the context c of each row y."""
        if self.model.combine is None:
            return rows
        context = np.zeros_like(rows)
        if len(self.memories) == 1 and self.memories[0] is not None:
            context = self.memories[0].context(rows)
        elif len(self.memories) > 1:
            for n, memory in enumerate(self.memories):
                if memory is not None:
                    context[n : n + 1] = memory.context(rows[n : n + 1])
        combined = self.model.combine.run(np.concatenate([context, rows], -1))
        return Activation("tanh").run(combined)
