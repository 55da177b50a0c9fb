"""The reference of the command `tito`, read from its click commands: nothing of it is written by hand."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from tt_tito.cli import tito

HEAD = """\
---
title: The command tito
description: Every command with its arguments, its options and an example, as the program itself tells them.
---

# The command tito

This page is made from the program, and says what `tito COMMAND --help` says. A chapter is called by its number, its
name or both: `07`, `autograd` and `07_autograd` are the same, and a slip of the finger is answered with the nearest.
With `--json` a command prints JSON for a program to read. The exit status is 0 if all is well, 1 if something is not,
and 2 if the command was not understood."""


def command_page() -> str:
    """The page as Markdown: a table of all commands, then a section for each, in the order of the code."""
    found = list(commands(click.Context(tito, info_name="tito")))
    return "\n\n".join([HEAD, _table(found), *map(_section, found)]) + "\n"


def commands(context: click.Context) -> Iterator[click.Context]:
    """The commands under one, at all depths, each before its own."""
    if isinstance(context.command, click.Group):
        for name, command in context.command.commands.items():
            under = click.Context(command, info_name=name, parent=context)
            yield under
            yield from commands(under)


def _table(found: list[click.Context]) -> str:
    rows = [f"| [`{c.command_path}`](#{_anchor(c)}) | {_first_sentence(c)} |" for c in found if not _is_group(c)]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows])


def _section(context: click.Context) -> str:
    heading = f"{'#' * context.command_path.count(' ')}# {context.command_path} {{ #{_anchor(context)} }}"
    told = inspect.cleandoc(context.command.help or "")
    if _is_group(context):
        return f"{heading}\n\n{told}"
    usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    lines = [f"Usage:   {usage}", *_options(context), context.command.epilog]
    fence = "\n".join(["```{ .text .tt-shell .no-copy }", *lines, "```"])
    return f"{heading}\n\n{told}\n\n{fence}"


def _options(context: click.Context) -> list[str]:
    """A line for each option, with what it is for in a column of its own."""
    options = [p for p in context.command.params if isinstance(p, click.Option)]
    records = [p.get_help_record(context) or ("", "") for p in options]
    width = max((len(name) for name, _ in records), default=0)
    lines = [f"{name:{width}}  {text}" for name, text in records]
    return [f"{'' if index else 'Options:':8} {line}" for index, line in enumerate(lines)]


def _is_group(context: click.Context) -> bool:
    return isinstance(context.command, click.Group)


def _anchor(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _first_sentence(context: click.Context) -> str:
    return re.split(r"(?<=\.)\s", " ".join((context.command.help or "").split()))[0]
