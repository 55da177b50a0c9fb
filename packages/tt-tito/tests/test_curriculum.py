"""The curriculum's reader, judged by its public names."""

import tomllib
from pathlib import Path

import pytest

from tt_tito import curriculum

SMALL = """
order = ["one", "two", "three"]

[[phases]]
title = "First"
packages = ["tt-a", "tt-b"]
milestone = "it runs"

[chapters.one]
package = "tt-a"
title = "One"
says = "nothing"
solved_by = "something"
unlocks = "more"

[chapters.two]
package = "tt-a"
title = "Two"
says = "nothing"
solved_by = "something"
unlocks = "more"
example = "two/two.py"

[chapters.three]
package = "tt-b"
title = "Three"
says = "nothing"
solved_by = "something"
unlocks = "more"

[appendices.tail]
chapter = "two"
title = "Tail"
"""


def test_the_course_has_twenty_chapters_in_five_phases():
    assert [c.number for c in curriculum.chapters()] == list(range(1, 21))
    assert [p.number for p in curriculum.phases()] == [1, 2, 3, 4, 5]
    assert curriculum.chapters()[6].slug == "autograd"


def test_every_chapter_tells_its_step():
    for chapter in curriculum.chapters():
        assert chapter.title and chapter.says and chapter.solved_by and chapter.unlocks, chapter


def test_capabilities_run_from_0_to_19_and_there_are_seven_milestones():
    assert [c.capability for c in curriculum.chapters()] == list(range(20))
    assert [c.number for c in curriculum.chapters() if c.milestone] == [4, 6, 9, 10, 14, 19, 20]


@pytest.mark.parametrize("name", ["07", "7", 7, "autograd", "07_autograd", "7_autograd", "07 autograd", " autograd "])
def test_a_chapter_is_found_by_number_slug_or_both(name):
    assert curriculum.chapter(name).slug == "autograd"


def test_every_chapter_is_found_by_the_name_it_prints():
    for chapter in curriculum.chapters():
        assert curriculum.chapter(str(chapter)) is chapter


@pytest.mark.parametrize("name, advice", [
    ("autogard", "Did you mean 07 autograd"),
    ("08_autograd", "Did you mean 07 autograd"),
    ("21", "The chapters are 01 setup, 02 tensor"),
    ("0", "The chapters are 01 setup"),
    ("", "The chapters are 01 setup"),
    ("zzz", "The chapters are 01 setup"),
])
def test_an_unknown_chapter_is_an_error_with_advice(name, advice):
    with pytest.raises(ValueError, match=f"There is no chapter '{name}'. {advice}"):
        curriculum.chapter(name)


def test_packages_know_their_phase_and_chapters():
    assert [p.name for p in curriculum.packages_of_phase(1)] == ["tt-tensor", "tt-optim"]
    assert curriculum.package("tt_autograd").chapters == ("autograd", "training")
    assert curriculum.package("tt-tensor").module == "tt_tensor"
    assert curriculum.chapter("tensor").phase == 1 and curriculum.chapter("capstone").phase == 5


def test_every_chapter_is_in_exactly_one_package():
    assert [slug for p in curriculum.packages() for slug in p.chapters] == [c.slug for c in curriculum.chapters()]


def test_unknown_phases_and_packages_are_errors():
    with pytest.raises(ValueError, match="there is no phase 6: the phases are 1 to 5"):
        curriculum.packages_of_phase(6)
    with pytest.raises(ValueError, match="no phase 0"):
        curriculum.packages_of_phase(0)
    with pytest.raises(ValueError, match="the course has no package 'tt-vision': its packages are tt-tensor, "):
        curriculum.package("tt-vision")


def test_chapters_and_appendices_name_module_and_file():
    tensor = curriculum.chapter("tensor")
    assert (tensor.module, tensor.source) == ("tt_tensor.tensor", "packages/tt-tensor/src/tt_tensor/tensor.py")
    tails = {tail.slug: tail for tail in curriculum.appendices()}
    assert tails["schedulers"].chapter == "optimizers"
    assert tails["schedulers"].source == "packages/tt-optim/src/tt_optim/schedulers.py"


def test_a_number_stands_nowhere_in_the_file():
    data = tomllib.loads(Path(curriculum.__file__).with_name("curriculum.toml").read_text(encoding="utf-8"))
    assert not [entry for entry in data["chapters"].values() if "number" in entry]


def test_moving_a_line_moves_a_chapter():
    assert [c.slug for c in curriculum.read(SMALL).chapters] == ["one", "two", "three"]
    moved = curriculum.read(SMALL.replace('"one", "two"', '"two", "one"'))
    assert [(c.number, c.slug) for c in moved.chapters] == [(1, "two"), (2, "one"), (3, "three")]
    assert moved.packages[0].chapters == ("two", "one")
    assert moved.chapter("two").example == "two/two.py" and moved.chapter("one").example is None
    assert moved.appendices[0].package == "tt-a"


@pytest.mark.parametrize("old, new, message", [
    ("order = [", "order = ", "small.toml: .*line 2"),
    ('"three"]', "]", "must name every table .* once, and nothing else; see three"),
    ('"three"]', '"three", "four"]', "must name every table .* once, and nothing else; see four"),
    ('"three"]', '"three", "one"]', "must name every table .* once, and nothing else; see one"),
    ('"one", "two", "three"', '"one", "three", "two"', "order has 'three' where 'two' of an earlier package"),
    ('package = "tt-b"', 'package = "tt-c"', r"\[chapters.three\] is in package 'tt-c', which no phase has"),
    ('title = "Two"\n', "", r"\[chapters.two\] lacks title"),
    ('title = "Two"\n', 'title = "Two"\ncolour = "red"\n', r"\[chapters.two\] has unknown keys: colour"),
    ('title = "First"\n', "", "phase 1 lacks title"),
    ('chapter = "two"', 'chapter = "nine"', r"\[appendices.tail\] belongs to chapter 'nine'"),
    ('title = "Tail"', "", r"\[appendices.tail\] lacks title"),
    ("order =", "ordre =", "the file lacks order"),
])
def test_a_file_that_does_not_fit_is_an_error_naming_the_entry(old, new, message):
    assert SMALL.count(old) == 1
    with pytest.raises(ValueError, match=message):
        curriculum.read(SMALL.replace(old, new), "small.toml")
