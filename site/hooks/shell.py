"""Commands on a hand-written page: they run when the site is built, and what they print stands under them.

The blocks of a page run in one go, in a folder of their own that output calls `~`:

    ``` tito                     commands, and what they printed
    ``` tito picture ALT TEXT    the same, drawn as a terminal
    ``` tito silent              commands that the page does not show
    ``` toml tt.toml             a file that is written; in one that is there, functions of Python are filled in

`$ COMMAND` has to succeed and `! COMMAND` to fail: tito, python, cd or cat. In a silent block `> FILE ANSWER` fills a
solution of the tests into a learner's file, all of it or the exercises that follow. What was printed is cached until a
command or code changes."""

from __future__ import annotations

import hashlib
import html
import io
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from experiments import code_digest, read_curriculum
from reading import WeaveError
from rich.color import blend_rgb
from rich.color_triplet import ColorTriplet
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tt_tito import course, curriculum, exercises

BLOCK = re.compile(r"^``` (tito(?: \w+)?|\w+(?= \S+$))([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLUMNS, TIME_LIMIT = 80, 120
HOME = "~"
LOG = logging.getLogger("mkdocs.hooks.shell")


@dataclass(frozen=True)
class Block:
    """A block of the page: its kind, what follows the kind (alt text or file), and its lines."""

    kind: str
    about: str
    text: str


# -- running ----------------------------------------------------------------------------------------------------------


@dataclass
class Terminal:
    """A folder, the working directory in it, and the environment that a learner's shell has."""

    root: Path
    home: Path
    here: Path = field(init=False)

    def __post_init__(self):
        self.here = self.home

    def run(self, line: str) -> str:
        """What a command prints, colours included; WeaveError unless it ends as its sign says."""
        sign, command = line.split(maxsplit=1)
        words = shlex.split(command)
        settings = {}
        while "=" in words[0]:
            name, _, settings[name] = words.pop(0).partition("=")
        if words[0] == "cd":
            self.here = (self.here / words[1]).resolve(strict=True)
            return ""
        if words[0] == "cat":
            return (self.here / words[1]).read_text(encoding="utf-8").rstrip()
        program = PROGRAMS[words[0]]
        process = subprocess.run(
            [sys.executable, *program, *words[1:]],
            cwd=self.here,
            env=_environment() | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=TIME_LIMIT,
        )
        if (process.returncode != 0) != (sign == "!") or "Traceback (most recent call last)" in process.stdout:
            raise WeaveError(f"`{command}` ended with {process.returncode}\n\n{process.stdout}")
        return process.stdout.replace(str(self.home), HOME).rstrip()

    def answer(self, line: str) -> None:
        """`FILE ANSWER [EXERCISE...]`: fill in a solution of the tests; what `wrong` lacks comes from `one`."""
        name, answer, *only = line.split()
        answers = ["one", "wrong"] if answer == "wrong" else [answer]
        for each in answers:
            file = course.solution(curriculum.chapter(Path(name).stem), each)
            self.fill(name, file.read_text(encoding="utf-8"), only)

    def fill(self, name: str, text: str, only: Collection[str] = ()) -> None:
        """Fill functions into a learner's file, which begins as the skeleton of its chapter."""
        file = self.here / name
        if not file.exists():
            chapter = curriculum.chapter(file.stem)
            reference = course.reference(chapter).read_text(encoding="utf-8")
            self.make(name, exercises.skeleton(reference, str(chapter)))
        mine = file.read_text(encoding="utf-8")
        theirs, ours = exercises.functions(exercises.parse(text)), exercises.functions(exercises.parse(mine))
        if not (names := only or [name for name in theirs if name in ours]):
            raise ValueError(f"{name} has no function of the names {', '.join(theirs)}")
        written = [name for name in names if name not in exercises.unwritten(text, names)]
        file.write_text(exercises.graft(mine, text, written), encoding="utf-8")

    def make(self, name: str, text: str) -> None:
        """Write a file."""
        (self.here / name).parent.mkdir(parents=True, exist_ok=True)
        (self.here / name).write_text(text, encoding="utf-8")


PROGRAMS = {"tito": ["-m", "tt_tito"], "python": []}


def _environment() -> dict[str, str]:
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(("TT_", "PYTEST_", "NO_COLOR"))}
    colours = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    return theirs | colours | {"PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"}


def outputs(blocks: list[Block], page: str, root: Path) -> list[list[list[str]]]:
    """For each block its commands with what they printed, from the cache where nothing has changed."""
    cache = root / "build" / "woven" / f"shell-{page}-{_fingerprint(blocks, root)}.json"
    if cache.exists():
        return json.loads(cache.read_text(encoding="utf-8"))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal(root, Path(folder).resolve())
        try:
            said = [_play(block, terminal) for block in blocks]
        except (WeaveError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise WeaveError(f"site/{page}.md: {error}") from None
    cache.parent.mkdir(parents=True, exist_ok=True)
    for old in cache.parent.glob(f"shell-{page}-*.json"):
        old.unlink()
    cache.write_text(json.dumps(said), encoding="utf-8")
    LOG.info(f"site/{page}.md: commands ran in {time.perf_counter() - begin:.1f} s")
    return said


def _play(block: Block, terminal: Terminal) -> list[list[str]]:
    if not block.kind.startswith("tito"):
        is_there = block.kind == "python" and (terminal.here / block.about).exists()
        (terminal.fill if is_there else terminal.make)(block.about, block.text)
        return []
    said = []
    for line in block.text.splitlines():
        if line.startswith(">"):
            terminal.answer(line[1:])
        elif line.startswith(("$", "!")):
            said.append([line[1:].strip(), terminal.run(line)])
    return said


def _fingerprint(blocks: list[Block], root: Path) -> str:
    packages = [*(package.name for package in read_curriculum(root).packages), "tt-tito", "tinytorch"]
    digest = hashlib.sha256(Path(__file__).read_bytes() + repr(blocks).encode() + code_digest(root, packages).encode())
    for folder in [*(root / "packages").glob("*/tests"), root / "examples"]:
        for file in sorted(folder.rglob("*.py")) + sorted(folder.rglob("*.toml")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:20]


# -- showing ----------------------------------------------------------------------------------------------------------


def live(markdown: str, page: str, root: Path) -> str:
    """The page with what its commands printed."""
    found = [Block(kind.strip(), about.strip(), text) for kind, about, text in BLOCK.findall(markdown)]
    shown = iter([_show(*item) for item in zip(found, outputs(found, page, root), _ids(page))] if found else [])
    return BLOCK.sub(lambda _: next(shown), markdown)


def _ids(page: str) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"tt-{page}-{number}"


def _show(block: Block, said: list[list[str]], name: str) -> str:
    match block.kind:
        case "tito silent":
            return ""
        case "tito picture":
            return picture(said, block.about, name)
        case "tito":
            return f"```{{ .console .tt-shell .no-copy }}\n{plain(said)}\n```"
    return f'```{{ .{block.kind} title="{block.about}" }}\n{block.text}```'


def plain(said: list[list[str]]) -> str:
    """Commands and what they printed, without colours."""
    lines = []
    for command, output in said:
        lines += [f"$ {command}", *(line.rstrip() for line in Text.from_ansi(output).plain.splitlines())]
    return "\n".join(lines)


def picture(said: list[list[str]], alt: str, name: str) -> str:
    """Commands and what they printed as an SVG in the page's own colours, and as text for who cannot see it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for command, output in said:
        for line in (Text.assemble(("$ ", "dim"), command), *Text.from_ansi(output).split()):
            line.rstrip()
            console.print(line)
    svg = console.export_svg(title="", theme=THEME, code_format=CODE, font_aspect_ratio=0.6, unique_id=name)
    svg = re.sub(r' clip-path="[^"]*"|<text[^>]*>\n</text>', "", svg)
    svg = re.sub(r"fill: (#\w{6})", lambda match: f"fill: var(--tt-{COLOURS[match[1]]})", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" aria-describedby="{name}-text" ', 1)
    text = html.escape(plain(said)).replace("\n", "&#10;")
    svg = svg.replace("<style>", f'<desc id="{name}-text">{text}</desc><style>', 1)
    return f'<figure class="tt-terminal">{" ".join(svg.split())}</figure>'


CODE = '<svg viewBox="0 0 {terminal_width} {terminal_height}"><style>{styles}</style>{backgrounds}{matrix}</svg>'
# A terminal's eight colours are the page's, which change with its scheme: rich writes these values, which become names.
NAMES = ["ink", "accent", "string", "number", "keyword", "keyword", "keyword", "soft"]
PAPER, PALETTE = (255, 255, 255), [(n, 0, 0) for n in range(len(NAMES))]
THEME = TerminalTheme(PAPER, PALETTE[0], PALETTE)
COLOURS = {ColorTriplet(*colour).hex: name for colour, name in zip(PALETTE, NAMES)} | {
    blend_rgb(ColorTriplet(*colour), ColorTriplet(*PAPER), 0.4).hex: "soft" for colour in PALETTE
}
