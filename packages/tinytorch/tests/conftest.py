"""These tests keep the kernels that are on when they begin, because tests of other packages, which ask about them, may
run in the same process. What tinytorch turns on is tested in processes of its own (test_settings.py)."""

from tinytorch import _kernels

_kernels.leave()
