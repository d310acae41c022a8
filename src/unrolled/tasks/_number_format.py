"""Numbers as text: exact for results, short for progress and plots."""


def format_full(value: float) -> str:
    """The shortest text that reads back as the same float: "24999997.9", "3e-08"."""
    return repr(float(value))


def format_short(value: float) -> str:
    """Four significant digits, however small or large the number: for progress and plots."""
    return f"{value:.4g}"
