"""Draw a sequence diagram in mermaid's language as SVG: who calls whom, from top to bottom.

What chapters use of the language is understood: `participant X as a name`, calls `X->>Y: text`, answers `X-->>Y: text`
and `Note over X: text`. Anything else is refused by the line that has it.
"""

from __future__ import annotations

import html
import re

from flowchart import LETTER, WeaveError, escaped

PARTICIPANT = re.compile(r"(?:participant|actor) (\w+)(?: as (.+))?")
MESSAGE = re.compile(r"(\w+)\s*(-->>|->>|-->|->)\s*(\w+)\s*:\s*(.+)")
NOTE = re.compile(r"Note over (\w+)\s*:\s*(.+)")
HEAD, STEP, GAP = 34, 36, 34  # pixels: the height of a name's box, a message, and the least distance of two boxes


def figure(text: str) -> str:
    """A sequence diagram as one line of HTML, with its messages in words for screen readers."""
    names, steps = read(text)
    middles = _columns(names, steps)
    width = middles[-1] + _wide(list(names.values())[-1]) / 2 + 1
    height = HEAD + STEP * len(steps) + 14
    places = dict(zip(names, middles))
    parts = [f'<path class="tt-life" d="M{x:.1f} {HEAD}V{height:.1f}"/>' for x in middles]
    parts += [_box(name, places[key], 1, HEAD - 2) for key, name in names.items()]
    for number, step in enumerate(steps):
        y = HEAD + STEP * (number + 1)
        parts.append(_note(step[2], places[step[1]], y) if step[0] == "note" else _message(step, places, y))
    told = " ".join(_told(step, names) for step in steps)
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" style="--width: {width:.0f}px"'
    label = html.escape(f"Sequence of calls. {told}")
    return f'<figure class="tt-diagram"><svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg></figure>'


def read(text: str) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """The participants by their short names, and the steps: ("note", who, text) or (arrow, from, to, text)."""
    names: dict[str, str] = {}
    steps: list[tuple[str, ...]] = []
    for line in filter(None, map(str.strip, text.strip().splitlines()[1:])):
        if found := PARTICIPANT.fullmatch(line):
            names[found[1]] = found[2] or found[1]
        elif found := NOTE.fullmatch(line):
            names.setdefault(found[1], found[1])
            steps.append(("note", found[1], found[2]))
        elif found := MESSAGE.fullmatch(line):
            for name in (found[1], found[3]):
                names.setdefault(name, name)
            steps.append((found[2], found[1], found[3], found[4]))
        else:
            raise WeaveError(f"this line of a sequence diagram is not understood: {line!r}")
    if not steps:
        raise WeaveError("a sequence diagram has no message")
    return names, steps


def _wide(text: str) -> float:
    return len(text) * LETTER + 28


def _columns(names: dict[str, str], steps: list[tuple[str, ...]]) -> list[float]:
    """The middle of each participant: far enough from the one before for both names and the messages between them."""
    keys, texts = list(names), list(names.values())
    middles = [_wide(texts[0]) / 2 + 1]
    for at in range(1, len(keys)):
        apart = (_wide(texts[at - 1]) + _wide(texts[at])) / 2 + GAP
        for step in steps:
            if step[0] != "note" and {step[1], step[2]} == {keys[at - 1], keys[at]}:
                apart = max(apart, len(step[3]) * LETTER * 0.9 + 30)
        middles.append(middles[-1] + apart)
    return middles


def _box(text: str, x: float, y: float, height: float) -> str:
    wide = _wide(text)
    rect = f'<rect x="{x - wide / 2:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{height:.1f}" rx="2"/>'
    return f'<g class="tt-node">{rect}<text x="{x:.1f}" y="{y + height / 2 + 5:.1f}">{escaped(text)}</text></g>'


def _note(text: str, x: float, y: float) -> str:
    return _box(text, x, y - 18, 24)


def _message(step: tuple[str, ...], places: dict[str, float], y: float) -> str:
    arrow, start, end, text = step
    a, b = places[start], places[end]
    way = 1 if b >= a else -1
    dotted = " tt-dotted" if arrow.startswith("--") else ""
    line = f'<path class="tt-edge{dotted}" d="M{a:.1f} {y:.1f}H{b - 7 * way:.1f}"/>'
    head = f'<path class="tt-head" d="M{b:.1f} {y:.1f}l{-8 * way} -4v8Z"/>'
    return f'{line}{head}<text class="tt-label" x="{(a + b) / 2:.1f}" y="{y - 6:.1f}">{escaped(text)}</text>'


def _told(step: tuple[str, ...], names: dict[str, str]) -> str:
    if step[0] == "note":
        return f"{names[step[1]]}: {step[2]}."
    verb = "answers" if step[0].startswith("--") else "calls"
    return f"{names[step[1]]} {verb} {names[step[2]]}: {step[3]}."
