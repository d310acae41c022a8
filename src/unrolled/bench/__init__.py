"""What there is to compare: the speed of layers on this machine, and results on problems that
others published. The commands are ``unrolled bench`` and ``unrolled bench --tasks``.
"""
