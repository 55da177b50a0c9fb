"""The course as a picture: a winding path on a wide page, a list on a narrow one. Both are made from the curriculum."""

from __future__ import annotations

import html

from tt_tito.curriculum import Chapter, Curriculum

COLUMNS, STEP, ROW, MARGIN, TOP = 5, 114, 122, 96, 52


def course_path(course: Curriculum, built: set[str]) -> str:
    """An SVG: a stop for each chapter along a winding path; what is written is solid, what is not is outlined."""
    chapters = course.chapters
    rows = -(-len(chapters) // COLUMNS)
    width, height = 2 * MARGIN + (COLUMNS - 1) * STEP, TOP + (rows - 1) * ROW + 64
    reached = max((i for i, chapter in enumerate(chapters) if chapter.slug in built), default=0)
    label = f"The course as a path of {len(chapters)} chapters"
    parts = [
        f'<svg class="tt-path" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">',
        f'<path class="tt-road" d="{_road(0, len(chapters) - 1)}"/>',
        f'<path class="tt-road tt-built" d="{_road(0, reached)}"/>',
    ]
    for i, chapter in enumerate(chapters):
        x, y = _place(i)
        if i == 0 or chapter.phase != chapters[i - 1].phase:
            name = _phase_name(course, chapter)
            anchor, shift = ("end", 38) if x > width - 2 * MARGIN else ("start", -38)
            parts.append(f'<text class="tt-phase" x="{x + shift}" y="{y - 26}" text-anchor="{anchor}">{name}</text>')
        parts.append(_stop(chapter, x, y, chapter.slug in built))
    return "".join([*parts, "</svg>"])


def _phase_name(course: Curriculum, chapter: Chapter) -> str:
    return f"{chapter.phase} {html.escape(course.phases[chapter.phase - 1].title)}"


def _place(i: int) -> tuple[int, int]:
    row, column = divmod(i, COLUMNS)
    return MARGIN + (column if row % 2 == 0 else COLUMNS - 1 - column) * STEP, TOP + row * ROW


def _road(first: int, last: int) -> str:
    x, y = _place(first)
    commands = [f"M{x} {y}"]
    for i in range(first + 1, last + 1):
        before, (x, y) = (x, y), _place(i)
        if y == before[1]:
            commands.append(f"H{x}")
        else:
            side = 112 if i // COLUMNS % 2 else -112
            commands.append(f"C{before[0] + side} {before[1]} {x + side} {y} {x} {y}")
    return "".join(commands)


def _stop(chapter: Chapter, x: int, y: int, built: bool) -> str:
    name = f"{chapter.number:02d} {html.escape(chapter.title)}"
    kind = ("tt-stop tt-built" if built else "tt-stop") + (" tt-milestone" if chapter.milestone else "")
    ring = f'<circle class="tt-ring" cx="{x}" cy="{y}" r="13"/>' if chapter.milestone else ""
    stop = (
        f'<g class="{kind}"><title>{name}: {html.escape(chapter.says)}</title>'
        f'{ring}<circle class="tt-dot" cx="{x}" cy="{y}" r="8"/>'
        f'<text class="tt-name" x="{x}" y="{y + 32}">{name}</text>'
        f'<text class="tt-note" x="{x}" y="{y + 48}">{html.escape(_note(chapter))}</text></g>'
    )
    return f'<a href="chapters/{chapter.slug}/">{stop}</a>' if built else stop


def _note(chapter: Chapter) -> str:
    """`xor_1969/minsky_xor_problem.py` is remembered as `XOR 1969`, at the milestone that it belongs to."""
    if not (chapter.milestone and chapter.example):
        return ""
    name, _, year = chapter.example.split("/")[0].rpartition("_")
    return f"{KNOWN.get(name, name)} {year}"


KNOWN = {"xor": "XOR", "lenet": "LeNet", "alexnet": "AlexNet", "gpt": "GPT", "perceptron": "Perceptron"}
KNOWN |= {"mlperf": "MLPerf", "smollm2": "SmolLM2"}


def course_list(course: Curriculum, built: set[str]) -> str:
    """The same course as a list, for narrow pages."""
    items = []
    for chapter in course.chapters:
        if chapter.number == 1 or chapter.phase != course.chapters[chapter.number - 2].phase:
            items.append(f'<li class="tt-phase">{_phase_name(course, chapter)}</li>')
        kind = ("tt-built" if chapter.slug in built else "") + (" tt-milestone" if chapter.milestone else "")
        name = f"{chapter.number:02d} {html.escape(chapter.title)}"
        linked = f'<a href="chapters/{chapter.slug}/">{name}</a>' if chapter.slug in built else name
        items.append(f'<li class="tt-stop {kind}">{linked}<em>{html.escape(_note(chapter))}</em></li>')
    return f'<ol class="tt-course-list">{"".join(items)}</ol>'


def course_table(course: Curriculum, built: set[str]) -> str:
    """A Markdown table: what hurts, and what the chapter that it calls for builds."""
    rows = ["| | chapter | what hurts, in the learner's words | what we build |", "| --- | --- | --- | --- |"]
    for chapter in course.chapters:
        name = f"[{chapter.title}](chapters/{chapter.slug}.md)" if chapter.slug in built else chapter.title
        rows.append(f"| {chapter.number:02d} | {name} | {chapter.says} | {chapter.solved_by} |")
    return "\n".join(rows)
