"""Texts and numbers to what a model reads, and what it says to labels and texts, without torch.

Each class is the counterpart of a codec of ``unrolled.tasks``, made of the same plain values; which
numbers stand for what is said once, in ``text``.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from unrolled.io import CORRUPT_FILE_ERRORS
from unrolled.runtime.text import UNITS, blocks, cut, numbered, written

__all__ = ["Codec", "codec_of"]


class Codec(Protocol):
    """What ``Model.encode`` and ``Model.decode`` do."""

    def encode(self, items: Any) -> tuple[Any, np.ndarray]:
        """x and the lengths [N] of its sequences."""

    def decode(self, y: Any, lengths: Any) -> Any:
        """What a result means."""


def codec_of(task: str | None, state: Any) -> Codec:
    """The codec of a task, from what a file has of it.

    Raises:
        ValueError: the task has none, or the state is not one of its own.
    """
    if task is None or state is None:
        raise ValueError(
            "encode, decode: this model was exported without a task and its vocabulary; run takes "
            "tokens or numbers, and what it gives is the module's output"
        )
    if task not in _KINDS:
        wanted = ", ".join(_KINDS)
        raise ValueError(f"task: wanted one of {wanted} for encode and decode, got {task!r}")
    try:
        return _KINDS[task](state)
    except CORRUPT_FILE_ERRORS as error:
        raise ValueError(f"codec: not that of the task {task} ({error})") from None


class _Entries:
    """Words, characters or labels by number."""

    def __init__(self, state: dict[str, Any]) -> None:
        padding, unknown = bool(state["padding"]), bool(state["unknown"])
        self.names, self._numbers = numbered(state["entries"], padding, unknown)
        self._unknown = int(padding) if unknown else None
        self.what = state["what"]

    def numbers(self, items: Sequence[str]) -> list[int]:
        found = [self._numbers.get(item, self._unknown) for item in items]
        if None in found:
            raise ValueError(f"{self.what}: got {items[found.index(None)]!r}, which is not known")
        return found  # type: ignore[return-value]

    def named(self, numbers: Any) -> list[str]:
        return [self.names[k] for k in _within(numbers, len(self.names))]


class _Text:
    """Of language models: bytes, characters or pieces."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.unit = state["unit"]
        if self.unit == "piece":
            self._tokenizer = _tokenizer(state["tokenizer"])
            vocabulary = {k: piece for piece, k in self._tokenizer.get_vocab().items()}
            self._pieces = [vocabulary[k].encode("latin-1") for k in range(len(vocabulary))]
        elif self.unit == "character":
            self._names, self._numbers = numbered(state["characters"], False, False)
        elif self.unit != "byte":
            raise ValueError(f"unit: wanted byte, character or piece, got {self.unit!r}")

    def encode(self, items: Any) -> tuple[np.ndarray, np.ndarray]:
        return _padded([np.array(self._tokens(text), np.int64) for text in _texts(items, bytes)])

    def _tokens(self, text: str | bytes) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        if self.unit == "byte":
            return list(data)
        if self.unit == "piece":
            parts = [self._tokenizer.encode(b, add_special_tokens=False).ids for b in blocks(data)]
            return [token for part in parts for token in part]
        decoded = data.decode("utf-8", "replace")
        unknown = sorted(set(decoded) - self._numbers.keys())
        if unknown:
            raise ValueError(f"text: wanted characters of the vocabulary, got {unknown[0]!r}")
        return [self._numbers[c] for c in decoded]

    def decode(self, y: Any, lengths: Any) -> Any:
        """Tokens [T] to a text, [T, N] to a list of texts."""
        tokens = np.asarray(y)
        if tokens.size and tokens.dtype.kind not in "iu":
            raise TypeError(
                "y: wanted tokens, whole numbers, such as argmax(-1) of the outputs, got "
                f"{tokens.dtype} of shape {list(tokens.shape)}"
            )
        if tokens.ndim not in (1, 2):
            raise ValueError(f"y: wanted tokens [T] or [T, N], got shape {list(tokens.shape)}")
        if tokens.ndim == 1:
            return self._text(tokens)
        ends = _ends(tokens, lengths)
        return [self._text(tokens[:end, n]) for n, end in enumerate(ends)]

    def _text(self, tokens: np.ndarray) -> str:
        if self.unit == "character":
            return "".join(self._names[k] for k in _within(tokens, len(self._names)))
        if self.unit == "byte":
            return bytes(_within(tokens, 256)).decode("utf-8", "replace")
        pieces = (self._pieces[k] for k in _within(tokens, len(self._pieces)))
        return b"".join(pieces).decode("utf-8", "replace")


class _Classes:
    """Of classifiers: characters, or numbers in their own units, which the model scales."""

    def __init__(self, state: dict[str, Any]) -> None:
        found = state["characters"]
        self._characters = None if found is None else _Entries(found)
        self._width = None if found is not None else len(state["mean"])
        self._labels = _Entries(state["labels"])
        self._limit = state["max_length"]

    def encode(self, items: Any) -> tuple[np.ndarray, np.ndarray]:
        if self._characters is None:
            return _padded(_numbers(items, self._width or 0))
        texts = _texts(items)
        return _padded([np.array(self._characters.numbers(t[: self._limit]), int) for t in texts])

    def decode(self, y: Any, lengths: Any) -> list[str]:
        return self._labels.named(_likeliest(y, 2, len(self._labels.names)))


class _Tags:
    """Of taggers: words, and their characters if they are read."""

    def __init__(self, state: dict[str, Any]) -> None:
        found = state["characters"]
        self._words, self._labels = _Entries(state["words"]), _Entries(state["labels"])
        self._characters = None if found is None else _Entries(found)

    def encode(self, items: Any) -> tuple[Any, np.ndarray]:
        sentences = [_words(item) for item in _listed(items)]
        empty = [n for n, sentence in enumerate(sentences, 1) if not sentence]
        if empty:
            raise ValueError(f"sentence {empty[0]}: wanted one word or more, got none")
        words, lengths = _padded([np.array(self._words.numbers(s), int) for s in sentences])
        if self._characters is None:
            return words, lengths
        spelt = [np.zeros(0, int)] * words.size
        for n, sentence in enumerate(sentences):
            for t, word in enumerate(sentence):
                spelt[t * len(sentences) + n] = np.array(self._characters.numbers(word), int)
        return (words, *_padded(spelt)), lengths

    def decode(self, y: Any, lengths: Any) -> Any:
        """[T, N, labels] to the labels of each sentence, [N, labels] to one of each."""
        if np.ndim(y) == 2:
            return self._labels.named(_likeliest(y, 2, len(self._labels.names)))
        found = _likeliest(y, 3, len(self._labels.names))
        return [self._labels.named(found[:end, n]) for n, end in enumerate(_ends(found, lengths))]


class _Columns:
    """Of forecasters: values in their own units, which the model scales."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._columns, self._targets = list(state["columns"]), state["targets"]
        self._window, self._horizon = state["window"], state["horizon"]

    def encode(self, items: Any) -> tuple[np.ndarray, np.ndarray]:
        series = _numbers(items, len(self._columns), np.float64)
        for n, values in enumerate(series, 1):
            if len(values) < self._window:
                raise ValueError(
                    f"item {n}: wanted at least {self._window} steps, got {len(values)}"
                )
        return _padded([values[-self._window :] for values in series])

    def decode(self, y: Any, lengths: Any) -> dict[str, np.ndarray]:
        y = np.asarray(y)
        if y.ndim != 3 or y.shape[1:] != (self._horizon, self._targets):
            wanted = f"[N, {self._horizon}, {self._targets}]"
            raise ValueError(f"y: wanted forecasts {wanted}, got shape {list(y.shape)}")
        return {name: y[..., k] for k, name in enumerate(self._columns[: self._targets])}


class _Sides:
    """Of sequence to sequence: texts of sources, tokens of targets."""

    def __init__(self, state: dict[str, Any]) -> None:
        sides = [state[name] for name in ("source", "target")]
        self._units = [side["unit"] for side in sides]
        if any(unit not in UNITS for unit in self._units):
            raise ValueError(f"unit: wanted {' or '.join(UNITS)}, got {self._units}")
        self._source, self._target = (_Entries(side["tokens"]) for side in sides)

    def encode(self, items: Any) -> tuple[np.ndarray, np.ndarray]:
        found = [self._source.numbers(cut(text, self._units[0])) for text in _texts(items)]
        empty = [n for n, tokens in enumerate(found, 1) if not tokens]
        if empty:
            raise ValueError(f"source {empty[0]}: wanted one token or more, got none")
        return _padded([np.array(tokens, int) for tokens in found])

    def decode(self, y: Any, lengths: Any) -> list[str]:
        """Of hypotheses, or lists of tokens; begin and end, numbered behind all, are left out."""
        last = len(self._target.names)
        found = ([k for k in getattr(one, "tokens", one) if k < last] for one in y)
        return [written(self._target.named(tokens), self._units[1]) for tokens in found]


_KINDS: dict[str, type[Any]] = {
    "lm": _Text,
    "classify": _Classes,
    "tag": _Tags,
    "forecast": _Columns,
    "seq2seq": _Sides,
}


def _tokenizer(text: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ImportError(
            "encode, decode: this vocabulary is one of pieces, which needs the package tokenizers"
        ) from None
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"tokenizer: wanted the JSON of a tokenizer ({error})") from None


def _texts(items: Any, *also: type) -> list[Any]:
    found = _listed(items)
    if not all(isinstance(i, (str, *also)) for i in found):
        raise TypeError(f"items: wanted a list of texts, got {items!r:.60}")
    return found


def _words(sentence: Any) -> list[str]:
    if not isinstance(sentence, str | bytes) and isinstance(sentence, Iterable):
        found = list(sentence)
        if all(isinstance(word, str) for word in found):
            return found
    raise TypeError(
        "items: wanted a list of sentences, each a list of words, got the sentence "
        f"{sentence!r:.60}"
    )


def _listed(items: Any) -> list[Any]:
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise TypeError(f"items: wanted a list, got {items!r:.60}")
    return list(items)


def _numbers(items: Any, width: int, dtype: Any = np.float32) -> list[np.ndarray]:
    found = [np.asarray(item, dtype) for item in _listed(items)]
    for n, values in enumerate(found, 1):
        if values.ndim != 2 or values.shape[1] != width:
            got = list(values.shape)
            raise ValueError(f"item {n}: wanted numbers [T, {width}], got shape {got}")
    return found


def _padded(items: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One batch [T, N, …], zeros behind the end of each, and the lengths; one step at least."""
    if not items:
        raise ValueError("items: wanted one or more, got none")
    lengths = np.array([len(item) for item in items])
    batch = np.zeros((max(1, lengths.max()), len(items), *items[0].shape[1:]), items[0].dtype)
    for n, item in enumerate(items):
        batch[: len(item), n] = item
    return batch, lengths


def _ends(batch: np.ndarray, lengths: Any) -> list[int]:
    """Of sequences [T, N, …] of these lengths, or of T steps each."""
    T, N = batch.shape[:2]
    found = [T] * N if lengths is None else [int(length) for length in lengths]
    if len(found) != N or any(not 0 <= end <= T for end in found):
        raise ValueError(f"lengths: wanted {N} from 0 to {T}, got {found}")
    return found


def _likeliest(y: Any, ndim: int, labels: int) -> np.ndarray:
    y = np.asarray(y)
    if y.ndim != ndim or y.shape[-1] != labels:
        wanted = "[N, {}]" if ndim == 2 else "[T, N, {}]"
        got = list(y.shape)
        raise ValueError(f"y: wanted outputs {wanted.format(labels)}, got shape {got}")
    found: np.ndarray = y.argmax(-1)
    return found


def _within(numbers: Any, count: int) -> list[int]:
    found = [int(number) for number in numbers]
    outside = [number for number in found if not 0 <= number < count]
    if outside:
        raise IndexError(f"y: wanted numbers from 0 to {count - 1}, got {outside[0]}")
    return found
