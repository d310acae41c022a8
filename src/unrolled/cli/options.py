"""A command's options from the fields of a configuration: each stands there, and only there."""

import inspect
import os
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.errors import UserError, told_as_option
from unrolled.config import Config

__all__ = ["command_of", "given", "made", "printed"]

_OWN = ("context", "run", "resume", "config", "print_config")


def command_of(
    name: str, kind: type[Config], run: Callable[..., None], help: str
) -> Callable[..., None]:
    """A function that Typer makes a command of: ``run(context)`` behind one option a field."""

    def command(**values: Any) -> None:
        run(name, kind, values.pop("context"), values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    found: dict[str, tuple[Any, Any]] = {"context": (typer.Context, inspect.Parameter.empty)}
    for one in fields(kind):
        if one.name == "paths":
            argument = typer.Argument(metavar="DATA", help=one.metadata["help"], show_default=False)
            found["paths"] = (Annotated[list[Path] | None, argument], None)
        else:
            found[one.name] = _option(one)
    found |= _own_options(name)
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(key, keyword, annotation=annotation, default=default)
            for key, (annotation, default) in found.items()
        ]
    )
    command.__annotations__ = {key: annotation for key, (annotation, _) in found.items()}
    command.__doc__ = help
    return command


def _option(one: Any) -> tuple[Any, Any]:
    """Type and default of a field's option."""
    told, kind, default = one.metadata, one.type, one.default
    hints: dict[str, Any] = {"help": told["help"]}
    if default is None or default == ():
        hints["show_default"] = False
    if kind == tuple[str, ...]:
        hints["help"] += " Repeatable."
        return Annotated[list[str] | None, typer.Option(metavar="TEXT", **hints)], None
    if told["choices"]:
        hints["metavar"] = "|".join(told["choices"])
    return Annotated[kind, typer.Option(**hints)], default


def _own_options(name: str) -> dict[str, tuple[Any, Any]]:
    hints: dict[str, Any] = {"show_default": False}
    run = typer.Option(
        help=f"Folder of the run, which must not exist yet.  [default: runs/{name}…]", **hints
    )
    resume = typer.Option(
        help="Go on with the run in this folder; only --steps may go with it.", **hints
    )
    config = typer.Option(
        help="YAML file of options by name; those of the command line come before it.", **hints
    )
    shown = typer.Option("--print-config", help="Print all options as YAML, and do nothing.")
    return {
        "run": (Annotated[Path | None, run], None),
        "resume": (Annotated[Path | None, resume], None),
        "config": (Annotated[Path | None, config], None),
        "print_config": (Annotated[bool, shown], False),
    }


def given(context: typer.Context) -> list[str]:
    """The options that the command line has."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, found in sources.items() if found and found.name == "COMMANDLINE"]


def made(kind: type[Config], context: typer.Context, values: dict[str, Any]) -> Any:
    """The configuration of a command line, and of the YAML file that it names.

    Raises:
        UserError: a value is out of its range, or the file is not what was wanted.
    """
    file: Path | None = values["config"]
    said = {} if file is None else _read(file, kind)
    names = [one.name for one in fields(kind)]
    for name in names:
        if name in given(context) or name not in said:
            said[name] = values[name]
    own = said.get("data")
    if said.get("paths") and ("data" in given(context) or own != getattr(kind, "data", None)):
        raise UserError(f"--data: wanted DATA or the task's own data, got both: {own}")
    if ":" in said["cell"]:
        place, _, own = said["cell"].rpartition(":")
        if os.path.isfile(place) or place.endswith(".py"):  # else a module's dotted name
            said["cell"] = f"{Path(place).absolute()}:{own}"
    if "paths" in said:
        said["paths"] = tuple(str(Path(path).absolute()) for path in said["paths"] or ())
    for one in fields(kind):
        if isinstance(said[one.name], list) or (said[one.name] is None and one.default == ()):
            said[one.name] = tuple(said[one.name] or ())
    with told_as_option():
        return kind(**said)


def _read(file: Path, kind: type[Config]) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config: {file}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config: {file}: not YAML ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"--config: {file}: wanted options by name, got {type(found).__name__}")
    every = typing.get_type_hints(kind)
    hints = {one.name: every[one.name] for one in fields(kind)}
    said = {}
    for key, value in found.items():
        name = str(key).replace("-", "_")
        if name not in hints:
            raise UserError(
                f"--config: {file}: unknown option {key}; wanted one of {', '.join(hints)}"
            )
        said[name] = _checked(file, name, value, hints[name])
    return said


def _checked(file: Path, name: str, value: Any, hint: Any) -> Any:
    """A value of the file, of the field's type."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if hint == tuple[str, ...]:
        listed = value if isinstance(value, list) else [value]
        if all(isinstance(item, str) for item in listed):
            return listed
        raise UserError(f"--config: {file}: {name}: wanted a list of texts, got {value!r}")
    if float in kinds and isinstance(value, str):
        # YAML 1.1 takes 1e-3, without a point, for a text.
        try:
            return float(value)
        except ValueError:
            pass
    if float in kinds and type(value) is int:
        return float(value)
    if str in kinds and type(value) in (int, float):
        return str(value)
    if type(value) not in kinds:
        wanted = " or ".join("nothing" if k is type(None) else k.__name__ for k in kinds)
        raise UserError(f"--config: {file}: {name}: wanted {wanted}, got {value!r}")
    return value


def printed(config: Config) -> str:
    """A configuration as the YAML that --config reads."""
    import yaml

    values = {
        one.name: list(value) if isinstance(value := getattr(config, one.name), tuple) else value
        for one in fields(config)
    }
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True)).rstrip()
