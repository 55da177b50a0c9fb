# # Model cards
#
# An appendix of chapter 20. At the end of it your model comes with a page that says what it is, how well it works and
# how sure we are of that, what it costs, and what it must not be used for. All numbers on the page are measured.

# ## Why a card
#
# Suppose that you get a file of weights, and a sentence: "98.6 % accuracy". Accuracy on what, and on how many examples?
# Were the examples held out? How long does an answer take, and on which machine? May you use the file at all? A *model
# card* (M. Mitchell et al., 2019) answers such questions in a fixed order. Its authors thought of people who are harmed
# by a model that was never meant for them. So the most important field says what the model is *not* for, and only a
# person can fill it in. A program can measure everything else, and a program does not flatter.

from __future__ import annotations

import argparse
import ctypes
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tt_autograd import evaluating, no_grad
from tt_nlp import next_token_loss
from tt_opt import Quantized, benchmark, bootstrap_interval, median_interval, model_bytes
from tt_tensor import Module, Tensor, from_numpy, kernels_in_use, system_info

# ## An interval for an accuracy
#
# The accuracy needs the most care. Our model was right on 354 of 359 digits, but on other digits it would have been
# right a few times more or less. So the best that we can give for the accuracy is an interval.
#
# The formula in most textbooks comes from the normal distribution. The share of right answers scatters around the true
# accuracy with a standard deviation of $\sqrt{p (1 - p) / n}$, and 95 % of a normal distribution are within 1.96
# standard deviations.


def normal_interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of textbooks for the share of right answers, by a normal distribution."""
    share = right / count
    spread = 1.96 * math.sqrt(share * (1 - share) / count)
    return share - spread, share + spread


# It fails where we need it, near 100 %. If all 359 answers are right, the interval is a single point, as if the model
# never erred and we were sure of that. With 358 right answers, its upper end is above 1.
#
# To find an interval that keeps its promise, we ask the same question as with the coins in chapter 19. Suppose that the
# accuracy is $p$. Then the number of right answers has a *binomial distribution*, and at least $k$ of $n$ answers are
# right with probability
#
# $$ P_p(X \ge k) = \sum_{i = k}^{n} \binom{n}{i} p^i (1 - p)^{n - i} , $$
#
# which grows with $p$. If we saw $k$ right answers, and this probability is below 2.5 %, then we do not believe such a
# small $p$. As the lower end of the interval we take the $p$ at which the probability is exactly 2.5 %. This is the
# interval of C. Clopper and E. Pearson (1934). In a sum of 10,000 terms some are tiny, so we add the logarithms of
# their factors and take the exponential at the end.


@functools.lru_cache(maxsize=4)
def log_factorials(count: int) -> np.ndarray:
    """Return the logarithms of 0!, 1!, ..., count!."""
    return np.array([math.lgamma(k + 1) for k in range(count + 1)])


def at_least(right: int, count: int, p: float) -> float:
    """Return the probability that `right` or more of `count` answers are right, each with probability p, 0 < p < 1."""
    i, factorial = np.arange(right, count + 1), log_factorials(count)
    logs = factorial[count] - factorial[i] - factorial[count - i] + i * math.log(p) + (count - i) * math.log1p(-p)
    return float(np.exp(logs).sum())


# We find that $p$ by *bisection*: we halve an interval until nothing is left of it. The upper end needs no work of its
# own, because it is 1 minus the lower end for the wrong answers.


def accuracy_interval(right: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson for the probability of a right answer, given `right` of `count`.
    Raises ValueError unless 0 <= right <= count and count > 0."""
    if not 0 <= right <= count or count < 1:
        raise ValueError(f"{right} right answers of {count} are impossible: count them on at least one example")

    def lower_end(successes):
        low, high = 0.0, 1.0
        for _ in range(50 if successes else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if at_least(successes, count, middle) < (1 - level) / 2 else (low, middle)
        return low

    return lower_end(right), 1 - lower_end(count - right)


# If all answers are right, the sum has one term, $p^n$, so the lower end is the $n$-th root of 0.025, which we can
# compute by hand.


def check_accuracy_interval():
    low, high = accuracy_interval(359, 359)
    assert math.isclose(low, 0.025 ** (1 / 359), abs_tol=1e-9) and high == 1
    low, high = accuracy_interval(5, 10)
    assert math.isclose(low, 1 - high) and math.isclose(at_least(5, 10, low), 0.025, rel_tol=1e-6)


# How often does an interval contain the truth? With the binomial distribution we can compute that instead of simulating
# it: we add up the probabilities of all counts whose interval contains it.


def coverage(interval: Callable[[int, int], tuple[float, float]], p: float, count: int) -> float:
    """Return the probability that interval(right, count) contains p, if each answer is right with probability p."""
    ends = [interval(right, count) for right in range(count + 1)]
    tails = [at_least(right, count, p) for right in range(count + 1)] + [0.0]
    return sum(tails[k] - tails[k + 1] for k, (low, high) in enumerate(ends) if low <= p <= high)


def show_coverage():
    print("accuracy  answers   normal   exact   hold the truth so often")
    for p, count in ((0.5, 100), (0.9, 100), (0.98, 100), (0.995, 100)):
        normal, exact = (coverage(interval, p, count) for interval in (normal_interval, accuracy_interval))
        print(f"{p:8.1%} {count:8d} {normal:8.1%} {exact:7.1%}")


# The normal interval promises 95 %, but the better the model, the less it keeps of that promise. The exact one keeps at
# least 95 % everywhere, and often more, because counts are integers and cannot hit 2.5 % exactly. We prefer to err on
# that side.

# ## An interval for a loss
#
# A language model has a loss instead of right answers. The losses of its tokens are not independent of each other,
# because a difficult page is difficult at each token. Windows of the text that do not overlap, however, are nearly
# independent. So we keep one number for each window, and leave the rest to the bootstrap of chapter 19.


def window_losses(model: Module, ids: np.ndarray, length: int) -> np.ndarray:
    """Return the mean loss in nats of each window of `length` tokens of a text: ids (n,) -> ((n - 1) // length,).
    Raises ValueError if there is no window."""
    count = (len(ids) - 1) // length
    if count < 1:
        raise ValueError(f"{len(ids)} tokens have no window of {length} tokens and a next one: give more text")
    inputs, targets = (np.reshape(ids[start : start + count * length], (count, length)) for start in (0, 1))
    with evaluating(model), no_grad():
        pairs = ((from_numpy(x[None]), from_numpy(y[None])) for x, y in zip(inputs, targets))
        return np.array([next_token_loss(model(x), y).item() for x, y in pairs])


# ## A measured number
#
# Each number of a card has a name, a unit, perhaps an interval, and a remark on how we found it.


@dataclass(frozen=True)
class Measured:
    """A number with its unit ("share", "nats", "seconds", "bytes" or "numbers"), the ends of its 95 % interval if it
    has one, and how it was found."""

    what: str
    value: float
    unit: str
    how: str
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return shown(self.value, self.unit)

    @property
    def interval(self) -> str:
        """The interval as text, or "" if there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"{shown(self.low, self.unit)} to {shown(self.high, self.unit)}"


# You read a share best in percent, and bytes in megabytes.


def shown(value: float, unit: str) -> str:
    """Return a number as text for a reader: a share in percent, bytes in MB, short times in ms."""
    if unit == "share":
        return f"{value:.2%}".replace("%", " %")
    if unit == "bytes":
        return f"{value / 1e6:,.1f} MB" if value >= 1e6 else f"{value / 1e3:,.1f} KB"
    if unit == "seconds":
        return f"{value:,.2f} s" if value >= 1 else f"{value * 1e3:#.3g}".rstrip(".") + " ms"
    return f"{value:,.3f} nats" if unit == "nats" else f"{value:,.0f}"


# We make such numbers in three ways: from right answers, from losses, and from the turns of chapter 19's stopwatch.


def measured_accuracy(right: int, count: int, what: str = "accuracy") -> Measured:
    """Return the share of right answers, with its interval."""
    low, high = accuracy_interval(right, count)
    return Measured(what, right / count, "share", f"{right} of {count} held out, exact interval", low, high)


def measured_loss(losses: np.ndarray, what: str = "loss") -> Measured:
    """Return the mean of losses (n,) that are independent of each other, in nats, with its interval. Raises ValueError
    for fewer than 10."""
    if len(losses) < 10:
        raise ValueError(f"{len(losses)} losses are too few for an interval: measure at least 10 windows or examples")
    low, high = bootstrap_interval(losses, np.mean)
    return Measured(what, float(np.mean(losses)), "nats", f"{len(losses)} windows, bootstrap", low, high)


def measured_time(function: Callable[[], Any], what: str = "time of an answer") -> Measured:
    """Return the median time of function(), with its interval."""
    timing = benchmark(function, turns=20, span=0.2)
    low, high = median_interval(timing.seconds)
    return Measured(what, timing.median, "seconds", "median of 20 turns", low, high)


# ## Memory and size
#
# A process needs memory not only for its arrays, but also for the interpreter, for NumPy, and for everything that it
# has allocated and freed. The operating system records the largest value, so we cannot miss a short peak. We must ask
# each system in another way. On Linux we read `VmHWM` (the *high-water mark* of *resident* memory), because the number
# of `getrusage` is inherited from the program that started ours.


def peak_memory() -> int:
    """Return the most memory that this process has had in RAM at once since it began, in bytes."""
    if sys.platform == "win32":
        return _peak_on_windows()
    import resource

    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    kept = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kept or most * (1 if sys.platform == "darwin" else 1024)


# Windows fills a structure, of which we need the third field.


class _Counters(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("faults", ctypes.c_uint32), ("peak", ctypes.c_size_t)]
    _fields_ += [(f"other_{number}", ctypes.c_size_t) for number in range(7)]


def _peak_on_windows() -> int:
    counters, library = _Counters(), vars(ctypes)["windll"]
    counters.size = ctypes.sizeof(counters)
    library.kernel32.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(library.kernel32.GetCurrentProcess())
    library.psapi.GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
    return int(counters.peak)


def check_peak_memory():
    before = peak_memory()
    np.ones(20_000_000, np.uint8)
    assert peak_memory() >= before > 5_000_000


# Models like to boast of their number of parameters. Packed layers of chapter 17 have a buffer of bytes instead of a
# weight, so we ask them for its original shape. We count shared weights once.


def number_of_parameters(model: Module) -> int:
    """Return how many numbers the weights of a model have, packed or not."""
    sizes = {id(weight): math.prod(weight.shape) for weight in model.parameters()}
    sizes |= {id(part.rows): math.prod(part.shape) for part in model.modules() if isinstance(part, Quantized)}
    return sum(sizes.values())


def measured_sizes(model: Module, file: str | os.PathLike | None = None) -> list[Measured]:
    """Return the number of parameters, the bytes of parameters and buffers, and those of a file, if given."""
    sizes = [
        Measured("parameters", number_of_parameters(model), "numbers", "shared weights count once"),
        Measured("memory of the weights", model_bytes(model), "bytes", "parameters and buffers"),
    ]
    if file is not None:
        sizes.append(Measured("size of the file", Path(file).stat().st_size, "bytes", Path(file).name))
    return sizes


# ## The circumstances
#
# A time is valid for one machine, and an accuracy for one state of the code. For the machine we use chapter 01. If the
# program is in a git repository, its commit names the code, and a plus sign says that you had changed files since.


def commit_of(folder: str | os.PathLike) -> str | None:
    """Return the commit of the repository around a folder, with a + if tracked files were changed, or None without
    one."""

    def git(*command):
        line = ["git", "-C", os.fspath(folder), *command]
        return subprocess.run(line, capture_output=True, encoding="utf-8", timeout=20, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None


# Whose code was it? If your chapters replace ours (`tt.toml`), the card should say so. A module of the course is in the
# folder of its package. If Python has loaded it from elsewhere, it is yours, and the checksum of its file identifies
# your version. (If you have swapped a package as a whole, Python looks into two folders; ours is the last of them.)


def own_chapters() -> dict[str, str]:
    """Return the modules of the course that this process has loaded from elsewhere, with the SHA-256 of their files."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        package = sys.modules.get(name.partition(".")[0])
        file = getattr(module, "__file__", None)
        inner = "." in name and hasattr(module, "__path__")  # a folder of a package, such as its tests
        if not name.startswith("tt_") or not file or inner or not hasattr(package, "__path__"):
            continue
        if Path(file).parent != Path([*package.__path__][-1]) and Path(file).is_file():
            found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found


# Together with the versions of all packages, we have the circumstances.


def versions() -> dict[str, str]:
    """Return the versions of Python, NumPy, and the packages of the course that are installed and in use."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in sorted(module for module in sys.modules if module.startswith("tt_") and "." not in module):
        try:
            found[name.replace("_", "-")] = importlib.metadata.version(name.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def circumstances(folder: str | os.PathLike = ".") -> dict[str, Any]:
    """Return the fields of a card that describe the circumstances of its measurement; `folder` is that of the
    program."""
    return {
        "machine": system_info(), "versions": versions(), "kernels": kernels_in_use(), "commit": commit_of(folder),
        "own_chapters": own_chapters(),
    }  # fmt: skip


# ## The card
#
# On the card, the data have a name, a size, a checksum, and a sentence that says how they were split.


@dataclass(frozen=True)
class DataFacts:
    """The data of a model: the numbers of examples for training and held out, the SHA-256 of all, and the split."""

    name: str
    training: int
    held_out: int
    sha256: str
    split: str


def checksum(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of the types, shapes and numbers of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# We cannot measure four of the fields. A card without them is refused, with advice on what to write.

ADVICE = {
    "name": "what the model is called",
    "purpose": "what the model does, for whom, and on what input",
    "not_for": "what the model must not be used for, and where it is known to fail",
    "licence": "under which licence the weights may be used, and those of the data",
}


@dataclass(frozen=True)
class ModelCard:
    """The content of a card. Raises ValueError if a text that only its author can write is empty."""

    name: str
    purpose: str
    not_for: str
    licence: str
    data: DataFacts
    measured: tuple[Measured, ...]
    seeds: tuple[int, ...]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    kernels: str
    commit: str | None
    own_chapters: Mapping[str, str]

    def __post_init__(self):
        for field, advice in ADVICE.items():
            if not str(getattr(self, field)).strip():
                raise ValueError(f"{field} of the model card is empty: write {advice}")


# To measure a card we need a model, an input on which we time it, and the facts that only you know. The quality comes
# from you as well, because only you know the task; compute it with `measured_accuracy` or `measured_loss`.


def measure_card(
    model: Module, example: Tensor, *, name: str, purpose: str, not_for: str, licence: str, data: DataFacts,
    quality: Sequence[Measured], seeds: Sequence[int], file: str | os.PathLike | None = None,
    folder: str | os.PathLike = ".",
) -> ModelCard:
    """Return a card with measurements: the time of model(example), sizes, memory, machine, versions.

    `quality` are accuracies or losses, `file` the file of the weights, `folder` that of the program. Raises ValueError
    for texts that are empty."""
    with evaluating(model), no_grad():
        answer = measured_time(lambda: model(example), f"time of an answer to {' x '.join(map(str, example.shape))}")
    peak = Measured("peak memory", peak_memory(), "bytes", "resident, of the whole process, Python and NumPy included")
    measured = (*quality, answer, peak, *measured_sizes(model, file))
    return ModelCard(name, purpose, not_for, licence, data, measured, tuple(seeds), **circumstances(folder))


# ## One source, two forms
#
# People read Markdown, and programs read JSON. If we wrote both from the card, they could differ one day. So we turn
# the card into JSON, and the JSON into Markdown.


def card_markdown(content: Mapping[str, Any]) -> str:
    """Return the content of a card.json as Markdown."""
    data, machine = content["data"], content["machine"]
    facts = {
        "data": f"{data['name']}: {data['training']:,} examples for training, {data['held_out']:,} held out. "
        f"{data['split']} SHA-256 {data['sha256']}",
        "seeds": _listed(content["seeds"]), "kernel set": content["kernels"], "commit": content["commit"] or "unknown",
        "versions": _listed(f"{name} {version}" for name, version in content["versions"].items()),
        "own chapters": _listed(f"{name} ({digest})" for name, digest in content["own_chapters"].items()),
    }  # fmt: skip
    facts |= {name.replace("_", " "): _listed(machine[name]) for name in machine if name not in content["versions"]}
    parts = [
        f"# {content['name']}", content["purpose"], "## What it is not for", content["not_for"],
        "## Measured", _table(("what", "value", "95 % interval", "how"), _rows(content["measured"])),
        "## Circumstances", _table(("what", ""), facts.items()), "## Licence", content["licence"],
        f"The same as data: card.json, checksum {content['sha256']}.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


# The rest is typography. We escape vertical bars, because inside a cell they would begin another cell.


def _rows(measured: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    numbers = [Measured(**entry) for entry in measured]
    return [(number.what, str(number), number.interval, number.how) for number in numbers]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in line)} |" for line in lines)


def _listed(value: Any) -> str:
    parts = [str(value)] if isinstance(value, (str, int, type(None))) else [str(part) for part in value]
    return ", ".join(parts) or "none"


# ## Files that notice a change
#
# It is easy to improve a number in a JSON file by hand. We cannot prevent that, but we can notice an accident, because
# the file has a checksum of all the rest. (If you forge the checksum as well, you know what you are doing.)


def seal(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data, whatever their layout in a file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_sealed(path: str | os.PathLike, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write plain data as JSON with a checksum, atomically, and return the content. Raises ValueError for nan."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    whole = {**plain, "sha256": seal(plain)}
    write_text(path, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    return whole


def read_sealed(path: str | os.PathLike) -> dict[str, Any]:
    """Read a file of `write_sealed`. Raises ValueError for a file that was changed, or is something else."""
    try:
        whole = json.loads(Path(path).read_text(encoding="utf-8"))
        content = {name: value for name, value in whole.items() if name != "sha256"}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, or not a file of ours: {error}") from None
    if whole.get("sha256") != seal(content):
        raise ValueError(f"{path} does not have the checksum that it names, so it was changed: make it again")
    return whole


# The folder has either the old file or the new one, and never half of one.


def write_text(path: str | os.PathLike, text: str | bytes) -> None:
    """Write a whole file or none: under a temporary name first, to the disk, then rename."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_card(card: ModelCard, folder: str | os.PathLike) -> None:
    """Write CARD.md and card.json into a folder."""
    content = write_sealed(Path(folder) / "card.json", asdict(card))
    write_text(Path(folder) / "CARD.md", card_markdown(content))


# When we read, we are as strict as possible, and refuse a file that is not exactly a card.


def read_card(folder: str | os.PathLike) -> ModelCard:
    """Read the card in a folder. Raises ValueError if card.json was changed after it was written, or is not a card."""
    file = Path(folder) / "card.json"
    content = read_sealed(file)
    if set(content) != {field.name for field in fields(ModelCard)} | {"sha256"}:
        raise ValueError(f"{file} is not a model card: its fields are {', '.join(content)}")
    del content["sha256"]
    content["data"] = DataFacts(**content["data"])
    content["measured"] = tuple(Measured(**entry) for entry in content["measured"])
    return ModelCard(**content | {"seeds": tuple(content["seeds"])})


# As an example, we make the card of the network of chapter 08.


def digits_card() -> ModelCard:
    """Return the card of a network for the 8 x 8 digits, trained on the spot."""
    from tt_autograd.training import digits, train_digits

    (x, y), (unseen, truth) = digits()
    model, _ = train_digits(5, progress=False)
    with no_grad():
        right = int((model(unseen).numpy().argmax(1) == truth.numpy()).sum())
    data = DataFacts(
        "8 x 8 digits (E. Alpaydin and C. Kaynak, 1998)", len(x), len(unseen),
        checksum(x.numpy(), y.numpy(), unseen.numpy(), truth.numpy()), "A fifth is held out at random.",
    )  # fmt: skip
    return measure_card(
        model, unseen[:1], name="Digits", purpose="Reads one handwritten digit of 8 x 8 pixels.", data=data,
        not_for="Anything that matters: the digits are those of a few people, upright and centred.",
        licence="CC BY 4.0, as the data", quality=[measured_accuracy(right, len(unseen))], seeds=[0],
    )  # fmt: skip


def check_a_card_comes_back():
    card = digits_card()
    with tempfile.TemporaryDirectory() as folder:
        write_card(card, folder)
        assert asdict(read_card(folder)) == asdict(card)


def show_card():
    with tempfile.TemporaryDirectory() as folder:
        write_card(digits_card(), folder)
        print((Path(folder) / "CARD.md").read_text(encoding="utf-8"))


# ## The card of a project
#
# The checker of the next appendix, *Projects*, measures your project and writes a file `results.json`. From this file
# and the texts in the project's `card.toml` you make the card with the command
#
#     python -m tt_capstone report FOLDER


def texts_of(file: Path) -> dict[str, str]:
    """Read the texts in a card.toml. Raises ValueError for one that is missing or empty."""
    advice = {**ADVICE, "data": "which data these are", "split": "how the held-out examples were chosen"}
    try:
        texts = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}. It must contain {', '.join(advice)}") from None
    for name in advice:
        if not isinstance(texts.get(name), str) or not texts[name].strip():
            raise ValueError(f"{name} in {file} is empty: write {advice[name]}")
    return texts


# The checker has measured the rest.


def project_card(folder: str | os.PathLike) -> ModelCard:
    """Return the card of a checked project. Raises FileNotFoundError if you have not checked it, and ValueError for a
    text in card.toml that is missing or empty."""
    folder = Path(folder)
    if not (folder / "results.json").is_file():
        raise FileNotFoundError(f"{folder} has no results.json: run `python -m tt_capstone check {folder}` first")
    results, texts = read_sealed(folder / "results.json"), texts_of(folder / "card.toml")
    data = DataFacts(texts["data"], **results["data"], split=texts["split"])
    measured = tuple(Measured(**entry) for entry in results["measured"])
    said: dict[str, Any] = {name: texts[name] for name in ADVICE}
    return ModelCard(
        **said, data=data, measured=measured, seeds=tuple(results["budget"]["seeds"]),
        **results["circumstances"],
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run the command `report`, which writes CARD.md and card.json of a project. Returns the exit status."""
    parser = argparse.ArgumentParser("report", description="Write the model card of a project that has been checked.")
    parser.add_argument("folder", type=Path, help="the folder of the project")
    folder = parser.parse_args(arguments).folder
    try:
        write_card(project_card(folder), folder)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {folder / 'CARD.md'} and {folder / 'card.json'}")
    return 0


# ## A road not taken
#
# Model hubs keep cards as Markdown with a head of YAML, which people fill in by hand; its entry `model-index` lists
# results for leaderboards. Other forms go further, such as the *data sheets* of T. Gebru et al. (2018), which ask 57
# questions about data alone. We ask few questions, but let a program answer them.

__all__ = [
    "DataFacts", "Measured", "ModelCard", "accuracy_interval", "at_least", "card_markdown", "checksum",
    "circumstances", "commit_of", "coverage", "measure_card", "measured_accuracy", "measured_loss", "measured_sizes",
    "measured_time", "normal_interval", "number_of_parameters", "own_chapters", "peak_memory", "project_card",
    "read_card", "read_sealed", "window_losses", "write_card", "write_sealed", "write_text",
]
