"""The main job, small: learn the standard library's sources for two minutes, then write some.

The budget counts steps and everything is seeded: run twice, it prints the same; only the live
progress line, which a terminal alone gets to see, shows rates and times.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.config import LanguageModelConfig

if TYPE_CHECKING:
    from unrolled.tasks import Vocabulary

__all__ = ["main"]

# Two minutes on two cores, the reading and the final measuring included.
CONFIG = LanguageModelConfig(
    limit=4_000_000, cell="LSTM", window=64, steps=3000, validate_every=500
)
RUN = Path("runs", "demo")
PRIME = b"def "
LENGTH = 400


def main() -> int:
    """Run the demonstration and return the exit code (130 after Ctrl-C)."""
    from unrolled.tasks import find_task, load_language_model, read_text, score_language_model
    from unrolled.tasks.baselines import xz_bits
    from unrolled.tasks.language_modeling import make_windows, split_bytes
    from unrolled.train import fit
    from unrolled.train.run import new_model

    config = CONFIG
    text = read_text(limit=config.limit)
    task = find_task("lm").read(config)
    vocabulary = task.codec
    tokens = vocabulary.encode(text)
    _, validation = make_windows(config, tokens)
    seen, held_out = split_bytes(config, text)
    print(
        f"The Python sources of the standard library, the first {len(text):,} bytes:\n"
        f"{len(seen) - 1:,} to learn from, {len(held_out):,} held out. A character is a byte.\n"
        f"{config.cell}, {config.hidden_size} units, {config.steps} steps of {config.batch_size} "
        f"streams × {config.window} characters, seed {config.seed}."
    )
    _show("before training", _sample(new_model(task).eval(), vocabulary))
    result = fit(config, RUN)
    if result.interrupted or result.best is None:
        print(f"Interrupted after step {result.step}; the checkpoint is {result.last}.")
        return 130
    model, vocabulary = load_language_model(result.best)
    _show("after training", _sample(model, vocabulary))
    measured = score_language_model(model, validation)
    alone, given = xz_bits(seen, held_out)
    print("Held-out text, bits per character:")
    print(f"  this model                          {measured.bits_per_character:.4g}")
    print(f"  xz -9, the text learned from first  {given:.4g}")
    print(f"  xz -9, the held-out text alone      {alone:.4g}")
    print(f"perplexity  {measured.perplexity:.4g}")
    print(f"curve       {result.curve}")
    print(f"checkpoint  {result.best}")
    print(f'more        unrolled sample {result.run} --prime "class "')
    return 0


def _sample(model: Any, vocabulary: "Vocabulary") -> str:
    import torch

    from unrolled.tasks import generate

    prefix = vocabulary.encode(PRIME)
    chance = torch.Generator().manual_seed(0)
    written = generate(model, prefix, LENGTH, temperature=0.8, generator=chance)
    return vocabulary.decode(torch.cat([prefix, written]))


def _show(title: str, text: str) -> None:
    # An untrained model writes control characters too; they must not reach a terminal.
    shown = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    rule = "─" * max(0, 72 - len(title))
    print(f"\n── {title} {rule}\n{shown}\n{'─' * 76}\n", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
