"""What each test adds: the CPU time that it takes, and the lines that no other test runs.

    python -m tests.support.measure run tests/nn tests/engines     # one process for each path
    python -m tests.support.measure run --core build/coverage/_core.so tests/nn/test_laws.py
    python -m tests.support.measure report                         # the table, from all runs

Tests are counted by function, over all its parameters; time is that of the process and of its
children, so that other work on the machine does not matter. Lines are Python's, by coverage.py, and
with a core that is compiled with ``--coverage`` those of C++, by gcov, for each path that was run.
Results are kept in ``build/measure``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.support.fuzz import use_core
from tests.support.paths import ROOT

FOLDER = ROOT / "build" / "measure"


class Recorder:
    """A plugin of pytest that notes the CPU time of each test function, and names its lines."""

    def __init__(self, lines: coverage.Coverage):
        self.lines = lines
        self.seconds: Counter[str] = Counter()
        self.cases: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        name = item.nodeid.partition("[")[0]
        self.lines.switch_context(name)
        start = cpu_seconds()
        try:
            return (yield)
        finally:
            self.seconds[name] += cpu_seconds() - start
            self.cases[name] += 1
            self.lines.switch_context("")


def cpu_seconds() -> float:
    """CPU time of this process and of the children that it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(path: str, core: Path | None, arguments: list[str]) -> int:
    """Run the tests of one path in this process, and write what they took and ran."""
    stem = path.replace("/", ".").removesuffix(".py")
    if core:
        os.environ["GCOV_PREFIX"] = str(FOLDER / f"{stem}.gcda")
        use_core(core.resolve())
    lines = coverage.Coverage(data_file=FOLDER / f"{stem}.coverage", source_pkgs=["unrolled"])
    recorder = Recorder(lines)
    lines.erase()
    lines.start()
    status = pytest.main([path, *arguments], plugins=[recorder])
    lines.stop()
    lines.save()
    results = {name: [recorder.seconds[name], recorder.cases[name]] for name in recorder.seconds}
    (FOLDER / f"{stem}.json").write_text(json.dumps(results))
    return int(status)


def python_lines() -> tuple[dict[str, int], dict[str, int]]:
    """How many lines each test runs, and how many of them no other test and no import does."""
    tests_of: dict[tuple[str, int], set[str]] = defaultdict(set)
    for path in FOLDER.glob("*.coverage"):
        data = coverage.CoverageData(str(path))
        data.read()
        for file in data.measured_files():
            for line, names in data.contexts_by_lineno(file).items():
                tests_of[file, line].update(names)
    return _counts(tests_of)


def core_lines() -> tuple[dict[str, int], dict[str, int]]:
    """The same for C++, by the path that was run."""
    tests_of: dict[tuple[str, int], set[str]] = defaultdict(set)
    for folder in FOLDER.glob("*.gcda"):
        for notes in _json_of_gcov(folder):
            for file in notes["files"]:
                if "/csrc/" in file["file"] or file["file"].startswith("csrc/"):
                    for line in file["lines"]:
                        if line["count"]:
                            tests_of[file["file"], line["line_number"]].add(folder.stem)
    return _counts(tests_of)


def _json_of_gcov(folder: Path) -> Iterator[dict[str, Any]]:
    """What gcov says of each object file; its notes lie where it was compiled."""
    for counts in folder.rglob("*.gcda"):
        built = Path("/") / counts.relative_to(folder)
        link = counts.with_suffix(".gcno")
        if not link.exists():
            link.symlink_to(built.with_suffix(".gcno"))
        ran = subprocess.run(
            ["gcov", "--json-format", "--stdout", counts], capture_output=True, text=True
        )
        for line in ran.stdout.splitlines():
            if line.startswith("{"):
                yield json.loads(line)


def _counts(
    tests_of: dict[tuple[str, int], set[str]],
) -> tuple[dict[str, int], dict[str, int]]:
    lines: Counter[str] = Counter()
    unique: Counter[str] = Counter()
    for names in tests_of.values():
        lines.update(name for name in names if name)
        if len(names) == 1:
            unique.update(name for name in names if name)
    return lines, unique


def report(limit: int) -> None:
    """Print a table of test functions, the slowest first, and of C++ by path."""
    results: dict[str, list[float]] = {}
    for path in FOLDER.glob("*.json"):
        results.update(json.loads(path.read_text()))
    lines, unique = python_lines()
    total = sum(seconds for seconds, _ in results.values())
    print(f"{total:.0f} s of CPU time in {len(results)} test functions")
    print(f"{'seconds':>8} {'cases':>6} {'lines':>6} {'unique':>6}  test")
    for name, (seconds, cases) in sorted(results.items(), key=lambda item: -item[1][0])[:limit]:
        print(f"{seconds:8.2f} {cases:6.0f} {lines[name]:6} {unique[name]:6}  {name}")
    lines, unique = core_lines()
    if lines:
        print(f"\n{'C++':>6} {'unique':>6}  path")
    for name in sorted(lines, key=lambda name: -unique[name]):
        print(f"{lines[name]:6} {unique[name]:6}  {name}")


def main() -> int:
    """Run the paths, each in a process of its own, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "here", "report"])
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--core", type=Path, help="a core compiled with --coverage")
    parser.add_argument("--limit", type=int, default=60, help="rows of the table")
    options, arguments = parser.parse_known_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if options.command == "report":
        report(options.limit)
        return 0
    if options.command == "here":
        return measure(options.paths[0], options.core, arguments)
    core = ["--core", str(options.core)] if options.core else []
    command = [sys.executable, "-m", "tests.support.measure", "here"]
    runs = [subprocess.run([*command, path, *core, *arguments]) for path in options.paths]
    return max(ran.returncode for ran in runs)


if __name__ == "__main__":
    sys.exit(main())
