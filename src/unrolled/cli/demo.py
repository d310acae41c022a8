"""A small demonstration: train a language model on the standard library for two minutes, then
generate text.

The number of steps is fixed and everything is seeded, so that two runs print the same; only the
progress line, which is shown in a terminal only, has rates and times.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from unrolled.config import LanguageModelConfig

if TYPE_CHECKING:
    from unrolled.models import LanguageModel
    from unrolled.tasks._language_modeling import AnyVocabulary

# Two minutes on two cores, including reading the text and the final evaluation.
CONFIG = LanguageModelConfig(
    limit=4_000_000, cell="LSTM", window=64, steps=3000, validate_every=500
)
RUN = Path("runs", "demo")
PRIME = b"def "
LENGTH = 400


def main() -> int:
    """Run the demonstration and return the exit code (130 after Ctrl-C)."""
    from unrolled.models import LanguageModel
    from unrolled.tasks import find_task, load_language_model, read_text, score_language_model
    from unrolled.tasks._baselines import xz_bits
    from unrolled.tasks._language_modeling import make_windows, split_bytes
    from unrolled.train import fit
    from unrolled.train._run import new_model

    config = CONFIG
    text = read_text(limit=config.limit)
    task = find_task("lm").read(config)
    vocabulary = task.codec
    tokens = vocabulary.encode(text)
    _, validation = make_windows(config, tokens)
    training_text, held_out_text = split_bytes(config, text)
    print(
        f"The Python sources of the standard library, the first {len(text):,} bytes:\n"
        f"{len(training_text) - 1:,} for training, {len(held_out_text):,} held out. "
        f"A character is a byte.\n"
        f"{config.cell}, {config.hidden_size} units, {config.steps} steps of {config.batch_size} "
        f"streams × {config.window} characters, seed {config.seed}."
    )
    untrained = new_model(task).eval()
    assert isinstance(untrained, LanguageModel)
    _show("before training", _sample(untrained, vocabulary))
    result = fit(config, RUN)
    if result.interrupted or result.best is None:
        print(f"Interrupted after step {result.step}; the checkpoint is {result.last}.")
        return 130
    model, vocabulary = load_language_model(result.best)
    _show("after training", _sample(model, vocabulary))
    scores = score_language_model(model, validation)
    bits_alone, bits_after_training = xz_bits(training_text, held_out_text)
    print("Held-out text, bits per character:")
    print(f"  this model                          {scores.bits_per_character:.4g}")
    print(f"  xz -9, after the training text      {bits_after_training:.4g}")
    print(f"  xz -9, the held-out text alone      {bits_alone:.4g}")
    print(f"perplexity  {scores.perplexity:.4g}")
    print(f"curve       {result.curve}")
    print(f"checkpoint  {result.best}")
    print(f'more        unrolled sample {result.run} --prime "class "')
    return 0


def _sample(model: "LanguageModel", vocabulary: "AnyVocabulary") -> str:
    import torch

    from unrolled.tasks import generate

    prefix = vocabulary.encode(PRIME)
    generator = torch.Generator().manual_seed(0)
    generated = generate(model, prefix, LENGTH, temperature=0.8, generator=generator)
    return vocabulary.decode(torch.cat([prefix, generated]))


def _show(title: str, text: str) -> None:
    # An untrained model also generates control characters, which must not reach a terminal.
    printable = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    rule = "─" * max(0, 72 - len(title))
    print(f"\n── {title} {rule}\n{printable}\n{'─' * 76}\n", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
