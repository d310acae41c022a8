"""Converts the tree of a file to the schema, and checks the type of each value, since files may be
untrusted. ``_validate`` checks that the values are consistent."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from unrolled._limits import brief
from unrolled.runtime._fields import Fields
from unrolled.runtime._quantize import dequantize
from unrolled.runtime._schema import (
    ACTIVATIONS,
    KIND,
    VERSION,
    ActivationBlock,
    AttentionBlock,
    Block,
    ChainModel,
    EmbeddingBlock,
    ExportedFile,
    ForecastBlock,
    LastBlock,
    LayerDirection,
    LinearBlock,
    PoolingBlock,
    QuantizedWeight,
    RecurrentBlock,
    ScaleBlock,
    TranslatorModel,
    WordsBlock,
)


def decode_file(tree: object, weights: str | None = None) -> ExportedFile:
    """The contents of a file.

    Args:
        weights: a format of weights to use in place of that in the file.

    Raises:
        ValueError, TypeError: the tree is not an exported model, or has a later version.
    """
    fields = Fields("file", tree)
    kind = fields.value("kind")
    if not isinstance(kind, str) or kind != KIND:
        raise ValueError(f"file: kind must be {KIND!r}, got {brief(kind)}")
    version = fields.value("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"file: version must be from 1 to {VERSION}, got {brief(version)}")
    task = fields.value("task")
    if task is not None:
        task = fields.text("task")
        task.encode()  # the reader in C++ takes UTF-8 only
    return ExportedFile(
        weights or fields.text("weights"), task, fields.value("codec"), _Decoder().model(fields)
    )


class _Decoder:
    """Decodes blocks. No array may be used twice, so that packed weights are no larger than the
    file."""

    def __init__(self) -> None:
        self._arrays: dict[int, NDArray[np.generic]] = {}

    def model(self, fields: Fields) -> ChainModel | TranslatorModel:
        if "encoder" in fields:
            return self._translator(fields)
        batch_first = fields.boolean("batch_first") if "batch_first" in fields else False
        return ChainModel(tuple(map(self.block, fields.items("blocks"))), batch_first)

    def _translator(self, fields: Fields) -> TranslatorModel:
        encoder = [self.block_or_attention(item) for item in fields.items("encoder")]
        decoder = [self.block_or_attention(item) for item in fields.items("decoder")]
        match encoder:
            case [EmbeddingBlock() as source, RecurrentBlock() as layers]:
                pass
            case _:
                raise _wrong_blocks("encoder", "embedding, recurrent", encoder)
        begin, end = fields.integer("begin"), fields.integer("end")
        match decoder:
            case [
                EmbeddingBlock() as target,
                RecurrentBlock() as writer,
                AttentionBlock() as attention,
                LinearBlock() as head,
            ]:
                return TranslatorModel(
                    (source, layers), (target, writer, attention, head), begin, end
                )
            case [EmbeddingBlock() as target, RecurrentBlock() as writer, LinearBlock() as head]:
                return TranslatorModel((source, layers), (target, writer, None, head), begin, end)
        raise _wrong_blocks("decoder", "embedding, recurrent, attention or none, linear", decoder)

    def block(self, tree: object) -> Block:
        """
        Raises:
            ValueError, TypeError: the tree is not a block of a chain.
        """
        block = self.block_or_attention(tree)
        if isinstance(block, AttentionBlock):
            raise ValueError("attention: must be in the decoder of a translator, got it in a chain")
        return block

    def block_or_attention(self, tree: object) -> Block | AttentionBlock:
        name = Fields("block", tree).text("block")
        fields = Fields(name, tree)
        match name:
            case "embedding":
                return EmbeddingBlock(self._floats(fields, "weight", 2))
            case "scale":
                return ScaleBlock(self._doubles(fields, "mean"), self._doubles(fields, "deviation"))
            case "linear":
                return self._linear(fields)
            case "last":
                return LastBlock()
            case "pooling":
                keys, query = (fields.nullable(key, self._linear_of) for key in ("keys", "query"))
                return PoolingBlock(fields.text("name"), fields.integer("width"), keys, query)
            case "recurrent":
                return self._recurrent(fields)
            case "words":
                spelling = self.block(fields.value("spelling"))
                if not isinstance(spelling, RecurrentBlock):
                    raise TypeError(f"words: spelling must be recurrent, got {spelling.block}")
                words, characters = (self._floats(fields, k, 2) for k in ("words", "characters"))
                return WordsBlock(words, characters, spelling)
            case "forecast":
                return self._forecast(fields)
            case "attention":
                return AttentionBlock(self._linear_of(fields.value("combine")))
            case _ if name in ACTIVATIONS:
                return ActivationBlock(name)
        raise ValueError(f"block: must be one that this version knows, got {brief(name)}")

    def _linear(self, fields: Fields) -> LinearBlock:
        bias = None if fields.value("bias") is None else self._floats(fields, "bias", 1)
        return LinearBlock(self._floats(fields, "weight", 2), bias)

    def _linear_of(self, tree: object) -> LinearBlock:
        block = self.block_or_attention(tree)
        if not isinstance(block, LinearBlock):
            raise TypeError(f"block: must be linear here, got {block.block}")
        return block

    def _recurrent(self, fields: Fields) -> RecurrentBlock:
        layers = tuple(
            tuple(map(self._direction, fields.items_of("layers", layer)))
            for layer in fields.items("layers")
        )
        start = None
        if fields.value("start") is not None:
            start = tuple(
                tuple(self._array(fields, "start", state, 2) for state in states)
                for states in (fields.items_of("start", states) for states in fields.items("start"))
            )
        merge = fields.text("merge") if "merge" in fields else "concat"
        return RecurrentBlock(layers, start, merge=merge)

    def _direction(self, tree: object) -> LayerDirection:
        fields = Fields("layers", tree)
        sizes = fields.integers("sizes")
        if len(sizes) != 3:
            raise ValueError(f"layers: sizes must be three numbers, got {len(sizes)}")
        arrays = tuple(
            None if array is None else self._array(fields, "arrays", array)
            for array in fields.items("arrays")
        )
        return LayerDirection("", fields.text("program"), (sizes[0], sizes[1], sizes[2]), arrays)

    def _forecast(self, fields: Fields) -> ForecastBlock:
        mean = deviation = None
        if fields.value("mean") is not None:
            mean, deviation = (self._doubles(fields, key) for key in ("mean", "deviation"))
        return ForecastBlock(fields.integer("horizon"), fields.integer("targets"), mean, deviation)

    def _floats(self, fields: Fields, name: str, ndim: int) -> NDArray[np.float32]:
        return self._array(fields, name, fields.value(name), ndim)

    def _array(
        self, fields: Fields, name: str, value: object, ndim: int | None = None
    ) -> NDArray[np.float32]:
        """A float32 array, dequantized if the file has it in low precision."""
        if isinstance(value, dict):
            value = dequantize(self._quantized(Fields(name, value)))
        else:
            self._claim(value)
        return np.ascontiguousarray(_typed(fields, name, value, np.dtype(np.float32), ndim))

    def _quantized(self, fields: Fields) -> QuantizedWeight:
        kept, values = fields.text("kept"), fields.value("values")
        self._claim(values)
        if kept == "bfloat16":
            upper = _typed(fields, "values", values, np.dtype(np.uint16), 2)
            return QuantizedWeight(kept, upper)
        if kept != "int8":
            raise ValueError(f"{fields.owner}: kept must be int8 or bfloat16, got {brief(kept)}")
        values = _typed(fields, "values", values, np.dtype(np.int8), 2)
        largest = fields.value("largest")
        self._claim(largest)
        largest = _typed(fields, "largest", largest, np.dtype(np.float32), None)
        if largest.shape != values.shape[:1] or not (np.isfinite(largest) & (largest >= 0)).all():
            raise ValueError(
                f"{fields.owner}: largest must be {len(values)} finite numbers of at least 0, "
                "one for each row"
            )
        return QuantizedWeight(kept, values, largest)

    def _doubles(self, fields: Fields, name: str) -> NDArray[np.float64]:
        value = fields.value(name)
        self._claim(value)
        return np.ascontiguousarray(_typed(fields, name, value, np.dtype(np.float64), 1))

    def _claim(self, value: object) -> None:
        """Raise ValueError if another field has the same array."""
        if isinstance(value, np.ndarray):
            if id(value) in self._arrays:
                raise ValueError("file: each array must have one place, got one in two places")
            self._arrays[id(value)] = value


N = TypeVar("N", bound=np.generic)


def _typed(
    fields: Fields, name: str, value: object, dtype: np.dtype[N], ndim: int | None
) -> NDArray[N]:
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{fields.owner}: {name} must be an array of {dtype}, got {got}")
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{fields.owner}: {name} must have {ndim} dimensions, got {value.ndim}")
    return value


def _wrong_blocks(name: str, expected: str, blocks: Iterable[Block | AttentionBlock]) -> ValueError:
    got = ", ".join(block.block for block in blocks)
    return ValueError(f"{name}: blocks must be {expected}, got {got}")
