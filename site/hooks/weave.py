"""Weave chapters into Markdown pages: prose, code, and what the code's experiments print and draw.

    python site/hooks/weave.py --out build/pages            every chapter, as Markdown files
    python site/hooks/weave.py --out build/pages autograd   one of them

A chapter is an ordinary module whose column-0 comments are Markdown: `reading` takes it apart, `experiments` calls its
functions `show_*`, and what they print, and the figures they return, appear right under them on the page.
"""

from __future__ import annotations

import argparse
import ast
import functools
import html
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import diagrams
from counted import exercises_of, minutes
from experiments import ROOT, outputs_of, read_curriculum
from reading import Code, Prose, Text, WeaveError, first_line, headings, read_chapter

from tt_tito import exercises
from tt_tito.curriculum import Appendix, Chapter, Curriculum

# -- writing a page ---------------------------------------------------------------------------------------------------


def page(entry: Chapter | Appendix, outputs: dict[str, dict], course: Curriculum, root: Path = ROOT) -> str:
    """The Markdown of a chapter's page."""
    source = (root / entry.source).read_text(encoding="utf-8")
    text, hidden = read_chapter(source, entry.source), bodies(source)
    told = {node.name: ast.get_docstring(node) or "" for node in text.tree.body if isinstance(node, ast.FunctionDef)}
    parts = [_front_matter(entry, text), _masthead(entry, text, course, root)]
    in_exercises = False
    for block in text.blocks:
        if isinstance(block, Prose):
            parts.append(diagrams.drawn(block.text))
            for level, heading in headings(block.text):
                if level <= 2:
                    in_exercises = heading.lower().startswith("exercise")
        elif block.aside:
            parts.append(_folded(block.aside, _fence(block.source), "tt-aside"))
        else:
            shown = outputs.get(block.show or "")
            output = [*_output(shown, block.show, told[block.show])] if shown else []
            if in_exercises:
                *answers, (name, last) = _answers(block.source)
                parts += [_folded(f"One answer: {name}", _fence(answer), "tt-answer") for name, answer in answers]
                parts.append(_folded(f"One answer: {name}", "\n\n".join([_fence(last), *output]), "tt-answer"))
            else:
                parts += [_fence(block.source, lines_of(block, source, hidden)), *output]
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def title_of(entry: Chapter | Appendix, text: Text) -> str:
    return f"{entry.number:02d} · {text.title}" if isinstance(entry, Chapter) else text.title


def _front_matter(entry: Chapter | Appendix, text: Text) -> str:
    first = re.split(r"\n\s*\n", text.blocks[0].text)[0] if isinstance(text.blocks[0], Prose) else ""
    description = " ".join(re.sub(r"[`*$]", "", first).split())
    title, description = (json.dumps(value, ensure_ascii=False) for value in (title_of(entry, text), description))
    return f"---\ntitle: {title}\ndescription: {description}\n---"


def _masthead(entry: Chapter | Appendix, text: Text, course: Curriculum, root: Path) -> str:
    if isinstance(entry, Chapter):
        phase = course.phases[entry.phase - 1]
        above = f"Phase {phase.number} · {phase.title}"
        says = f'<q class="tt-says">{html.escape(entry.says)}</q>'
    else:
        chapter = course.chapter(entry.chapter)
        above = f'Appendix to <a href="../{chapter.slug}/">{chapter.number:02d} · {chapter.title}</a>'
        says = ""
    file = f'<a href="../{Path(entry.source).name}" download><code>{entry.module.replace(".", "/")}.py</code></a>'
    where = f'<span class="tt-where">{entry.package} {file}</span>'
    heading = f"# {title_of(entry, text)} {{ #top }}"
    count = exercises_of(entry, root)
    size = f"About {minutes(entry, root)} minutes to read"
    size += f", {count} exercise{'s' if count > 1 else ''} to write." if count else "."
    parts = [f'<p class="tt-above">{above}</p>', heading, f'<p class="tt-masthead">{says}{where}</p>']
    if isinstance(entry, Chapter):
        size += (
            f" Write it yourself: `tito watch {entry.number:02d}` beside your editor, or the chapter's "
            f"[notebook]({entry.slug}.ipynb){{ download }} ([how to start it](../learn.md#write-in-a-notebook))."
        )
    return "\n\n".join([*parts, f"{size}\n{{ .tt-write }}"])


def bodies(source: str) -> set[int]:
    """The lines of a chapter on which an exercise's body is: what a learner writes, without signature and docstring."""
    tree, lines = ast.parse(source), set()
    functions = exercises.functions(tree)
    for exercise in exercises.exercises(source):
        node = functions[exercise.name]
        head = node.body[0].end_lineno if exercise.doc else first_line(node.body[0]) - 1
        lines |= set(range(max(head or 0, node.lineno) + 1, (node.end_lineno or 0) + 1))
    return lines


def lines_of(block: Code, source: str, wanted: set[int]) -> list[int]:
    """Which lines of a block, counted from 1, are among these of the file; the page may have fewer empty lines."""
    file, at, found = source.splitlines(), block.line - 1, []
    for number, line in enumerate(block.source.splitlines(), start=1):
        if line:
            at = file.index(line, at) + 1
        if at in wanted and (line or at + 1 in wanted):
            found.append(number)
    return found


def _answers(source: str) -> list[tuple[str, str]]:
    """(name, code) of each answer: a function or class, with the helpers, checks and experiments that follow it."""
    lines, nodes = source.splitlines(), ast.parse(textwrap.dedent(source)).body  # it may be a method's
    starts = [node for node in nodes if not getattr(node, "name", "_").startswith(("_", "check_", "show_"))]
    names = [node.name for node in starts] or ["the code"]
    cuts = [0, *(first_line(node) - 1 for node in starts[1:]), len(lines)]
    return [(name, "\n".join(lines[a:b]).strip("\n")) for name, a, b in zip(names, cuts, cuts[1:], strict=False)]


def _fence(source: str, hidden: Sequence[int] = ()) -> str:
    """Code, with the lines marked that a reader can hide."""
    mark = f' hl_lines="{" ".join(map(str, hidden))}"' if hidden else ""
    return f"```{{ .python .tt-code{mark} data-search-exclude }}\n{NOQA.sub('', source)}\n```"


NOQA = re.compile(r"  # noqa: [A-Z0-9, ]+$", re.MULTILINE)


def _output(output: dict, name: str, told: str) -> Iterator[str]:
    """What an experiment printed and drew; the first line of its docstring is the text alternative of its figures."""
    if "late" in output:
        yield f"*When this page was built, this experiment took longer than {output['late']} seconds, so it was ended.*"
        return
    if output["text"]:
        ticks = "`" * (3 + max((len(run) for run in re.findall("`{3,}", output["text"])), default=0))
        yield f"{ticks}{{ .text .tt-output .no-copy data-search-exclude }}\n{output['text']}\n{ticks}"
    if output["text"].startswith(("flowchart ", "sequenceDiagram\n")):  # a diagram in mermaid's language is drawn, too
        yield diagrams.figure(output["text"])
    label = told.split("\n\n")[0].replace("\n", " ") or f"Figure: {name.removeprefix('show_').replace('_', ' ')}"
    for number, figure in enumerate(output["figures"], start=1):
        alternative = html.escape(label if len(output["figures"]) == 1 else f"{label} ({number})")
        figure = figure.replace(' role="img"', f' role="img" aria-label="{alternative}"', 1)
        yield f'<figure class="tt-figure" data-show="{name}">{figure}</figure>'


def _folded(summary: str, body: str, kind: str) -> str:
    return f'<details class="{kind}" markdown="1"><summary>{summary}</summary>\n\n{body}\n\n</details>'


# -- the whole course -------------------------------------------------------------------------------------------------


@functools.cache
def written(root: Path = ROOT) -> list[Chapter | Appendix]:
    """The chapters and appendices whose file exists: package by package, chapters before appendices."""
    course = read_curriculum(root)
    entries: list[Chapter | Appendix] = []
    for package in course.packages:
        for group in (course.chapters, course.appendices):
            entries += [entry for entry in group if entry.package == package.name]
    return [entry for entry in entries if (root / entry.source).exists()]


def weave(
    entries: list[Chapter | Appendix],
    root: Path = ROOT,
    told: Callable[[str], None] = print,
    warned: Callable[[str], None] = print,
) -> dict[str, str]:
    """The Markdown page of every entry, by slug.

    `told` is given a line for each chapter whose experiments ran, `warned` one for each experiment that was ended."""
    course = read_curriculum(root)
    showing = [entry for entry in entries if _shows(entry, root)]
    outputs = dict(zip(showing, outputs_of(showing, root, told)))
    for entry in showing:
        for name in [name for name, output in outputs[entry].items() if "late" in output]:
            seconds = outputs[entry][name]["late"]
            warned(f"{entry.source}: {name} took longer than {seconds} s; the page lacks its output")
    return {entry.slug: page(entry, outputs.get(entry, {}), course, root) for entry in entries}


def _shows(entry: Chapter | Appendix, root: Path) -> bool:
    """Whether there is something to run."""
    return bool(read_chapter((root / entry.source).read_text(encoding="utf-8"), entry.source).experiments("show_"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slugs", nargs="*", help="which chapters; without any, all that are written")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the Markdown files")
    options = parser.parse_args(arguments)
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
