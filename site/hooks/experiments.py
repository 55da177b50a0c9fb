"""Run a chapter's experiments, its functions `show_*`, and keep what they print and draw.

A chapter is imported, never executed as a script. Then its `show_*` are called in the order of the file, in a process
of its own. If one raises, there is no page. If one takes longer than `TIME_LIMIT`, it is ended and marked as late, and
the others still run. The outcome is cached until the code of the packages changes (not their prose or docstrings).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from importlib import import_module, metadata
from pathlib import Path

from reading import WeaveError, read_chapter

from tt_tito.curriculum import Appendix, Chapter, Curriculum, read

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TIME_LIMIT = 240  # seconds for one experiment, on a slow machine that does something else as well
ALONE = {"tt_tensor.setup", "tt_opt.acceleration", "tt_opt.threads", "tt_opt.benchmarking"}  # they measure the machine
ENVIRONMENT = {
    "MPLBACKEND": "svg",
    "MATPLOTLIBRC": str(HERE / "matplotlibrc"),
    "PYTHONHASHSEED": "0",
    "PYTHONIOENCODING": "utf-8",
    "TT_SWAP": "0",  # the book is about the reference implementation
}
XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def read_curriculum(root: Path = ROOT) -> Curriculum:
    path = root / "packages" / "tt-tito" / "src" / "tt_tito" / "curriculum.toml"
    return read(path.read_text(encoding="utf-8"), path.name)


# -- in the chapter's own process -------------------------------------------------------------------------------------


def experiments(module_name: str) -> list[str]:
    """The names of a chapter's experiments, in the order of its file. Imports the chapter."""
    file = import_module(module_name).__file__
    return read_chapter(Path(file).read_text(encoding="utf-8"), module_name).experiments("show_")


def _experiment(show: Callable, name: str) -> dict:
    if seed := getattr(sys.modules.get("tt_tensor.setup"), "manual_seed", None):
        seed(0)  # so that an experiment gives the same numbers when it runs alone
    printed, begin, work = io.StringIO(), time.perf_counter(), time.process_time()
    with redirect_stdout(printed):
        result = show()
    figures = list(result) if isinstance(result, (list, tuple)) else [result] if result is not None else []
    for figure in figures:
        if not hasattr(figure, "savefig"):
            raise TypeError(f"{name} returned {figure!r:.80}; it must return None, a figure or a list of figures")
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        lost = [n for n in pyplot.get_fignums() if pyplot.figure(n) not in figures]
        pyplot.close("all")
        if lost:
            raise RuntimeError(f"{name} drew a figure and did not return it")
    svgs = [svg(figure, f"{name}-{i}") for i, figure in enumerate(figures)]
    seconds, work = time.perf_counter() - begin, time.process_time() - work
    return {"text": printed.getvalue().rstrip(), "figures": svgs, "seconds": seconds, "work": work}


def svg(figure, name: str) -> str:
    """A figure as SVG inside the page: black becomes the text's color, whatever the theme; two decimals are enough."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = name
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    width, height = (float(value) for value in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    opening = f'<svg {XMLNS} viewBox="0 0 {width:g} {height:g}" style="--width: {width:g}px" role="img">'
    svg = re.sub(r"<svg[^>]*>", opening, svg, count=1)
    svg = re.sub(r"(fill|stroke): #000000", r"\1: currentColor", svg)
    svg = re.sub(r"(?<![\w+/])(\d+\.\d\d)\d+(?![\w+/])", r"\1", svg)
    prefix = re.sub(r"\W", "-", name) + "-"
    svg = re.sub(r'\bid="(?!glyph)', f'id="{prefix}', svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\1{prefix}", svg)
    return "".join(line.strip() + " " for line in svg.splitlines()).strip()


def child(module_name: str, late: list[str], result: Path) -> None:
    """Run the experiments that have no line in the file of results and are not late, and add a line for each."""
    with open(result, "a+", encoding="utf-8") as lines:
        lines.seek(0)
        done = {json.loads(line)["name"] for line in lines}

        def note(**found) -> None:
            print(json.dumps(found), file=lines, flush=True)

        try:
            names = experiments(module_name)
            note(name="", experiments=names)
            for name in names:
                if name not in done and name not in late:
                    show = getattr(sys.modules[module_name], name)
                    note(name=name, **_experiment(show, f"{module_name}.{name}"))
        except BaseException as error:
            note(name="", **_failure(module_name, error))


def _failure(module_name: str, error: BaseException) -> dict:
    import traceback

    file = getattr(sys.modules.get(module_name), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)
    ours = sum(frame.filename == __file__ for frame in frames)
    shown = "".join(traceback.format_exception(error, limit=-(len(frames) - ours) or None))
    return {"error": shown, "line": line}


# -- from outside -----------------------------------------------------------------------------------------------------


def outputs_of(
    entries: list[Chapter | Appendix], root: Path = ROOT, told: Callable[[str], None] = print
) -> Iterator[dict[str, dict]]:
    """The outputs of each chapter's experiments, from the cache where no code has changed since they ran. Those that
    measure the machine run first, one chapter at a time; then two chapters run at once."""
    caches = {entry: root / "build" / "woven" / f"{entry.module}-{_fingerprint(entry, root)}.json" for entry in entries}
    to_run = [entry for entry in entries if not caches[entry].exists()]
    found = {}
    for chapters, at_once in (
        ([entry for entry in to_run if entry.module in ALONE], 1),
        ([entry for entry in to_run if entry.module not in ALONE], 2),
    ):
        with ThreadPoolExecutor(at_once) as pool:
            try:
                for entry, (outputs, seconds) in zip(chapters, pool.map(_timed_run, chapters)):
                    found[entry] = outputs
                    _keep(entry, outputs, caches[entry], root)
                    told(_progress(entry, outputs, seconds))
            except WeaveError:
                pool.shutdown(cancel_futures=True)
                raise
    for entry in entries:
        yield found[entry] if entry in found else json.loads(caches[entry].read_text(encoding="utf-8"))


def _timed_run(entry: Chapter | Appendix) -> tuple[dict[str, dict], float]:
    begin = time.perf_counter()
    return run_apart(entry.module, entry.source), time.perf_counter() - begin


def _keep(entry: Chapter | Appendix, outputs: dict[str, dict], cache: Path, root: Path) -> None:
    """Write outputs into the cache, unless one is missing because it took too long."""
    wanted = read_chapter((root / entry.source).read_text(encoding="utf-8"), entry.source).experiments("show_")
    if set(wanted) != set(outputs):
        raise WeaveError(f"{entry.source}: the installed {entry.module} is another file; pip install -e the checkout")
    if not any("late" in output for output in outputs.values()):
        cache.parent.mkdir(parents=True, exist_ok=True)
        for old in cache.parent.glob(f"{entry.module}-*.json"):
            old.unlink()
        cache.write_text(json.dumps(outputs), encoding="utf-8")


def _progress(entry: Chapter | Appendix, outputs: dict[str, dict], seconds: float) -> str:
    """A line about a chapter whose experiments ran: the time, and those that took the most seconds of a processor."""
    slow = sorted(((output.get("work", TIME_LIMIT), name) for name, output in outputs.items()), reverse=True)
    slow = [f"{name} {taken:.1f}" for taken, name in slow[:3] if taken >= 1]
    return f"{entry.module}: {len(outputs)} experiments in {seconds:.1f} s" + (f" ({', '.join(slow)})" if slow else "")


def _threads(module_name: str) -> dict[str, str]:
    """One BLAS thread, so that a time does not depend on what the other cores do; all in the chapter on the machine."""
    return {} if module_name == "tt_tensor.setup" else {"OPENBLAS_NUM_THREADS": "1"}


def run_apart(module_name: str, name: str) -> dict[str, dict]:
    """Run a chapter in a process and a folder of its own, on the reference implementation."""
    late: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "outcome.jsonl"
        while True:
            ended, complaint = _run(module_name, late, folder, result)
            lines = [json.loads(line) for line in result.read_text(encoding="utf-8").splitlines()]
            for line in lines:
                if "error" in line:
                    where = f"{name}:{line['line'] or 1}"
                    raise WeaveError(f"{where}: an experiment failed, so there is no page\n\n{line['error']}")
            names = next((line["experiments"] for line in lines if "experiments" in line), None)
            outputs = {line.pop("name"): line for line in lines if line["name"]}
            missing = [wanted for wanted in names or [] if wanted not in outputs and wanted not in late]
            if ended is not None and (names is None or missing):
                raise WeaveError(f"{name}: the process of the experiments ended with {ended}\n\n{complaint}")
            if names is None:
                raise WeaveError(f"{name}: the import took longer than {TIME_LIMIT} s")
            if not missing:
                return {wanted: outputs.get(wanted, {"late": TIME_LIMIT}) for wanted in names}
            late.append(missing[0])


def _run(module_name: str, late: list[str], folder: str, result: Path) -> tuple[int | None, str]:
    """Start the process and wait. Its return code, or None if nothing came for too long, and what it complained of."""
    command = [sys.executable, str(Path(__file__).resolve()), module_name, str(result), *late]
    result.touch()
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) as said:
        quiet = {"cwd": folder, "stdin": subprocess.DEVNULL, "stdout": said, "stderr": said, "start_new_session": True}
        process = subprocess.Popen(command, env=os.environ | ENVIRONMENT | _threads(module_name), **quiet)
        size, since = 0, time.monotonic()
        while process.poll() is None:
            if size != (size := result.stat().st_size):
                since = time.monotonic()
            if time.monotonic() - since > TIME_LIMIT:
                _end(process)
                return None, ""
            time.sleep(0.02)
        said.seek(0)
        return process.returncode, said.read()


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except AttributeError:  # on Windows
        process.kill()
    process.wait()


# -- what the outcome depends on --------------------------------------------------------------------------------------


def _fingerprint(entry: Chapter | Appendix, root: Path) -> str:
    """Changes with the code (not the prose) of this chapter's package and all before it, and with the tools."""
    names = [package.name for package in read_curriculum(root).packages]
    tools = _without_prose(Path(__file__).read_text(encoding="utf-8"), docstrings=False)
    tools += (HERE / "matplotlibrc").read_bytes()
    code = code_digest(root, names[: names.index(entry.package) + 1], docstrings=False)
    return hashlib.sha256(tools + code.encode()).hexdigest()[:20]


def code_digest(root: Path, packages: list[str] | None = None, docstrings: bool = True) -> str:
    """Changes with the code (not the prose) of these packages, or of all, and with Python, NumPy and matplotlib."""
    tools = sorted(f"{d.name} {d.version}" for d in metadata.distributions() if d.name in {"numpy", "matplotlib"})
    digest = hashlib.sha256(f"{platform.python_version()} {tools}".encode())
    names = packages or [package.name for package in read_curriculum(root).packages]
    for file in (file for name in names for file in sorted((root / "packages" / name / "src").rglob("*"))):
        if file.suffix == ".py":
            digest.update(_without_prose(file.read_text(encoding="utf-8"), docstrings))
        elif file.is_file() and "__pycache__" not in file.parts:
            digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _without_prose(text: str, docstrings: bool) -> bytes:
    """A digest of what is code in a text; the same file is asked for many times, since chapters build on each other."""
    tree = ast.parse(text)
    for node in () if docstrings else ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) and ast.get_docstring(node) is not None:
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).digest()


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[3:], Path(sys.argv[2]))
