"""Shared by all benchmarks: options, checks before timing, timing, JSON.

A script gives names of sections and functions that make their rows, and calls ``main``.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import checks
import results
from checks import CheckError, Results
from peers import Peer, available
from problems import Case, Problem, make_case
from unrolled import engines
from unrolled.bench._machine import describe, environment, sgemm_gflops, slug
from unrolled.bench._timing import Plan, interleave

Row = dict[str, Any]

QUICK = Plan(rounds=3, sample_ms=0.5, budget_s=1.0, min_rounds=2)


@dataclass(frozen=True)
class Settings:
    """What was asked for on the command line."""

    plan: Plan
    threads: int
    only: str
    quick: bool
    output: Path

    def wants(self, name: str) -> bool:
        """Whether ``--only`` matches a row's name."""
        return re.search(self.only, name) is not None


Rows = Callable[[Settings], list[Row]]


def main(about: str, sections: Mapping[str, Rows], arguments: Sequence[str] | None = None) -> Path:
    """Run the tests, then each section, and write it; returns the file of results.

    Raises:
        SystemExit: a check failed; its section and the following ones are not written.
    """
    options = _parse(about, arguments)
    settings = _settings(options)
    limit(settings.threads)
    try:
        if not options.skip_tests:
            checks.run_tests()
        written = [name for name, rows in sections.items() if _section(name, rows, settings)]
    except CheckError as error:
        sys.exit(f"a check failed, so this is not reported: {error}")
    if not written:
        sys.exit(f"--only must match the name of a row, got {settings.only!r}")
    print(f"\nwrote {', '.join(written)} to {settings.output}")
    return settings.output


def limit(threads: int) -> None:
    """Limit all peers to this number of threads, and the process to as many cores.

    Raises:
        SystemExit: there are fewer cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        sys.exit(f"--threads must be at least 1 and at most {len(cores)} cores, got {threads}")
    os.sched_setaffinity(0, cores[:threads])
    os.environ["NPROC"] = str(threads)  # XLA's number of threads
    torch.set_num_threads(threads)


def _section(name: str, rows: Rows, settings: Settings) -> bool:
    """Measure one section and write it, unless --only excludes all of its rows.

    Torch's speed of matmul is measured before and after, to show whether the machine was steady.
    """
    print(f"\n{name}", flush=True)
    machine = environment(settings.threads)
    initial_gflops = sgemm_gflops(settings.plan)
    print(f"{describe(machine)}; sgemm {initial_gflops['median']:.0f} GFLOP/s", flush=True)
    measured = rows(settings)
    if not measured:
        return False
    content = {
        "environment": machine,
        "sgemm_gflops": {"before": initial_gflops, "after": sgemm_gflops(settings.plan)},
        "plan": asdict(settings.plan),
        "only": settings.only,
        "quick": settings.quick,
        "skipped": available()[1],
        "rows": measured,
    }
    results.write(settings.output, name, content)
    return True


def no_more_peers(case: Case) -> dict[str, tuple[Peer, Results]]:
    return {}


def measure_problems(
    problems: Sequence[Problem],
    settings: Settings,
    more: Callable[[Case], Mapping[str, tuple[Peer, Results]]] = no_more_peers,
) -> list[Row]:
    """Measure each problem with all installed peers and those of `more`, which have their own
    expected results."""
    makers, skipped = available()
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", flush=True)
    rows = []
    for problem in problems:
        if settings.wants(problem.name):
            case = make_case(problem)
            candidates = {name: make(case, settings.threads) for name, make in makers.items()}
            peers = {name: peer for name, peer in candidates.items() if peer is not None}
            truths = dict.fromkeys(peers, case.truth())
            for name, (peer, truth) in more(case).items():
                peers[name], truths[name] = peer, truth
            row = measure(problem.name, peers, truths, problem.training, settings.plan)
            rows.append({**row, **describe_problem(case)})
    return rows


def describe_problem(case: Case) -> Row:
    """A problem as data."""
    return {**asdict(case.problem), "kind": case.problem.mode}


def measure(
    name: str,
    peers: Mapping[str, Peer],
    truths: Mapping[str, Results],
    training: bool,
    plan: Plan,
) -> Row:
    """Check all peers against their expected results, then time them; returns a row.

    Raises:
        CheckError: a peer's results are wrong, or it fails.
    """
    with torch.inference_mode(not training):
        errors = {who: checked(f"{name}, {who}", peers[who], truths[who]) for who in peers}
        timings = interleave({who: peer.call for who, peer in peers.items()}, plan)
    row = {who: {**asdict(timings[who]), **errors[who]} for who in peers}
    medians = ", ".join(f"{who} {timings[who].median_ms:.3g}" for who in peers)
    print(f"{name}: {medians} ms", flush=True)
    return {"name": name, "peers": row}


def checked(who: str, peer: Peer, truth: Results) -> dict[str, Any]:
    """The error of a peer's results, and the names of our engines that it used."""
    with engines.record() as ran:
        try:
            results = peer.results(peer.call())
        except Exception as error:
            raise CheckError(f"{who}: failed, {type(error).__name__}: {error}") from error
    worst = checks.check(who, results, truth)
    return {"error": worst, **({"engines": sorted(set(ran))} if ran else {})}


def _parse(about: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (15)")
    parser.add_argument("--threads", type=int, default=2, help="threads of every peer (2)")
    parser.add_argument("--only", default="", help="regular expression for the names of rows")
    parser.add_argument("--quick", action="store_true", help="small shapes, 3 rounds")
    parser.add_argument("--skip-tests", action="store_true", help="do not run the tests first")
    parser.add_argument("--output", type=Path, help="JSON (results/PROCESSOR.json)")
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace) -> Settings:
    part = "-quick" if options.quick else "-part" if options.only else ""
    output = options.output or results.FOLDER / f"{slug()}{part}.json"
    plan = QUICK if options.quick else Plan(options.rounds)
    return Settings(plan, options.threads, options.only, options.quick, output)
