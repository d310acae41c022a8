"""Makes many random calls of the native engine and judges each; see ``random_calls``.

    python tests/fuzz.py --calls 1000 --seed 1
    python tests/fuzz.py --only 1234                   # one call again
    python tests/fuzz.py --core build/fuzz/_core.so    # with another build of the core

Call k of a run has the number seed + k, which says everything about it. The number is printed
before the call, so that it is known also where a sanitizer ends the process. `make fuzz` builds a
core with sanitizers and runs it.
"""

import argparse
import importlib.util
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

MOST = 20  # failures, then a run ends


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one call, by its number")
    parser.add_argument("--core", type=Path, help="a built core, in place of the installed one")
    options = parser.parse_args()
    if options.core:
        use_core(options.core.resolve())
    import random_calls
    from unrolled import _core

    assert not options.core or Path(_core.__file__) == options.core.resolve()
    print(f"core: {_core.__file__}, builds: {', '.join(_core.builds())}")
    if options.only is not None:
        call = random_calls.draw(options.only)
        print(call)
        random_calls.check(call)
        return 0
    begin, failed, made = time.monotonic(), 0, Counter[str]()
    for seed in range(options.seed, options.seed + options.calls):
        print(f"\r{seed}", end="", flush=True)
        call = random_calls.draw(seed)
        made.update([call.form, str(call.dtype), call.mode])
        try:
            random_calls.check(call)
        except Exception:
            failed += 1
            print(f"\nfailed: --only {seed}: {call}")
            traceback.print_exc()
            if failed == MOST:
                break
    seconds = time.monotonic() - begin
    print(f"\n{made.total() // 3} calls from {options.seed} on, {failed} failed, {seconds:.0f} s")
    print(", ".join(f"{name}: {count}" for name, count in sorted(made.items())))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
