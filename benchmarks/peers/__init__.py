"""Peers: libraries that solve a problem. A maker returns a peer for a case, or None if the library
does not support it."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from checks import Results
from problems import Case


@dataclass(frozen=True)
class Peer:
    """`call` is timed; `results` converts its return value to tensors by name."""

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
    """The makers of the installed peers, and the reasons why the others are skipped."""
    makers: dict[str, Maker] = {}
    skipped: dict[str, str] = {}
    for name, (module, function) in MAKERS.items():
        try:
            makers[name] = getattr(importlib.import_module(module), function)
        except ImportError as error:
            skipped[name] = str(error)
    return makers, skipped
