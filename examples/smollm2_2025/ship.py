"""I shipped a system: the chat model of chapter 20 is served, programs ask it, and it ends when it is told to.

SmolLM2 (2025) is a family of small language models whose makers gave away weights, training texts and recipes. The
smallest one has 135 million weights and fits into 98 MB.

A server is started in a process of its own. Four clients ask it for 25 capitals through the interface that most
programs for language models speak; another one reads the same answer as a stream. At the end the server is told to stop
while it is still writing, and it must finish that answer.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from terminal import KERNELS, Result, heading, json_file, report

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "China": "Beijing",
    "Egypt": "Cairo", "Russia": "Moscow", "Greece": "Athens", "Poland": "Warsaw", "Portugal": "Lisbon",
    "Austria": "Vienna", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Ireland": "Dublin", "Hungary": "Budapest", "Cuba": "Havana", "Kenya": "Nairobi", "Peru": "Lima",
    "Chile": "Santiago", "Canada": "Ottawa", "India": "New Delhi", "Thailand": "Bangkok",
}  # fmt: skip
NEEDED = 18  # right answers of 25
CLIENTS = 4
WAIT = 120  # seconds for the server to start, and for an answer
STORY = "Tell me a long story about a lighthouse."


# ## The server
#
# It is the command `tito serve`, as a user would start it. We wait until it says which model it has.


@dataclass
class Server:
    """A server that runs, and where it is."""

    process: subprocess.Popen
    url: str
    model: str = ""  # the name under which it knows its model

    def ask(self, path: str, body: dict | None = None, timeout: float = WAIT):
        """The open response to a request. Raises RuntimeError with what the server said for a status above 399."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            return urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.code} {error.read().decode(errors='replace')[:200]}") from None

    def stop(self) -> None:
        """Tell the server to stop, as a service manager does."""
        self.process.send_signal(signal.SIGTERM if os.name != "nt" else signal.CTRL_BREAK_EVENT)


@contextmanager
def serving(model: str, kernels: str) -> Iterator[Server]:
    """A server in a process of its own. RuntimeError with its last lines if it does not start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tt_capstone", "serve", model, "--port", str(port), "--slots", str(CLIENTS)]
    flags = subprocess.CREATE_NEW_PROCESS_GROUP if os.name == "nt" else 0
    process = subprocess.Popen(
        [*command, "--kernels", kernels], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, creationflags=flags
    )
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(line.decode(errors="replace") for line in process.stderr))
    reader.start()
    server = Server(process, f"http://127.0.0.1:{port}")
    try:
        _wait(server)
        yield server
    except (RuntimeError, OSError) as error:
        process.kill()
        reader.join()
        raise RuntimeError(f"{error}; the server said: {' '.join(log[-3:])}") from None
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


def _wait(server: Server) -> None:
    end = time.perf_counter() + WAIT
    while server.process.poll() is None and time.perf_counter() < end:
        try:
            with server.ask("/v1/models", timeout=2) as response:
                server.model = json.load(response)["data"][0]["id"]
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the server did not start")


# ## Questions
#
# Four at a time, so that the batches of chapter 16 have something to do. At temperature 0 the answers are the same each
# time, and a streamed one has the same characters.


def chat(server: Server, content: str, **more) -> dict:
    """The body of a request: one message, and the answer at temperature 0."""
    return {"model": server.model, "messages": [{"role": "user", "content": content}], "temperature": 0, **more}


def answer(server: Server, content: str, max_tokens: int = 20) -> tuple[str, int]:
    """What is answered, and how many tokens that took."""
    with server.ask("/v1/chat/completions", chat(server, content, max_tokens=max_tokens)) as response:
        found = json.load(response)
    return found["choices"][0]["message"]["content"], found["usage"]["completion_tokens"]


def streamed(server: Server, content: str, max_tokens: int = 20) -> Iterator[str]:
    """The pieces of a streamed answer, as they come."""
    with server.ask("/v1/chat/completions", chat(server, content, max_tokens=max_tokens, stream=True)) as response:
        for line in response:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                for choice in json.loads(line[6:])["choices"]:
                    yield choice["delta"].get("content") or ""


def plain(text: str) -> str:
    """A text on one line, in ASCII."""
    return " ".join(text.split()).encode("ascii", "replace").decode()


def capitals(server: Server) -> list[Result]:
    """Ask for all capitals, four at a time."""
    heading(f"{len(CAPITALS)} questions, {CLIENTS} at a time")
    start = time.perf_counter()
    questions = [f"What is the capital of {country}?" for country in CAPITALS]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda question: answer(server, question), questions))
    seconds = time.perf_counter() - start
    right = sum(capital in text for capital, (text, _) in zip(CAPITALS.values(), answers))
    for question, (text, _) in list(zip(questions, answers))[:5]:
        print(f"{question}\n    {plain(text)[:72]}")
    tokens = sum(count for _, count in answers)
    print(f"...\n{tokens} tokens, {tokens / seconds:.0f} a second")
    return [Result("capitals it knows", f"{right} of {len(CAPITALS)}", f">= {NEEDED}", right >= NEEDED, seconds)]


def stream(server: Server) -> list[Result]:
    """A stream has the characters of the whole answer, and begins before the answer is complete."""
    heading("An answer as a stream")
    start, pieces, times = time.perf_counter(), [], []
    for piece in streamed(server, STORY, 40):
        pieces.append(piece)
        times.append(time.perf_counter() - start)
    print("\n".join(textwrap.wrap(plain("".join(pieces)), 79)))
    print(f"the first piece came after {times[0]:.2f} s, the last one after {times[-1]:.2f} s")
    same = "".join(pieces) == answer(server, STORY, 40)[0]
    said = "the same text" if same else "another text"
    return [Result("a streamed answer", said, "the same", same, times[-1])]


# Told to stop, it must not stop in the middle of a sentence.


def ending(server: Server) -> list[Result]:
    """The server is told to stop while it answers: the answer comes to its end, and then the server is gone."""
    heading("It is told to stop")
    start = time.perf_counter()
    pieces = streamed(server, STORY, 60)
    text = next(pieces)
    server.stop()
    text += "".join(pieces)
    status = server.process.wait(WAIT)
    print(f"{len(text)} characters came, and it ended with the status {status}")
    said = f"{len(text)} characters, status {status}"
    return [Result("the last answer", said, "status 0", status == 0, time.perf_counter() - start)]


def program(options: argparse.Namespace) -> int:
    """Serve, ask, stop, and report; the exit status."""
    with serving(options.model, options.kernels) as server:
        rows = [*capitals(server), *stream(server), *ending(server)]
    return report(rows, __file__, options.json)


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    parser = argparse.ArgumentParser(description="Serve a chat model, ask it, and stop it.")
    parser.add_argument("--model", default="smollm2", metavar="NAME", help="a name or a file (default smollm2)")
    parser.add_argument("--kernels", **KERNELS)
    parser.add_argument("--json", type=json_file, metavar="FILE", help="write the table to this file, too")
    options = parser.parse_args(arguments)
    try:
        return program(options)
    except RuntimeError as error:
        print(f"ship: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
