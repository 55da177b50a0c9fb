"""A file is read in one way by every command, and what is wrong with it is said with its name."""

import os
import warnings

import pytest

from tt_tito import reading
from tt_tito.reading import Unreadable


def test_a_text_is_its_lines(tmp_path):
    file = tmp_path / "x.py"
    for content in (b"a\nb\n", b"a\r\nb\r\n", b"a\rb\r", b"\xef\xbb\xbfa\r\nb\n"):
        file.write_bytes(content)
        assert reading.text(file) == "a\nb\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be"])
def test_wide_characters_are_no_text_of_a_chapter(tmp_path, encoding):
    file = tmp_path / "x.py"
    mark = "\ufeff" if encoding[-1].isalpha() else ""
    file.write_bytes(f"{mark}x = 1\n".encode(encoding))
    with pytest.raises(Unreadable, match=f"x.py is encoded in {encoding[:6].upper()}: save it as UTF-8"):
        reading.text(file)


def test_what_is_no_file(tmp_path):
    with pytest.raises(Unreadable, match="x.py cannot be read: No such file or directory"):
        reading.text(tmp_path / "x.py")
    (tmp_path / "x.py").mkdir()
    with pytest.raises(Unreadable, match="x.py is a folder, but a file is needed there"):
        reading.text(tmp_path / "x.py")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "x.py")
    with pytest.raises(Unreadable, match="x.py is a device or a pipe"):
        reading.text(tmp_path / "x.py")


def test_a_file_without_permission(tmp_path, monkeypatch):
    file = tmp_path / "x.py"
    file.write_text("x = 1\n", encoding="utf-8")

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(file), "open", refuse)
    with pytest.raises(Unreadable, match="x.py cannot be read: Permission denied"):
        reading.text(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\ndef f(:\n", "x.py, line 2 is not Python: invalid syntax.\n    def f(:"),
        ("return 1\n", "x.py, line 1 is not Python: 'return' outside function"),
        ("(" * 10_000, "x.py, line 1 is not Python: too many nested parentheses"),
        ("x = " + "-" * 100_000 + "1", "x.py is not Python"),
    ],
)
def test_what_is_not_python(tmp_path, text, says):
    file = tmp_path / "x.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(Unreadable) as caught:
        reading.python(file)
    assert str(caught.value).startswith(says)


def test_a_warning_is_no_error(tmp_path):
    file = tmp_path / "x.py"
    file.write_text('x = "\\d"\n', encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reading.python(file) == 'x = "\\d"\n'
