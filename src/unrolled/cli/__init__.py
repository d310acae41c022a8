"""The command line. This module loads nothing but itself: each command loads what it needs."""

__all__ = ["main"]


def main() -> None:
    """Run the command that the process was given, and end with its exit code."""
    from unrolled.cli.app import run

    raise SystemExit(run())
