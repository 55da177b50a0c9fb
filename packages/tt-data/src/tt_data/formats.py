# # Formats
#
# An appendix of chapter 10: we read the files in which data sets were published, with a suspicious eye.
#
# A file that was cut off while it was downloaded, or an error page that was saved under the right name, must not become
# a picture. So we check everything that a format specifies, and an error names the file, its expected content, and its
# actual content.

from __future__ import annotations

import gzip
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


AGAIN = "get the file again (if it is in the cache, download=True does)"


def require(place, what: str, expected, found) -> None:
    """ValueError that names the file, or the place in it, unless what was found is what was expected."""
    if found != expected:
        raise ValueError(f"{place}: expected {what} {expected}, found {found}; {AGAIN}")


def require_labels(place, labels: np.ndarray, classes: int) -> None:
    """ValueError unless all labels are from 0 to classes - 1."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    require(place, f"labels from 0 to {classes - 1} only, others:", [], wrong[:3].tolist())


# ## IDX
#
# MNIST was published in a format of its own. First comes a magic number, whose last byte is the number of dimensions
# and whose last but one says "unsigned bytes" (8); then each dimension as four bytes, the most significant first; then
# the elements.


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The array of bytes in an IDX file, gzipped if its name ends in .gz. Raises ValueError if it has another magic
    number, other dimensions than `shape` or another length, or does not unpack."""
    content = _unpacked(path) if path.suffix == ".gz" else path.read_bytes()
    start = 4 * (1 + len(shape))
    header = np.frombuffer(content[: min(start, len(content) // 4 * 4)], ">u4").tolist()
    require(path, "magic number", f"0x{0x0800 + len(shape):08x}", f"0x{header[0]:08x}" if header else "an empty file")
    require(path, "dimensions", shape, tuple(header[1:]))
    require(path, "bytes after the header", math.prod(shape), len(content) - start)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


# A file can be a bomb: a megabyte of gzip may unpack to a gigabyte of zeros. So we unpack no more than any file of ours
# can hold.

LARGEST = 200_000_000


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        found = f"{path.stat().st_size:,} bytes that do not unpack ({error})"
        raise ValueError(f"{path}: expected a whole gzip file, found {found}; {AGAIN}") from error
    if len(content) > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST:,} bytes, found more; {AGAIN}")
    return content


# ## A pickle that cannot run anything
#
# CIFAR-10 was published as Python pickles. A pickle is a program for a small machine, and two of its instructions fetch
# any function of any module and call it. So if you unpickle a file, you run whatever its author wished. But an array of
# bytes needs only a few names. We let the machine find these, and nothing else. And under these names it does not find
# NumPy's functions, but stand-ins of ours, which can do nothing but hold bytes.


class _Held:
    """A stand-in for NumPy's array and for its dtype while a pickle is read."""

    content: np.ndarray | None = None

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        if len(state) == 5 and isinstance(state[4], bytes):  # an array: version, shape, dtype, order, bytes
            _, shape, dtype, by_columns, content = state
            if not isinstance(dtype, _Held) or dtype.arguments[0] not in ("u1", b"u1"):
                raise ValueError("an array of something else than unsigned bytes")
            order: Any = "F" if by_columns else "C"
            self.content = np.frombuffer(content, np.uint8).reshape(shape, order=order)


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")  # how protocol 2 spells bytes


ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Held,
    ("numpy._core.multiarray", "_reconstruct"): _Held,
    ("numpy", "ndarray"): _Held,
    ("numpy", "dtype"): _Held,
    ("_codecs", "encode"): _latin1,
}


# Here is the unpickler. `find_class` is where Python lets us decide.


class BytesUnpickler(pickle.Unpickler):
    """An unpickler for plain values and arrays of bytes; it refuses everything else that a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for a name that an array of bytes needs. Raises UnpicklingError for every other name."""
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and images need no such thing")
        return ADMITTED[module, name]


# A pickle that tries to print must raise an error instead.


def check_a_pickle_runs_nothing():
    class Trap:
        def __reduce__(self):
            return print, ("this must never be printed",)

    try:
        BytesUnpickler(io.BytesIO(pickle.dumps({"data": Trap()}, 2))).load()
    except pickle.UnpicklingError as error:
        assert "print" in str(error)
    else:
        raise AssertionError("the trap was not noticed")


# ## CIFAR-10
#
# CIFAR-10 has five files with 10,000 training images each, and one with 10,000 for testing. In the Python version, each
# is a dictionary of `data`, an array of 10,000 rows, and `labels`, a list. A row is an image: 1,024 bytes of red, then
# green, then blue, each line by line from the top. In the binary version, a file is 10,000 records of a label and a
# row.

ROWS, ROW = 10_000, 3 * 32 * 32


def cifar_from_pickle(place, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (10000, 3, 32, 32) and labels (10000,), both uint8, of one file of the Python version. ValueError for
    anything else, and for a pickle that asks for more than arrays of bytes."""
    try:
        entries = _with_text_keys(BytesUnpickler(io.BytesIO(content), encoding="bytes").load())
    except Exception as error:  # a damaged pickle can fail in any way
        found = f"one that is refused ({error})"
        raise ValueError(f"{place}: expected a pickle of images, found {found}; {AGAIN}") from error
    missing = [name for name in ("data", "labels") if name not in entries]
    require(place, "data and labels, missing:", [], missing)
    data, labels = getattr(entries["data"], "content", None), entries["labels"]
    require(place, "data of shape", (ROWS, ROW), getattr(data, "shape", "no array of bytes"))
    require(place, "labels in a", "list", type(labels).__name__)
    require(place, "labels that are integers, others:", [], [x for x in labels if type(x) is not int][:3])
    require(place, "as many labels as images,", ROWS, len(labels))
    require_labels(place, np.clip(labels, -1, 256), 10)
    return data.reshape(ROWS, 3, 32, 32), np.array(labels, np.uint8)


def _with_text_keys(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise TypeError(f"a {type(found).__name__} instead of a dictionary")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in found.items()}


# The binary version needs less suspicion, because it is only bytes.


def cifar_from_records(place, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (10000, 3, 32, 32) and labels (10000,), both uint8, of one file of the binary version. ValueError for
    anything else."""
    require(place, "bytes", ROWS * (1 + ROW), len(content))
    records = np.frombuffer(content, np.uint8).reshape(ROWS, 1 + ROW)
    require_labels(place, records[:, 0], 10)
    return records[:, 1:].reshape(ROWS, 3, 32, 32), records[:, 0]


# Either version comes as an archive, or as the folder that the archive unpacks to. We read the archive as it is, from
# one end to the other, and never write anything of it to the disk, so the names in it do not matter. We stop when we
# have all that we want.

KINDS = {
    "cifar-10-python.tar.gz": ("cifar-10-batches-py", "", cifar_from_pickle),
    "cifar-10-binary.tar.gz": ("cifar-10-batches-bin", ".bin", cifar_from_records),
}


def read_cifar(place: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N,), both uint8, of CIFAR-10 in `place`: an archive, or the folder of one, of
    the Python or the binary version. 50,000 images for training or 10,000 to test on."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    folder, suffix, decode = next(kind for name, kind in KINDS.items() if place.name in (name, kind[0]))
    wanted = {name + suffix: i for i, name in enumerate(names)}
    images, labels = np.empty((len(names) * ROWS, 3, 32, 32), np.uint8), np.empty(len(names) * ROWS, np.uint8)
    contents = _in_folder(place, wanted) if place.is_dir() else _in_archive(place, folder, set(wanted))
    for name, content in contents:
        rows = slice(wanted[name] * ROWS, (wanted[name] + 1) * ROWS)
        images[rows], labels[rows] = decode(place / name, content)
    return images, labels


# From a folder we read the files by name, and from an archive in the order in which they come.


def _in_folder(folder: Path, names) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: expected a file {name}, found none; unpack the archive again")
        yield name, (folder / name).read_bytes()


def _in_archive(path: Path, folder: str, names: set[str]) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./").removeprefix(f"{folder}/")
                if name in names and member.isfile() and (file := archive.extractfile(member)):
                    require(path / name, f"at most {LARGEST:,} bytes:", True, member.size <= LARGEST)
                    names.remove(name)
                    yield name, file.read()
                if not names:
                    return
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        found = f"{path.stat().st_size:,} bytes that do not unpack ({error})"
        raise ValueError(f"{path}: expected a whole tar.gz archive, found {found}; {AGAIN}") from error
    raise ValueError(f"{path}: expected {', '.join(sorted(names))} in it, found no such file; {AGAIN}")


__all__ = ["BytesUnpickler", "cifar_from_pickle", "cifar_from_records", "read_cifar", "read_idx"]
