"""The bank of planted mistakes, and what the judge says of each of them.

A mistake is an edit of the reference. It is judged as a learner's file is, and what was said is kept in a cache as long
as neither the chapter, its tests and its mistakes nor the judge has changed. The instructor's page shows it, and the
tests of the bank ask whether each cause is named."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import os
import re
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments import ROOT, code_digest, read_curriculum

from tt_tito import course, judge
from tt_tito.curriculum import Chapter

LOG = logging.getLogger("mkdocs.hooks.mistakes")
WAITING = "waiting"  # the status of a mistake for which there was no time
BANK = Path("tests", "mistakes", "mutants.toml")


@dataclass(frozen=True)
class Mistake:
    """An edit of the reference, and the words in which the tests have to name its cause."""

    id: str
    mistake: str
    edits: list[list[str]]
    says: list[str]


@dataclass(frozen=True)
class Verdict:
    """What the judge says of a mistake."""

    status: str
    message: str


def bank(root: Path) -> dict[Chapter, list[Mistake]]:
    """The mistakes of each chapter; a comment with its number and title stands above them."""
    titles = {chapter.title: chapter for chapter in read_curriculum(root).chapters}
    parts = re.split(r"^# \d\d (.+)$", (root / BANK).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {titles[title]: tomllib.loads(part)["mutant"] for title, part in zip(parts[1::2], parts[2::2])}
    return {chapter: [Mistake(**entry) for entry in entries] for chapter, entries in found.items()}


def verdicts(chapter: Chapter, mistakes: list[Mistake], root: Path, until: float = math.inf) -> list[Verdict]:
    """What the judge says of each mistake of a chapter, from the cache where nothing has changed. It begins with no
    chapter after `until`, in seconds of `time.monotonic()`; the mistakes then have the status WAITING."""
    cache = root / "build" / "woven" / f"mistakes-{chapter.slug}-{_fingerprint(chapter, mistakes, root)}.json"
    if not cache.exists():
        if time.monotonic() > until:
            return [Verdict(WAITING, "")] * len(mistakes)
        begin = time.perf_counter()
        said = _judge_all(chapter, mistakes)
        cache.parent.mkdir(parents=True, exist_ok=True)
        for old in cache.parent.glob(f"mistakes-{chapter.slug}-*.json"):
            old.unlink(missing_ok=True)
        new = cache.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps([asdict(verdict) for verdict in said]), encoding="utf-8")
        new.replace(cache)
        LOG.info(f"{chapter}: {len(mistakes)} mistakes judged in {time.perf_counter() - begin:.1f} s")
    return [Verdict(**entry) for entry in json.loads(cache.read_text(encoding="utf-8"))]


def plant(mistake: Mistake, sources: dict[str, str]) -> dict[str, str]:
    """The modules that a mistake changes, edited. ValueError if one of its texts does not occur exactly once."""
    texts: dict[str, str] = {}
    for old, new in mistake.edits:
        found = [module for module, text in (sources | texts).items() for _ in range(text.count(old))]
        if len(found) != 1:
            raise ValueError(f"{BANK}: {mistake.id} edits a text that occurs {len(found)} times, not once: {old}")
        texts[found[0]] = texts.get(found[0], sources[found[0]]).replace(old, new)
    return texts


def modules() -> dict[str, str]:
    """The text of every module of the course."""
    files = [file for chapter in course.written() for file in course.folder(chapter.package).glob("*.py")]
    return {f"{file.parent.name}.{file.stem}": file.read_text(encoding="utf-8") for file in files}


def _judge_all(chapter: Chapter, mistakes: list[Mistake]) -> list[Verdict]:
    """Judge two mistakes at a time. In threads, which share what the judge has recorded of the chapter's tests."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(functools.partial(_judged, chapter), mistakes))


def _judged(chapter: Chapter, mistake: Mistake) -> Verdict:
    """What the judge says of a learner's file with one mistake; what it changes elsewhere is in use there."""
    sources = modules()
    texts = {chapter.module: sources[chapter.module]} | plant(mistake, sources)
    with tempfile.TemporaryDirectory() as folder:
        files = {module: Path(folder, f"{module.partition('.')[2]}.py") for module in texts}
        for module, file in files.items():
            file.write_text(texts[module], encoding="utf-8")
        found = judge.assess(chapter, files.pop(chapter.module), swaps=files, alone=False)
    return Verdict(found.status, found.message)


def _fingerprint(chapter: Chapter, mistakes: list[Mistake], root: Path) -> str:
    names = [package.name for package in read_curriculum(root).packages]
    code = code_digest(root, [*names[: names.index(chapter.package) + 1], "tt-tito"])
    planted = json.dumps([asdict(mistake) for mistake in mistakes])
    return hashlib.sha256(code.encode() + course.unit_tests(chapter).read_bytes() + planted.encode()).hexdigest()[:20]


if __name__ == "__main__":  # judge them all, so that the next build of the site finds them
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for each, planted in bank(ROOT).items():
        verdicts(each, planted, ROOT)
