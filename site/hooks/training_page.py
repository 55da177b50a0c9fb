"""The page of trainings: tables and curves from the committed logs of the example programs. Nothing is trained here."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from experiments import svg
from reading import WeaveError


def training(folder: Path) -> str:
    """The results and the curves in a folder: a log `NAME.csv` for each network, a table `NAME.json` for each run.
    Without logs, a run has tables of networks, or the seconds of its parts, and they are shown."""
    logs = {file.stem: _log(file) for file in sorted(folder.glob("*.csv"))}
    if not logs and (files := sorted(folder.glob("*.json"))):
        runs = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
        if all("seconds" in run for run in runs.values()):
            return f"{_results(folder)}\n\n{_seconds(runs)}"
        return "\n\n".join(map(_networks, runs.values()))
    if not logs:
        raise WeaveError(f"there is no log in {folder}")
    return "\n\n".join([_results(folder), f'<figure class="tt-figure">{_curves(logs)}</figure>', _epochs(logs)])


def _log(file: Path) -> list[dict[str, float]]:
    with open(file, encoding="utf-8", newline="") as rows:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(rows)]


def _results(folder: Path) -> str:
    """A row for each run, with what its program measured at the end."""
    files = sorted(folder.glob("*.json"))
    results = {file.stem: json.loads(file.read_text(encoding="utf-8"))["results"] for file in files}
    claims = [row["claim"] for row in next(iter(results.values()))]
    timed = any("minutes" in claim for claim in claims)
    rows = ["| run | " + " | ".join(claims) + ("" if timed else " | minutes") + " |"]
    rows.append("| --- |" + " --: |" * (len(claims) + (not timed)))
    for name, found in results.items():
        minutes = f" | {sum(row['seconds'] for row in found) / 60:.1f}"
        rows.append(f"| {name} | " + " | ".join(row["measured"] for row in found) + ("" if timed else minutes) + " |")
    return "\n".join(rows)


def _seconds(runs: dict[str, dict]) -> str:
    """Where the seconds of each run went."""
    rows = ["| seconds | " + " | ".join(runs) + " |", "| --- |" + " --: |" * len(runs)]
    for part in next(iter(runs.values()))["seconds"]:
        rows.append(f"| {part} | " + " | ".join(f"{run['seconds'][part]:.1f}" for run in runs.values()) + " |")
    rows.append("| in all | " + " | ".join(f"{sum(run['seconds'].values()):.1f}" for run in runs.values()) + " |")
    return "\n".join(rows)


# A program that compresses networks has measured many of them, and has a table for those that came from the same one.


def _networks(run: dict) -> str:
    """The tables of a run, and a last one with what was asked for."""
    tables = []
    for title, table in run["networks"].items():
        lines, form = table["lines"], ".2%" if table["unit"] == "right" else ".3f"
        rows = [f"| {title} | file, KB | memory, KB | multiply-adds | ms | spread | {table['unit']} |"]
        rows.append("| --- |" + " --: |" * 6)
        for line in lines:
            count = line["multiply_adds"] / lines[0]["multiply_adds"]
            sizes = f"{line['file'] / 1e3:,.0f} | {line['memory'] / 1e3:,.0f} | {count:.0%}"
            time = f"{line['seconds'] * 1e3:.2f} | {line['spread']:.0%}"
            rows.append(f"| {line['name']} | {sizes} | {time} | {line['answers']:{form}} |")
        tables.append("\n".join(rows))
    rows = ["| claim | measured | asked | reached |", "| --- | --: | --: | --- |"]
    for row in run["results"]:
        reached = "yes" if row["reached"] else "no"
        rows.append(f"| {row['claim']} | {row['measured']} | {row['threshold']} | {reached} |")
    return "\n\n".join([*tables, "\n".join(rows)])


# What is measured on unseen examples, and, in the first column, what is counted: epochs, or rounds of so many steps.


def _measures(logs: dict) -> list[str]:
    return [name.removeprefix("val_") for name in next(iter(logs.values()))[0] if name.startswith("val_")]


def _counted(logs: dict) -> str:
    return next(iter(next(iter(logs.values()))[0]))


def _curves(logs: dict) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    measures = _measures(logs)
    with matplotlib.rc_context(fname=Path(__file__).with_name("matplotlibrc")):
        figure = Figure(figsize=(4 + 2 * len(measures), 3), layout="constrained")
        for axis, measure in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures):
            for number, (name, log) in enumerate(logs.items()):
                for key, style, what in ((measure, "-", "training"), (f"val_{measure}", "--", "unseen")):
                    values = [row[key] for row in log]
                    axis.plot(range(1, len(log) + 1), values, style, color=f"C{number}", label=f"{name}, {what}")
            axis.set(xlabel=_counted(logs), ylabel=measure)
        axis.legend(fontsize=8)
        label = f"{' and '.join(measures).capitalize()} by {_counted(logs)}, training and unseen: {', '.join(logs)}"
        return svg(figure, "-".join(logs)).replace('role="img"', f'role="img" aria-label="{label}"', 1)


def _epochs(logs: dict) -> str:
    """The share of unseen images that were right by epoch, or, where nothing is right or wrong, the loss on them."""
    names, counted = list(logs), _counted(logs)
    key, form = ("val_accuracy", ".2%") if "accuracy" in _measures(logs) else ("val_loss", ".3f")
    rows = [f"| {counted} | " + " | ".join(names) + " |", "| --: |" + " --: |" * len(names)]
    for epochs in zip(*logs.values()):
        rows.append(f"| {epochs[0][counted]:.0f} | " + " | ".join(f"{row[key]:{form}}" for row in epochs) + " |")
    return "\n".join(rows)
