"""Benchmarks: the speed of layers on this machine, and results on problems with published results.

The commands are `unrolled bench` and `unrolled bench --tasks`; nothing here needs to be imported.
"""

__all__: list[str] = []
