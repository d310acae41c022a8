"""Whole models: what stands around the recurrent layers, and their files."""

from unrolled.models.cell_lookup import (
    CellLike,
    CellNameError,
    State,
    find_cell,
    make_stack,
    published,
)
from unrolled.models.encoder_decoder import DotAttention, EncoderDecoder, Memory
from unrolled.models.initial_state import LearnedStart, StartFromFeatures
from unrolled.models.language_model import LanguageModel
from unrolled.models.pooling import Pooling
from unrolled.models.sequence_model import OneHot, SequenceModel
from unrolled.models.tagger import Tagger
from unrolled.models.tensor_files import load_tree, save_tree

__all__ = [
    "CellLike",
    "CellNameError",
    "DotAttention",
    "EncoderDecoder",
    "LanguageModel",
    "LearnedStart",
    "Memory",
    "OneHot",
    "Pooling",
    "SequenceModel",
    "StartFromFeatures",
    "State",
    "Tagger",
    "find_cell",
    "load_tree",
    "make_stack",
    "published",
    "save_tree",
]
