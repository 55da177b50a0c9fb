"""Short programs on the pages: their text and what they really printed, run when the site is built."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments import code_digest
from reading import WeaveError

# In one process, since most of the time of a short program is its imports: what each of some programs prints.
ALL = """
import contextlib, io, json, runpy, sys, tt_tensor
found = {}
for name, file in json.loads(sys.argv[1]).items():
    tt_tensor.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(file)
    found[name] = printed.getvalue().rstrip()
print(json.dumps(found))
"""


def woven_program(file: Path, root: Path) -> str:
    """The program and its output as two fences, side by side on a wide page."""
    source = file.read_text(encoding="utf-8")
    printed = _run(file.stem, source, [str(file)], root)
    return (
        f'<div class="tt-program" markdown="1">\n\n```{{ .python .tt-code }}\n{source.strip()}\n```\n\n'
        f"```{{ .text .tt-output .no-copy }}\n{printed}\n```\n\n</div>"
    )


@functools.cache
def printed_by(root: Path) -> dict[str, str]:
    """What each program in site/programs/reference prints."""
    files = sorted((root / "site" / "programs" / "reference").glob("*.py"))
    sources = "".join(f"{file.name}\n{file.read_text(encoding='utf-8')}" for file in files)
    return json.loads(_run("reference", sources, ["-c", ALL, json.dumps({f.stem: str(f) for f in files})], root))


def _run(name: str, source: str, arguments: list[str], root: Path) -> str:
    """What the program prints, from the cache where neither it nor any package has changed."""
    digest = hashlib.sha256((ALL + source + code_digest(root)).encode()).hexdigest()[:20]
    cache = root / "build" / "woven" / f"{name}-{digest}.txt"
    if cache.exists():
        return cache.read_text(encoding="utf-8")
    environment = {**os.environ, "TT_SWAP": "0", "PYTHONIOENCODING": "utf-8"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *arguments]
        process = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300
        )
    if process.returncode:
        raise WeaveError(f"site/programs: the program {name} failed\n\n{process.stderr}")
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(process.stdout.rstrip(), encoding="utf-8")
    return process.stdout.rstrip()
