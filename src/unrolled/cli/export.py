"""`unrolled export`: a run's model as a file for the runtime, which needs no torch."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.errors import UserError, told
from unrolled.cli.runs import Cell, Run, checkpoint_of, trained

__all__ = ["export"]

_TASKS = ("lm", "classify", "problem")


def export(
    run: Run,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .safetensors.")],
    weights: Annotated[
        str, typer.Option(help="How the runtime keeps weights: float32, bfloat16 or int8.")
    ] = "float32",
    cell: Cell = None,
) -> None:
    """Write a trained model as one file, which unrolled.runtime reads without torch.

    Weights, the cell's program, vocabulary, labels and scales; of language models, classifiers
    and problems.
    """
    name, model, codec = trained(checkpoint_of(run), cell)
    from unrolled.export import export as write
    from unrolled.nn.snapshot import ExportError

    if name not in _TASKS:
        raise UserError(f"RUN: wanted a run of {', '.join(_TASKS)}, got one of {name}")
    with told(ExportError, ValueError, OSError):
        write(model, output, task=name, codec=codec.state(), weights=weights)
    print(f"model       {output} ({output.stat().st_size:,} bytes)")
