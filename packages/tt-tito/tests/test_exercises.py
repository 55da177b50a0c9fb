"""Exercises in a text: found, blanked, filled in."""

import ast
import textwrap

import pytest

from tt_tito import exercises

TEXT = '''\
# # A chapter
#
# Prose: f doubles.


@decorated(1)
def f(x, /, *, by: dict[str, int] = {"a": 1}):  # exercise
    """Twice x."""
    # a remark
    y = x + x

    return y


# More prose.


def g(  # exercise
    x,
    y=lambda z: z,
):
    return x


class C(Base):
    """Has methods."""

    def one(self): return 1  # exercise

    def two(self):  # exercise
        """Two, in
        two lines."""
        def inner():
            return "ü: größer"  # exercise, but no def
        return inner()

    def three(self):
        return 3


async def h():  # exercise
    "Only a docstring."
'''
NAMES = ["f", "g", "C.one", "C.two", "h"]


def normal(text):
    return ast.unparse(ast.parse(text))


def test_found_by_their_marks():
    found = exercises.exercises(TEXT)
    assert [e.name for e in found] == NAMES
    assert (found[0].first, found[0].line, found[0].last, found[0].doc) == (6, 7, 12, "Twice x.")


def test_a_skeleton_keeps_everything_but_the_bodies():
    skeleton = exercises.skeleton(TEXT, "99 demo")
    removed = [line for line in TEXT.splitlines() if line not in skeleton.splitlines()]
    assert [line.strip() for line in removed if line.strip()] == [
        "# a remark",
        "y = x + x",
        "return y",
        "return x",
        "def one(self): return 1  # exercise",
        "def inner():",
        'return "ü: größer"  # exercise, but no def',
        "return inner()",
    ]
    assert 'raise NotImplementedError("99 demo: C.two")' in skeleton
    assert exercises.unwritten(skeleton, NAMES) == NAMES
    assert exercises.exercises(skeleton)[3].doc == "Two, in\ntwo lines."
    assert "    def one(self): raise NotImplementedError" in skeleton


def test_what_is_unwritten():
    assert exercises.unwritten(TEXT, [*NAMES, "absent"]) == [
        "h",
        "absent",
    ]  # nothing but a docstring is nothing written
    assert exercises.unwritten("def f(): raise NotImplementedError", ["f"]) == ["f"]
    assert exercises.unwritten("def f(): raise ValueError('x')", ["f"]) == []


def test_filling_in_restores_the_whole():
    skeleton = exercises.skeleton(TEXT, "99 demo")
    assert normal(exercises.graft(skeleton, TEXT, NAMES)) == normal(TEXT)
    some = exercises.graft(skeleton, TEXT, ["g", "C.one"])
    assert exercises.unwritten(some, NAMES) == ["f", "C.two", "h"]


def test_filling_in_takes_bodies_of_another_style():
    donor = textwrap.dedent("""
        def f(x): return 2 * x

        class C:
          def one(self):
            if True:
              return 1
    """)
    text = exercises.graft(TEXT, donor, ["f", "C.one"])
    space = {"decorated": lambda n: lambda f: f, "Base": object}
    exec(text, space)
    assert (space["f"](4), space["C"]().one(), space["C"]().two()) == (8, 1, "ü: größer")


def test_a_tree_is_filled_in_place():
    tree = ast.parse(exercises.skeleton(TEXT, "99 demo"))
    line = exercises.functions(tree)["C.three"].lineno
    exercises.graft_tree(tree, ast.parse(TEXT), ["f"])
    assert ast.unparse(exercises.functions(tree)["f"]) == ast.unparse(exercises.functions(ast.parse(TEXT))["f"])
    assert exercises.functions(tree)["C.three"].lineno == line


def test_names_that_are_nowhere():
    with pytest.raises(ValueError, match="the text defines no k: it has f, g"):
        exercises.graft(TEXT, "def k(): pass", ["k"])
    with pytest.raises(ValueError, match="the donor defines no f: it has k"):
        exercises.graft(TEXT, "def k(): pass", ["f"])


def test_a_text_that_is_not_python():
    with pytest.raises(SyntaxError):
        exercises.exercises("def f(:")
