"""The navigation: phases with their chapters, each chapter with its appendices folded under it, from the curriculum."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import weave
from reference_page import in_navigation

from tt_tito.curriculum import Appendix, Chapter

if TYPE_CHECKING:
    from mkdocs.structure.nav import Navigation

START = [{"The course": "index.md"}, "how-to-read.md", "why-this-order.md", "questions.md"]
PRACTICE = ["learn.md", "teach.md", "swapping.md", "pytorch-programs.md", "differences.md", "command.md"]
MEASURED = ["trainings.md", "benchmarks.md"]


def navigation(root: Path) -> list:
    """The value of `nav` in mkdocs.yml."""
    entries = weave.written(root)
    nav: list = [*START]
    for phase in weave.read_curriculum(root).phases:
        chapters = [entry for entry in entries if isinstance(entry, Chapter) and entry.package in phase.packages]
        if chapters:
            nav.append({f"{phase.number} {phase.title}": [_with_appendices(chapter, entries) for chapter in chapters]})
    guides = [f"guides/{file.name}" for file in sorted((root / "site" / "guides").glob("*.md"))]
    nav += [{"In practice": PRACTICE}, *([{"Guides": guides}] if guides else []), {"Measured": MEASURED}]
    packages: dict[str, list] = {}
    for module in in_navigation(root):
        packages.setdefault(module.split(".")[0], []).append({module.split(".")[1]: f"reference/{module}.md"})
    made = "how-this-book-is-made.md"
    about = [{"About": [made]}] if (root / "site" / made).exists() else []
    return [*nav, {"Reference": [{"Overview": "reference/index.md"}, *({n: p} for n, p in packages.items())]}, *about]


def _with_appendices(chapter: Chapter, entries: list[Chapter | Appendix]) -> dict:
    page = f"chapters/{chapter.slug}.md"
    name = f"{chapter.number:02d} {chapter.title}"
    appendices = [entry for entry in entries if isinstance(entry, Appendix) and entry.chapter == chapter.slug]
    if not appendices:
        return {name: page}
    return {name: [{name: page}, *({entry.title: f"chapters/{entry.slug}.md"} for entry in appendices)]}


def connect(nav: Navigation, root: Path) -> None:
    """Chapters follow each other, and a chapter's appendices come after it for those who are in one of them."""
    pages = {page.file.src_uri: page for page in nav.pages}
    chapters = [e for e in weave.written(root) if isinstance(e, Chapter)]
    chapters.sort(key=lambda chapter: chapter.number)
    appendices = [e for e in weave.written(root) if isinstance(e, Appendix)]
    for at, chapter in enumerate(chapters):
        page = pages[f"chapters/{chapter.slug}.md"]
        following = pages[f"chapters/{chapters[at + 1].slug}.md"] if at + 1 < len(chapters) else None
        if following:
            page.next_page, following.previous_page = following, page
        own = [pages[f"chapters/{entry.slug}.md"] for entry in appendices if entry.chapter == chapter.slug]
        for before, after in zip([page, *own], [*own, following]):
            if before is not page:
                before.next_page = after
            if after in own:
                after.previous_page = before


def repository(root: Path) -> str:
    """The address of the repository that this clone comes from, where that is a place on the Web."""
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        url = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return web_address(url)


def web_address(url: str) -> str:
    """`git@host:owner/name.git` and its kin as `https://host/owner/name`; nothing for a folder."""
    found = re.fullmatch(r"(?:https?://|ssh://git@|git@)(?:[^@/]*@)?([\w.-]+)[:/](.+?)(?:\.git)?/?", url)
    return f"https://{found[1]}/{found[2]}" if found else ""
