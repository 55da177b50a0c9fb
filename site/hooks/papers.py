"""Links from the papers that a page names, "(A. Vaswani et al., 2017)", to where they can be read: see papers.toml."""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path

TABLE = Path(__file__).with_name("papers.toml")
# Between the first author and the year there is at most a list of authors, in one sentence, and no tag.
MENTION = r"(?:\b[A-Z]\.\s)*\b{name}\b(?:\bet\sal\.|\b[A-Z]\.|[^.;()<>0-9]){{0,70}}?(?:[\s,]{year}\b|\({year}\))"
TAGS = "pre|code|a|h[1-6]|svg|summary|script|style"
SKIPPED = re.compile(rf"(<({TAGS})\b.*?</\2>)", re.DOTALL)
PARAGRAPH = re.compile(r"<(p|li|td|dd)\b[^>]*>.*?</\1>", re.DOTALL)


@functools.cache
def table() -> list[list]:
    """Rows of first author, year, address and, where two papers need it, a word that is near this one."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))["papers"]


def linked(content: str) -> str:
    """The page with the first mention of each paper turned into a link."""
    seen: set[str] = set()
    return PARAGRAPH.sub(lambda found: _paragraph(found[0], seen), content)


def _paragraph(text: str, seen: set[str]) -> str:
    for name, year, address, *near in table():
        if address in seen or str(year) not in text or name not in text or not all(word in text for word in near):
            continue
        mention = re.compile(MENTION.format(name=name, year=year))
        parts = SKIPPED.split(text)  # text, a skipped element, and the name of its tag, in turn
        for i in range(0, len(parts), 3):
            parts[i], count = mention.subn(rf'<a href="{address}">\g<0></a>', parts[i], count=1)
            if count:
                seen.add(address)
                text = "".join(part for at, part in enumerate(parts) if at % 3 < 2)
                break
    return text
