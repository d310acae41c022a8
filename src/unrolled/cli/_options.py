"""Command-line options built from the fields of a configuration, and the YAML files of --config."""

import inspect
import os
import types
import typing
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from unrolled._limits import brief, shorten
from unrolled._option import TYPES, metadata_of, range_text
from unrolled.cli._errors import UserError, as_option_errors
from unrolled.config import RENAMED_OPTIONS, Config

if TYPE_CHECKING:
    from yaml import Node, SafeLoader

C = TypeVar("C", bound=Config)
MAX_DEPTH = 20  # of lists and mappings within each other in a file of options
Command = Callable[..., None]
Run = Callable[[str, type[Config], typer.Context, dict[str, Any]], None]


def build_command(name: str, config_class: type[Config], run: Run, help: str) -> Command:
    """A function that Typer turns into a command, with one option for each field.

    It calls `run` with the task's name, the class, Typer's context and the options' values.
    """

    def command(context: typer.Context, **values: object) -> None:
        run(name, config_class, context, values)

    parameters: dict[str, tuple[object, object]] = {
        "context": (typer.Context, inspect.Parameter.empty)
    }
    for field in fields(config_class):
        parameters[field.name] = _paths_argument(field) if field.name == "paths" else _option(field)
    parameters |= _run_options(name)
    signature = inspect.Signature(
        [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
            )
            for key, (annotation, default) in parameters.items()
        ]
    )
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {key: annotation for key, (annotation, _) in parameters.items()}
    command.__doc__ = help
    return command


def _paths_argument(field: Field[Any]) -> tuple[object, object]:
    argument = typer.Argument(metavar="DATA", help=metadata_of(field)["help"], show_default=False)
    return Annotated[list[Path] | None, argument], None


def _option(field: Field[Any]) -> tuple[object, object]:
    """The annotation and the default of a field's option."""
    metadata = metadata_of(field)
    text = metadata["help"]
    show_default = field.default is not None and field.default != ()
    if field.type == tuple[str, ...]:
        option = typer.Option(
            metavar="<str>", help=f"{text} Can be repeated.", show_default=show_default
        )
        return Annotated[list[str] | None, option], None
    limits = range_text(field)
    if limits:
        text = f"{text}  [{limits}]"
    metavar = "|".join(metadata["choices"]) or None
    option = typer.Option(metavar=metavar, help=text, show_default=show_default)
    return Annotated[field.type, option], field.default


def _run_options(name: str) -> dict[str, tuple[object, object]]:
    """The options that are not fields of the configuration."""
    run = typer.Option(
        help=f"Folder for the run; it must be new or empty.  [default: runs/{name}, or "
        f"runs/{name}-2 and so on]",
        show_default=False,
    )
    resume = typer.Option(
        metavar="RUN",
        help="Continue the run in this folder from its last checkpoint, with the options that it "
        "was started with; only --steps can be changed.",
        show_default=False,
    )
    config = typer.Option(
        metavar="FILE",
        help="YAML file with options by name, as --print-config writes it. Options on the command "
        "line override it.",
        show_default=False,
    )
    print_config = typer.Option(
        "--print-config", help="Print all options as YAML, and exit without training."
    )
    return {
        "run": (Annotated[Path | None, run], None),
        "resume": (Annotated[Path | None, resume], None),
        "config": (Annotated[Path | None, config], None),
        "print_config": (Annotated[bool, print_config], False),
    }


def options_on_command_line(context: typer.Context) -> list[str]:
    """The names of the options that the command line sets."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]


def build_config(config_class: type[C], context: typer.Context, values: dict[str, Any]) -> C:
    """The configuration from a command line and from the YAML file of its --config.

    Raises:
        UserError: a value is out of range, or the YAML file is invalid.
    """
    file: Path | None = values["config"]
    options: dict[str, Any] = {} if file is None else _read_yaml(file, config_class)
    explicit = options_on_command_line(context)
    names = [field.name for field in fields(config_class)]
    for name in names:
        if name in explicit or name not in options:
            options[name] = values[name]
    data = options.get("data")
    if options.get("paths") and ("data" in explicit or data != getattr(config_class, "data", None)):
        raise UserError(f"--data must be omitted if DATA is given, got {data}")
    options["cell"] = _absolute_cell(options["cell"])
    if "paths" in options:
        options["paths"] = tuple(str(Path(path).absolute()) for path in options["paths"] or ())
    for field in fields(config_class):
        value = options[field.name]
        if isinstance(value, list) or (value is None and field.default == ()):
            options[field.name] = tuple(value or ())
    with as_option_errors(*names):
        return config_class(**options)


def _absolute_cell(cell: str) -> str:
    """`path/to/file.py:MyCell` with an absolute path; other names as they are."""
    path, _, class_name = cell.rpartition(":")
    if path and (os.path.isfile(path) or path.endswith(".py")):  # otherwise a module's dotted name
        return f"{Path(path).absolute()}:{class_name}"
    return cell


def _read_yaml(file: Path, config_class: type[Config]) -> dict[str, Any]:
    """The options of a YAML file by their field names; names of earlier versions are accepted."""
    annotations = typing.get_type_hints(config_class)
    names = [field.name for field in fields(config_class)]
    options: dict[str, Any] = {}
    for key, value in _yaml_items(file):
        name = key.replace("-", "_")
        name = RENAMED_OPTIONS.get(name, name)
        if name not in names:
            raise UserError(
                f"--config: {file} has the unknown option {shorten(key, 80)}; options are "
                f"{', '.join(names)}"
            )
        if name in options:
            raise UserError(f"--config: {file} must set each option once, but sets {name} twice")
        options[name] = _checked(file, name, value, annotations[name])
    return options


def _yaml_items(file: Path) -> list[tuple[str, object]]:
    """The options of a YAML file with their values: scalars, or lists of scalars.

    Other YAML (mappings, aliases) is never constructed, so that a small file cannot need much
    memory.
    """
    import yaml

    from unrolled.io import CORRUPT_FILE_ERRORS

    try:
        text = file.read_text(encoding="utf-8")
        _check_depth(file, text)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            actual = "an empty file" if root is None else f"a {root.id}"
            raise UserError(f"--config: {file} must have options by name, got {actual}")
        items = []
        for key, value in root.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"--config: {file} must have options by name, got a {key.id}")
            try:
                items.append((key.value, _yaml_value(loader, value)))
            except ValueError as error:
                raise UserError(f"--config: {file}: {shorten(key.value, 80)} {error}") from None
    except OSError as error:
        raise UserError(f"--config: {file}: {error.strerror or error}") from None
    except (yaml.YAMLError, *CORRUPT_FILE_ERRORS) as error:
        raise UserError(f"--config: {file} must be a YAML file of options ({error})") from None
    return items


def _check_depth(file: Path, text: str) -> None:
    """Refuse deep nesting, which the reader of YAML would follow by recursion."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(
                f"--config: {file} must be a YAML file of options (it is nested too deeply)"
            )


def _yaml_value(loader: "SafeLoader", node: "Node") -> object:
    """A scalar, or a list of scalars.

    Raises:
        ValueError: the node is something else, or does not match its tag.
    """
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return [_yaml_scalar(loader, item) for item in node.value]
    return _yaml_scalar(loader, node)


def _yaml_scalar(loader: "SafeLoader", node: "Node") -> object:
    import yaml

    from unrolled.io import CORRUPT_FILE_ERRORS

    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"must be a scalar or a list of scalars, got a {node.id}")
    try:
        scalar: object = loader.construct_object(node)
    except (yaml.YAMLError, *CORRUPT_FILE_ERRORS):
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise ValueError(f"must be a {shorten(tag, 80)}, got {brief(node.value)}") from None
    return scalar


def _checked(file: Path, name: str, value: object, annotation: object) -> object:
    """A value of the YAML file, converted to the field's type."""
    accepted = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    )
    if annotation == tuple[str, ...]:
        items = value if isinstance(value, list) else [value]
        if all(isinstance(item, str) for item in items):
            return items
        raise UserError(f"--config: {file}: {name} must be a list of strings, got {brief(value)}")
    if float in accepted and isinstance(value, str):
        # YAML 1.1 reads 1e-3, which has no decimal point, as a string.
        try:
            return float(value)
        except ValueError:
            pass
    # The configuration reports a larger integer, which is out of every range.
    if type(value) is float or (type(value) is int and abs(value) < 2**63):
        if float in accepted and type(value) is int:
            return float(value)
        if str in accepted:
            return str(value)
    if type(value) not in accepted and not (type(value) is int and float in accepted):
        expected = " or ".join(TYPES[item] for item in accepted)
        raise UserError(f"--config: {file}: {name} must be {expected}, got {brief(value)}")
    return value


def config_yaml(config: Config) -> str:
    """A configuration as YAML that --config reads."""
    import yaml

    values = {}
    for field in fields(config):
        value = getattr(config, field.name)
        values[field.name] = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True)).rstrip()
