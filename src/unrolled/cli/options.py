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
from unrolled.config import TYPES, Config
from unrolled.limits import brief, shorten

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
    with told_as_option(*names):
        return kind(**said)


def _read(file: Path, kind: type[Config]) -> dict[str, Any]:
    every = typing.get_type_hints(kind)
    hints = {one.name: every[one.name] for one in fields(kind)}
    said: dict[str, Any] = {}
    for key, value in _entries(file):
        name = key.replace("-", "_")
        if name not in hints:
            raise UserError(
                f"--config: {file}: unknown option {shorten(key, 80)}; wanted one of "
                f"{', '.join(hints)}"
            )
        if name in said:
            raise UserError(f"--config: {file}: wanted each option once, got {name} twice")
        said[name] = _checked(file, name, value, hints[name])
    return said


def _entries(file: Path) -> list[tuple[str, Any]]:
    """The options of a YAML file with their values: scalars, or lists of them.

    What else YAML can say (mappings, references that repeat one another) is never built.
    """
    import yaml

    from unrolled.io import CORRUPT_FILE_ERRORS

    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            got = "nothing" if root is None else f"a {root.id}"
            raise UserError(f"--config: {file}: wanted options by name, got {got}")
        pairs = []
        for key, value in root.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"--config: {file}: wanted names of options, got a {key.id}")
            try:
                pairs.append((key.value, _value(loader, value)))
            except ValueError as error:
                raise UserError(f"--config: {file}: {shorten(key.value, 80)}: {error}") from None
    except OSError as error:
        raise UserError(f"--config: {file}: {error.strerror or error}") from None
    except (yaml.YAMLError, *CORRUPT_FILE_ERRORS) as error:
        fault = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"--config: {file}: not YAML of options ({fault})") from None
    return pairs


def _value(loader: Any, node: Any) -> Any:
    """A scalar, or a list of them.

    Raises:
        ValueError: it is something else, or not what its tag says.
    """
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return [_scalar(loader, item) for item in node.value]
    return _scalar(loader, node)


def _scalar(loader: Any, node: Any) -> Any:
    import yaml

    from unrolled.io import CORRUPT_FILE_ERRORS

    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"wanted a scalar or a list of scalars, got a {node.id}")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, *CORRUPT_FILE_ERRORS):
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise ValueError(f"wanted a {shorten(tag, 80)}, got {brief(node.value)}") from None


def _checked(file: Path, name: str, value: Any, hint: Any) -> Any:
    """A value of the file, of the field's type."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if hint == tuple[str, ...]:
        listed = value if isinstance(value, list) else [value]
        if all(isinstance(item, str) for item in listed):
            return listed
        raise UserError(f"--config: {file}: {name}: wanted a list of texts, got {brief(value)}")
    if float in kinds and isinstance(value, str):
        # YAML 1.1 takes 1e-3, without a point, for a text.
        try:
            return float(value)
        except ValueError:
            pass
    # What is larger is out of every range, which the configuration says.
    small = type(value) is float or (type(value) is int and abs(value) < 2**63)
    if float in kinds and type(value) is int and small:
        return float(value)
    if str in kinds and small:
        return str(value)
    if type(value) not in kinds and not (type(value) is int and float in kinds):
        wanted = " or ".join(TYPES[k] for k in kinds)
        raise UserError(f"--config: {file}: {name}: wanted {wanted}, got {brief(value)}")
    return value


def printed(config: Config) -> str:
    """A configuration as the YAML that --config reads."""
    import yaml

    values = {
        one.name: list(value) if isinstance(value := getattr(config, one.name), tuple) else value
        for one in fields(config)
    }
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True)).rstrip()
