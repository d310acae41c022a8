"""Commands in process, and what they print."""

import re
from typing import Any

from unrolled.cli._app import run

__all__ = ["error_of", "output_of", "run_export"]


def output_of(capsys: Any, *arguments: object) -> str:
    """The output of a command that must succeed."""
    capsys.readouterr()
    assert run([*map(str, arguments)]) == 0, capsys.readouterr().err
    output: str = capsys.readouterr().out
    return output


def error_of(capsys: Any, *arguments: object) -> str:
    """The error line of a command that must fail."""
    capsys.readouterr()
    assert run([*map(str, arguments)]) == 2
    line: str = capsys.readouterr().err
    assert re.fullmatch("unrolled: .*\n", line), line
    return line


def run_export(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    """The exit code of `unrolled export`, its output and its errors."""
    capsys.readouterr()
    exit_code = run(["export", *map(str, arguments)])
    printed = capsys.readouterr()
    return exit_code, printed.out, printed.err
