"""The data of a classifier: tables, folders of text files, and the task's built-in data.

The codec turns texts and numbers into tensors.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from unrolled._limits import brief
from unrolled.config import ClassificationConfig
from unrolled.tasks._task import PredictionInput
from unrolled.tasks.data._delimited import read_header
from unrolled.tasks.data._parquet import PARQUET_MAGIC
from unrolled.tasks.data._source import (
    DataError,
    Source,
    StandardInput,
    file_suffix,
    read_bytes,
    read_lines,
    read_utf8,
)
from unrolled.tasks.data._splitting import choose_validation
from unrolled.tasks.data._tables import TABLE_SUFFIXES, Table, read_table
from unrolled.tasks.data._text_files import files_in, folders_in

SequenceValue: TypeAlias = str | Tensor
"""A text, or numbers `[T, F]`."""


@dataclass(frozen=True)
class LabelledSequences:
    """Texts or numeric sequences, the label of each, and which are for validation."""

    inputs: Sequence[SequenceValue]
    labels: Sequence[str]
    held_out: Sequence[bool]
    locations: Sequence[str] = ()
    columns: tuple[str, ...] | None = None
    """For numbers from tables: the names of the steps."""

    @property
    def are_texts(self) -> bool:
        return isinstance(self.inputs[0], str)

    def location(self, n: int) -> str:
        """Where a sequence is from, for messages."""
        return self.locations[n] if self.locations else f"sequence {n + 1}"


def read_sequences(
    config: ClassificationConfig, validate_on_all: bool, columns: Sequence[str] | None = None
) -> LabelledSequences:
    """The sequences of a configuration.

    Args:
        validate_on_all: use all of them for validation.
        columns: the names of the steps that a trained model has; without them the tables must have
            their columns in the same order.

    Raises:
        DataError: the data are missing or not usable; the message names the file and the line.
    """
    if not config.paths:
        return _read_built_in(config)
    parts = [
        _from_table(config, read_table(path))
        if path.lower().endswith(TABLE_SUFFIXES)
        else _from_folder(Path(path))
        for path in config.paths
    ]
    if len({part.are_texts for part in parts}) > 1:
        raise DataError("data: must be all texts or all numbers, got both")
    labels = [label for part in parts for label in part.labels]
    longest = max((part.columns for part in parts if part.columns), key=len, default=None)
    for path, part in zip(config.paths, parts, strict=True):
        _check_columns(str(path), part.columns, columns or longest)
    return LabelledSequences(
        [value for part in parts for value in part.inputs],
        labels,
        [True] * len(labels) if validate_on_all else choose_validation(len(labels), config),
        [location for part in parts for location in part.locations],
        longest,
    )


def _read_built_in(config: ClassificationConfig) -> LabelledSequences:
    """The built-in data, training before validation."""
    from unrolled.tasks import datasets

    inputs: list[SequenceValue] = []
    labels: list[str] = []
    sizes: list[int] = []
    if config.data in ("digits", "moving-digits"):
        images = (
            datasets.digits()
            if config.data == "digits"
            else datasets.moving_digits(seed=config.seed)
        )
        for image_part in images:
            inputs += image_part.inputs.flatten(2).unbind(1)
            labels += [image_part.classes[k] for k in image_part.labels.tolist()]
            sizes.append(len(image_part.labels))
    elif config.data == "spoken-words":
        for spoken_part in datasets.spoken_words(seed=config.seed):
            inputs += spoken_part.inputs
            labels += spoken_part.labels
            sizes.append(len(spoken_part.labels))
    else:
        snippets = datasets.languages()
        for snippet_part in (snippets.training, snippets.validation):
            inputs += [text for text, _ in snippet_part]
            labels += [language for _, language in snippet_part]
            sizes.append(len(snippet_part))
    return LabelledSequences(inputs, labels, [False] * sizes[0] + [True] * sizes[1])


def _from_table(config: ClassificationConfig, table: Table) -> LabelledSequences:
    labels = table.categories(_label_column(config), "a label")
    locations = [table.location(row) for row in range(table.rows)]
    if config.text is not None:
        return LabelledSequences(table.text(config.text), labels, [], locations)
    columns = _step_columns(config, table)
    return LabelledSequences(_numbers(table, columns), labels, [], locations, columns)


def _from_folder(folder: Path) -> LabelledSequences:
    """Text files in a folder for each label."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: must be a table ({', '.join(TABLE_SUFFIXES)}) or a folder with a folder "
            "of text files for each label"
        )
    files = [file for label in folders_in(folder) for file in sorted(files_in(label))]
    if not files:
        raise DataError(f"{folder}: must have a folder of text files for each label, got none")
    labels = [file.relative_to(folder).parts[0] for file in files]
    texts = [read_utf8(file) for file in files]
    return LabelledSequences(texts, labels, [], [str(file) for file in files])


def _label_column(config: ClassificationConfig) -> str:
    return config.label or "label"


def _step_columns(config: ClassificationConfig, table: Table) -> tuple[str, ...]:
    """The columns of a sequence's steps: all except that of the labels."""
    label = _label_column(config)
    names = table.columns_except({label})
    if not names:
        raise DataError(f"{table.name}: must have columns besides {label!r}, got none")
    return tuple(names)


def _numbers(table: Table, columns: Iterable[str]) -> list[Tensor]:
    """The numbers of each row, `[T, 1]`."""
    values = torch.stack([table.numbers(name, missing="nan") for name in columns], 1)
    return [_steps(row, table.location(k)) for k, row in enumerate(values)]


def _steps(row: Tensor, location: str) -> Tensor:
    """The numbers of a row, `[T, 1]`; a shorter sequence leaves its last cells empty."""
    missing = row.isnan()
    T = len(row) - int(missing.flip(0).long().cumprod(0).sum())
    if bool(missing[:T].any()) or T == 0:
        raise DataError(f"{location}: must have numbers, then empty cells only at the end")
    return row[:T, None]


def _check_columns(
    name: str, columns: Sequence[str] | None, expected: Sequence[str] | None
) -> None:
    """Compare the columns of a table with those expected, as far as both go: a table may have more
    or fewer steps.

    Raises:
        DataError: a step has another name.
    """
    pairs = zip(columns or (), expected or (), strict=False)
    for step, (column, expected_column) in enumerate(pairs, 1):
        if column != expected_column:
            raise DataError(
                f"{name}: columns must be those of the run in their order, "
                f"{brief(expected_column)} for step {step}, got {brief(column)}"
            )


def is_table(config: ClassificationConfig, source: Source, reads_texts: bool) -> bool:
    """Whether a classifier reads a source as a table: by the name of the file; standard input is
    one if the model reads numbers, or if its header has the run's column of texts."""
    if not isinstance(source, StandardInput):
        return not reads_texts or file_suffix(source) in TABLE_SUFFIXES
    if not reads_texts or read_bytes(source).startswith(PARQUET_MAGIC):
        return True
    try:
        # Damage below the header is reported when the table is read.
        names = [] if config.text is None else read_header(source)
    except DataError:
        return False
    return config.text in [name.strip() for name in names]


def inputs_from_table(
    config: ClassificationConfig, table: Table, reads_texts: bool, columns: Sequence[str] | None
) -> list[PredictionInput[SequenceValue]]:
    """Each row of a table, read as the tables of the run; its label may be missing and is ignored.

    Args:
        columns: the names of the steps that the model knows.
    """
    values: list[SequenceValue] = []
    if not reads_texts:
        step_columns = _step_columns(config, table)
        _check_columns(table.name, step_columns, columns)
        values += _numbers(table, step_columns)
    elif config.text is None:
        raise DataError(
            f"{table.name}: must be a text file, as the run read texts from files, got a table"
        )
    else:
        values += table.text(config.text)
    return [PredictionInput(table.location(row), value) for row, value in enumerate(values)]


def inputs_from_texts(
    config: ClassificationConfig, source: Source
) -> list[PredictionInput[SequenceValue]]:
    """Each text file of a folder; each line of a file if the texts of the run were in tables; else
    the text of the file."""
    if not isinstance(source, StandardInput) and Path(source).is_dir():
        files = sorted(files_in(Path(source)))
        if not files:
            raise DataError(f"{source}: must have text files, got none")
        return [PredictionInput(str(file), read_utf8(file)) for file in files]
    if config.paths and all(path.lower().endswith(TABLE_SUFFIXES) for path in config.paths):
        lines = enumerate(read_lines(source), 1)
        return [PredictionInput(f"{source}, line {number}", line) for number, line in lines]
    return [PredictionInput(str(source), read_utf8(source))]
