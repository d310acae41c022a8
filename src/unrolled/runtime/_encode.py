"""Converts the schema to the tree of a file, which ``unrolled.io.save`` writes."""

from collections.abc import Iterable

import numpy as np

from unrolled.runtime._quantize import quantize
from unrolled.runtime._schema import (
    KIND,
    ActivationBlock,
    AttentionBlock,
    Block,
    ChainModel,
    EmbeddingBlock,
    ExportedFile,
    FloatArray,
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

Tree = dict[str, object]


def encode_file(file: ExportedFile) -> Tree:
    """The tree of a file, with the lowest version that can express it."""
    encoder = _Encoder(file.weights)
    model = encoder.model(file.model)
    version = max(encoder.version, 2 if _needs_version_2(file.model) else 1)
    return {
        "kind": KIND,
        "version": version,
        "weights": file.weights,
        "task": file.task,
        "codec": file.codec,
        **model,
    }


def _needs_version_2(model: ChainModel | TranslatorModel) -> bool:
    return (
        isinstance(model, TranslatorModel)
        or model.batch_first
        or any(
            isinstance(block, WordsBlock | ForecastBlock)
            or (isinstance(block, RecurrentBlock) and block.merge != "concat")
            for block in model.blocks
        )
    )


class _Encoder:
    """Encodes blocks, with the matrices of products in the format ``weights``.

    Embeddings, biases and vectors stay in float32.
    """

    def __init__(self, weights: str) -> None:
        self.weights = weights
        self.version = 1  # the lowest that can express what was encoded

    def model(self, model: ChainModel | TranslatorModel) -> Tree:
        if isinstance(model, TranslatorModel):
            return {
                "encoder": self.blocks(model.encoder),
                "decoder": self.blocks(block for block in model.decoder if block is not None),
                "begin": model.begin,
                "end": model.end,
            }
        batch_first = {"batch_first": True} if model.batch_first else {}
        return {"blocks": self.blocks(model.blocks), **batch_first}

    def blocks(self, blocks: Iterable[Block | AttentionBlock]) -> list[Tree]:
        return [self.block(block) for block in blocks]

    def block(self, block: Block | AttentionBlock) -> Tree:
        return {"block": block.block, **self._fields(block)}

    def _fields(self, block: Block | AttentionBlock) -> Tree:
        match block:
            case EmbeddingBlock():
                return {"weight": block.weight}
            case ScaleBlock():
                return {"mean": block.mean, "deviation": block.deviation}
            case LinearBlock():
                return {"weight": self._matrix(block.weight), "bias": block.bias}
            case ActivationBlock() | LastBlock():
                return {}
            case PoolingBlock():
                keys, query = (
                    None if linear is None else self.block(linear)
                    for linear in (block.keys, block.query)
                )
                return {"name": block.name, "width": block.width, "keys": keys, "query": query}
            case RecurrentBlock():
                return self._recurrent(block)
            case WordsBlock():
                tables = {"words": block.words, "characters": block.characters}
                return {**tables, "spelling": self.block(block.spelling)}
            case ForecastBlock():
                sizes = {"horizon": block.horizon, "targets": block.targets}
                return {**sizes, "mean": block.mean, "deviation": block.deviation}
            case AttentionBlock():
                return {"combine": self.block(block.combine)}

    def _recurrent(self, block: RecurrentBlock) -> Tree:
        merge = {} if block.merge == "concat" else {"merge": block.merge}
        return {
            "layers": [[self._direction(one) for one in layer] for layer in block.layers],
            "start": None if block.start is None else list(block.start),
            "states": list(block.states),
            **merge,
        }

    def _direction(self, direction: LayerDirection) -> Tree:
        if not direction.program.startswith("unrolled-program 1\n"):  # with blocks on diagonals
            self.version = 3
        return {
            "cell": direction.cell,
            "program": direction.program,
            "sizes": direction.sizes,
            "arrays": [
                self._matrix(array) if array is not None and array.ndim == 2 else array
                for array in direction.arrays
            ],
        }

    def _matrix(self, weight: FloatArray) -> FloatArray | Tree:
        quantized = quantize(weight.astype(np.float32, copy=False), self.weights)
        if quantized is None:
            return weight
        self.version = max(self.version, 2)
        return _encode_quantized(quantized)


def _encode_quantized(weight: QuantizedWeight) -> Tree:
    tree: Tree = {"kept": weight.kept, "values": weight.values}
    return tree if weight.largest is None else {**tree, "largest": weight.largest}
