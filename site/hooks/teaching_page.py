"""What the instructor's page shows: a semester, and the planted mistakes with what `tito` says of each."""

from __future__ import annotations

import html
import os
import re
import time
from pathlib import Path

from markdown.extensions.toc import slugify
from mistakes import BANK, WAITING, Mistake, Verdict, bank, modules, verdicts
from reading import WeaveError

from tt_tito import course, exercises
from tt_tito.curriculum import Chapter, Curriculum


def syllabus(plan: str, curriculum: Curriculum, built: set[str]) -> str:
    """A table of weeks, from `setup,tensor;tensor;...`: chapters, the sentence that opens them, and what they leave.

    A chapter of several weeks is opened in its first, and done in its last."""
    weeks = [[curriculum.chapter(slug) for slug in slugs.split(",")] for slugs in plan.split(";")]
    if left := [c.slug for c in curriculum.chapters if not any(c in week for week in weeks)]:
        raise WeaveError(f"the syllabus has no week for {', '.join(left)}")
    rows = ["| week | chapters | begins with | exercises | ends with |", "| --: | --- | --- | --: | --- |"]
    for number, week in enumerate(weeks, start=1):
        opened = [chapter for chapter in week if not any(chapter in before for before in weeks[: number - 1])]
        done = [chapter for chapter in week if not any(chapter in after for after in weeks[number:])]
        columns = [
            [_linked(chapter, built) for chapter in week],
            [f"“{chapter.says}”" for chapter in opened],
            [str(_count(chapter)) for chapter in done if chapter.slug in built],
            [c.unlocks for c in done] + [f"milestone: “{c.milestone}”" for c in done if c.milestone],
        ]
        rows.append(f"| {number} | {' | '.join('<br>'.join(column) for column in columns)} |")
    return "\n".join(rows)


def _count(chapter: Chapter) -> int:
    return len(exercises.exercises(course.reference(chapter).read_text(encoding="utf-8")))


def _linked(chapter: Chapter, built: set[str]) -> str:
    name = f"{chapter.number:02d} {chapter.title}"
    return f"[{name}](chapters/{chapter.slug}.md)" if chapter.slug in built else f"{name} (planned)"


# -- mistakes ---------------------------------------------------------------------------------------------------------


def mistakes(root: Path) -> str:
    """A folded table for each chapter: what learners get wrong, and what they are told. Judging takes minutes, so a
    build stops after MISTAKES_SECONDS, and the page says that verdicts are missing and how to get them."""
    until = time.monotonic() + float(os.environ.get("MISTAKES_SECONDS", 20))
    found = {chapter: (planted, verdicts(chapter, planted, root, until)) for chapter, planted in bank(root).items()}
    tables = [_table(chapter, planted, _said(chapter, planted, said)) for chapter, (planted, said) in found.items()]
    if any(verdict.status == WAITING for _, said in found.values() for verdict in said):
        how = "`hatch run docs:judge` makes them, and the next build shows them."
        tables.append(f"*Some verdicts are missing in this build. {how}*")
    return "\n\n".join(tables)


def _said(chapter: Chapter, found: list[Mistake], said: list[Verdict]) -> list[str]:
    if missed := [mistake.id for mistake, verdict in zip(found, said) if verdict.status == "passed"]:
        raise WeaveError(f"{BANK}: {missed} are planted, and the tests of {chapter} have not caught them")
    return [verdict.message for verdict in said]


def _table(chapter: Chapter, found: list[Mistake], said: list[str]) -> str:
    rows = "".join(
        f"<tr><td>{_html(mistake.mistake)}</td><td>{_message(text, chapter)}</td></tr>"
        for mistake, text in zip(found, said)
    )
    head = f"<tr><th>the mistake</th><th><code>tito module test {chapter.number:02d}</code> says</th></tr>"
    summary = f"<summary>{chapter.number:02d} {chapter.title}: {len(found)} mistakes</summary>"
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return f'<details class="tt-mistakes" data-search-exclude>{summary}{table}</details>'


def _message(text: str, chapter: Chapter) -> str:
    """A message as HTML; the section that it names is a link to the book."""
    first, *rest = text.splitlines() or ["\u2013"]
    lines = [f"<samp>{html.escape(first, quote=False)}</samp>", *map(_html, rest)]
    if (section := re.fullmatch(r'See "(.+)"\.', rest[-1] if rest else "")) and (page := _page(section[1], chapter)):
        anchor = slugify(section[1], "-")
        lines[-1] = f'See <a href="../chapters/{page}/#{anchor}">{html.escape(section[1])}</a>.'
    return "<br>".join(lines)


def _page(section: str, chapter: Chapter) -> str | None:
    """The chapter or else the appendix of its package that has a section of this title."""
    package, texts = chapter.module.partition(".")[0], modules()
    names = [chapter.module, *(name for name in texts if name.startswith(f"{package}."))]
    heading = re.compile(rf"^ *# ## {re.escape(section)}$", re.MULTILINE)
    return next((name.partition(".")[2] for name in names if heading.search(texts[name])), None)


def _html(text: str) -> str:
    """A line of a message, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
