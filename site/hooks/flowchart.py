"""Draw a flowchart in mermaid's language as SVG when the site is built, so that no reader loads a program to draw it.

What chapters use of the language is understood: `flowchart LR` (or TD, BT), nodes in seven shapes, chains of arrows
with and without a label, and `A & B`. Anything else is refused by the line that has it.

The layout is Sugiyama's: each node goes to a layer, one below its lowest predecessor; an arrow that passes a layer gets
a waypoint in it; the order in each layer follows the neighbors' until no arrow crosses another that need not.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

from reading import WeaveError

SHAPES = {  # opening and closing brackets: the longest first, since `[` begins many of them
    "([": ("])", "stadium"), "[[": ("]]", "frame"), "[(": (")]", "store"), "((": ("))", "circle"),
    "[": ("]", "box"), "(": (")", "round"), "{": ("}", "choice"),
}  # fmt: skip
ARROW = re.compile(r"\s*(?P<line>-\.->|-->|==>|---)\s*(?:\|(?P<label>[^|]*)\|)?\s*|\s*--\s+(?P<said>[^-]+?)\s+-->\s*")
LETTER, LINE, PAD, GAP, BETWEEN = 7.1, 18, 14, 22, 46  # widths and heights in pixels, of type of 14


@dataclass
class Node:
    """A box of the drawing, or a waypoint of an arrow that passes its layer, which has no text."""

    lines: list[str]
    shape: str = "box"
    layer: int = 0
    place: float = 0.0  # of its middle, across the flow
    inputs: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)

    @property
    def width(self) -> float:
        text = max((len(line) for line in self.lines), default=0) * LETTER
        extra = {"choice": 54, "circle": 8, "frame": 40, "stadium": 36}.get(self.shape, 2 * PAD)
        return max(text + extra, 34.0) if self.lines else 2.0

    @property
    def height(self) -> float:
        if not self.lines:
            return 2.0
        return self.width if self.shape == "circle" else LINE * len(self.lines) + {"choice": 34}.get(self.shape, 16)


@dataclass
class Arrow:
    """From one node to another, with its label; `stops` are the nodes and waypoints that it passes, in that order."""

    start: Node
    end: Node
    label: str = ""
    kind: str = "-->"
    stops: list[Node] = field(default_factory=list)


def figure(text: str) -> str:
    """A flowchart as one line of HTML: SVG in the page's own colors, with its arrows in words for screen readers."""
    direction, nodes, arrows = read(text)
    _layer(nodes, arrows)
    layers = _order(nodes, arrows)
    across = _size(direction, across=True)
    _place(layers, across)
    return _svg(direction, layers, arrows)


# -- reading ----------------------------------------------------------------------------------------------------------


def read(text: str) -> tuple[str, list[Node], list[Arrow]]:
    """The direction, nodes and arrows of a flowchart. WeaveError for a line that is not understood."""
    head, *lines = text.strip().splitlines()
    if not (direction := re.fullmatch(r"flowchart (LR|TD|TB|BT)", head.strip())):
        raise WeaveError(f"a diagram begins with `flowchart LR`, TD or BT, and not with {head!r}")
    nodes: dict[str, Node] = {}
    arrows: list[Arrow] = []
    for line in filter(None, map(str.strip, lines)):
        rest, (before, at) = line, _group(line, 0, nodes)
        while at < len(rest):
            found = ARROW.match(rest, at)
            if not found:
                raise WeaveError(f"this line of a flowchart is not understood from {rest[at:]!r}: {line!r}")
            after, at = _group(rest, found.end(), nodes)
            label = (found["label"] or found["said"] or "").strip().strip('"')
            arrows += [Arrow(a, b, label, found["line"] or "-->") for a in before for b in after]
            before = after
    return direction[1].replace("TB", "TD"), list(nodes.values()), arrows


def _group(line: str, at: int, nodes: dict[str, Node]) -> tuple[list[Node], int]:
    """The nodes at a place of a line, joined by `&`, and where they end."""
    found = []
    while True:
        name = re.compile(r"\s*(\w+)").match(line, at)
        if not name:
            raise WeaveError(f"a node was expected in this line of a flowchart at {line[at:]!r}: {line!r}")
        node, at = nodes.setdefault(name[1], Node([name[1]])), name.end()
        for opening, (closing, shape) in SHAPES.items():
            if line.startswith(opening, at):
                end = line.find(closing, at)
                if end < 0:
                    raise WeaveError(f"a bracket is not closed in this line of a flowchart: {line!r}")
                said = html.unescape(line[at + len(opening) : end].strip().strip('"'))
                node.lines, node.shape, at = re.split(r"<br ?/?>", said), shape, end + len(closing)
                break
        found.append(node)
        if not (more := re.compile(r"\s*&").match(line, at)):
            return found, at + len(line[at:]) - len(line[at:].lstrip())
        at = more.end()


# -- layout -----------------------------------------------------------------------------------------------------------


def _layer(nodes: list[Node], arrows: list[Arrow]) -> None:
    """Give each node its layer; an arrow that leads back in a circle does not count."""
    for arrow in arrows:
        if not _reaches(arrow.end, arrow.start):
            arrow.start.outputs.append(arrow.end)
            arrow.end.inputs.append(arrow.start)
    for _ in nodes:
        for node in nodes:
            node.layer = max((before.layer + 1 for before in node.inputs), default=0)
    for node in nodes:  # a source stands just before what it feeds
        if not node.inputs and node.outputs:
            node.layer = min(after.layer for after in node.outputs) - 1


def _reaches(start: Node, goal: Node) -> bool:
    return start is goal or any(_reaches(node, goal) for node in start.outputs)


def _order(nodes: list[Node], arrows: list[Arrow]) -> list[list[Node]]:
    """The layers, with waypoints, each in the order with the fewest crossings that some passes over them find."""
    layers: list[list[Node]] = [[] for _ in range(max(node.layer for node in nodes) + 1)]
    for node in nodes:
        layers[node.layer].append(node)
        node.inputs, node.outputs = [], []
    for arrow in arrows:
        up = arrow.start.layer <= arrow.end.layer
        first, last = (arrow.start, arrow.end) if up else (arrow.end, arrow.start)
        between = [Node([], layer=layer) for layer in range(first.layer + 1, last.layer)]
        for node in between:
            layers[node.layer].append(node)
        chain = [first, *between, last]
        for before, after in zip(chain, chain[1:]):
            before.outputs.append(after)
            after.inputs.append(before)
        arrow.stops = chain if up else chain[::-1]
    best = [list(layer) for layer in layers]
    for turn in range(12):
        down = turn % 2 == 0
        for layer in layers[1:] if down else layers[-2::-1]:
            places = {id(node): i for other in layers for i, node in enumerate(other)}
            middle = {
                id(node): sum(places[id(n)] for n in near) / len(near)
                if (near := _near(node, down))
                else places[id(node)]
                for node in layer
            }
            layer.sort(key=lambda node: middle[id(node)])
        if _crossings(layers) < _crossings(best):
            best = [list(layer) for layer in layers]
    return best


def _near(node: Node, down: bool) -> list[Node]:
    return node.inputs if down else node.outputs


def _crossings(layers: list[list[Node]]) -> int:
    count = 0
    for layer, following in zip(layers, layers[1:]):
        places = {id(node): i for i, node in enumerate(following)}
        lines = [(i, places[id(end)]) for i, node in enumerate(layer) for end in node.outputs if id(end) in places]
        count += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(lines) for c, d in lines[:i])
    return count


def _size(direction: str, across: bool):
    """A function that gives a node's extent across the flow, or along it."""
    return lambda node: node.width if (direction == "LR") != across else node.height


def _place(layers: list[list[Node]], size) -> None:
    """Where each node is across the flow: near the middle of its neighbors, in order, without touching the next."""
    for layer in layers:
        at = 0.0
        for node in layer:
            node.place, at = at + size(node) / 2, at + size(node) + GAP
    for turn in range(40):
        for layer in layers if turn % 2 else layers[::-1]:
            for node in layer:
                if near := (node.inputs + node.outputs if turn > 20 else _near(node, bool(turn % 2))):
                    weights = [4 if not other.lines or not node.lines else 1 for other in near]
                    node.place = sum(w * other.place for w, other in zip(weights, near)) / sum(weights)
            _apart(layer, size)


def _apart(layer: list[Node], size) -> None:
    """Move neighbors apart that touch, both by the same distance."""
    for _ in range(30):
        for a, b in zip(layer, layer[1:]):
            lacking = a.place + (size(a) + size(b)) / 2 + GAP - b.place
            if lacking > 0:
                a.place, b.place = a.place - lacking / 2, b.place + lacking / 2


# -- drawing ----------------------------------------------------------------------------------------------------------


def _svg(direction: str, layers: list[list[Node]], arrows: list[Arrow]) -> str:
    along, across = _size(direction, across=False), _size(direction, across=True)
    widest = [max(map(along, layer)) for layer in layers]
    labels = [max((len(a.label) for a in arrows if _leaves(a, i)), default=0) for i in range(len(layers))]
    starts, at = [], 0.0
    for wide, label in zip(widest, labels):
        starts.append(at + wide / 2)
        at += wide + max(BETWEEN, label * LETTER * 0.9 + 30 if direction == "LR" else BETWEEN + 16 * bool(label))
    length = starts[-1] + widest[-1] / 2
    nodes = [node for layer in layers for node in layer]
    left = min(node.place - across(node) / 2 for node in nodes)
    breadth = max(node.place + across(node) / 2 for node in nodes) - left

    def point(node: Node, side: float) -> tuple[float, float]:
        """The middle of a node (side 0), or of the side where arrows leave (1) or arrive (-1)."""
        forward, sideways = starts[node.layer] + side * along(node) / 2, node.place - left
        if direction == "LR":
            return forward + 1, sideways + 1
        return sideways + 1, (length - forward if direction == "BT" else forward) + 1

    parts = [_arrow(arrow, point, direction) for arrow in arrows]
    parts += [_node(node, *point(node, 0)) for node in nodes if node.lines]
    width, height = (length, breadth) if direction == "LR" else (breadth, length)
    label = html.escape(f"Flowchart. {_told(arrows)}")
    size = f'viewBox="0 0 {width + 2:.0f} {height + 2:.0f}" style="--width: {width + 2:.0f}px"'
    return f'<figure class="tt-diagram"><svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg></figure>'


def _leaves(arrow: Arrow, layer: int) -> bool:
    return min(arrow.start.layer, arrow.end.layer) == layer


def _told(arrows: list[Arrow]) -> str:
    def name(node: Node) -> str:
        return " ".join(node.lines)

    return " ".join(f"{name(a.start)} to {name(a.end)}{f', {a.label}' if a.label else ''}." for a in arrows)


def _arrow(arrow: Arrow, point, direction: str) -> str:
    """A smooth line through the stops of an arrow, with a head, and its label in the middle of its first part."""
    back = arrow.start.layer > arrow.end.layer
    sides = (-1, 1) if back else (1, -1)
    places = [point(arrow.start, sides[0])]
    places += [point(stop, 0) for stop in arrow.stops[1:-1]]
    x, y = point(arrow.end, sides[1])
    ahead = 7 * (1 if not back else -1)
    end = {"LR": (x - ahead, y), "TD": (x, y - ahead), "BT": (x, y + ahead)}[direction]
    places.append(end)
    path = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
    for (a, b), (c, d) in zip(places, places[1:]):
        first, second = ((a + c) / 2, b), ((a + c) / 2, d)
        if direction != "LR":
            first, second = (a, (b + d) / 2), (c, (b + d) / 2)
        path += f"C{first[0]:.1f} {first[1]:.1f} {second[0]:.1f} {second[1]:.1f} {c:.1f} {d:.1f}"
    u, v = (x - end[0]) / 7, (y - end[1]) / 7
    head = [(x, y), (x - 8 * u - 4 * v, y - 8 * v - 4 * u), (x - 8 * u + 4 * v, y - 8 * v + 4 * u)]
    kind = {"-.->": " tt-dotted", "==>": " tt-thick"}.get(arrow.kind, "")
    parts = [f'<path class="tt-edge{kind}" d="{path}"/>']
    if arrow.kind != "---":
        parts.append(f'<path class="tt-head" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in head)}Z"/>')
    if arrow.label:
        (a, b), (c, d) = places[:2] if not back else places[-2:]
        parts.append(
            f'<text class="tt-label" x="{(a + c) / 2:.1f}" y="{(b + d) / 2 - 1:.1f}">{escaped(arrow.label)}</text>'
        )
    return "".join(parts)


def _node(node: Node, x: float, y: float) -> str:
    w, h = node.width, node.height
    box = f'x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}"'
    left, right, top, bottom = x - w / 2, x + w / 2, y - h / 2, y + h / 2
    bars = f"M{left + 8:.1f} {top:.1f}V{bottom:.1f}M{right - 8:.1f} {top:.1f}V{bottom:.1f}"
    arc = f"a{w / 2:.1f} 5 0 0"
    drum = f"M{left:.1f} {top + 5:.1f}{arc} 1 {w:.1f} 0v{h - 10:.1f}{arc} 1 {-w:.1f} 0zm0 0{arc} 0 {w:.1f} 0"
    shape = {
        "box": f'<rect {box} rx="2"/>',
        "round": f'<rect {box} rx="8"/>',
        "stadium": f'<rect {box} rx="{h / 2:.1f}"/>',
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{w / 2:.1f}"/>',
        "choice": f'<path d="M{left:.1f} {y:.1f}L{x:.1f} {top:.1f}L{right:.1f} {y:.1f}L{x:.1f} {bottom:.1f}Z"/>',
        "frame": f'<rect {box}/><path d="{bars}"/>',
        "store": f'<path d="{drum}"/>',
    }[node.shape]
    first = y - LINE * (len(node.lines) - 1) / 2 + 5 + (2 if node.shape == "store" else 0)
    text = "".join(
        f'<text x="{x:.1f}" y="{first + LINE * i:.1f}">{escaped(line)}</text>' for i, line in enumerate(node.lines)
    )
    return f'<g class="tt-node">{shape}{text}</g>'


def escaped(text: str) -> str:
    """As HTML, without what Markdown would take for its own."""
    return re.sub(r"[*_`$\\]", lambda sign: f"&#{ord(sign[0])};", html.escape(text))
