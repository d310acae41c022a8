"""`unrolled export`: write a model for the runtime without torch, or as ONNX."""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from unrolled.cli._errors import UserError, as_user_errors
from unrolled.cli._runs import CellOption, checkpoint_of, load_model

if TYPE_CHECKING:
    from torch import nn


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODULE",
            help="Run folder, whose best checkpoint is exported; a checkpoint file; or "
            "path/to/file.py:NAME, where NAME is a torch.nn.Module or a class or function that "
            "returns one without arguments. That file is executed.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="File to write: ONNX if it ends in .onnx, otherwise a safetensors file for "
            "unrolled.runtime.",
        ),
    ],
    weights: Annotated[
        str,
        typer.Option(
            metavar="float32|bfloat16|int8",
            help="Format in which the file stores the weights; ONNX files have float32 only.",
        ),
    ] = "float32",
    lengths: Annotated[
        bool,
        typer.Option("--lengths", help="ONNX only: add an input for the lengths of the sequences."),
    ] = False,
    states: Annotated[
        bool, typer.Option("--states", help="ONNX only: add inputs for the initial states.")
    ] = False,
    portable: Annotated[
        bool,
        typer.Option(
            "--portable",
            help="ONNX only: use only operators that ONNX Runtime, OpenVINO and tract all compute "
            "correctly.",
        ),
    ] = False,
    cell: CellOption = None,
) -> None:
    """Export a trained model for unrolled.runtime, or to ONNX.

    The runtime needs no torch. The file has the weights, the cell's equations, and the vocabulary,
    labels and scales. Runs of every task can be exported (as ONNX, all but seq2seq), and so can
    modules that apply supported layers one after another.
    """
    as_onnx = output.suffix == ".onnx"
    if as_onnx and weights != "float32":
        raise UserError(f"--weights must be float32 for an ONNX file, got {weights}")
    flags = {"lengths": lengths, "states": states, "portable": portable}
    for option, value in flags.items():
        if value and not as_onnx:
            raise UserError(f"--{option} requires an output file that ends in .onnx, got {output}")
    exported = _load(source, cell)
    from unrolled.nn._snapshot import ExportError

    if as_onnx:
        with as_user_errors(ModuleNotFoundError):
            from unrolled import onnx
        with as_user_errors(ExportError, OSError):
            onnx.export(
                exported.model,
                output,
                task=exported.task,
                codec=exported.codec_state,
                **flags,
            )
    else:
        from unrolled.export import export as write

        with as_user_errors(ExportError, ValueError, OSError):
            write(
                exported.model,
                output,
                task=exported.task,
                codec=exported.codec_state,
                weights=weights,
            )
    print(f"model       {output} ({output.stat().st_size:,} bytes)")


class _Exported(NamedTuple):
    """A model with its task and the state of its codec; both are None for a module of a file."""

    model: "nn.Module"
    task: str | None
    codec_state: dict[str, object] | None


def _load(source: str, cell: str | None) -> _Exported:
    path, colon, name = source.rpartition(":")
    if colon and not Path(source).exists():
        if cell is not None:
            raise UserError(f"--cell requires a run or a checkpoint, got {source}")
        return _Exported(_load_module(Path(path), name), None, None)
    if source.endswith(".py") and Path(source).is_file():
        raise UserError(
            f"RUN_OR_MODULE must be {source}:NAME, where NAME is a module in that file, got "
            f"{source}"
        )
    trained = load_model(checkpoint_of(Path(source)), cell)
    return _Exported(trained.model, trained.task, trained.codec.state())


def _load_module(path: Path, name: str) -> "nn.Module":
    """The module of this name in a file; a class or function is called without arguments."""
    from torch import nn

    from unrolled.models._user_code import CodeError, load_python_file

    try:
        code: ModuleType = load_python_file(path)
    except CodeError as error:
        raise UserError(f"RUN_OR_MODULE: {error}") from error
    value: object = getattr(code, name, None)
    if value is None:
        raise UserError(f"RUN_OR_MODULE: {path} must have a module {name!r}, but has none")
    if not isinstance(value, nn.Module) and callable(value):
        try:
            value = value()
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise UserError(
                f"RUN_OR_MODULE: {path}: {name}() raised {type(error).__name__}: {error}"
            ) from error
    if not isinstance(value, nn.Module):
        type_name = type(value).__name__
        raise UserError(f"RUN_OR_MODULE: {name!r} must be a torch.nn.Module, got {type_name}")
    return value
