"""Writes golden files with today's version of the description: ``python tests/golden/make.py``.

Never over those that are there: old files must go on loading as they are. A file's name begins with
the version that it says.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unrolled import cells, io
from unrolled.export import export
from unrolled.models import EncoderDecoder, LanguageModel, SequenceModel, Tagger
from unrolled.nn import GRU, LSTM, Recurrent
from unrolled.runtime import Model, Translator, load
from unrolled.tasks import Forecaster
from unrolled.tasks.codecs import (
    ClassificationCodec,
    ForecastingCodec,
    TaggingCodec,
    TextCodec,
    TranslationCodec,
)
from unrolled.tasks.codecs._subword import SubwordVocabulary
from unrolled.tasks.codecs._token_vocab import TokenVocabulary
from unrolled.tasks.codecs._vocabulary import Vocabulary

FOLDER = Path(__file__).parent
SCALE = {"mean": torch.tensor([3.0, -70.0]), "deviation": torch.tensor([2.0, 9.0])}


def chain(**options: Any) -> nn.Module:
    return nn.Sequential(LSTM(2, 3, num_layers=2, **options), nn.Linear(3, 2), nn.Softmax(-1))


def modules() -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """Modules by name, with the options of their export."""
    tokens = SequenceModel(5, 3, hidden_size=4, embedding_size=2, initial="learned")
    added = GRU(2, 3, num_layers=2, bidirectional=True, merge="sum")
    pooled = SequenceModel(2, 3, hidden_size=4, input="numbers", pooling="attention")
    return {
        "lstm": (chain(), {}),
        "slstm": (Recurrent(cells.SLSTM, 2, 4, bidirectional=True), {}),
        "tokens": (tokens, {}),
        "pooled": (pooled, {}),
        "added": (added, {}),
        "batch-first": (chain(batch_first=True), {}),
        "int8": (chain(), {"weights": "int8"}),
        "bfloat16": (chain(), {"weights": "bfloat16"}),
        "forecast": (Forecaster(2, 1, 3, hidden_size=4), {"codec": SCALE}),
        "words": (Tagger(5, 5, 3, hidden_size=4, embedding_size=4), {}),
        "translator": (EncoderDecoder(5, 6, hidden_size=4, embedding_size=3), {}),
        "both-ways": (
            EncoderDecoder(5, 6, hidden_size=4, cell="LSTM", bidirectional=True, attention=False),
            {},
        ),
        "heads": (nn.Sequential(Recurrent(cells.SLSTM(heads=2), 2, 4), nn.Linear(4, 2)), {}),
    }


def coded() -> dict[str, tuple[str, nn.Module, Any, Any]]:
    """Models with what turns texts and numbers into what they read: task, module, codec, items."""
    letters = TokenVocabulary(list("abcé"), padding=True, unknown=True, entry_type="character")
    words = TokenVocabulary(["Ada", "saw"], padding=True, unknown=True, entry_type="word")
    labels = TokenVocabulary(["B-PER", "O"])
    sides = TextCodec("characters", letters), TextCodec("words", words)
    size, ends = len(letters), len(words) + 2
    texts = ["abc", "", "céx"]
    return {
        "classify": ("classify", SequenceModel(size, 2, hidden_size=4, pooling="mean"),
                     ClassificationCodec(letters, labels, max_length=3), texts),
        "tag": ("tag", Tagger(len(words), size, 2, hidden_size=4, embedding_size=4),
                TaggingCodec(words, letters, labels), [["Ada", "saw", "é"], ["b"]]),
        "seq2seq": ("seq2seq", EncoderDecoder(size, ends, hidden_size=4),
                    TranslationCodec(*sides), ["abc", "éa"]),
        "characters": ("lm", LanguageModel(4, hidden_size=4), Vocabulary("abcé"), ["abé", "c"]),
        "pieces": ("lm", LanguageModel(258, hidden_size=2, embedding_size=2),
                   SubwordVocabulary.of(b"aab aab aab", 258), ["aab", "é"]),
        "columns": ("forecast", Forecaster(2, 1, 3, hidden_size=4),
                    ForecastingCodec(["a", "b"], 1, *SCALE.values(), 2, 3),
                    [[[1, 2], [3, 4], [5.5, 0]]]),
    }  # fmt: skip


def inputs(name: str, chance: np.random.Generator) -> Any:
    """What a model reads: T = 4, N = 2."""
    if name in ("tokens", "translator", "both-ways"):
        return chance.integers(0, 5, (4, 2))
    if name == "words":
        spellings = chance.integers(0, 4, 8)
        return chance.integers(0, 5, (4, 2)), chance.integers(0, 5, (3, 8)), spellings
    return chance.standard_normal((4, 2, 2)).astype(np.float32)


def large(module: nn.Module) -> None:
    """Weights with which tokens depend on tokens."""
    parameter: Tensor
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-2, 2)


def main() -> None:
    torch.manual_seed(0)
    chance = np.random.default_rng(0)
    for name, (module, options) in modules().items():
        x = inputs(name, chance)
        if isinstance(module, EncoderDecoder):
            large(module)
        if list(FOLDER.glob(f"v*-{name}.safetensors")):
            continue
        path = FOLDER / f"{name}.safetensors"
        export(module.eval(), path, **options)
        path = path.rename(FOLDER / f"v{io.load(path)['version']}-{name}.safetensors")
        model = load(path)
        options = {"limit": 6} if isinstance(model, Translator) else {}
        y = model.run(x, **options)
        y = y if options else y.tolist()
        parts = [part.tolist() for part in x] if isinstance(x, tuple) else None
        dtype = "int64" if parts else str(x.dtype)
        golden = {"dtype": dtype, "x": parts or x.tolist(), "y": y, "options": options}
        path.with_suffix(".json").write_text(
            json.dumps(golden | {"parts": parts is not None}) + "\n"
        )


def write_coded() -> None:
    torch.manual_seed(29)  # of which the models say different things
    for name, (task, module, codec, items) in coded().items():
        large(module)
        if list(FOLDER.glob(f"v*-{name}.safetensors")):
            continue
        path = FOLDER / f"{name}.safetensors"
        export(module.eval(), path, task=task, codec=codec.state())
        path = path.rename(FOLDER / f"v{io.load(path)['version']}-{name}.safetensors")
        golden = {"items": items, "said": decoded(load(path), items)}
        path.with_suffix(".json").write_text(json.dumps(golden) + "\n")


def decoded(model: Model, items: Any) -> Any:
    """What a model says of texts or numbers, in plain values; of a language model the texts as they
    come back."""
    x, lengths = model.encode(items)
    if model.task == "lm":
        return model.decode(x, lengths)
    outputs = model.decode(model.run(x, lengths=lengths), lengths)
    return {k: v.tolist() for k, v in outputs.items()} if isinstance(outputs, dict) else outputs


if __name__ == "__main__":
    main()
    write_coded()
