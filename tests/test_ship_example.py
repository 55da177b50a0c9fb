"""The example that proves milestone 7: it serves, asks and stops, and says no where the answers are wrong."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

import tt_tensor as tt
from tt_capstone import save_llama_gguf
from tt_capstone.capstone import small_llama
from tt_nlp import printed
from tt_nlp.tokenization import BYTES

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from smollm2_2025 import ship  # noqa: E402

needs_a_server = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("starlette", "uvicorn", "prometheus_client"))),
    reason="the server needs the extra: pip install 'tt-capstone[serve]'",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A language model that has learned nothing, in a file."""
    tt.manual_seed(0)
    file = tmp_path_factory.mktemp("model") / "small.gguf"
    names = {"tokens": [*map(printed, BYTES), "<end>"], "token_type": [1] * 256 + [3], "model": "gpt2"}
    tokenizer = {f"tokenizer.ggml.{name}": value for name, value in (names | {"eos_token_id": 256}).items()}
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    save_llama_gguf(small_llama(257), file, **tokenizer, **{"tokenizer.chat_template": template})
    return file


@needs_a_server
def test_a_model_that_knows_nothing_is_served_and_misses(model, tmp_path, capsys):
    file = tmp_path / "table.json"
    assert ship.main(["--model", str(model), "--kernels", "default", "--json", str(file)]) == 1
    capitals, stream, last = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert not capitals["reached"] and capitals["measured"] == "0 of 25"
    assert stream["reached"] and last["reached"] and last["measured"].endswith("status 0")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80 or not line.isascii()] == []


@needs_a_server
def test_a_server_that_does_not_start_says_why(tmp_path, capsys):
    assert ship.main(["--model", str(tmp_path / "none.gguf"), "--kernels", "default"]) == 1
    said = capsys.readouterr().err
    assert "did not start" in said and "none.gguf" in said
