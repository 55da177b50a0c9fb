"""The benchmark page: tables and bars from committed JSON. Nothing is measured here."""

from __future__ import annotations

import html
import json
from pathlib import Path

OURS = "tinytorch"


def benchmark_tables(folder: Path) -> str:
    """One section for each committed file of results, newest first."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    runs.sort(key=lambda run: run["date"], reverse=True)
    if not runs:
        return "No results are committed yet: `hatch run bench:run` writes them to `site/benchmarks/`."
    return "\n\n".join(_section(run) for run in runs)


def _section(run: dict) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in run["machine"].items())
    parts = [f"## {run['date']}", f"{machine}. Command: `{run['command']}`."]
    workloads: dict[str, list[dict]] = {}
    for row in run["rows"]:
        workloads.setdefault(row["workload"], []).append(row)
    parts += [_workload(rows) for rows in workloads.values()]
    return "\n\n".join(parts)


def _workload(rows: list[dict]) -> str:
    rows = sorted(rows, key=lambda row: row["median"])
    longest = rows[-1]["median"]
    body = "".join(_row(row, longest) for row in rows)
    names = "".join(f"<th>{html.escape(name)}</th>" for name in (rows[0]["unit"], "ratio", "spread"))
    head = f'<tr><th colspan="2">{html.escape(rows[0]["title"])}</th>{names}</tr>'
    return f'<table class="tt-bench"><thead>{head}</thead><tbody>{body}</tbody></table>'


def _row(row: dict, longest: float) -> str:
    ours = ' class="tt-ours"' if row["contender"].lower().startswith(OURS) else ""
    bar = f'<td class="tt-bar"><i style="width:{100 * row["median"] / longest:.1f}%"></i></td>'
    ratio, spread = _number(row.get("ratio"), "{:.2f}"), _number(row.get("spread"), "{:.0%}")
    numbers = "".join(f"<td>{number}</td>" for number in (_three_digits(row["median"]), ratio, spread))
    return f'<tr{ours}><th scope="row">{html.escape(row["contender"])}</th>{bar}{numbers}</tr>'


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _number(value: float | None, form: str) -> str:
    return form.format(value) if value is not None else ""
