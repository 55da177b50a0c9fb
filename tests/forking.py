"""Runs a chapter's tests on one file after another, each in a fork of a process that has imported what they all need.

python tests/forking.py losses pytest options < files

Each line is a learner's file; the answer is a line of JSON: pytest's exit code, and what it printed."""

import importlib
import itertools
import json
import os
import signal
import sys
import tempfile

import numpy  # noqa: F401  (which is imported once, here)
import pytest

from tt_tito import curriculum, finder


def main() -> None:
    slug, *arguments = sys.argv[1:]
    package = curriculum.chapter(slug).package
    for earlier in itertools.takewhile(lambda each: each.name != package, curriculum.packages()):
        importlib.import_module(earlier.name.replace("-", "_"))
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
            if (child := os.fork()) == 0:
                os.dup2(said.fileno(), 1), os.dup2(said.fileno(), 2)
                signal.alarm(120)  # seconds, after which it is ended
                os.environ["TT_SWAP"] = f"{slug}={line.strip()}"
                finder.activate()
                code = pytest.main(arguments)
                sys.stdout.flush()
                os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            print(json.dumps([code, said.read()]), flush=True)


if __name__ == "__main__":
    main()
