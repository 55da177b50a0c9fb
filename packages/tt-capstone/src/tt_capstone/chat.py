# # Chat
#
# An appendix of chapter 20. At the end of it you talk to a model in a terminal: you see its answer as it writes, it
# remembers the conversation, and it stops when you press Ctrl-C.

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
# A language model has no memory. Each answer continues one text, the whole conversation so far, and we must keep it. So
# a chat is a list of messages that grows by two with each turn. The KV cache of chapter 16 makes this cheap: it has
# read the earlier turns, so we only read the new message.
#
# At some point the conversation is longer than the context, and we must drop the oldest messages. After that the text
# has another beginning, so we read everything anew. If we dropped only one message, this would happen again with each
# turn. Therefore we drop messages until half of the context is free.


@dataclass
class Reply:
    """An answer and its cost: the tokens of the prompt, how many of them were in the cache already, the tokens written,
    and the seconds until the first piece and until the end. `ended` is "stop", "length" or "interrupted"."""

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


# The function `recent` of the chapter drops messages. We call it twice: first to see whether everything fits, with some
# room for the answer, and if not, with half of the context.


class Conversation:
    """A chat with a model: its messages, and a cache that has read them. `how` are settings as for `tt_opt.stream`.
    With a seed, turn n has the seed + n."""

    def __init__(
        self, chat: LanguageModel, system: str | None = None, max_tokens: int = 512, seed: int | None = None, **how: Any
    ):
        self.chat, self.system, self.max_tokens, self.seed, self.how = chat, system, max_tokens, seed, how
        self.reset()

    def reset(self) -> None:
        """Forget all messages."""
        self.messages: list[Mapping[str, str]] = []
        self.dropped = 0  # of the messages, which are too old for the context
        self.cache = KVCache.of(self.chat.model)

    # Dropped messages stay in `messages`, because you may want to save them. The model just does not see them any more.

    def shown(self, message: str) -> list[Mapping[str, str]]:
        """Return the messages that the model sees when it answers this one. ValueError if this one alone is too
        long."""
        context = self.chat.model.config.block_size
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        asked = [*system, *self.messages[self.dropped :], {"role": "user", "content": message}]
        for room in (min(self.max_tokens, context // 4), context // 2):
            kept = recent(self.chat, asked, room)
            if len(kept) == len(asked):
                break
        self.dropped += len(asked) - len(kept)
        return kept

    # Ctrl-C raises `KeyboardInterrupt` wherever the program is. The text written until then is part of the
    # conversation, because you have read it. If there is none, we drop the question as well. The cache holds what it
    # held before the interrupted pass. If it was growing at that moment, we take a new one.

    def answer(self, message: str, write: Callable[[str], Any]) -> Reply:
        """Answer a message, and pass the text to `write` in pieces. ValueError for a message that the model cannot
        read."""
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
        """Write all messages as JSON, in the form that the server of chapter 20 accepts. FileExistsError if the file
        exists already."""
        if (path := Path(file).expanduser()).exists():
            raise FileExistsError(f"{path} exists already: choose another name")
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        write_whole(path, (json.dumps([*system, *self.messages], indent=2, ensure_ascii=False) + "\n").encode())


# In the second turn the model reads only the new message, and it must answer as a model without a cache would.


def check_turns():
    conversation, anew = (Conversation(small_chat(), max_tokens=6, seed=0) for _ in range(2))
    conversation.answer("Hi", str)
    anew.messages = list(conversation.messages)
    one, other = (each.answer("ho", str) for each in (conversation, anew))
    assert one.text == other.text and one.cached >= len("u:Hi.") and other.cached == 0
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2


# A conversation of ten turns outgrows a context of 64 tokens, and yet each prompt fits.


def check_old_messages_go():
    conversation = Conversation(small_chat(), max_tokens=4, temperature=0)  # with a context of 64 bytes
    for turn in range(10):
        assert conversation.answer(f"message {turn}", str).prompt <= 60
    assert conversation.dropped and len(conversation.messages) == 20


# ## Commands
#
# A line that you type is a message, unless it begins with a slash. Then it is a command. The commands are functions in
# a table, and their docstrings are the help.


def reset(conversation: Conversation, rest: str) -> None:
    """forget the conversation and begin a new one"""
    conversation.reset()


def system(conversation: Conversation, rest: str) -> None:
    """give the model TEXT as its instructions; without TEXT, restore its own"""
    conversation.system = rest or None


def save(conversation: Conversation, rest: str) -> None:
    """write the conversation to FILE, as JSON"""
    if not rest:
        raise ValueError("/save needs the name of a file")
    conversation.save(rest)
    note(f"{len(conversation.messages)} messages are in {rest}")


def leave(conversation: Conversation, rest: str) -> None:
    """leave, like Ctrl-D"""
    raise EOFError


def write_help(conversation: Conversation, rest: str) -> None:
    """show this list"""
    for name, command in COMMANDS.items():
        note(f"{' '.join([name, *ARGUMENTS.get(name, [])]):14s} {command.__doc__}")
    note("Ctrl-C         stop an answer; at the prompt, clear the line; twice in a row, leave")


COMMANDS = {"/help": write_help, "/reset": reset, "/system": system, "/save": save, "/exit": leave}
ARGUMENTS = {"/system": ["TEXT"], "/save": ["FILE"]}


# A command that fails must not end the program, so we print its error.


def obey(line: str, conversation: Conversation) -> None:
    """Run the command of a line, and report a command that fails or is unknown. EOFError for the one that leaves."""
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        note(f"there is no command {name}; /help lists them, and a space before it makes it a message")
        return
    try:
        COMMANDS[name](conversation, rest.strip())
    except (OSError, ValueError) as error:
        note(str(error))


# Two of them in action:


def check_commands():
    conversation = Conversation(small_chat())
    conversation.messages = [{"role": "user", "content": "Hi"}]
    obey("/system Be brief.", conversation)
    obey("/reset", conversation)
    assert conversation.system == "Be brief." and not conversation.messages


# ## The terminal
#
# We write the answer to standard output and everything else to standard error, so that a script gets only the answer.
# The model may write any character, and a terminal obeys some of them: they could move the cursor or change the title
# of the window. So in a terminal we show control characters as escapes instead of sending them.


def note(text: str) -> None:
    """Print a text that is not part of an answer, in a fainter style where the terminal has one."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or os.name == "nt" or not sys.stderr.isatty()
    print(text if plain else f"\x1b[2m{text}\x1b[0m", file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """Return a text whose control characters, except for tabs and line ends, are shown as escapes."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)


def check_visible():
    assert visible("a\x1b[2Jb\n\tä👋") == "a\\x1b[2Jb\n\tä👋"


def write(text: str) -> None:
    """Write a piece of an answer."""
    print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)


# At a terminal we show a prompt. Where Python has `readline`, we import it, because it gives `input` a history and keys
# to edit the line. If the input is not a terminal, its lines are the messages, and we show no prompt.


def typed(prompt: str = "> ") -> str:
    """Return the next line of the user. EOFError at the end, KeyboardInterrupt for Ctrl-C."""
    if not sys.stdin.isatty():
        if not (line := sys.stdin.readline()):
            raise EOFError
        return line.rstrip("\n")
    if sys.stdout.isatty():
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)  # standard output is a file, and the prompt is not for it
    return input()


# After each answer we say how it ended, if that is not obvious.


def turn(conversation: Conversation, message: str, statistics: bool) -> Reply:
    """Answer a message on standard output, and report how it ended if that is not obvious."""
    dropped = conversation.dropped
    reply = conversation.answer(message, write)
    print(flush=True)
    if new := conversation.dropped - dropped:
        note(f"the conversation has outgrown the context: the model does not see the oldest {new} messages any more")
    if reply.ended == "interrupted":
        note("stopped")
    elif reply.ended == "length":
        note(f"stopped after {reply.written} tokens, the limit of --max-tokens or of the context")
    if statistics:
        note(str(reply))
    return reply


# Now the loop. During an answer, Ctrl-C stops the answer, and here it clears the line. If you press it twice in a row,
# without a line in between, it ends the program.


def talk(conversation: Conversation, statistics: bool) -> int:
    """Answer line after line until the input ends. Returns the exit status, 1 if a message of a script was
    unreadable."""
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
                note("press Ctrl-C again to leave")
        except ValueError as error:
            note(str(error))
            status = 0 if sys.stdin.isatty() else 1
    if sys.stdin.isatty():
        print(file=sys.stderr)
    return status


# ## Before it begins
#
# We use the best kernels that are installed. But if you have replaced chapters by your own, you want to see them
# compute, and not the kernels of chapter 15. If you set the environment variable `TT_KERNELS`, it has already chosen
# the kernels when we come here.


def choose_kernels(name: str | None) -> None:
    """Use the named kernel set. Without a name, use the best that is installed, unless a chapter is swapped."""
    swapped = any(getattr(getattr(finder, "table", None), "targets", None) for finder in sys.meta_path)
    if name or not (swapped or os.environ.get("TT_KERNELS")):
        accelerate(name)


# If the weights are missing, we offer to download them, but only to a person at a terminal.


def obtained(name: str) -> LanguageModel:
    """Return the model of a name or a path. Downloads known weights that are missing if the user at the terminal
    agrees."""
    try:
        return find_language_model(name)
    except WeightsMissing as missing:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        note(str(missing))
        size = KNOWN[missing.name].size / 1e6
        if typed(f"download {size:.0f} MB? [Y/n] ").strip().lower() not in ("", "y", "yes"):
            raise
        fetch_weights(missing.name)
        return find_language_model(name)


# A model that was trained to answer, which we recognize by its template, works best if it chooses only among the
# likeliest tokens: the authors of SmolLM2 use a temperature of 0.2 and a `top_p` of 0.9. Your GPT of chapter 14 would
# repeat itself at that temperature.


def settings(options: argparse.Namespace, template: str | None) -> dict[str, Any]:
    """Return the temperature and top_p of the options, or those that suit a model with such a template."""
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
    """Return the parser of the options."""
    about = "Talk to a language model. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves."
    parser = argparse.ArgumentParser(prog="python -m tt_capstone chat", description=about)
    add = parser.add_argument
    add("model", nargs="?", default="smollm2", help="a known name, a .gguf file or a folder (default %(default)s)")
    add("--system", metavar="TEXT", help="instructions for the model (default: its own)")
    add("--temperature", type=float, metavar="T", help="0 for the likeliest token (default 0.2, or 0.8 for a model "
        "without a chat template)")
    add("--top-p", type=float, metavar="P", help="the share of the likeliest tokens to choose from (default 0.9, or 1)")
    add("--max-tokens", type=int, default=512, metavar="N", help="the longest answer (default %(default)s)")
    add("--seed", type=int, help="a number that makes answers repeatable")
    add("--kernels", choices=("default", "loops", "fast", "compiled"),
        help="the kernel set that computes (default: the best that is installed; default if a chapter is swapped)")
    add("--once", metavar="TEXT", help="answer TEXT and leave")
    add("--stats", action="store_true", help="show the cost of each answer")
    return parser


def main(arguments: list[str]) -> int:
    """Run the command `chat` and return the exit status. ValueError and OSError for mistakes that a user can fix."""
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
