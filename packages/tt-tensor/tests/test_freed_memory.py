"""What a step frees, the next one gets: in a process of its own, which begins with no memory at all."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import numpy as np
import tt_tensor

def step():
    arrays = [np.ones(400_000, np.float32) for _ in range(100)]

def new_pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step()
before = new_pages()
for _ in range(3):
    step()
print(new_pages() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have rules of their own")
def test_memory_that_was_freed_is_not_fetched_again():
    run = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 6_000, "of 117,000 pages of 4 KB that three steps with a hundred arrays of 1.6 MB need"
