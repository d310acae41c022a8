"""Makes `python -m unrolled` the command `unrolled`, because torchrun can start modules."""

from unrolled.cli import main

if __name__ == "__main__":
    main()
