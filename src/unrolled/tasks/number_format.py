"""Numbers as text: in full where they are results or are read back, short for the eye alone."""

__all__ = ["format_full", "format_short"]


def format_full(value: float) -> str:
    """The shortest text from which the very same number is read: "24999997.9", "3e-08"."""
    return repr(float(value))


def format_short(value: float) -> str:
    """Four significant digits, however small or large the number: for progress and pictures."""
    return f"{value:.4g}"
