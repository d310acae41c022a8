"""`unrolled sample`: let a trained language model write."""

import os
import sys
from typing import Annotated

import typer

from unrolled.cli.errors import UserError, told, told_as_option
from unrolled.cli.runs import Cell, Run, checkpoint_of, trained

__all__ = ["sample"]


def sample(
    run: Run,
    prime: Annotated[
        str, typer.Option(help="Text to continue; the state is brought up with it.")
    ] = "def ",
    length: Annotated[int, typer.Option(help="Characters to write.")] = 400,
    temperature: Annotated[
        float, typer.Option(help="Below 1 bolder, above 1 more surprising; 0 takes the likeliest.")
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from the k likeliest characters only.")
    ] = None,
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest characters that make up this part only.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    cell: Cell = None,
) -> None:
    """Write text with a trained language model, one character at a time."""
    if not prime:
        raise UserError("--prime: wanted one character or more, got none")
    path = checkpoint_of(run)
    import torch

    from unrolled.tasks import TextError, generate

    name, model, vocabulary = trained(path, cell)
    if name != "lm":
        raise UserError(f"RUN: wanted a language model, got one of the task {name}")
    with told(TextError):
        # Bytes of the command line that are no UTF-8 arrive as surrogates.
        prefix = vocabulary.encode(os.fsencode(prime))
    with told(ValueError), told_as_option():
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed: wanted at least 0 and below 2**64, got {seed}")
        written = generate(
            model,
            prefix,
            length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=torch.Generator().manual_seed(seed),
        )
    text = vocabulary.decode(torch.cat([prefix, written]))
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))
