"""A short program on a hand-written page: its text and what it really printed, run when the site is built."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from weave import WeaveError, code_digest


def woven_program(file: Path, root: Path) -> str:
    """The program and its output as two fences, side by side on a wide page."""
    source = file.read_text(encoding="utf-8")
    printed = _run(file, source, root)
    return (
        f'<div class="tt-program" markdown="1">\n\n```{{ .python .tt-code }}\n{source.strip()}\n```\n\n'
        f"```{{ .text .tt-output .no-copy }}\n{printed}\n```\n\n</div>"
    )


def _run(file: Path, source: str, root: Path) -> str:
    """What the program prints, from the cache where neither it nor any package has changed."""
    digest = hashlib.sha256(source.encode() + code_digest(root).encode()).hexdigest()[:20]
    cache = root / "build" / "woven" / f"{file.stem}-{digest}.txt"
    if cache.exists():
        return cache.read_text(encoding="utf-8")
    environment = {**os.environ, "TT_SWAP": "0", "PYTHONIOENCODING": "utf-8"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(file)]
        process = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120
        )
    if process.returncode:
        raise WeaveError(f"site/programs/{file.name}: the program failed\n\n{process.stderr}")
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(process.stdout.rstrip(), encoding="utf-8")
    return process.stdout.rstrip()
