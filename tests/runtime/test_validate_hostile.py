"""Small files that ask for much memory or work: both readers refuse them by counting it."""

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from tests.support.mutated_models import joined, mutated, split
from tests.support.paths import STEPS
from unrolled import io
from unrolled._limits import BASE_NUMBERS, NUMBERS_PER_BYTE, Budget, brief, shorten
from unrolled.export import export
from unrolled.nn import GRU, LSTM
from unrolled.runtime import load
from unrolled.runtime._schema import KIND

REFUSED = 8  # the exit status of steps
MEBIBYTE = 1 << 20


def tree(*blocks: dict[str, Any]) -> dict[str, Any]:
    head = {"kind": KIND, "version": 1, "weights": "float32", "task": None, "codec": None}
    return head | {"blocks": list(blocks)}


def program(*, states: str = "", parts: int = 1, nodes: str = "", new: str = "1") -> str:
    """The text of a program of one state H, with more of some things."""
    count = states.count("\n") + 1
    return (
        f"unrolled-program 1\nstate H\n{states}input {parts} H\nnode x H 0\nnode state H 0\n"
        f"{nodes}forward {new}\nstored\nsource\ndx {'- ' * parts}\ndstate {'- ' * count}\ndvector\n"
    )


def layer(text: str, inputs: int = 1, units: int = 1, parts: int = 1) -> dict[str, Any]:
    arrays = [np.zeros((parts * units, inputs), np.float32), None]
    direction = {"program": text, "sizes": (inputs, units, units), "arrays": arrays}
    return {"block": "recurrent", "layers": [[direction]], "start": None}


def linear(weight: np.ndarray) -> dict[str, Any]:
    return {"block": "linear", "weight": weight, "bias": None}


def wide_layers() -> dict[str, Any]:
    """Each of them within what one may ask for, all together not."""
    text = program(states=f"state {1 << 20}\n", nodes=f"node state {1 << 20} 1\n", new="1 2")
    return tree(*(layer(text) for _ in range(40)))


def no_inputs() -> dict[str, Any]:
    """Of weights without columns, as many rows as one likes."""
    text = program(parts=8)
    return tree(layer(text, inputs=0, units=1 << 21, parts=8))


def many_blocks_of_one_array() -> dict[str, Any]:
    weight = np.zeros((192, 192), np.float32)
    return tree(layer(program(), inputs=192, units=192), *(linear(weight) for _ in range(100)))


def many_functions_of_many_numbers() -> dict[str, Any]:
    wide = linear(np.zeros((1 << 16, 1), np.float32))
    return tree(layer(program()), wide, *({"block": "relu"} for _ in range(8000)))


def many_narrow_vectors() -> dict[str, Any]:
    nodes = "".join(f"node neg H {k}\n" for k in range(1, 3000))
    return tree(*(layer(program(nodes=nodes, new="3000")) for _ in range(12)))


def many_gradients() -> dict[str, Any]:
    """Each makes a row for each width of a product; 9 seconds of a processor once."""
    lines = ["unrolled-program 1", "state H", *(f"product 900 {k} H" for k in range(7, 300))]
    lines += ["input 1 H", "node x H 0", "node state H 0", "node grad H 0", "node avg 1 2"]
    lines += [f"node neg 1 {k}" for k in range(3, 902)]
    gradients = "dproduct " + " ".join(map(str, range(3, 903)))
    lines += ["forward 1", "stored", "source" + " 1" * 293, "dx -", *[gradients] * 293]
    return tree(layer("\n".join([*lines, "dstate 2", "dvector", ""])))


OVER_BUDGET = "memory and work must be at most"
FILES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "wide layers": (wide_layers, OVER_BUDGET),
    "no inputs": (no_inputs, OVER_BUDGET),
    "one array": (many_blocks_of_one_array, "each array must have one place"),
    "functions": (many_functions_of_many_numbers, OVER_BUDGET),
    "narrow vectors": (many_narrow_vectors, OVER_BUDGET),
    "gradients": (many_gradients, "too many gradients of width 1"),
}
"""With the reason for which each is refused: it is counted, before memory is allocated or work is
done."""

LOAD = """
import resource, sys
from unrolled.io import FileError
from unrolled.runtime import load
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
for path in sys.argv[1:]:
    try:
        load(path).stream()
    except FileError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("hostile")
    for name, (make, _) in FILES.items():
        save_shared(place / name, make())
    return [place / name for name in FILES]


def save_shared(path: Path, model: dict[str, Any]) -> None:
    """A file in which an array that stands in several places is there once."""
    io.save(path, model)
    header, description, _ = split(path.read_bytes())
    weights = {id(b["weight"]): b["weight"] for b in model["blocks"] if b["block"] == "linear"}
    if len(weights) == 1 and sum(b["block"] == "linear" for b in model["blocks"]) > 1:
        names = [name for name in header if name.endswith(".weight")]
        text = json.dumps(description)
        for name in names[1:]:
            text = text.replace(json.dumps(json.dumps(name)), json.dumps(json.dumps(names[0])))
        used = [name for name in header if name not in (*names[1:], "__metadata__")]
        arrays = io.safetensors.numpy.load(path.read_bytes())
        data = io.safetensors.numpy.save({name: arrays[name] for name in used}, {"a": "b"})
        begin = 8 + int.from_bytes(data[:8], "little")
        fresh = json.loads(data[8:begin]) | {"__metadata__": header["__metadata__"]}
        path.write_bytes(joined(fresh, json.loads(text), data[begin:]))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts the pages of a process")
def test_small_files_take_little(files: list[Path]) -> None:
    """400 MiB, and they are refused by a count."""
    assert all(path.stat().st_size < 4 * MEBIBYTE for path in files)
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, *files],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert loaded.returncode == 0, loaded.stderr
    lines = loaded.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in files]
    for line, (_, reason) in zip(lines, FILES.values(), strict=True):
        assert reason in line
    assert all(len(line) < 1200 for line in lines)


@pytest.mark.skipif(not STEPS.exists(), reason="`make core` builds what is tested")
def test_the_reader_in_c_refuses_them_too(files: list[Path]) -> None:
    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (600 * MEBIBYTE,) * 2)

    for path in files:
        read = subprocess.run(
            [STEPS, path, "0", "1"], preexec_fn=limits, capture_output=True, timeout=120
        )
        assert read.returncode == REFUSED, (path, read.stderr)
        assert len(read.stderr) < 1200


def accepts(path: Path) -> bool:
    try:
        load(path)
    except io.FileError:
        return False
    return True


def accepted_in_c(path: Path) -> bool:
    """Of two directions a model is read, and only its stream refused."""
    read = subprocess.run([STEPS, path, "0", "1"], input=b"", capture_output=True)
    assert read.returncode in (0, REFUSED), read.stderr
    return read.returncode == 0 or read.stderr.startswith(b"Model: stream ")


MODULES = {
    "chain": (nn.Sequential(GRU(3, 2), nn.ReLU(), nn.Linear(2, 2)), "float32"),
    "int8": (nn.Sequential(LSTM(3, 2), nn.Linear(2, 2)), "int8"),
    "two directions": (GRU(3, 2, num_layers=2, bidirectional=True), "bfloat16"),
    "tokens": (nn.Sequential(nn.Embedding(4, 3), GRU(3, 2)), "float32"),
}


@pytest.mark.skipif(not STEPS.exists(), reason="`make core` builds what is tested")
@pytest.mark.parametrize("name", MODULES)
def test_both_readers_give_the_same_verdict(name: str, tmp_path: Path) -> None:
    module, weights = MODULES[name]
    path = tmp_path / "model"
    export(module, path, weights=weights)
    header, description, data = split(path.read_bytes())
    chance = random.Random(name)
    verdicts = []
    for _ in range(60):
        path.write_bytes(joined(header, mutated(description, chance), data))
        verdicts.append(accepts(path))
        assert accepted_in_c(path) == verdicts[-1], path.read_bytes()[:5000]
    assert False in verdicts


def replaced(description: Any, old: str, new: str) -> Any:
    text = json.dumps(description)
    assert json.dumps(old) in text, old
    return json.loads(text.replace(json.dumps(old), json.dumps(new), 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"task"', '"kind"'),  # twice
        ("1", "1.0"),  # the first version
        ("1", "true"),
        ("null", "7"),  # the task
        ("null", "NaN"),
        ("null", '"\\ud800"'),
        ("null", "9" * 500),
        ("null", "[" * 70 + "]" * 70),
        ("3", "3.0"),  # of the sizes
        ("3", "0"),
    ],
)
def test_one_schema(old: str, new: str, tmp_path: Path) -> None:
    export(GRU(3, 2), tmp_path / "model")
    header, description, data = split((tmp_path / "model").read_bytes())
    assert accepts(tmp_path / "model")
    changed = joined(header, replaced(description, old, new), data)
    (tmp_path / "model").write_bytes(changed)
    assert not accepts(tmp_path / "model")
    if STEPS.exists():
        assert not accepted_in_c(tmp_path / "model")


def test_the_budget_counts_everything_in_one_file() -> None:
    budget = Budget(100)
    for _ in range(2):
        budget.take(BASE_NUMBERS // 2, "part")
    budget.take(100 * NUMBERS_PER_BYTE, "part")
    with pytest.raises(ValueError, match=r"^part: memory and work must be at most what 100 bytes"):
        budget.take(1, "part")


@pytest.mark.skipif(not STEPS.exists(), reason="`make core` builds what is tested")
def test_both_readers_have_one_budget(tmp_path: Path) -> None:
    """The first file in a row of growing ones that is refused is the same for both."""

    def model(count: int) -> Path:
        wide, relu = linear(np.zeros((1 << 16, 1), np.float32)), {"block": "relu"}
        io.save(tmp_path / "model", tree(layer(program()), wide, *[relu] * count))
        return tmp_path / "model"

    accepted, refused = 0, 400
    assert not accepts(model(refused))
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        if accepts(model(middle)):
            accepted = middle
        else:
            refused = middle
    assert accepted > 0
    assert accepted_in_c(model(accepted))
    assert not accepted_in_c(model(refused))


def test_messages_are_short() -> None:
    nested: list[Any] = ["x" * 50] * 9
    for _ in range(12):
        nested = [nested] * 9
    for value in (nested, "x" * 10**6, 1 << 10**6, dict.fromkeys(range(99), nested), b"x" * 10**6):
        assert len(brief(value)) <= 200
    assert brief("text") == "'text'"
    assert shorten("a" * 500 + "b" * 500, 1000) == "a" * 500 + "b" * 500
    cut = shorten("a" * 10**6 + "the cure", 1000)
    assert len(cut) == 1000
    assert cut.startswith("aaa")
    assert cut.endswith("the cure")
