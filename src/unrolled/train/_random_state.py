"""The states of the random generators that training uses, for checkpoints."""

import random
from typing import Any

import torch


def random_states() -> dict[str, object]:
    """The states of the global generators of Python and torch."""
    return {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore the result of `random_states`; GPU states only if the number of GPUs is the same."""
    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
