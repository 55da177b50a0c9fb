"""The commands of chapter 20: `python -m tt_capstone COMMAND ARGUMENTS`. Each is the `main` of a module, which is
imported only when you type its command."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys

COMMANDS = {
    "chat": "tt_capstone.chat", "fetch": "tt_capstone.weights", "serve": "tt_capstone.serve",
    "onnx": "tt_capstone.onnx_files", "report": "tt_capstone.cards", "new": "tt_capstone.projects",
    "check": "tt_capstone.projects", "ship": "tt_capstone.shipping",
}  # fmt: skip
HELP = {
    "chat": "talk to a language model in the terminal",
    "fetch": "download the weights of SmolLM2, 98 MB",
    "serve": "serve a model to programs that know OpenAI's interface, and to a browser",
    "onnx": "write a network as an ONNX file",
    "report": "write the model card of a project",
    "new": "begin a project of your own from the template",
    "check": "measure a project against its budget",
    "ship": "build a program that runs on a machine without TinyTorch",
}
SHARED = {name for name, module in COMMANDS.items() if list(COMMANDS.values()).count(module) > 1}
EXTRAS = {
    "starlette": "serve", "uvicorn": "serve", "prometheus_client": "serve", "onnx": "onnx", "matplotlib": "plot",
    "numba": "compiled",
}  # fmt: skip


def usage() -> str:
    """Return the list of commands."""
    lines = [f"  {name:8s} {HELP[name]}" for name in COMMANDS]
    head = "usage: python -m tt_capstone COMMAND [ARGUMENTS]\n\nCOMMAND --help lists the arguments of a command.\n"
    return "\n".join([head, *lines])


def run(arguments: list[str]) -> int:
    """Run a command and return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        print(f"tt_capstone: there is no command {name!r}: {advice}", file=sys.stderr)
        return 2
    command = importlib.import_module(COMMANDS[name]).main
    return int(command([name, *rest] if name in SHARED else rest) or 0)


def said(error: BaseException) -> str:
    """Return what to tell the user about an error, without a traceback."""
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
        return f"{error.name} is not installed: pip install 'tt-capstone[{extra}]' -c packages.txt"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def main() -> int:
    """Run the command of this process and return its exit status; after Ctrl-C, shells expect 130."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        print(f"tt_capstone: {said(error)}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
