"""Random splits of examples into training and validation."""

from collections.abc import Sequence
from typing import TypeVar

import torch

from unrolled.config import DataConfig
from unrolled.tasks.data._source import DataError

ExampleT = TypeVar("ExampleT")


def choose_validation(count: int, config: DataConfig) -> list[bool]:
    """Which of `count` examples are for validation: drawn with the seed, at least one and not all.

    Raises:
        DataError: there are fewer than two examples.
    """
    if count < 2:
        raise DataError(f"data: must have at least two examples, got {count}")
    size = min(count - 1, max(1, round(count * config.validation_fraction)))
    generator = torch.Generator().manual_seed(config.seed)
    for_validation = torch.zeros(count, dtype=torch.bool)
    for_validation[torch.randperm(count, generator=generator)[:size]] = True
    return [bool(chosen) for chosen in for_validation.tolist()]


def split_examples(
    examples: Sequence[ExampleT], config: DataConfig, validate_on_all: bool
) -> tuple[list[ExampleT], list[ExampleT]]:
    """Training and validation examples; with ``validate_on_all`` both are all of them.

    Raises:
        DataError: there are fewer than two examples.
    """
    if validate_on_all:
        return list(examples), list(examples)
    chosen = choose_validation(len(examples), config)
    return (
        [example for example, held_out in zip(examples, chosen, strict=True) if not held_out],
        [example for example, held_out in zip(examples, chosen, strict=True) if held_out],
    )
