"""Downloads from a server on this machine: resumed, checked, from several mirrors, and never half a file."""

import errno
import hashlib
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import tt_data as td

CONTENT = np.random.default_rng(0).bytes(100_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """What is served depends on the folder: /good, /noranges, /altered, /short, /broken (every second time)."""

    def do_GET(self):
        kind, served = self.path.split("/")[1], self.server.served
        served.append((kind, self.headers.get("Range")))
        content = CONTENT if kind != "altered" else bytes(len(CONTENT))
        start = 0
        if kind == "missing":
            return self.send_error(404)
        if (asked := self.headers.get("Range")) and kind != "noranges":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        ends_early = kind == "short" or (kind == "broken" and len(served) % 2)
        self.wfile.write(content[start : start + 30_000] if ends_early else content[start:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.served = True, []
        server.mirror = lambda kind: f"http://127.0.0.1:{server.server_address[1]}/{kind}"
        server.file = lambda *kinds: td.Remote("data.bin", SHA, tuple(map(server.mirror, kinds)))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def arrived(folder):
    """The whole file has arrived, and nothing else is there."""
    assert [path.name for path in folder.iterdir()] == ["data.bin"]
    return (folder / "data.bin").read_bytes() == CONTENT


def test_a_file_is_fetched_once(server, tmp_path):
    folder = tmp_path / "new" / "folder"
    assert td.fetch(server.file("good"), folder) == folder / "data.bin" and arrived(folder)
    td.fetch(server.file("good"), folder)
    assert server.served == [("good", None)]


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(CONTENT[:500])
    with pytest.raises(OSError, match="could not be downloaded"):
        td.fetch(server.file("missing"), tmp_path)
    assert (tmp_path / "data.bin").stat().st_size == 500  # nothing is thrown away before there is something better
    td.fetch(server.file("good"), tmp_path)
    assert arrived(tmp_path)


def test_an_interrupted_download_goes_on_where_it_was(server, tmp_path):
    with pytest.raises(OSError, match="60,000 bytes are kept.*ended after 30,000 of 100,000"):
        td.fetch(server.file("short"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin.part"]
    td.fetch(server.file("good"), tmp_path)
    assert arrived(tmp_path) and server.served[-1] == ("good", "bytes=60000-")


def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path):
    td.fetch(server.file("broken"), tmp_path)
    assert arrived(tmp_path) and server.served == [("broken", None), ("broken", "bytes=30000-")]


def test_a_download_goes_on_at_another_mirror(server, tmp_path):
    td.fetch(server.file("short", "good"), tmp_path)
    assert arrived(tmp_path) and server.served[-1] == ("good", "bytes=60000-")


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:777])
    td.fetch(server.file("noranges"), tmp_path)
    assert arrived(tmp_path) and server.served == [("noranges", "bytes=777-")]


def test_a_part_that_is_whole_needs_only_its_name(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    td.fetch(server.file("good"), tmp_path)
    assert arrived(tmp_path) and server.served == [("good", "bytes=100000-")]


@pytest.mark.parametrize("kept", [bytes(500), CONTENT + b"!", bytes(200_000)], ids=["other", "longer", "both"])
def test_a_part_that_is_no_good_is_thrown_away(server, tmp_path, kept):
    (tmp_path / "data.bin.part").write_bytes(kept)
    td.fetch(server.file("good"), tmp_path)
    assert arrived(tmp_path) and server.served[-1] == ("good", None)


def test_a_wrong_checksum_is_refused_and_the_next_mirror_asked(server, tmp_path):
    td.fetch(server.file("altered", "missing", "good"), tmp_path)
    assert arrived(tmp_path)
    with pytest.raises(OSError, match=f"expected a file with SHA-256 {SHA[:16]}..., found .*100,000 bytes"):
        td.fetch(server.file("altered"), tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


def test_what_went_wrong_is_told_for_every_mirror(server, tmp_path):
    gone = td.Remote("data.bin", SHA, (server.mirror("missing"), "http://127.0.0.1:9", server.mirror("altered")))
    with pytest.raises(OSError) as caught:
        td.fetch(gone, tmp_path)
    said = str(caught.value)
    assert "data.bin could not be downloaded" in said and "/missing/data.bin: HTTP Error 404" in said
    assert "http://127.0.0.1:9/data.bin: " in said and "/altered/data.bin: expected a file with SHA-256" in said


def test_a_full_disk_says_so_and_keeps_what_there_is(server, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            OSError, match="after 100,000 bytes of the download; they are kept in.*data.bin.part"
        ) as caught:
            td.fetch(server.file("good", "altered"), tmp_path)
    assert caught.value.errno == errno.ENOSPC and not (tmp_path / "data.bin").exists()
    assert server.served == [("good", None)]  # no other mirror can help
    td.fetch(server.file("good"), tmp_path)
    assert arrived(tmp_path)


# Where data are looked for


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("TT_DATA", raising=False)
    monkeypatch.setenv("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return [folder / name for name in names]


def test_the_cache_is_the_users(home, monkeypatch):
    assert td.cache_folder() == home / "cache" / "tinytorch"
    if sys.platform != "win32":
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert td.cache_folder() == Path.home() / ".cache" / "tinytorch"


def test_a_place_is_the_first_that_has_everything(home, monkeypatch):
    forms = [["a", "b"], ["c"]]
    assert td.find("set", forms) is None
    in_cache = put(td.cache_folder() / "set", "a", "b")
    assert td.find("set", forms) == in_cache
    monkeypatch.setenv("TT_DATA", str(home / "data"))
    put(home / "data" / "set", "a")
    assert td.find("set", forms) == in_cache
    direct = put(home / "data", "c")
    assert td.find("set", forms) == direct
    assert td.find("set", forms, home / "data" / "set") is None
    named = put(home / "data" / "set", "b")
    assert td.find("set", forms) == [home / "data" / "set" / "a", *named]
    assert td.find("set", forms, home / "data") == [home / "data" / "set" / "a", *named]


def test_data_that_are_missing_are_told_with_a_remedy(home):
    files = [td.Remote("data.bin", SHA, ())]
    with pytest.raises(
        FileNotFoundError, match=r"no data.bin or other in .*cache.*; give download=True, or its folder"
    ):
        td.obtain("set", [["data.bin"], ["other"]], files, None, download=False)
    with pytest.raises(FileNotFoundError, match="leave root out and give download=True"):
        td.obtain("set", [["data.bin"]], files, home, download=True)


def test_downloads_go_into_the_cache_and_nowhere_else(server, home, monkeypatch):
    monkeypatch.setenv("TT_DATA", str(home / "data"))
    (home / "data").mkdir()
    paths = td.obtain("set", [["data.bin"]], [server.file("good")], None, download=True)
    assert paths == [td.cache_folder() / "set" / "data.bin"] and arrived(paths[0].parent)
    assert list((home / "data").iterdir()) == []
    assert td.obtain("set", [["data.bin"]], [server.file("good")], None, download=False) == paths
    paths[0].write_bytes(b"damaged")
    assert td.obtain("set", [["data.bin"]], [server.file("good")], None, download=True) == paths
    assert arrived(paths[0].parent)
    own = home / "data" / "data.bin"
    own.write_bytes(b"of the user's own")
    assert td.obtain("set", [["data.bin"]], [server.file("good")], None, download=True) == [own]
    assert own.read_bytes() == b"of the user's own"
