"""Weights that are packed once for calls without gradient: never stale, bounded, freed."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import _core, cells, nn
from unrolled.engines._native.engine import use_build

WARM = (
    4  # calls after which packed weights are used: one unread, one read, one that packs, one more
)


def make_layer(cls: Any = nn.LSTM, **options: Any) -> Any:
    torch.manual_seed(0)
    return cls(64, 96, **options)


def tokens(T: int = 9, N: int = 5) -> Tensor:
    return torch.randn(T, N, 64, generator=torch.Generator().manual_seed(1))


def caches(layer: Any) -> list[_core.WeightCache]:
    return [caches["packed weights"] for caches in layer._runner.caches]


def total(layer: Any, name: str) -> int:
    return sum(getattr(cache, name) for cache in caches(layer))


@torch.no_grad()
def warm(layer: Any, x: Tensor, **options: Any) -> Tensor:
    """The output, after calls that leave packed weights; the last call used them."""
    for _ in range(WARM):
        output = layer(x, **options)[0]
    assert total(layer, "hits") > 0
    return output


@torch.no_grad()
def expected(layer: Any, x: Tensor, **options: Any) -> Tensor:
    """What a new layer with the same weights, which has kept nothing, returns."""
    return copy.deepcopy(layer)(x, **options)[0]


def flip(tensor: Tensor) -> None:
    tensor.neg_()


def write_numpy(layer: Any) -> None:
    layer.weight_hh_l0.detach().numpy()[3, 5] = 2


def write_one_number(layer: Any) -> None:
    layer.weight_hh_l0.data.view(-1)[-1] += 1


def swap_two_numbers(layer: Any) -> None:
    row = layer.weight_ih_l0.data[7]
    row[[0, 1]] = row[[1, 0]]


def swap_two_rows(layer: Any) -> None:
    weight = layer.weight_hh_l0.data
    weight[[2, 11]] = weight[[11, 2]]


def copy_into(layer: Any) -> None:
    with torch.no_grad():
        layer.weight_hh_l0.copy_(layer.weight_hh_l0 * 1.5)


def change_a_view(layer: Any) -> None:
    with torch.no_grad():
        layer.weight_hh_l0[:, 4:6].mul_(-1)


def step_optimizer(layer: Any) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def load_state(layer: Any) -> None:
    layer.load_state_dict({name: p * 0.5 for name, p in layer.state_dict().items()})


def set_storage(layer: Any) -> None:
    with torch.no_grad():
        layer.weight_hh_l0.set_(layer.weight_hh_l0.flip(0).contiguous())


def replace_data(layer: Any) -> None:
    layer.weight_ih_l0.data = layer.weight_ih_l0.data.roll(1, 0)


def swap_parameters(layer: Any) -> None:
    other = make_layer(type(layer))
    other.weight_hh_l0.data.mul_(-1)
    layer.weight_hh_l0 = other.weight_hh_l0


def write_through_dlpack(layer: Any) -> None:
    alias = torch.from_dlpack(layer.weight_hh_l0.detach())
    alias[0, 0] = 3


def write_in_a_child(layer: Any) -> None:
    layer.share_memory()
    child = multiprocessing.get_context("fork").Process(
        target=flip, args=(layer.weight_hh_l0.detach(),)
    )
    child.start()
    child.join()


def write_in_a_thread(layer: Any) -> None:
    thread = threading.Thread(target=flip, args=(layer.weight_ih_l0.data,))
    thread.start()
    thread.join()


WRITES = [
    write_numpy,
    write_one_number,
    swap_two_numbers,
    swap_two_rows,
    copy_into,
    change_a_view,
    step_optimizer,
    load_state,
    set_storage,
    replace_data,
    swap_parameters,
    write_through_dlpack,
    write_in_a_child,
    write_in_a_thread,
]


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_every_write_is_seen(write: Callable[[Any], None]) -> None:
    layer, x = make_layer(), tokens()
    before = warm(layer, x)
    write(layer)
    with torch.no_grad():
        after = layer(x)[0]
    assert torch.equal(after, expected(layer, x))
    assert not torch.equal(after, before)
    hits = total(layer, "hits")
    assert torch.equal(warm(layer, x), after)
    assert total(layer, "hits") > hits


def test_the_sign_of_zero_and_the_payload_of_nan_are_content() -> None:
    layer, x = make_layer(), tokens()
    weight = layer.weight_hh_l0.data
    for bits in (0, -(2**31), 0x7FC00000, 0x7FC00001):
        weight.view(torch.int32)[0, 0] = bits
        warm(layer, x)
        packed = total(layer, "packed")
        warm(layer, x)
        assert total(layer, "packed") == packed
        weight.view(torch.int32)[0, 0] = 1
        warm(layer, x)
        assert total(layer, "packed") > packed


FORMS: dict[str, dict[str, Any]] = {
    "LSTM": {},
    "GRU": {"cls": nn.GRU},
    "RNN": {"cls": nn.RNN},
    "projected": {"proj_size": 40},
    "two layers in both directions": {"num_layers": 2, "bidirectional": True},
}
CALLS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "plain": (9, 5, {}),
    "one sequence": (30, 1, {}),
    "two sequences": (20, 2, {}),
    "many": (9, 40, {}),
    "lengths": (9, 5, {"lengths": torch.tensor([9, 1, 4, 4, 8])}),
    "resets": (9, 5, {"resets": torch.arange(45).reshape(9, 5) % 7 == 0}),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("form", FORMS)
def test_results_have_the_bits_of_weights_that_are_packed_in_each_call(
    form: str, call: str
) -> None:
    layer = make_layer(**FORMS[form])
    T, N, options = CALLS[call]
    x = tokens(T, N)
    assert torch.equal(warm(layer, x, **options), expected(layer, x, **options))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_of_numbers(dtype: torch.dtype) -> None:
    layer, x = make_layer(), tokens()
    warm(layer, x)
    layer, x = layer.to(dtype), x.to(dtype)
    assert torch.equal(warm(layer, x), expected(layer, x))


@pytest.mark.parametrize("build", _core.builds())
def test_builds_do_not_share_packed_weights(build: str) -> None:
    layer, x = make_layer(), tokens()
    warm(layer, x)
    with use_build(build):
        assert torch.equal(warm(layer, x), expected(layer, x))


def test_a_call_that_is_not_repeated_keeps_nothing() -> None:
    layer, x = make_layer(), tokens()
    with torch.no_grad():
        layer(x)
        assert total(layer, "bytes") == 0
        for k in range(40):
            layer.weight_hh_l0.data[0, 0] = k
            layer.weight_ih_l0.data[0, 0] = k
            layer(x)
            assert total(layer, "packed") == 0


def test_nothing_is_kept_in_training() -> None:
    layer, x = make_layer(), tokens()
    for options in ({}, {"lengths": torch.tensor([9, 1, 4, 4, 8])}):
        warm(layer, x, **options)
        assert total(layer, "bytes") > 0
        layer(x, **options)[0].sum().backward()
        assert total(layer, "bytes") == 0
    layer.checkpoint = True
    warm(layer, x)
    layer(x)[0].sum().backward()
    assert total(layer, "bytes") == 0


def test_what_is_kept_is_bounded() -> None:
    layer = make_layer()
    weights = sum(p.numel() * 4 for name, p in layer.named_parameters() if "weight" in name)
    for N in (1, 2, 3, 4, 5, 40, 1, 3):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            warm(layer, tokens(40, N))
            assert weights <= total(layer, "bytes") <= 2.1 * weights


def test_long_and_small_calls_keep_nothing() -> None:
    small = nn.LSTM(8, 8)
    with torch.no_grad():
        for _ in range(2 * WARM):
            small(torch.ones(20, 2, 8))
    assert total(small, "packed") == 0
    layer = make_layer()
    with torch.no_grad():
        for _ in range(2 * WARM):
            layer(tokens(700, 10))
            layer(tokens(1, 4))
    assert total(layer, "packed") == 0


MEMORY = """
import gc, resource
import torch
from unrolled import nn
torch.set_num_threads(1)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

x = torch.randn(10, 2, 600)
def use():
    layer = nn.LSTM(600, 600)  # 12 MiB of weights
    with torch.no_grad():
        for _ in range(4):
            layer(x)
    assert layer._runner.caches[0]["packed weights"].bytes > 11 * 2**20
for k in range(12):
    use()
    gc.collect()
    if k == 5:
        before = resident()
grown = resident() - before
assert grown < 30, grown
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_freed_with_the_layer() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_copies_start_without_packed_weights() -> None:
    layer, x = make_layer(), tokens()
    output = warm(layer, x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert all(not caches for caches in other._runner.caches)
        assert torch.equal(warm(other, x), output)


def test_threads_with_different_weights_share_a_layer() -> None:
    layer, x = make_layer(), tokens()
    layers = [layer_with_runner_of(layer) for _ in range(3)]
    for k, other in enumerate(layers):
        other.weight_hh_l0.data.mul_(1 + k // 2)  # two of them have the same weights
    results = [expected(other, x) for other in layers]
    wrong = []

    def run(k: int) -> None:
        with torch.no_grad():
            for _ in range(100):
                if not torch.equal(layers[k](x)[0], results[k]):
                    wrong.append(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def layer_with_runner_of(layer: Any) -> Any:
    """A copy of a layer that shares its packed weights."""
    other = copy.deepcopy(layer)
    other._runner = layer._runner
    return other


def test_writes_during_calls_leave_nothing_wrong() -> None:
    """Another thread writes one content and another, again and again; afterwards each is right."""
    layer, x = make_layer(), tokens(12, 8)
    contents = [layer.weight_hh_l0.data.clone(), layer.weight_hh_l0.data.flip(0).contiguous()]
    stop = threading.Event()

    def write() -> None:
        k = 0
        while not stop.is_set():
            layer.weight_hh_l0.data.copy_(contents[k % 2])
            k += 1

    thread = threading.Thread(target=write)
    thread.start()
    with torch.no_grad():
        for _ in range(300):
            layer(x)
    stop.set()
    thread.join()
    for content in contents:
        layer.weight_hh_l0.data.copy_(content)
        for _ in range(40):  # also where many changes have made reading rare
            with torch.no_grad():
                assert torch.equal(layer(x)[0], expected(layer, x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_uses_and_changes_what_it_inherits() -> None:
    layer, x = make_layer(), tokens()
    output = warm(layer, x)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with torch.no_grad():
                same = torch.equal(layer(x)[0], output)
                layer.weight_hh_l0.data.neg_()
                fresh = torch.equal(warm(layer, x), expected(layer, x))
            code = 0 if same and fresh else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(warm(layer, x), output)


def test_prepared_parameters_are_kept_by_their_content() -> None:
    torch.manual_seed(0)
    layer = nn.Recurrent(cells.AntisymmetricRNN(), 64, 96)
    x = torch.randn(9, 5, 64)
    assert torch.equal(warm(layer, x), expected(layer, x))
    layer.weight_hh_l0.data[3, 4] += 1
    with torch.no_grad():
        assert torch.equal(layer(x)[0], expected(layer, x))
