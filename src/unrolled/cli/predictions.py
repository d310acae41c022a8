"""What `unrolled predict` prints, for each task; its input is read by the tasks themselves."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from unrolled.tasks import DataError
from unrolled.tasks.number_format import format_full
from unrolled.tasks.task import PredictionInput

__all__ = ["classify", "forecast", "seq2seq", "tag"]

_AT_ONCE = 64


def classify(
    model: Any, codec: Any, inputs: Sequence[PredictionInput], *, each: bool, **_: Any
) -> Iterator[str]:
    """Label, probability and name of each text or row."""
    from unrolled.tasks.classification import class_probabilities, prefix_probabilities

    for name, item, _keys in inputs:
        if each:
            if model.recurrent.bidirectional:
                raise DataError(
                    "--each: wanted a model that reads in one direction (train with "
                    "--no-bidirectional): the second begins at the end, which is not there yet"
                )
            chances = prefix_probabilities(model, codec, item)
            for step, row in enumerate(chances):
                best = int(row.argmax())
                shown = repr(item[step]) if isinstance(item, str) else str(step + 1)
                yield f"{shown}\t{codec.labels.decode([best])[0]}\t{format_full(row[best].item())}"
            continue
        (row,) = class_probabilities(model, codec, [item])
        best = int(row.argmax())
        yield f"{codec.labels.decode([best])[0]}\t{format_full(row[best].item())}\t{name}"


def tag(model: Any, codec: Any, inputs: Sequence[PredictionInput], **_: Any) -> Iterator[str]:
    """Token and label on each line, an empty line after each sentence; read again, they are the
    same: a tab is between them where a blank would be part of one or begin a comment."""
    from unrolled.tasks.tagging import predict_tags

    for begin in range(0, len(inputs), _AT_ONCE):
        part = [item.value for item in inputs[begin : begin + _AT_ONCE]]
        for tokens, labels in zip(part, predict_tags(model, codec, part), strict=True):
            for token, label in zip(tokens, labels, strict=True):
                blank = " " not in token + label and token != "#"
                yield (" " if blank else "\t").join((token, label))
            yield ""


def forecast(model: Any, codec: Any, inputs: Sequence[PredictionInput], **_: Any) -> Iterator[str]:
    """The rows that follow on each series as one CSV: what names the series, the step, then the
    columns that are forecast."""
    from unrolled.tasks.forecasting import forecast as forecast_next

    targets = codec.columns[: codec.targets]
    names = [*inputs[0].keys, *targets]
    yield _csv_line([*inputs[0].keys, "forecast_step" if "step" in names else "step", *targets])
    for item in inputs:
        for step, row in enumerate(forecast_next(model, codec, item.value).tolist(), 1):
            yield _csv_line([*item.keys.values(), str(step), *map(format_full, row)])


def _csv_line(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def seq2seq(
    model: Any, codec: Any, inputs: Sequence[PredictionInput], *, beam: int, **_: Any
) -> Iterator[str]:
    """The target of each source, a line each."""
    from unrolled.tasks.translation import translate

    for begin in range(0, len(inputs), _AT_ONCE):
        part = [item.value for item in inputs[begin : begin + _AT_ONCE]]
        found = iter(translate(model, codec, [s for s in part if s.strip()], width=beam))
        # An empty line stays one, so that lines of both sides go together.
        yield from (next(found) if source.strip() else "" for source in part)
