"""Codecs turn data into tensors and back: vocabularies, labels and scales.

A checkpoint has the ``state()`` of its codec, in plain values.
"""

from unrolled.tasks.codecs.classification import ClassificationCodec
from unrolled.tasks.codecs.forecasting import ForecastingCodec
from unrolled.tasks.codecs.subword import SubwordVocabulary
from unrolled.tasks.codecs.tagging import TaggingCodec
from unrolled.tasks.codecs.token_vocab import TokenVocabulary
from unrolled.tasks.codecs.translation import TextCodec, TranslationCodec
from unrolled.tasks.codecs.vocabulary import Vocabulary

__all__ = [
    "ClassificationCodec",
    "ForecastingCodec",
    "SubwordVocabulary",
    "TaggingCodec",
    "TextCodec",
    "TokenVocabulary",
    "TranslationCodec",
    "Vocabulary",
]
