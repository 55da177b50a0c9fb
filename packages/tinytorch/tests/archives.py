"""Files as torch.save writes them, made here byte by byte, so that the reader is tried where torch is not installed."""

import io
import zipfile

import numpy as np


def archive(data_pkl: bytes, storages: dict[str, bytes], folder: str = "archive", **more: bytes) -> bytes:
    """A zip archive with a pickle and the numbers of its storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as made:
        made.writestr(f"{folder}/data.pkl", data_pkl)
        made.writestr(f"{folder}/byteorder", b"little")
        for key, content in storages.items():
            made.writestr(f"{folder}/data/{key}", content)
        for name, content in more.items():
            made.writestr(f"{folder}/{name}", content)
    return file.getvalue()


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str, key: str, count: int) -> bytes:
    """A storage by its persistent id: ("storage", torch.FloatStorage, key, "cpu", count)."""
    return b"(" + text("storage") + name_of("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(storage: bytes, offset: int, size, stride, requires_grad: bool = False) -> bytes:
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, OrderedDict())."""
    flag = b"\x89" if not requires_grad else b"\x88"
    hooks = name_of("collections", "OrderedDict") + b")R"
    call = b"(" + storage + number(offset) + numbers(size) + numbers(stride) + flag + hooks + b"tR"
    return name_of("torch._utils", "_rebuild_tensor_v2") + call


def dictionary(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def simple(**values: bytes) -> bytes:
    """A file with a storage of six floats, and a dictionary that may use it by the name SIX."""
    return archive(pickled(dictionary(**values)), {"0": np.arange(6, dtype="<f4").tobytes()})


SIX = storage("FloatStorage", "0", 6)
