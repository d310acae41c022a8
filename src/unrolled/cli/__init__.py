"""The command line. Importing this package is cheap: each command imports what it needs."""

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its exit code."""
    from unrolled.cli._app import run

    raise SystemExit(run())
