"""`unrolled sample`: generate text with a trained language model."""

import os
import re
from typing import Annotated, Any

import typer

from unrolled.cli._errors import UserError, as_option_errors, as_user_errors
from unrolled.cli._runs import CellOption, RunArgument, checkpoint_of, load_model


def sample(
    run: RunArgument,
    prime: Annotated[
        str | None,
        typer.Option(
            help="Text to continue; it warms up the hidden state and is printed first.  "
            "[default: 'def ' if the vocabulary has these characters, otherwise a newline or the "
            "first printable character]",
            show_default=False,
        ),
    ] = None,
    length: Annotated[
        int, typer.Option(help="Number of tokens to generate after the prime.  [at least 0]")
    ] = 400,
    temperature: Annotated[
        float,
        typer.Option(
            help="Divide the logits by this number: below 1 the distribution is sharper and the "
            "text more conservative, above 1 it is flatter and the text more varied. 0 always "
            "takes the most probable token.  [at least 0]"
        ),
    ] = 0.8,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Sample from the k most probable tokens only; from all by default.  [at least 1]"
        ),
    ] = None,
    top_p: Annotated[
        float,
        typer.Option(
            help="Nucleus sampling: sample from the smallest set of most probable tokens whose "
            "probabilities sum to this number.  [above 0 and at most 1]"
        ),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(help="Random seed; the same seed gives the same text.  [at least 0]")
    ] = 0,
    cell: CellOption = None,
) -> None:
    """Generate text with a trained language model.

    Text is generated one token at a time. A token is a byte, a character or a subword, depending on
    the --vocabulary of the run.
    """
    if prime == "":
        raise UserError("--prime must have at least one character, got an empty string")
    path = checkpoint_of(run)
    import torch

    from unrolled.models import LanguageModel
    from unrolled.tasks import TextError, generate

    trained = load_model(path, cell)
    if not isinstance(trained.model, LanguageModel):
        raise UserError(f"RUN must be a language model, got the task {trained.task}")
    vocabulary = trained.codec
    try:
        # Bytes on the command line that are not UTF-8 arrive as surrogates.
        prefix = vocabulary.encode(
            _default_prime(vocabulary) if prime is None else os.fsencode(prime)
        )
    except TextError as error:
        message = re.sub(r"^(?:[\w.]+: )?text(?=:| must)", "--prime", str(error))
        raise UserError(message) from None
    options = ("length", "temperature", "top_k", "top_p", "seed")
    with as_user_errors(ValueError), as_option_errors(*options):
        if not 0 <= seed < 2**64:
            raise UserError(f"--seed must be at least 0 and below 2**64, got {seed}")
        generated = generate(
            trained.model,
            prefix,
            length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=torch.Generator().manual_seed(seed),
        )
    print(vocabulary.decode(torch.cat([prefix, generated])))


def _default_prime(vocabulary: Any) -> bytes:
    """A prime that the vocabulary can encode: 'def ', or else the start of a line."""
    characters = vocabulary.characters if vocabulary.unit == "character" else None
    if characters is None or set("def ") <= set(characters):
        return b"def "
    if "\n" in characters:
        return b"\n"
    printable = [character for character in characters if character.isprintable()]
    return str([*printable, characters[0]][0]).encode()
