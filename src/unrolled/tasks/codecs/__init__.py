"""Codecs turn data into tensors and back: vocabularies, labels and scales.

A checkpoint has the ``state()`` of its codec, in plain values.
"""

from unrolled.tasks.codecs._classification import ClassificationCodec
from unrolled.tasks.codecs._forecasting import ForecastingCodec
from unrolled.tasks.codecs._subword import SubwordVocabulary
from unrolled.tasks.codecs._tagging import TaggingCodec
from unrolled.tasks.codecs._token_vocab import TokenVocabulary
from unrolled.tasks.codecs._translation import TextCodec, TranslationCodec
from unrolled.tasks.codecs._vocabulary import Vocabulary

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
