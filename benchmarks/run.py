"""Time TinyTorch beside other frameworks, and write the numbers that the benchmarks page shows.

    hatch run bench:run                      everything, into site/benchmarks/phase1-2.json
    hatch run bench:run mlp small            two workloads, shown only
    hatch run bench:run lenet --out FILE     one workload, written to a file

The method is that of chapter 19, with a process for each contender. All of them are warm before the first turn, and
then they take turns in an order that is drawn anew in each round. A turn begins when the processors are idle; if other
programs ran meanwhile, it is taken again. Shown are the median of the turns, the median over the rounds of the ratio to
PyTorch in the same round with its 95 % interval (from 6 rounds on), and the distance of the slowest turn from the
fastest as a share of the median. Memory is what a step needs at its peak, beyond what is there between two steps.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import tokens
from workloads import WORKLOADS, Workload

import tt_tensor as tt
from tt_opt import median_interval
from tt_opt.benchmarking import least_values, take_turns

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "site" / "benchmarks" / "phase1-2.json"
DISTURBED = 0.1  # processors that others may use during a turn
THREADS = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
AVX512 = {"OPENBLAS_CORETYPE": "SkylakeX"}
LOOPS = {"TT_KERNELS": "loops"}
IN_REACH_OF_LOOPS = ("mlp", "small")
WITH_MEMORY = ("mlp", "lenet", "cifar", "cifar_bn", "gpt", "gpt_big")

# The module in contenders/, the package that it needs, and its environment. Ratios are to the first.
CONTENDERS = {
    "PyTorch eager, 2 threads": ("torch_eager", "torch", {}),
    "TinyTorch, compiled": ("tinytorch", "numba", {"TT_KERNELS": "compiled"}),
    "TinyTorch, fast": ("tinytorch", "tt_opt", {"TT_KERNELS": "fast"}),
    "TinyTorch": ("tinytorch", "tt_opt", {}),
    "TinyTorch, AVX-512 BLAS": ("tinytorch", "tt_opt", AVX512),
    "TinyTorch, loops": ("tinytorch", "tt_opt", LOOPS),
    "NumPy by hand": ("numpy_by_hand", "numpy", {}),
    "MyGrad": ("mygrad_peer", "mygrad", {}),
    "HIPS autograd": ("hips_autograd", "autograd", {}),
    "tiktoken": ("tiktoken_peer", "tiktoken", tokens.ONE_THREAD),
    "HF tokenizers": ("hugging_face", "tokenizers", tokens.ONE_THREAD),
    "TinyTorch, one thread": ("tinytorch_tokens", "tt_nlp", tokens.ONE_THREAD),
}
TIMED = dict(WORKLOADS)
if (Path(os.environ.get("TT_DATA", "")) / "gutenberg").is_dir():  # the text that is tokenized
    TIMED |= {name: Workload(*workload) for name, workload in tokens.WORKLOADS.items()}


def contenders(workload: str) -> dict[str, tuple[str, str, dict]]:
    """Those that are installed and know the workload. A BLAS kernel only where the processor can run it."""
    info = tt.system_info()
    avx512 = any("AVX512" in name for name in info["simd"]) and info["blas_kernel"] != AVX512["OPENBLAS_CORETYPE"]
    return {
        name: (module, package, env)
        for name, (module, package, env) in CONTENDERS.items()
        if importlib.util.find_spec(package)
        and f"def {workload}(" in (HERE / "contenders" / f"{module}.py").read_text(encoding="utf-8")
        and (env != AVX512 or (avx512 and workload not in ("small", "adam", "loader")))
        and (env != LOOPS or workload in IN_REACH_OF_LOOPS)
    }


def busy() -> float:
    """Seconds of processor time that the whole machine has spent so far."""
    spent = psutil.cpu_times()
    return sum(spent) - spent.idle - getattr(spent, "iowait", 0.0) - getattr(spent, "guest", 0.0)


def wait_for_quiet(limit: float = 5.0) -> None:
    """Return when the processors have been idle for a tenth of a second, or the limit is reached."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = busy()
        time.sleep(0.1)
        if busy() - before <= 0.011:
            return


def child(command: list[str], env: dict | None = None) -> subprocess.Popen:
    """A process that we can talk to, line by line."""
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Contender:
    """A process that has built a workload and waits for its turn."""

    def __init__(self, workload: str, module: str, env: dict):
        command = [sys.executable, str(HERE / "worker.py"), module, workload]
        self.process = child(command, {**os.environ, **THREADS, **env})
        self.first = self._answer()
        self.disturbed = 0

    def _answer(self) -> float | None:
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} ended without an answer; its message is above")
        return None if line == "None" else float(line)

    def _attempt(self, seconds: float) -> tuple[float, float]:
        """How much of the processors others used meanwhile, and the time of a step."""
        wait_for_quiet()
        own, all_of_it, start = psutil.Process(self.process.pid), busy(), time.monotonic()
        own_before = sum(own.cpu_times()[:2])
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        step = self._answer()
        others = busy() - all_of_it - (sum(own.cpu_times()[:2]) - own_before)
        return others / (time.monotonic() - start), step

    def turn(self, seconds: float, tries: int = 6) -> float:
        """The time of a step. A turn that is disturbed is taken again; the least disturbed one counts."""
        attempts = []
        for _ in range(tries):
            attempts.append(self._attempt(seconds))
            if attempts[-1][0] < DISTURBED:
                break
        else:
            self.disturbed += 1
        return min(attempts)[1]

    def peak(self) -> float | None:
        """Megabytes that a step has needed."""
        self.process.stdin.write("peak\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)


def measured(workload: str, rounds: int, seconds: float) -> list[dict]:
    """The rows of one workload."""
    running = {name: Contender(workload, module, env) for name, (module, _, env) in contenders(workload).items()}
    turns = in_turns({name: partial(c.turn, seconds) for name, c in running.items()}, rounds)
    peaks = {name: contender.peak() for name, contender in running.items()}
    for contender in running.values():
        contender.close()
    firsts = {name: c.first for name, c in running.items() if c.first is not None}
    if firsts and not all(math.isclose(f, next(iter(firsts.values())), rel_tol=1e-5) for f in firsts.values()):
        raise RuntimeError(f"{workload}: the contenders do not compute the same: {firsts}")
    title, unit, scale = TIMED[workload]
    found = rows(workload, title, unit, {name: times * scale for name, times in turns.items()}, running)
    if workload in WITH_MEMORY and None not in peaks.values():
        found += rows(f"{workload}_memory", f"{title}: memory", "MB", {n: np.array([mb]) for n, mb in peaks.items()})
    return found


def in_turns(contenders: dict, rounds: int) -> dict[str, np.ndarray]:
    """What each contender returns in each round, by its name."""
    return dict(zip(contenders, take_turns(list(contenders.values()), rounds, np.random.default_rng()).T))


def rows(workload: str, title: str, unit: str, turns: dict[str, np.ndarray], running: dict | None = None) -> list:
    """Median, ratio with its interval, and spread for each contender."""
    base, found = next(iter(turns.values())), []
    for name, values in turns.items():
        median, ratios = float(np.median(values)), values / base
        row = {"workload": workload, "title": title, "unit": unit, "contender": name, "median": float(f"{median:.4g}")}
        row["ratio"] = round(float(np.median(ratios)), 3)
        if len(ratios) >= least_values(0.95) and values is not base:
            row["between"] = [round(end, 3) for end in median_interval(ratios)]
        row["spread"] = round(float(np.ptp(values)) / median, 3)
        row["disturbed"] = running[name].disturbed if running else 0
        found.append(row)
    return found


# The parent asks how much memory the child has, so that the child need not import anything for it.
IMPORT = """
import time
start = time.perf_counter()
import numpy
print(flush=True)
input()
again = time.perf_counter()
import {package}
print(time.perf_counter() - again, flush=True)
input()
"""
IMPORTED = {"PyTorch": "torch", "TinyTorch": "tt_autograd", "MyGrad": "mygrad", "HIPS autograd": "autograd"}


def one_import(package: str) -> tuple[float, float]:
    """Milliseconds and megabytes that `import package` takes beyond `import numpy`, in a fresh process."""
    wait_for_quiet()
    command = [sys.executable, "-c", IMPORT.format(package=package)]
    with child(command) as process:
        own = psutil.Process(process.pid)
        process.stdout.readline()
        before = own.memory_info().rss
        process.stdin.write("\n")
        process.stdin.flush()
        seconds = float(process.stdout.readline())
        after = own.memory_info().rss
        process.stdin.write("\n")
    return seconds * 1e3, (after - before) / 1e6


def imports(rounds: int) -> list[dict]:
    """Time and memory of importing, beyond NumPy."""
    memory: dict[str, list[float]] = {name: [] for name, p in IMPORTED.items() if importlib.util.find_spec(p)}

    def turn(name):
        milliseconds, megabytes = one_import(IMPORTED[name])
        memory[name].append(megabytes)
        return milliseconds

    times = in_turns({name: partial(turn, name) for name in memory}, rounds)
    return [
        *rows("import", "Import, beyond NumPy: time", "ms", times),
        *rows("memory", "Import, beyond NumPy: memory", "MB", {name: np.array(mb) for name, mb in memory.items()}),
    ]


def table(rows: list[dict]) -> str:
    head = f"\n{rows[0]['title']}\n{'':26s}{rows[0]['unit']:>10s}{'ratio':>8s}{'95 %':>16s}{'spread':>8s}"
    lines = [
        f"{r['contender']:26s}{r['median']:10.4g}{r['ratio']:8.2f}"
        f"{' to '.join(f'{end:.2f}' for end in r.get('between', ())):>16s}{r['spread']:8.0%}"
        + (f"  {r['disturbed']} turns disturbed" if r["disturbed"] else "")
        for r in rows
    ]
    return "\n".join([head, *lines])


def machine() -> dict:
    info = tt.system_info()
    return {key.replace("_", " "): info[key] for key in ("processor", "cores", "system", "blas", "blas_kernel")}


def versions() -> dict:
    packages = ("numpy", "torch", "tt-autograd", "mygrad", "autograd", "tiktoken", "tokenizers")
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {"python": sys.version.split()[0], **{p: found[p] for p in packages if p in found}}


def main() -> None:
    every = [*TIMED, "import"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "workloads", nargs="*", choices=[[], *every], help=f"some of {every}; if none, all are timed and written"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=9, help="at least 6, for an interval")
    parser.add_argument("--seconds", type=float, default=0.7, help="length of a turn")
    arguments = parser.parse_args()
    results = []
    for workload in arguments.workloads or every:
        timed = imports if workload == "import" else partial(measured, workload, seconds=arguments.seconds)
        found = timed(rounds=arguments.rounds)
        for name in dict.fromkeys(row["workload"] for row in found):
            print(table([row for row in found if row["workload"] == name]), flush=True)
        results += found
    if output := arguments.out or (None if arguments.workloads else OUTPUT):
        command = " ".join(["hatch run bench:run", *arguments.workloads])
        head = {"machine": machine(), "date": datetime.date.today().isoformat(), "command": command}
        output.write_text(
            json.dumps({**head, "versions": versions(), "rows": results}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
