"""An import of a package gives its names, and nothing else changes: no setting of the process is ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.name for path in ROOT.glob("packages/*/src/t*") if path.name not in ("tt_tito", "tt_torch"))

COMPARE = """
import gc, locale, os, random, signal, sys, threading, warnings
import numpy as np

def settings():
    return {
        "what NumPy does about errors": (np.geterr(), np.geterrcall()),
        "how NumPy prints": np.get_printoptions(),
        "NumPy's random numbers": repr(np.random.get_state()),
        "Python's random numbers": random.getstate(),
        "signal handlers": [signal.getsignal(number) for number in signal.valid_signals()],
        "the environment": dict(os.environ),
        "the working directory": os.getcwd(),
        "the locale": locale.setlocale(locale.LC_ALL),
        "threads": threading.enumerate(),
        "filters of warnings": list(warnings.filters),
        "hooks": (sys.excepthook, sys.displayhook, threading.excepthook, sys.gettrace(), sys.getprofile()),
        "the search for modules": (list(sys.path), list(sys.meta_path), list(sys.path_hooks)),
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold(), gc.isenabled()),
    }

before = settings()
__import__(sys.argv[1])
after = settings()
print(*[name for name in before if repr(before[name]) != repr(after[name])], sep=", ")
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_an_import_changes_no_setting_of_the_process(package):
    own = {k: v for k, v in os.environ.items() if k != "KMP_DUPLICATE_LIB_OK"}  # which an earlier test may have set
    run = subprocess.run([sys.executable, "-c", COMPARE, package], capture_output=True, text=True, check=True, env=own)
    assert run.stdout.strip() == ""
