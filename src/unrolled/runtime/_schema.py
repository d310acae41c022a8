"""The schema of an exported file: a frozen dataclass for each block.

The names of fields are the keys of the file. ``unrolled.export`` creates blocks from modules,
``_encode`` writes them to a file, ``_decode`` reads them, ``_validate`` checks them, ``_build``
creates the blocks that run, and ``unrolled.onnx`` converts blocks to ONNX nodes. A change here
requires the same change in the reader in C++ (csrc/model).

Letters of shapes: V tokens, N sequences, I inputs, H units, P units of the output, L layers,
D directions.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from unrolled import _core

KIND = "unrolled model"
VERSION = 3
"""The version of the schema; files of later versions are rejected. Version 2 added words,
forecasts, translators, merge="sum", batch_first and low-precision weights; version 3
block-diagonal products. A file is written as the lowest version that can express it, so that older
versions of the library can read it.
"""
FORMATS = ("float32", "bfloat16", "int8")
"""The formats of weights, named as in the core."""
ACTIVATIONS = ("relu", "tanh", "sigmoid", "softmax", "log_softmax")
POOLINGS = ("mean", "max", "attention")
MERGES = ("concat", "sum")

FloatArray = NDArray[np.float32 | np.float64]
"""float32 in a file; float64 in a model that is exported to ONNX in double precision."""
InitialStates = tuple[tuple[FloatArray, ...], ...]
"""For each layer and direction a tuple of its states, [1, width] each."""

INFORMATIVE = {"informative": True}
"""Metadata of fields for people and for ONNX; readers of files skip them."""
OPTIONAL = {"optional": True}
"""Metadata of fields that a file omits if they have the default value."""


@dataclass(frozen=True)
class QuantizedWeight:
    """A low-precision matrix [rows, columns], in place of a float32 array in a file: int8 with the
    largest absolute value of each row [rows], or bfloat16 as the upper halves of float32.

    Blocks in memory hold the dequantized matrix (``_quantize``).
    """

    kept: str
    values: NDArray[np.int8] | NDArray[np.uint16]
    largest: NDArray[np.float32] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class EmbeddingBlock:
    """Rows of a table [V, width], looked up by token."""

    block: ClassVar[str] = "embedding"
    weight: FloatArray

    @property
    def width(self) -> int:
        return int(self.weight.shape[1])


@dataclass(frozen=True)
class ScaleBlock:
    """(x - mean) / deviation, [width] each, in float64."""

    block: ClassVar[str] = "scale"
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @property
    def width(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class LinearBlock:
    """W x + b with W [width, inputs] and b [width], or no b."""

    block: ClassVar[str] = "linear"
    weight: FloatArray
    bias: FloatArray | None

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[1])

    @property
    def width(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True)
class ActivationBlock:
    """A function of each number, or of each row; in a file its name is the name of the block."""

    function: str

    @property
    def block(self) -> str:
        return self.function


@dataclass(frozen=True)
class LastBlock:
    """The final output of each sequence; with two directions, that of both."""

    block: ClassVar[str] = "last"


@dataclass(frozen=True)
class PoolingBlock:
    """Mean, maximum or attention over the steps of each sequence.

    ``keys`` and ``query`` belong to attention: the score of a step y is query(tanh(keys(y))).
    """

    block: ClassVar[str] = "pooling"
    name: str
    width: int
    keys: LinearBlock | None = None
    query: LinearBlock | None = None


@dataclass(frozen=True)
class LayerDirection:
    """One layer in one direction: a program and its arrays, in the order of the program.

    ``arrays`` are weight and bias (or None) of the input product and of each further product, then
    the vectors (None: zeros). ``sizes`` are I, H and P.
    """

    cell: str = field(metadata=INFORMATIVE)
    program: str
    sizes: tuple[int, int, int]
    arrays: tuple[FloatArray | None, ...]

    @property
    def inputs(self) -> int:
        return self.sizes[0]

    @property
    def width(self) -> int:
        """The width of the output."""
        return self.sizes[2]

    @cached_property
    def core_program(self) -> _core.Program:
        """The program as the core runs it, parsed and checked once.

        Raises:
            ValueError: the text is not a program of these sizes.
        """
        I, H, P = self.sizes  # noqa: E741
        return _core.Program(self.program, H, P, I)

    @property
    def state_widths(self) -> tuple[int, ...]:
        return tuple(self.core_program.state_widths)


@dataclass(frozen=True)
class RecurrentBlock:
    """L layers in D directions; each layer reads the merged outputs of the layer before.

    ``start`` holds the initial states; None means zeros. ``states`` are the names of the
    cell's states.
    """

    block: ClassVar[str] = "recurrent"
    layers: tuple[tuple[LayerDirection, ...], ...]
    start: InitialStates | None = None
    states: tuple[str, ...] = field(default=(), metadata=INFORMATIVE)
    merge: str = field(default="concat", metadata=OPTIONAL)

    @property
    def num_directions(self) -> int:
        return len(self.layers[0])

    @property
    def inputs(self) -> int:
        return self.layers[0][0].inputs

    @property
    def width(self) -> int:
        """The width of the output, with both directions merged."""
        return self.merged_width(self.layers[-1])

    def merged_width(self, layer: tuple[LayerDirection, ...]) -> int:
        """The width of the output of one layer."""
        widths = [direction.width for direction in layer]
        return widths[0] if self.merge == "sum" else sum(widths)


@dataclass(frozen=True)
class WordsBlock:
    """Embeddings of words, concatenated with the final states of layers over their characters."""

    block: ClassVar[str] = "words"
    words: FloatArray
    characters: FloatArray
    spelling: RecurrentBlock

    @property
    def width(self) -> int:
        return int(self.words.shape[1]) + self.spelling.width


@dataclass(frozen=True)
class ForecastBlock:
    """Forecasts ``horizon`` steps of the first ``targets`` columns, as differences from the last
    known values.

    ``mean`` and ``deviation`` [targets] convert forecasts to the units of the data; without them
    forecasts are in standard units.
    """

    block: ClassVar[str] = "forecast"
    horizon: int
    targets: int
    mean: NDArray[np.float64] | None = None
    deviation: NDArray[np.float64] | None = None

    @property
    def inputs(self) -> int:
        return self.horizon * self.targets


@dataclass(frozen=True)
class AttentionBlock:
    """tanh(W [c; y] + b) of a decoder's output y and its context c, by attention over the encoder's
    outputs."""

    block: ClassVar[str] = "attention"
    combine: LinearBlock


Block = (
    EmbeddingBlock
    | ScaleBlock
    | WordsBlock
    | RecurrentBlock
    | LinearBlock
    | ActivationBlock
    | LastBlock
    | PoolingBlock
    | ForecastBlock
)
"""A block of a chain."""


@dataclass(frozen=True)
class ChainModel:
    """A chain of blocks, each of which reads the result of the block before."""

    blocks: tuple[Block, ...]
    batch_first: bool = field(default=False, metadata=OPTIONAL)


@dataclass(frozen=True)
class TranslatorModel:
    """An encoder and a decoder, each with an embedding and layers; the decoder also has attention,
    if any, and a head. ``begin`` and ``end`` are the tokens around a target."""

    encoder: tuple[EmbeddingBlock, RecurrentBlock]
    decoder: tuple[EmbeddingBlock, RecurrentBlock, AttentionBlock | None, LinearBlock]
    begin: int
    end: int


@dataclass(frozen=True)
class ExportedFile:
    """A model with the format of its weights, its task and the plain values of the task's codec."""

    weights: str
    task: str | None
    codec: object
    model: ChainModel | TranslatorModel
