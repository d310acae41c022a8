"""What short weights cost a trained model: bits per character of held-out text.

    python benchmarks/short.py [--only REGEX] [--quick]

The model is that of `make demo`; where it has not learned yet, it does so first (two minutes).
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness import Row, Settings
from unrolled.cli.demo import CONFIG
from unrolled.export import export
from unrolled.runtime import load
from unrolled.tasks import load_language_model, read_text, score_language_model
from unrolled.tasks.language_modeling import make_windows, split_bytes
from unrolled.train import fit

WEIGHTS = ("float32", "bfloat16", "int8")
STREAMS, CHUNK = 50, 500  # of held-out text
NEAR = 0.02  # torch's score is that of other streams, which begin elsewhere


def rows(settings: Settings) -> list[Row]:
    """The runtime on a file of each kind, held to torch's score."""
    config = replace(CONFIG, steps=30, validate_every=30) if settings.quick else CONFIG
    with tempfile.TemporaryDirectory() as folder:
        best = fit(config, Path(folder) / "run").best
        assert best is not None
        model, vocabulary = load_language_model(best)
        text = read_text(limit=config.limit)
        _, held_out = make_windows(config, vocabulary.encode(text))
        wanted = score_language_model(model, held_out).bits_per_character
        tokens = vocabulary.encode(split_bytes(config, text)[1]).long().numpy()
        made = []
        for weights in WEIGHTS:
            path = Path(folder) / weights
            export(model, path, weights=weights)
            if settings.wants(weights):
                bits = _bits(load(path), tokens)
                if abs(bits - wanted) > NEAR:
                    raise harness.RedError(f"{weights}: {bits:.4f} bits, of torch {wanted:.4f}")
                print(f"{weights}: {bits:.5f} bits per character, torch {wanted:.5f}", flush=True)
                made.append({"name": weights, "bits": bits, "bytes": path.stat().st_size})
    return made


def _bits(model: Any, tokens: np.ndarray) -> float:
    """Mean of -log2 of the chance of each next character, in streams with carried state."""
    T = (len(tokens) - 1) // STREAMS
    x = tokens[: STREAMS * T].reshape(STREAMS, T).T
    y = tokens[1 : STREAMS * T + 1].reshape(STREAMS, T).T
    state, total = None, 0.0
    for t in range(0, T, CHUNK):
        found, state = model.run(x[t : t + CHUNK], state=state, return_state=True)
        found = found.astype(np.float64)
        found -= found.max(-1, keepdims=True)
        chances = np.exp(found).sum(-1)
        right = np.take_along_axis(found, y[t : t + CHUNK, :, None], -1)[..., 0]
        total -= float((right - np.log(chances)).sum())
    return total / np.log(2) / (STREAMS * T)


if __name__ == "__main__":
    harness.main(__doc__, {"short": rows})
