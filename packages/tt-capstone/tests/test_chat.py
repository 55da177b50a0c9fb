"""The chat: what it remembers, what it says to scripts, and what keys do to it in a real terminal."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import tt_capstone as tc
import tt_tensor as tt
from tt_capstone import __main__ as commands
from tt_capstone import chat
from tt_capstone.llama_files import save_llama_gguf
from tt_capstone.weights import WeightsMissing, find_language_model
from tt_nlp import GPT, CharTokenizer, GPTConfig, printed, save_gpt2

LETTERS = ["\n", *map(chr, range(32, 127))]
TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}.{% endfor %}"


def written(folder, name, context, ends):
    """A GGUF file of a tiny Llama with random weights, whose tokens are the characters that can be printed, and one
    that ends an answer if it does so at all."""
    tt.manual_seed(0)
    tokens = [*(printed(letter.encode()) for letter in LETTERS), *["<end>"] * ends]
    entries = {"tokens": tokens, "token_type": [1] * 96 + [3] * ends, "model": "gpt2", "eos_token_id": 96}
    metadata = {f"tokenizer.ggml.{key}": value for key, value in entries.items()}
    model = tc.Llama(tc.LlamaConfig(len(tokens), context, 1, 2, 1, 32, 32, tied=False)).eval()
    file = folder / f"{name}.gguf"
    save_llama_gguf(model, file, "float32", **metadata | {"tokenizer.chat_template": TEMPLATE})
    return file


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model with a context of 96 tokens that ends its answers."""
    return written(tmp_path_factory.mktemp("models"), "tiny", 96, ends=True)


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A model that never ends an answer."""
    return written(tmp_path_factory.mktemp("models"), "endless", 1_000_000, ends=False)


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """The kernel sets that were chosen; none is put in place, since they are the process's."""
    chosen = []
    monkeypatch.setattr(chat, "accelerate", chosen.append)
    return chosen


def stops_after(count, what=lambda: None):
    """A `write` that is interrupted at its piece number `count`, and the pieces that it got."""
    pieces = []

    def write(piece):
        pieces.append(piece)
        if len(pieces) == count:
            what()
            raise KeyboardInterrupt

    return write, pieces


# What it remembers


def test_what_was_written_before_an_interrupt_stays(endless):
    model = find_language_model(endless)
    conversation, (write, pieces) = chat.Conversation(model, max_tokens=50, seed=0), stops_after(7)
    reply = conversation.answer("Hi", write)
    assert reply.ended == "interrupted" and len(reply.text) == 7 and reply.text == "".join(pieces)
    assert [message["content"] for message in conversation.messages] == ["Hi", reply.text]
    anew = chat.Conversation(model, max_tokens=50, seed=0)
    anew.messages = list(conversation.messages)
    one, other = (each.answer("Go on", str) for each in (conversation, anew))
    assert one.text == other.text and other.cached == 0
    assert one.cached == len("u:Hi.a:") + 7 - len("a:") - 1 or one.cached >= len("u:Hi."), "the cache is still good"


def test_a_question_without_an_answer_was_not_asked(endless, monkeypatch):
    conversation = chat.Conversation(find_language_model(endless), max_tokens=5)

    def interrupted(*arguments, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(tc.LanguageModel, "answer", interrupted)
    assert conversation.answer("Hi", str).ended == "interrupted" and conversation.messages == []


def test_a_cache_that_was_growing_is_replaced(endless):
    conversation = chat.Conversation(find_language_model(endless), max_tokens=50)

    def tear():
        conversation.cache.keys = np.empty((1, 1_000, 1, 16), np.float32)

    conversation.answer("Hi", stops_after(3, tear)[0])
    assert len(conversation.cache) == 0 and conversation.cache.keys.shape == conversation.cache.values.shape
    assert conversation.answer("Go on", str).ended == "length"


def test_only_the_new_message_is_read(endless):
    conversation = chat.Conversation(find_language_model(endless), max_tokens=20, temperature=0)
    first = conversation.answer("one", str)
    assert (first.prompt, first.cached, first.written, first.ended) == (len("u:one."), 0, 20, "length")
    second = conversation.answer("two", str)
    assert second.prompt == len("u:one.a:") + 20 + len(".u:two.")
    assert second.cached == len("u:one."), "the template writes `a:` before an answer, which the model did not see"
    conversation.reset()
    assert conversation.answer("two", str).cached == 0 and len(conversation.messages) == 2


def test_a_template_that_says_who_answers_keeps_the_whole_cache(endless):
    model = find_language_model(endless)
    model.template = TEMPLATE + "{% if add_generation_prompt %}a:{% endif %}"
    conversation = chat.Conversation(model, max_tokens=20, temperature=0)
    conversation.answer("one", str)
    assert conversation.answer("two", str).cached == len("u:one.a:") + 19, "all but the last token were read"


def test_the_oldest_messages_go_and_the_system_message_stays(tiny):
    conversation = chat.Conversation(find_language_model(tiny), "be kind", max_tokens=8, seed=0)
    prompts, real = [], tc.LanguageModel.chat_prompt
    for turn in range(12):
        seen = conversation.shown(f"turn {turn}")
        prompts.append(len(real(conversation.chat, seen)))
        assert seen[0] == {"role": "system", "content": "be kind"} and seen[-1]["content"] == f"turn {turn}"
        reply = conversation.answer(f"turn {turn}", str)
        assert reply.prompt + reply.written <= 96
    assert 0 < conversation.dropped < 24 == len(conversation.messages)
    falls = [before - after for before, after in zip(prompts, prompts[1:]) if after < before]
    assert 0 < len(falls) <= 4, f"half of the context goes at once, not a message each time: {prompts}"


def test_a_message_that_is_too_long(tiny):
    conversation = chat.Conversation(find_language_model(tiny), max_tokens=8, seed=0)
    with pytest.raises(ValueError, match="do not fit into a context of 96"):
        conversation.answer("x" * 100, str)
    assert conversation.messages == [] and conversation.answer("x" * 60, str).prompt == 63


def test_each_turn_has_a_seed_of_its_own(endless, monkeypatch):
    def answers(seed):
        conversation = chat.Conversation(find_language_model(endless), max_tokens=12, seed=seed)
        return [conversation.answer(text, str).text for text in ("Hi", "Hi")]

    assert answers(1) == answers(1) != answers(2)
    seeds = []
    monkeypatch.setattr(tc.LanguageModel, "answer", lambda *arguments, seed, **how: seeds.append(seed) or iter("yes"))
    answers(5)
    assert seeds == [5, 6]


def test_a_conversation_is_saved_and_nothing_is_replaced(tiny, tmp_path):
    conversation = chat.Conversation(find_language_model(tiny), "Sei höflich", max_tokens=8, seed=0)
    conversation.answer("Hi", str)
    conversation.save(file := tmp_path / "chat.json")
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert saved == [{"role": "system", "content": "Sei höflich"}, *conversation.messages]
    with pytest.raises(FileExistsError, match="chat.json exists already"):
        conversation.save(file)


# Scripts


def run(arguments, monkeypatch, capsys, lines=""):
    """The status, the standard output and the standard error of the command, with lines as its input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    status = chat.main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_once_writes_the_answer_and_nothing_else(tiny, monkeypatch, capsys):
    settings = {"max_tokens": 9, "seed": 3, "temperature": 1, "top_p": 1}
    wanted = chat.Conversation(find_language_model(tiny), **settings).answer("Hi", str)
    arguments = [tiny, "--once", "Hi", "--seed", 3, "--max-tokens", 9, "--temperature", 1, "--top-p", 1]
    status, out, err = run(arguments, monkeypatch, capsys)
    assert (status, out) == (0, wanted.text + "\n") and err == ("" if wanted.ended == "stop" else err)
    status, out, err = run([*arguments, "--stats"], monkeypatch, capsys)
    assert out == wanted.text + "\n" and re.search(r"prompt 5 tokens, 0 of them in the cache; .*\d a second\n", err)


def test_lines_of_a_script_are_turns(endless, monkeypatch, capsys):
    arguments = [endless, "--seed", 0, "--max-tokens", 5, "--stats"]
    status, out, err = run(arguments, monkeypatch, capsys, "one\n\ntwo\n/reset\none\n/system be kind\n/exit\nthree\n")
    sizes = [int(size) for size in re.findall(r"prompt (\d+) tokens", err)]
    assert status == 0 and ">" not in err and len(sizes) == 3 and sizes[0] == sizes[2] < sizes[1]
    first = [out[:5], out[-6:-1]]
    assert first[0] == first[1], "after /reset the same is said again"


def test_a_script_with_a_message_that_cannot_be_read_fails(tiny, monkeypatch, capsys):
    status, _, err = run([tiny, "--seed", 0], monkeypatch, capsys, "x" * 200 + "\nHi\n/what\n/save\n")
    assert status == 1 and "do not fit into a context" in err
    assert "no command /what; /help lists them" in err and "/save needs the name of a file" in err


def test_help_names_every_command(tiny, monkeypatch, capsys):
    _, out, err = run([tiny], monkeypatch, capsys, "/help\n")
    assert out == "" and all(name in err for name in chat.COMMANDS) and "/save FILE" in err and "Ctrl-C" in err


def test_your_own_gpt_talks(tmp_path, monkeypatch, capsys):
    text = "to be, or not to be\n"
    tokenizer = CharTokenizer.train(text)
    save_gpt2(GPT(GPTConfig(tokenizer.vocab_size, 32, 1, 2, 16)), tmp_path / "mine")
    tokenizer.save(tmp_path / "mine" / "tokenizer.json")
    status, out, _ = run([tmp_path / "mine", "--seed", 0, "--once", "to be"], monkeypatch, capsys)
    assert status == 0 and set(out) <= set(text) and len(out) == 32 - len("to be\n") + 1, "up to its context"
    status, _, err = run([tmp_path / "mine"], monkeypatch, capsys, "Zoo\n")
    assert status == 1 and "'Z'" in err


@pytest.mark.parametrize("arguments, said", [
    (["--temperature", "-1"], "temperature is 0 or more"), (["--top-p", "0"], "top_p"),
    (["--max-tokens", "0"], "--max-tokens must be 1 or more"),
])
def test_settings_are_refused_before_the_model_is_read(arguments, said):
    with pytest.raises(ValueError, match=said):
        chat.main(["nowhere.gguf", *arguments])


def test_settings_suit_the_model():
    options = chat.make_parser().parse_args([])
    assert chat.settings(options, "template") == {"temperature": 0.2, "top_p": 0.9}
    assert chat.settings(options, None) == {"temperature": 0.8, "top_p": 1.0}
    options = chat.make_parser().parse_args(["--temperature", "0", "--top-p", "0.5"])
    assert chat.settings(options, "template") == {"temperature": 0.0, "top_p": 0.5}


def test_kernels_are_the_best_unless_chapters_are_swapped(monkeypatch, kernels):
    monkeypatch.delenv("TT_KERNELS", raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    chat.choose_kernels(None)
    chat.choose_kernels("fast")
    assert kernels == [None, "fast"]
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(table=SimpleNamespace(targets={"tt_tensor": "mine.py"}))])
    chat.choose_kernels(None)
    assert kernels == [None, "fast"]
    chat.choose_kernels("compiled")
    assert kernels == [None, "fast", "compiled"], "what was asked for is done"
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.setenv("TT_KERNELS", "loops")
    chat.choose_kernels(None)
    assert kernels == [None, "fast", "compiled"], "the environment has chosen"


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    """An environment without weights; as a dictionary."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    for name in ("TT_WEIGHTS", "TT_DATA"):
        monkeypatch.delenv(name, raising=False)
    return dict(os.environ)


def test_a_script_is_told_how_to_get_the_weights(nothing_here, monkeypatch, capsys):
    with pytest.raises(WeightsMissing, match="python -m tt_capstone fetch"):
        run([], monkeypatch, capsys)


@pytest.mark.parametrize("said, fetched", [("", True), ("y", True), ("Yes", True), ("n", False), ("what", False)])
def test_at_a_terminal_it_offers_to_fetch_them(tiny, nothing_here, monkeypatch, said, fetched):
    asked, tried = [], []
    monkeypatch.setattr(chat, "sys", SimpleNamespace(**{
        name: SimpleNamespace(isatty=lambda: True, write=str, flush=str) for name in ("stdin", "stderr", "stdout")}))
    monkeypatch.setattr(chat, "typed", lambda prompt: asked.append(prompt) or said)
    monkeypatch.setattr(chat, "fetch_weights", tried.append)
    found = lambda name: find_language_model(tiny if tried else name)
    monkeypatch.setattr(chat, "find_language_model", found)
    if fetched:
        assert chat.obtained("smollm2").name == "tiny"
    else:
        with pytest.raises(WeightsMissing):
            chat.obtained("smollm2")
    assert asked == ["download 98 MB? [Y/n] "] and tried == ["smollm2"] * fetched


# A terminal


LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"


class Terminal:
    """A process in a terminal of its own: what is typed goes there, and what it shows comes back."""

    def __init__(self, *arguments, **environment):
        import pty

        self.master, slave = pty.openpty()
        command = [sys.executable, "-c", LAUNCH, sys.executable, *map(str, arguments)]
        environment = os.environ | {"TERM": "dumb", "PYTHONUNBUFFERED": "1"} | environment
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment
        )
        os.close(slave)
        self.shown = ""

    def type(self, text):
        os.write(self.master, text.encode())

    def press_ctrl_c(self):
        """Ctrl-C, once the program waits for input or writes: Python itself misses one just before it waits."""
        time.sleep(0.3)
        self.type("\x03")

    def wait_for(self, text, seconds=60):
        """What has been shown up to a text that comes, which is taken away."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(deadline - time.monotonic(), 0))
            try:
                new = os.read(self.master, 65_536).decode(errors="replace") if ready else ""
            except OSError:  # the other end is closed
                new = ""
            assert new, f"{text!r} did not come, but {self.shown[-500:]!r}"
            self.shown += new
        before, _, self.shown = self.shown.partition(text)
        return before

    def ended(self):
        return self.process.wait(60)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal():
    if os.name == "nt":
        pytest.skip("Windows has no pseudo-terminals of this kind")
    opened = []

    def start(*arguments, **environment):
        opened.append(Terminal(*arguments, **environment))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


CHAT = ("-m", "tt_capstone", "chat")


def test_keys_in_a_terminal(terminal, endless, tmp_path):
    screen = terminal(*CHAT, endless, "--kernels", "default", "--seed", 0, "--max-tokens", 900_000, "--stats")
    assert "endless. /help lists the commands" in screen.wait_for("> ")
    screen.type("Hello\n")
    screen.wait_for("Hello\r\n")
    screen.press_ctrl_c()
    text = screen.wait_for("stopped\r\n")
    assert len(text) > 20, "it was writing"
    told = screen.wait_for("> ")
    assert "prompt 8 tokens, 0 of them" in told and "Traceback" not in text + told
    screen.type("more\n")
    screen.press_ctrl_c()
    screen.wait_for("stopped\r\n")
    size, cached = map(int, re.search(r"prompt (\d+) tokens, (\d+) of them", screen.wait_for("> ")).groups())
    assert size > 30 and cached == 8, "the part of the answer that was written is in the history"
    screen.type(f"/save {tmp_path / 'chat.json'}\n")
    screen.wait_for("4 messages are in")
    screen.wait_for("> ")
    screen.type("/reset\n")
    screen.wait_for("> ")
    screen.type("nonsense")
    screen.press_ctrl_c()  # the line is cleared, and is no message
    screen.wait_for("press Ctrl-C again to leave")
    screen.wait_for("> ")
    screen.type("Hello\n")
    screen.press_ctrl_c()
    screen.wait_for("stopped\r\n")
    assert "prompt 8 tokens" in screen.wait_for("> ")
    screen.press_ctrl_c()
    screen.wait_for("press Ctrl-C again to leave")
    screen.wait_for("> ")
    screen.press_ctrl_c()
    assert screen.ended() == 0
    saved = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))
    assert [message["role"] for message in saved] == ["user", "assistant"] * 2 and saved[1]["content"]


def test_the_end_of_the_input_leaves(terminal, tiny):
    screen = terminal(*CHAT, tiny, "--kernels", "default", "--seed", 0)
    screen.wait_for("> ")
    screen.type("Hi\n")
    screen.wait_for("> ")
    screen.type("\x04")  # Ctrl-D
    assert screen.ended() == 0


def test_ctrl_c_ends_a_single_answer_with_the_status_that_shells_know(terminal, endless):
    screen = terminal(*CHAT, endless, "--kernels", "default", "--once", "Hi", "--max-tokens", 900_000)
    screen.wait_for("e")
    screen.press_ctrl_c()
    screen.wait_for("stopped")
    assert screen.ended() == 128 + signal.SIGINT


def test_it_asks_before_it_fetches(terminal, nothing_here):
    screen = terminal(*CHAT, **nothing_here)
    assert "is not on this machine" in screen.wait_for("download 98 MB? [Y/n] ")
    screen.type("n\n")
    assert "TT_WEIGHTS" in screen.wait_for("has it\r\n") and screen.ended() == 1


# The commands


def test_help_lists_the_commands(monkeypatch, capsys):
    assert commands.COMMANDS.keys() == commands.HELP.keys()
    monkeypatch.setattr(sys, "argv", ["tt_capstone", "--help"])
    assert commands.main() == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", said, re.M) for name in commands.COMMANDS)
    monkeypatch.setattr(sys, "argv", ["tt_capstone"])
    assert commands.main() == 2 and "usage" in capsys.readouterr().err


def test_an_unknown_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tt_capstone", "sevre"])
    assert commands.main() == 2 and "did you mean serve?" in capsys.readouterr().err


@pytest.fixture
def command(monkeypatch):
    """Puts a function in the place of each command's `main`, and runs one."""

    def start(function, *arguments):
        monkeypatch.setattr(commands.importlib, "import_module", lambda name: SimpleNamespace(main=function))
        monkeypatch.setattr(sys, "argv", ["tt_capstone", *arguments])
        return commands.main()

    return start


def test_arguments_and_statuses_pass_through(command):
    got = []
    assert command(lambda arguments: got.append(arguments) or 3, "serve", "--port", "0") == 3
    assert command(lambda arguments: got.append(arguments), "check", "folder") == 0
    assert got == [["--port", "0"], ["check", "folder"]], "`new` and `check` share a main, which must know which it is"


@pytest.mark.parametrize("error, status, said", [
    (ValueError("no such thing"), 1, "tt_capstone: no such thing\n"),
    (FileNotFoundError(2, "No such file", "a.gguf"), 1, "tt_capstone: a.gguf: No such file\n"),
    (ModuleNotFoundError("No module named 'starlette'", name="starlette.routing"), 1,
     "tt_capstone: starlette.routing is not installed: pip install 'tt-capstone[serve]' -c packages.txt\n"),
    (ModuleNotFoundError("No module named 'onnx'", name="onnx"), 1,
     "tt_capstone: onnx is not installed: pip install 'tt-capstone[onnx]' -c packages.txt\n"),
    (KeyboardInterrupt(), 130, ""),
])
def test_errors_of_users_are_a_line(command, capsys, error, status, said):
    def fail(arguments):
        raise error

    assert command(fail, "serve") == status and capsys.readouterr().err == said


def test_other_errors_keep_their_traceback(command):
    def fail(arguments):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command(fail, "serve")


def test_a_reader_that_leaves_is_no_error(endless):
    arguments = [*CHAT, str(endless), "--kernels", "default", "--once", "Hi", "--max-tokens", "900000"]
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == 1 and process.stderr.read() == b""
    process.stderr.close()
