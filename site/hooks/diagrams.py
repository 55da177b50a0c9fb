"""Diagrams in mermaid's language, drawn when the site is built, so that no reader loads a program of megabytes."""

from __future__ import annotations

import re

import flowchart
import sequence
from reading import WeaveError

FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"flowchart": flowchart.figure, "sequenceDiagram": sequence.figure}


def drawn(markdown: str) -> str:
    """The Markdown with every fence of a diagram replaced by its drawing."""
    return FENCE.sub(lambda fence: figure(fence[1]), markdown)


def figure(text: str) -> str:
    """A diagram as one line of HTML: SVG in the page's own colors, with its arrows in words for screen readers."""
    kind = text.split(maxsplit=1)[0] if text.strip() else ""
    if kind not in KINDS:
        raise WeaveError(f"a diagram is a {' or a '.join(KINDS)}, and not a {kind!r}")
    return KINDS[kind](text)
