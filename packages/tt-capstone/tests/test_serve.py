"""The server: the official client is its user, and bad clients are, too."""

import json
import logging
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import tt_opt
from tt_capstone import LanguageModel
from tt_capstone.engine import small_language_model
from tt_nlp import Encoder
from tt_nlp.transformers import small_gpt
from tt_tensor import manual_seed

WHAT = "the server needs Starlette, uvicorn and prometheus-client: pip install 'tt-capstone[serve]'"
for library in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(library, reason=WHAT)
CLIENT = "the tests of the server ask with OpenAI's client: pip install openai"
openai = pytest.importorskip("openai", reason=CLIENT)

from tt_capstone.serve import Settings, app, main, make_server  # noqa: E402

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="session")
def small():
    """A model with random weights whose tokens are bytes."""
    manual_seed(0)
    tokenizer = Encoder([bytes([number]) for number in range(256)], ["<|end|>"])
    model = small_gpt(257, layers=2, width=32, length=256).eval()
    return LanguageModel("small", model, tokenizer, frozenset({256}), TEMPLATE)


def slow_model(seconds=0.02):
    """A model of characters whose passes take a while."""
    whole = small_language_model(length=512)
    lm_head = whole.model.lm_head.forward
    whole.model.lm_head.forward = lambda x: (time.sleep(seconds), lm_head(x))[1]
    return whole


class Running:
    """A server on a thread, and clients for it."""

    def __init__(self, whole, **settings):
        self.server = make_server(whole, "127.0.0.1", 0, Settings(**settings))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self):
        self.thread.start()
        until(lambda: self.server.started or not self.thread.is_alive())
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.engine = self.server.service.engine
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="no", max_retries=0, timeout=20)
        return self

    def __exit__(self, *exception):
        self.client.close()
        self.server.handle_exit(signal.SIGTERM, None)
        self.server.until = 0  # without grace
        self.thread.join(10)
        assert not self.thread.is_alive()

    def ask(self, method, path, body=None, **headers):
        """The status, the headers and the body of a plain request."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | headers
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def refused(self, body, path="/v1/chat/completions", **headers):
        """The status and the error of a request that must be refused."""
        status, _, text = self.ask("POST", path, body, **headers)
        error = json.loads(text)["error"]
        assert status != 200 and error.keys() == {"message", "type", "param", "code"}
        return status, error

    def socket(self, text=b""):
        """A connection of bytes."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.sendall(text)
        return connection


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def running(small):
    with Running(small, slots=4, queue=16, patience=1.0) as running:
        yield running
        until(lambda: not running.engine.live)  # no test has left anything
        assert running.engine.active == 0 and len(running.engine.batcher.free) == 4


@pytest.fixture(scope="module")
def slow():
    with Running(slow_model(), slots=1, queue=1, grace=10) as running:
        yield running


@pytest.fixture
def client(running):
    return running.client


HELLO = [{"role": "user", "content": "Hello"}]


def chat(client, **how):
    return client.chat.completions.create(**{"model": "small", "messages": HELLO, "max_tokens": 10, "seed": 1} | how)


def text(client, **how):
    return client.completions.create(**{"model": "small", "prompt": "Once", "max_tokens": 10, "seed": 1} | how)


def alone(whole, prompt, count, seed=1, row=0, **how):
    """The text that `tt_opt.generate` writes, up to a stop token."""
    found = tt_opt.generate(whole.model, [prompt] * (row + 1), count, seed=seed, stop=whole.stop, **how)[row]
    tokens = [token for token in found[len(prompt) :] if token not in whole.stop]
    return whole.tokenizer.decode(tokens)


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"temperature": 0}, {"temperature": 0.4, "top_p": 0.8}, {"top_p": 1, "seed": 99}])
def test_a_chat_is_answered_as_the_model_alone_would(small, client, how):
    found = chat(client, **how)
    prompt = small.prompt("user: Hello\n")
    wanted = alone(small, prompt, 10, **{"seed": 1} | how)
    assert found.choices[0].message.content == wanted and found.choices[0].message.role == "assistant"
    assert found.object == "chat.completion" and found.model == "small" and found.id.startswith("chatcmpl-")
    assert found.system_fingerprint.startswith("fp_") and abs(found.created - time.time()) < 60
    assert found.choices[0].finish_reason == "length" and found.choices[0].logprobs is None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (12, 10, 22)
    assert "".join(c.choices[0].delta.content or "" for c in chat(client, stream=True, **how)) == wanted


def test_messages_may_have_parts_and_several_roles(small, client):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": parts, "name": "Ann"},
                {"role": "assistant", "content": ""}, {"role": "user", "content": "three"}]
    found = chat(client, messages=messages, max_completion_tokens=7)
    laid_out = "system: Be short.\nuser: one\ntwo\nassistant: \nuser: three\n"
    assert found.choices[0].message.content == alone(small, small.prompt(laid_out), 7)
    assert found.usage.completion_tokens == 7 and found.usage.prompt_tokens == len(laid_out)


def test_a_stream_has_chunks_and_ends_with_the_usage(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    first, *_, last, usage = chunks
    assert first.choices[0].delta.role == "assistant" and first.choices[0].finish_reason is None
    assert last.choices[0].finish_reason == "length" and {c.object for c in chunks} == {"chat.completion.chunk"}
    assert usage.choices == [] and usage.usage.completion_tokens == 10 and usage.usage.total_tokens == 22
    assert len({chunk.id for chunk in chunks}) == 1 and all(chunk.usage is None for chunk in chunks[:-1])
    assert len(list(chat(client, stream=True))) == len(chunks) - 1


def test_a_stream_on_the_wire(running):
    status, headers, body = running.ask("POST", "/v1/completions", {"model": "small", "prompt": "x", "stream": True})
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    lines = body.decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""] and all(json.loads(line.removeprefix("data: ")) for line in lines[:-2])


def test_a_text_is_continued(small, client):
    found = text(client)
    wanted = alone(small, small.prompt("Once"), 10)
    assert found.choices[0].text == wanted and found.object == "text_completion"
    assert "".join(chunk.choices[0].text for chunk in text(client, stream=True)) == wanted
    assert text(client, echo=True).choices[0].text == "Once" + wanted
    assert "".join(chunk.choices[0].text for chunk in text(client, echo=True, stream=True)) == "Once" + wanted
    assert text(client, prompt=small.prompt("Once")).choices[0].text == wanted
    seed = next(seed for seed in range(50) if len(alone(small, [65] * 200, 56, seed=seed).encode()) >= 56)
    assert text(client, prompt=[65] * 200, max_tokens=None, seed=seed).usage.completion_tokens == 56  # what fits


def test_several_prompts_and_several_answers(small, client):
    found = text(client, prompt=["ab", "c"], n=2, echo=True)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    rows = enumerate(["ab", "ab", "c", "c"])
    wanted = [prompt + alone(small, small.prompt(prompt), 10, row=row) for row, prompt in rows]
    assert [choice.text for choice in found.choices] == wanted
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (3, 40)
    assert [choice.text for choice in text(client, prompt=[[97, 98], [99]], n=2, echo=True).choices] == wanted
    streamed = [""] * 3
    for chunk in chat(client, n=3, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == [choice.message.content for choice in chat(client, n=3).choices]
    assert streamed == [alone(small, small.prompt("user: Hello\n"), 10, row=row) for row in range(3)]


def test_a_seed_repeats_an_answer_and_none_does_not(client):
    assert chat(client, seed=-5).choices[0].message.content == chat(client, seed=-5).choices[0].message.content
    assert len({chat(client, seed=None).choices[0].message.content for _ in range(3)}) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_stop_texts_across_tokens(small, client, stream):
    whole = chat(client, max_tokens=40).choices[0].message.content
    for stop in (whole[5:8], [whole[9:11], "never", whole[3:6]], None):
        texts = [stop] if isinstance(stop, str) else stop or []
        wanted = whole[: min((whole.index(t) for t in texts if t in whole), default=None)]
        found = chat(client, max_tokens=40, stop=stop, stream=stream)
        choices = [chunk.choices[0] for chunk in found] if stream else found.choices
        shown = "".join(c.delta.content or "" for c in choices) if stream else choices[0].message.content
        assert shown == wanted and choices[-1].finish_reason == ("stop" if texts else "length")


def test_the_token_that_ends_an_answer_is_not_shown_but_counts(small, client):
    for seed in range(200):
        ids = tt_opt.generate(small.model, [65], 60, seed=seed, stop=small.stop)[1:]
        if ids[-1] == 256:
            break
    found = text(client, prompt=[65], max_tokens=60, seed=seed, logprobs=0)
    assert found.choices[0].finish_reason == "stop" and found.choices[0].text == small.tokenizer.decode(ids[:-1])
    assert found.usage.completion_tokens == len(ids) and len(found.choices[0].logprobs.tokens) == len(ids) - 1


def test_log_probabilities_of_a_chat(small, client):
    found = chat(client, logprobs=True, top_logprobs=4, temperature=0.5)
    tokens = found.choices[0].logprobs.content
    assert b"".join(bytes(t.bytes) for t in tokens).decode("utf-8", "replace") == found.choices[0].message.content
    prompt = small.prompt("user: Hello\n")
    ids = prompt + [t.bytes[0] for t in tokens]
    logits = tt_opt.read(small.model, [(tt_opt.KVCache.of(small.model), ids[:-1])], every=True).astype(np.float64)
    logs = (logits - np.log(np.exp(logits).sum(1, keepdims=True)))[len(prompt) - 1 :]
    for row, token in zip(logs, tokens, strict=True):
        assert math.isclose(token.logprob, row[token.bytes[0]], abs_tol=1e-5)
        assert np.allclose([t.logprob for t in token.top_logprobs], np.sort(row)[:-5:-1], atol=1e-5)
    streamed = [c for chunk in chat(client, logprobs=True, stream=True, temperature=0.5) for c in chunk.choices]
    parts = [t for c in streamed if c.logprobs for t in c.logprobs.content]
    assert [t.bytes for t in parts] == [t.bytes for t in tokens] and all(t.top_logprobs == [] for t in parts)


def test_log_probabilities_of_a_text(client):
    found = text(client, logprobs=2).choices[0]
    numbers = found.logprobs
    assert len(numbers.tokens) == len(numbers.token_logprobs) == len(numbers.text_offset) == 10
    assert numbers.text_offset[0] == 0 and numbers.text_offset == sorted(numbers.text_offset)
    pairs = zip(numbers.top_logprobs, numbers.token_logprobs)
    assert all(1 <= len(top) <= 2 and max(top.values()) >= logprob for top, logprob in pairs)


def test_a_model_of_characters_is_served_as_well():
    whole = small_language_model()
    with Running(whole) as running:
        found = running.client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "a cab"}], seed=2, max_tokens=9, logprobs=True
        )
        assert found.choices[0].message.content == alone(whole, whole.prompt("a cab\n"), 9, seed=2)
        assert "".join(token.token for token in found.choices[0].logprobs.content) == found.choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="'X'.*is not in the alphabet"):
            running.client.completions.create(model="small", prompt="aXb")


def test_models(client):
    [model] = client.models.list().data
    assert model.id == "small" and model.object == "model" and client.models.retrieve("small") == model
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.models.retrieve("gpt")


def test_many_clients_get_what_they_would_get_alone(small, running):
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda i: text(running.client, prompt=f"{i:02d}", seed=i).choices[0].text, range(12)))
    assert found == [alone(small, small.prompt(f"{i:02d}"), 10, seed=i) for i in range(12)]


# -- refusals ---------------------------------------------------------------------------------------------------------

CHAT = {"model": "small", "messages": HELLO, "max_tokens": 3}
WRONG = [
    ({"temperature": 2.1}, "temperature"), ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"), ({"top_p": -0.1}, "top_p"),
    ({"n": 5}, "n"), ({"n": 0}, "n"), ({"n": 1.5}, "n"), ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"), ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"seed": 1.5}, "seed"), ({"seed": 2**63}, "seed"), ({"seed": 10**4000}, "seed"), ({"stop": ["a"] * 5}, "stop"),
    ({"stop": ""}, "stop"), ({"stop": [1]}, "stop"), ({"stop": "x" * 201}, "stop"), ({"stream": 1}, "stream"),
    ({"stream_options": []}, "stream_options"), ({"stream_options": {"include_usage": "yes"}}, "include_usage"),
    ({"logprobs": 1}, "logprobs"), ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"presence_penalty": 0.1}, "presence_penalty"), ({"frequency_penalty": False}, "frequency_penalty"),
    ({"tools": [{"type": "function"}]}, "tools"), ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"), ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"audio": {}}, "audio"), ({"store": True}, "store"), ({"temprature": 1}, "temprature"),
    ({"prompt": "x"}, "prompt"),
    ({"messages": []}, "messages"), ({"messages": "Hello"}, "messages"), ({"messages": None}, "messages"),
    ({"messages": ["Hello"]}, "messages[0].role"),
    ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role"),
    ({"messages": [{"role": [], "content": ""}]}, "messages[0].role"),
    ({"messages": [*HELLO, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
    ({"model": None}, "model"), ({"model": ["small"]}, "model"),
]  # fmt: skip


@pytest.mark.parametrize("field, name", WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_field_is_named(running, field, name):
    status, error = running.refused(CHAT | field)
    assert status == 400 and error["param"] == name and error["type"] == "invalid_request_error"
    assert name.split("[")[0] in error["message"]


@pytest.mark.parametrize("field, name", [
    ({"prompt": ""}, "prompt"), ({"prompt": None}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": [257]}, "prompt"),
    ({"prompt": [-1]}, "prompt"), ({"prompt": [1, "x"]}, "prompt"), ({"prompt": [[]]}, "prompt"),
    ({"prompt": [1.5]}, "prompt"),
    ({"prompt": ["a"] * 5}, "prompt"), ({"prompt": [True]}, "prompt"), ({"prompt": [10**30]}, "prompt"),
    ({"logprobs": 6}, "logprobs"), ({"logprobs": True}, "logprobs"), ({"echo": True, "logprobs": 1}, "logprobs"),
    ({"echo": 1}, "echo"), ({"best_of": 2}, "best_of"), ({"suffix": "end"}, "suffix"),
    ({"messages": HELLO}, "messages"),
], ids=lambda value: str(value)[:40])  # fmt: skip
def test_a_wrong_field_of_a_completion_is_named(running, field, name):
    status, error = running.refused({"model": "small", "prompt": "x", "max_tokens": 3} | field, "/v1/completions")
    assert status == 400 and error["param"] == name


def test_neutral_values_and_descriptions_of_the_caller_are_accepted(running):
    neutral = {
        "presence_penalty": 0, "frequency_penalty": 0.0, "tools": [], "tool_choice": "none", "logit_bias": {},
        "response_format": {"type": "text"}, "metadata": {"a": "b"}, "store": False, "stop": [], "top_p": None,
        "user": "u", "n": None, "parallel_tool_calls": True, "stream_options": None, "service_tier": "auto",
    }  # fmt: skip
    assert running.ask("POST", "/v1/chat/completions", CHAT | neutral)[0] == 200
    extreme = {"temperature": 5e-324, "top_p": 0, "max_tokens": 10**100, "n": 1.0}
    assert running.ask("POST", "/v1/chat/completions", CHAT | extreme)[0] == 200


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'"text"', b"1e999", b"\xff\xfe", b'{"model": "\xff"}', b'{"n": NaN}',
    b'{"n": -Infinity}', b'{"n": 1, "n": 1}', b'{"messages": [{"role": "user", "role": "user"}]}',
    b'{"a":' * 50_000, b"[" * 200_000, b'{"n": ' + b"9" * 5000 + b"}", b'\xef\xbb\xbf{"model": "small"}',
    b"model=small",
], ids=lambda body: str(body[:20]))  # fmt: skip
def test_a_body_that_is_no_json_is_refused(running, body):
    status, error = running.refused(body)
    assert status == 400 and error["code"] == "invalid_json"


def test_numbers_beyond_what_floats_hold(running):
    body = json.dumps(CHAT)[:-1].encode()
    assert running.refused(body + b', "temperature": 1e999}')[1]["param"] == "temperature"
    for depth in (10, 500, 900, 990):
        deep = b'{"metadata": ' + b"[" * depth + b"]" * depth + b"," + body[1:] + b"}"
        assert running.ask("POST", "/v1/chat/completions", deep)[0] in (200, 400)
        status, error = running.refused(body + b', "temperature": ' + b"[" * depth + b"]" * depth + b"}")
        assert status == 400 and error["code"] in ("invalid_value", "invalid_json")


def test_the_client_raises_its_own_errors(client):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, temperature=3)
    assert caught.value.param == "temperature" and caught.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model="gpt-4")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        text(client, prompt="x" * 256)
    assert caught.value.code == "context_length_exceeded" and "256 tokens" in caught.value.message
    assert text(client, prompt="x" * 255).usage.completion_tokens == 1


def test_paths_and_methods_that_do_not_exist(running):
    for method, path, status in [
        ("GET", "/v2", 404), ("POST", "/v1/embeddings", 404), ("GET", "/v1/chat/completions", 405), ("PUT", "/", 405),
        ("POST", "/v1/models", 405), ("GET", "/v1/models/", 404), ("DELETE", "/v1/models/small", 405),
    ]:  # fmt: skip
        found, headers, body = running.ask(method, path)
        error = json.loads(body)["error"]
        assert found == status and (path in error["message"] or "no model" in error["message"]), (method, path)
        assert status == 404 or headers["Allow"]


# -- keys and strangers -----------------------------------------------------------------------------------------------


def test_a_key_is_needed_where_there_is_one(small):
    with Running(small, key="sesame") as running:
        for path in ("/v1/models", "/metrics"):
            for key in (None, "Bearer wrong", "sesame", "Basic sesame", "Bearer ", "Bearer sesame2"):
                headers = {} if key is None else {"Authorization": key}
                status, answered, body = running.ask("GET", path, **headers)
                assert status == 401 and answered["WWW-Authenticate"] == "Bearer"
                assert json.loads(body)["error"]["code"] == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            chat(running.client)
        assert running.ask("GET", "/health")[0] == running.ask("GET", "/")[0] == 200
        right = running.client.with_options(api_key="sesame")
        assert chat(right).usage.completion_tokens == 10
        assert running.ask("GET", "/metrics", Authorization="bearer sesame", Host="example.org")[0] == 200


def test_without_a_key_other_sites_are_refused(running):
    port = running.port
    for headers in ({"Host": "evil.example"}, {"Host": f"evil.example:{port}"}, {"Origin": "https://evil.example"},
                    {"Origin": "null"}, {"Host": "127.0.0.1.evil.example"}, {"Host": ""}):
        status, error = running.refused(CHAT, **headers)
        assert status == 400 and error["code"] == "foreign_host", headers
    for headers in ({"Host": f"localhost:{port}"}, {"Host": "LOCALHOST"}, {"Host": f"[::1]:{port}"},
                    {"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}"}):
        assert running.ask("POST", "/v1/chat/completions", CHAT, **headers)[0] == 200, headers
    answered = running.ask("POST", "/v1/chat/completions", CHAT)[1]
    assert not [name for name in answered if name.lower().startswith("access-control")]


# -- slow clients, long bodies, clients that leave --------------------------------------------------------------------


def peak():
    """The most memory that this process has had, in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_body_that_is_too_long_is_not_kept(small):
    megabyte = b"x" * (1 << 20)
    with Running(small) as running:
        assert running.refused(megabyte[: (1 << 19) + 1])[0] == 413 and running.refused(megabyte[: 1 << 19])[0] == 400
        with pytest.raises(openai.APIStatusError, match="at most 524,288 bytes") as caught:
            text(running.client, prompt="x" * (1 << 20))
        assert caught.value.status_code == 413
        before = peak()
        for chunked in (False, True):
            head = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 104857600"
            with running.socket(HEAD + head + b"\r\n\r\n") as connection:
                for _ in range(100):
                    connection.sendall(b"100000\r\n" + megabyte + b"\r\n" if chunked else megabyte)
                connection.sendall(b"0\r\n\r\n" if chunked else b"")
                assert b" 413 " in connection.recv(100)
        assert before is None or peak() - before < 30
        for length in (b"104857600", b"9" * 19):
            head = HEAD + b"Expect: 100-continue\r\nContent-Length: " + length + b"\r\n\r\n"
            with running.socket(head) as connection:
                assert connection.recv(20).split()[1] == (b"413" if length[:1] == b"1" else b"100")


def test_a_body_that_comes_too_slowly(running):
    with running.socket(HEAD + b"Content-Length: 1000\r\n\r\n") as connection:  # and it is less than it says
        start = time.monotonic()
        for _ in range(6):
            connection.sendall(b"{")
            time.sleep(0.1)
        assert b" 408 " in connection.recv(100) and 0.8 < time.monotonic() - start < 4


@pytest.mark.parametrize("part", [b"", b"GET / HTT", HEAD])
def test_a_request_that_never_comes_is_not_waited_for(running, part):
    with running.socket(part) as connection:
        start, closed = time.monotonic(), False
        connection.settimeout(0.2)
        while not closed and time.monotonic() - start < 5:
            try:
                closed = connection.recv(100) == b""
            except TimeoutError:
                connection.sendall(b"X: y\r\n" if part == HEAD else b"")  # a header now and then does not help
            except ConnectionError:
                closed = True
        assert closed and 0.5 < time.monotonic() - start < 4


def test_what_is_no_http_is_refused(running):
    negative = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"
    for noise in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", negative):
        with running.socket(noise + b"\r\n\r\n") as connection:
            assert b" 400 " in connection.recv(100)
    assert running.ask("GET", "/health")[0] == 200


LONG = {"model": "small", "prompt": "a", "max_tokens": 400}


def leaving(running, body, wait):
    """Ask, wait until something is true, and leave."""
    data = json.dumps(body).encode()
    head = HEAD.replace(b"chat/", b"") + b"Content-Length: %d\r\n\r\n" % len(data)
    connection = running.socket(head + data)
    until(wait)
    connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot_at_once(slow, stream):
    engine = slow.engine
    leaving(slow, LONG | {"stream": stream}, lambda: engine.active == 1)
    until(lambda: engine.active == 0 and not engine.live, 3)
    with slow.client.completions.create(**LONG, stream=True) as answer:
        next(answer)
        leaving(slow, LONG | {"stream": stream}, lambda: engine.waiting == 1)  # in the queue
        until(lambda: engine.waiting == 0, 3)
        assert engine.active == 1
    until(lambda: not engine.live and len(engine.batcher.free) == 1, 3)


def test_a_client_that_does_not_read_is_left(small):
    with Running(small, patience=0.5) as running:
        connection = socket.create_connection(("127.0.0.1", running.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000)
        until(lambda: not running.server.server_state.connections, 8)
        connection.close()
        assert running.ask("GET", "/health")[0] == 200


def test_a_full_queue_says_when_to_come_again(slow):
    with slow.client.completions.create(**LONG, stream=True) as one:
        next(one)
        with slow.client.completions.create(**LONG, stream=True):
            until(lambda: slow.engine.waiting == 1)
            with pytest.raises(openai.RateLimitError) as caught:
                slow.client.completions.create(**LONG)
            assert caught.value.code == "queue_full" and 1 <= int(caught.value.response.headers["Retry-After"]) <= 60
    until(lambda: not slow.engine.live)
    patient = slow.client.with_options(max_retries=5)
    with slow.client.completions.create(**LONG | {"max_tokens": 30}, stream=True) as one:
        next(one)
        threading.Timer(0.3, one.close).start()
        assert patient.completions.create(**LONG | {"max_tokens": 2}).usage.completion_tokens == 2


def test_all_answers_or_none_are_taken():
    with Running(slow_model(), slots=2, queue=0) as running:
        held = running.engine.submit([1], 400)
        with pytest.raises(openai.RateLimitError):
            running.client.completions.create(**LONG, n=2)
        assert running.engine.live == {held}
        held.cancel()
        until(lambda: not running.engine.live)


def test_an_answer_that_takes_too_long_ends(slow):
    with Running(slow_model(0.05), slots=1, queue=1, timeout=0.4) as running:
        found = running.client.completions.create(**LONG)
        assert found.choices[0].finish_reason == "length" and 1 <= found.usage.completion_tokens < 20
        hold = running.engine.submit([1], 400)
        with pytest.raises(openai.InternalServerError, match="too busy") as caught:
            running.client.completions.create(**LONG)
        assert caught.value.status_code == 503 and caught.value.response.headers["Retry-After"]
        with pytest.raises(openai.APIError, match="too busy"):
            list(running.client.completions.create(**LONG, stream=True))
        hold.cancel()


@pytest.fixture
def quiet():
    """No lines of the server's log on the terminal."""
    logger = logging.getLogger("tt_capstone.serve")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


def test_a_failure_of_the_model_is_an_error_of_the_server(quiet):
    whole = small_language_model()
    forward = whole.model.lm_head.forward

    def fails(x):
        raise FloatingPointError("out of numbers")

    with Running(whole) as running:
        whole.model.lm_head.forward = fails
        with pytest.raises(openai.InternalServerError, match="out of numbers") as caught:
            running.client.completions.create(**LONG)
        assert caught.value.status_code == 500
        with pytest.raises(openai.APIError, match="out of numbers"):
            list(running.client.completions.create(**LONG, stream=True))
        whole.model.lm_head.forward = forward
        assert running.client.completions.create(**LONG | {"max_tokens": 3}).usage.completion_tokens == 3
        running.server.service.models = None
        running.server.service.card = None
        status, _, body = running.ask("GET", "/v1/models/small")
        assert status == 500 and json.loads(body)["error"]["code"] == "internal_error"


# -- monitoring -------------------------------------------------------------------------------------------------------


def test_the_log_has_a_line_for_each_request_without_what_was_said(running, caplog):
    with caplog.at_level("INFO", "tt_capstone.serve"):
        secret = text(running.client, prompt="secret", extra_headers={"X-Request-Id": "mine-1"})
        _, headers, _ = running.ask("GET", "/nowhere?secret", **{"X-Request-Id": "bad id\u00e9"})
        until(lambda: len(caplog.records) >= 2)
    found, nowhere = (record.fields for record in caplog.records[-2:])
    assert found["id"] == secret._request_id == "mine-1" and found["status"] == 200 and found["ended"] == ["length"]
    assert (found["prompt_tokens"], found["completion_tokens"]) == (6, 10)
    assert 0 <= found["first_token_seconds"] <= found["seconds"]
    assert nowhere["status"] == 404 and nowhere["id"] == headers["X-Request-Id"] and nowhere["id"].startswith("req_")
    assert not [record for record in caplog.records if "secret" in str(vars(record))]


def numbers(running):
    lines = running.ask("GET", "/metrics")[2].decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_metrics_count(running):
    before = numbers(running)
    text(running.client, n=2)
    running.refused({})
    after = numbers(running)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['tt_requests_total{path="/v1/completions",status="200"}'] == 1
    assert grown['tt_requests_total{path="/v1/chat/completions",status="400"}'] == 1
    assert grown["tt_prompt_tokens_total"] == 8 and grown["tt_completion_tokens_total"] == 20
    assert grown["tt_first_token_seconds_count"] == grown["tt_tokens_per_second_count"] == 2
    assert after["tt_active_answers"] == after["tt_waiting_answers"] == 0
    for path in ("/a", "/b"):
        running.ask("GET", path)
    assert not [name for name in numbers(running) if '"/a"' in name]  # paths of strangers are one number


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_stopping_finishes_what_runs_and_refuses_what_is_new():
    whole = slow_model()
    with Running(whole, slots=1, grace=10) as running:
        stream = running.client.completions.create(**LONG | {"max_tokens": 30, "seed": 1}, stream=True)
        found = [next(stream).choices[0].text]
        running.server.handle_exit(signal.SIGTERM, None)
        assert running.ask("GET", "/health")[0] == 503 and running.ask("GET", "/v1/models")[0] == 200
        with pytest.raises(openai.InternalServerError, match="stopping") as caught:
            running.client.completions.create(**LONG)
        assert caught.value.status_code == 503
        found += [chunk.choices[0].text for chunk in stream]
        assert "".join(found) == alone(whole, [0], 30)
        running.thread.join(5)
        assert not running.thread.is_alive() and not running.engine.thread.is_alive()


def test_stopping_ends_after_the_time_of_grace():
    with Running(slow_model(), slots=1, grace=0.3) as running:
        stream = running.client.completions.create(**LONG, stream=True)
        next(stream)
        running.server.handle_exit(signal.SIGTERM, None)
        with pytest.raises(openai.APIError, match="stopping"):
            list(stream)
        running.thread.join(5)
        assert not running.thread.is_alive()


PROGRAM = textwrap.dedent("""
    import logging, sys, time
    from tt_capstone.engine import small_language_model
    from tt_capstone.serve import Settings, make_server
    whole = small_language_model(length=512)
    lm_head = whole.model.lm_head.forward
    whole.model.lm_head.forward = lambda x: (time.sleep(0.02), lm_head(x))[1]
    make_server(whole, "127.0.0.1", 0, Settings()).run()
    print("ended")
""")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a program could answer")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_finish(number):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+?/", process.stdout.readline())[0]
        with openai.OpenAI(base_url=f"{url}v1", api_key="no", max_retries=0) as client:
            stream = client.completions.create(**LONG | {"max_tokens": 25}, stream=True)
            next(stream)
            process.send_signal(number)
            *_, last = stream
        assert last.choices[0].finish_reason == "length"
        out, _ = process.communicate(timeout=10)
        assert out == "ended\n" and process.returncode == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_wrong_arguments_of_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("TT_KEY", raising=False)
    for arguments, says in [
        (["m", "--slots", "0"], "at least 1"), (["m", "--host", "0.0.0.0"], "give --key as well"),
        (["m", "--key", " "], "the key is empty"), (["m", "--timeout", "-1"], "above 0"),
        (["m", "--port", "http"], "invalid int value"),
    ]:  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2 and says in capsys.readouterr().err
    monkeypatch.setenv("TT_WEIGHTS", str(tmp_path))
    assert main(["--kernels", "default"]) == 1 and "fetch" in capsys.readouterr().err  # SmolLM2, which is not there
    assert main([str(tmp_path / "none.gguf"), "--kernels", "default"]) == 1
    assert "none.gguf" in capsys.readouterr().err


# -- the description --------------------------------------------------------------------------------------------------


def test_the_description_names_every_path(small):
    from starlette.testclient import TestClient

    with TestClient(app(small), base_url="http://localhost") as client:
        found = client.get("/openapi.json").json()
        assert found["security"] == [] and found["components"]["schemas"]["ModelName"]["enum"] == ["small"]
        paths = {re.sub(r":\w+", "", route.path) for route in client.app.routes}
        assert set(found["paths"]) == paths
        for name in set(found["components"]["schemas"]["ChatRequest"]["properties"]) - {"model", "messages"}:
            assert client.post("/v1/chat/completions", json=CHAT | {name: None}).status_code == 200, name


FUZZED = int(os.environ.get("TT_FUZZ", 100))
BEYOND = {"context_length_exceeded", "logprobs", "top_logprobs", "prompt"}  # what a description cannot say


def test_made_up_requests_get_no_error_of_the_server(small):
    """A hundred requests, good ones and bad ones, made from the description; TT_FUZZ=2000 makes it that many."""
    schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis to make up requests")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    with Running(small, slots=4, queue=64, max_tokens=4) as running:
        schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
        kinds = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        made = {kind: [o.ok().as_strategy(generation_mode=kind) for o in schema.get_all_operations()] for kind in kinds}
        cases = st.one_of([st.tuples(st.just(kind), case) for kind, several in made.items() for case in several])
        statuses = Counter()

        @given(cases)
        @settings(
            max_examples=FUZZED, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def ask(drawn):
            kind, case = drawn
            response = case.call(base_url=running.url, timeout=20)
            statuses[response.status_code] += 1
            case.validate_response(response, excluded_checks=[positive_data_acceptance])
            if kind is kinds[0] and response.status_code == 400:
                error = response.json()["error"]
                assert {error["code"], error["param"]} & BEYOND, error

        ask()
        print(dict(statuses))
        assert statuses[200] > FUZZED / 10 and statuses[400] > FUZZED / 10 and max(statuses) < 500
        until(lambda: not running.engine.live)


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_asks_no_other_server(running):
    status, headers, body = running.ask("GET", "/")
    page = body.decode()
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert not re.search(r"(?:src|href)=(?!\"data:)|@import|innerHTML|https?://(?!www\.w3\.org/2000/svg)", page)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("'sha256-") == 2
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.fixture(scope="module")
def browser():
    driver = pytest.importorskip("selenium.webdriver", reason="the page is tried in Chromium: pip install selenium")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("the page is tried in a browser: install chromium and chromedriver")
    options = driver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = driver.Chrome(options=options, service=driver.ChromeService(shutil.which("chromedriver")))
    yield browser
    browser.quit()


def size(browser, width, height=800):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def keys(browser, *pressed):
    browser.switch_to.active_element.send_keys(*pressed)


def messages(browser):
    script = "return [...document.querySelectorAll('.message .says')].map((says) => says.textContent)"
    return browser.execute_script(script)


def writing(browser):
    return browser.execute_script("return document.querySelectorAll('.writing').length")


def talkative(language_model):
    """The same model, which cannot end an answer before its length: drawn at random, one in 257 would be empty."""
    return replace(language_model, stop=frozenset())


def test_a_chat_by_keyboard(browser, slow):
    from selenium.webdriver.common.keys import Keys

    whole = slow.server.service.model
    size(browser, 1000)
    browser.get(slow.url)
    until(lambda: browser.find_element("id", "model").text == "small")
    until(lambda: browser.switch_to.active_element.get_attribute("id") == "text")
    keys(browser, "a", Keys.SHIFT + Keys.ENTER + Keys.NULL, "b")
    assert browser.find_element("id", "text").get_attribute("value") == "a\nb" and messages(browser) == []
    keys(browser, Keys.ENTER)
    until(lambda: writing(browser) and len(messages(browser)[-1]) > 3)  # it is there while it is being written
    assert browser.find_element("id", "stop").is_displayed() and not browser.find_element("id", "send").is_displayed()
    keys(browser, Keys.ESCAPE)
    until(lambda: not slow.engine.live and not writing(browser))
    asked, answered = messages(browser)
    assert asked == "a\nb" and "stopped" in browser.find_element("css selector", ".assistant").text
    browser.refresh()  # a reload keeps the chat
    until(lambda: messages(browser) == [asked, answered])
    until(lambda: browser.find_element("id", "model").text == "small")
    order = []
    for _ in range(4):
        order.append(browser.switch_to.active_element.get_attribute("id"))
        keys(browser, Keys.TAB)
    assert order[0] == "text" and "new" in order
    browser.find_element("id", "new").send_keys(Keys.ENTER)
    until(lambda: messages(browser) == [] and browser.switch_to.active_element.get_attribute("id") == "text")
    assert browser.find_element("id", "empty").is_displayed() and whole.name == "small"
    assert browser.find_element("id", "live").get_attribute("aria-live") == "polite"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_history_is_sent_and_markup_stays_text(browser, small):
    from selenium.webdriver.common.keys import Keys

    evil = "<img src=x onerror=alert(1)> `code` ```\nblock\n```"
    with Running(talkative(small), max_tokens=6) as running:
        size(browser, 360, 640)
        browser.get(running.url)
        until(lambda: browser.find_element("id", "model").text == "small")
        for said in (evil.replace("\n", Keys.SHIFT + Keys.ENTER + Keys.NULL), "again"):
            browser.find_element("id", "text").send_keys(said, Keys.ENTER)
            until(lambda: not writing(browser) and len(messages(browser)) % 2 == 0 and messages(browser))
            until(lambda: not browser.find_element("id", "stop").is_displayed())
        assert len(messages(browser)) == 4
        sent = json.loads(browser.execute_script("return sessionStorage.getItem('history')"))
        assert [m["role"] for m in sent] == ["user", "assistant"] * 2 and sent[0]["content"] == evil
        assert browser.find_elements("css selector", ".message img") == []
        assert [e.text for e in browser.find_elements("css selector", ".user code")] == ["code", "block"]
        wide = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide == [360, 360]
        loaded = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        assert all(name.startswith((running.url, "data:")) for name in browser.execute_script(loaded))


def test_the_page_asks_for_a_key(browser, small):
    from selenium.webdriver.common.keys import Keys

    with Running(talkative(small), key="sesame", max_tokens=4) as running:
        size(browser, 360, 640)
        browser.get(running.url)
        until(lambda: browser.switch_to.active_element.get_attribute("id") == "key")
        keys(browser, "wrong", Keys.ENTER)
        until(lambda: "not the right one" in browser.find_element("id", "live").get_attribute("textContent"))
        browser.find_element("id", "key").clear()
        browser.find_element("id", "key").send_keys("sesame", Keys.ENTER)
        until(lambda: browser.find_element("id", "model").text == "small")
        until(lambda: browser.switch_to.active_element.get_attribute("id") == "text")
        keys(browser, "Hi", Keys.ENTER)
        until(lambda: len(messages(browser)) == 2 and not writing(browser) and messages(browser)[1])
