"""A learner's file of a chapter, as text: which exercises are written, and its code with the others filled in.

Nothing of it runs in this process; but parsing takes what time it takes, so that the judge has it done in `Reading`."""

from __future__ import annotations

import ast
import copy
import marshal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tt_tito import course, reading, swap
from tt_tito.curriculum import Chapter
from tt_tito.judge.visible import checks
from tt_tito.exercises import PARSING, exercises, functions, graft_tree, parse, stand_on, unwritten
from tt_tito.reading import Unreadable

__all__ = ["Submission"]


@dataclass(frozen=True)
class Submission:
    """A learner's file, its chapter, and its text, which need not be valid Python."""

    chapter: Chapter
    file: Path
    source: str = ""

    @classmethod
    def of(cls, chapter: Chapter, file: Path) -> Submission:
        """The submission in a Python file."""
        return cls(chapter, file, reading.text(file))

    def placed(self, messages: list[str]) -> list[str]:
        """Messages about the file, which name its lines already."""
        return messages

    @cached_property
    def text(self) -> str:
        """The text of the file. Unreadable if it is not Python."""
        return reading.checked(self.source, self.file.name)

    @cached_property
    def reference(self) -> str:
        """The text of the chapter as the course has it."""
        return course.reference(self.chapter).read_text(encoding="utf-8")

    @cached_property
    def exercises(self) -> list[str]:
        """The names of the chapter's exercises, in the order of its text."""
        with self._reading():
            return [exercise.name for exercise in exercises(self.reference)]

    @cached_property
    def starred(self) -> list[str]:
        """The names of those that may be left out."""
        with self._reading():
            return [exercise.name for exercise in exercises(self.reference) if exercise.starred]

    @cached_property
    def written(self) -> list[str]:
        """The exercises that the learner has written."""
        with self._reading():
            missing = unwritten(self.text, self.exercises)
            return [name for name in self.exercises if name not in missing]

    def code(self, kept: Collection[str]) -> tuple[bytes, list[int]]:
        """The marshalled code of the file with all exercises but the `kept` ones from the reference, and the line
        numbers that this code gets. Unreadable if the file lacks a name that others need."""
        with self._reading():
            tree, donor = parse(self.text), parse(self.reference)
            filled = [name for name in self.exercises if name not in kept]
            for name in [*filled, *checks(self.chapter)]:
                if name not in functions(tree):
                    self._insert(name, tree, donor)
            graft_tree(tree, donor, filled)
            filled += self._graft_checks(tree)
            nodes = functions(tree)
            for name in filled:
                stand_on(nodes[name].body, nodes[name].lineno)
            return self._compiled(tree), [nodes[name].lineno for name in filled]

    def _graft_checks(self, tree: ast.Module) -> list[str]:
        """Put the reference's checks into a tree; their names."""
        nodes, found = functions(tree), checks(self.chapter)
        for name, node in found.items():
            nodes[name].body = copy.deepcopy(node.body)
            nodes[name].decorator_list, nodes[name].args = [], node.args
        return [*found]

    def reference_code(self) -> tuple[bytes, list[int]]:
        """The same for the reference, all of whose code gets the number of the first line."""
        with self._reading():
            tree = parse(self.reference)
            stand_on(tree.body, 1)
            return self._compiled(tree), [1]

    def _compiled(self, tree: ast.Module) -> bytes:
        """The code of a tree that has the names which others need of the chapter."""
        loader = _Tree(self.chapter.module, str(self.file))
        loader.tree = tree
        return marshal.dumps(loader.get_code(self.chapter.module))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turns every error about a text, from Python or from the course, into Unreadable."""
        name = self.file.name
        with PARSING:
            try:
                yield
            except Unreadable:
                raise
            except swap.SwapError as error:
                raise Unreadable(f"{name} stands in for {str(error).partition(' stands in for ')[2]}") from None
            except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError) as error:
                raise Unreadable(f"{name} is not Python: {str(error) or type(error).__name__}.") from None

    def _insert(self, name: str, tree: ast.Module, donor: ast.Module) -> None:
        """Insert a function that the learner's file lacks after the function that it follows in the reference."""
        owner, _, own = name.rpartition(".")
        places, donors = _block(tree, owner), _block(donor, owner)
        if places is None or donors is None:
            raise Unreadable(f"{self.file.name} lacks the class {owner}, to which the exercise {name} belongs.")
        known = [getattr(node, "name", None) for node in donors]
        before = set(known[: known.index(own)]) - {None}
        places_before = [index for index, node in enumerate(places) if getattr(node, "name", None) in before]
        places.insert(places_before[-1] + 1 if places_before else 0, donors[known.index(own)])


class _Tree(swap.StandIn):
    """Compiles a tree instead of a file, after the look at its names that every stand-in gets."""

    tree: ast.Module

    def parse(self) -> ast.Module:
        """The syntax tree that was given, instead of one parsed from the file."""
        return self.tree


def _block(tree: ast.Module, owner: str) -> list[ast.stmt] | None:
    """The statements of a module or of one of its classes; None if there is no such class."""
    node: ast.Module | ast.ClassDef = tree
    for part in owner.split(".") if owner else ():
        inner = [child for child in node.body if isinstance(child, ast.ClassDef) and child.name == part]
        if not inner:
            return None
        node = inner[-1]
    return node.body
