"""The course as a map: a row for each phase, read from left to right, and the same as a list on a narrow page."""

from __future__ import annotations

import html
import itertools

from tt_tito.curriculum import Chapter, Curriculum

KNOWN = {"xor": "XOR", "lenet": "LeNet", "alexnet": "AlexNet", "gpt": "GPT", "perceptron": "Perceptron"}
KNOWN |= {"mlperf": "MLPerf", "smollm2": "SmolLM2"}


def course_map(course: Curriculum, built: set[str]) -> str:
    """Lists in a list: phases from top to bottom, each with its name first and then its chapters."""
    rows = []
    for number, chapters in itertools.groupby(course.chapters, key=lambda chapter: chapter.phase):
        phase = course.phases[number - 1]
        stops = "".join(_stop(chapter, chapter.slug in built) for chapter in chapters)
        name = f'<span class="tt-phase">{number} {html.escape(phase.title)}</span>'
        rows.append(f"<li>{name}<ol>{stops}</ol></li>")
    return f'<nav class="tt-map" aria-label="The chapters of the course"><ol>{"".join(rows)}</ol></nav>'


def _stop(chapter: Chapter, built: bool) -> str:
    name = f"<b>{chapter.number:02d}</b> {html.escape(chapter.title)}"
    note = f"<em>{html.escape(_note(chapter))}</em>" if _note(chapter) else ""
    says = html.escape(chapter.says)
    linked = f'<a href="chapters/{chapter.slug}/" title="{says}">{name}</a>' if built else f"<span>{name}</span>"
    return f'<li class="tt-stop{" tt-milestone" if chapter.milestone else ""}">{linked}{note}</li>'


def _note(chapter: Chapter) -> str:
    """`xor_1969/minsky_xor_problem.py` is remembered as `XOR 1969`, at the milestone that it belongs to."""
    if not (chapter.milestone and chapter.example):
        return ""
    name, _, year = chapter.example.split("/")[0].rpartition("_")
    return f"{KNOWN.get(name, name)} {year}"


def course_table(course: Curriculum, built: set[str]) -> str:
    """A Markdown table: what hurts, and what the chapter that it calls for builds."""
    rows = ["| | chapter | what hurts, in the learner's words | what we build |", "| --- | --- | --- | --- |"]
    for chapter in course.chapters:
        name = f"[{chapter.title}](chapters/{chapter.slug}.md)" if chapter.slug in built else chapter.title
        rows.append(f"| {chapter.number:02d} | {name} | {chapter.says} | {chapter.solved_by} |")
    return "\n".join(rows)
