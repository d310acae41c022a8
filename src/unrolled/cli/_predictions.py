"""The lines that `unrolled predict` prints, for each task; the tasks themselves read the input."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from unrolled.tasks import DataError
from unrolled.tasks._number_format import format_full
from unrolled.tasks._task import PredictionInput

if TYPE_CHECKING:
    from unrolled.models import EncoderDecoder, SequenceModel, Tagger
    from unrolled.tasks._forecasting import Forecaster
    from unrolled.tasks.codecs import (
        ClassificationCodec,
        ForecastingCodec,
        TaggingCodec,
        TranslationCodec,
    )

_BATCH_SIZE = 64


def _classify(
    model: "SequenceModel",
    codec: "ClassificationCodec",
    inputs: Sequence[PredictionInput],
    *,
    every_step: bool,
    beam: int,
) -> Iterator[str]:
    """Label, probability and name of each text or row; with `every_step` one line per step."""
    from unrolled.tasks._classification import class_probabilities, prefix_probabilities

    for name, item, _ in inputs:
        if every_step:
            if model.recurrent.bidirectional:
                raise DataError(
                    "--each requires a model that reads in one direction (train with "
                    "--no-bidirectional); this one also reads from the end, which is not there yet"
                )
            for step, probabilities in enumerate(prefix_probabilities(model, codec, item)):
                best = int(probabilities.argmax())
                shown_step = repr(item[step]) if isinstance(item, str) else str(step + 1)
                label = codec.labels.decode([best])[0]
                yield f"{shown_step}\t{label}\t{format_full(probabilities[best].item())}"
            continue
        (probabilities,) = class_probabilities(model, codec, [item])
        best = int(probabilities.argmax())
        label = codec.labels.decode([best])[0]
        yield f"{label}\t{format_full(probabilities[best].item())}\t{name}"


def _tag(
    model: "Tagger",
    codec: "TaggingCodec",
    inputs: Sequence[PredictionInput],
    *,
    every_step: bool,
    beam: int,
) -> Iterator[str]:
    """Token and label on each line, and an empty line after each sentence.

    The lines can be read as input again: a tab separates the columns where a space would be part
    of a column or start a comment.
    """
    from unrolled.tasks._tagging import predict_tags

    for begin in range(0, len(inputs), _BATCH_SIZE):
        sentences = [item.value for item in inputs[begin : begin + _BATCH_SIZE]]
        for tokens, labels in zip(sentences, predict_tags(model, codec, sentences), strict=True):
            for token, label in zip(tokens, labels, strict=True):
                space_is_safe = " " not in token + label and token != "#"
                yield (" " if space_is_safe else "\t").join((token, label))
            yield ""


def _forecast(
    model: "Forecaster",
    codec: "ForecastingCodec",
    inputs: Sequence[PredictionInput],
    *,
    every_step: bool,
    beam: int,
) -> Iterator[str]:
    """The rows that follow each series, as one CSV: the series' keys, the step, the targets."""
    from unrolled.tasks._forecasting import forecast

    targets = codec.columns[: codec.targets]
    keys = list(inputs[0].key_columns)
    step_column = "forecast_step" if "step" in [*keys, *targets] else "step"
    yield _csv_line([*keys, step_column, *targets])
    for item in inputs:
        for step, row in enumerate(forecast(model, codec, item.value).tolist(), 1):
            yield _csv_line([*item.key_columns.values(), str(step), *map(format_full, row)])


def _csv_line(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _seq2seq(
    model: "EncoderDecoder",
    codec: "TranslationCodec",
    inputs: Sequence[PredictionInput],
    *,
    every_step: bool,
    beam: int,
) -> Iterator[str]:
    """The target of each source, one per line."""
    from unrolled.tasks._translation import translate

    for begin in range(0, len(inputs), _BATCH_SIZE):
        sources = [item.value for item in inputs[begin : begin + _BATCH_SIZE]]
        nonempty = [source for source in sources if source.strip()]
        targets = iter(translate(model, codec, nonempty, width=beam))
        # An empty source gives an empty line, so that line numbers match.
        yield from (next(targets) if source.strip() else "" for source in sources)


PREDICTIONS: Mapping[str, Callable[..., Iterator[str]]] = {
    "classify": _classify,
    "tag": _tag,
    "forecast": _forecast,
    "seq2seq": _seq2seq,
}
"""Functions by the name of the task; they yield the lines to print."""
