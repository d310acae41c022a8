"""Parquet files as column names and cells, read with pyarrow; `_tables` interprets them."""

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from unrolled.tasks.data._source import DataError, Source, read_bytes

if TYPE_CHECKING:
    import pyarrow

PARQUET_MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""


def read_parquet(source: Source) -> tuple[list[str], list[list[object]]]:
    """The names of the columns, and the cells of each as Python values; None is a missing one.

    Bytes that are UTF-8 become text. Times become text in ISO 8601 with nanoseconds, in UTC if they
    have a time zone.

    Raises:
        DataError: pyarrow is not installed, or it cannot read the file.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise DataError(
            f"{source}: pyarrow must be installed to read Parquet, got none; "
            "pip install 'unrolled[train]'"
        ) from None
    try:
        table = ParquetFile(io.BytesIO(read_bytes(source))).read()
        columns = [_cells(column) for column in table.columns]
    except (OSError, OverflowError, pyarrow.ArrowException) as error:
        message = " ".join(str(error).split())
        raise DataError(f"{source}: must be a readable Parquet file ({message})") from None
    return list(table.column_names), columns


def _cells(column: "pyarrow.ChunkedArray") -> list[object]:
    import pyarrow

    column_type = column.type
    if pyarrow.types.is_dictionary(column_type):
        column, column_type = column.cast(column_type.value_type), column_type.value_type
    if pyarrow.types.is_timestamp(column_type):
        # Python's datetime has no nanoseconds, and pyarrow needs time zone files to make one.
        zone = "" if column_type.tz is None else "Z"
        text = column.cast(pyarrow.timestamp(column_type.unit)).cast(pyarrow.string())
        return [None if cell is None else f"{cell}{zone}" for cell in _values(text)]
    if pyarrow.types.is_time(column_type):
        return list(_values(column.cast(pyarrow.string())))
    if pyarrow.types.is_duration(column_type):
        return list(_values(column.cast(pyarrow.int64())))
    return [_decode(cell) if isinstance(cell, bytes) else cell for cell in _values(column)]


def _values(column: "pyarrow.ChunkedArray") -> Sequence[object]:
    values: Iterable[object] = column.to_pylist()
    return list(values)


def _decode(cell: bytes) -> str | bytes:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell
