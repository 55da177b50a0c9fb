"""Runs a program that was written for torch: python -m tinytorch PROGRAM [ARGS]."""

from tinytorch._as_torch import main

if __name__ == "__main__":
    main()
