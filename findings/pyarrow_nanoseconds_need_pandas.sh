#!/usr/bin/env bash
# pyarrow 26.0.1: what to_pylist gives for times in nanoseconds depends on whether pandas is
# installed. Without it a ValueError is raised as soon as one is no whole number of microseconds.
# With pandas 3.0.0 a timestamp is a pandas.Timestamp with all digits, and a time of day loses its
# nanoseconds in silence: 5 ns after midnight is 00:00:00. A program that passes its tests beside
# pandas so fails on a Parquet file where pandas is absent. Casting the column to text first gives
# all digits either way.
#
# Seen: "26.0.1 timestamp: ValueError, time: ValueError"
# and with pandas "26.0.1 timestamp: 2024-10-27 00:30:00.000000001, time: 00:00:00".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pyarrow==26.0.1
cat > "$place/cells.py" <<'PYTHON'
import sys

import pyarrow as pa

columns = {
    "timestamp": pa.array([1_729_989_000_000_000_001], pa.timestamp("ns")),
    "time": pa.array([5], pa.time64("ns")),
}


def cell(column):
    try:
        return str(column.to_pylist()[0])
    except ValueError as error:
        return type(error).__name__


seen = ", ".join(f"{name}: {cell(column)}" for name, column in columns.items())
print(pa.__version__, seen)
texts = [column.cast(pa.string()).to_pylist()[0] for column in columns.values()]
sys.exit(seen != sys.argv[1] or texts != ["2024-10-27 00:30:00.000000001", "00:00:00.000000005"])
PYTHON
"$place/venv/bin/python" "$place/cells.py" "timestamp: ValueError, time: ValueError"
"$place/venv/bin/pip" install --quiet pandas==3.0.0
"$place/venv/bin/python" "$place/cells.py" \
    "timestamp: 2024-10-27 00:30:00.000000001, time: 00:00:00"
