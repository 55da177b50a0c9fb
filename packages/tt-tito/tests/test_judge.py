"""Learners' files are judged fairly: points for what is right, and a message about what is wrong."""

import ast
import csv
import json
import os
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tt_tensor.teaching import Raised
from tt_tito import course, curriculum, exercises, judging, notebooks, reading
from tt_tito.judge import Assessment, Limits, Mark, assess, grade, handed_in, recording
from tt_tito.judge.reading import Reading
from tt_tito.judge.recording import Check, Recording, questions, record
from tt_tito.judge.sandbox import Run
from tt_tito.judge.values import LARGEST, Thing, decode, encode
from tt_tito.judge.verdict import judge
from tt_tito.reading import Unreadable
from tt_tito.workspace import Workspace

CHAPTER = curriculum.chapter("activations")
REFERENCE = course.reference(CHAPTER).read_text(encoding="utf-8")
NAMES = [exercise.name for exercise in exercises.exercises(REFERENCE)]
SKELETON = exercises.skeleton(REFERENCE, str(CHAPTER))
TENSOR = course.reference(curriculum.chapter("tensor")).read_text(encoding="utf-8")

pytestmark = pytest.mark.slow


def function(head, body):
    return f"def {head}:\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"


def written(*names, text=SKELETON, **bodies):
    """A learner's text: some exercises as in the reference, and some with bodies of their own."""
    nodes = exercises.functions(ast.parse(REFERENCE))
    for name, body in bodies.items():
        text = exercises.graft(text, function(f"{name}({ast.unparse(nodes[name].args)})", body), [name])
    return exercises.graft(text, REFERENCE, names)


@pytest.fixture
def judged(tmp_path):
    def judge(text, **options):
        file = tmp_path / "activations.py"
        file.write_text(text, encoding="utf-8")
        return assess(CHAPTER, file, **options)

    return judge


# ## Points


@pytest.mark.parametrize("chapter", [course.written()[0], course.written()[-1]], ids=str)
def test_the_reference_has_full_marks(chapter):
    found = assess(chapter, course.reference(chapter))
    assert found.full and found.points == found.out_of > 0 and found.right == found.checks > 0, found.message


def test_nothing_is_nothing(judged):
    found = judged(SKELETON)
    assert (found.status, found.points, found.out_of, found.passed) == ("failed", 0, len(NAMES), False)
    assert found.message == "Nothing is written yet: begin with numeric_slope."


def test_what_is_unwritten_is_filled_in_and_gives_no_points(judged):
    found = judged(written("elu", "softmax"))
    assert (found.status, found.passed, found.full, found.points) == ("passed", True, False, 2)
    assert dict(found.lines()) == dict.fromkeys(NAMES, "unwritten") | {"elu": "passed", "softmax": "passed"}
    assert found.summary().startswith(f"2 of {len(NAMES)} exercises pass, {len(NAMES) - 2} to write; ")


def test_one_mistake_costs_one_point(judged):
    found = judged(
        written(*(name for name in NAMES if name != "softmax"), softmax="e = np.exp(x)\nreturn e / e.sum(dim)")
    )
    assert (found.status, found.points) == ("failed", len(NAMES) - 1)
    assert [mark.name for mark in found.exercises if mark.status != "passed"] == ["softmax"]
    assert found.message.startswith("softmax(") and found.message.splitlines()[-1] == 'See "Softmax".'
    assert 0 < found.right < found.checks


def test_each_mistake_has_its_own_message(judged):
    text = written("sigmoid", relu_slope="return x", log_sigmoid="return sigmoid(x)", gelu="while True: pass")
    found = judged(text, limits=Limits(seconds=1))
    marks = {mark.name: mark for mark in found.exercises}
    assert [name for name in NAMES if marks[name].status == "failed"] == ["relu_slope", "gelu", "log_sigmoid"]
    assert "relu_slope(" in marks["relu_slope"].message and "gelu(" in marks["gelu"].message
    assert "log_sigmoid" in marks["log_sigmoid"].message and marks["sigmoid"].points == found.points == 1


def test_exercises_that_fail_only_together(judged):
    seen = "globals().setdefault('SEEN', []).append(1)\nx = as_floats(x)\n"
    seen += "return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0))"
    found = judged(written(elu=seen, relu_slope="return (x > 0) * 1.0 if 'SEEN' not in globals() else x"))
    assert (found.status, found.points) == ("failed", 1) and not found.full
    assert "Each exercise passes with the others from the reference" in found.message.splitlines()[-2]
    assert [mark.name for mark in found.exercises if mark.status == "failed" and mark.message] == ["elu"]


@pytest.mark.parametrize(
    "code, status, says",
    [
        ("np_maximum = 1 / 0", "error", "activations.py raised ZeroDivisionError: division by zero ({place})."),
        ("import a_module_that_is_missing", "error", "Importing activations.py raised ModuleNotFoundError: "),
        ("import socket; socket.socket()", "error", "PermissionError: using the network is refused while a chapter is"),
        ("np.add = np.subtract", "error", "The test came to"),
        ("import os; os._exit(0)", "crashed", "Importing activations.py ended Python with exit status 0."),
    ],
)
def test_a_file_that_does_not_run_has_no_points(judged, code, status, says):
    text = written("softmax", relu_slope="return x") + f"\ndef relu_slope_too(x): pass\n{code}\n"
    found = judged(text)
    place = f"activations.py, line {len(text.splitlines())}"
    assert (found.status, found.points, found.passed) == (status, 0, False)
    if "came to" not in says:
        assert says.format(place=place) in found.message.splitlines()[0]
    assert "No exercise can be judged in this file: with all of them from the reference" in found.message
    assert [mark.name for mark in found.exercises if mark.status == "failed"] == ["relu_slope", "softmax"]


def test_a_file_may_draw(judged):
    assert judged(written("elu") + "\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\n").passed


@pytest.mark.parametrize(
    "name, body, says",
    [
        ("elu", "np.expm1(x)", "elu of shape (2,): it returned None: is a `return` missing?"),
        ("relu_slope", "y = (x > 0) * 1.0", "relu_slope returned None: is a `return` missing?"),
    ],
)
def test_a_forgotten_return_is_asked_for(judged, name, body, says):
    found = judged(written(**{name: body}))
    assert says in found.message and found.points == 0


def test_a_fault_in_another_chapter_costs_no_points(judged, tmp_path):
    broken = tmp_path / "tensor.py"
    broken.write_text(exercises.graft(TENSOR, function("mul(x, y, /)", "return x + y"), ["mul"]), encoding="utf-8")
    found = judged(written("elu", "log_sigmoid"), swaps={"tt_tensor.tensor": broken})
    assert (found.status, found.points, found.stand_ins) == ("failed", 2, ("tt_tensor.tensor",))
    assert "No exercise is at fault, but the stand-in for tt_tensor.tensor" in found.message


def test_a_chapter_runs_on_what_stands_in_for_the_others(judged, tmp_path):
    other = tmp_path / "tensor.py"
    other.write_text(TENSOR + "\nWHOSE = 'mine'\n", encoding="utf-8")
    text = written(*NAMES) + "\nimport tt_tensor.tensor\nassert tt_tensor.tensor.WHOSE == 'mine'\n"
    assert judged(text, swaps={"tt_tensor.tensor": other}).full
    assert judged(text).status == "error"


def test_every_group_counts(judged):
    found = judged(written("elu"), groups=("unit", "integration"))
    assert found.passed and found.checks > record(CHAPTER, "unit").checks


def test_a_group_without_tests_is_an_error(judged, monkeypatch, tmp_path):
    monkeypatch.setitem(recording.GROUPS, "empty", lambda chapter: tmp_path / "test_none.py")
    with pytest.raises(ValueError, match="03 activations has no empty tests"):
        judged(written("elu"), groups=("empty",))


def test_the_report_is_data(judged):
    found = judged(written("elu", relu_slope="print('hello'); return x"))
    data = json.loads(found.to_json())
    assert data["status"] == "failed" and data["points"] == 1 and data["out_of"] == len(NAMES) and not data["full"]
    assert data["exercises"][1]["name"] == "relu_slope" and data["exercises"][1]["message"] == data["message"]
    assert "hello" in found.printed and "hello" not in found.to_json()


def test_a_measurement_is_not_in_the_report(tmp_path):
    setup = curriculum.chapter("setup")
    text, bundle = course.reference(setup).read_text(encoding="utf-8"), "times.append((time"
    assert text.count(bundle) == 1
    (tmp_path / "setup.py").write_text(text.replace(bundle, "times.append(0.3 * (time"), encoding="utf-8")
    first, second = (assess(setup, tmp_path / "setup.py", alone=False) for _ in range(2))
    assert first.status == "failed" and "gave less than 0.6" in first.message and first.to_json() == second.to_json()


# ## Files


@pytest.mark.parametrize(
    "text, says",
    [
        (
            REFERENCE.replace("def softmax(", "def softmax)("),
            "activations.py, line {line} is not Python: unmatched ')'.",
        ),
        (REFERENCE + "\0", "activations.py"),
        ("(" * 1000, "activations.py, line 1 is not Python: too many nested parentheses."),
        ("-" * 100_000 + "1", "activations.py is not Python: MemoryError."),
        ("x" + ".a" * 100_000, "activations.py is not Python: "),
        (REFERENCE + "#" * (1 << 20), "bytes, and at most 1,048,576 are allowed."),
        (REFERENCE.replace("def softplus(", "def soft("), "does not define: softplus."),
        (b"x = '\xe9'", "activations.py, line 1 is not UTF-8 (byte 0xe9): save it as UTF-8."),
    ],
    ids=range(8),
)
def test_what_cannot_be_read(tmp_path, text, says):
    file = tmp_path / "activations.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = assess(CHAPTER, file)
    line = REFERENCE[: REFERENCE.index("def softmax(")].count("\n") + 1
    assert (found.status, found.points) == ("error", 0) and says.format(line=line) in found.message


def test_a_file_that_is_not_there(tmp_path):
    assert (
        assess(CHAPTER, tmp_path / "activations.py").message
        == "activations.py cannot be read: No such file or directory."
    )


def test_files_from_windows(tmp_path):
    file = tmp_path / "activations.py"
    file.write_bytes(b"\xef\xbb\xbf" + written("elu").replace("\n", "\r\n").encode())
    assert assess(CHAPTER, file).passed


def without(name, text=REFERENCE):
    """The text without a function."""
    (found,) = [exercise for exercise in exercises.exercises(text) if exercise.name == name]
    lines = text.splitlines(keepends=True)
    return "".join([*lines[: found.first - 1], *lines[found.last :]])


@pytest.mark.parametrize("name", NAMES)
def test_an_exercise_that_was_deleted_is_unwritten(tmp_path, name):
    file = tmp_path / "activations.py"
    file.write_text(without(name), encoding="utf-8")
    reading = Reading(CHAPTER, file)
    assert name not in reading.written
    reading.code(reading.written)  # the names that others need are there


def test_a_method_that_was_deleted(tmp_path):
    layers = curriculum.chapter("layers")
    text = course.reference(layers).read_text(encoding="utf-8")
    file = tmp_path / "layers.py"
    file.write_text(without("Linear.reset_parameters", text), encoding="utf-8")
    found = assess(layers, file)
    assert found.passed and found.points == found.out_of - 1
    file.write_text(text.replace("class Linear(", "class Linaer("), encoding="utf-8")
    assert "lacks the class Linear" in assess(layers, file).message


def test_lines_are_those_of_the_learner(judged):
    text = "# a comment more\n" * 5 + written(relu_slope="y = 1\nreturn y / 0")
    found = judged(text)
    line = text[: text.index("return y / 0")].count("\n") + 1
    assert f"ZeroDivisionError: division by zero (activations.py, line {line})" in found.message


def test_an_error_inside_of_what_was_filled_in_is_told_where_the_learner_called_it(judged):
    code = written(log_softmax="return softmax(x, 'dim')", softmax_with_temperature="return tt.softmax(x, dim='dim')")
    found = judged(code)
    lines = [number for number, line in enumerate(code.splitlines(), 1) if "'dim'" in line]
    assert any(f"(activations.py, line {line})" in found.message for line in lines), found.message


def test_unreadable_says_why(tmp_path):
    (tmp_path / "activations.py").write_text("x = (", encoding="utf-8")
    with pytest.raises(Unreadable, match="'\\(' was never closed"):
        _ = Reading(CHAPTER, tmp_path / "activations.py").written


# ## Values


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -7,
        10**300,
        0.1,
        float("inf"),
        "naïve \ud800 \x00",
        b"\x00\xff",
        (1, (2.5, "a"), [None]),
        {"a": 1, (1, 2): [3]},
        np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
        np.array(5, np.int64),
        np.zeros((0, 3)),
        np.array([True, False]),
        np.array(["a", "bcd"]),
        np.dtype(np.float16),
        Raised,
        ValueError,
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_data_arrives_as_it_was(value):
    arrived = decode(json.loads(json.dumps(encode(value))))
    assert type(arrived) is type(value)
    if isinstance(value, np.ndarray):
        assert arrived.dtype == value.dtype and arrived.shape == value.shape
        np.testing.assert_array_equal(arrived, value)
    else:
        assert arrived == value


def test_tensors_arrive_as_arrays():
    import tt_tensor as tt

    array, number = decode(encode((tt.ones(2, 3), np.float32(0.1))))
    assert array.shape == (2, 3) and number.shape == () and number.dtype == np.float32


@pytest.mark.parametrize(
    "value, name",
    [
        (object(), "a object object"),
        (10**5000, "a whole number of more than 10000 bits"),
        ("x" * (LARGEST + 1), "a str of length 1,048,577"),
        (np.zeros(LARGEST), "an array of shape (1048576,)"),
        (np.array([object()]), "an array of dtype object"),
        ({1, 2}, "a set object"),
        (type("Local", (), {}), "a class Local"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_things_are_only_named(value, name):
    arrived = decode(json.loads(json.dumps(encode(value))))
    assert isinstance(arrived, Thing) and str(arrived) == name and arrived != decode(encode(value))


@pytest.mark.parametrize(
    "data",
    [
        [1],
        {},
        {"list": [], "tuple": []},
        {"pickle": "gASV"},
        {"list": 5},
        {"list": [[1]]},
        {"dict": [[1]]},
        {"dict": [[{"list": []}, 1]]},
        {"array": ["<f8", [2], "AAAA"]},
        {"array": ["O", [1], "AAAAAAAAAAA="]},
        {"array": ["V8", [1], "AAAAAAAAAAA="]},
        {"array": ["<f8", [1 << 70], ""]},
        {"array": ["{'names'", [1], ""]},
        {"array": ["<f8", "x", "AAAAAAAAAAA="]},
        {"bytes": "?"},
        {"class": 5},
        {"raised": []},
        json.loads('{"list": [' * 60 + "1" + "]}" * 60),
    ],
)
def test_what_encode_does_not_write_is_refused(data):
    with pytest.raises(ValueError, match="no encoded value"):
        decode(data)


# ## Verdicts


def check(call, wanted, *causes, tolerance=1e-4):
    return Check(call, wanted, causes, {"see": "A section", "tolerance": tolerance})


RECORDING = Recording({"t::one": [check("f(1)", 1), check("f(2)", [1, 2])], "t::two": [check("f(3)", ValueError)]})
REFUSED = {"raised": [["builtins.ValueError", "builtins.Exception"], "no", "x.py, line 3"]}
RIGHT = [
    ["import", None],
    *(["test", "t::one"], ["check", "f(1)", 1], ["check", "f(2)", {"list": [1, 2]}], ["end", None]),
    *(["test", "t::two"], ["check", "f(3)", REFUSED], ["end", None]),
]


def verdict(events, end="done"):
    found = judge(RECORDING, Run(events, end), Limits(), course.reference(CHAPTER))
    return found.status, *found.message.splitlines()


def test_all_that_is_wanted_has_to_come():
    assert verdict(RIGHT) == ("passed",)
    assert verdict([*RIGHT, ["test", "t::of the learner's"], ["end", None]]) == ("passed",)


@pytest.mark.parametrize("without", range(len(RIGHT)))
def test_nothing_may_be_missing(without):
    assert verdict([event for index, event in enumerate(RIGHT) if index != without])[0] != "passed"


@pytest.mark.parametrize("other", range(1, len(RIGHT) - 1))
def test_nothing_may_come_in_another_order(other):
    events = [*RIGHT[:other], RIGHT[other + 1], RIGHT[other], *RIGHT[other + 2 :]]
    assert verdict(events)[0] != "passed"


def replaced(index, event):
    return [*RIGHT[:index], event, *RIGHT[index + 1 :]]


@pytest.mark.parametrize(
    "events, says",
    [
        (replaced(2, ["check", "f(1)", 2]), ("failed", "f(1) gave 2, expected 1.", 'See "A section".')),
        (
            replaced(2, ["check", "f(1)", None]),
            (
                "failed",
                "f(1) gave None, expected 1.",
                "Likely: f returned None: is a `return` missing?",
                'See "A section".',
            ),
        ),
        (
            replaced(2, ["check", "g(1)", 1]),
            ("failed", "The test came to g(1), where f(1) was expected.", 'See "A section".'),
        ),
        (
            replaced(6, ["check", "f(3)", {"raised": [["builtins.MemoryError"], "all gone", "x.py, line 3"]}]),
            ("memory", "f(3) raised MemoryError: all gone (x.py, line 3), expected a ValueError.", 'See "A section".'),
        ),
        (
            [*RIGHT[:6], ["end", REFUSED], *RIGHT[8:]],
            ("failed", "On the way to f(3): ValueError: no (x.py, line 3).", 'See "A section".'),
        ),
        (
            replaced(7, ["end", REFUSED]),
            ("failed", "The two raised ValueError: no (x.py, line 3).", 'See "A section".'),
        ),
        (replaced(0, ["import", REFUSED]), ("error", "Importing activations.py raised ValueError: no (x.py, line 3).")),
        ([*RIGHT[:1], ["collect", REFUSED]], ("failed", "Preparing the tests raised ValueError: no (x.py, line 3).")),
        (
            [*RIGHT, ["changed", "numpy.sum"]],
            ("failed", "numpy.sum was replaced by something else: leave it unchanged."),
        ),
        (
            [*RIGHT[:7], ["check", "f(4)", 1], *RIGHT[7:]],
            ("failed", "The two continued where it should have ended.", 'See "A section".'),
        ),
    ],
)
def test_what_is_said(events, says):
    assert verdict(events) == says


@pytest.mark.parametrize(
    "end, status, says",
    [
        ("timeout", "timeout", "did not end within 10 seconds"),
        ("memory", "memory", "took more than 1 GB of memory"),
        ("exit 0", "crashed", "ended Python with exit status 0"),
        ("signal SIGSEGV", "crashed", "crashed Python (SIGSEGV)"),
        ("signal SIGXCPU", "timeout", "crashed Python (SIGXCPU)"),
        ("closed", "crashed", "closed the channel"),
        ("forged", "failed", "wrote into the channel"),
        ("flood", "failed", "sent more than can be judged"),
    ],
)
def test_an_end_before_the_end(end, status, says):
    for length in range(len(RIGHT) + 1):
        found = verdict(RIGHT[:length], end)
        assert found[0] == status and says in found[1], length
    assert verdict(RIGHT[:3], end)[1].startswith("f(2) ")


def test_evidence_that_fails_does_not_fit():
    def endless(value):
        return endless(value)

    recording = Recording({"t": [check("f(1)", endless, (lambda value: value.shape[3], "odd"), "perhaps")]})
    found = judge(
        recording,
        Run([RIGHT[0], ["test", "t"], ["check", "f(1)", 1], ["end", None]], "done"),
        Limits(),
        course.reference(CHAPTER),
    )
    assert found.message.splitlines() == [
        "f(1) gave 1, expected something else.",
        "Likely: perhaps",
        'See "A section".',
    ]


# ## Recordings


@pytest.fixture
def tests_of(tmp_path, monkeypatch):
    """A group of tests with this text."""

    def make(text):
        file = tmp_path / "test_activations.py"
        file.write_text("from tt_tensor.teaching import expect\n" + textwrap.dedent(text), encoding="utf-8")
        monkeypatch.setitem(recording.GROUPS, str(file), lambda chapter: file)
        recording.RECORDINGS.clear()
        recording._texts.cache_clear()
        return str(file)

    return make


def test_a_recording_keeps_what_is_wanted(tests_of):
    group = tests_of("""
        import pytest

        @pytest.mark.parametrize("n", [1, 2])
        def test_f(n):
            wanted = [n]
            expect(f"f({n})", lambda: [n], wanted, ("no", "why"), "perhaps", see="A section", tolerance=1e-6)
            wanted.append(3)
    """)
    found = record(CHAPTER, group)
    assert list(found.tests) == ["test_activations.py::test_f[1]", "test_activations.py::test_f[2]"]
    (kept,) = found.tests["test_activations.py::test_f[2]"]
    assert kept == Check("f(2)", [2], (("no", "why"), "perhaps"), {"see": "A section", "tolerance": 1e-6})


def test_the_questions_hold_no_answers(tests_of):
    name, text = questions(
        CHAPTER, tests_of('def test_f():\n    expect("f()", f(), 42, (41, "nearly"), see="Secret")\n')
    )
    assert name == "test_activations.py" and "expect('f()', f())" in text
    assert not {"42", "41", "nearly", "Secret"} & set(text.replace("'", " ").split())


def test_the_arguments_of_a_test_hold_no_answers(tests_of, judged):
    group = tests_of("""
        import pytest

        @pytest.mark.parametrize("n, wanted, why", [(2, 4.25, "no"), pytest.param(3, 9.25, "yes", id="is 3")])
        @pytest.mark.parametrize(["call", "answer"], [("f", 16.25)], ids=str)
        @pytest.mark.parametrize("kept, other", [(1, 5), (2, 6)], ids=["one", "two"])
        def test_f(n, wanted, why, call, answer, kept, other):
            expect(f"{call}({n})", lambda: kept and n**2 + 0.25, wanted, why, (answer, "a"), (other, "b"), see="Secret")
    """)
    _, text = questions(CHAPTER, group)
    assert not {"4", "9", "16", "5", "6", "no", "yes"} & set(re.split(r"\W+", text)) and "(2, None, None)" in text
    asked = [f"test_activations.py::test_f[{kept}-0-{n}]" for n in ("0", "is 3") for kept in ("one", "two")]
    assert sorted(record(CHAPTER, group).tests) == sorted(asked)
    assert judged(REFERENCE, groups=(group,)).full


def test_no_table_holds_formulas(tests_of):
    _, text = questions(
        CHAPTER,
        tests_of("""
            import pytest
            FORMULAS = {"f": lambda x: 3 * x}
            IN_WORDS = {"f": "three times x"}
            SIZES = {"f": 17}

            @pytest.mark.parametrize("name", FORMULAS)
            def test_f(name):
                expect(f"{name}({SIZES[name]})", 51, FORMULAS[name](SIZES[name]), IN_WORDS[name], see="Secret")
        """),
    )
    assert "FORMULAS = {'f': None}" in text and "SIZES = {'f': 17}" in text and "IN_WORDS" not in text


def test_no_frame_of_a_test_holds_what_is_wanted(tests_of):
    _, text = questions(
        CHAPTER,
        tests_of("""
            def reference(x):
                return x * 1.5

            def test_f():
                x, rng = 2, np.random.default_rng(1)
                wanted, cause = reference(x), "perhaps"
                unused = rng.random()
                total = 0
                total += x
                class Kept:
                    attribute = 7
                expect("f()", lambda: f(x), wanted, cause, see="Secret")
                if x:
                    wanted = 9
            """),
    )
    assert not {"wanted", "reference", "1.5", "perhaps", "9"} & set(text.replace("'", " ").replace("(", " ").split())
    assert all(kept in text for kept in ("unused = rng.random()", "total += x", "attribute = 7", "f(x)", "pass"))


@pytest.mark.parametrize(
    "text, says",
    [
        ("def test_f():\n    expect('f()', 1, 2, see='A section')", "f() gave 1, expected 2."),
        ("def test_f():\n    expect('f()', object, object(), see='A section')", "f() gave"),
        ("def test_f():\n    raise KeyError", "KeyError"),
        ("def test_f():\n    pass", "they check nothing"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_tests_that_the_reference_fails_judge_nobody(tests_of, judged, text, says):
    with pytest.raises(RuntimeError, match="nothing was judged") as error:
        judged(written("elu"), groups=(tests_of(text),))
    assert says in str(error.value)


def test_tests_that_need_what_is_refused_judge_nobody(tests_of, judged):
    group = tests_of("""
        import os, sys
        def test_f():
            expect("processes", lambda: os.spawnv(os.P_WAIT, sys.executable, ["python", "-c", ""]), 0, see="A section")
    """)
    with pytest.raises(
        RuntimeError, match="does not pass .* where learners' files run: processes raised PermissionError"
    ):
        judged(written("elu"), groups=(group,))


def test_a_recording_leaves_no_traces(tests_of):
    group = tests_of("""
        import os
        def test_f(monkeypatch, capsys, tmp_path):
            os.environ["LEFT"] = "behind"
            print("printed")
            expect("f()", lambda: capsys.readouterr().out, "printed\\n", see="A section")
    """)
    before = os.getcwd(), dict(os.environ), set(sys.modules)
    record(CHAPTER, group)
    assert (os.getcwd(), dict(os.environ), set(sys.modules)) == before


def test_a_process_that_runs_on_stand_ins_judges_nobody(tests_of, monkeypatch):
    from importlib.util import spec_from_file_location
    from types import ModuleType

    from tt_tito.swap import StandIn

    module = ModuleType("tt_tensor.nothing")
    loader = StandIn("tt_tensor.nothing", "mine.py")
    module.__spec__ = spec_from_file_location("tt_tensor.nothing", "mine.py", loader=loader)
    monkeypatch.setitem(sys.modules, "tt_tensor.nothing", module)
    with pytest.raises(RuntimeError, match="tt_tensor.nothing is a stand-in in this process"):
        record(CHAPTER, tests_of("def test_f():\n    expect('f()', 1, 1, see='A section')"))


# ## Grading


@pytest.fixture(scope="module")
def handed(tmp_path_factory):
    """What a class has handed in."""
    folder = tmp_path_factory.mktemp("class")
    texts = {
        "ada/activations.py": REFERENCE,
        "ada/notes.py": "no chapter",
        "bob/work/03_activations.py": written("elu", softmax="e = np.exp(x)\nreturn e / e.sum(dim)"),
        "=cyd/03.py": written(softmax="e = np.exp(x)\nreturn e / e.sum(dim)"),
        "dot/readme.txt": "sorry",
        "eve/activations.py": "def f(:",
        ".git/activations.py": "",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def marks(handed):
    return grade.grade([handed], ("unit",))


def test_a_class(marks):
    points = {row.learner: (row.assessment.status, row.assessment.points) for row in marks.rows}
    assert points == {"ada": ("passed", len(NAMES)), "bob": ("failed", 1), "=cyd": ("failed", 0), "eve": ("error", 0)}
    assert marks.without_files == ("dot",) and not grade.full(marks)


def test_the_summary_of_a_class(marks):
    (found,) = grade.summary(marks)
    assert (found.chapter, found.files, found.full) == ("activations", 4, 1)
    assert found.exercises["softmax"] == {"passed": 1, "failed": 3, "unwritten": 0}
    assert found.exercises["elu"] == {"passed": 2, "failed": 1, "unwritten": 1}
    (mistake, times), *_ = found.mistakes
    assert times == 2 and mistake and "See" not in mistake


def test_the_table_of_a_class(marks, tmp_path):
    grade.write_csv(marks, tmp_path / "marks.csv")
    rows = list(csv.DictReader((tmp_path / "marks.csv").read_text(encoding="utf-8").splitlines(keepends=True)))
    assert [row["learner"] for row in rows] == ["'=cyd", "ada", "bob", "eve", "dot", "ada", "dot"]
    assert rows[2]["passed"] == "elu" and rows[2]["failed"] == "softmax" and "gelu" in rows[2]["unwritten"]
    assert (rows[1]["points"], rows[1]["out of"], rows[4]["status"]) == (
        str(len(NAMES)),
        str(len(NAMES)),
        "nothing handed in",
    )
    assert rows[2]["exercises"].startswith("softmax: softmax(") and rows[2]["message"] in rows[2]["exercises"]
    assert [(row["file"], row["status"], row["message"]) for row in rows[-2:]] == [
        ("notes.py", "left", "is not named after a chapter, such as setup, tensor, activations"),
        ("readme.txt", "left", "is neither a Python file nor a notebook"),
    ]
    assert os.listdir(tmp_path) == ["marks.csv"]


def test_the_data_of_a_class(marks):
    data = json.loads(grade.as_json(marks))
    assert [row["learner"] for row in data["marks"]] == ["=cyd", "ada", "bob", "eve"]
    assert data["without_files"] == ["dot"] and data["summary"][0]["files"] == 4


def test_one_file(handed):
    marks = grade.grade([handed / "ada/activations.py"], ("unit",))
    data = json.loads(grade.as_json(marks))
    assert data["status"] == "passed" and data["full"] and data["learner"] == "ada" and grade.full(marks)
    assert grade.as_json(grade.grade([handed / "ada/activations.py"], ("unit",))) == grade.as_json(marks)


def test_one_learner(handed):
    (row,) = grade.grade([handed / "bob"], ("unit",)).rows
    assert (row.learner, row.file, row.assessment.points) == ("bob", "03_activations.py", 1)


@pytest.mark.parametrize(
    "path, says",
    [
        ("ada/notes.py", "is not named after a chapter"),
        ("dot/readme.txt", "neither a Python file nor a notebook"),
        ("dot", "there is nothing to grade"),
        ("nobody", "is neither a file nor a folder"),
    ],
)
def test_what_cannot_be_graded(handed, path, says):
    with pytest.raises(ValueError, match=says):
        grade.grade([handed / path])


def test_a_chapter_that_is_not_installed(tmp_path, monkeypatch):
    last, installed = curriculum.chapters()[-1], course.written()[:-1]
    monkeypatch.setattr(course, "written", lambda: installed)
    (tmp_path / f"{last.slug}.py").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=f"which is not installed: pip install {last.package}"):
        grade.grade([tmp_path / f"{last.slug}.py"])


def test_notebooks(tmp_path):
    pytest.importorskip("jupytext")
    notebooks.write(written("elu"), tmp_path / "activations.ipynb")
    (row,) = grade.grade([tmp_path / "activations.ipynb"], ("unit",)).rows
    assert row.file == "activations.ipynb" and row.assessment.points == 1


STARTED = written("elu")


def notebook(*sources):
    cells = notebooks.cells(STARTED)
    cells[5:5] = [{**notebooks.cells("x = 1\n")[0], "id": str(index), "source": s} for index, s in enumerate(sources)]
    return notebooks.dumps(cells).encode()


UNREADABLE = {
    "no Python.ipynb": notebook("x = 1\ndef f(:"),
    "long.ipynb": notebook("#" * reading.LARGEST),
    "half a character.ipynb": notebook("x = 1").replace(b"x = 1", b"x = '\\ud800'"),
    "no notebook.ipynb": b'{"cells": 5}',
    "no Python.py": b"x = 1\ndef f(:",
    "UTF-16.py": STARTED.encode("utf-16"),
    "Latin-1.py": b"x = 1\ny = '\xe9'",
    "a null byte.py": b"x = 1\0",
    "long.py": b"#" * (reading.LARGEST + 1),
}
WRONG = "display(5)\nvalue = 1 / 0"
RUNNING = {
    ".ipynb": b"\xef\xbb\xbf" + notebook("from tt_tito.nbgrader import check\ncheck()", WRONG),
    ".py": f"\ufeff{STARTED}\n1 / 0".replace("\n", "\r").encode(),
}


@pytest.fixture
def space(tmp_path, monkeypatch):
    pytest.importorskip("jupytext")
    monkeypatch.chdir(tmp_path)
    return Workspace.create(tmp_path)[0]


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_said_as_in_the_workspace(space, name):
    file = space.work / f"activations{Path(name).suffix}"
    file.write_bytes(UNREADABLE[name])
    with pytest.raises(Unreadable, match=f"^{file.name}") as here:
        _ = Reading(CHAPTER, file).written
    with pytest.raises(Unreadable) as there:
        space.text(CHAPTER)
    assert str(here.value) == str(there.value)


@pytest.mark.parametrize("suffix", RUNNING)
def test_a_file_that_does_not_run_is_told_of_as_in_the_workspace(space, suffix):
    file = space.work / f"activations{suffix}"
    file.write_bytes(RUNNING[suffix])
    found = assess(CHAPTER, file)
    assert found == judging.assess(space, CHAPTER, ("unit",)) and found.status == "error"
    place = 'cell 7 ("display(5)"), line 2' if suffix == ".ipynb" else f"line {STARTED.count(chr(10)) + 2}"
    assert f"division by zero ({file.name}, {place})" in found.message


def test_two_files_of_one_chapter(tmp_path):
    """`tito grade` decides, and says so; in a workspace its owner has to."""
    pytest.importorskip("jupytext")
    (tmp_path / "ada").mkdir()
    notebooks.write(REFERENCE, tmp_path / "ada" / "activations.ipynb")
    (tmp_path / "ada" / "activations.py").write_text(written("elu"), encoding="utf-8")
    marks = grade.grade([tmp_path], ("unit",))
    (row,) = marks.rows
    assert (row.file, row.assessment.points, row.others) == ("activations.py", 1, ("activations.ipynb",))
    assert json.loads(grade.as_json(marks))["marks"][0]["others"] == ["activations.ipynb"]
    grade.write_csv(marks, tmp_path / "marks.csv")
    with open(tmp_path / "marks.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["message"] == "Not graded: activations.ipynb."
    assert (lines[1]["status"], lines[1]["file"]) == ("left", "activations.ipynb")


def test_the_name_of_a_notebook_may_be_shouted(tmp_path):
    pytest.importorskip("jupytext")
    file = tmp_path / "Activations.IPYNB"
    file.write_bytes(notebook("value = 1\n1 / 0"))
    line = 2 + notebooks.program(file).split("\n").index("value = 1")
    told = Reading(CHAPTER, file).placed([f"no (Activations.IPYNB, line {line})"])
    assert told == ['no (Activations.IPYNB, cell 6 ("value = 1"), line 2)']


# ## What is handed in, and what is left


def placed(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("", encoding="utf-8")
    return folder


def entries(*paths):
    return {(entry.learner, entry.chapter.slug): entry.name for entry in handed_in.find([*paths]).entries}


@pytest.mark.parametrize(
    "name, learner, slug",
    [
        ("losses.py", "", "losses"),
        ("Losses.PY", "", "losses"),
        ("05.py", "", "losses"),
        ("05_losses.ipynb", "", "losses"),
        ("losses (1).py", "", "losses"),
        ("losses-2.py", "", "losses"),
        ("losses - Copy.py", "", "losses"),
        ("losses - Kopie (2).py", "", "losses"),
        ("s1234567_losses.py", "s1234567", "losses"),
        ("Ada Lovelace_1234567_05_losses.py", "Ada Lovelace_1234567", "losses"),
        ("lovelaceada_12_345_Losses-1.py", "lovelaceada_12_345", "losses"),
    ],
)
def test_names_that_learning_platforms_give(name, learner, slug):
    found = handed_in._read(Path(name))
    assert (found.learner, found.chapter.slug) == (learner, slug)


@pytest.mark.parametrize(
    "name, says",
    [
        ("notes.py", "is not named after a chapter"),
        ("glosses.py", "is not named after a chapter"),
        ("losses.txt", "is neither a Python file nor a notebook"),
        ("losses.zip", "is neither a Python file nor a notebook"),
        ("test_losses.py", "has the name of a file with tests"),
    ],
)
def test_names_of_no_chapter(name, says):
    with pytest.raises(ValueError, match=says):
        handed_in._read(Path(name))


def test_a_flat_folder(tmp_path):
    placed(tmp_path, "ada_1_losses.py", "ada_1_layers.py", "ben_2_losses.py", "ben_2_losses-1.py", "readme.md")
    found = handed_in.find([tmp_path])
    assert [(e.learner, e.name) for e in found.entries] == [
        ("ada_1", "ada_1_layers.py"),
        ("ada_1", "ada_1_losses.py"),
        ("ben_2", "ben_2_losses-1.py"),
    ]
    assert [(left.file, left.reason) for left in found.left] == [
        ("ben_2_losses.py", "is 05 losses again: ben_2_losses-1.py is graded"),
        ("readme.md", "is neither a Python file nor a notebook"),
    ]


def test_nested_folders(tmp_path):
    placed(tmp_path, "ada/zip/zip/losses.py", "ben/work/losses.py", "ben/old/losses.py", "cyd/__MACOSX/._losses.py")
    found = handed_in.find([tmp_path])
    assert [(e.learner, e.name) for e in found.entries] == [("ada", "zip/zip/losses.py"), ("ben", "losses.py")]
    assert found.without_files == ["cyd"]


def test_a_file_beside_the_folders_is_left(tmp_path):
    placed(tmp_path, "ada/losses.py", "ben/losses.py", "losses.py")
    found = handed_in.find([tmp_path])
    assert [entry.learner for entry in found.entries] == ["ada", "ben"]
    (left,) = found.left
    assert left.file == "losses.py" and left.reason.startswith("is beside the learners' folders")


def test_the_tree_of_nbgrader(tmp_path):
    placed(tmp_path, "nbgrader_config.py", "source/05_losses/05_losses.ipynb")
    placed(tmp_path, "submitted/ada/05_losses/05_losses.ipynb")
    placed(tmp_path, "submitted/ada/05_losses/timestamp.txt", "autograded/ada/05_losses/05_losses.ipynb")
    wanted = {("ada", "losses"): "05_losses/05_losses.ipynb"}
    assert entries(tmp_path) == entries(tmp_path / "submitted") == wanted


def test_learners_named_one_by_one(tmp_path):
    placed(tmp_path, "ada/x/losses.py", "ben/losses.py", "ben/.git/losses.py", "cyd/notes.txt")
    assert entries(*sorted(tmp_path.iterdir())) == {("ada", "losses"): "x/losses.py", ("ben", "losses"): "losses.py"}


def test_a_copy_of_the_course_is_no_work(tmp_path):
    placed(tmp_path, "ada/work/losses.py", "ada/packages/tt-tensor/src/tt_tensor/layers.py")
    assert entries(tmp_path) == {("ada", "losses"): "losses.py"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links and pipes")
def test_only_files_are_taken(tmp_path):
    placed(tmp_path, "ada/losses.py")
    (tmp_path / "ben").mkdir()
    (tmp_path / "ben/losses.py").symlink_to(tmp_path / "ada/losses.py")
    (tmp_path / "cyd").symlink_to(tmp_path / "ada")
    (tmp_path / "dot").mkdir()
    os.mkfifo(tmp_path / "dot/losses.py")
    found = handed_in.find([tmp_path])
    assert [entry.learner for entry in found.entries] == ["ada"]
    reasons = {left.learner or left.file: left.reason for left in found.left}
    link = "is a symbolic link, which is not followed"
    assert reasons == {"ben": link, "cyd": link, "dot": "is not a file"}
    with pytest.raises(ValueError, match=link):
        handed_in.find([tmp_path / "ben/losses.py"])


def test_names_are_shown_harmlessly(tmp_path):
    assert handed_in.shown("a\x1b[2J\r\u202eb\udcff") == r"a\x1b[2J\r\u202eb\udcff"
    placed(tmp_path, "a\x1b[2J/losses.py")
    assert entries(tmp_path) == {(r"a\x1b[2J", "losses"): "losses.py"}


def test_a_row_that_cannot_be_judged_costs_no_other_row(handed_in_folder, monkeypatch, tmp_path):
    def assessed(chapter, file, groups):
        if file.parent.name == "ada":
            raise RecursionError("maximum recursion depth exceeded")
        return Assessment(chapter.slug, "passed", (Mark("elu", "passed", 1),))

    monkeypatch.setattr(grade, "assess", assessed)
    tables, lines = [], []
    marks = grade.grade([handed_in_folder], ("unit",), tell=lines.append, came=tables.append)
    assert [(row.learner, row.assessment.status) for row in marks.rows] == [("ada", "not judged"), ("ben", "passed")]
    assert "maximum recursion depth" in marks.rows[0].assessment.message and not grade.full(marks)
    assert [len(table.rows) for table in tables] == [0, 1, 2]
    assert [line[:6] for line in lines[-2:]] == ["1 of 2", "2 of 2"]
    grade.write_csv(marks, tmp_path / "marks.csv")
    first, second = csv.DictReader((tmp_path / "marks.csv").read_text(encoding="utf-8").splitlines())
    assert (first["points"], second["points"]) == ("", "1")
    assert [chapter.files for chapter in grade.summary(marks)] == [1]


@pytest.fixture
def handed_in_folder(tmp_path):
    return placed(tmp_path / "class", "ada/activations.py", "ben/activations.py")
