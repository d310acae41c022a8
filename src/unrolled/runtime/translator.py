"""Sequence to sequence without torch: an encoder reads, a decoder writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from unrolled.runtime.blocks import Activation, Linear, Plan, States
from unrolled.runtime.build import build_embedding, build_linear, build_recurrent
from unrolled.runtime.model import Model, checked_lengths, names_of
from unrolled.runtime.schema import TranslatorModel
from unrolled.runtime.search import Hypothesis, beam, greedy
from unrolled.runtime.task_blocks import RunnableBlock
from unrolled.runtime.validate import check_format, check_model, check_token

__all__ = ["Translator"]


class Translator(Model):
    """An encoder and a decoder: tokens in, tokens out.

    Attributes:
        task, codec, threads: as of a :class:`Model`.
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
        """Arguments and errors are those of :class:`Model`."""
        check_format("Translator", weights)
        check_model(model, size)
        source, encoder = model.encoder
        target, decoder, attention, head = model.decoder
        self.source, self.encoder = build_embedding(source), build_recurrent(encoder, weights)
        self.target, self.decoder = build_embedding(target), build_recurrent(decoder, weights)
        self.combine = None if attention is None else build_linear(attention.combine, weights)
        self.head = build_linear(head, weights)
        self.begin, self.end = model.begin, model.end
        self.blocks, self.batch_first = [self.source, self.encoder], False
        self._set_task(task, codec)

    def run(  # type: ignore[override]
        self,
        x: Any,
        lengths: Any = None,
        *,
        width: int = 1,
        limit: int = 200,
        penalty: float = 1.0,
        begin: int | None = None,
        end: int | None = None,
    ) -> list[Hypothesis]:
        """The target of each source: tokens [T, N] to N hypotheses (tokens, score).

        Args:
            lengths: [N], of the sources.
            width: hypotheses of a beam; 1 writes the likeliest token at each step.
            limit: tokens of a target, its end among them, at most.
            penalty: of a beam, see ``search.beam``.
            begin, end: other tokens than the file's.

        Raises:
            TypeError: x is no tokens.
            IndexError: a token is not there.
            ValueError: a shape, a length or a number is not what was wanted.
        """
        ends = {"begin": self._token("begin", begin), "end": self._token("end", end)}
        if width < 1:
            raise ValueError(f"width: wanted at least 1, got {width}")
        x = self._entered(x)
        T, N = x.shape
        plan = Plan(T, N, checked_lengths(lengths, T, N))
        outputs, states = self._read(x, plan)
        memories = self._memories(outputs, plan)
        if width == 1:
            return greedy(_Writer(self, states, memories), N, limit=limit, **ends)
        found = []
        for n in range(N):
            own = [tuple(state[n : n + 1] for state in layer) for layer in states]
            writer = _Writer(self, own, memories[n : n + 1])
            best = beam(writer, width=width, limit=limit, penalty=penalty, **ends)
            found.append(best[0])
        return found

    def translate(self, texts: Sequence[str], **options: Any) -> list[str]:
        """The target of each source, as texts; ``options`` are those of ``run``.

        Raises:
            ValueError: a text is empty, or the model was exported without its codec.
        """
        x, lengths = self.encode(texts)
        found: list[str] = self.decode(self.run(x, lengths, **options))
        return found

    def stream(self, batch: int = 1, threads: int = 1) -> NoReturn:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "stream: wanted a model that answers at each step, got a translator: it writes when it "
            "has read the end"
        )

    def _read(self, x: np.ndarray, plan: Plan) -> tuple[np.ndarray, States]:
        """Outputs [T, N, W] and what the decoder starts from."""
        begin = self.encoder.begin(plan.N)
        outputs, states = self.encoder.run(self.source.run(x), plan, begin, self.threads)
        if self.encoder.directions == 1:
            return outputs, states
        pairs = zip(states[::2], states[1::2], strict=True)
        return outputs, [tuple(a + b for a, b in zip(*both, strict=True)) for both in pairs]

    def _memories(self, outputs: np.ndarray, plan: Plan) -> list["_Memory | None"]:
        if self.combine is None:
            return [None] * plan.N
        lengths = [plan.T] * plan.N if plan.lengths is None else plan.lengths.tolist()
        return [_Memory.of(outputs[:length, n]) for n, length in enumerate(lengths)]

    def _token(self, name: str, given: int | None) -> int:
        if given is None:
            return int(getattr(self, name))
        check_token(name, given, min(len(self.target.table), self.head.width))
        return given

    def __repr__(self) -> str:
        decoder: list[RunnableBlock] = [self.target, self.decoder, self.head]
        return f"Translator({names_of(self.blocks)}; {names_of(decoder)})"


@dataclass(frozen=True)
class _Memory:
    """An encoder's outputs [T, W] of one source, as the products of attention with them."""

    scores: Linear
    values: Linear

    @classmethod
    def of(cls, outputs: np.ndarray) -> "_Memory | None":
        """None of a source without a token."""
        if not len(outputs):
            return None
        made = (np.ascontiguousarray(one) for one in (outputs, outputs.T))
        return cls(*(Linear(one, None, "float32") for one in made))

    def context(self, rows: np.ndarray) -> np.ndarray:
        """Σ_s softmax_s(y · m_s) m_s of each row y: [N, W]."""
        weights = Activation("softmax").run(self.scores.run(rows))
        return self.values.run(weights)


class _Writer:
    """The decoder behind N sources, or behind one of which it writes several hypotheses."""

    def __init__(
        self, model: Translator, states: States, memories: Sequence[_Memory | None]
    ) -> None:
        self.model, self.states, self.memories = model, states, memories

    def likeliest(self, tokens: Sequence[int]) -> tuple[list[float], list[int]]:
        chances = self._read(tokens)
        best = chances.argmax(-1)
        return chances[np.arange(len(best)), best].tolist(), best.tolist()

    def best(
        self, tokens: Sequence[int], rows: Sequence[int], scores: Sequence[float], count: int
    ) -> tuple[list[float], list[tuple[int, int]]]:
        chosen = list(rows)
        self.states = [tuple(state[chosen] for state in layer) for layer in self.states]
        totals = self._read(tokens) + np.array(scores)[:, None]
        flat = totals.ravel()
        places = np.argpartition(-flat, min(count, flat.size) - 1)[:count]
        places = places[np.argsort(-flat[places], kind="stable")]
        return flat[places].tolist(), [divmod(p, totals.shape[1]) for p in places.tolist()]

    def _read(self, tokens: Sequence[int]) -> np.ndarray:
        """Log probabilities [N, V] of what follows, in float64."""
        model, N = self.model, len(tokens)
        x = model.target.run(np.array([tokens]))
        outputs, self.states = model.decoder.run(x, Plan(1, N, None), self.states, model.threads)
        logits = model.head.run(self._looked(outputs[0])).astype(np.float64)
        above = logits - logits.max(-1, keepdims=True)
        found: np.ndarray = above - np.log(np.exp(above).sum(-1, keepdims=True))
        return found

    def _looked(self, rows: np.ndarray) -> np.ndarray:
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
