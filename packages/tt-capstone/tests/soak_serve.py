"""Many clients for minutes, some of which leave in the middle: is anything lost, leaked or different from alone?

    python packages/tt-capstone/tests/soak_serve.py --clients 16 --leaving 5 --minutes 10

A script and not a test, because it takes minutes. It starts a server in a process of its own, prints what it found, and
ends with status 1 if anything is wrong. Memory and file handles are read from /proc, so it needs Linux for these two.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import openai

import tt_opt
from tt_capstone import LanguageModel, load_language_model
from tt_capstone.serve import Settings, make_server
from tt_nlp import Encoder
from tt_nlp.transformers import small_gpt
from tt_tensor import manual_seed

SLOTS, QUEUE = 8, 16


def model(path):
    """The model of a file, or a small one with random weights, whose tokens are bytes."""
    if path:
        return load_language_model(path)
    manual_seed(0)
    network = small_gpt(257, layers=4, width=128, length=512).eval()
    return LanguageModel("small", network, Encoder([bytes([n]) for n in range(256)], ["<|end|>"]), frozenset({256}))


def questions(whole, count, longest):
    """Requests with the texts that `tt_opt.generate` gives alone."""
    rng = random.Random(0)
    for seed in range(count):
        prompt = "".join(rng.choices("abc def", k=rng.randint(1, 60))) + "."
        ids, most = whole.prompt(prompt), rng.randint(1, longest)
        found = tt_opt.generate(whole.model, ids, most, seed=seed, stop=whole.stop)[len(ids) :]
        wanted = whole.tokenizer.decode(token for token in found if token not in whole.stop)
        yield {"model": whole.name, "prompt": prompt, "max_tokens": most, "seed": seed}, wanted


class Soak:
    """Clients on threads, and what happened to them."""

    def __init__(self, url, asked, end):
        self.url, self.asked, self.end = url, asked, end
        self.found, self.seconds, self.lock = Counter(), [], threading.Lock()

    def count(self, what, seconds=None):
        with self.lock:
            self.found[what] += 1
            if seconds is not None:
                self.seconds.append(seconds)

    def run(self, number, leaves):
        """Ask until the time is over."""
        rng = random.Random(number)
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="no", max_retries=0, timeout=120) as client:
            while time.monotonic() < self.end:
                question, wanted = rng.choice(self.asked)
                try:
                    (self.leave if leaves else self.stay)(client, rng, question, wanted)
                except openai.RateLimitError:
                    self.count("429: try again")
                    time.sleep(rng.random())
                except openai.APITimeoutError:
                    self.count("left while it waited or was answered" if leaves else "WRONG: no answer in time")
                except openai.APIError as error:
                    self.count(f"WRONG: {type(error).__name__}: {error}"[:100])

    def stay(self, client, rng, question, wanted):
        start, stream = time.monotonic(), rng.random() < 0.5
        answer = client.completions.create(**question, stream=stream)
        text = "".join(chunk.choices[0].text for chunk in answer) if stream else answer.choices[0].text
        self.count("as alone" if text == wanted else "WRONG: different from alone", time.monotonic() - start)

    def leave(self, client, rng, question, wanted):
        if rng.random() < 0.5:
            client.with_options(timeout=rng.uniform(0.001, 0.5)).completions.create(**question | {"max_tokens": 400})
            return self.count("was answered before it left")
        with client.completions.create(**question | {"max_tokens": 400}, stream=True) as stream:
            for _, _ in zip(range(rng.randint(0, 20)), stream):
                pass
        self.count("left in a stream")


def process_state(pid):
    """Memory in MB, open files, and threads of a process; zeros where there is no /proc."""
    folder = Path(f"/proc/{pid}")
    if not folder.exists():
        return 0.0, 0, 0
    status = (folder / "status").read_text(encoding="utf-8")
    memory, threads = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads"))
    return memory / 1024, len(os.listdir(folder / "fd")), threads


def metrics(url):
    """The numbers of /metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def soak(arguments, process, url):
    """Run the clients; what is wrong afterwards, as a list of texts."""
    whole = model(arguments.model)
    asked = list(questions(whole, 12 if arguments.model else 60, 30 if arguments.model else 100))
    run = Soak(url, asked, time.monotonic() + 60 * arguments.minutes)
    idle = process_state(process.pid)
    rest = range(arguments.clients)
    threads = [threading.Thread(target=run.run, args=(n, n < arguments.leaving)) for n in rest]
    for thread in threads:
        thread.start()
    states, begin = [], time.monotonic()
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        states.append(process_state(process.pid))
    minutes = (time.monotonic() - begin) / 60
    end = time.monotonic() + 10
    while (numbers := metrics(url)) and time.monotonic() < end:
        if not numbers["tt_active_answers"] + numbers["tt_waiting_answers"]:
            break
        time.sleep(0.1)
    time.sleep(2)
    return report(run, states, idle, process_state(process.pid), numbers, minutes)


def report(run, states, idle, after, numbers, minutes):
    """Print what happened; what is wrong, as a list of texts."""
    wrong = [f"{what} ({count})" for what, count in run.found.items() if what.startswith("WRONG")]
    for what, count in sorted(run.found.items()):
        print(f"{count:7,d}  {what}")
    written = numbers["tt_completion_tokens_total"]
    print(f"{minutes:.1f} minutes, {written / minutes / 60:,.0f} tokens a second;", end=" ")
    print(f"an answer took {statistics.median(run.seconds):.2f} s (median), {max(run.seconds):.2f} s (longest)")
    warm = states[len(states) // 4]
    for name, position in (("memory in MB", 0), ("open files", 1), ("threads", 2)):
        most = max(state[position] for state in states)
        row = [state[position] for state in (idle, warm, states[-1], after)]
        print(f"{name}: {row[0]:.0f} at first, {row[1]:.0f} after a quarter, {row[2]:.0f} at the end,", end=" ")
        print(f"{row[3]:.0f} two seconds later; at most {most:.0f}")
    if after[0] > warm[0] * 1.05 + 16:
        wrong.append(f"memory grew from {warm[0]:.0f} to {after[0]:.0f} MB")
    if after[1] > idle[1] + 1:
        wrong.append(f"open files: {idle[1]} at first, {after[1]} afterwards")
    if numbers["tt_active_answers"] or numbers["tt_waiting_answers"]:
        wrong.append(f"{numbers['tt_active_answers']:.0f} slots are still taken")
    errors = [name for name in numbers if re.match(r"tt_requests_total.*status=\"5", name)]
    return wrong + errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--leaving", type=int, default=5, help="how many of them leave in the middle")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", help="a GGUF file instead of the small model")
    parser.add_argument("--serve", action="store_true", help="be the server")
    arguments = parser.parse_args()
    if arguments.serve:
        make_server(model(arguments.model), "127.0.0.1", 0, Settings(slots=SLOTS, queue=QUEUE)).run()
        return 0
    command = [sys.executable, __file__, "--serve", *(["--model", arguments.model] if arguments.model else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url = re.search(r"(http://\S+?)/", process.stdout.readline())[1]
        try:
            wrong = soak(arguments, process, url)
            process.send_signal(signal.SIGTERM)
            if process.wait(30):
                wrong.append(f"the server ended with status {process.returncode}")
        finally:
            process.kill()
    print(json.dumps({"wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
