"""What a classifier reads: tables, folders of text files, and the task's own data.

Turning texts and numbers into tensors is left to `classification`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.limits import brief
from unrolled.tasks.data.delimited import read_header
from unrolled.tasks.data.parquet import MAGIC
from unrolled.tasks.data.source import (
    DataError,
    Source,
    StandardInput,
    file_suffix,
    read_bytes,
    read_lines,
    read_utf8,
)
from unrolled.tasks.data.tables import TABLE_SUFFIXES, Table, read_table
from unrolled.tasks.data.text_files import files_in, folders_in
from unrolled.tasks.example_task import choose_validation
from unrolled.tasks.task import PredictionInput

__all__ = [
    "LabelledSequences",
    "inputs_from_table",
    "inputs_from_texts",
    "is_table",
    "read_sequences",
]


@dataclass(frozen=True)
class LabelledSequences:
    """Texts, or numeric sequences `[T, F]`, with the label of each; and which are held out."""

    inputs: Sequence[Any]
    labels: Sequence[str]
    held_out: Sequence[bool]
    places: Sequence[str] = ()
    columns: tuple[str, ...] | None = None
    """Of numbers from tables: the names of the steps; None of others."""

    @property
    def of_text(self) -> bool:
        return isinstance(self.inputs[0], str)

    def place(self, n: int) -> str:
        """Where a sequence is from, for messages."""
        return self.places[n] if self.places else f"sequence {n + 1}"


def read_sequences(
    config: Any, whole: bool, columns: Sequence[str] | None = None
) -> LabelledSequences:
    """The sequences of a configuration; with ``whole`` all of them are held out.

    Args:
        columns: the names of the steps that a trained model knows; without them the tables must
            have their columns in one order.

    Raises:
        DataError: the data are missing or not usable; the message names the file and the line.
    """
    if not config.paths:
        from unrolled.tasks.datasets import digits, languages, moving_digits, spoken_words

        if config.data == "digits":
            return _pictures(*digits())
        if config.data == "moving-digits":
            return _pictures(*moving_digits(seed=config.seed))
        if config.data == "spoken-words":
            spoken = spoken_words(seed=config.seed)
            return _divided(*(list(zip(one.inputs, one.labels, strict=True)) for one in spoken))
        found = languages()
        return _divided(found.training, found.validation)
    parts = [
        _table(config, read_table(path))
        if path.lower().endswith(TABLE_SUFFIXES)
        else _folder(Path(path))
        for path in config.paths
    ]
    if len({part.of_text for part in parts}) > 1:
        raise DataError("data: wanted texts or numbers, got both")
    inputs, labels, places = ([x for p in parts for x in getattr(p, name)] for name in _FIELDS)
    out = [True] * len(labels) if whole else choose_validation(len(labels), config)
    longest = max((part.columns for part in parts if part.columns), key=len, default=None)
    for path, part in zip(config.paths, parts, strict=True):
        _check_columns(str(path), part.columns, columns or longest)
    return LabelledSequences(inputs, labels, out, places, longest)


def _pictures(*parts: Any) -> LabelledSequences:
    """Sequences of rows or of frames, each step's numbers side by side."""
    pairs = []
    for part in parts:
        labels = [part.classes[k] for k in part.labels.tolist()]
        pairs.append(list(zip(part.inputs.flatten(2).unbind(1), labels, strict=True)))
    return _divided(*pairs)


def _divided(
    training: list[tuple[Any, str]], validation: list[tuple[Any, str]]
) -> LabelledSequences:
    """Sequences with their labels, those of validation held out."""
    every = [*training, *validation]
    out = [False] * len(training) + [True] * len(validation)
    return LabelledSequences([x for x, _ in every], [label for _, label in every], out)


_FIELDS = ("inputs", "labels", "places")


def _table(config: Any, table: Table) -> LabelledSequences:
    labels = table.categories(_label(config), "a label")
    places = [table.place(row) for row in range(table.rows)]
    if config.text is not None:
        return LabelledSequences(table.text(config.text), labels, [], places)
    columns = _steps_of(config, table)
    return LabelledSequences(_numbers(table, columns), labels, [], places, columns)


def _label(config: Any) -> str:
    return config.label or "label"


def _steps_of(config: Any, table: Table) -> tuple[str, ...]:
    """The columns of a sequence's steps: all but that of the labels."""
    names = table.others({_label(config)})
    if not names:
        raise DataError(f"{table.name}: wanted columns beside {_label(config)!r}, got none")
    return tuple(names)


def _numbers(table: Table, columns: Sequence[str]) -> list[Tensor]:
    """Each row's numbers `[T, 1]`."""
    values = torch.stack([table.numbers(name, missing="nan") for name in columns], 1)
    return [_steps(row, table.place(k)) for k, row in enumerate(values)]


def _check_columns(name: str, columns: Sequence[str] | None, known: Sequence[str] | None) -> None:
    """Hold the columns of a table to those that are known: a step has one name, and a table more or
    fewer steps.

    Raises:
        DataError: a step has another name.
    """
    for step, (column, wanted) in enumerate(zip(columns or (), known or (), strict=False), 1):
        if column != wanted:
            raise DataError(
                f"{name}: wanted the columns of the run in their order, {brief(wanted)} for "
                f"step {step}, got {brief(column)}"
            )


def is_table(config: Any, source: Source, of_text: bool) -> bool:
    """Whether a classifier reads a table from a source: by the name of a file; of standard input,
    where the model reads numbers, or the column of the run's texts is in the header."""
    if not isinstance(source, StandardInput):
        return not of_text or file_suffix(source) in TABLE_SUFFIXES
    if not of_text or read_bytes(source).startswith(MAGIC):
        return True
    try:
        # What is below the header may be damaged, which the reader of tables reports.
        names = [] if config.text is None else read_header(source)
    except DataError:
        return False
    return config.text in [name.strip() for name in names]


def inputs_from_table(config: Any, table: Table, codec: Any) -> list[PredictionInput]:
    """Each row of a table, read as the run's own; labels may be missing and are not looked at."""
    values: Sequence[Any]
    if codec.characters is None:
        columns = _steps_of(config, table)
        _check_columns(table.name, columns, codec.columns)
        values = _numbers(table, columns)
    elif config.text is None:
        raise DataError(
            f"{table.name}: wanted text files, the run read texts from files; got a table"
        )
    else:
        values = table.text(config.text)
    return [PredictionInput(table.place(row), value) for row, value in enumerate(values)]


def inputs_from_texts(config: Any, source: Source) -> list[PredictionInput]:
    """Of a folder each text file; of a file each line where the texts of the run were the cells of
    tables, else the whole."""
    if not isinstance(source, StandardInput) and Path(source).is_dir():
        files = sorted(files_in(Path(source)))
        if not files:
            raise DataError(f"{source}: wanted text files, found none")
        return [PredictionInput(str(file), read_utf8(file)) for file in files]
    if config.paths and all(path.lower().endswith(TABLE_SUFFIXES) for path in config.paths):
        return [
            PredictionInput(f"{source}, line {n}", t) for n, t in enumerate(read_lines(source), 1)
        ]
    return [PredictionInput(str(source), read_utf8(source))]


def _steps(row: Tensor, place: str) -> Tensor:
    """A row's numbers `[T, 1]`; a shorter sequence leaves its last cells empty."""
    missing = row.isnan()
    T = len(row) - int(missing.flip(0).long().cumprod(0).sum())
    if bool(missing[:T].any()) or T == 0:
        raise DataError(f"{place}: wanted numbers, then empty cells only at the end")
    return row[:T, None]


def _folder(folder: Path) -> LabelledSequences:
    """Text files in a folder for each label."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: wanted a table ({', '.join(TABLE_SUFFIXES)}) or a folder with a folder of "
            "text files for each label"
        )
    files = [sorted(files_in(label)) for label in folders_in(folder)]
    found = [file for part in files for file in part]
    if not found:
        raise DataError(f"{folder}: wanted a folder of text files for each label, found none")
    labels = [file.relative_to(folder).parts[0] for file in found]
    return LabelledSequences(
        [read_utf8(file) for file in found], labels, [], [str(f) for f in found]
    )
