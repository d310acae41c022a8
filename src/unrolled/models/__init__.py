"""Whole models: what stands around the recurrent layers, and their files."""

from unrolled.models.cells import (
    CellLike,
    CellNameError,
    State,
    find_cell,
    make_stack,
    published,
)
from unrolled.models.files import load_tree, save_tree
from unrolled.models.language import LanguageModel
from unrolled.models.pooling import Pooling
from unrolled.models.sequence import OneHot, SequenceModel
from unrolled.models.start import LearnedStart, StartFromFeatures
from unrolled.models.tagger import Tagger
from unrolled.models.translation import DotAttention, EncoderDecoder, Memory

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
