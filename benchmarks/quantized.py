"""Low-precision weights of a trained model: bits per character of held-out text.

    python benchmarks/quantized.py [--only REGEX] [--quick]

The model is that of `make demo`, which is trained first (two minutes).
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
from unrolled.tasks._language_modeling import make_windows, split_bytes
from unrolled.train import fit

WEIGHTS = ("float32", "bfloat16", "int8")
STREAMS, CHUNK = 50, 500  # of held-out text
TOLERANCE = 0.02  # torch's score is on streams that start at other positions


def rows(settings: Settings) -> list[Row]:
    """The runtime's score for each format of weights, checked against torch's."""
    config = replace(CONFIG, steps=30, validate_every=30) if settings.quick else CONFIG
    with tempfile.TemporaryDirectory() as folder:
        best = fit(config, Path(folder) / "run").best
        assert best is not None
        model, vocabulary = load_language_model(best)
        text = read_text(limit=config.limit)
        _, held_out = make_windows(config, vocabulary.encode(text))
        torch_bits = score_language_model(model, held_out).bits_per_character
        tokens = vocabulary.encode(split_bytes(config, text)[1]).long().numpy()
        table = []
        for weights in WEIGHTS:
            path = Path(folder) / weights
            export(model, path, weights=weights)
            if settings.wants(weights):
                bits = _bits(load(path), tokens)
                if abs(bits - torch_bits) > TOLERANCE:
                    raise harness.CheckError(
                        f"{weights}: {bits:.4f} bits, of torch {torch_bits:.4f}"
                    )
                print(
                    f"{weights}: {bits:.5f} bits per character, torch {torch_bits:.5f}", flush=True
                )
                table.append({"name": weights, "bits": bits, "bytes": path.stat().st_size})
    return table


def _bits(model: Any, tokens: np.ndarray) -> float:
    """The mean of -log2 p of the next characters, in streams with a carried state."""
    T = (len(tokens) - 1) // STREAMS
    x = tokens[: STREAMS * T].reshape(STREAMS, T).T
    y = tokens[1 : STREAMS * T + 1].reshape(STREAMS, T).T
    state, total = None, 0.0
    for t in range(0, T, CHUNK):
        logits, state = model.run(x[t : t + CHUNK], state=state, return_state=True)
        logits = logits.astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        partition = np.exp(logits).sum(-1)
        target_logits = np.take_along_axis(logits, y[t : t + CHUNK, :, None], -1)[..., 0]
        total -= float((target_logits - np.log(partition)).sum())
    return total / np.log(2) / (STREAMS * T)


if __name__ == "__main__":
    harness.main(__doc__, {"quantized": rows})
