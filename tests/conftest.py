"""Fixtures of all tests: seeds, one thread, forced engines, poisoned memory."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.support.subjects import RUNS, Subject
from unrolled import engines
from unrolled.engines._request import FastPath
from unrolled.engines._runner import Runner

settings.register_profile(
    "reproducible",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", settings.get_profile("reproducible"), derandomize=False)
settings.load_profile("reproducible")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a function with the marker ``sampled``, every fifth case stays, and each that has a value
    of a parameter first; the other combinations become long tests."""
    counts: Counter[str] = Counter()
    values: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("sampled"):
            function = item.nodeid.partition("[")[0]
            case = {(name, id(value)) for name, value in item.callspec.params.items()}
            if counts[function] % 5 and case <= values[function]:
                item.add_marker(pytest.mark.long)
            counts[function] += 1
            values[function] |= case


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(params=engines.ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each engine, forced, and checked to be the one that runs."""
    with engines.use(request.param), engines.record() as ran:
        yield request.param
    assert set(ran) <= {request.param}


@pytest.fixture(params=RUNS, ids="-".join)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Each cell on each engine that can run it, forced; checks that it ran."""
    layer_name, name = request.param
    with engines.use(name), engines.record() as ran:
        yield Subject(layer_name, name)
    assert set(ran) == {name}


@pytest.fixture
def fast_path_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call in turn took the fast path."""
    recorded: list[bool] = []
    original = Runner.make_fast_path

    def make(runner: Runner) -> FastPath:
        fast_path = original(runner)

        def watch(*args: Any) -> Any:
            actual = fast_path(*args)
            recorded.append(actual is not None)
            return actual

        runner.fast_path = watch
        return watch

    monkeypatch.setattr(Runner, "make_fast_path", make)
    return recorded


@pytest.fixture
def poisoned() -> Iterator[None]:
    """New memory holds NaN, so that reading before writing shows."""
    previous = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = previous
