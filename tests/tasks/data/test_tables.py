"""Tables from files: the values that were written, and every fault with its file and line."""

import csv
import datetime
import io
import math
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.tasks.data._source import DataError, StandardInput
from unrolled.tasks.data._tables import Table, read_table
from unrolled.tasks.data._text_files import TextError


def table_of(folder: Path, text: str | bytes, name: str = "t.csv") -> Table:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path)


def test_columns_come_as_text_and_as_numbers(tmp_path: Path) -> None:
    table = table_of(tmp_path, "word, size\nnaïve,1\n\n猫,-2.5e3\n")
    assert table.columns == ("word", "size")
    assert (table.rows, len(table)) == (2, 2)
    assert table.text("word") == ["naïve", "猫"]
    assert table.text("size") == ["1", "-2.5e3"]
    numbers = table.numbers("size")
    assert numbers.dtype == torch.float64
    assert numbers.tolist() == [1.0, -2500.0]
    assert "word" in table
    assert "wort" not in table


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "x,y z\n1,2\n"),
        ("a.csv", "x;y z\n1;2\n"),
        ("a.csv", "x\ty z\n1\t2\n"),
        ("a.txt", "x;y z\r\n1;2\r\n"),
        ("a.TSV", "x\ty z\n1\t2\n"),
        ("a.tsv", "\ufeffx\ty z\n1\t2"),
        # As R and pandas (QUOTE_ALL) quote.
        ("a.csv", '"x","y z"\n"1","2"\n'),
        ("a.csv", '"x", "y z"\n"1", "2"\n'),
        ("a.csv", '"x";"y z"\n1;2\n'),
        ("a.txt", '"x"\t"y z"\n1\t2\n'),
        # The rows show what the header alone does not.
        ("a.csv", "x;y z\n1;2\n  \n"),
        ("a.csv", "x,y z\r1,2\r"),
        ("a.tsv", "x,y z\n1,2\n"),
        ("a.pq.csv", "\n\r\nx,y z\r\n\r\n1,2"),
    ],
)
def test_the_delimiter_is_found(tmp_path: Path, name: str, text: str) -> None:
    table = table_of(tmp_path, text, name)
    assert [table.text(column) for column in ("x", "y z")] == [["1"], ["2"]]


def test_the_suffix_and_the_argument_decide_before_the_header(tmp_path: Path) -> None:
    assert table_of(tmp_path, "a,b\tc\n1,2\t3\n", "t.tsv").columns == ("a,b", "c")
    (tmp_path / "t.csv").write_text("a|b,c,d\n1|2\n")
    assert read_table(tmp_path / "t.csv", delimiter="|").text("b,c,d") == ["2"]
    assert table_of(tmp_path, "only\n1;2\n").text("only") == ["1;2"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("x, old;y\n1.5;2\n", ("x, old", "y")),
        ('"x, old";y\n1,5;2\n', ("x, old", "y")),
        ('"x;y",z\n1,2\n', ("x;y", "z")),
        ('id,"name;alias",x\n1,"a;b",2\n', ("id", "name;alias", "x")),
        ("label,body\na,one; two; three\n", ("label", "body")),
        ("x;y\n1,5;2,5\n", ("x", "y")),
        ('x\t"q""t"\tid\n1\t2\t3\n', ("x", 'q"t', "id")),
        ('5" pipe,x\n1,2\n', ('5" pipe', "x")),
    ],
)
def test_a_delimiter_in_a_name_or_a_cell_does_not_count(
    tmp_path: Path, text: str, columns: tuple[str, ...]
) -> None:
    assert table_of(tmp_path, text).columns == columns


def test_names_that_pandas_gives_are_names(tmp_path: Path) -> None:
    assert table_of(tmp_path, "0,1,2\n5,6,7\n").columns == ("0", "1", "2")
    assert table_of(tmp_path, "2019,x\n5,6\n").columns == ("2019", "x")


def test_ambiguous_delimiters_raise(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"line 2: must have one delimiter, got ',' and ';', either"
    ):
        table_of(tmp_path, "\nx, net;y, gross\n1,5;2,5\n")


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6))
def test_what_the_csv_module_writes_is_read(rows: list[tuple[str, str]]) -> None:

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("left", "right"), *rows])
        table = read_table(path)
    assert table.text("left") == [left_text for left_text, _ in rows]
    assert table.text("right") == [right_text for _, right_text in rows]


def test_a_place_is_the_line_on_which_the_row_begins(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'a,b\n"two\nlines",1\n\nx,2\n')
    assert table.text("a") == ["two\nlines", "x"]
    assert table.location(0) == f"{tmp_path}/t.csv, line 2"
    assert table.location(1) == f"{tmp_path}/t.csv, line 5"
    assert Table("made", {"a": [1]}).location(0) == "made, row 1"


def test_a_long_document_is_a_field(tmp_path: Path) -> None:
    previous = csv.field_size_limit(1000)
    try:
        table = table_of(tmp_path, f"text,label\n{'x' * 200_000},a\n")
        assert table.text("text") == ["x" * 200_000]
        assert csv.field_size_limit() == 1000
    finally:
        csv.field_size_limit(previous)


@pytest.mark.parametrize("cell", ["", "  ", "NA", "n/a", "nan", "NULL", "None"])
def test_missing_numbers_are_refused_or_nan(tmp_path: Path, cell: str) -> None:
    table = table_of(tmp_path, f"a,b\n1,1\n{cell},2\n")
    numbers = table.numbers("a", missing="nan").tolist()
    assert numbers[0] == 1.0
    assert math.isnan(numbers[1])
    with pytest.raises(DataError, match=r"t\.csv, line 3, column 'a': must be a number, got '"):
        table.numbers("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv: must have a line of column names, got an empty file"),
        (" \n\n", "got an empty file"),
        ("a,b\n", "t.csv: must have rows below the names of the columns, got none"),
        ("a,b\n1,2\n3\n", r"line 3: must have 2 fields as in the header, got 1; quote fields"),
        ('a,b\n"x\ny",2\n1,2,3\n', r"line 4: must have 2 fields as in the header, got 3"),
        ("a;b\n1;2;3\n", r"line 2: .* quote fields with ';'"),
        ("\na,b,a\n1,2,3\n", "line 2: column names must be distinct, got 'a' more than once"),
        ("a,,b\n1,2,3\n", "line 1: must have a name for every column, got none for column 2"),
        (b"a,b\n1,2\ncaf\xe9,3\n", "line 3: must be UTF-8, got the byte 0xe9; save the file"),
        (b"\xef\xbb\xbfa,b\n\xff,2\n", "line 2: must be UTF-8, got the byte 0xff"),
        ('a,b\n1,2\n"open,3\n', "line 3: fields must be quoted"),
        ("# made by hand\na,b\n1,2\n", "line 2: .* remove the comments .* if line 1 is one"),
        ("a,b\n1,2\n# none\n", "line 3: .* got 1; remove the comment"),
        (
            "5.1,2\n5.2,3\n",
            "line 1: must have the names of the columns, got numbers, '5.1, 2'; write",
        ),
        ("a\n1\n\n2\n", "line 3: must have a field, got an empty line, which may be a"),
    ],
)
def test_a_damaged_file_raises_with_its_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        table_of(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/t.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("abc", "line 2, column 'x': must be a number, got 'abc'$"),
        ("1_000", "must be a number, got '1_000'"),
        ('"3,14"', "got '3,14'; write a point, not a comma, before decimals"),
        ('"1,234,567.5"', "got '1,234,567.5'; write nothing between thousands"),
        ("1.234.567", "got '1.234.567'; write nothing between thousands"),
        ("1 234", "got '1 234'; write nothing between thousands"),
        ("5%", "must be a number, got '5%'$"),
        ("1e999", "must be a finite number, got '1e999'"),
        ("-inf", "must be a finite number, got '-inf'"),
    ],
)
def test_a_cell_that_is_not_a_number_raises(tmp_path: Path, cell: str, message: str) -> None:
    table = table_of(tmp_path, f"x,y\n{cell},1\n")
    for missing in ("refuse", "nan"):
        with pytest.raises(DataError, match=message):
            table.numbers("x", missing=missing)  # type: ignore[arg-type]


def test_true_and_false_are_numbers(tmp_path: Path) -> None:
    assert table_of(tmp_path, "x\nTrue\nfalse\n3\n").numbers("x").tolist() == [1.0, 0.0, 3.0]


def test_columns_of_numbers_are_those_that_hold_one(tmp_path: Path) -> None:
    table = table_of(tmp_path, "day,x,word,gap\n2024-01-01,1,a,\n2024-01-02,2,b,NA\n")
    assert table.numeric_columns() == ["x"]
    assert table.numeric_columns(excluded={"x"}) == []
    with pytest.raises(DataError, match="line 3, column 'x': must be a number, got 'a'"):
        table_of(tmp_path, "x,y\n1,2\na,3\n").numeric_columns()


def test_names_that_are_written_otherwise_are_one_or_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, "x\npos\n pos \nPos\n1\n1.0\n-2.00\n0.5\nnone\n")
    actual = table.categories("x", "a label")
    assert actual == ["pos", "pos", "Pos", "1", "1", "-2", "0.5", "none"]


def test_names_with_a_number_stay_as_they_are(tmp_path: Path) -> None:
    names = ["10.05", "105", "v1.0.2", "2.0 mm", "10000000000000001", "10000000000000002"]
    table = table_of(tmp_path, "\n".join(["x", *names]))
    assert table.categories("x", "a label") == names


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["a", ""], "line 3, column 'x': must be a label, got ''; fill the cell"),
        (["a", " NA "], "line 3, column 'x': must be a label, got 'NA'"),
        (["nan", "b"], "line 2, column 'x': must be a label, got 'nan'"),
        (["1", "01"], "line 3, .* in one spelling, got '01', and '1' in .*, line 2$"),
        (["0.5", "0.50"], "in one spelling, got '0.50', and '0.5' in"),
        (["caf\u00e9", "cafe\u0301"], "line 3, .* in one spelling"),
        (["a b", "a  b"], "line 3, .* in one spelling"),
        (["pos", "pos\u200b"], "line 3, .* in one spelling"),
        (["a", '"a\nb"'], "line 3, .* on one line and without tabs, got 'a.nb'"),
    ],
)
def test_names_that_are_missing_or_nearly_the_same_raise(
    tmp_path: Path, cells: list[str], message: str
) -> None:
    table = table_of(tmp_path, "x,y\n" + "".join(f"{cell},1\n" for cell in cells))
    with pytest.raises(DataError, match=message):
        table.categories("x", "a label")


def test_an_unknown_column_raises_with_the_known_ones(tmp_path: Path) -> None:
    table = table_of(tmp_path, "text,label\na,b\n")
    message = r"column must be one of 'text', 'label', got 'lable'; did you mean 'label'\?"
    with pytest.raises(DataError, match=message):
        table.text("lable")
    with pytest.raises(DataError, match=r"got 'zzz'$"):
        table.numbers("zzz")


def test_long_names_and_cells_leave_a_short_message(tmp_path: Path) -> None:
    name, cell = "x" * 100_000, "z" * 100_000
    table = table_of(tmp_path, f"{name},y\n{cell},1\n")
    for read in (table.numbers, table.times):
        with pytest.raises(
            DataError, match=r"line 2, column 'x+\.\.\.x+': must be a number"
        ) as caught:
            read(name)
        assert len(str(caught.value)) < 1000
    wide = table_of(tmp_path, ",".join(f"c{k}" for k in range(9999)) + "\n" + "1," * 9998 + "1\n")
    with pytest.raises(DataError, match=r"'c19' and 9979 more, got 'c'") as caught:
        wide.numbers("c")
    assert len(str(caught.value)) < 1000


def test_missing_files_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: cannot be read \(No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path)


def test_arguments_are_checked() -> None:
    with pytest.raises(DataError, match="made: columns must have equal lengths"):
        Table("made", {"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="missing must be 'refuse' or 'nan', got 'drop'"):
        Table("made", {"a": [1]}).numbers("a", missing="drop")  # type: ignore[arg-type]
    assert issubclass(TextError, DataError)


# Parquet


def write_parquet(path: Path, columns: Mapping[str, Any]) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table(columns), path)
    return path


def test_parquet_holds_what_was_written(tmp_path: Path) -> None:
    day = datetime.date(1984, 3, 3)
    columns = {"text": ["a", None], "n": [3, None], "x": [0.5, -1.0], "day": [day, day]}
    table = read_table(write_parquet(tmp_path / "t.parquet", columns))
    assert table.columns == ("text", "n", "x", "day")
    assert table.text("text") == ["a", ""]
    assert table.text("n") == ["3", ""]
    assert table.text("day") == ["1984-03-03"] * 2
    assert table.numbers("x").tolist() == [0.5, -1.0]
    assert table.numbers("n", missing="nan")[0] == 3.0
    assert table.numbers("n", missing="nan")[1].isnan()
    with pytest.raises(DataError, match=r"t\.parquet, row 2, column 'n': must be a number"):
        table.numbers("n")
    with pytest.raises(DataError, match="row 1, column 'day': must be a number, got '1984-03-03'"):
        table.numbers("day")


def test_parquet_of_other_types_is_read_as_its_csv_would_be(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    nanoseconds = [1_729_989_000_000_000_001, 1_729_989_000_000_000_002]
    table = read_table(
        write_parquet(
            tmp_path / "t.parquet",
            {
                "kind": pa.array(["a", "b"]).dictionary_encode(),
                "bytes": pa.array([b"na\xc3\xafve", None]),
                "price": pa.array([Decimal("1.50"), None], pa.decimal128(8, 2)),
                "flag": [True, False],
                "large": [2**53 + 1, 2**63 - 1],
                "small": pa.array([0.5, math.nan], pa.float32()),
                "label": [1.0, 2.0],
                "local": pa.array(nanoseconds, pa.timestamp("ns")),
                "zoned": pa.array(nanoseconds, pa.timestamp("ns", "Europe/Berlin")),
                "clock": pa.array([5, 6], pa.time64("ns")),
                "spent": pa.array([5, 6], pa.duration("ns")),
                " blank ": [1, 2],
            },
        )
    )
    assert table.text("kind") == ["a", "b"]
    assert table.text("bytes") == ["na\u00efve", ""]
    assert table.numbers("price", missing="nan")[0] == 1.5
    assert table.numbers("flag").tolist() == [1.0, 0.0]
    assert table.text("large") == [str(2**53 + 1), str(2**63 - 1)]
    assert [moment.value for moment in table.times("large")] == [2**53 + 1, 2**63 - 1]
    assert table.numbers("small", missing="nan")[1].isnan()
    assert table.categories("label", "a label") == ["1", "2"]
    assert table.text("local") == [f"2024-10-27 00:30:00.00000000{k}" for k in (1, 2)]
    assert table.text("zoned") == [f"2024-10-27 00:30:00.00000000{k}Z" for k in (1, 2)]
    for name in ("local", "zoned", "spent"):
        earlier, later = table.times(name)
        assert earlier.value < later.value
    assert table.text("clock") == ["00:00:00.000000005", "00:00:00.000000006"]
    assert "blank" in table


def test_several_values_in_a_cell_raise(tmp_path: Path) -> None:
    table = read_table(
        write_parquet(tmp_path / "t.parquet", {"x": [[1.0, 2.0], [3.0]], "y": [1, 2]})
    )
    message = r"row 1, column 'x': must be a (number|text), got a list of values in one cell; give"
    for read in (table.numbers, table.text, lambda _: table.numeric_columns()):
        with pytest.raises(DataError, match=message):
            read("x")


def test_other_columns_are_read_beside_bytes(tmp_path: Path) -> None:
    columns = {"picture": [b"\xff\xfe"], "x": [1.5]}
    table = read_table(write_parquet(tmp_path / "t.parquet", columns))
    assert table.numeric_columns() == ["x"]
    with pytest.raises(DataError, match="row 1, column 'picture': must be a text, got bytes that"):
        table.text("picture")


def test_standard_input_is_a_table_of_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("\ufeffx;y\r\n1;2\r\n")
    (tmp_path / "t.tsv").write_text("x\ty\n1\t2\n")
    write_parquet(tmp_path / "t.parquet", {"x": [1], "y": [2]})
    for path in tmp_path.iterdir():
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        table = read_table(StandardInput())
        assert [table.numbers(name).tolist() for name in ("x", "y")] == [[1.0], [2.0]]
        assert table.name == "standard input"


def test_damaged_parquet_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.parquet: must have rows"):
        read_table(write_parquet(tmp_path / "t.parquet", {"a": []}))
    (tmp_path / "bad.pq").write_bytes(b"PAR1 and no more")
    for name, message in (
        ("bad.pq", "must be a readable Parquet file"),
        ("absent.parquet", "cannot be read"),
    ):
        with pytest.raises(DataError, match=f"{name}: {message}") as caught:
            read_table(tmp_path / name)
        assert "\n" not in str(caught.value)
