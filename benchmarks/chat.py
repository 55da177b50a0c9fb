"""Time the chat model of chapter 20 beside llama.cpp, and write the numbers that the benchmarks page shows.

    hatch run bench:chat                  all contenders, shown only
    hatch run bench:chat --out FILE       written to a file, such as site/benchmarks/phase5-chat.json
    hatch run bench:chat ours_compiled    some of them

The model is SmolLM2-135M-Instruct in 4 bits, in the folder TT_WEIGHTS or in the cache. llama.cpp takes part where
llama-cpp-python is installed; build it from source, since the processor that it was compiled for elsewhere may not be
yours. The method is that of run.py: a process for each contender, turns in a random order, and a turn begins when the
processors are idle. A contender has two threads.

Three things are measured. Writing: 64 tokens, the most likely one each time, after a prompt of 100 tokens. The first
token of a prompt of 500 tokens, of which nothing is known yet. And the largest memory of a process that loads the model
and writes 64 tokens after that first prompt; it includes Python, NumPy, and all libraries.
"""

import argparse
import datetime
import importlib.util
import itertools
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from run import DISTURBED, THREADS, busy, child, in_turns, machine, rows, table, versions, wait_for_quiet
from worker import memory

WRITTEN, SHORT, LONG = 64, 100, 500  # tokens
CONTENDERS = {
    "llama_cpp": ("llama.cpp, 4 bits", "llama_cpp", {}),
    "ours_compiled": ("TinyTorch, compiled, 4 bits", "numba", {"TT_KERNELS": "compiled"}),
    "ours": ("TinyTorch, 4 bits", "tt_capstone", {}),
    "wide_compiled": ("TinyTorch, compiled, float32", "numba", {"TT_KERNELS": "compiled"}),
    "wide": ("TinyTorch, float32", "tt_capstone", {}),
}
WORKLOADS = {
    "chat_write": (f"SmolLM2-135M writes {WRITTEN} tokens after {SHORT}, each", "ms"),
    "chat_prompt": (f"SmolLM2-135M: the first token after {LONG}", "ms"),
    "chat_memory": ("SmolLM2-135M: memory of a process that loads and writes, at its peak", "MB"),
}


def prompt(length: int, seed: int) -> list[int]:
    """Random tokens, ordinary ones."""
    return np.random.default_rng(seed).integers(100, 40_000, length).tolist()


# Contenders. Each gives a function of a prompt and a number of tokens, which forgets what it has read before.


def llama_cpp(file: str):
    from llama_cpp import Llama

    model = Llama(file, n_ctx=1024, n_threads=2, n_threads_batch=2, n_batch=512, verbose=False)

    def write(tokens, count):
        model.reset()
        return list(itertools.islice(model.generate(tokens, temp=0.0), count))

    return write


def ours(file: str, wide: bool = False):
    from tt_capstone import fuse_, load_language_model
    from tt_opt import stream

    model = load_language_model(file).model
    if wide:
        widen(model)
    fuse_(model)
    return lambda tokens, count: list(stream(model, tokens, count, temperature=0))


def widen(model) -> None:
    """All packed weights as ordinary ones, float32."""
    import tt_tensor as tt
    from tt_opt import QUANTIZED, Quantized

    ordinary, modules, done = {new: old for old, new in QUANTIZED.items()}, dict(model.named_modules()), {}
    for name, layer in modules.items():
        if isinstance(layer, Quantized):
            parent, _, own = name.rpartition(".")
            if id(layer.rows) not in done:
                done[id(layer.rows)] = layer.rows, tt.Parameter(layer.weight)
            new = ordinary[type(layer)].__new__(ordinary[type(layer)])
            tt.Module.__init__(new)
            vars(new).update({key: value for key, value in vars(layer).items() if key[0] != "_"})
            new.weight, new.bias = done[id(layer.rows)][1], None
            setattr(modules[parent], own, new)
    model.eval()


BUILD = {
    "llama_cpp": llama_cpp, "ours": ours, "ours_compiled": ours, "wide": partial(ours, wide=True),
    "wide_compiled": partial(ours, wide=True),
}  # fmt: skip


def work(name: str, file: str) -> None:
    """The process of a contender: answers each line with a number, or with tokens."""
    write = BUILD[name](file)
    write(prompt(LONG, 0), WRITTEN)
    peak = memory("VmHWM")
    print(*write(prompt(SHORT, 1), WRITTEN), flush=True)
    for seed, line in enumerate(map(str.strip, sys.stdin)):
        start = time.perf_counter()
        if line == "chat_write":
            write(prompt(SHORT, 1), 1)
            first, start = time.perf_counter() - start, time.perf_counter()
            write(prompt(SHORT, 1), WRITTEN + 1)
            print((time.perf_counter() - start - first) / WRITTEN * 1e3, flush=True)
        elif line == "chat_prompt":
            write(prompt(LONG, seed + 2), 1)
            print((time.perf_counter() - start) * 1e3, flush=True)
        else:
            print(peak, flush=True)


class Contender:
    """A process that has the model and waits for its turn."""

    def __init__(self, name: str, file: Path):
        threads = THREADS if "compiled" not in name else {}
        env = {**os.environ, **threads, "TT_THREADS": "2", **CONTENDERS[name][2]}
        self.process = child([sys.executable, __file__, "--work", name, str(file)], env)
        self.text, self.disturbed = self.process.stdout.readline().split(), 0

    def ask(self, workload: str) -> float:
        self.process.stdin.write(f"{workload}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def _attempt(self, workload: str) -> tuple[float, float]:
        """How much of the processors others used meanwhile, and the answer."""
        wait_for_quiet()
        own, all_of_it, start = psutil.Process(self.process.pid), busy(), time.monotonic()
        own_before = sum(own.cpu_times()[:2])
        answer = self.ask(workload)
        others = busy() - all_of_it - (sum(own.cpu_times()[:2]) - own_before)
        return others / (time.monotonic() - start), answer

    def turn(self, workload: str, tries: int = 4) -> float:
        """What a turn measures. One that is disturbed is taken again; the least disturbed one counts."""
        attempts = []
        for _ in range(tries):
            attempts.append(self._attempt(workload))
            if attempts[-1][0] < DISTURBED:
                break
        else:
            self.disturbed += 1
        return min(attempts)[1]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)


def measured(names: list[str], file: Path, rounds: int) -> list[dict]:
    """The rows of all workloads."""
    running = {CONTENDERS[name][0]: Contender(name, file) for name in names}
    found = []
    for workload, (title, unit) in WORKLOADS.items():
        if workload == "chat_memory":
            turns = {name: np.array([contender.ask(workload)]) for name, contender in running.items()}
        else:
            turns = in_turns({name: partial(c.turn, workload) for name, c in running.items()}, rounds)
        found += rows(workload, title, unit, turns, running)
        print(table(found[-len(running) :]), flush=True)
    same = {name: shared(contender.text, next(iter(running.values())).text) for name, contender in running.items()}
    print("\nTokens of the same text as the first, before it parts:", same)
    for contender in running.values():
        contender.close()
    return found


def shared(one: list, other: list) -> int:
    """How many elements two lists have in common at their beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def main() -> None:
    from tt_capstone import find_weights

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contenders", nargs="*", choices=[[], *CONTENDERS], help="some of them; if none, all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=7, help="at least 6, for an interval")
    arguments = parser.parse_args()
    installed = [name for name, (_, package, _) in CONTENDERS.items() if importlib.util.find_spec(package)]
    names = [name for name in installed if not arguments.contenders or name in arguments.contenders]
    found = measured(names, Path(find_weights("smollm2")), arguments.rounds)
    if arguments.out:
        head = {"machine": machine(), "date": datetime.date.today().isoformat()}
        head["command"] = " ".join(["hatch run bench:chat", *arguments.contenders])
        text = json.dumps({**head, "versions": versions(), "rows": found}, indent=1)
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    work(*sys.argv[2:]) if sys.argv[1:2] == ["--work"] else main()
