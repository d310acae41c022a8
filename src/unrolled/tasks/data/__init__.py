"""Readers of the user's data: files and standard input, tables, labelled tokens, texts."""

from unrolled.tasks.data._conll import Sentence, read_conll, write_conll
from unrolled.tasks.data._source import DataError, Source, StandardInput
from unrolled.tasks.data._tables import Table, read_table
from unrolled.tasks.data._text_files import TextError, read_text, standard_library

__all__ = [
    "DataError",
    "Sentence",
    "Source",
    "StandardInput",
    "Table",
    "TextError",
    "read_conll",
    "read_table",
    "read_text",
    "standard_library",
    "write_conll",
]
