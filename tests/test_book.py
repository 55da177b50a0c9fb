"""The book: every chapter has the form that the weaver reads, and the weaver loses nothing and hides no failure."""

import ast
import html
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tt_tito import exercises

ROOT = Path(__file__).parents[1]


def load(name):
    """A script of site/hooks, which is no package: its scripts import each other by their plain names."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "site" / "hooks" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPTS = """
reading experiments mistakes counted flowchart sequence diagrams weave measures benchmark_page course_map program
shell source command_page papers reference_page navigation
"""
(
    reading, experiments, mistakes, counted, flowchart, sequence, diagrams, weave, measures, benchmark_page, course_map,
    program, shell, source, command_page, papers, reference_page, navigation,
) = map(load, SCRIPTS.split())  # fmt: skip
WRITTEN = weave.written(ROOT)


def source_of(entry):
    return (ROOT / entry.source).read_text(encoding="utf-8")


# -- the chapters -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=WRITTEN, ids=lambda entry: entry.slug)
def entry(request):
    return request.param


def test_every_line_of_a_chapter_is_on_its_page(entry):
    page = weave.page(entry, {}, experiments.read_curriculum(ROOT)).splitlines()
    text = re.sub(r"^# ```mermaid\n.*?^# ```$", "", source_of(entry), flags=re.MULTILINE | re.DOTALL)  # it is drawn
    title, *lines = [weave.NOQA.sub("", line) for line in text.splitlines() if line.strip("# ")]
    assert page.index(f"# {weave.title_of(entry, reading.read_chapter(source_of(entry), entry.slug))} {{ #top }}")
    at = 0
    for line in lines:
        as_it_is, as_prose = line.removeprefix("# "), line.lstrip().removeprefix("# ")  # prose may stand in a class
        places = [page.index(wanted, at) for wanted in (as_it_is, as_prose) if wanted in page[at:]]
        assert places, f"{entry.source}: not on the page, or out of order: {line!r}"
        at = min(places) + 1
    assert title.startswith("# # ")


def test_the_title_carries_no_number_and_the_chapter_has_a_contract(entry):
    text = reading.read_chapter(source_of(entry), entry.source)
    assert not text.title[0].isdigit(), f"{entry.source}: the number of a chapter stands in curriculum.toml only"
    contract = [block for block in text.blocks if getattr(block, "aside", "") == reading.CONTRACT]
    assert contract or isinstance(entry, weave.Appendix), f"{entry.source} has no __all__"


def test_every_public_function_and_class_says_what_it_does(entry):
    text = reading.read_chapter(source_of(entry), entry.source)
    public = [node for node in text.tree.body if getattr(node, "name", "") in text.public]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    assert not silent, f"{entry.source}: no docstring, so nothing in the reference: {', '.join(silent)}"


def test_a_check_has_at_most_ten_lines(entry):
    text = reading.read_chapter(source_of(entry), entry.source)
    checks = [node for node in text.tree.body if getattr(node, "name", "") in text.experiments("check_")]
    long = {node.name: node.end_lineno - node.lineno for node in checks if node.end_lineno - node.lineno > 10}
    assert not long, f"{entry.source}: split these checks, whose bodies are longer than ten lines: {long}"


def test_importing_the_chapters_prints_nothing_and_draws_nothing():
    modules = ", ".join(entry.module for entry in WRITTEN)
    program = f"import sys\nimport {modules}\nassert 'matplotlib' not in sys.modules, 'a chapter imports matplotlib'"
    process = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


# -- reading ----------------------------------------------------------------------------------------------------------

DEMO = '''# # Demo
#
# One sentence.

import math

__all__ = ["area"]


def area(radius):  # exercise
    """The area of a circle."""
    # a comment inside code
    text = """
# not prose but a string
"""
    return math.pi * radius**2


def check_area():
    assert area(1) > 3


def show_area():
    print("area", round(area(2), 2))


SCALE = 2

# ## Exercises
#
# Write `double`.


def double(x):
    return SCALE * x


# ## What hurts next
#
# The end.

LAST = 1
'''


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A function that writes a course of one chapter and returns (its folder, its one chapter)."""

    def write(source):
        tito, demo = tmp_path / "packages/tt-tito/src/tt_tito", tmp_path / "packages/tt-demo/src/tt_demo"
        for folder in (tito, demo):
            folder.mkdir(parents=True, exist_ok=True)
        (tito / "curriculum.toml").write_text(CURRICULUM, encoding="utf-8")
        (demo / "__init__.py").touch()
        (demo / "demo.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(demo.parent)
        path = [str(demo.parent), str(ROOT / "packages" / "tt-tito" / "src")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
        return tmp_path, weave.written(tmp_path)[0]

    return write


CURRICULUM = """
order = ["demo"]

[[phases]]
title = "Only"
packages = ["tt-demo"]
milestone = "none"

[chapters.demo]
package = "tt-demo"
title = "Demo"
says = "it's <round>"
solved_by = "area"
unlocks = "circles"
"""


def test_prose_and_code_come_in_the_order_of_the_file():
    text = reading.read_chapter(DEMO, "demo.py")
    kinds = [type(block).__name__ for block in text.blocks]
    assert (text.title, text.public) == ("Demo", ["area"])
    assert kinds == ["Prose", "Code", "Code", "Code", "Code", "Prose", "Code", "Prose", "Code"]
    assert [block.show for block in text.blocks if isinstance(block, reading.Code) and block.show] == ["show_area"]
    assert "# not prose but a string" in text.blocks[3].source
    assert "\n\n\n" not in text.blocks[3].source
    assert text.experiments("check_") == ["check_area"]


def test_a_comment_that_stands_by_itself_in_a_class_is_prose():
    source = """# # T

@decorated
class Circle:
    \"\"\"Round.\"\"\"

    # Made
    # of a radius.

    def __init__(self):
        pass

    # A heading of the next member.
    def area(self):

        # inside a member

        pass

    # ### The rest
    #
    # Once more.

    radius = 1
"""
    title, first, made, middle, rest, last = reading.read_chapter(source, "t.py").blocks
    assert (title.text, first.source) == ("", '@decorated\nclass Circle:\n    """Round."""')
    assert (made.text, made.line, rest.text) == ("Made\nof a radius.", 7, "### The rest\n\nOnce more.")
    assert middle.source.splitlines()[:3] == ["    def __init__(self):", "        pass", ""] and middle.line == 10
    assert "# A heading" in middle.source and "# inside a member" in middle.source
    assert (last.source, last.line) == ("    radius = 1", 24)


def test_a_public_check_is_no_experiment():
    text = reading.read_chapter(
        '# # T\n\n__all__ = ["check_gradients"]\n\n\ndef check_gradients(f):\n    pass\n', "t.py"
    )
    assert text.experiments("check_") == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("# # T\n\nx = [\n# hidden\n1]\n", r"t\.py:4: a comment at column 0 inside a statement"),
        ("# # T\n\n# %%\nx = 1\n", r"t\.py:3: '# %%' marks a cell"),
        ("# # T\n\n# +\nx = 1\n# -\n", r"t\.py:3: '# \+' marks a cell"),
        ("# # T\n\n#no space\nx = 1\n", r"t\.py:3: prose begins with '# '"),
        ("x = 1\n", r"t\.py:1: a chapter begins with its title"),
    ],
)
def test_what_is_neither_prose_nor_code_is_refused(source, message):
    with pytest.raises(reading.WeaveError, match=message):
        reading.read_chapter(source, "t.py")


def test_measures_of_a_known_chapter():
    demo = measures.measure(DEMO, "demo.py")
    assert (demo.words, demo.code, demo.longest_run, demo.at_line) == (11, 16, 13, 5)
    assert (demo.median_run, demo.checks, demo.shows, demo.exercises) == (2, 1, 1, 1)


SPOKEN = """# # Voices
#
# We add two numbers. Do you see why? Somebody who
# adds must carry! Who carries the one? See [the sum](sum.md).
#
# | We are | a table |
# | --- | --- |
#
# - One must count, e.g. `a + b`
# - The gradient of $$we$$ is right.

__all__ = []
"""


def test_sentences_and_their_voice():
    assert measures.sentences(SPOKEN, "spoken.py") == [
        "We add two numbers.", "Do you see why?", "Somebody who adds must carry!",
        "Who carries the one?", "See the sum.", "One must count, e.g. `a + b`", "The gradient of is right.",
    ]  # fmt: skip
    voice = measures.measure(SPOKEN, "spoken.py")
    assert (voice.we, voice.you, voice.impersonal, voice.terms) == (14.3, 14.3, 28.6, 1)


def test_measures_are_printed_and_sentences_drawn(capsys):
    measures.main(["tensor"])
    assert "02 tensor" in capsys.readouterr().out
    measures.main(["tensor", "--sentences", "3"])
    assert len(capsys.readouterr().out.split("\n  ")) == 4


# -- weaving ----------------------------------------------------------------------------------------------------------


def test_a_page_shows_what_the_experiments_printed(course):
    root, entry = course(DEMO)
    page = weave.weave([entry], root)["demo"]
    assert "# 01 · Demo { #top }" in page
    assert "it&#x27;s &lt;round&gt;" in page
    assert page.index("def show_area") < page.index("area 12.57\n```") < page.index("SCALE = 2")
    assert page.index("<summary>One answer: double") < page.index("def double") < page.index("What hurts next")
    assert page.count("<summary>One answer") == 1  # the code after the exercises is not folded


def test_each_exercise_has_an_answer_of_its_own():
    check = "def check_first():\n    assert first(1)"
    source = f"LIMIT = 3\n\n@cache\ndef first(x):\n    return x\n\n{check}\n\nclass Second:\n    pass"
    names, code = zip(*weave._answers(source))
    assert names == ("first", "Second")
    assert "\n\n".join(code) == source
    method = "    def forward(self):\n        pass"
    assert weave._answers(method) == [("forward", method)]
    assert weave._answers("def show_it():\n    pass") == [("the code", "def show_it():\n    pass")]


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ('raise ZeroDivisionError("the mend")', 5, "ZeroDivisionError: the mend"),
        ("return int('x')", 5, "ValueError: invalid literal"),
        ("raise SystemExit(0)", 5, "SystemExit"),
        ("return 'a string'", 1, "it must return None, a figure or a list of figures"),
        ("import os; os._exit(3)", None, "ended with 3"),
    ],
)
def test_an_experiment_that_fails_makes_no_page(course, body, line, message):
    root, entry = course(f'# # T\n\n\ndef show_it():\n    {body}\n\n\n__all__ = ["none"]\n')
    with pytest.raises(reading.WeaveError) as caught:
        weave.weave([entry], root)
    place = f"packages/tt-demo/src/tt_demo/demo.py:{line}: " if line else "packages/tt-demo/src/tt_demo/demo.py: "
    assert str(caught.value).startswith(place)
    assert message in str(caught.value)
    assert not list((root / "build").rglob("*.json"))


def test_an_endless_experiment_is_ended_and_the_others_run(course, monkeypatch):
    monkeypatch.setattr(experiments, "TIME_LIMIT", 2)
    endless = "def show_endless():\n    while True:\n        pass\n\n\ndef show_more():\n    print('more')\n"
    root, entry = course(f'# # T\n\n\n{endless}\n\n__all__ = ["none"]\n')
    told, warned = [], []
    page = weave.weave([entry], root, told.append, warned.append)["demo"]
    assert "longer than 2 seconds, so it was ended" in page and "\nmore\n" in page
    assert warned == [
        "packages/tt-demo/src/tt_demo/demo.py: show_endless took longer than 2 s; the page lacks its output"
    ]
    assert "tt_demo.demo: 2 experiments in " in told[0] and "show_endless 2.0" in told[0]
    assert not list((root / "build").rglob("*.json")), "what was late is tried again"


def test_what_a_learner_writes_is_marked_without_its_signature_and_docstring(course):
    root, entry = course(DEMO)
    page = weave.weave([entry], root)["demo"]
    code = page[page.index("```{ .python .tt-code hl_lines=") :]
    marked = [int(number) for number in re.search('hl_lines="([^"]*)"', code)[1].split()]
    lines = code.splitlines()
    assert lines[marked[0] - 1] == '    """The area of a circle."""'
    assert lines[marked[0]] == "    # a comment inside code" and lines[marked[-1]] == "    return math.pi * radius**2"
    assert marked == list(range(marked[0], marked[-1] + 1))
    assert "1 exercise to write" in page and "minutes to read" in page


def test_lines_are_found_where_the_page_has_fewer_empty_ones():
    source = "a\n\n\nb\nc\n\nd\n"
    assert weave.lines_of(reading.Code(1, "a\n\nb\nc\n\nd"), source, {4, 5, 6, 7}) == [3, 4, 5, 6]
    assert weave.lines_of(reading.Code(1, "a\n\nb\nc\n\nd"), source, {1, 5}) == [1, 4]


def test_a_figure_has_the_first_line_of_the_docstring_as_its_text(course):
    pytest.importorskip("matplotlib", reason="matplotlib draws the figures")
    plot = '"""A line & its slope."""\n    import matplotlib.pyplot as plt\n    return plt.figure()'
    root, entry = course(f'# # T\n\n\ndef show_it():\n    {plot}\n\n\n__all__ = ["none"]\n')
    assert 'role="img" aria-label="A line &amp; its slope."' in weave.weave([entry], root)["demo"]
    figures = {"text": "", "figures": ['<svg role="img">'] * 2}
    assert [*weave._output(figures, "show_two_lines", "")][1].count('aria-label="Figure: two lines (2)"') == 1


def test_figures_take_the_colour_of_the_text(course):
    pytest.importorskip("matplotlib", reason="matplotlib draws the figures")
    plot = "import matplotlib.pyplot as plt\n    figure, axes = plt.subplots()\n    axes.plot([1, 2], color='k')"
    root, entry = course(f'# # T\n\n\ndef show_it():\n    {plot}\n    return figure\n\n\n__all__ = ["none"]\n')
    page = weave.weave([entry], root)["demo"]
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert "stroke: currentColor" in svg
    assert "#000000" not in svg
    assert "\n" not in svg  # one line, so that Markdown leaves it alone


def test_a_figure_that_is_not_returned_is_an_error(course):
    pytest.importorskip("matplotlib", reason="matplotlib draws the figures")
    body = "import matplotlib.pyplot as plt\n    plt.plot([1, 2])"
    root, entry = course(f'# # T\n\n\ndef show_it():\n    {body}\n\n\n__all__ = ["none"]\n')
    with pytest.raises(reading.WeaveError, match="drew a figure and did not return it"):
        weave.weave([entry], root)


def test_experiments_run_again_when_code_changes_and_only_then(course, monkeypatch):
    root, entry = course(DEMO)
    runs = []
    run = experiments.run_apart
    monkeypatch.setattr(experiments, "run_apart", lambda *arguments: runs.append(arguments) or run(*arguments))
    weave.weave([entry], root)
    weave.weave([entry], root)
    course(DEMO.replace("One sentence.", "Two sentences. Really.").replace("The area of", "How large"))
    assert "Really." in weave.weave([entry], root)["demo"]
    assert len(runs) == 1
    course(DEMO.replace("math.pi", "3"))
    assert "area 12\n" in weave.weave([entry], root)["demo"]
    assert len(runs) == 2


def test_output_with_fences_stays_in_its_box():
    box = next(weave._output({"text": "a ```` b", "figures": []}, "show_it", ""))
    fence = box[: box.index("{")]
    assert len(fence) > 4
    assert box.endswith("\n" + fence)


def test_a_printed_flowchart_is_drawn():
    text, diagram = weave._output({"text": "flowchart LR\n    a --> b", "figures": []}, "show_it", "")
    assert "tt-output" in text
    assert diagram == flowchart.figure("flowchart LR\n    a --> b")


def test_the_command_writes_markdown_and_names_an_unknown_chapter(tmp_path, capsys):
    with pytest.raises(SystemExit):
        weave.main(["--out", str(tmp_path), "nowhere"])
    assert "no such chapter: nowhere" in capsys.readouterr().err


# -- the hand-written pages -------------------------------------------------------------------------------------------


def test_the_map_reads_from_left_to_right_and_links_what_is_written():
    course = experiments.read_curriculum()
    drawn = course_map.course_map(course, {"setup", "tensor"})
    stops = re.findall(r'<span class="tt-phase">(\d)|<b>(\d\d)</b>', drawn)
    assert [chapter for _, chapter in stops if chapter] == [f"{n:02d}" for n in range(1, len(course.chapters) + 1)]
    assert [phase for phase, _ in stops if phase] == [str(phase.number) for phase in course.phases]
    assert stops[0][0] == "1" and "1 Foundation" in drawn, "a row begins with the name of its phase"
    assert drawn.count("<a href=") == drawn.count('href="chapters/') == 2
    assert "XOR 1969" in drawn


def test_a_build_judges_mistakes_only_as_long_as_it_has_time(tmp_path, monkeypatch):
    monkeypatch.setattr(mistakes, "_fingerprint", lambda *_: "0")
    monkeypatch.setattr(mistakes, "_judge_all", lambda _, planted: [mistakes.Verdict("failed", "No.")] * len(planted))
    chapter, planted = next(iter(mistakes.bank(ROOT).items()))
    assert {v.status for v in mistakes.verdicts(chapter, planted, tmp_path, until=0)} == {mistakes.WAITING}
    assert {v.message for v in mistakes.verdicts(chapter, planted, tmp_path)} == {"No."}
    assert {v.message for v in mistakes.verdicts(chapter, planted, tmp_path, until=0)} == {"No."}, "from the cache"


def test_numbers_on_pages_are_counted():
    chapters = [entry for entry in WRITTEN if isinstance(entry, weave.Chapter)]
    assert counted.count("chapters", ROOT) == str(len(chapters))
    marks = sum(len(re.findall(r"# exercise(?: \(starred\))?$", source_of(e), re.MULTILINE)) for e in chapters)
    assert counted.count("exercises", ROOT) == str(marks)
    assert int(counted.count("words", ROOT).replace(",", "")) > 1000 * len(chapters)
    with pytest.raises(reading.WeaveError, match="'nothing', which nothing counts"):
        counted.count("nothing", ROOT)


def test_the_table_of_peers_has_a_dash_for_what_was_not_measured(tmp_path):
    rows = [
        {"workload": "mlp", "contender": "TinyTorch, compiled", "title": "", "unit": "s", "median": 1, "ratio": 0.5}
    ]
    run = {"machine": {}, "date": "2026-01-01", "command": "", "rows": rows}
    (tmp_path / "phase4-a.json").write_text(json.dumps(run), encoding="utf-8")
    table = benchmark_page.peer_table(tmp_path).splitlines()
    assert "the chapters | with chapter 15 | PyTorch | MyGrad" in table[0]
    assert table[2].endswith("perceptron | – | 0.50 | – | – | – |")
    assert [benchmark_page._title(stem) for stem in ("phase1-2", "phase4-kernel-sets", "a-b")] == [
        "Phases 1 and 2", "Phase 4: kernel sets", "a b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("(A. Vaswani et al., 2017)", ">A. Vaswani et al., 2017</a>"),
        ("Adam (Kingma and Ba, 2014) keeps", 'href="https://arxiv.org/abs/1412.6980">Kingma and Ba, 2014</a>'),
        ("(Kingma and Welling, 2014)", 'href="https://arxiv.org/abs/1312.6114">'),
        ("(Loshchilov\nand Hutter, 2017)", "Loshchilov\nand Hutter, 2017</a>"),
        ("M. Zhu and S. Gupta (2017) let", "M. Zhu and S. Gupta (2017)</a> let"),
        ("Rosenbrock's function (1960)", "Rosenbrock's function (1960)</a>"),
    ],
)
def test_the_first_mention_of_a_paper_is_a_link(text, link):
    page = papers.linked(f"<p>{text}</p><p>{text}</p>")
    assert link in page and page.count("<a ") == 1


def test_what_is_no_mention_of_a_paper_stays():
    for text in ["<pre>Kudo, 2018</pre>", '<p><a href="#">Kudo, 2018</a> <code>Kudo, 2018</code></p>', "<p>Kudo</p>"]:
        assert papers.linked(text) == text
    assert len(papers.table()) > 70 and all(row[2].startswith("https://") for row in papers.table())


def test_every_paper_that_a_chapter_names_has_an_address():
    missing = []
    for entry in WRITTEN:
        blocks = reading.read_chapter(source_of(entry), entry.source).blocks
        text = " ".join(block.text for block in blocks if isinstance(block, reading.Prose))
        named = re.findall(r"([A-Z]\w+) et al\.,\s+((?:19|20)\d\d)", text)
        known = {(name.split()[-1], str(year)) for name, year, *_ in papers.table()}
        missing += [f"{entry.slug}: {name}, {year}" for name, year in named if (name, year) not in known]
    assert not missing, f"add them to site/hooks/papers.toml: {missing}"


CHART = """flowchart LR
    a["one (1)"] -- "first" --> b{"choose"} & c[("kept")]
    b -.->|maybe| d(["done"])
    a --> d
    d --> a
"""


def test_a_flowchart_is_drawn_in_layers_without_overlap_and_told():
    drawn = flowchart.figure(CHART)
    boxes = re.findall(r'<rect x="(\S+)" y="\S+" width="(\S+)" height', drawn)
    places = dict(re.findall(r'<text x="(?P<x>\S+)" y="\S+">(?P<name>[^<]+)</text></g>', drawn))
    order = sorted((float(x), name) for x, name in places.items())
    assert order[0][1] == "one (1)" and order[-1][1] == "done"
    (left, width), (right, _) = [tuple(map(float, box)) for box in boxes]
    assert left + width < right
    assert 'aria-label="Flowchart. one (1) to choose, first. one (1) to kept, first. choose to done, maybe.' in drawn
    assert drawn.count('class="tt-head"') == 5 and drawn.count("tt-dotted") == 1
    assert "\n" not in drawn and "<script" not in drawn


@pytest.mark.parametrize("layout", ["TD", "LR", "BT"])
def test_nodes_of_a_layer_do_not_touch(layout):
    _, nodes, arrows = flowchart.read(f"flowchart {layout}\n" + "\n".join(f"a --> n{i} --> m{i % 3}" for i in range(9)))
    flowchart._layer(nodes, arrows)
    layers, size = flowchart._order(nodes, arrows), flowchart._size(layout, across=True)
    flowchart._place(layers, size)
    assert [len(layer) for layer in layers] == [1, 9, 3] and flowchart._crossings(layers) == 0
    for layer in layers:
        gaps = [b.place - size(b) / 2 - a.place - size(a) / 2 for a, b in zip(layer, layer[1:])]
        assert all(gap > flowchart.GAP / 2 for gap in gaps)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("graph LR\n a --> b", "begins with `flowchart LR`"),
        ("flowchart LR\n a ~~> b", "not understood from '~~> b'"),
        ("flowchart LR\n a[one --> b", "a bracket is not closed"),
        ("flowchart LR\n --> b", "a node was expected"),
    ],
)
def test_a_flowchart_that_is_not_understood_is_refused(text, says):
    with pytest.raises(reading.WeaveError, match=re.escape(says)):
        flowchart.figure(text)


CALLS = """sequenceDiagram
    participant Y as your program
    Y->>K: exp(x)
    Note over K: counts
    K-->>Y: an array
"""


def test_a_sequence_of_calls_is_drawn_from_top_to_bottom_and_told():
    page = diagrams.drawn(f"before\n\n```mermaid\n{CALLS}```\n")
    drawn = page.removeprefix("before\n\n").strip()
    told = "Sequence of calls. your program calls K: exp(x). K: counts. K answers your program: an array."
    assert f'aria-label="{told}"' in drawn and "\n" not in drawn
    rows = {text: float(y) for y, text in re.findall(r' y="(\S+)">([^<]+)</text>', drawn)}
    assert rows["your program"] == rows["K"] < rows["exp(x)"] < rows["counts"] < rows["an array"]
    for text, says in [(CALLS + "  loop x\n", "not understood: 'loop x'"), ("sequenceDiagram\n", "has no message")]:
        with pytest.raises(reading.WeaveError, match=says):
            sequence.figure(text)
    with pytest.raises(reading.WeaveError, match="and not a 'pie'"):
        diagrams.figure("pie title x")


def test_names_of_the_reference_come_in_the_order_of_the_text_with_their_first_sentence():
    tree = ast.parse('"""M."""\n__all__ = ["b", "A", "c"]\nclass A:\n    """An | A. More."""\nc = 1\ndef b(): ...\n')
    assert reference_page._by_place(tree) == ["A", "c", "b"]
    assert reference_page._first_sentence(tree, "A") == "An \\| A."
    assert reference_page._first_sentence(tree, "c") == ""


def test_every_chapter_has_an_example_in_the_reference_and_a_class_of_parts_shows_their_methods():
    files = {file.stem for file in (ROOT / reference_page.PROGRAMS).glob("*.py")}
    assert files == {entry.slug for entry in WRITTEN if isinstance(entry, weave.Chapter)}
    modules = reference_page.in_navigation(ROOT)
    assert modules.index("tt_tensor.tensor") < modules.index("tt_tensor.products") < modules.index("tt_tensor.layers")
    page = reference_page._from_parts("Tensor", ROOT)
    assert "numpy" in page and "state_dict" not in page


def test_the_address_of_the_repository():
    assert navigation.web_address("git@github.com:someone/tiny.git") == "https://github.com/someone/tiny"
    assert navigation.web_address("https://token@example.org/a/b.git") == "https://example.org/a/b"
    assert navigation.web_address("/home/someone/tiny") == ""


def test_a_program_on_a_page_shows_what_it_printed_and_fails_with_its_traceback(course):
    root, _ = course(DEMO)
    file = root / "program.py"
    file.write_text("print(2**10)\n", encoding="utf-8")
    assert "1024\n```" in program.woven_program(file, root)
    file.write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(reading.WeaveError, match=r"(?s)the program program failed.*ZeroDivisionError"):
        program.woven_program(file, root)


SHELL = """
# Page

``` tito
$ tito setup mine
$ cd mine
! tito module start nowhere
```

``` python program.py
print(6 * 7)
```

``` tito silent
$ tito use losses reference
```

``` tito picture Which <implementations> are in use.
$ python program.py
$ cat tt.toml
$ tito status
```
"""


def test_commands_on_a_page_show_what_they_printed(course):
    page = shell.live(SHELL, "page", course(DEMO)[0])
    text, picture = page.split("<figure")
    assert "# Page\n" in text and "$ tito setup mine\nWorkspace ~/mine: made work" in text
    assert "$ tito module start nowhere\nUsage: tito module start" in text
    assert '```{ .python title="program.py" }\nprint(6 * 7)\n```' in text
    assert "tito use losses" not in page
    assert 'role="img" aria-label="Which &lt;implementations&gt; are in use."' in picture
    told = html.unescape(picture[picture.index("<desc") : picture.index("</desc>")])
    assert "$ python program.py\n42\n$ cat tt.toml" in told and 'losses = "reference"' in told
    drawn = html.unescape("".join(re.findall("<text[^>]*>([^<]*)", picture))).replace("\xa0", " ")
    assert "$ tito status" in drawn and "from the reference" not in text


PICTURE = "``` tito picture All.\n$ tito setup\n$ tito use losses reference\n$ tito status\n```\n"


def test_a_picture_has_the_colours_of_the_page(course):
    page = shell.live(PICTURE, "page", course(DEMO)[0])
    assert "http" not in page and "font-family" not in page
    fills = re.findall(r"fill: ([^;}]+)", page)
    assert {fill.strip() for fill in fills} >= {
        "var(--tt-ink)",
        "var(--tt-keyword)",
        "var(--tt-soft)",
        "var(--tt-string)",
    }
    assert all(fill.startswith("var(--tt-") for fill in fills)
    names = set(re.findall(r"var\((--tt-\w+)\)", page))
    style = (ROOT / "site" / "assets" / "css" / "book.css").read_text(encoding="utf-8")
    assert all(style.count(f"{name}: #") == 2 for name in names), "a colour for a light page and one for a dark one"


@pytest.mark.parametrize(
    "line, says",
    [
        ("$ tito module start nowhere", "`tito module start nowhere` ended with 2"),
        ("! tito setup", "`tito setup` ended with 0"),
        ('! python -c "1 / 0"', "ZeroDivisionError"),
        ("$ cat nothing.txt", "nothing.txt"),
        ("> work/setup.py nobody", "nobody.py"),
    ],
)
def test_a_command_that_does_not_end_as_the_page_says_ends_the_build(course, line, says):
    with pytest.raises(reading.WeaveError, match=r"(?s)site/page\.md: .*" + re.escape(says)):
        shell.live(f"``` tito\n{line}\n```\n", "page", course(DEMO)[0])


def test_commands_run_again_only_if_one_of_them_or_code_has_changed(course):
    page = "``` tito\n$ python -c 'import time; print(time.time_ns())'\n```\n"
    root, _ = course(DEMO)
    first = shell.live(page, "page", root)
    assert shell.live("New prose.\n\n" + page, "page", root).endswith(first)
    course(DEMO + "\n\nTAU = 6.28\n")
    second = shell.live(page, "page", root)
    assert second != first and shell.live(page, "page", root) == second
    other = page.replace("$ ", "$ TT_SWAP=0 ")
    assert shell.live(other, "page", root).splitlines()[-2] != second.splitlines()[-2]


def test_an_answer_is_filled_in_whole_or_in_part(tmp_path):
    names = [e.name for e in exercises.exercises((ROOT / WRITTEN[0].source).read_text(encoding="utf-8"))]
    terminal = shell.Terminal(ROOT, tmp_path)
    terminal.answer("a/setup.py one manual_seed seeded")
    terminal.answer("b/setup.py wrong")
    text = {name: (tmp_path / name / "setup.py").read_text(encoding="utf-8") for name in "ab"}
    assert set(names) - set(exercises.unwritten(text["a"], names)) == {"manual_seed", "seeded"}
    assert not exercises.unwritten(text["b"], names)
    wrong = (ROOT / "packages/tt-tensor/tests/solutions/setup/wrong.py").read_text(encoding="utf-8")
    assert wrong.strip().splitlines()[-1] in text["b"] and wrong.strip().splitlines()[-1] not in text["a"]


def test_code_on_a_page_is_that_of_the_file_or_of_the_skeleton():
    finder = source.woven_source("packages/tt-tito/src/tt_tito/finder.py:Finder", ROOT)
    assert finder.startswith("```{ .python .tt-code }\nclass Finder:") and "def find_spec" in finder
    assert "def search" not in finder
    skeleton = source.woven_source("skeleton:setup:manual_seed", ROOT)
    assert 'raise NotImplementedError("01 setup: manual_seed")' in skeleton and "bit_generator" not in skeleton
    with pytest.raises(reading.WeaveError, match="defines no nothing"):
        source.woven_source("skeleton:setup:nothing", ROOT)


def test_each_command_is_in_the_reference_with_usage_options_and_example():
    from tt_tito.cli import tito

    page = command_page.command_page()
    todo, leaves = [("tito", tito)], []
    while todo:
        path, command = todo.pop()
        under = getattr(command, "commands", {})
        todo += [(f"{path} {name}", child) for name, child in under.items()]
        leaves += [] if under else [(path, command)]
    assert len(leaves) > 20
    for path, command in leaves:
        assert f"[`{path}`](#{path.replace(' ', '-')})" in page
        section = page.split(f"# {path} {{ #")[1].split("\n## ")[0].split("\n### ")[0]
        assert f"Usage:   {path} " in section and f"\nExample: {command.epilog[9:]}\n" in section
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        assert all(f" {option} " in section for option in options), path


def test_benchmark_rows_are_drawn_in_proportion_and_escaped(tmp_path):
    assert "No results are committed" in benchmark_page.benchmark_tables(tmp_path)
    row = {"workload": "W1", "title": "a <step>", "unit": "ms", "spread": 0.1}
    rows = [
        {**row, "contender": "PyTorch", "median": 2.0, "ratio": 1.0},
        {**row, "contender": "TinyTorch", "median": 1.0, "ratio": 0.5, "between": [0.486, 0.512]},
        {**row, "workload": "W2", "contender": "PyTorch", "median": 1067.2, "ratio": 1.0},
    ]
    run = {"machine": {"cores": 2}, "date": "2026-01-01", "command": "run", "rows": rows}
    (tmp_path / "a.json").write_text(json.dumps(run), encoding="utf-8")
    page = benchmark_page.benchmark_tables(tmp_path)
    assert "a &lt;step&gt;" in page
    assert page.index("TinyTorch") < page.index("PyTorch</th>")  # the fastest first
    assert 'class="tt-ours"><th scope="row">TinyTorch</th><td class="tt-bar"><i style="width:50.0%">' in page
    assert "<td>1.00</td><td>0.50</td><td>0.49\u20130.51</td><td>10%</td>" in page
    assert "<td>1,067</td><td>1.00</td><td></td><td>10%</td>" in page  # a single turn has no interval


def test_times_of_packages_are_tables_with_units(tmp_path):
    file = tmp_path / "packages.json"
    assert "No times are committed" in benchmark_page.package_tables(file, [])
    times = [("tt-b", "test_add_4_numbers", 1.25e-6, 4e-8), ("tt-a", "test_a_<step>[fast-int8]", 2.0, 0.0123)]
    rows = [
        {
            "fullname": f"packages/{package}/benchmarks/test_speed.py::{name}",
            "name": name,
            "stats": {"median": median, "iqr": iqr, "rounds": 1200},
        }
        for package, name, median, iqr in reversed(times)
    ]
    saved = {"machine_info": {"cores": 2}, "datetime": "2026-01-01", "benchmarks": rows}
    file.write_text(json.dumps(saved), encoding="utf-8")
    page = benchmark_page.package_tables(file, ["tt-b", "tt-a"])
    assert page.startswith("2026-01-01, cores 2.") and page.count("<table") == 2
    assert page.index("<th>tt-b</th><th>median</th>") < page.index("<th>tt-a</th>")
    assert '<th scope="row">add 4 numbers</th><td>1.25 µs</td><td>40.0 ns</td><td>1,200</td>' in page
    assert '<th scope="row">a &lt;step&gt;, fast, int8</th><td>2.00 s</td><td>12.3 ms</td>' in page
