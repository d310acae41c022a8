"""Parquet files as names and cells, with pyarrow. What the cells mean is left to `tables`."""

import io
from typing import Any

from unrolled.tasks.data.source import DataError, Source, read_bytes

__all__ = ["MAGIC", "read_parquet"]

MAGIC = b"PAR1"
"""What a Parquet file begins with."""


def read_parquet(source: Source) -> tuple[list[str], list[list[Any]]]:
    """The names of the columns, and the cells of each as Python's values; None is a missing one.

    Bytes that are UTF-8 are text. Times come as text in ISO 8601, to the nanosecond; those of a
    time zone in UTC.

    Raises:
        DataError: pyarrow is not installed, or it cannot read the file.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        cure = "pip install 'unrolled[train]'"
        raise DataError(f"{source}: wanted pyarrow to read Parquet, got none; {cure}") from None
    try:
        table = parquet.ParquetFile(io.BytesIO(read_bytes(source))).read()
        columns = [_cells(pa, column) for column in table.columns]
    except (OSError, OverflowError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{source}: wanted a Parquet file that can be read ({said})") from None
    return list(table.column_names), columns


def _cells(pa: Any, column: Any) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_timestamp(kind):
        # Python's datetime has no nanoseconds, and pyarrow needs the zone's file to make one.
        zone = "" if kind.tz is None else "Z"
        cells = column.cast(pa.timestamp(kind.unit)).cast(pa.string()).to_pylist()
        return [None if cell is None else cell + zone for cell in cells]
    if pa.types.is_time(kind):
        return list(column.cast(pa.string()).to_pylist())
    if pa.types.is_duration(kind):
        return list(column.cast(pa.int64()).to_pylist())
    cells = column.to_pylist()
    return [_text(cell) if isinstance(cell, bytes) else cell for cell in cells]


def _text(cell: bytes) -> str | bytes:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell
