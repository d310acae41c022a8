"""The commands together, and how errors become exit codes."""

import contextlib
import io
import os
import sys
from itertools import pairwise
from typing import Annotated, TypedDict

import typer

from unrolled import __version__
from unrolled._limits import brief, shorten
from unrolled.cli._bench import bench
from unrolled.cli._errors import UserError
from unrolled.cli._export import export
from unrolled.cli._inspect import inspect
from unrolled.cli._sample import sample
from unrolled.cli._train import add_commands
from unrolled.cli._use import evaluate, predict
from unrolled.config import RENAMED_OPTIONS


class _Plain(TypedDict):
    add_completion: bool
    rich_markup_mode: None
    pretty_exceptions_enable: bool


_PLAIN: _Plain = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}

# Typer has a private copy of click; this finds its base class of usage errors.
_UsageError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)

app = typer.Typer(name="unrolled", **_PLAIN)
train = typer.Typer(help="Train a model on your data, or on a built-in data set.", **_PLAIN)
app.add_typer(train, name="train")
app.command()(evaluate)
app.command()(predict)
app.command()(inspect)
app.command()(sample)
app.command()(bench)
app.command()(export)
add_commands(train)


@app.callback(invoke_without_command=True)
def unrolled(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Recurrent neural networks: train a model on your data, evaluate it, use it, export it."""
    if version:
        print(f"unrolled {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@train.callback(invoke_without_command=True)
def training(context: typer.Context) -> None:
    """Train a model on your data, or on a built-in data set."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: list[str] | None = None) -> int:
    """Run a command line (by default this process's own) and return the exit code.

    0: success. 2: an error in the user's input, with one line on stderr. 130: interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        # In every locale, because data files are UTF-8; other bytes in file names are kept.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="unrolled", standalone_mode=False)
        print(end="", flush=True)
    except UserError as error:
        return _fail(str(error))
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        message = _renamed_option(error) or message
        return _fail(message + _rejected_value(error, arguments))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OSError as error:
        _discard_output()
        if isinstance(error, BrokenPipeError):
            return 1  # As in Typer: the reader of the output has closed it.
        file = f"{error.filename}: " if error.filename else ""
        return _fail(f"{file}{error.strerror or error}")
    return code if isinstance(code, int) else 0


def _discard_output() -> None:
    """Discard output that cannot be written (the disk is full), which would raise again at exit."""
    try:
        print(end="", flush=True)
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _renamed_option(error: Exception) -> str:
    """A sentence that names the command's new option if `error` is about its former name."""
    option = str(getattr(error, "option_name", ""))
    name = RENAMED_OPTIONS.get(option.lstrip("-").replace("-", "_"))
    parameters = getattr(getattr(error, "cmd", None), "params", [])
    if name is None or name not in [parameter.name for parameter in parameters]:
        return ""
    return f"{option} was renamed to --{name.replace('_', '-')}"


def _rejected_value(error: Exception, arguments: list[str]) -> str:
    """The invalid value of an option, which Typer's message lacks."""
    names = getattr(getattr(error, "param", None), "opts", [])
    for name, value in pairwise(arguments):
        if name in names:
            return f", got {brief(value)}"
    joined = [a.split("=", 1)[1] for a in arguments if "=" in a and a.split("=", 1)[0] in names]
    return f", got {brief(joined[-1])}" if joined else ""


def _fail(message: str) -> int:
    # `shorten` keeps the end of a long message, which often says what to do.
    print(f"unrolled: {' '.join(shorten(message, 2000).split())}", file=sys.stderr)
    return 2
