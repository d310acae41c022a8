"""`unrolled sample`: let a trained language model write."""

import os
from typing import Annotated, Any

import typer

from unrolled.cli.errors import UserError, told, told_as_option
from unrolled.cli.runs import Cell, Run, checkpoint_of, trained

__all__ = ["sample"]


def sample(
    run: Run,
    prime: Annotated[
        str | None,
        typer.Option(
            help="Text to continue.  [default: 'def ', or a line end or the first character that "
            "the vocabulary has]",
            show_default=False,
        ),
    ] = None,
    length: Annotated[int, typer.Option(help="Characters to write.")] = 400,
    temperature: Annotated[
        float,
        typer.Option(help="Below 1 more conservative, above 1 more varied; 0 takes the likeliest."),
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
    if prime == "":
        raise UserError("--prime: wanted one character or more, got none")
    path = checkpoint_of(run)
    import torch

    from unrolled.tasks import TextError, generate

    name, model, vocabulary = trained(path, cell)
    if name != "lm":
        raise UserError(f"RUN: wanted a language model, got one of the task {name}")
    try:
        # Bytes of the command line that are no UTF-8 arrive as surrogates.
        prefix = vocabulary.encode(
            _default_prime(vocabulary) if prime is None else os.fsencode(prime)
        )
    except TextError as error:
        raise UserError(str(error).replace("text:", "--prime:", 1)) from None
    with told(ValueError), told_as_option("length", "temperature", "top_k", "top_p", "seed"):
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
    print(vocabulary.decode(torch.cat([prefix, written])))


def _default_prime(vocabulary: Any) -> bytes:
    """A beginning that the vocabulary knows: of a Python function, or else of a line."""
    known = vocabulary.characters if vocabulary.unit == "character" else None
    if known is None or set("def ") <= set(known):
        return b"def "
    printable = (c for c in known if c.isprintable())
    return ("\n" if "\n" in known else next(printable, known[0])).encode()
