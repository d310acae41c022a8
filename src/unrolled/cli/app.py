"""The commands put together, and how they end."""

import contextlib
import io
import os
import sys
from itertools import pairwise
from typing import Annotated

import typer

from unrolled import __version__
from unrolled.cli.bench import bench
from unrolled.cli.errors import UserError
from unrolled.cli.export import export
from unrolled.cli.inspect import inspect
from unrolled.cli.sample import sample
from unrolled.cli.train import add_commands
from unrolled.cli.use import evaluate, predict
from unrolled.limits import brief, shorten

__all__ = ["app", "run"]

_PLAIN = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}

# Typer keeps its copy of click under a private name; its own BadParameter leads there.
_UsageError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)

app = typer.Typer(name="unrolled", **_PLAIN)  # type: ignore[arg-type]
train = typer.Typer(help="Train a model on your own data.", **_PLAIN)  # type: ignore[arg-type]
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
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Recurrent neural networks: train a model on your data, measure it, use it."""
    if version:
        print(f"unrolled {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@train.callback(invoke_without_command=True)
def training(context: typer.Context) -> None:
    """Train a model on your own data."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: list[str] | None = None) -> int:
    """Run a command line (the process's own by default) and return the exit code.

    0: done. 2: the user's input was at fault, told in a line on stderr. 130: interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        # In every locale: data files are UTF-8. Names of files that are not come out as they are.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="unrolled", standalone_mode=False)
        print(end="", flush=True)
    except UserError as error:
        return _fault(str(error))
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        return _fault(message + _got(error, arguments))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OSError as error:
        _give_up_output()
        if isinstance(error, BrokenPipeError):
            return 1  # As in typer: who reads the output has seen enough.
        place = f"{error.filename}: " if error.filename else ""
        return _fault(f"{place}{error.strerror or error}")
    return code if isinstance(code, int) else 0


def _give_up_output() -> None:
    """Drop what standard output cannot take (its disk is full), which would raise again at exit."""
    try:
        print(end="", flush=True)
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _got(error: Exception, arguments: list[str]) -> str:
    """The value that an option could not take: Typer's message lacks it."""
    names = getattr(getattr(error, "param", None), "opts", [])
    for name, value in pairwise(arguments):
        if name in names:
            return f", got {brief(value)}"
    joined = [a.split("=", 1)[1] for a in arguments if "=" in a and a.split("=", 1)[0] in names]
    return f", got {brief(joined[-1])}" if joined else ""


def _fault(message: str) -> int:
    # The end goes beyond what is cut: it often says what to do.
    print(f"unrolled: {' '.join(shorten(message, 2000).split())}", file=sys.stderr)
    return 2
