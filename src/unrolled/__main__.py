"""`python -m unrolled` is the command `unrolled`: for torchrun, which starts modules."""

from unrolled.cli import main

if __name__ == "__main__":
    main()
