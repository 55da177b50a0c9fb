"""What `expect` says, and when it says nothing."""

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import Raised, between, expect, measured_between


def said(*arguments, **options):
    """The lines in which `expect` complains; none if it does not."""
    try:
        expect("f(x)", *arguments, see="A section", **options)
    except AssertionError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    "got, wanted",
    [
        (tt.Tensor([1, 2]), [1, 2]),
        (lambda: tt.Tensor([1, 2]), np.array([1.0, 2.00001])),
        (np.float32(np.nan), np.nan),
        ((2, 3), (2, 3)),
        (tt.float32, tt.float32),
        (0.5, between(0, 1)),
        (lambda: tt.ones(2) + tt.ones(3), ValueError),
        (["a"], ["a"]),
        ((tt.ones(2), 2, "a"), (np.ones(2), 2, "a")),
        ([tt.ones(2), tt.ones(3)], [[1, 1], [1, 1, 1]]),
        ({"loss": tt.Tensor(0.5)}, {"loss": 0.5}),
        ((0.3333333, 0.5), (1 / 3, between(0, 1))),
        (lambda: tt.Tensor, tt.Tensor),
    ],
)
def test_what_is_wanted_is_let_pass(got, wanted):
    assert said(got, wanted) == []


@pytest.mark.parametrize(
    "got, wanted, first",
    [
        (1.00123, 1, "f(x) gave 1.001, expected 1."),
        ([1, 2], [1, 3], "f(x) gave [1, 2], expected [1, 3]."),
        (tt.ones(1, 2), [1, 1], "f(x) gave [[1, 1]] of shape (1, 2), expected [1, 1] of shape (2,)."),
        ((2,), (2, 1), "f(x) gave (2,), expected (2, 1)."),
        (True, False, "f(x) gave True, expected False."),
        (2, between(0, 1), "f(x) gave 2, expected between 0 and 1."),
        (2.7, measured_between(0.5, 1), "f(x) gave more than 1, expected between 0.5 and 1."),
        (np.float32(0.1), measured_between(0.5, 1), "f(x) gave less than 0.5, expected between 0.5 and 1."),
        (None, measured_between(0.5, 1), "f(x) gave None, expected between 0.5 and 1."),
        (float("nan"), measured_between(0.5, 1), "f(x) gave nan, expected between 0.5 and 1."),
        (np.zeros(1000), 0, "f(x) gave [0, 0, ..., 0, 0] of shape (1000,), expected 0 of shape ()."),
        (3, ValueError, "f(x) gave 3, expected a ValueError."),
        (tt.zeros(0), (1,), "f(x) gave [], expected (1,)."),
        (([tt.ones(2, 9)], 2 / 3), 0, "f(x) gave ([[[1, 1, ..., 1, 1], [1, 1, ..., 1, 1]]], 0.6667), expected 0."),
        ({"a": (np.float32(0.1),)}, {"a": ("1", None)}, "f(x) gave {'a': (0.1,)}, expected {'a': ('1', None)}."),
        ((100_000, 2), (100_001, 2), "f(x) gave (100000, 2), expected (100001, 2)."),
        ("a\nb\x1b[1m" + "c" * 900, "d", f"f(x) gave a b [1m{'c' * 193}..., expected d."),
        (2, lambda value: value > 3, "f(x) gave 2, expected something else."),
        (2, lambda value: value.size > 3, "f(x) gave 2, expected something else."),
        (None, between(0, 1), "f(x) gave None, expected between 0 and 1."),
        ([[1, 2], [3]], [1, 2], "f(x) gave [[1, 2], [3]], expected [1, 2]."),
    ],
)
def test_what_came_out_and_what_was_expected(got, wanted, first):
    assert said(got, wanted) == [first, 'See "A section".']


def test_an_exception_is_told_with_its_place():
    first, *_ = said(lambda: 1 / 0, 1)
    assert first.startswith("f(x) raised ZeroDivisionError: division by zero (test_teaching.py, line ")


@pytest.mark.parametrize(
    "got, cause",
    [
        (5, "five"),
        (-1, "negative"),
        (lambda: [][0], "index"),
        (7, "Likely: something else"),
    ],
)
def test_the_cause_follows_from_the_evidence(got, cause):
    causes = ["something else", (5, "five"), (lambda value: value < 0, "negative"), (IndexError, "index")]
    assert said(got, 0, *causes)[1] == cause


def test_without_evidence_nothing_is_claimed():
    assert len(said(7, 0, (5, "five"))) == 2


def test_evidence_that_cannot_be_asked_does_not_fit():
    assert len(said(None, 0, (lambda value: value < 0, "negative"))) == 2


def test_a_wanted_function_is_told_by_its_docstring():
    def rising(values):
        """rising numbers"""
        return list(values) == sorted(values)

    assert said(tt.Tensor([1, 2]), rising) == []
    assert said([2, 1], rising)[0] == "f(x) gave [2, 1], expected rising numbers."


def test_the_place_of_an_exception_is_the_innermost_that_is_near():
    def far():
        return [][1]

    def fail():
        return far()

    try:
        fail()
    except IndexError as error:
        line = far.__code__.co_firstlineno + 1
        assert Raised.of(error).place == f"test_teaching.py, line {line}"
        assert Raised.of(error, lambda file, at: True).place == f"test_teaching.py, line {line}"
        assert Raised.of(error, lambda file, at: at > line).place == f"test_teaching.py, line {line + 3}"
        assert Raised.of(error).kinds[:2] == ("builtins.IndexError", "builtins.LookupError")


@pytest.mark.parametrize("told", ["raise TypeError from error", "raise TypeError from None", "raise TypeError"])
def test_the_place_may_be_in_the_cause_of_an_exception(told):
    code = f"def inner():\n    return [][1]\ntry:\n    inner()\nexcept IndexError as error:\n    {told}"
    try:
        exec(compile(code, "told.py", "exec"))
    except TypeError as error:
        assert Raised.of(error).place == "told.py, line 6"
        assert Raised.of(error, lambda file, line: file == "told.py").place == "told.py, line 2"


def test_an_exception_that_cannot_be_told_is_still_one():
    class Mute(ValueError):
        def __str__(self):
            raise RuntimeError

    def fail():
        raise Mute

    assert said(fail, ValueError) == []
    assert said(fail, 1)[0].startswith("f(x) raised Mute:  (test_teaching.py, line ")


def test_tolerance_is_relative():
    assert said(1000.5, 1000, tolerance=1e-3) == [] and said(1.0005, 1, tolerance=1e-4) != []
