"""`unrolled export`: a run's model, or a module of the user's, for the runtime without torch, or as
ONNX.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.errors import UserError, told
from unrolled.cli.runs import Cell, checkpoint_of, trained

__all__ = ["export"]


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODULE",
            help="Folder of a run (its best checkpoint), a checkpoint file, or path/to/file.py:name"
            " of a module, or of what makes one when it is called.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="File to write: .onnx for ONNX, else a safetensors file for unrolled.runtime.",
        ),
    ],
    weights: Annotated[
        str, typer.Option(help="How the file has weights: float32, bfloat16 or int8.")
    ] = "float32",
    lengths: Annotated[
        bool, typer.Option("--lengths", help="Of ONNX: an input for the lengths of sequences.")
    ] = False,
    states: Annotated[
        bool, typer.Option("--states", help="Of ONNX: inputs for the states before the first step.")
    ] = False,
    portable: Annotated[
        bool,
        typer.Option(
            "--portable",
            help="Of ONNX: use only what ONNX Runtime, OpenVINO and tract compute alike.",
        ),
    ] = False,
    cell: Cell = None,
) -> None:
    """Write a trained model as one file, which unrolled.runtime reads without torch.

    Weights, the cell's program, vocabulary, labels and scales; of runs of every task, and of
    modules that are chains of parts that the runtime knows. As ONNX for other runtimes: all but
    sequence to sequence.
    """
    as_onnx = output.suffix == ".onnx"
    if as_onnx and weights != "float32":
        raise UserError(f"--weights: wanted float32 in an ONNX file, got {weights}")
    flags = {"lengths": lengths, "states": states, "portable": portable}
    for option, value in flags.items():
        if value and not as_onnx:
            raise UserError(f"--{option}: wanted it with a file .onnx, got {output}")
    name, model, codec = _found(source, cell)
    from unrolled.nn.snapshot import ExportError

    if as_onnx:
        with told(ModuleNotFoundError):
            from unrolled import onnx
        with told(ExportError, OSError):
            onnx.export(model, output, task=name, codec=codec, **flags)
    else:
        from unrolled.export import export as write

        with told(ExportError, ValueError, OSError):
            write(model, output, task=name, codec=codec, weights=weights)
    print(f"model       {output} ({output.stat().st_size:,} bytes)")


def _found(source: str, cell: str | None) -> tuple[str | None, Any, Any]:
    """The task's name, the model and the codec's state; only the model of a module."""
    path, colon, own = source.rpartition(":")
    if colon and not Path(source).exists():
        if cell is not None:
            raise UserError(f"--cell: wanted it with a run alone, got {cell}")
        return None, _module(Path(path), own), None
    if source.endswith(".py") and Path(source).is_file():
        raise UserError(f"RUN_OR_MODULE: wanted {source}:NAME, the name of a module in that file")
    name, model, codec = trained(checkpoint_of(Path(source)), cell)
    return name, model, codec.state()


def _module(path: Path, name: str) -> Any:
    """A module in a file, as it is, or made by a class or function without arguments."""
    from torch import nn

    from unrolled.models.user_code import CodeError, load_python_file

    try:
        code = load_python_file(path)
    except CodeError as error:
        raise UserError(f"RUN_OR_MODULE: {error}") from error
    found = getattr(code, name, None)
    if found is None:
        raise UserError(f"RUN_OR_MODULE: wanted a module called {name!r} in {path}, there is none")
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise UserError(
                f"RUN_OR_MODULE: {path}: {name}() cannot be called "
                f"({type(error).__name__}: {error})"
            ) from error
    if not isinstance(found, nn.Module):
        got = type(found).__name__
        raise UserError(f"RUN_OR_MODULE: wanted a torch.nn.Module called {name!r}, got {got}")
    return found
