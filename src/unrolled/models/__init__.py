"""Whole models around the recurrent layers, and files of their weights."""

from unrolled.models._cell_lookup import (
    CellLike,
    CellNameError,
    find_cell,
    make_stack,
    published_cells,
)
from unrolled.models._encoder_decoder import DotAttention, EncoderDecoder, Memory
from unrolled.models._initial_state import InitialStateFromFeatures, LearnedInitialState
from unrolled.models._language_model import LanguageModel
from unrolled.models._pooling import Pooling
from unrolled.models._sequence_model import OneHot, SequenceModel
from unrolled.models._tagger import Tagger
from unrolled.models._tensor_files import load_tree, save_tree

__all__ = [
    "CellLike",
    "CellNameError",
    "DotAttention",
    "EncoderDecoder",
    "InitialStateFromFeatures",
    "LanguageModel",
    "LearnedInitialState",
    "Memory",
    "OneHot",
    "Pooling",
    "SequenceModel",
    "Tagger",
    "find_cell",
    "load_tree",
    "make_stack",
    "published_cells",
    "save_tree",
]
