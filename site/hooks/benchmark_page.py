"""The benchmark page: tables and bars from committed JSON. Nothing is measured here."""

from __future__ import annotations

import html
import json
from pathlib import Path

OURS = "tinytorch"
UNITS = ("s", 1), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9)


def benchmark_tables(folder: Path) -> str:
    """One section for each committed file of results, newest first."""
    runs = _runs(folder)
    if not runs:
        return "No results are committed yet: `hatch run bench:run` writes them to `site/benchmarks/`."
    return "\n\n".join(_section(run) for run in runs)


def _runs(folder: Path) -> list[dict]:
    """The committed files of results, newest first, each with a title made from its name: `phase4-sparse`."""
    files = sorted(folder.glob("*.json"))
    runs = [{"title": _title(file.stem)} | json.loads(file.read_text(encoding="utf-8")) for file in files]
    return sorted(runs, key=lambda run: run["date"], reverse=True)


def _title(stem: str) -> str:
    phases, _, subject = stem.removeprefix("phase").partition("-")
    if phases.isdigit() and subject.isdigit():
        return f"Phases {phases} and {subject}"
    return f"Phase {phases}: {subject.replace('-', ' ')}" if phases.isdigit() else stem.replace("-", " ")


def _section(run: dict) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in run["machine"].items())
    parts = [f"## {run['title']}", f"{run['date']}, {machine}. Command: `{run['command']}`."]
    workloads: dict[str, list[dict]] = {}
    for row in run["rows"]:
        workloads.setdefault(row["workload"], []).append(row)
    parts += [_workload(rows) for rows in workloads.values()]
    return "\n\n".join(parts)


def _workload(rows: list[dict]) -> str:
    rows = sorted(rows, key=lambda row: row["median"])
    longest = rows[-1]["median"]
    body = "".join(_row(row, longest) for row in rows)
    names = "".join(f"<th>{html.escape(name)}</th>" for name in (rows[0]["unit"], "ratio", "95 %", "spread"))
    head = f'<tr><th colspan="2">{html.escape(rows[0]["title"])}</th>{names}</tr>'
    return f'<table class="tt-bench"><thead>{head}</thead><tbody>{body}</tbody></table>'


def _row(row: dict, longest: float) -> str:
    ours = ' class="tt-ours"' if row["contender"].lower().startswith(OURS) else ""
    bar = f'<td class="tt-bar"><i style="width:{100 * row["median"] / longest:.1f}%"></i></td>'
    ratio, spread = _number(row.get("ratio"), "{:.2f}"), _number(row.get("spread"), "{:.0%}")
    between = "\u2013".join(f"{end:.2f}" for end in row.get("between", ()))
    cells = (_three_digits(row["median"]), ratio, between, spread)
    numbers = "".join(f"<td>{number}</td>" for number in cells)
    return f'<tr{ours}><th scope="row">{html.escape(row["contender"])}</th>{bar}{numbers}</tr>'


PEERS = ["TinyTorch", "TinyTorch, compiled", "PyTorch eager, 2 threads", "MyGrad", "HIPS autograd"]
COMPARED = {
    "mlp": "training step of a multilayer perceptron",
    "lenet": "training step of LeNet",
    "cifar_bn": "training step of a convolutional network",
    "gpt_big": "training step of a GPT",
    "small": "small operations, each",
}


def peer_table(folder: Path) -> str:
    """A small table of ratios to PyTorch for the first page; a contender that was not measured has a dash."""
    found = {(row["workload"], row["contender"]): row for run in reversed(_runs(folder)) for row in run["rows"]}
    rows = [
        "| time, PyTorch = 1 | " + " | ".join(_short(name) for name in PEERS) + " |",
        "| --- |" + " --: |" * len(PEERS),
    ]
    for workload, title in COMPARED.items():
        ratios = [found.get((workload, name), {}).get("ratio") for name in PEERS]
        rows.append(f"| {title} | " + " | ".join(_number(ratio, "{:.2f}") or "–" for ratio in ratios) + " |")
    return "\n".join(rows)


def _short(name: str) -> str:
    names = {"TinyTorch": "the chapters", "TinyTorch, compiled": "with chapter 15", PEERS[2]: "PyTorch"}
    return names.get(name, name)


def package_tables(file: Path, order: list[str]) -> str:
    """A table for each package, in the given order, of the times that pytest-benchmark has saved."""
    if not file.exists():
        return f"No times are committed yet: `hatch run bench:record` writes them to `{file.name}`."
    saved = json.loads(file.read_text(encoding="utf-8"))
    machine = ", ".join(f"{key} {value}" for key, value in saved["machine_info"].items())
    packages: dict[str, list[dict]] = {}
    for benchmark in saved["benchmarks"]:
        packages.setdefault(benchmark["fullname"].split("/")[1], []).append(benchmark)
    tables = [_package(name, packages[name]) for name in sorted(packages, key=order.index)]
    return "\n\n".join([f"{saved['datetime']}, {machine}. Command: `hatch run bench:record`.", *tables])


def _package(name: str, benchmarks: list[dict]) -> str:
    titles = "".join(f"<th>{title}</th>" for title in (html.escape(name), "median", "IQR", "rounds"))
    body = "".join(_benchmark(benchmark["name"], benchmark["stats"]) for benchmark in benchmarks)
    return f'<table class="tt-bench tt-packages"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'


def _benchmark(name: str, stats: dict) -> str:
    function, _, parameters = name.removeprefix("test_").rstrip("]").partition("[")
    words = ", ".join([function.replace("_", " "), *filter(None, parameters.split("-"))])
    numbers = _duration(stats["median"]), _duration(stats["iqr"]), f"{stats['rounds']:,}"
    return f'<tr><th scope="row">{html.escape(words)}</th>{"".join(f"<td>{n}</td>" for n in numbers)}</tr>'


def _duration(seconds: float) -> str:
    unit, factor = next(pair for pair in UNITS if seconds * pair[1] >= 1 or pair[0] == "ns")
    return f"{_three_digits(seconds * factor)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _number(value: float | None, form: str) -> str:
    return form.format(value) if value is not None else ""
