"""Results as Markdown tables. A ratio is a peer's time over ours; below 1 the peer is faster.

Ratios are truncated, not rounded, so that 1.00 is never less than 1. All rows are included.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from peers import MAKERS, OURS
from problems import CELLS
from unrolled.bench._machine import describe

Row = dict[str, Any]
MODES = {"infer": "inference", "train": "training"}
LEVELS = (1.0, 0.97)


def against_fastest(row: Row) -> float:
    """The fastest peer's time over ours."""
    return min(ms(row, who) for who in row["peers"] if who != OURS) / ms(row, OURS)


def against_torch(row: Row) -> float:
    """Torch's time over ours."""
    return ms(row, "torch") / ms(row, OURS)


def ms(row: Row, who: str) -> float:
    """The median of one peer."""
    return float(row["peers"][who]["median_ms"])


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(math.fsum(logs := [math.log(value) for value in values]) / len(logs))


def cut(ratio: float) -> str:
    """Two decimals, truncated, and a mark if the peer is faster."""
    return f"{math.floor(ratio * 100 + 1e-9) / 100:.2f}" + (" ▼" if ratio < 1 else "")


def heading(section: dict[str, Any]) -> str:
    """The environment of a section's measurements."""
    rates = [section["sgemm_gflops"][when]["median"] for when in ("before", "after")]
    skipped = "".join(
        f" Skipped: {name} ({reason})." for name, reason in section["skipped"].items()
    )
    trial = " From a quick run, not for publication." if section["quick"] else ""
    return (
        f"{describe(section['environment'])}; {section['environment']['date'][:10]}. torch's own "
        f"sgemm: {rates[0]:.0f} GFLOP/s before, {rates[1]:.0f} after. float32; "
        f"{_rounds(section['rows'])}.{skipped}{trial}"
    )


def summary(rows: Sequence[Row]) -> str:
    """Geometric means and the number of rows that reach a level, by mode and cell."""
    lines = [
        ["", "rows", "fastest peer / ours", "torch / ours", *(f"≥ {level:.2f}" for level in LEVELS)]
    ]
    for mode, title in MODES.items():
        for cell in (*CELLS, ""):
            chosen = [r for r in rows if r["kind"] == mode and r["cell"] in (cell or CELLS)]
            if chosen:
                ratios = [against_fastest(r) for r in chosen]
                reached = [str(sum(ratio >= level for ratio in ratios)) for level in LEVELS]
                means = [geometric_mean(ratios), geometric_mean(map(against_torch, chosen))]
                name = f"{title}, {cell or 'all'}"
                lines.append([name, str(len(chosen)), *map(cut, means), *reached])
    return table(lines)


def means(grids: dict[str, Sequence[Row]]) -> str:
    """One line for each mode and cell: for each processor the geometric means over the grid, and
    the number of rows in which no peer is faster."""
    lines = [[""]]
    for processor in grids:
        lines[0] += [f"{processor}: fastest peer / ours", "torch / ours", "rows won"]
    for mode, title in MODES.items():
        for cell in CELLS:
            line = [f"{title}, {cell}"]
            for rows in grids.values():
                chosen = [row for row in rows if row["kind"] == mode and row["cell"] == cell]
                ratios = [against_fastest(row) for row in chosen]
                won = f"{sum(ratio >= 1 for ratio in ratios)} of {len(ratios)}"
                torch_ratio = geometric_mean(map(against_torch, chosen))
                line += [cut(geometric_mean(ratios)), cut(torch_ratio), won]
            lines.append(line)
    return table(lines)


def ratios(rows: Sequence[Row]) -> str:
    """One line for each shape: fastest peer / ours, and in brackets torch / ours."""
    rows_by_case = {(shape(r), r["kind"], r["cell"]): r for r in rows}
    columns = [(mode, cell) for mode in MODES for cell in CELLS]
    lines = [["T,N,I,H", *(f"{mode} {cell}" for mode, cell in columns)]]
    for name in dict.fromkeys(map(shape, rows)):
        picked = [rows_by_case.get((name, *column)) for column in columns]
        lines.append([name, *("" if r is None else _pair(r) for r in picked)])
    return table(lines)


def timings(rows: Sequence[Row]) -> str:
    """One line for each row: medians and spreads of all peers in ms, our engine, both ratios."""
    peers = [name for name in MAKERS if name != OURS and any(name in r["peers"] for r in rows)]
    lines = [["", *peers, "ours", "engine", "fastest peer / ours", "torch / ours"]]
    for r in rows:
        lines.append(
            [
                r["name"],
                *(_time(r, who) for who in (*peers, OURS)),
                ", ".join(r["peers"][OURS].get("engines", [])),
                cut(against_fastest(r)),
                cut(against_torch(r)),
            ]
        )
    return table(lines)


def ragged(rows: Sequence[Row]) -> str:
    """Whether the cost is proportional to the number of tokens."""
    peers = ["unrolled lengths", "unrolled padded", "torch packed", "torch padded"]
    titles = ["ours, lengths", "ours, padded", *peers[2:]]
    lines = [["ms", "tokens", *titles, "ours / (tokens · padded)", "torch packed / ours"]]
    for r in rows:
        mine, padded, packed = (ms(r, who) for who in peers[:3])
        over = f"{mine / (r['share'] * padded):.2f}"
        share = f"{r['share']:.0%}"
        lines.append(
            [r["name"], share, *(_time(r, who) for who in peers), over, cut(packed / mine)]
        )
    return table(lines)


def published(rows: Sequence[Row]) -> str:
    """Published cells, compared with our LSTM and with torchrecurrent."""
    titles = ["ours", "our LSTM", "torchrecurrent"]
    lines = [["ms", *titles, "ours / our LSTM", "torchrecurrent / ours"]]
    for r in rows:
        peers = [f"unrolled {r['cell']}", "unrolled LSTM", "torchrecurrent"]
        mine = ms(r, peers[0])
        theirs = cut(ms(r, peers[2]) / mine) if peers[2] in r["peers"] else ""
        beside = f"{mine / ms(r, peers[1]):.2f}"
        lines.append([r["name"], *(_time(r, who) for who in peers), beside, theirs])
    return table(lines)


def heads(rows: Sequence[Row]) -> str:
    """Milliseconds by the number of blocks of the recurrent matrix, and their ratios to one."""
    blocks = ("1", "2", "4", "8")
    lines = [["ms", "dense", *(f"{k} blocks" for k in blocks[1:]), "4 blocks / dense"]]
    for r in rows:
        ratio = f"{ms(r, '4') / ms(r, '1'):.2f}"
        lines.append([r["name"], *(_time(r, who) for who in blocks), ratio])
    return table(lines)


def latency(rows: Sequence[Row]) -> str:
    """Microseconds per call, and others' as a multiple of ours."""
    peers = ("torch", "onnxruntime")
    lines = [["µs", *peers, "ours", *(f"{peer} / ours" for peer in peers)]]
    for r in rows:
        times = [_time(r, peer, 1e3) for peer in (*peers, OURS)]
        ratios = [cut(ms(r, peer) / ms(r, OURS)) if peer in r["peers"] else "" for peer in peers]
        lines.append([r["name"], *times, *ratios])
    return table(lines)


def streams(rows: Sequence[Row]) -> str:
    """The mean time of a step, compared with other libraries, then percentiles of single steps."""
    return f"{_steps(rows)}\n\n{_tails(rows)}"


def _steps(rows: Sequence[Row]) -> str:
    """Microseconds per step; ratios use the faster of our times on one thread and on several."""
    names = [f"unrolled {weights}" for weights in ("float32", "bfloat16", "int8")]
    times = ["float32", "threads", "bfloat16", "threads", "int8", "threads"]
    times += ["ONNX Runtime", "torch", "torch int8"]
    ratios = ["ONNX Runtime / float32", "torch / float32", "float32 / bfloat16", "float32 / int8"]
    lines = [["µs", *times, *ratios, "torch int8 / int8"]]
    for r in rows:
        threaded = {w: next((p for p in r["peers"] if p.startswith(f"{w} ")), "") for w in names}
        best = {w: min(ms(r, p) for p in (w, threaded[w]) if p) for w in names}
        ours = [_time(r, p, 1e3) for w in names for p in (w, threaded[w])]
        theirs = [_time(r, who, 1e3) for who in ("onnxruntime", "torch", "torch int8")]
        compared = [("onnxruntime", 0), ("torch", 0), ("torch int8", 2)]
        speedups = [
            cut(ms(r, peer) / best[names[k]]) if peer in r["peers"] else "" for peer, k in compared
        ]
        quantized_speedups = [cut(ms(r, names[0]) / ms(r, name)) for name in names[1:]]
        lines.append([r["name"], *ours, *theirs, *speedups[:2], *quantized_speedups, speedups[2]])
    return table(lines)


def _tails(rows: Sequence[Row]) -> str:
    """Percentiles of the times of single steps, and the errors of low-precision weights."""
    lines = [
        ["µs", "steps", "median", "99 % below", "99.9 % below", "error, bfloat16", "error, int8"]
    ]
    for r in rows:
        tail = r["tail_us"]
        percentiles = [_plain(tail[key]) for key in ("p50", "p99", "p99.9")]
        errors = [f"{r['errors'][name]:.1e}" for name in ("bfloat16", "int8")]
        lines.append([r["name"], f"{tail['steps']:,}", *percentiles, *errors])
    return table(lines)


def startup(rows: Sequence[Row]) -> str:
    """Milliseconds from the start of a process."""
    lines = [["ms from the start of a process to", "median", "fastest", "slowest"]]
    for r in rows:
        runs = r["peers"][OURS]["runs"]
        lines.append([r["name"], *(f"{f(runs):.0f}" for f in (statistics.median, min, max))])
    return table(lines)


def quantized(rows: Sequence[Row]) -> str:
    """Bits per character of a trained model, by the format of its weights."""
    lines = [["weights", "bits per character", "change", "file size in bytes"]]
    float32_bits = rows[0]["bits"]
    for r in rows:
        change = f"{r['bits'] - float32_bits:+.5f}"
        lines.append([r["name"], f"{r['bits']:.5f}", change, f"{r['bytes']:,}"])
    return table(lines)


def training_step(rows: Sequence[Row]) -> str:
    """Milliseconds of a whole step, and torch's as a multiple of ours."""
    lines = [["ms", "torch", "ours", "ours, unrolled.models", "torch / ours"]]
    for r in rows:
        times = [_time(r, who) for who in ("torch", OURS, f"{OURS} lm")]
        lines.append([r["name"], *times, f"{ms(r, 'torch') / ms(r, OURS):.2f}"])
    return table(lines)


def autograd_bound(rows: Sequence[Row]) -> str:
    """Microseconds per training step, and ours as a multiple of the lower bound."""
    lines = [["µs", "torch", "jax", "lower bound", "ours", "ours / lower bound"]]
    for r in rows:
        times = [_time(r, who, 1e3) for who in ("torch", "jax", "floor", OURS)]
        lines.append([r["name"], *times, f"{ms(r, OURS) / ms(r, 'floor'):.2f}"])
    return table(lines)


def half(rows: Sequence[Row]) -> str:
    """bfloat16 beside float32."""
    peers = [OURS, "unrolled bfloat16", "torch bfloat16", "openvino", "openvino default, bfloat16"]
    titles = ["ours, float32", "ours, bfloat16", "torch, bfloat16", "OpenVINO, float32"]
    ratios = ["float32 / bfloat16, ours", "fastest peer / ours, bfloat16"]
    lines = [["ms", *titles, "OpenVINO by default, bfloat16", *ratios]]
    for r in rows:
        times = (_time(r, who) if who in r["peers"] else "" for who in peers)
        lead = cut(lead_in_bfloat16(r)) if is_bfloat16_compared(r) else ""
        lines.append([r["name"], *times, cut(ms(r, OURS) / ms(r, peers[1])), lead])
    return table(lines)


def _bfloat16_peers(row: Row) -> list[str]:
    return [who for who in row["peers"] if "bfloat16" in who and OURS not in who]


def is_bfloat16_compared(row: Row) -> bool:
    """Whether a peer ran in bfloat16."""
    return bool(_bfloat16_peers(row))


def lead_in_bfloat16(row: Row) -> float:
    """The time of the fastest peer in bfloat16 over ours in bfloat16."""
    return min(ms(row, who) for who in _bfloat16_peers(row)) / ms(row, "unrolled bfloat16")


def repeated(rows: Sequence[Row]) -> str:
    """Milliseconds of calls that follow one another, and what of ours does not grow with T."""
    changed = f"{OURS}, weights changed"
    peers = ["torch", "onnxruntime", "openvino", OURS, changed]
    titles = ["torch", "ONNX Runtime", "OpenVINO", "ours", "ours, weights changed"]
    lines = [["ms", *titles, "fixed, ours", "fixed, weights changed", "fastest peer / ours"]]
    for r in rows:
        times = [_time(r, who) if who in r["peers"] else "" for who in peers]
        fixed = [f"{r['fixed_ms'][who]:.3f}" for who in (OURS, changed)]
        fastest = min(ms(r, who) for who in peers[:3] if who in r["peers"])
        lines.append([r["name"], *times, *fixed, cut(fastest / ms(r, OURS))])
    return table(lines)


def busy(rows: Sequence[Row]) -> str:
    """Means, medians and 90th percentiles of single calls; ratios are of means, by peer."""
    peers = [OURS, f"{OURS} 1 thread", "torch", "onnxruntime", "openvino"]
    titles = ["ours", "ours, 1 thread", "torch", "ONNX Runtime", "OpenVINO"]
    lines = [["ms", *titles, "1 thread / ours", "torch / ours", "fastest peer / ours"]]
    for r in rows:
        means = {who: r["peers"][who]["mean_ms"] for who in peers if who in r["peers"]}
        mine = means[OURS]
        ratios = [
            means[peers[1]],
            means["torch"],
            min(means[who] for who in means.keys() - peers[:2]),
        ]
        times = [_busy_times(r["peers"][who]) if who in means else "" for who in peers]
        lines.append([r["name"], *times, *(cut(ratio / mine) for ratio in ratios)])
    return table(lines)


def _busy_times(times: dict[str, float]) -> str:
    """The mean, and in brackets the median and the 90th percentile."""
    return f"{times['mean_ms']:.3g} ({times['median_ms']:.3g}, {times['p90_ms']:.3g})"


def functorch(rows: Sequence[Row]) -> str:
    """torch.func, compared with loops in Python."""
    peers = ["unrolled vmap", "unrolled loop", "torch loop"]
    lines = [["ms", "ours", "our loop", "torch loop", "our loop / ours", "torch loop / ours"]]
    for r in rows:
        mine, *loops = (ms(r, who) for who in peers)
        lines.append(
            [r["name"], *(_time(r, who) for who in peers), *(cut(m / mine) for m in loops)]
        )
    return table(lines)


def memory(rows: Sequence[Row]) -> str:
    """MiB over the baseline."""
    peers = ["torch", OURS, "unrolled checkpoint"]
    lines = [["MiB over the baseline", "torch", "ours", "ours, checkpoint", "torch / ours"]]
    for r in rows:
        sizes = [r["peers"][peer]["mib"] if peer in r["peers"] else None for peer in peers]
        name = f"{r['cell']} {shape(r)}"
        texts = ("" if mib is None else f"{mib:.0f}" for mib in sizes)
        lines.append([name, *texts, cut(sizes[0] / sizes[1])])
    return table(lines)


def shape(row: Row) -> str:
    return ",".join(str(row[letter]) for letter in "TNIH")


def table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the head is the first of the lines."""
    rule = ["---"] * len(lines[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _pair(row: Row) -> str:
    return f"{cut(against_fastest(row))} ({math.floor(against_torch(row) * 10) / 10:.1f})"


def _rounds(rows: Sequence[Row]) -> str:
    """The number of measurements behind each median."""
    timings = [peer for row in rows for peer in row.get("peers", {}).values()]
    if not timings:
        return "one trained model"
    if "runs" in timings[0]:
        return f"medians of {len(timings[0]['runs'])} processes"
    counts = sorted({peer["rounds"] for peer in timings})
    return f"medians of {' to '.join(str(n) for n in counts[:: len(counts) - 1 or 1])} rounds"


def _time(row: Row, who: str, scale: float = 1.0) -> str:
    if who not in row["peers"]:
        return ""
    timing = row["peers"][who]
    spread = float(f"{timing['spread_ms'] * scale:.1g}")
    return f"{_plain(timing['median_ms'] * scale)} ± {spread:g}"


def _plain(value: float) -> str:
    """Three significant digits, and all digits before the decimal point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
