"""Peers: who solves a problem. A maker gives a peer for a case, or None where it does not."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from checks import Results
from problems import Case


@dataclass(frozen=True)
class Peer:
    """``call`` is what is timed; ``results`` reads what it returned, by the names of the truth."""

    call: Callable[[], Any]
    results: Callable[[Any], Results]


Maker = Callable[[Case, int], Peer | None]

MAKERS = {
    "torch": ("peers.layers", "make_torch"),
    "unrolled": ("peers.layers", "make_unrolled"),
    "onnxruntime": ("peers.onnxruntime_model", "make"),
    "openvino": ("peers.openvino_model", "make"),
    "jax": ("peers.jax_scan", "make"),
}
OURS = "unrolled"


def available() -> tuple[dict[str, Maker], dict[str, str]]:
    """Makers of the peers that are installed, and why the others are skipped."""
    makers: dict[str, Maker] = {}
    skipped: dict[str, str] = {}
    for name, (module, function) in MAKERS.items():
        try:
            makers[name] = getattr(importlib.import_module(module), function)
        except ImportError as error:
            skipped[name] = str(error)
    return makers, skipped
