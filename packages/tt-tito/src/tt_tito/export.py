"""Exports: a chapter as a notebook, or a package as a wheel with the learner's chapters in it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

import tt_tito
from tt_tito import course, curriculum, exercises, files, notebooks, reading, swap

__all__ = ["notebook", "wheel"]

LABEL = "mine"  # 0.1.0+mine is a version that `tt-tensor==0.1.0` accepts
WHEEL = f"Wheel-Version: 1.0\nGenerator: tt-tito {tt_tito.__version__}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def notebook(chapter: curriculum.Chapter, source: Path, out: Path) -> Path:
    """Write a chapter's file as a notebook. ValueError if there is one: nothing is overwritten."""
    _refuse_existing(out)
    notebooks.write(reading.text(source), out)
    return out


def wheel(name: str, chapters: Mapping[str, Path], out: Path, *, force: bool = False) -> Path:
    """Write a wheel of an installed package, with files in the place of some of its chapters, into a folder.

    The same files always give the same bytes. ValueError for a chapter that cannot stand in, for one with exercises to
    write (unless forced), or if the wheel already exists."""
    package = curriculum.package(name)
    contents = _installed(package)
    if not chapters:
        raise ValueError(f"no chapter of {name} is yours and in use: complete one of {', '.join(package.chapters)}")
    for slug, file in chapters.items():
        _demand(curriculum.chapter(slug), file, force)
        contents[f"{package.module}/{slug}.py"] = _whole(curriculum.chapter(slug), file)
    found = distribution(name)
    version = f"{found.version.partition('+')[0]}+{LABEL}"
    metadata = re.sub("^Version:.*", f"Version: {version}", found.read_text("METADATA") or "", count=1, flags=re.M)
    info = f"{package.module}-{version}.dist-info"
    contents |= {f"{info}/METADATA": metadata.encode("utf-8"), f"{info}/WHEEL": WHEEL.encode("utf-8")}
    contents[f"{info}/RECORD"] = _record(contents, f"{info}/RECORD").encode("utf-8")
    made = out / f"{package.module}-{version}-py3-none-any.whl"
    _refuse_existing(made)
    files.write(made, _zip(contents))
    return made


def _installed(package: curriculum.Package) -> dict[str, bytes]:
    """The files of a package as its wheel has them, by their paths. In a clone the tests are elsewhere."""
    folders = {package.module: course.folder(package.name), f"{package.module}/tests": course.tests(package.name)}
    return {
        f"{prefix}/{file.relative_to(folder).as_posix()}": file.read_bytes()
        for prefix, folder in folders.items()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(re.match(r"\.|__pycache__$", part) for part in file.relative_to(folder).parts)
    }


def _demand(chapter: curriculum.Chapter, file: Path, force: bool) -> None:
    """ValueError or SwapError unless a file can replace the chapter."""
    text = reading.python(file)
    swap.StandIn(chapter.module, str(file), "this command").get_code(chapter.module)
    known = exercises.exercises(course.reference(chapter).read_text(encoding="utf-8"))
    left = exercises.unwritten(text, [exercise.name for exercise in known if not exercise.starred])
    if left and not force:
        raise ValueError(f"{file.name} still has exercises to write: {', '.join(left)}. --force exports it anyway")


def _whole(chapter: curriculum.Chapter, file: Path) -> bytes:
    """A chapter's file, with the reference's answers where exercises with a star were left out."""
    text, reference = reading.python(file), course.reference(chapter).read_text(encoding="utf-8")
    starred = [exercise.name for exercise in exercises.exercises(reference) if exercise.starred]
    left = [name for name in exercises.unwritten(text, starred) if name in exercises.functions(exercises.parse(text))]
    return exercises.graft(text, reference, left).encode("utf-8") if left else file.read_bytes()


def _record(contents: Mapping[str, bytes], itself: str) -> str:
    """The table of a wheel's files with their hashes and sizes."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for path, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow([path, f"sha256={digest}", len(data)])
    rows.writerow([itself, "", ""])
    return text.getvalue()


def _zip(contents: Mapping[str, bytes]) -> bytes:
    """An archive of files, without anything of when and where it was made."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path, content in contents.items():
            entry = zipfile.ZipInfo(path)  # of 1980
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # as on Unix, also on Windows
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return data.getvalue()


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise ValueError(f"{file} already exists and was not changed: move it away, or name another folder with --out")
