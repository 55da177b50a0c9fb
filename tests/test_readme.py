"""The README tells the truth: its table is the curriculum's, its code runs, its links and commands exist."""

import re
import tomllib
from pathlib import Path

import pytest

from tt_tito import curriculum

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("packages/*/README.md"))]


def row(chapter):
    written = (ROOT / chapter.source).exists()
    title = f"[{chapter.title}]({chapter.source})" if written else f"{chapter.title} (planned)"
    return f"| {chapter.number:02d} | {title} | {chapter.says} | {chapter.solved_by} |"


def test_the_table_of_chapters_is_the_curriculum():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.match(r"\| \d\d \|", line)] == [row(c) for c in curriculum.chapters()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_python_in_a_document_runs(document):
    for code in re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, document.name, "exec"), {})


@pytest.mark.parametrize("package", sorted(ROOT.glob("packages/tt-*")), ids=lambda package: package.name)
def test_the_table_of_a_package_has_all_of_its_files(package):
    table = re.findall(r"^\| (.*?) \|", (package / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in table for name in re.findall(r"`(\w+)(?:\.py|/)`", row)}
    (source,) = package.glob("src/*/__init__.py")
    folders = {path.parent.name for path in source.parent.glob("*/__init__.py")}
    modules = {path.stem for path in source.parent.glob("*.py")} - {"__init__", "__main__"}
    lost = {name for row in table for name in re.findall(r"`(\w+)\.py`", row)} - modules
    lacking = (modules | folders) - named
    assert not lacking, f"{package.name}/README.md: its table lacks {sorted(lacking)}"
    assert not lost, f"{package.name}/README.md: its table names {sorted(lost)}, which are not there"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_commands_exist(document):
    environments = tomllib.loads((ROOT / "hatch.toml").read_text(encoding="utf-8"))["envs"]
    for command in re.findall(r"hatch run ([\w:]+)", document.read_text(encoding="utf-8")):
        name, _, script = command.rpartition(":")
        environment = environments[name or "default"]
        template = environments[environment.get("template", name or "default")]
        assert script in environment.get("scripts", {}) | template.get("scripts", {}), command
