# # Chat
#
# An appendix of chapter 20. At the end of it you talk to a model in a terminal: it answers as it writes, remembers what
# was said, and stops when you press Ctrl-C.

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tt_capstone.capstone import LanguageModel, recent, small_chat
from tt_capstone.weights import KNOWN, WeightsMissing, fetch_weights, find_language_model
from tt_nlp import refuse_settings, write_whole
from tt_opt import KVCache, accelerate
from tt_opt.caching import shared_length

# ## A conversation
#
# A language model has no memory. Each answer continues one text, the whole conversation so far, which we have to keep.
# So a chat is a list of messages that grows by two with each turn. The KV cache of chapter 16 makes this cheap: it has
# read the turns before, and only the new message must be read.
#
# At some point the conversation is longer than the context. Then the oldest messages must go. After that the text has
# another beginning, so everything is read anew, and if only one message went, this would happen again with each turn.
# Therefore we drop messages until half of the context is free.


@dataclass
class Reply:
    """An answer, and what it cost: the tokens of the prompt, how many of them were in the cache already, the tokens
    that were written, and the seconds until the first piece and until the end. `ended` is "stop", "length" or
    "interrupted"."""

    text: str
    ended: str
    prompt: int
    cached: int
    written: int
    first: float
    seconds: float

    def __str__(self) -> str:
        rate = (self.written - 1) / max(self.seconds - self.first, 1e-9) if self.written > 1 else 0.0
        return (
            f"prompt {self.prompt} tokens, {self.cached} of them in the cache; first text after {self.first:.2f} s; "
            f"{self.written} tokens, {rate:.1f} a second"
        )


# `recent` of the chapter drops messages. We ask it twice: first whether everything fits, with some room for the answer,
# and if not, for half of the context.


class Conversation:
    """A chat with a model: what was said, and a cache that has read it. `how` are settings as for `tt_opt.stream`;
    with a seed, turn n has the seed + n."""

    def __init__(
        self, chat: LanguageModel, system: str | None = None, max_tokens: int = 512, seed: int | None = None, **how: Any
    ):
        self.chat, self.system, self.max_tokens, self.seed, self.how = chat, system, max_tokens, seed, how
        self.reset()

    def reset(self) -> None:
        """Forget what was said."""
        self.messages: list[Mapping[str, str]] = []
        self.dropped = 0  # of the messages, which are too old for the context
        self.cache = KVCache.of(self.chat.model)

    # What is dropped stays in `messages`, because you may want to save it; the model just does not see it any more.

    def shown(self, message: str) -> list[Mapping[str, str]]:
        """What the model gets to see before it answers a message. ValueError if this message alone is too long."""
        context = self.chat.model.config.block_size
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        asked = [*system, *self.messages[self.dropped :], {"role": "user", "content": message}]
        for room in (min(self.max_tokens, context // 4), context // 2):
            kept = recent(self.chat, asked, room)
            if len(kept) == len(asked):
                break
        self.dropped += len(asked) - len(kept)
        return kept

    # Ctrl-C raises `KeyboardInterrupt` wherever the program is. What was written until then is part of the
    # conversation, because you have read it. If nothing was written, the question counts as not asked. The cache holds
    # what it held before the pass that was interrupted. Should it have been growing in that moment, we take a new one.

    def answer(self, message: str, write: Callable[[str], Any]) -> Reply:
        """Answer a message; `write` gets the text in pieces. ValueError for a message that the model cannot read."""
        seen = self.shown(message)
        prompt, start, pieces, first = self.chat.chat_prompt(seen), time.perf_counter(), [], 0.0
        most = min(self.max_tokens, self.chat.model.config.block_size - len(prompt))
        cached = min(shared_length(self.cache.tokens, prompt), len(prompt) - 1)
        seed = None if self.seed is None else self.seed + len(self.messages) // 2
        ended = "stop"
        try:
            for piece in self.chat.answer(seen, most, cache=self.cache, seed=seed, **self.how):
                first = first or time.perf_counter() - start
                pieces.append(piece)
                write(piece)
        except KeyboardInterrupt:
            ended = "interrupted"
        seconds, written = time.perf_counter() - start, max(len(self.cache) - len(prompt) + 1, 0)
        if self.cache.keys.shape != self.cache.values.shape:
            self.cache = KVCache.of(self.chat.model)
        if ended == "stop" and written >= most:
            ended = "length"
        text = "".join(pieces)
        if text or ended != "interrupted":
            self.messages += [{"role": "user", "content": message}, {"role": "assistant", "content": text}]
        return Reply(text, ended, len(prompt), cached, written, first, seconds)

    def save(self, file: str | os.PathLike) -> None:
        """Write all messages as JSON, in the form that the server of chapter 20 takes. FileExistsError for a file that
        is there: a conversation replaces nothing."""
        if (path := Path(file).expanduser()).exists():
            raise FileExistsError(f"{path} exists already: give another name")
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        write_whole(path, (json.dumps([*system, *self.messages], indent=2, ensure_ascii=False) + "\n").encode())


# The second turn reads its own message only, and what it says is what a model without a cache would say.


def check_turns():
    conversation, anew = (Conversation(small_chat(), max_tokens=6, seed=0) for _ in range(2))
    conversation.answer("Hi", str)
    anew.messages = list(conversation.messages)
    one, other = (each.answer("ho", str) for each in (conversation, anew))
    assert one.text == other.text and one.cached >= len("u:Hi.") and other.cached == 0
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2


def check_old_messages_go():
    conversation = Conversation(small_chat(), max_tokens=4, temperature=0)  # with a context of 64 bytes
    for turn in range(10):
        assert conversation.answer(f"message {turn}", str).prompt <= 60
    assert conversation.dropped and len(conversation.messages) == 20


# ## What is typed
#
# A line is a message, unless it begins with a slash. The commands are a table of functions; the first line of their
# docstrings is the help.


def reset(conversation: Conversation, rest: str) -> None:
    """forget the conversation and begin a new one"""
    conversation.reset()


def system(conversation: Conversation, rest: str) -> None:
    """give the model TEXT as its instructions; without TEXT, it has its own again"""
    conversation.system = rest or None


def save(conversation: Conversation, rest: str) -> None:
    """write the conversation to FILE, as JSON"""
    if not rest:
        raise ValueError("/save needs the name of a file")
    conversation.save(rest)
    note(f"{len(conversation.messages)} messages are in {rest}")


def leave(conversation: Conversation, rest: str) -> None:
    """leave, as Ctrl-D does"""
    raise EOFError


def write_help(conversation: Conversation, rest: str) -> None:
    """show this list"""
    for name, command in COMMANDS.items():
        note(f"{' '.join([name, *ARGUMENTS.get(name, [])]):14s} {command.__doc__}")
    note("Ctrl-C         stops an answer; at the prompt it clears the line, and twice it leaves")


COMMANDS = {"/help": write_help, "/reset": reset, "/system": system, "/save": save, "/exit": leave}
ARGUMENTS = {"/system": ["TEXT"], "/save": ["FILE"]}


def obey(line: str, conversation: Conversation) -> None:
    """Run the command of a line. EOFError for the one that leaves; a command that fails or is unknown says so."""
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        note(f"there is no command {name}; /help lists them, and a space before it makes it a message")
        return
    try:
        COMMANDS[name](conversation, rest.strip())
    except (OSError, ValueError) as error:
        note(str(error))


def check_commands():
    conversation = Conversation(small_chat())
    conversation.messages = [{"role": "user", "content": "Hi"}]
    obey("/system Be brief.", conversation)
    obey("/reset", conversation)
    assert conversation.system == "Be brief." and not conversation.messages


# ## The terminal
#
# The answer goes to standard output, and everything else to standard error, so that a script gets the answer alone. The
# model decides what is written, and a terminal obeys certain characters: they could move the cursor or change the title
# of the window. So in a terminal we show control characters instead of sending them.


def note(text: str) -> None:
    """Say something that is not an answer, in a fainter style where the terminal has one."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or os.name == "nt" or not sys.stderr.isatty()
    print(text if plain else f"\x1b[2m{text}\x1b[0m", file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """A text whose control characters, except for tabs and line ends, are shown as escapes."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)


def check_visible():
    assert visible("a\x1b[2Jb\n\tä👋") == "a\\x1b[2Jb\n\tä👋"


def write(text: str) -> None:
    """Write a piece of an answer."""
    print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)


# At a terminal we ask with a prompt, and where Python has `readline`, importing it gives `input` a history and keys to
# edit the line. Otherwise the lines of standard input are the messages, and nothing is asked.


def typed(prompt: str = "> ") -> str:
    """The next line of the user. EOFError at the end, KeyboardInterrupt for Ctrl-C."""
    if not sys.stdin.isatty():
        if not (line := sys.stdin.readline()):
            raise EOFError
        return line.rstrip("\n")
    if sys.stdout.isatty():
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)  # standard output is a file, and the prompt is not for it
    return input()


def turn(conversation: Conversation, message: str, statistics: bool) -> Reply:
    """Answer a message on standard output, and say how it ended if that is not obvious."""
    dropped = conversation.dropped
    reply = conversation.answer(message, write)
    print(flush=True)
    if new := conversation.dropped - dropped:
        note(f"the conversation has outgrown the context: the model does not see the oldest {new} messages any more")
    if reply.ended == "interrupted":
        note("stopped")
    elif reply.ended == "length":
        note(f"stopped after {reply.written} tokens; --max-tokens and the context are the limits")
    if statistics:
        note(str(reply))
    return reply


# The loop. Ctrl-C has a meaning wherever the program is: `answer` takes it during an answer, and here it clears the
# line. Only two in a row, without a line between them, end the program.


def talk(conversation: Conversation, statistics: bool) -> int:
    """Answer line after line until the input ends; the exit status, 1 if a message of a script could not be read."""
    status = interrupts = 0
    while interrupts < 2:
        try:
            line = typed()
            interrupts = 0
            if line.startswith("/"):
                obey(line, conversation)
            elif line.strip():
                turn(conversation, line.strip(), statistics)
        except EOFError:
            break
        except KeyboardInterrupt:
            interrupts += 1
            print(file=sys.stderr)
            if interrupts == 1:
                note("Ctrl-C again leaves")
        except ValueError as error:
            note(str(error))
            status = 0 if sys.stdin.isatty() else 1
    if sys.stdin.isatty():
        print(file=sys.stderr)
    return status


# ## Before it begins
#
# The kernels are the best that are installed. But where chapters of your own take part, you want to see them compute,
# and not the kernels of chapter 15. The environment variable `TT_KERNELS` has been obeyed already when we come here.


def choose_kernels(name: str | None) -> None:
    """Use the kernel set of a name; without one, the best that is installed, unless a chapter is swapped."""
    swapped = any(getattr(getattr(finder, "table", None), "targets", None) for finder in sys.meta_path)
    if name or not (swapped or os.environ.get("TT_KERNELS")):
        accelerate(name)


def obtained(name: str) -> LanguageModel:
    """The model of a name or a path. Known weights that are missing are fetched if the user at the terminal agrees."""
    try:
        return find_language_model(name)
    except WeightsMissing as missing:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        note(str(missing))
        size = KNOWN[missing.name].size / 1e6
        if typed(f"fetch {size:.0f} MB? [Y/n] ").strip().lower() not in ("", "y", "yes"):
            raise
        fetch_weights(missing.name)
        return find_language_model(name)


# Models that were trained to answer, which their template tells, are best when they choose among the likeliest tokens
# only: the authors of SmolLM2 use a temperature of 0.2 and a `top_p` of 0.9. A GPT that was trained on Shakespeare
# would repeat itself at that temperature.


def settings(options: argparse.Namespace, template: str | None) -> dict[str, Any]:
    """The temperature and top_p of the options, or those that suit a model with such a template."""
    temperature, top_p = (0.8, 1.0) if template is None else (0.2, 0.9)
    return {
        "temperature": temperature if options.temperature is None else options.temperature,
        "top_p": top_p if options.top_p is None else options.top_p,
    }


# ## The command
#
#     python -m tt_capstone chat                       talk to SmolLM2
#     python -m tt_capstone chat runs/gpt_2018/gpt2    talk to your own GPT
#     python -m tt_capstone chat --once "Why is the sky blue?"
#     python -m tt_capstone chat < questions.txt


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    about = "Talk to a language model. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves."
    parser = argparse.ArgumentParser(prog="python -m tt_capstone chat", description=about)
    add = parser.add_argument
    add("model", nargs="?", default="smollm2", help="a known name, a .gguf file or a folder (default %(default)s)")
    add("--system", metavar="TEXT", help="instructions for the model (default: its own)")
    add("--temperature", type=float, metavar="T", help="0 for the likeliest token (default 0.2, or 0.8 for a model "
        "without a chat template)")
    add("--top-p", type=float, metavar="P", help="the share of the likeliest tokens to choose from (default 0.9, or 1)")
    add("--max-tokens", type=int, default=512, metavar="N", help="the longest answer (default %(default)s)")
    add("--seed", type=int, help="for the same answers again")
    add("--kernels", choices=("default", "loops", "fast", "compiled"),
        help="the kernel set that computes (default: the best that is installed; default if a chapter is swapped)")
    add("--once", metavar="TEXT", help="answer TEXT and leave")
    add("--stats", action="store_true", help="say after each answer what it cost")
    return parser


def main(arguments: list[str]) -> int:
    """The command `chat`; the exit status. Raises ValueError and OSError for what a user can change."""
    options = make_parser().parse_args(arguments)
    refuse_settings(options.temperature or 0, None, options.top_p)
    if options.max_tokens < 1:
        raise ValueError(f"--max-tokens must be 1 or more, not {options.max_tokens}")
    chat = obtained(options.model)
    choose_kernels(options.kernels)
    how = settings(options, chat.template)
    conversation = Conversation(chat, options.system, options.max_tokens, options.seed, **how)
    if options.once is not None:
        reply = turn(conversation, options.once, options.stats)
        return 128 + signal.SIGINT if reply.ended == "interrupted" else 0
    if sys.stdin.isatty():
        if importlib.util.find_spec("readline"):
            importlib.import_module("readline")
        note(f"{chat.name}. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
    return talk(conversation, options.stats)


__all__ = [
    "COMMANDS", "Conversation", "Reply", "choose_kernels", "main", "make_parser", "obtained", "settings",
]
