"""What every task promises: shares, batches by number, codecs, padding, and that it is learned."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.small_tasks import EXAMPLES, NAMES, READ, config_of, write_data
from tests.support.tolerances import assert_equal, close
from unrolled.models import load_tree, save_tree
from unrolled.tasks import Shard, Task, find_task, measure

FULL_SHARD, THIRDS = Shard(), [Shard(rank, 3) for rank in range(3)]


def read(example: str, folder: Path, **options: Any) -> Task:
    return find_task(NAMES[example]).read(config_of(example, folder, **options))


def model_of(task: Task) -> nn.Module:
    torch.manual_seed(3)
    return task.build_model(task.model_arguments()).eval()


def summed(task: Task, model: nn.Module, share: Shard) -> tuple[dict[str, Tensor], int]:
    """The tallies of a whole validation, added up, and the items of that share."""
    carried: Any = None
    sums: dict[str, Any] = {}
    count = 0
    with torch.no_grad():
        for batch in task.validation(share):
            actual, carried = task.tally(model, batch, carried)
            sums = {name: sums.get(name, 0) + value for name, value in actual.items()}
            count += batch.size
    return sums, count


@pytest.mark.parametrize("example", EXAMPLES)
def test_shares_of_a_batch_add_to_the_whole(example: str, tmp_path: Path) -> None:
    task = read(example, tmp_path)
    model = model_of(task)
    with torch.no_grad():
        for step in (0, 5):
            complete = task.batch(step, FULL_SHARD)
            parts = [task.batch(step, share) for share in THIRDS]
            assert complete.size == complete.total == sum(part.size for part in parts)
            assert {part.total for part in parts} == {complete.total}
            assert all(0 < part.size < complete.total for part in parts)
            expected, _ = task.loss(model, complete, None)
            actual = [task.loss(model, part, None)[0] for part in parts]
            close(torch.stack(actual).sum(), expected, "gradient")


@pytest.mark.parametrize("example", EXAMPLES)
def test_shares_of_a_validation_add_to_the_whole(example: str, tmp_path: Path) -> None:
    task = read(example, tmp_path)
    model = model_of(task)
    expected, total = summed(task, model, FULL_SHARD)
    parts = [summed(task, model, share) for share in THIRDS]
    assert sum(count for _, count in parts) == total > 0
    for name, value in expected.items():
        actual = torch.stack([torch.as_tensor(sums[name]) for sums, _ in parts]).sum(0)
        if value.is_floating_point():
            close(actual.float(), value.float(), "gradient", name)
        else:
            assert_equal(actual, value, name)


@pytest.mark.parametrize("example", [example for example in EXAMPLES if example != "lm"])
def test_a_share_without_items_has_no_loss(example: str, tmp_path: Path) -> None:
    task = read(example, tmp_path, batch_size=2)
    batch = task.batch(0, Shard(2, 3))
    assert batch.size == 0 < batch.total
    assert task.loss(model_of(task), batch, None)[0].item() == 0.0


def tensors_of(batch: Any) -> list[Tensor]:
    return [part for part in batch if isinstance(part, Tensor)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_batch_depends_on_its_number_alone(example: str, tmp_path: Path) -> None:
    a, b = read(example, tmp_path), read(example, tmp_path)
    batches = [a.batch(step, FULL_SHARD) for step in range(12)]
    for step in (9, 2, 11, 2, 0):
        actual = b.batch(step, FULL_SHARD)
        for got, expected in zip(tensors_of(actual), tensors_of(batches[step]), strict=True):
            assert_equal(got, expected, f"step {step}")
    assert any(
        not torch.equal(x, y)
        for x, y in zip(tensors_of(batches[0])[:1], tensors_of(batches[1])[:1], strict=True)
    )


@pytest.mark.parametrize("example", READ)
def test_the_digest_is_that_of_the_data(example: str, tmp_path: Path) -> None:
    config = config_of(example, tmp_path)
    digest = find_task(NAMES[example]).read(config).digest
    assert find_task(NAMES[example]).read(config).digest == digest
    path = Path(config.paths[0])
    text = path.read_text()
    previous, updated = {
        "lm": ("abcde", "abced"), "classify": ("soft,", "hard,"),
        "numbers": ("up,", "up,9"), "tag": ("met O", "met B-PER"),
        "forecast": (",55.0", ",55.1"), "seq2seq": ("one ", "two "),
    }[example]  # fmt: skip
    path.write_text(text.replace(previous, updated, 1))
    assert path.read_text() != text
    assert find_task(NAMES[example]).read(config).digest != digest


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_codec_comes_back_from_a_file(example: str, tmp_path: Path) -> None:
    task = read(example, tmp_path)
    save_tree(tmp_path / "codec", task.codec.state())
    codec = type(task).codec_from_state(load_tree(tmp_path / "codec"))
    rebuilt = find_task(NAMES[example]).read(task.config, codec)
    assert rebuilt.codec is codec
    assert rebuilt.model_arguments() == task.model_arguments()
    for step in range(3):
        batches = (tensors_of(read_task.batch(step, FULL_SHARD)) for read_task in (rebuilt, task))
        for got, expected in zip(*batches, strict=True):
            assert_equal(got, expected)


@pytest.mark.parametrize(
    ("example", "part"),
    [("lm", 0.3), ("classify", 0.2), ("numbers", 0.2), ("tag", 0.2), ("forecast", 0.2),
     ("seq2seq", 0.6)],
)  # fmt: skip
def test_it_is_learned(example: str, part: float, tmp_path: Path) -> None:
    """60 steps of Adam leave less than a part of the validation's loss."""
    task = read(example, tmp_path)
    model = model_of(task)
    previous = measure(task, model)["loss"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    carried: Any = None
    model.train()
    for step in range(60):
        batch = task.batch(step, FULL_SHARD)
        total, carried = task.loss(model, batch, carried)
        optimizer.zero_grad()
        (total / batch.total).backward()
        optimizer.step()
    updated = measure(task, model.eval())["loss"]
    assert updated < part * previous, updated / previous


@pytest.mark.parametrize(
    ("example", "beam"),
    [("classify", 1), ("numbers", 1), ("tag", 1), ("seq2seq", 1), ("seq2seq", 3)],
)
def test_padding_never_matters(example: str, beam: int, tmp_path: Path) -> None:
    """A validation in batches is that of each sequence alone."""
    options = {"beam": beam} if example == "seq2seq" else {}
    together = read(example, tmp_path, batch_size=64, **options)
    single = find_task(NAMES[example]).read(dataclasses.replace(together.config, batch_size=1))
    model = model_of(together)
    batches = list(together.validation(FULL_SHARD))
    assert len(batches) == 1
    assert len(list(single.validation(FULL_SHARD))) > 5
    expected, actual = summed(single, model, FULL_SHARD)[0], summed(together, model, FULL_SHARD)[0]
    limits = {"exact", "edits"}  # what has no end is cut at a length that depends on the batch
    for name in expected.keys() - limits:
        close(actual[name].float(), expected[name].float(), "gradient", name)


def test_small_data_are_the_same_on_every_call(tmp_path: Path) -> None:
    for example in READ:
        data = write_data(example, tmp_path).read_bytes()
        assert write_data(example, tmp_path).read_bytes() == data
