"""What `unrolled predict` prints, for each task."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unrolled.tasks import DataError
from unrolled.tasks.conll import read_conll
from unrolled.tasks.reading import read_utf8
from unrolled.tasks.tables import SUFFIXES, read_table

__all__ = ["classify", "forecast", "seq2seq", "tag"]

_AT_ONCE = 64


def classify(
    model: Any, codec: Any, paths: Sequence[Path], texts: Sequence[str], each: bool, **_: Any
) -> Iterator[str]:
    """Label, probability and name of each text or row."""
    from unrolled.tasks.classification import predict, predict_each, rows_of

    items: list[tuple[str, Any]] = [(repr(text), text) for text in texts]
    for path in paths:
        if path.suffix.lower() in SUFFIXES:
            items += rows_of(read_table(path), codec)
        else:
            items.append((str(path), read_utf8(path)))
    if not texts and not paths:
        items.append(("standard input", sys.stdin.read()))
    for name, item in items:
        if each:
            if model.recurrent.bidirectional:
                raise DataError(
                    "--each: wanted a model that reads in one direction (train with "
                    "--no-bidirectional): the second begins at the end, which is not there yet"
                )
            chances = predict_each(model, codec, item)
            for step, row in enumerate(chances):
                best = int(row.argmax())
                shown = repr(item[step]) if isinstance(item, str) else str(step + 1)
                yield f"{shown}\t{codec.labels.decode([best])[0]}\t{row[best]:.4f}"
            continue
        (row,) = predict(model, codec, [item])
        best = int(row.argmax())
        yield f"{codec.labels.decode([best])[0]}\t{row[best]:.4f}\t{name}"


def tag(
    model: Any, codec: Any, paths: Sequence[Path], texts: Sequence[str], **_: Any
) -> Iterator[str]:
    """Token and label on each line, an empty line after each sentence."""
    from unrolled.tasks.tagging import predict

    sentences = [text.split() for text in texts]
    for path in paths:
        sentences += [list(s.tokens) for s in read_conll(path, label=None)]
    if not texts and not paths:
        blocks = sys.stdin.read().split("\n\n")
        sentences += [[line.split()[0] for line in block.splitlines() if line.split()]
                      for block in blocks if block.strip()]  # fmt: skip
    for begin in range(0, len(sentences), _AT_ONCE):
        part = sentences[begin : begin + _AT_ONCE]
        for tokens, labels in zip(part, predict(model, codec, part), strict=True):
            yield from (f"{token} {label}" for token, label in zip(tokens, labels, strict=True))
            yield ""


def forecast(
    model: Any, codec: Any, paths: Sequence[Path], texts: Sequence[str], **_: Any
) -> Iterator[str]:
    """The next rows of a table as CSV: step, then the forecast columns."""
    import torch

    from unrolled.tasks.forecasting import predict

    if texts or not paths:
        raise DataError("FILE: wanted a table (CSV, TSV or Parquet) with the past, got none")
    for path in paths:
        table = read_table(path)
        past = torch.stack([table.numbers(name) for name in codec.columns], 1)
        found = predict(model, codec, past)
        shown = io.StringIO()
        rows = csv.writer(shown, lineterminator="\n")
        rows.writerow(["step", *codec.columns[: codec.targets]])
        for step, row in enumerate(found.tolist(), 1):
            rows.writerow([step, *(f"{value:.6g}" for value in row)])
        yield shown.getvalue().rstrip("\n")


def seq2seq(
    model: Any, codec: Any, paths: Sequence[Path], texts: Sequence[str], beam: int, **_: Any
) -> Iterator[str]:
    """The target of each source, a line each."""
    from unrolled.tasks.translation import predict

    sources = [*texts, *(line for path in paths for line in read_utf8(path).splitlines())]
    if not texts and not paths:
        sources = sys.stdin.read().splitlines()
    for begin in range(0, len(sources), _AT_ONCE):
        part = sources[begin : begin + _AT_ONCE]
        found = iter(predict(model, codec, [s for s in part if s.strip()], width=beam))
        # An empty line stays one, so that lines of both sides go together.
        yield from (next(found) if source.strip() else "" for source in part)
