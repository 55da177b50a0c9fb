"""What the instructor's page shows of the course: a semester, and the planted mistakes with what `tito` says of each.

The mistakes are edits of the reference. Each is judged as a learner's file is, when the site is built; what was said
comes from a cache as long as neither the chapter, its tests and its mistakes nor the judge has changed."""

from __future__ import annotations

import functools
import hashlib
import html
import json
import re
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from markdown.extensions.toc import slugify
from weave import WeaveError, code_digest, read_curriculum

from tt_tito import course, exercises, judge
from tt_tito.curriculum import Chapter, Curriculum

MISTAKES = Path("tests", "mistakes", "mutants.toml")


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
    """A folded table for each chapter: what learners get wrong, and what they are told."""
    found = _by_chapter((root / MISTAKES).read_text(encoding="utf-8"), read_curriculum(root))
    return "\n\n".join(_table(chapter, mutants, _said(chapter, mutants, root)) for chapter, mutants in found)


def _by_chapter(text: str, course: Curriculum) -> list[tuple[Chapter, list[dict[str, Any]]]]:
    """The mistakes of each chapter; a comment with its number and title stands above them."""
    titles = {chapter.title: chapter for chapter in course.chapters}
    parts = re.split(r"^# \d\d (.+)$", text, flags=re.MULTILINE)
    return [(titles[title], tomllib.loads(part)["mutant"]) for title, part in zip(parts[1::2], parts[2::2])]


def _said(chapter: Chapter, mutants: list[dict[str, Any]], root: Path) -> list[str]:
    """What the judge says of each mistake, from the cache where nothing has changed."""
    cache = root / "build" / "woven" / f"mistakes-{chapter.slug}-{_fingerprint(chapter, mutants, root)}.json"
    if cache.exists():
        return json.loads(cache.read_text(encoding="utf-8"))
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(functools.partial(_judged, chapter), mutants))
    cache.parent.mkdir(parents=True, exist_ok=True)
    for old in cache.parent.glob(f"mistakes-{chapter.slug}-*.json"):
        old.unlink()
    cache.write_text(json.dumps(said), encoding="utf-8")
    return said


def _judged(chapter: Chapter, mutant: dict[str, Any]) -> str:
    """What the judge says of a learner's file with one mistake."""
    with tempfile.TemporaryDirectory() as folder:
        files = _planted(chapter, mutant, Path(folder))
        found = judge.assess(chapter, files.pop(chapter.module), swaps=files, alone=False)
    if found.passed:
        raise WeaveError(f"{MISTAKES}: {mutant['id']} is planted, and the tests of {chapter} have not caught it")
    return found.message


def _planted(chapter: Chapter, mutant: dict[str, Any], folder: Path) -> dict[str, Path]:
    """A learner's file of the chapter, and of what else the mistake changes, by module."""
    sources = _modules()
    texts = {chapter.module: sources[chapter.module]}
    for old, new in mutant["edits"]:
        found = [module for module, text in (sources | texts).items() if old in text]
        if len(found) != 1:
            raise WeaveError(f"{MISTAKES}: {mutant['id']} edits a text that is in {found or 'no module'}: {old}")
        texts[found[0]] = texts.get(found[0], sources[found[0]]).replace(old, new)
    files = {module: folder / f"{module.partition('.')[2]}.py" for module in texts}
    for module, file in files.items():
        file.write_text(texts[module], encoding="utf-8")
    return files


def _modules() -> dict[str, str]:
    """The text of every module of the course."""
    files = [file for chapter in course.written() for file in course.folder(chapter.package).glob("*.py")]
    return {f"{file.parent.name}.{file.stem}": file.read_text(encoding="utf-8") for file in files}


def _fingerprint(chapter: Chapter, mutants: list[dict[str, Any]], root: Path) -> str:
    names = [package.name for package in read_curriculum(root).packages]
    code = code_digest(root, [*names[: names.index(chapter.package) + 1], "tt-tito"])
    tests = course.unit_tests(chapter).read_bytes()
    return hashlib.sha256(code.encode() + tests + json.dumps(mutants).encode()).hexdigest()[:20]


def _table(chapter: Chapter, mutants: list[dict[str, Any]], said: list[str]) -> str:
    rows = "".join(
        f"<tr><td>{_html(mutant['mistake'])}</td><td>{_message(text, chapter)}</td></tr>"
        for mutant, text in zip(mutants, said)
    )
    head = f"<tr><th>the mistake</th><th><code>tito module test {chapter.number:02d}</code> says</th></tr>"
    summary = f"<summary>{chapter.number:02d} {chapter.title}: {len(mutants)} mistakes</summary>"
    return f'<details class="tt-mistakes">{summary}<table><thead>{head}</thead><tbody>{rows}</tbody></table></details>'


def _message(text: str, chapter: Chapter) -> str:
    """A message as HTML; the section that it names is a link to the book."""
    first, *rest = text.splitlines()
    lines = [f"<samp>{html.escape(first, quote=False)}</samp>", *map(_html, rest)]
    if (section := re.fullmatch(r'See "(.+)"\.', rest[-1] if rest else "")) and (page := _page(section[1], chapter)):
        anchor = slugify(section[1], "-")
        lines[-1] = f'See <a href="../chapters/{page}/#{anchor}">{html.escape(section[1])}</a>.'
    return "<br>".join(lines)


def _page(section: str, chapter: Chapter) -> str | None:
    """The chapter or else the appendix of its package that has a section of this title."""
    package, modules = chapter.module.partition(".")[0], _modules()
    names = [chapter.module, *(name for name in modules if name.startswith(f"{package}."))]
    return next((name.partition(".")[2] for name in names if f"\n# ## {section}\n" in modules[name]), None)


def _html(text: str) -> str:
    """A line of a message, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
