"""Codecs convert texts and numbers to a model's input, and its outputs to labels and texts, without
torch.

Each class is the counterpart of a codec of ``unrolled.tasks``, created from the same plain values.
Both number their vocabularies by ``_text``.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, SupportsIndex, SupportsInt, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unrolled.io import CORRUPT_FILE_ERRORS
from unrolled.runtime._blocks import IntArray, TokenArray
from unrolled.runtime._fields import Fields
from unrolled.runtime._search import Hypothesis
from unrolled.runtime._text import UNITS, join_tokens, number_entries, split_tokens, text_chunks

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from unrolled.runtime._task_blocks import WordArrays

Values = NDArray[np.floating]
Decoded = str | list[str] | list[list[str]] | dict[str, Values]
A = TypeVar("A", bound=np.generic)


class Codec(Protocol):
    """The methods behind ``Model.encode`` and ``Model.decode``."""

    def encode(self, items: object) -> "tuple[TokenArray | Values | WordArrays, IntArray]":
        """Convert items to x and the lengths [N] of its sequences."""

    def decode(self, y: object, lengths: ArrayLike | None) -> Decoded:
        """Convert a result to labels, texts or values."""


def codec_of(task: str | None, state: object) -> Codec:
    """Create the codec of a task from the plain values in a file.

    Raises:
        ValueError: the task has no codec, or the values are not the state of its codec.
    """
    if task is None or state is None:
        raise ValueError(
            "Model: encode and decode need a task and its vocabulary, got a model exported without "
            "them; run takes tokens or numbers and returns the module's output"
        )
    if task not in _CODECS:
        raise ValueError(
            f"Model: task must be one of {', '.join(_CODECS)} for encode and decode, got {task!r}"
        )
    try:
        return _CODECS[task](Fields("codec", state))
    except CORRUPT_FILE_ERRORS as error:
        raise ValueError(f"Model: codec must be that of the task {task} ({error})") from None


class _Vocabulary:
    """Maps words, characters or labels to numbers and back."""

    def __init__(self, fields: Fields) -> None:
        padding, unknown = bool(fields.value("padding")), bool(fields.value("unknown"))
        self.names, self._numbers = number_entries(fields.texts("entries"), padding, unknown)
        self._unknown = int(padding) if unknown else None
        self._entry_name = fields.text("what")

    def numbers(self, items: Sequence[str]) -> list[int]:
        numbers = []
        for item in items:
            number = self._numbers.get(item, self._unknown)
            if number is None:
                raise ValueError(
                    f"encode: {self._entry_name} must be in the vocabulary, got {item!r}"
                )
            numbers.append(number)
        return numbers

    def names_of(self, numbers: Iterable[SupportsInt]) -> list[str]:
        return [self.names[k] for k in _check_range(numbers, len(self.names))]


class _TextCodec:
    """The codec of language models: bytes, characters or subword pieces."""

    def __init__(self, fields: Fields) -> None:
        self.unit = fields.text("unit")
        if self.unit == "piece":
            self._tokenizer = _parse_tokenizer(fields.text("tokenizer"))
            vocabulary = {k: piece for piece, k in self._tokenizer.get_vocab().items()}
            self._pieces = [vocabulary[k].encode("latin-1") for k in range(len(vocabulary))]
        elif self.unit == "character":
            self._names, self._numbers = number_entries(fields.text("characters"), False, False)
        elif self.unit != "byte":
            raise ValueError(f"codec: unit must be byte, character or piece, got {self.unit!r}")

    def encode(self, items: object) -> tuple[IntArray, IntArray]:
        return _pad([np.array(self._tokens(text), np.int64) for text in _texts_or_bytes(items)])

    def _tokens(self, text: str | bytes) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        if self.unit == "byte":
            return list(data)
        if self.unit == "piece":
            chunks = (
                self._tokenizer.encode(chunk, add_special_tokens=False).ids
                for chunk in text_chunks(data)
            )
            return [token for chunk in chunks for token in chunk]
        decoded = data.decode("utf-8", "replace")
        unknown = sorted(set(decoded) - self._numbers.keys())
        if unknown:
            raise ValueError(
                f"encode: text must have characters of the vocabulary, got {unknown[0]!r}"
            )
        return [self._numbers[c] for c in decoded]

    def decode(self, y: object, lengths: ArrayLike | None) -> str | list[str]:
        """Convert tokens [T] to a text, or [T, N] to a list of texts."""
        tokens = np.asarray(y)
        if tokens.size and tokens.dtype.kind not in "iu":
            raise TypeError(
                "decode: y must be tokens, whole numbers, such as argmax(-1) of the outputs, got "
                f"{tokens.dtype} of shape {list(tokens.shape)}"
            )
        if tokens.ndim not in (1, 2):
            raise ValueError(
                f"decode: y must be tokens of shape [T] or [T, N], got shape {list(tokens.shape)}"
            )
        if tokens.ndim == 1:
            return self._text(tokens)
        ends = _sequence_ends(tokens, lengths)
        return [self._text(tokens[:end, n]) for n, end in enumerate(ends)]

    def _text(self, tokens: IntArray) -> str:
        if self.unit == "character":
            return "".join(self._names[k] for k in _check_range(tokens, len(self._names)))
        if self.unit == "byte":
            return bytes(_check_range(tokens, 256)).decode("utf-8", "replace")
        pieces = (self._pieces[k] for k in _check_range(tokens, len(self._pieces)))
        return b"".join(pieces).decode("utf-8", "replace")


class _ClassCodec:
    """The codec of classifiers: characters, or numbers, which the model scales."""

    def __init__(self, fields: Fields) -> None:
        self._characters = fields.nullable("characters", _vocabulary_of)
        self._width = 0 if self._characters is not None else len(fields.array("mean"))
        self._labels = _Vocabulary(fields.fields("labels"))
        self._max_length = fields.nullable("max_length", _max_length)

    def encode(self, items: object) -> tuple[IntArray | Values, IntArray]:
        if self._characters is None:
            return _pad(_sequences(items, self._width, np.dtype(np.float32)))
        cut = slice(self._max_length)
        return _pad([np.array(self._characters.numbers(t[cut]), int) for t in _texts(items)])

    def decode(self, y: object, lengths: ArrayLike | None) -> list[str]:
        return self._labels.names_of(_argmax(y, 2, len(self._labels.names)))


class _TagCodec:
    """The codec of taggers: words, and their characters if the model reads them."""

    def __init__(self, fields: Fields) -> None:
        self._words = _Vocabulary(fields.fields("words"))
        self._labels = _Vocabulary(fields.fields("labels"))
        self._characters = fields.nullable("characters", _vocabulary_of)

    def encode(self, items: object) -> "tuple[IntArray | WordArrays, IntArray]":
        sentences = [_words(item) for item in _list_of(items)]
        for n, sentence in enumerate(sentences, 1):
            if not sentence:
                raise ValueError(f"encode: sentence {n} must have at least one word, got none")
        words, lengths = _pad([np.array(self._words.numbers(s), int) for s in sentences])
        if self._characters is None:
            return words, lengths
        spellings = [np.zeros(0, int)] * words.size
        for n, sentence in enumerate(sentences):
            for t, word in enumerate(sentence):
                numbers = np.array(self._characters.numbers(word), int)
                spellings[t * len(sentences) + n] = numbers
        return (words, *_pad(spellings)), lengths

    def decode(self, y: object, lengths: ArrayLike | None) -> list[str] | list[list[str]]:
        """Convert [T, N, labels] to the labels of each sentence, or [N, labels] to one of each."""
        count = len(self._labels.names)
        if np.ndim(np.asarray(y)) == 2:
            return self._labels.names_of(_argmax(y, 2, count))
        labels = _argmax(y, 3, count)
        ends = _sequence_ends(labels, lengths)
        return [self._labels.names_of(labels[:end, n]) for n, end in enumerate(ends)]


class _ForecastCodec:
    """The codec of forecasters: values in the units of the data, which the model scales."""

    def __init__(self, fields: Fields) -> None:
        self._columns, self._targets = fields.texts("columns"), fields.integer("targets")
        self._window, self._horizon = fields.integer("window"), fields.integer("horizon")

    def encode(self, items: object) -> tuple[Values, IntArray]:
        series = _sequences(items, len(self._columns), np.dtype(np.float64))
        for n, values in enumerate(series, 1):
            if len(values) < self._window:
                raise ValueError(
                    f"encode: item {n} must have at least {self._window} steps, got {len(values)}"
                )
        return _pad([values[-self._window :] for values in series])

    def decode(self, y: object, lengths: ArrayLike | None) -> dict[str, Values]:
        forecasts = np.asarray(y)
        if forecasts.ndim != 3 or forecasts.shape[1:] != (self._horizon, self._targets):
            raise ValueError(
                f"decode: y must be forecasts of shape [N, {self._horizon}, {self._targets}], "
                f"got shape {list(forecasts.shape)}"
            )
        targets = enumerate(self._columns[: self._targets])
        return {name: forecasts[..., k] for k, name in targets}


class _TranslationCodec:
    """The codec of sequence-to-sequence models: source texts, and tokens of targets."""

    def __init__(self, fields: Fields) -> None:
        source, target = fields.fields("source"), fields.fields("target")
        self._source_unit, self._target_unit = source.text("unit"), target.text("unit")
        for unit in (self._source_unit, self._target_unit):
            if unit not in UNITS:
                raise ValueError(f"codec: unit must be {' or '.join(UNITS)}, got {unit!r}")
        self._source = _Vocabulary(source.fields("tokens"))
        self._target = _Vocabulary(target.fields("tokens"))

    def encode(self, items: object) -> tuple[IntArray, IntArray]:
        texts = [split_tokens(text, self._source_unit) for text in _texts(items)]
        sources = [self._source.numbers(tokens) for tokens in texts]
        for n, tokens in enumerate(sources, 1):
            if not tokens:
                raise ValueError(f"encode: source {n} must have at least one token, got none")
        return _pad([np.array(tokens, int) for tokens in sources])

    def decode(self, y: object, lengths: ArrayLike | None) -> list[str]:
        """Convert hypotheses, or lists of tokens, to texts, without the tokens begin and end, whose
        numbers follow the vocabulary."""
        count = len(self._target.names)
        texts = []
        for item in _list_of(y):
            tokens = item.tokens if isinstance(item, Hypothesis) else _list_of(item)
            names = self._target.names_of(k for k in map(_integer, tokens) if k < count)
            texts.append(join_tokens(names, self._target_unit))
        return texts


_CODECS: dict[str, Callable[[Fields], Codec]] = {
    "lm": _TextCodec,
    "classify": _ClassCodec,
    "tag": _TagCodec,
    "forecast": _ForecastCodec,
    "seq2seq": _TranslationCodec,
}


def _vocabulary_of(state: object) -> _Vocabulary:
    return _Vocabulary(Fields("codec.characters", state))


def _max_length(value: object) -> int:
    return Fields("codec", {"max_length": value}).integer("max_length")


def _integer(number: object) -> int:
    if not isinstance(number, SupportsIndex):
        raise TypeError(f"decode: y must be tokens, whole numbers, got {number!r:.60}")
    return operator.index(number)


def _parse_tokenizer(text: str) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ImportError(
            "Model: encode and decode need the package tokenizers for a vocabulary of subword "
            "pieces; install it with pip"
        ) from None
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"codec: tokenizer must be the JSON of a tokenizer ({error})") from None


def _texts(items: object) -> list[str]:
    listed = _list_of(items)
    texts = [item for item in listed if isinstance(item, str)]
    if len(texts) != len(listed):
        raise TypeError(f"encode: items must be a list of texts, got {items!r:.60}")
    return texts


def _texts_or_bytes(items: object) -> list[str | bytes]:
    listed = _list_of(items)
    texts = [item for item in listed if isinstance(item, str | bytes)]
    if len(texts) != len(listed):
        raise TypeError(f"encode: items must be a list of texts, got {items!r:.60}")
    return texts


def _words(sentence: object) -> list[str]:
    if not isinstance(sentence, str | bytes) and isinstance(sentence, Iterable):
        items = list(sentence)
        words = [word for word in items if isinstance(word, str)]
        if len(words) == len(items):
            return words
    raise TypeError(
        "encode: items must be a list of sentences, each a list of words, got the sentence "
        f"{sentence!r:.60}"
    )


def _list_of(items: object) -> list[object]:
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise TypeError(f"encode: items must be a list, got {items!r:.60}")
    return list(items)


def _sequences(items: object, width: int, dtype: np.dtype[A]) -> list[NDArray[A]]:
    arrays = [np.asarray(item, dtype) for item in _list_of(items)]
    for n, values in enumerate(arrays, 1):
        if values.ndim != 2 or values.shape[1] != width:
            raise ValueError(
                f"encode: item {n} must be numbers of shape [T, {width}], "
                f"got shape {list(values.shape)}"
            )
    return arrays


def _pad(items: list[NDArray[A]]) -> tuple[NDArray[A], IntArray]:
    """Pad sequences with zeros at the end to a batch [T, N, …], T at least 1; also returns their
    lengths."""
    if not items:
        raise ValueError("encode: items must be one or more, got none")
    lengths = np.array([len(item) for item in items])
    batch = np.zeros((max(1, lengths.max()), len(items), *items[0].shape[1:]), items[0].dtype)
    for n, item in enumerate(items):
        batch[: len(item), n] = item
    return batch, lengths


def _sequence_ends(batch: IntArray, lengths: ArrayLike | None) -> list[int]:
    """The lengths of the sequences of a batch [T, N, …]; by default T."""
    T, N = batch.shape[:2]
    ends = [T] * N if lengths is None else [int(length) for length in np.asarray(lengths)]
    if len(ends) != N or any(not 0 <= end <= T for end in ends):
        raise ValueError(f"decode: lengths must be {N} numbers from 0 to {T}, got {ends}")
    return ends


def _argmax(y: object, ndim: int, labels: int) -> IntArray:
    scores = np.asarray(y)
    if scores.ndim != ndim or scores.shape[-1] != labels:
        axes = "N" if ndim == 2 else "T, N"
        raise ValueError(
            f"decode: y must be outputs of shape [{axes}, {labels}], got shape {list(scores.shape)}"
        )
    numbers: IntArray = scores.argmax(-1)
    return numbers


def _check_range(numbers: Iterable[SupportsInt], count: int) -> list[int]:
    checked = [int(number) for number in numbers]
    for number in checked:
        if not 0 <= number < count:
            raise IndexError(f"decode: y must have numbers from 0 to {count - 1}, got {number}")
    return checked
