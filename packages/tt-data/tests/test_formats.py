"""The published files: read as they are, and refused with file, expected and found when they are damaged."""

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

import tt_data as td

ROWS = 20  # instead of 10,000


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr("tt_data.formats.ROWS", ROWS)


def refused(call, path, *words):
    """The call raises a ValueError that names the file, and says these words."""
    with pytest.raises(ValueError) as caught:
        call()
    said = str(caught.value)
    assert str(path) in said and all(word in said for word in ("expected", "found", "get", *words)), said


# ## IDX


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
WHOLE = struct.pack(">4i", 0x803, 5, 4, 3) + IMAGES.tobytes()


@pytest.mark.parametrize("name", ["images.gz", "images"])
def test_idx_is_read_packed_and_unpacked(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(WHOLE) if name.endswith(".gz") else WHOLE)
    assert np.array_equal(td.read_idx(path, (5, 4, 3)), IMAGES)


PACKED = gzip.compress(WHOLE)
DAMAGED_IDX = {
    "empty": (b"", "magic number 0x00000803", "an empty file"),
    "a page instead of a file": (b"<html>404</html>", "a whole gzip file", "16 bytes"),
    "cut off": (PACKED[:-30], "a whole gzip file", "do not unpack"),
    "an altered byte": (PACKED[:30] + bytes([PACKED[30] ^ 1]) + PACKED[31:], "a whole gzip file"),
    "nothing inside": (gzip.compress(b""), "magic number 0x00000803", "an empty file"),
    "the magic number of labels": (gzip.compress(b"\0\0\x08\x01" + WHOLE[4:]), "0x00000803", "0x00000801"),
    "floats": (gzip.compress(b"\0\0\x0d\x03" + WHOLE[4:]), "0x00000803", "0x00000d03"),
    "fewer images": (gzip.compress(struct.pack(">4i", 0x803, 4, 4, 3) + WHOLE[16:]), "(5, 4, 3)", "(4, 4, 3)"),
    "other sizes": (gzip.compress(struct.pack(">4i", 0x803, 5, 3, 4) + WHOLE[16:]), "(5, 4, 3)", "(5, 3, 4)"),
    "a header that ends early": (gzip.compress(WHOLE[:9]), "dimensions (5, 4, 3)", "(5,)"),
    "a byte too few": (gzip.compress(WHOLE[:-1]), "bytes after the header 60", "59"),
    "a byte too many": (gzip.compress(WHOLE + b"!"), "bytes after the header 60", "61"),
}


@pytest.mark.parametrize(("content", "words"), [(c, w) for c, *w in DAMAGED_IDX.values()], ids=DAMAGED_IDX)
def test_damaged_idx_is_refused(tmp_path, content, words):
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(content)
    refused(lambda: td.read_idx(path, (5, 4, 3)), path, *words)


def test_a_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("tt_data.formats.LARGEST", 1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(1001)))
    refused(lambda: td.read_idx(path, (1001,)), path, "at most 1,000 bytes", "more")


# ## CIFAR-10, the Python version


def pixels(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (ROWS, 3072), dtype=np.uint8)


def classes(seed=0):
    return np.random.default_rng(seed + 100).integers(0, 10, ROWS).tolist()


def old_pickle(data, labels):
    """A batch as Python 2 pickled it: protocol 2, where every text is bytes."""

    def text(value):
        return b"T" + struct.pack("<i", len(value)) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR(K\x01"
        b"M" + struct.pack("<H", data.shape[0]) + b"M" + struct.pack("<H", data.shape[1]) + b"\x86"
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + text(data.tobytes()) + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    entries = [(b"batch_label", text(b"training batch 1 of 5")), (b"labels", numbers), (b"data", array)]
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in entries) + b"u."


def new_pickle(data, labels, protocol=2, **more):
    return pickle.dumps({b"data": data, b"labels": labels, **more}, protocol)


@pytest.mark.parametrize(
    "content",
    [
        old_pickle(pixels(), classes()),
        new_pickle(pixels(), classes()),
        new_pickle(pixels(), classes(), 4),
        new_pickle(np.asfortranarray(pixels()), classes(), 3),
        pickle.dumps({"data": pixels(), "labels": classes(), "filenames": ["a"] * ROWS}, 2),
    ],
    ids=["Python 2", "protocol 2", "protocol 4", "by columns", "keys that are text"],
)
def test_a_pickled_batch_is_read(content):
    images, labels = td.cifar_from_pickle("batch", content)
    assert np.array_equal(images.reshape(ROWS, -1), pixels()) and images.shape == (ROWS, 3, 32, 32)
    assert labels.tolist() == classes() and labels.dtype == np.uint8


class Trap:
    """Unpickles by calling something."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


GOOD = new_pickle(pixels(), classes())
DAMAGED_PICKLES = {
    "empty": (b"", "a pickle of images"),
    "a page instead of a file": (b"<html>404</html>", "a pickle of images"),
    "cut off": (GOOD[:-100], "a pickle of images"),
    "cut off early": (GOOD[:50], "a pickle of images"),
    "a list": (pickle.dumps([1, 2], 2), "a list instead of a dictionary"),
    "no labels": (pickle.dumps({b"data": pixels()}, 2), "missing", "labels"),
    "too few rows": (new_pickle(pixels()[:-1], classes()), f"({ROWS}, 3072)", f"({ROWS - 1}, 3072)"),
    "other rows": (new_pickle(pixels().reshape(-1, 1536), classes()), f"({ROWS}, 3072)", f"({2 * ROWS}, 1536)"),
    "floats": (new_pickle(pixels().astype(np.float32), classes()), "unsigned bytes"),
    "objects": (new_pickle(np.array([[None] * 3072] * ROWS), classes()), "no array of bytes"),
    "no array": (new_pickle([1, 2, 3], classes()), f"({ROWS}, 3072)", "no array"),
    "a label too few": (new_pickle(pixels(), classes()[:-1]), f"as many labels as images, {ROWS}", f"{ROWS - 1}"),
    "a label of 10": (new_pickle(pixels(), [10, *classes()[1:]]), "labels from 0 to 9", "[10]"),
    "a label of 10**30": (new_pickle(pixels(), [10**30, *classes()[1:]]), "labels from 0 to 9"),
    "a negative label": (new_pickle(pixels(), [-1, *classes()[1:]]), "labels from 0 to 9", "[-1]"),
    "a label that is text": (new_pickle(pixels(), ["cat", *classes()[1:]]), "that are integers", "cat"),
    "labels that are text": (new_pickle(pixels(), "labels"), "list", "str"),
    "keys that are no text": (pickle.dumps({1: 2, b"\xff": 3}, 2), "refused"),
    "a command": (new_pickle(Trap(os.system, "echo trapped"), classes()), "it asks for"),
    "an evaluation": (new_pickle(Trap(eval, "print('trapped')"), classes()), "eval"),
    "an import": (new_pickle(Trap(__import__, "antigravity"), classes()), "__import__"),
    "a function of NumPy": (new_pickle(Trap(np.load, "file"), classes()), "it asks for numpy", "load"),
    "an attribute of what is admitted": (b"\x80\x04cnumpy\nndarray.tofile\n.", "ndarray.tofile"),
    "a call of a codec": (
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.",
        "a bytes instead of a dictionary",
    ),
}


@pytest.mark.parametrize(("content", "words"), [(c, w) for c, *w in DAMAGED_PICKLES.values()], ids=DAMAGED_PICKLES)
def test_damaged_pickles_are_refused_and_run_nothing(tmp_path, capfd, content, words):
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.parent.mkdir()
    path.write_bytes(content)
    refused(lambda: td.read_cifar(path.parent, train=False), path, *words)
    assert "trapped" not in capfd.readouterr().out


def test_names_that_are_not_needed_are_refused():
    for module, name in (("builtins", "eval"), ("os", "system"), ("numpy", "load"), ("tt_data.formats", "_Held")):
        with pytest.raises(pickle.UnpicklingError, match=f"{module}.{name}"):
            td.BytesUnpickler(io.BytesIO(b"")).find_class(module, name)


# ## CIFAR-10, the binary version


def records(data, labels):
    return np.column_stack([np.array(labels, np.uint8), data]).tobytes()


def test_a_binary_batch_is_read():
    images, labels = td.cifar_from_records("batch", records(pixels(), classes()))
    assert np.array_equal(images.reshape(ROWS, -1), pixels()) and labels.tolist() == classes()


RECORDS = records(pixels(), classes())
SIZE = f"bytes {ROWS * 3073}"
DAMAGED_RECORDS = {
    "empty": (b"", SIZE, "0"),
    "a page instead of a file": (b"<html>404</html>", SIZE, "16"),
    "a byte too few": (RECORDS[:-1], SIZE, f"{len(RECORDS) - 1}"),
    "a byte too many": (RECORDS + b"!", SIZE, f"{len(RECORDS) + 1}"),
    "a record too few": (RECORDS[3073:], SIZE),
    "CIFAR-100, with two labels": (RECORDS + bytes(ROWS), SIZE),
    "a byte lost at the beginning": (RECORDS[1:] + b"!", "labels from 0 to 9"),
    "a label of 10": (bytes([10]) + RECORDS[1:], "labels from 0 to 9", "[10]"),
    "the last label altered": (RECORDS[:-3073] + b"\xff" + RECORDS[-3072:], "labels from 0 to 9", "[255]"),
    "the Python version": ((GOOD * 2)[: ROWS * 3073], "labels from 0 to 9"),
}


@pytest.mark.parametrize(("content", "words"), [(c, w) for c, *w in DAMAGED_RECORDS.values()], ids=DAMAGED_RECORDS)
def test_damaged_records_are_refused(tmp_path, content, words):
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.parent.mkdir()
    path.write_bytes(content)
    refused(lambda: td.read_cifar(path.parent, train=False), path, *words)


# ## Archives and folders


PYTHON, BINARY = "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"
FOLDERS = {PYTHON: "cifar-10-batches-py", BINARY: "cifar-10-batches-bin"}
NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def files(kind):
    """All six files of a version, by name."""
    if kind == PYTHON:
        return {name: old_pickle(pixels(i), classes(i)) for i, name in enumerate(NAMES)}
    return {f"{name}.bin": records(pixels(i), classes(i)) for i, name in enumerate(NAMES)}


def archive(path, contents, folder=None, type=tarfile.REGTYPE):
    folder = folder or FOLDERS[path.name]
    with tarfile.open(path, "w:gz") as out:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.type, member.linkname = len(content), type, "elsewhere"
            out.addfile(member, io.BytesIO(content))
    return path


def unpacked(folder, contents):
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", [PYTHON, BINARY])
@pytest.mark.parametrize("as_archive", [True, False], ids=["archive", "folder"])
def test_cifar_is_read_from_archives_and_folders(tmp_path, kind, as_archive):
    contents = {"readme.html": b"-", **dict(reversed(files(kind).items()))}  # in any order
    place = archive(tmp_path / kind, contents) if as_archive else unpacked(tmp_path / FOLDERS[kind], contents)
    images, labels = td.read_cifar(place, train=True)
    assert images.shape == (5 * ROWS, 3, 32, 32) and images.dtype == labels.dtype == np.uint8
    assert np.array_equal(images.reshape(5, ROWS, -1), [pixels(i) for i in range(5)])
    assert labels.reshape(5, ROWS).tolist() == [classes(i) for i in range(5)]
    images, labels = td.read_cifar(place, train=False)
    assert np.array_equal(images.reshape(ROWS, -1), pixels(5)) and labels.tolist() == classes(5)
    assert len(list(tmp_path.iterdir())) == 1  # nothing was written


@pytest.mark.parametrize("kind", [PYTHON, BINARY])
def test_damaged_archives_are_refused(tmp_path, kind):
    path, contents = tmp_path / kind, files(kind)
    last = [*contents][-1]
    whole = archive(path, contents).read_bytes()

    def read():
        return td.read_cifar(path, train=False)

    for content, word in ((b"", "0 bytes"), (b"<html>", "6 bytes"), (whole[: len(whole) // 2], "do not unpack")):
        path.write_bytes(content)
        refused(read, path, "a whole tar.gz archive", word)
    path.write_bytes(gzip.compress(b"no tar at all" * 100))
    refused(read, path, "a whole tar.gz archive")
    archive(path, {name: content for name, content in contents.items() if name != last})
    refused(read, path, last, "no such file")
    archive(path, contents, folder="../..")
    refused(read, path, last, "no such file")
    archive(path, {last: b""}, type=tarfile.SYMTYPE)
    refused(read, path, last, "no such file")
    archive(path, {last: contents[last][:-10]})
    refused(read, path / last)


def test_a_folder_that_lacks_a_file_is_refused(tmp_path):
    contents = files(PYTHON)
    del contents["data_batch_3"]
    folder = unpacked(tmp_path / "cifar-10-batches-py", contents)
    with pytest.raises(ValueError, match="expected a file data_batch_3, found none; unpack the archive again"):
        td.read_cifar(folder, train=True)
