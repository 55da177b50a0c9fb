# # Engine
#
# An appendix of chapter 20. At the end of it one thread owns a model and writes many answers at a time, and any other
# thread can ask it for one.

from __future__ import annotations

import codecs
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from tt_autograd import evaluating
from tt_capstone.capstone import LanguageModel
from tt_nlp import CharTokenizer, refuse_settings, token_ids
from tt_nlp.transformers import small_gpt
from tt_opt import Batcher, KVCache, Request, generate
from tt_tensor import manual_seed

# ## What is missing
#
# The `Batcher` of chapter 16 continues many texts with one pass for a token of each, and requests may come and go
# between passes. That is the heart of a server, but we need five more things.
#
# 1. Programs ask at any time, from any thread, but we may touch a `Batcher` only between two passes.
# 2. They want text and not tokens: whole characters, as soon as these are certain.
# 3. They want an answer to end at a *stop text*, which may begin in the middle of one token and end in the middle of
#    another.
# 4. They want to know how likely each token was.
# 5. Things go wrong: too many clients ask at once, a client leaves, an answer takes too long, or a pass fails.
#
# So we give the model to a thread of its own. No other thread touches the model or the `Batcher`, and therefore neither
# of them needs a lock. All others talk to that thread through a queue.
#
# ```mermaid
# flowchart LR
#     A["thread: submit"] -- "answer" --> I[["inbox"]]
#     B["thread: cancel"] -- "answer" --> I
#     I --> E["the engine's thread: Batcher"]
#     E -- "pieces of text" --> A
# ```

# ## Pieces
#
# An answer comes back as a sequence of pieces. The last one says why the answer has ended.


class Token(NamedTuple):
    """A token of an answer: its id, the position in the answer at which its text begins, the logarithm of its
    probability, and the most likely tokens at its position with theirs, the most likely first. Without
    log-probabilities the third is None and the fourth empty."""

    number: int
    offset: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Piece(NamedTuple):
    """Some text of an answer and its tokens. `ended` is None except in the last piece: "stop" (a stop token or a stop
    text), "length" (no more tokens allowed, or no more time), "cancelled", "expired" (no token in time), or "failed".
    The last two have an `error`."""

    text: str
    tokens: tuple[Token, ...] = ()
    ended: str | None = None
    error: str | None = None


# As log-probabilities we report those of the model, before temperature and `top_p` change them: the logarithm of the
# softmax of the logits. To find the largest twenty of 49,152, we need not sort all of them.


def likelihoods(logits: np.ndarray, token: int, top: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Return the log-probability of a token after logits (V,), and those of the `top` most likely tokens: (id,
    logarithm) each, the most likely first, and among equals the one with the smaller id first."""
    shifted = np.asarray(logits, np.float64) - logits.max()
    logs = shifted - math.log(np.exp(shifted).sum())
    top = min(top, len(logs))
    least = np.partition(logs, -top)[-top] if top else math.inf
    best = sorted(np.flatnonzero(logs >= least).tolist(), key=lambda number: (-logs[number], number))[:top]
    return float(logs[token]), tuple((number, float(logs[number])) for number in best)


def check_likelihoods():
    logprob, top = likelihoods(np.log([0.1, 0.4, 0.2, 0.2, 0.1]), 4, 3)
    assert math.isclose(logprob, math.log(0.1)) and [number for number, _ in top] == [1, 2, 3]
    assert likelihoods(np.zeros(4), 0, 0) == (-math.log(4), ())


# ## From tokens to characters
#
# A token of a byte-level tokenizer may end in the middle of a character. We keep its bytes in a decoder until the rest
# has come. With a tokenizer of characters, as in chapter 11, each token is a whole character.


class Decoder:
    """Turns tokens into text, one by one, and keeps incomplete characters back."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.rest = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def put(self, token: int) -> str:
        """Return the text that a token completes."""
        return self.rest.decode(token_bytes(self.tokenizer, token))

    def end(self) -> str:
        """Return the rest: U+FFFD in place of a character whose end has not come."""
        return self.rest.decode(b"", final=True)


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """Return the bytes of a token, for any tokenizer of chapter 11."""
    if hasattr(tokenizer, "token_bytes"):
        return tokenizer.token_bytes(token)
    return tokenizer.decode([token]).encode()


# ## Stop texts
#
# With the stop text `"\nUser:"`, what may we show after the tokens of `"Yes.\nUs"`? We must not show the last three
# characters, because they may be the beginning of the stop text. If the next token is `"ed"`, they were not, and we
# show them then. So we *hold back* the end of a text as long as it could become a stop text.


def held_back(text: str, stops: Collection[str]) -> int:
    """Return how many characters at the end of a text could be the beginning of a stop text."""
    lengths = (n for stop in stops for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n]))
    return max(lengths, default=0)


def first_stop(text: str, stops: Collection[str]) -> int | None:
    """Return where the first stop text in a text begins, or None if there is none."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


def check_stop_texts():
    assert held_back("Yes.\nUs", ["\nUser:"]) == 3 and held_back("Yes.\nUsed", ["\nUser:"]) == 0
    assert held_back("aaab", ["bc", "aabx"]) == 3 and held_back("", ["x"]) == 0
    assert first_stop("one two", ["two", "e t"]) == 2 and first_stop("one", ["two"]) is None


# ## An answer
#
# An answer is a request of chapter 16 that delivers, after each token, the text that is certain by then. The engine's
# thread calls the function `deliver` with each piece. By default it puts the piece into a queue of the answer, and you
# get it by iterating over the answer on another thread.


@dataclass(eq=False)
class Answer(Request):
    """A text that is being written. Iterate over it for its pieces, unless `deliver` sends them elsewhere."""

    decoder: Any = None
    stop_texts: tuple[str, ...] = ()
    top: int | None = None  # how many of the most likely tokens to report; None for no log-probabilities
    deliver: Callable[[Piece], Any] | None = None
    seconds: float = math.inf  # from now until it is ended
    cancel: Callable[[], None] = lambda: None  # end it from any thread; what was delivered before remains

    held: str = field(init=False, default="")  # may be the beginning of a stop text
    fresh: list[Token] = field(init=False, default_factory=list)  # tokens whose text was not delivered yet
    delivered: int = field(init=False, default=0)  # characters
    submitted: float = field(init=False)  # in seconds, as all times here, by the monotonic clock
    first: float | None = field(init=False, default=None)  # when the first token was chosen
    finished: float | None = field(init=False, default=None)
    counted: bool = field(init=False, default=False)  # by the engine
    pieces: SimpleQueue[Piece] = field(init=False, default_factory=SimpleQueue)

    def __post_init__(self):
        super().__post_init__()
        self.submitted = time.monotonic()
        self.deliver = self.deliver or self.pieces.put

    def __iter__(self) -> Iterator[Piece]:
        while True:
            yield (piece := self.pieces.get())
            if piece.ended:
                return

    # The `Batcher` calls `take` with the logits of the next token. If it fails, for example because logits are nan,
    # only this answer must end.

    def take(self, logits: np.ndarray) -> None:
        """Choose the next token, and deliver the text that it makes certain."""
        self.first = self.first or time.monotonic()
        try:
            super().take(logits)
            if self.ended != "stop":
                self.write(self.text[-1], logits)
            self.release()
        except Exception as error:
            self.finish("failed", f"{type(error).__name__}: {error}")

    def write(self, token: int, logits: np.ndarray) -> None:
        """Record a token and its text."""
        likely = () if self.top is None else likelihoods(logits, token, self.top)
        self.fresh.append(Token(token, self.delivered + len(self.held), *likely))
        self.held += self.decoder.put(token)

    # If the text contains a stop text, the answer ends before it. If the answer has ended for another reason, we hold
    # nothing back any more. A token belongs to the delivered text if it begins there.

    def release(self) -> None:
        """Deliver the certain text, or, if the answer has ended, all of it as the last piece."""
        if self.ended:
            self.held += self.decoder.end()
        stop = first_stop(self.held, self.stop_texts)
        if stop is not None:
            self.ended = "stop"
        whole = len(self.held) if self.ended else len(self.held) - held_back(self.held, self.stop_texts)
        certain = whole if stop is None else stop
        text, self.held = self.held[:certain], self.held[certain:]
        self.delivered += certain
        everything = bool(self.ended) and stop is None
        tokens = tuple(token for token in self.fresh if everything or token.offset < self.delivered)
        self.fresh = self.fresh[len(tokens) :]
        if text or self.ended:
            self.send(Piece(text, tokens, self.ended))

    # Whatever ends an answer, we send the last piece once. If we cannot deliver any more, because the receiver is gone,
    # the answer ends as well.

    def finish(self, ended: str, error: str | None = None) -> None:
        """End the answer with a reason, and deliver the text that was held back."""
        if self.finished is None:
            text, self.held, self.ended = self.held, "", ended
            self.send(Piece(text + self.decoder.end(), tuple(self.fresh), ended, error))

    def send(self, piece: Piece) -> None:
        """Deliver a piece."""
        assert self.deliver is not None
        if piece.ended:
            self.finished = time.monotonic()
        try:
            self.deliver(piece)
        except Exception:  # such as that of an event loop that is closed
            self.ended = self.ended or "cancelled"


# ## The engine
#
# The inbox holds answers that are new or have been cancelled. If there is nothing to do, the thread sleeps at the
# inbox; otherwise it looks into it between two passes.
#
# We bound the number of waiting answers. Without a bound, an overloaded server lets all clients wait longer and longer
# until all of them have left, and then it works for nothing. With a bound it says at once that it is full. We count the
# answers that have not ended, so a client that leaves frees its place immediately.


class Full(RuntimeError):
    """The engine accepts no more answers at the moment. `retry_after`: seconds until another try is promising."""

    def __init__(self, count: int, retry_after: int):
        super().__init__(f"{count} requests are being answered or wait: try again in {retry_after} s")
        self.retry_after = retry_after


class Stopped(RuntimeError):
    """The engine accepts no new requests."""


class Engine:
    """Writes up to `slots` answers at a time with a language model, on a thread of its own; up to `queue` more wait.

    Use it as a context manager, or call `start` and `stop`. While it runs, the model belongs to its thread. `counters`
    counts passes, failed passes, answers by how they ended, tokens read and tokens written."""

    def __init__(self, language_model: LanguageModel, slots: int = 4, queue: int = 32, piece: int = 256):
        if queue < 0:
            raise ValueError(f"queue, the number of requests that may wait, must be 0 or more, not {queue}")
        self.language_model, self.model = language_model, language_model.model
        self.batcher: Any = Batcher(self.model, slots, piece)  # of Answers
        self.slots, self.capacity = slots, slots + queue
        self.inbox: SimpleQueue[Answer | None] = SimpleQueue()
        self.live: set[Answer] = set()  # not ended, and guarded by the lock
        self.lock = threading.Lock()
        self.stopping = False
        self.counters: Counter[str] = Counter()
        self.usual = 1.0  # seconds that an answer takes, a running mean
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # ### For all threads

    def submit(
        self, prompt: Sequence[int], max_new_tokens: int, *, temperature: float = 1.0, top_p: float | None = None,
        seed: int | Sequence[int] | None = None, stop: Collection[int] | None = None, stop_texts: Collection[str] = (),
        logprobs: int | None = None, seconds: float = math.inf, deliver: Callable[[Piece], Any] | None = None,
    ) -> Answer:  # fmt: skip
        """Ask for an answer of up to max_new_tokens to a prompt of tokens. `stop`: the tokens that end it, by default
        those of the language model. `logprobs`: how many of the most likely tokens to report with each token; None for
        no log-probabilities. `seconds`: the time after which it ends. `deliver`: called on the engine's thread with
        each piece; it must return at once. Settings and errors as for `tt_opt.Batcher.submit`; raises Full and Stopped.

        seed=(s, i) gives row i of the result of `tt_opt.generate(..., seed=s)`."""
        refuse_settings(temperature, None, top_p)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be 1 or more, not {max_new_tokens}")
        if not all(stop_texts):
            raise ValueError("an empty stop text would end every answer before it begins: leave it out")
        settings = {"temperature": temperature, "top_k": None, "top_p": top_p}
        answer = Answer(
            token_ids(prompt), max_new_tokens, settings,
            frozenset(self.language_model.stop if stop is None else stop), np.random.default_rng(seed),
            decoder=Decoder(self.language_model.tokenizer), stop_texts=tuple(stop_texts), top=logprobs,
            deliver=deliver, seconds=seconds,
        )  # fmt: skip
        answer.cancel = lambda: self._cancel(answer)
        self._admit(answer)
        return answer

    # We hold the lock only for a few steps, and never during a pass. So a thread that asks hardly waits.

    def _admit(self, answer: Answer) -> None:
        with self.lock:
            if self.stopping or not self.thread.is_alive():
                raise Stopped("the engine has been stopped" if self.thread.ident else "call start() first")
            if len(self.live) >= self.capacity:
                raise Full(len(self.live), self.retry_after())
            self.live.add(answer)
            self.inbox.put(answer)

    def _cancel(self, answer: Answer) -> None:
        with self.lock:
            if answer in self.live:
                self.live.remove(answer)
                self.inbox.put(answer)

    # Three numbers are useful for monitoring.

    def retry_after(self) -> int:
        """Return the seconds after which a place may be free, from 1 to 60, guessed from how long answers took."""
        return math.ceil(min(max(self.usual, 1), 60))

    @property
    def active(self) -> int:
        """The number of answers that are being written."""
        return len(self.batcher.active)

    @property
    def waiting(self) -> int:
        """The number of answers that wait for a slot."""
        return max(len(self.live) - self.active, 0)

    def start(self) -> Engine:
        """Start the thread, and return the engine."""
        self.thread.start()
        return self

    # We stop in two steps. First the engine refuses new requests and finishes those that it has. If that takes too
    # long, we cancel the rest.

    def refuse(self) -> None:
        """Accept nothing new from now on. A signal handler may call it, because it waits for no lock."""
        self.stopping = True
        self.inbox.put(None)

    def stop(self, seconds: float = math.inf) -> None:
        """Refuse new requests, finish those that run or wait, and cancel those that have not ended after `seconds`."""
        self.refuse()
        if self.thread.ident is None:
            return
        self.thread.join(None if math.isinf(seconds) else seconds)
        with self.lock:
            rest = list(self.live)
        for answer in rest:
            answer.cancel()
        self.thread.join()

    def __enter__(self) -> Engine:
        return self.start()

    def __exit__(self, *exception) -> None:
        self.stop(0 if exception[0] else math.inf)

    # ### On the engine's thread
    #
    # Two switches belong to a thread: whether operations are recorded (chapter 07), and which interpreter is in the
    # door (chapter 02). `read` of chapter 16 uses `no_grad` in each pass, on the thread on which it runs, and a meter
    # on another thread counts nothing of this. Kernel sets are the same for all threads (chapter 15). Only evaluation
    # mode remains, which we set once for the life of the thread.

    def _run(self) -> None:
        try:
            with evaluating(self.model):
                while self._look():
                    self._step()
        finally:
            self.refuse()
            with self.lock:
                rest, self.live = self.live, set()
            for answer in rest:
                answer.finish("failed", "the engine has ended")

    def _look(self) -> bool:
        """Take in new and cancelled answers. Returns False if there is nothing left to do and nothing will come."""
        while True:
            try:
                answer = self.inbox.get(block=not (self.batcher.busy or self.stopping))
            except Empty:
                return self.batcher.busy
            if answer in self.live:
                self.batcher.waiting.append(answer)
            elif answer is not None:
                self.batcher.cancel(answer)
                self._end(answer, "cancelled")

    # If a pass fails, we end all answers of that pass, because we cannot tell whose fault it was. We replace their
    # caches, because we cannot know what is in them. The waiting answers are not affected, and the engine continues.

    def _step(self) -> None:
        self._expire()
        try:
            for answer in self.batcher.step():
                if answer.ended:
                    self._end(answer, answer.ended)
            self.counters["passes"] += 1
        except Exception as error:
            self.counters["failed passes"] += 1
            for answer in list(self.batcher.active):
                self.batcher.cancel(answer)
                self._end(answer, "failed", f"a pass through the model failed: {type(error).__name__}: {error}")
            self.batcher.free[:] = [KVCache.of(self.model) for _ in self.batcher.free]

    # An answer whose time is over ends like one that has become too long, with the text that it has so far. If it has
    # only waited, it has nothing to show, so it expires.

    def _expire(self) -> None:
        now = time.monotonic()
        for answer in [*self.batcher.active, *self.batcher.waiting]:
            if now - answer.submitted > answer.seconds:
                self.batcher.cancel(answer)
                waited = f"no token within the {answer.seconds:g} seconds of the time limit"
                self._end(answer, *(("length",) if answer.tokens else ("expired", waited)))

    def _end(self, answer: Answer, ended: str, error: str | None = None) -> None:
        with self.lock:
            self.live.discard(answer)
        if answer.counted:  # it was cancelled just when it had ended
            return
        answer.counted = True
        answer.finish(ended, error)
        self.counters[f"ended: {ended}"] += 1
        self.counters["tokens read"] += answer.prompt_length
        self.counters["tokens written"] += len(answer.tokens)
        if ended in ("stop", "length"):
            self.usual += 0.1 * (time.monotonic() - answer.submitted - self.usual)


# ## Does it answer the same?
#
# A small model with random weights is enough to find out. We submit several prompts at once, and each must get the text
# that `tt_opt.generate` gives it alone.


def small_language_model(alphabet: str = "abcdefghij .\n", length: int = 64) -> LanguageModel:
    """Return a small GPT with random weights and a tokenizer of characters, which answers in milliseconds."""
    manual_seed(0)
    tokenizer = CharTokenizer(alphabet)
    return LanguageModel("small", small_gpt(tokenizer.vocab_size, layers=2, width=16, length=length), tokenizer)


def check_answers_are_those_alone():
    whole = small_language_model()
    prompts = [whole.prompt(text) for text in ("a", "bad cab", "hide")]
    with Engine(whole, slots=2) as engine:
        answers = [engine.submit(prompt, 12, seed=(i, 0)) for i, prompt in enumerate(prompts)]
        texts = ["".join(piece.text for piece in answer) for answer in answers]
    alone = [generate(whole.model, prompt, 12, seed=i)[len(prompt) :] for i, prompt in enumerate(prompts)]
    assert texts == [whole.tokenizer.decode(tokens) for tokens in alone]


# The second check takes a stop text of three tokens, since each token is one character here.


def check_a_stop_text_ends_an_answer():
    whole = small_language_model()
    with Engine(whole) as engine:
        [text] = ["".join(piece.text for piece in engine.submit([0], 20, seed=1))]
        *pieces, last = engine.submit([0], 20, seed=1, stop_texts=[text[5:8]])
    found = "".join(piece.text for piece in [*pieces, last])
    assert found == text[: text.index(text[5:8])] and last.ended == "stop"


# ## What does waiting together bring?
#
# We write sixteen answers with different numbers of slots. As a user you feel the time to the first token (the
# *latency*), of which we print the median. With few slots, most of it is time in the queue.


def show_slots():
    manual_seed(0)
    model = small_gpt(65, layers=4, width=256, length=128)
    whole = LanguageModel("larger", model, CharTokenizer(map(chr, range(32, 97))))
    for slots in (1, 4, 16):
        with Engine(whole, slots) as engine:
            start = time.monotonic()
            answers = [engine.submit([i], 32, seed=i) for i in range(16)]
            waited = sorted(answer.first - answer.submitted for answer in answers if list(answer) and answer.first)
            rate = 16 * 32 / (time.monotonic() - start)
        print(f"{slots:2d} slots: {rate:5.0f} tokens a second, first token after {waited[8] * 1e3:4.0f} ms")


# ## Errors you will meet
#
# The engine may not run yet, an empty stop text makes no sense, and a queue may be full.


def show_errors():
    engine = Engine(small_language_model(), slots=1, queue=0)
    stops: list[str]
    for stops in ([], [""], []):
        try:
            for _ in range(2):
                engine.submit([1], 60, stop_texts=stops)
        except (ValueError, RuntimeError) as error:
            print(f"{type(error).__name__}: {error}")
        if engine.thread.ident is None:
            engine.start()
    engine.stop()


# ## A road not taken
#
# Our engine and the server around it are in one process, and Python's global lock lets only one of them run at a time,
# except while NumPy computes. vLLM and llama.cpp's server separate the two: vLLM puts the engine into a process of its
# own and sends tokens through a socket, and llama.cpp has no Python at all. With one model on one machine, a pass takes
# milliseconds and the work around it microseconds, so a thread is enough. If you have many clients that all stream,
# change this first.

__all__ = [
    "Answer", "Engine", "Full", "Piece", "Stopped", "Token", "likelihoods", "small_language_model", "token_bytes",
]  # fmt: skip
