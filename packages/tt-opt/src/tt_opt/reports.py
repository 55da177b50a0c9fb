# # Reports
#
# An appendix of chapter 19. At the end of it you can show a profile as a flame graph, open it as a trace in a viewer,
# and send it to a colleague as a page.

from __future__ import annotations

import html
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tt_tensor as tt
from tt_nlp import next_token_loss
from tt_nlp.transformers import small_gpt
from tt_opt.benchmarking import KEYS, Event, Profile, profile, table

# ## Slices
#
# An event knows the modules in which it happened. If successive events share a module, they belong to one stretch of
# time in that module. We call such a stretch a *slice*; it has a name, a depth, a beginning and an end. The modules of
# the first event open the first slices. With each event we close the slices that it does not share and open new ones.
# In the backward pass events come in the opposite order, and the same rule gives us its slices.


class Slice(NamedTuple):
    """A stretch of time in a module, or an event at the end of a stack. Depth 0 is the outermost."""

    name: str
    phase: str
    depth: int
    start: float
    end: float


def slices(events: Sequence[Event]) -> list[Slice]:
    """Return the slices of all modules and events, by start. Those of greater depth are inside the others."""
    found: list[Slice] = []
    open_: list[tuple[str, str, float]] = []  # name, phase and start of each module that is open

    def close(depth, end):
        while len(open_) > depth:
            name, phase, start = open_.pop()
            found.append(Slice(name, phase, len(open_), start, end))

    end = 0.0
    for event in events:
        if event.phase == "outside" and event.stack:  # Python on the way to the next event: a gap in its slices
            continue
        shared = 0
        while shared < min(len(open_), len(event.stack)) and open_[shared][:2] == (event.stack[shared], event.phase):
            shared += 1
        close(shared, end)
        open_ += [(name, event.phase, event.start) for name in event.stack[shared:]]
        end = event.start + event.seconds
        found.append(Slice(event.name, event.phase, len(event.stack), event.start, end))
    close(0, end)
    return sorted(found, key=lambda s: (s.start, s.depth))


# We check it with two modules, the second inside the first.


def check_slices():
    def event(name, stack, start):
        return Event(name, "forward", stack, "", start, 1.0)

    found = slices([event("a", ("m", "m.x"), 0.0), event("b", ("m", "m.x"), 1.0), event("c", ("m",), 2.0)])
    assert [(s.name, s.depth, s.start, s.end) for s in found] == [
        ("m", 0, 0, 3), ("m.x", 1, 0, 2), ("a", 2, 0, 1), ("b", 2, 1, 2), ("c", 1, 2, 3),
    ]  # fmt: skip


# ## A trace
#
# There is a format for such slices, the *trace event format*, which you can open at https://ui.perfetto.dev or
# `chrome://tracing`. It is JSON: a slice is a *complete event*, with the letter X, and times are in microseconds.
# Viewers nest the slices of one thread by their times.


def trace(found: Profile) -> dict[str, Any]:
    """Return a profile in the trace event format, as plain data."""
    began = found.events[0].start if found.events else 0.0
    listed = [
        {
            "name": s.name, "cat": s.phase, "ph": "X", "pid": 1, "tid": 1, "ts": (s.start - began) * 1e6,
            "dur": (s.end - s.start) * 1e6,
        }
        for s in slices(found.events)
    ]  # fmt: skip
    names = {"process_name": "TinyTorch", "thread_name": "main"}
    listed += [{"name": k, "ph": "M", "pid": 1, "tid": 1, "args": {"name": v}} for k, v in names.items()]
    return {"traceEvents": listed, "displayTimeUnit": "ms"}


def save_trace(found: Profile, path: str | os.PathLike) -> None:
    """Write a profile as a file that https://ui.perfetto.dev opens."""
    _write(path, json.dumps(trace(found)))


# We never leave half of a file.


def _write(path, text: str) -> None:
    """Write a whole file or none: under another name first, then rename."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# ## A flame graph
#
# We draw the same slices as a picture (B. Gregg, 2011). Time goes to the right, the outermost module is at the top, and
# a wide bar took long.


def flame_graph(found: Profile) -> Any:
    """Return a matplotlib figure of the slices of a profile, with a colour for each phase."""
    import matplotlib.pyplot as plt

    drawn = slices(found.events)
    began = drawn[0].start if drawn else 0.0
    depth = max((s.depth for s in drawn), default=0)
    figure, axis = plt.subplots(figsize=(10, 0.4 * depth + 1.2))
    colours = {"forward": "C0", "backward": "C1", "outside": "C7"}
    whole = max((s.end for s in drawn), default=began) - began
    for s in drawn:
        left, width = (s.start - began) * 1e3, (s.end - s.start) * 1e3
        axis.barh(s.depth, width, left=left, height=0.9, color=colours[s.phase], edgecolor="white", linewidth=0.3)
        name = s.name.rpartition(".")[2]
        if width > 8 * whole * max(len(name), 3):
            axis.text(left + width / 2, s.depth, name, ha="center", va="center", fontsize=7, clip_on=True)
    axis.margins(x=0)
    axis.set(xlabel="ms", ylim=(depth + 0.6, -0.6), yticks=[])
    figure.tight_layout()
    return figure


# The forward and backward pass of a small GPT, in every detail:


def show_flame_graph():
    """The forward and backward pass of a small GPT as a flame graph, down to each primitive."""
    tt.manual_seed(0)
    model, ids = small_gpt(65, layers=2, width=64, length=32), tt.randint(0, 65, (4, 33))
    with profile(model) as found:
        next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
    return flame_graph(found)


# ## A page
#
# A report is one file of HTML with the picture inside. It loads nothing, so you can simply send it.

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }}
pre {{ overflow-x: auto; font-size: 13px }} svg {{ max-width: 100%; height: auto }}</style></head>
<body><h1>{title}</h1>
<p>{machine}</p>
{body}
</body></html>
"""


def report(found: Profile, title: str = "Profile") -> str:
    """Return a profile as a page of HTML: the machine, the flame graph, and tables by primitive, by module and by
    line."""
    import matplotlib.pyplot as plt

    from tt_tensor import system_info

    info = system_info()
    machine = ", ".join(f"{name} {info[name]}" for name in ("processor", "cores", "python", "numpy", "blas"))
    figure, picture = flame_graph(found), io.StringIO()
    figure.savefig(picture, format="svg")
    plt.close(figure)
    drawing = picture.getvalue()
    parts = [f'<figure role="img" aria-label="Flame graph">{drawing[drawing.index("<svg") :]}</figure>']
    parts += [f"<h2>By {by}</h2>\n<pre>{html.escape(table(found, by, most=30))}</pre>" for by in KEYS]
    return PAGE.format(title=html.escape(title), machine=html.escape(machine), body="\n".join(parts))


def save_report(found: Profile, path: str | os.PathLike, title: str = "Profile") -> None:
    """Write `report` to a file."""
    _write(path, report(found, title))


__all__ = ["Slice", "flame_graph", "report", "save_report", "save_trace", "slices", "trace"]
