"""Makes many random calls of the native engine and checks each; see ``random_calls``.

    python -m tests.support.fuzz --calls 1000 --seed 1
    python -m tests.support.fuzz --calls 0 --cells 1000        # of random cells, see random_cells
    python -m tests.support.fuzz --only 1234                   # one call again
    python -m tests.support.fuzz --only-cell 1234              # of a random cell, and its source
    python -m tests.support.fuzz --core build/fuzz/_core.so    # with another build of the core

Call k of a run has the number seed + k, which says everything about it. The number is printed
before the call, so that it is known also where a sanitizer ends the process. `make fuzz` builds a
core with sanitizers and runs it; new memory is full of NaN there, and that of torch always.
"""

import argparse
import importlib.util
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

MAX_FAILURES = 20  # failures, then a run ends


def use_core(path: Path) -> None:
    """Take the place of the installed core; before anything imports it."""
    spec = importlib.util.spec_from_file_location("unrolled._core", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["unrolled._core"] = module
    spec.loader.exec_module(module)


def main() -> int:
    """Run, and count what failed."""
    options = _options()
    if options.core:
        use_core(options.core.resolve())
    import torch

    from unrolled import _core

    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert not options.core or Path(_core.__file__) == options.core.resolve()
    print(f"core: {_core.__file__}, builds: {', '.join(_core.builds())}")
    if options.only is not None:
        _check(options.only, cell=False, shows=True)
        return 0
    if options.only_cell is not None:
        _check(options.only_cell, cell=True, shows=True)
        return 0
    failed = _run(options.seed, options.calls, cell=False)
    if failed < MAX_FAILURES:
        failed += _run(options.seed, options.cells, cell=True)
    return failed > 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=0, help="calls of random cells")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one call, by its number")
    parser.add_argument("--only-cell", type=int, help="one call of a random cell, by its number")
    parser.add_argument("--core", type=Path, help="a built core, in place of the installed one")
    return parser.parse_args()


def _check(seed: int, cell: bool, shows: bool = False) -> list[str]:
    """Make the call of a number, or of a random cell on its paths; returns what was drawn."""
    from tests.support import random_calls, random_checks, random_paths

    call = random_calls.draw(seed, cells=cell)
    if not cell:
        if shows:
            print(call)
        random_checks.check(call)
        return [call.form, str(call.dtype), call.mode]
    subject = random_paths.draw_subject(seed)
    if shows:
        print(call.random_cell, call, subject, sep="\n")
    random_checks.check(call)
    random_paths.check_paths(subject)
    return [call.form, str(call.dtype), *subject.paths]


def _run(begin: int, count: int, cell: bool) -> int:
    """So many calls; the number of those that failed."""
    start, failed, drawn = time.monotonic(), 0, Counter[str]()
    completed = 0
    for seed in range(begin, begin + count):
        print(f"\r{seed}", end="", flush=True)
        completed += 1
        try:
            drawn.update(_check(seed, cell))
        except Exception:
            failed += 1
            print(f"\nfailed: --only{'-cell' * cell} {seed}")
            traceback.print_exc()
            if failed == MAX_FAILURES:
                break
    label = "calls of random cells" if cell else "calls"
    seconds = time.monotonic() - start
    print(f"\n{completed} {label} from {begin} on, {failed} failed, {seconds:.0f} s")
    print(", ".join(f"{name}: {times}" for name, times in sorted(drawn.items())))
    return failed


if __name__ == "__main__":
    sys.exit(main())
