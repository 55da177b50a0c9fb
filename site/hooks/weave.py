"""Weave chapters into Markdown pages: prose, code, and what the code's experiments print and draw.

    python site/hooks/weave.py --out build/pages            every chapter, as Markdown files
    python site/hooks/weave.py --out build/pages autograd   one of them

A chapter is an ordinary module whose column-0 comments are Markdown. It is imported, never executed as a script; then
its functions `show_*` are called, each chapter in a process of its own. What they print, and the figures they return,
stand right under them on the page. One that raises ends the build.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import html
import io
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from tt_tito.curriculum import Appendix, Chapter, Curriculum, read

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TIME_LIMIT = 900  # seconds for the experiments of one chapter, on a slow machine that does something else as well
ENVIRONMENT = {
    "MPLBACKEND": "svg",
    "MATPLOTLIBRC": str(HERE / "matplotlibrc"),
    "PYTHONHASHSEED": "0",
    "PYTHONIOENCODING": "utf-8",
    "TT_SWAP": "0",  # the book is about the reference implementation
}
XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


class WeaveError(Exception):
    """A chapter that cannot become a page; the message names file and line."""


# -- reading a chapter ------------------------------------------------------------------------------------------------


IMPORTS, CONTRACT = "Imports", "What this chapter exports"


@dataclass(frozen=True)
class Prose:
    line: int
    text: str


@dataclass(frozen=True)
class Code:
    line: int
    source: str
    show: str | None = None  # the experiment that this block ends with
    aside: str = ""  # what a block is that a reader of the story may skip: IMPORTS or CONTRACT

    @property
    def last_line(self) -> int:
        return self.line + self.source.count("\n")


@dataclass(frozen=True)
class Text:
    """A chapter taken apart: its title, and prose and code in the order of the file."""

    title: str
    blocks: tuple[Prose | Code, ...]
    tree: ast.Module

    @property
    def public(self) -> list[str]:
        return public_names(self.tree)

    def experiments(self, prefix: str) -> list[str]:
        """The functions called `check_...` or `show_...`; a public one, like `check_gradients`, is a tool instead."""
        functions = [node.name for node in self.tree.body if isinstance(node, ast.FunctionDef)]
        return [name for name in functions if name.startswith(prefix) and name not in self.public]


def read_chapter(source: str, name: str) -> Text:
    """Take the text of a chapter apart; WeaveError for what is neither prose nor code."""
    tree = ast.parse(source, name)
    lines = source.splitlines()
    statement_at = {}
    for node in tree.body:
        for number in range(_first_line(node), node.end_lineno + 1):
            statement_at[number] = node
    _refuse_hidden_comments(source, name, statement_at)

    blocks: list[Prose | Code] = []
    number = 1
    while number <= len(lines):
        node = statement_at.get(number)
        if node is not None:
            if not _is_docstring(node, tree):
                blocks += _pieces(node, lines, tree)
            number = node.end_lineno + 1
        elif lines[number - 1].startswith("#"):
            start = number
            while number <= len(lines) and lines[number - 1].startswith("#") and number not in statement_at:
                number += 1
            blocks.append(_prose(lines, start, number - 1, name))
        else:
            number += 1
    blocks = _joined([_unfolded(block) for block in _joined(blocks)])
    if not blocks or not isinstance(blocks[0], Prose) or not (title := re.match(r"# (.+)", blocks[0].text)):
        raise WeaveError(f"{name}:1: a chapter begins with its title, in a comment: `# # Tensor`")
    blocks[0] = Prose(blocks[0].line, blocks[0].text[title.end() :].lstrip("\n"))
    return Text(title[1].strip(), tuple(blocks), tree)


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _is_docstring(node: ast.stmt, tree: ast.Module) -> bool:
    return node is tree.body[0] and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _refuse_hidden_comments(source: str, name: str, statement_at: dict[int, ast.stmt]) -> None:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line, column = token.start
        if token.type != tokenize.COMMENT or column:
            continue
        if line in statement_at:
            raise WeaveError(f"{name}:{line}: a comment at column 0 inside a statement is not prose; indent it")
        if re.match(r"# (%%|[+-]$)|#\s*(region|endregion)\b", token.string):
            raise WeaveError(f"{name}:{line}: {token.string!r} marks a cell; chapters carry no cell marks")


def _prose(lines: list[str], start: int, end: int, name: str) -> Prose:
    text = []
    for number in range(start, end + 1):
        line = lines[number - 1]
        if line != "#" and not line.startswith("# "):
            raise WeaveError(f"{name}:{number}: prose begins with '# ', a hash and a space: {line[:40]!r}")
        text.append(line[2:])
    return Prose(start, "\n".join(text))


def _pieces(node: ast.stmt, lines: list[str], tree: ast.Module) -> Iterator[Prose | Code]:
    """A statement as code. In a class, a comment that stands by itself between two members is prose."""
    start = _first_line(node)
    for first, last in _comments_between_members(node, lines):
        yield Code(start, "\n".join(lines[start - 1 : first - 1]).rstrip())
        comment = (line.strip().removeprefix("#").removeprefix(" ") for line in lines[first - 1 : last])
        yield Prose(first, "\n".join(comment))
        start = last + 2  # after the blank line
    source = "\n".join(lines[start - 1 : node.end_lineno])
    show = node.name if isinstance(node, ast.FunctionDef) and node.name.startswith("show_") else None
    yield Code(start, source, show, _aside(node))


def _comments_between_members(node: ast.stmt, lines: list[str]) -> Iterator[tuple[int, int]]:
    """First and last line of each block of comments in a class that blank lines set off from both neighbours."""
    members = node.body if isinstance(node, ast.ClassDef) else []
    for before, after in itertools.pairwise(members):
        between = range((before.end_lineno or 0) + 1, _first_line(after))
        comments = [number for number in between if lines[number - 1].strip()]
        if comments and between[0] < comments[0] and comments[-1] < between[-1]:
            yield comments[0], comments[-1]


def _aside(node: ast.stmt) -> str:
    return IMPORTS if isinstance(node, ast.Import | ast.ImportFrom) else CONTRACT if _is_contract(node) else ""


def _unfolded(block: Prose | Code) -> Prose | Code:
    """A few imports need not be folded away."""
    if isinstance(block, Code) and block.aside == IMPORTS and block.source.count("\n") < 4:
        return Code(block.line, block.source)
    return block


def public_names(tree: ast.Module) -> list[str]:
    """The names in a module's `__all__`."""
    values = [node.value for node in tree.body if _is_contract(node)]
    return [constant.value for value in values for constant in ast.walk(value) if isinstance(constant, ast.Constant)]


def _is_contract(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)


def _joined(blocks: list[Prose | Code]) -> list[Prose | Code]:
    """Neighbours of one kind become one block; an experiment ends a block, since its output stands under it."""
    out: list[Prose | Code] = []
    for block in blocks:
        last = out[-1] if out else None
        if isinstance(last, Prose) and isinstance(block, Prose):
            out[-1] = Prose(last.line, last.text + "\n\n" + block.text)
        elif isinstance(last, Code) and isinstance(block, Code) and not last.show and last.aside == block.aside:
            blank = "\n" * min(2, block.line - last.last_line)  # two blank lines of the file are one on the page
            out[-1] = Code(last.line, last.source + blank + block.source, block.show, block.aside)
        else:
            out.append(block)
    return out


# -- running its experiments ------------------------------------------------------------------------------------------


def experiments(module_name: str) -> dict[str, dict]:
    """Import a chapter and call its `show_*`, in the order of the file: what each printed and drew."""
    module = import_module(module_name)
    names = read_chapter(Path(module.__file__).read_text(encoding="utf-8"), module_name).experiments("show_")
    return {name: _experiment(getattr(module, name), f"{module_name}.{name}") for name in names}


def _experiment(show, name: str) -> dict:
    if seed := getattr(sys.modules.get("tt_tensor.setup"), "manual_seed", None):
        seed(0)  # so that an experiment gives the same numbers when it runs alone
    printed = io.StringIO()
    with redirect_stdout(printed):
        result = show()
    figures = list(result) if isinstance(result, (list, tuple)) else [result] if result is not None else []
    for figure in figures:
        if not hasattr(figure, "savefig"):
            raise TypeError(f"{name} returned {figure!r:.80}; it must return None, a figure or a list of figures")
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        lost = [n for n in pyplot.get_fignums() if pyplot.figure(n) not in figures]
        pyplot.close("all")
        if lost:
            raise RuntimeError(f"{name} drew a figure and did not return it")
    svgs = [svg(figure, f"{name}-{i}") for i, figure in enumerate(figures)]
    return {"text": printed.getvalue().rstrip(), "figures": svgs}


def svg(figure, name: str) -> str:
    """A figure as SVG inside the page: black becomes the text's colour, whatever the theme; two decimals are enough."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = name
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    width, height = (float(value) for value in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    opening = f'<svg {XMLNS} viewBox="0 0 {width:g} {height:g}" style="--width: {width:g}px" role="img">'
    svg = re.sub(r"<svg[^>]*>", opening, svg, count=1)
    svg = re.sub(r"(fill|stroke): #000000", r"\1: currentColor", svg)
    svg = re.sub(r"(?<![\w+/])(\d+\.\d\d)\d+(?![\w+/])", r"\1", svg)
    prefix = re.sub(r"\W", "-", name) + "-"
    svg = re.sub(r'\bid="(?!glyph)', f'id="{prefix}', svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\1{prefix}", svg)
    return "".join(line.strip() + " " for line in svg.splitlines()).strip()


def _child(module_name: str, result: Path) -> None:
    """In the chapter's own process: run the experiments and leave their outcome, or the traceback, in a file."""
    try:
        outcome: dict = {"outputs": experiments(module_name)}
    except BaseException as error:
        outcome = _failure(module_name, error)
    result.write_text(json.dumps(outcome), encoding="utf-8")


def _failure(module_name: str, error: BaseException) -> dict:
    import traceback

    file = getattr(sys.modules.get(module_name), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)
    ours = sum(frame.filename == __file__ for frame in frames)
    shown = "".join(traceback.format_exception(error, limit=-(len(frames) - ours) or None))
    return {"error": shown, "line": line}


def outputs_of(entry: Chapter | Appendix, root: Path = ROOT) -> dict[str, dict]:
    """The outputs of a chapter's experiments, from the cache where no code has changed since they ran."""
    source = root / entry.source
    cache = root / "build" / "woven" / f"{entry.module}-{_fingerprint(entry, root)}.json"
    if cache.exists():
        return json.loads(cache.read_text(encoding="utf-8"))
    outcome = _run_apart(entry.module, entry.source)
    if "error" in outcome:
        where = f"{entry.source}:{outcome['line'] or 1}"
        raise WeaveError(f"{where}: an experiment failed, so there is no page\n\n{outcome['error']}")
    wanted = set(read_chapter(source.read_text(encoding="utf-8"), entry.source).experiments("show_"))
    if wanted != set(outcome["outputs"]):
        raise WeaveError(f"{entry.source}: the installed {entry.module} is another file; pip install -e the checkout")
    cache.parent.mkdir(parents=True, exist_ok=True)
    for old in cache.parent.glob(f"{entry.module}-*.json"):
        old.unlink()
    cache.write_text(json.dumps(outcome["outputs"]), encoding="utf-8")
    return outcome["outputs"]


def _threads(module_name: str) -> dict[str, str]:
    """One BLAS thread, so that a time does not depend on what the other cores do; all in the chapter on the machine."""
    return {} if module_name == "tt_tensor.setup" else {"OPENBLAS_NUM_THREADS": "1"}


def _run_apart(module_name: str, name: str) -> dict:
    """Run a chapter in a process and a folder of its own, on the reference implementation."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "outcome.json"
        command = [sys.executable, str(Path(__file__).resolve()), "--child", module_name, str(result)]
        quiet = {"cwd": folder, "capture_output": True, "text": True, "encoding": "utf-8", "timeout": TIME_LIMIT}
        try:
            process = subprocess.run(command, env=os.environ | ENVIRONMENT | _threads(module_name), **quiet)
        except subprocess.TimeoutExpired:
            raise WeaveError(f"{name}: the experiments ran longer than {TIME_LIMIT} s") from None
        if not result.exists():
            ended = f"the process of the experiments ended with {process.returncode}"
            raise WeaveError(f"{name}: {ended}\n\n{process.stderr}")
        return json.loads(result.read_text(encoding="utf-8"))


def _fingerprint(entry: Chapter | Appendix, root: Path) -> str:
    """Changes with the code (not the prose) of this chapter's package and all before it, and with the tools."""
    names = [package.name for package in read_curriculum(root).packages]
    tools = Path(__file__).read_bytes() + (HERE / "matplotlibrc").read_bytes()
    return hashlib.sha256(tools + code_digest(root, names[: names.index(entry.package) + 1]).encode()).hexdigest()[:20]


def code_digest(root: Path, packages: list[str] | None = None) -> str:
    """Changes with the code (not the prose) of these packages, or of all, and with Python, NumPy and matplotlib."""
    tools = sorted(f"{d.name} {d.version}" for d in metadata.distributions() if d.name in {"numpy", "matplotlib"})
    digest = hashlib.sha256(f"{platform.python_version()} {tools}".encode())
    names = packages or [package.name for package in read_curriculum(root).packages]
    for file in (file for name in names for file in sorted((root / "packages" / name / "src").rglob("*"))):
        if file.suffix == ".py":
            digest.update(_without_prose(file.read_text(encoding="utf-8")))
        elif file.is_file() and "__pycache__" not in file.parts:
            digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _without_prose(text: str) -> bytes:
    """A digest of what is code in a text; the same file is asked for many times, since chapters build on each other."""
    return hashlib.sha256(ast.dump(ast.parse(text)).encode()).digest()


# -- writing a page ---------------------------------------------------------------------------------------------------


def page(entry: Chapter | Appendix, outputs: dict[str, dict], course: Curriculum, root: Path = ROOT) -> str:
    """The Markdown of a chapter's page."""
    text = read_chapter((root / entry.source).read_text(encoding="utf-8"), entry.source)
    parts = [_front_matter(entry, text), _masthead(entry, text, course)]
    in_exercises = False
    for block in text.blocks:
        if isinstance(block, Prose):
            parts.append(block.text)
            for level, heading in headings(block.text):
                if level <= 2:
                    in_exercises = heading.lower().startswith("exercise")
        elif block.aside:
            parts.append(_folded(block.aside, _fence(block.source), "tt-aside"))
        else:
            output = [*_output(outputs[block.show], block.show)] if block.show in outputs else []
            if in_exercises:
                *answers, (name, source) = _answers(block.source)
                parts += [_folded(f"One answer: {name}", _fence(source), "tt-answer") for name, source in answers]
                parts.append(_folded(f"One answer: {name}", "\n\n".join([_fence(source), *output]), "tt-answer"))
            else:
                parts += [_fence(block.source), *output]
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def title_of(entry: Chapter | Appendix, text: Text) -> str:
    return f"{entry.number:02d} · {text.title}" if isinstance(entry, Chapter) else text.title


def _front_matter(entry: Chapter | Appendix, text: Text) -> str:
    first = re.split(r"\n\s*\n", text.blocks[0].text)[0] if isinstance(text.blocks[0], Prose) else ""
    description = " ".join(re.sub(r"[`*$]", "", first).split())
    title, description = (json.dumps(value, ensure_ascii=False) for value in (title_of(entry, text), description))
    return f"---\ntitle: {title}\ndescription: {description}\n---"


def _masthead(entry: Chapter | Appendix, text: Text, course: Curriculum) -> str:
    if isinstance(entry, Chapter):
        phase = course.phases[entry.phase - 1]
        above = f"Phase {phase.number} · {phase.title}"
        says = f'<q class="tt-says">{html.escape(entry.says)}</q>'
    else:
        chapter = course.chapter(entry.chapter)
        above, says = f"Appendix to {chapter.number:02d} · {chapter.title}", ""
    where = f'<span class="tt-where">{entry.package} <code>{entry.module.replace(".", "/")}.py</code></span>'
    heading = f"# {title_of(entry, text)} {{ #top }}"
    parts = [f'<p class="tt-above">{above}</p>', heading, f'<p class="tt-masthead">{says}{where}</p>']
    if isinstance(entry, Chapter):
        parts.append(
            f"Write it yourself: `tito watch {entry.number:02d}` beside your editor, or the chapter's "
            f"[notebook]({entry.slug}.ipynb){{ download }} ([how to start it](../learn.md#write-in-a-notebook)).\n"
            "{ .tt-write }"
        )
    return "\n\n".join(parts)


def _answers(source: str) -> list[tuple[str, str]]:
    """(name, code) of each answer: a function or class, with the helpers, checks and experiments that follow it."""
    lines, nodes = source.splitlines(), ast.parse(source).body
    starts = [node for node in nodes if not getattr(node, "name", "_").startswith(("_", "check_", "show_"))]
    names = [node.name for node in starts] or ["the code"]
    cuts = [0, *(_first_line(node) - 1 for node in starts[1:]), len(lines)]
    return [(name, "\n".join(lines[a:b]).strip("\n")) for name, a, b in zip(names, cuts, cuts[1:], strict=False)]


def _fence(source: str) -> str:
    return f"```{{ .python .tt-code }}\n{source}\n```"


def _output(output: dict, name: str) -> Iterator[str]:
    if output["text"]:
        ticks = "`" * (3 + max((len(run) for run in re.findall("`{3,}", output["text"])), default=0))
        yield f"{ticks}{{ .text .tt-output .no-copy }}\n{output['text']}\n{ticks}"
    if output["text"].startswith("flowchart "):  # a diagram in mermaid's language is drawn, too
        yield f"```mermaid\n{output['text']}\n```"
    for svg in output["figures"]:
        yield f'<figure class="tt-figure" data-show="{name}">{svg}</figure>'


def _folded(summary: str, body: str, kind: str) -> str:
    return f'<details class="{kind}" markdown="1"><summary>{summary}</summary>\n\n{body}\n\n</details>'


def headings(markdown: str) -> Iterator[tuple[int, str]]:
    """(level, text) of the headings, leaving out what stands inside fences."""
    for line in outside_fences(markdown):
        if heading := re.match(r"(#+) (.+)", line):
            yield len(heading[1]), heading[2]


def outside_fences(markdown: str) -> Iterator[str]:
    fence = None
    for line in markdown.splitlines():
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        if fence is None and mark:
            fence = mark[1]
        elif fence is not None and mark and line.strip() == fence:
            fence = None
        elif fence is None:
            yield line


# -- the whole course -------------------------------------------------------------------------------------------------


def read_curriculum(root: Path = ROOT) -> Curriculum:
    path = root / "packages" / "tt-tito" / "src" / "tt_tito" / "curriculum.toml"
    return read(path.read_text(encoding="utf-8"), path.name)


def written(root: Path = ROOT) -> list[Chapter | Appendix]:
    """The chapters and appendices whose file exists: package by package, chapters before appendices."""
    course = read_curriculum(root)
    entries: list[Chapter | Appendix] = []
    for package in course.packages:
        for group in (course.chapters, course.appendices):
            entries += [entry for entry in group if entry.package == package.name]
    return [entry for entry in entries if (root / entry.source).exists()]


def weave(entries: list[Chapter | Appendix], root: Path = ROOT) -> dict[str, str]:
    """The Markdown page of every entry, by slug. One chapter runs at a time, so that it measures the machine alone."""
    course = read_curriculum(root)
    outputs = [outputs_of(entry, root) for entry in entries]
    return {entry.slug: page(entry, output, course, root) for entry, output in zip(entries, outputs, strict=True)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slugs", nargs="*", help="which chapters; without any, all that are written")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the Markdown files")
    parser.add_argument("--child", nargs=2, metavar=("MODULE", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return _child(options.child[0], Path(options.child[1]))
    entries = [entry for entry in written() if not options.slugs or entry.slug in options.slugs]
    if unknown := set(options.slugs) - {entry.slug for entry in entries}:
        parser.error(f"no such chapter: {', '.join(sorted(unknown))}; there are {', '.join(e.slug for e in written())}")
    options.out.mkdir(parents=True, exist_ok=True)
    for slug, markdown in weave(entries).items():
        (options.out / f"{slug}.md").write_text(markdown, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except WeaveError as error:
        sys.exit(f"weave: {error}")
