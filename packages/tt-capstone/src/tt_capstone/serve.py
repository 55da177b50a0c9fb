# # Serving
#
# An appendix of chapter 20. At the end of it, programs that were written for OpenAI's interface talk to our model
# instead, and you can chat with it on a page in your browser.

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import logging
import math
import os
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from typing import Any

import uvicorn
from jinja2 import TemplateError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from tt_capstone.capstone import LanguageModel
from tt_capstone.engine import Answer, Engine, Full, Piece, Stopped, Token, token_bytes
from tt_capstone.weights import find_language_model
from tt_nlp import token_ids
from tt_opt import accelerate, best_set, kernel_set

# ## Why this interface
#
# Thousands of programs can talk to the server of one company, OpenAI, because they use its client package. If our
# server understands the same requests, all of these programs can talk to our model. They only need another address. The
# interface is JSON over HTTP: you send messages, and a message comes back, either whole or in pieces as the model
# writes them.
#
# We do not write HTTP ourselves. *uvicorn* reads requests from sockets, and *Starlette* finds the function for a path.
# We still have to understand a request, to refuse what we cannot do, to pass the work to the engine, and to keep
# working whatever clients do. Most of this file is about the last of these.


@dataclass(frozen=True)
class Settings:
    """The limits of a server: answers at a time and waiting, a key that clients must have, tokens of an answer (None:
    as many as fit into the context), seconds for an answer, bytes of a request, seconds for a client to send or take
    data, seconds to finish after a signal to stop, and the host names that work without a key."""

    slots: int = 4
    queue: int = 32
    key: str | None = None
    max_tokens: int | None = None
    timeout: float = 600.0
    body: int = 1 << 19
    patience: float = 20.0
    grace: float = 30.0
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})


# ## Saying no
#
# If we cannot answer a request, we send a status and an explanation in OpenAI's form, which their client turns into an
# exception. `param` names the wrong field.

KINDS = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class Refused(Exception):
    """A refused request: an HTTP status, a message for the user, the field that is wrong, and a code."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        kind = KINDS.get(status, "invalid_request_error")
        self.content = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> Response:
        """Return the response that explains it."""
        return Json(self.content, self.status, headers=self.headers)


class Json(JSONResponse):
    """A JSON response that writes half of a surrogate pair, which UTF-8 cannot hold, as an escape."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


# ## Reading a body
#
# A client may send as much as it likes, as slowly as it likes, and the length that it announces may be a lie. So we
# count the bytes that really arrive, keep no more than the limit, and wait no longer than our patience lasts.
#
# Beyond the limit we still take bytes from the socket, but we drop them. If we answered in the middle and closed the
# connection, most clients would report a broken pipe instead of our answer. A client that asks before it sends
# (`Expect: 100-continue`) gets its answer at once.


async def read_body(request: Request, limit: int, patience: float) -> bytes:
    """Return the body of a request. Refused with 413 if it is longer than `limit` bytes, and with 408 if it takes more
    than `patience` seconds."""
    said = request.headers.get("content-length", "0")
    size = int(said) if said.isdecimal() and len(said) < 16 else 0
    too_long = Refused(413, f"a request may have at most {limit:,} bytes", code="request_too_large", headers=CLOSE)
    if size > limit and "expect" in request.headers:
        raise too_long
    body, count = bytearray(), 0
    try:
        async with asyncio.timeout(patience):
            async for chunk in request.stream():
                count += len(chunk)
                body += chunk if count <= limit else b""
    except TimeoutError:
        if count <= limit:
            late = f"the request did not arrive within {patience:g} seconds"
            raise Refused(408, late, code="timeout", headers=CLOSE) from None
    if count > limit:
        raise too_long
    return bytes(body)


CLOSE = {"Connection": "close"}


# Python's `json` accepts more than JSON: `NaN`, and objects in which a key occurs twice. We refuse both, and also
# objects that are nested so deeply that reading them would exhaust the stack. JSON has only one kind of numbers, so 1.0
# is the integer 1.


def parse(body: bytes) -> dict[str, Any]:
    """Return the object in a body. Refused with 400 if it is not valid JSON, or not an object."""
    try:
        text = body.decode("utf-8")
        found = json.loads(text, parse_float=number, parse_constant=no_number, object_pairs_hook=no_key_twice)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(400, f"the body is not valid JSON: {why:.200}", code="invalid_json") from None
    if not isinstance(found, dict):
        raise Refused(400, f"the body must be a JSON object, not {found!r:.60}", code="invalid_json")
    return found


# It calls three helpers: one reads numbers, and the other two refuse.


def number(digits: str) -> float:
    """Return a number with a point or an exponent, as an int if it is an integer that a float holds exactly."""
    found = float(digits)
    return int(found) if found.is_integer() and abs(found) < 2**53 else found


def no_number(name: str) -> None:
    """Raise ValueError for NaN and the infinities."""
    raise ValueError(f"{name} is not a JSON number")


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object as a dictionary. ValueError if a key occurs twice."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"a key occurs twice among {[key for key, _ in pairs]!r:.100}")
    return found


def check_parse():
    assert str(parse(b'{"a": [1.0, 1e2, 0.5, null]}')) == "{'a': [1, 100, 0.5, None]}"
    for body in (b"", b"[]", b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"a": "\xff"}', b'{"a":' + b"[" * 100_000):
        try:
            parse(body)
        except Refused as refused:
            assert refused.status == 400
        else:
            raise AssertionError(body)


# ## Reading a request
#
# Each field has a type and a range. We treat a field that is `null` as absent. We refuse a wrong value, and the message
# names the field and says what is allowed. If we silently took a default instead, we would surprise the user.


def given(body: Mapping[str, Any], name: str, what: str, fits: Callable[[Any], bool], default: Any = None) -> Any:
    """Return a field of a request, or the default if it is absent. Refused if it does not fit; `what` says what
    would."""
    value = body.get(name)
    if value is None:
        return default
    if not fits(value):
        raise Refused(400, f"{name} must be {what}, not {value!r:.60}", param=name, code="invalid_value")
    return value


def is_integer(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Return whether a value is an integer in a range; `true` is not."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any, least: float, most: float) -> bool:
    """Return whether a value is a number in a range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def is_flag(value: Any) -> bool:
    """Return whether a value is true or false."""
    return isinstance(value, bool)


# OpenAI's interface has many fields, and we cannot do everything that they ask for. So we sort them into three kinds.
# Fields of the first kind have an effect. Fields of the second kind would have an effect that we do not offer, so we
# accept them only with the value that means "not used": if a client asks for a tool, it must not get an answer that
# ignores the tool. Fields of the third kind describe the caller and change nothing. Any other field is probably a
# typing error, and we refuse it.

BOTH = {"model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "seed", "stop", "n", "logprobs"}
CHAT = BOTH | {"messages", "max_completion_tokens", "top_logprobs"}
TEXT = BOTH | {"prompt", "echo"}
UNUSED: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},), "best_of": (1,), "suffix": ("",),
    "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},), "modalities": (["text"],), "audio": (), "prediction": (),
    "web_search_options": (), "reasoning_effort": ("none",), "store": (False,),
}  # fmt: skip
IGNORED = {"user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}


def refuse_unsupported(body: Mapping[str, Any], known: set[str]) -> None:
    """Refuse a field that we do not know, or whose effect we do not offer."""
    for name, value in body.items():
        neutral = UNUSED.get(name, ())
        unused = value is None or any(value == n and isinstance(value, bool) == isinstance(n, bool) for n in neutral)
        if name in UNUSED and not unused:
            remedy = f"leave it out or give {json.dumps(neutral[0])}" if neutral else "leave it out"
            raise Refused(400, f"{name} is not supported here: {remedy}", param=name, code="unsupported_parameter")
        if name not in known | IGNORED | UNUSED.keys():
            raise Refused(400, f"there is no field {name!r:.60}", param=name[:60], code="unknown_parameter")


# We translate a request of either endpoint into one form of our own:


@dataclass(frozen=True)
class Call:
    """A request in our form: prompts of tokens, the number of answers to each, the largest number of tokens, the
    settings of the engine, whether to stream and to end the stream with the usage, and the texts to repeat before an
    answer."""

    chat: bool
    prompts: list[list[int]]
    n: int
    max_new_tokens: int | None
    seed: int | None
    how: dict[str, Any]
    stream: bool
    usage: bool
    echo: list[str] = field(default_factory=list)


# The slots limit `n`, because we write all answers to a request together. OpenAI has renamed `max_tokens`; if a client
# gives both names, the smaller number counts.


def read_common(body: Mapping[str, Any], slots: int) -> dict[str, Any]:
    """Return the fields that both endpoints have, as arguments of a Call."""
    n = given(body, "n", f"an integer from 1 to {slots}", partial(is_integer, least=1, most=slots), 1)
    seed = given(body, "seed", "an integer of 64 bits", partial(is_integer, least=-(2**63), most=2**63 - 1))
    options = given(body, "stream_options", "an object", lambda value: isinstance(value, dict), {})
    limits = [
        given(body, name, "an integer of at least 1", partial(is_integer, least=1))
        for name in ("max_tokens", "max_completion_tokens")
    ]
    return {
        "n": n, "seed": None if seed is None else seed % 2**64, "how": sampling(body),
        "max_new_tokens": min((limit for limit in limits if limit is not None), default=None),
        "stream": given(body, "stream", "true or false", is_flag, False),
        "usage": given(options, "include_usage", "true or false", is_flag, False),
    }  # fmt: skip


# We treat a tiny temperature as 0, and with `top_p` 0 only the most likely token is left.


def sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that determine how tokens are chosen and when an answer ends."""
    temperature = given(body, "temperature", "a number from 0 to 2", partial(is_number, least=0, most=2), 1.0)
    top_p = given(body, "top_p", "a number from 0 to 1", partial(is_number, least=0, most=1), 1.0)
    stop = given(body, "stop", "a text, or a list of up to 4 texts, of 1 to 200 characters each", are_stops, [])
    return {
        "temperature": 0.0 if temperature < 1e-6 else float(temperature),
        "top_p": None if top_p == 1 else max(top_p, 1e-12),
        "stop_texts": [stop] if isinstance(stop, str) else stop,
    }


def are_stops(value: Any) -> bool:
    """Return whether a value is a stop text, or a list of up to four."""
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, list) and len(texts) <= 4 and all(isinstance(t, str) and 0 < len(t) <= 200 for t in texts)


# ### Chat
#
# The content of a message is a text, or a list of parts, which for other models may be images or sounds. Our model
# reads only text. Since 2024, OpenAI calls the messages of the system "developer".

ROLES = ("system", "developer", "user", "assistant")


def read_chat(body: Mapping[str, Any], language_model: LanguageModel, slots: int) -> Call:
    """Return a request for a message of a chat as a Call."""
    refuse_unsupported(body, CHAT)
    common = read_common(body, slots)
    logprobs = given(body, "logprobs", "true or false", is_flag, False)
    top = given(body, "top_logprobs", "an integer from 0 to 20", partial(is_integer, least=0, most=20))
    if top is not None and not logprobs:
        raise Refused(400, "top_logprobs needs logprobs: true", param="top_logprobs", code="invalid_value")
    common["how"]["logprobs"] = (top or 0) if logprobs else None
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages must be a list of at least one message", param="messages", code="invalid_value")
    read = [read_message(message, f"messages[{i}]") for i, message in enumerate(messages)]
    try:
        prompt = language_model.chat_prompt(read)
    except (ValueError, TemplateError) as error:
        raise Refused(400, f"the messages cannot be read: {error}", param="messages", code="invalid_value") from None
    return Call(chat=True, prompts=[prompt], **common)


# If a message holds more than a role, a content and a name, it has a meaning that we do not know, so we refuse it.


def read_message(message: Any, place: str) -> dict[str, str]:
    """Return the role and the content of a message, both texts."""
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        roles = ", ".join(ROLES)
        raise Refused(400, f"{place} needs a role, one of {roles}", param=f"{place}.role", code="invalid_value")
    content = message.get("content")
    if isinstance(content, list):
        texts = [text for part in content if (text := text_of_part(part)) is not None]
        content = "\n".join(texts) if 0 < len(texts) == len(content) else None
    if not isinstance(content, str) or message.keys() - {"role", "content", "name", "refusal"}:
        says = f"{place} must have a content, a text or a list of parts of type text, and else only a name"
        raise Refused(400, says, param=f"{place}.content", code="invalid_value")
    return {"role": message["role"].replace("developer", "system"), "content": content}


def text_of_part(part: Any) -> str | None:
    """Return the text of a part of a message, or None if it has none."""
    is_text = isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"
    return part["text"] if is_text and isinstance(part["text"], str) else None


# ### Completion
#
# The older endpoint continues a text. It also accepts a list of texts, or tokens.


def read_text(body: Mapping[str, Any], language_model: LanguageModel, slots: int) -> Call:
    """Return a request to continue a text, or several, as a Call."""
    refuse_unsupported(body, TEXT)
    common = read_common(body, slots)
    top = given(body, "logprobs", "an integer from 0 to 5", partial(is_integer, least=0, most=5))
    echo = given(body, "echo", "true or false", is_flag, False)
    if echo and top is not None:
        raise Refused(400, "echo and logprobs cannot be used together", param="logprobs", code="unsupported_parameter")
    common["how"]["logprobs"] = top
    prompts = as_prompts(body.get("prompt"))
    if not 0 < len(prompts) * common["n"] <= slots:
        many = f"the server writes {slots} answers at a time: prompts times n must be 1 to {slots}"
        raise Refused(400, many, param="prompt", code="invalid_value")
    ids = [read_prompt(prompt, language_model) for prompt in prompts]
    texts = [p if isinstance(p, str) else language_model.tokenizer.decode(p) for p in prompts] if echo else []
    return Call(chat=False, prompts=ids, echo=texts, **common)


# A list of integers is one prompt. A list of anything else holds several prompts.


def as_prompts(prompt: Any) -> list[Any]:
    """Return a prompt, or several, as a list of prompts."""
    several = isinstance(prompt, list) and prompt and not any(is_integer(part) for part in prompt)
    return prompt if several else [prompt]


def read_prompt(prompt: Any, language_model: LanguageModel) -> list[int]:
    """Return the tokens of a prompt, which is a text or a list of tokens."""
    most = language_model.model.config.vocab_size - 1
    if isinstance(prompt, list) and prompt and all(is_integer(token, 0, most) for token in prompt):
        return token_ids(prompt)
    if not isinstance(prompt, str) or not prompt:
        says = f"prompt must be a text, a list of tokens from 0 to {most}, or a list of such prompts, and not empty"
        raise Refused(400, says, param="prompt", code="invalid_value")
    try:
        return language_model.prompt(prompt)
    except ValueError as error:
        raise Refused(400, f"the prompt cannot be read: {error}", param="prompt", code="invalid_value") from None


# ## Writing an answer
#
# Both endpoints answer either whole or in chunks, so there are four forms. They differ only in the middle. Therefore we
# write the outer part, with an id and a time, once for all.


@dataclass
class Reply:
    """The answers to a Call, in the fields of OpenAI's interface."""

    call: Call
    model: LanguageModel
    fingerprint: str
    answers: list[Answer]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def around(self, choices: list[dict[str, Any]], chunk: bool) -> dict[str, Any]:
        """Return choices inside the fields that are common to all of them."""
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.call.chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if self.call.chat else 'cmpl'}-{self.id}", "object": kind, "created": self.created,
            "model": self.model.name, "system_fingerprint": self.fingerprint, "choices": choices,
        }  # fmt: skip

    def choice(self, index: int, piece: Piece, chunk: bool) -> dict[str, Any]:
        """Return an answer, or a piece of it, as a choice."""
        end = {"logprobs": self.logprobs(piece.tokens), "finish_reason": piece.ended}
        if not self.call.chat:
            return {"index": index, "text": piece.text, **end}
        if chunk:
            return {"index": index, "delta": {"content": piece.text} if piece.text else {}, **end}
        return {"index": index, "message": {"role": "assistant", "content": piece.text, "refusal": None}, **end}

    # The usage is the part that a company would bill.

    def usage(self) -> dict[str, int]:
        """Return how many tokens were read and written. A prompt counts once, and a token that ends an answer counts,
        too."""
        read, written = sum(map(len, self.call.prompts)), sum(len(answer.tokens) for answer in self.answers)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    # A token that is only a part of a character has no text of its own; therefore there is a field `bytes`. The older
    # endpoint has lists instead of objects.

    def logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        """Return the log-probabilities of tokens, or None if the client did not ask for them."""
        if self.call.how["logprobs"] is None:
            return None
        if self.call.chat:
            found = [
                {**self.likely(t.number, t.logprob), "top_logprobs": [self.likely(*pair) for pair in t.top]}
                for t in tokens
            ]
            return {"content": found, "refusal": None}
        return {
            "tokens": [self.text_of(t.number) for t in tokens],
            "token_logprobs": [t.logprob for t in tokens],
            "top_logprobs": [{self.text_of(number): logprob for number, logprob in t.top} for t in tokens],
            "text_offset": [t.offset for t in tokens],
        }

    def likely(self, number: int, logprob: float | None) -> dict[str, Any]:
        """Return a token and its log-probability, at least -9999, because JSON has no infinity."""
        logprob = max(logprob, -9999.0) if logprob is not None else None
        numbers = list(token_bytes(self.model.tokenizer, number))
        return {"token": self.text_of(number), "logprob": logprob, "bytes": numbers}

    def text_of(self, number: int) -> str:
        """Return the text of a token."""
        return token_bytes(self.model.tokenizer, number).decode("utf-8", "replace")


# ## While the client is there
#
# A client may leave at any moment, because you closed the browser, or because a program lost its patience. Then we must
# stop computing its answer. We learn that only if we ask for the next message of the connection, so a second task does
# nothing except wait for it.


class Left(Exception):
    """The client has closed the connection."""


async def while_connected(receive: Callable, work: Coroutine) -> Any:
    """Return the result of a coroutine. If the client leaves before, cancel the coroutine and raise Left."""
    tasks = {working := asyncio.ensure_future(work), asyncio.ensure_future(until_gone(receive))}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Left
        return working.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_gone(receive: Callable) -> None:
    """Wait until the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass


# The engine delivers pieces on its own thread, and `call_soon_threadsafe` brings them to the event loop. If the
# response has not begun, a failure sets its status; in a stream it becomes one more event.


async def pieces_of(queue: asyncio.Queue[tuple[int, Piece]], count: int) -> AsyncIterator[tuple[int, Piece]]:
    """Yield the pieces of `count` answers, with the index of the answer, until all have ended. Refused if one fails."""
    while count:
        index, piece = await queue.get()
        count -= piece.ended is not None
        if piece.ended in ("failed", "expired", "cancelled"):
            raise failure(piece)
        yield index, piece


def failure(piece: Piece) -> Refused:
    """Return what to say when an answer has failed."""
    if piece.ended == "failed":
        return Refused(500, f"the model could not answer: {piece.error}", code="model_error")
    why = "the server is stopping" if piece.ended == "cancelled" else "the server was too busy to begin in time"
    return Refused(503, why, code="overloaded", headers={"Retry-After": "10"})


class Stream(Response):
    """Server-sent events, written as long as the client is there. Afterwards the answers are cancelled."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[dict[str, Any]], answers: Sequence[Answer]):
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.events, self.answers = events, answers

    async def __call__(self, scope, receive, send) -> None:
        try:
            await while_connected(receive, self.write(send))
        finally:
            cancel(self.answers)

    # An event is a line that begins with `data:`, followed by an empty line. In this interface the last event is not
    # JSON.

    async def write(self, send: Callable) -> None:
        """Send the head, each event, and `[DONE]`."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for event in self.events:
                await self.send_line(send, event)
        except Refused as refused:
            await self.send_line(send, refused.content)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def send_line(self, send: Callable, event: dict[str, Any]) -> None:
        """Send an event."""
        line = b"data: " + Json(event).body + b"\n\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})


# If we cancel an answer that has ended, nothing happens, so we need not know which of them have ended.


def cancel(answers: Sequence[Answer]) -> None:
    """Cancel answers. Those that have ended are not changed."""
    for answer in answers:
        answer.cancel()


# ## The service
#
# One object holds everything that the endpoints share: the engine, the settings, and the numbers for monitoring.


class Service:
    """The endpoints of a server for one language model."""

    def __init__(self, language_model: LanguageModel, settings: Settings):
        self.model, self.settings = language_model, settings
        self.engine = Engine(language_model, settings.slots, settings.queue)
        self.context, self.created = language_model.model.config.block_size, int(time.time())
        text = f"{language_model.name} {kernel_set()} {sorted(vars(language_model.model.config).items())}"
        self.fingerprint = f"fp_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self.metrics = Metrics(self.engine)
        self.page, self.policy = page()

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions"""
        return await self.answer(request, read_chat)

    async def text(self, request: Request) -> Response:
        """POST /v1/completions"""
        return await self.answer(request, read_text)

    # It takes a while to turn a long text into tokens. We do it on another thread, so that the event loop can continue.

    async def answer(self, request: Request, read: Callable[..., Call]) -> Response:
        """Return the response to a request that `read` turns into a Call."""
        body = parse(await read_body(request, self.settings.body, self.settings.patience))
        self.refuse_model(body.get("model"))
        if self.engine.stopping:
            raise Refused(503, "the server is stopping", code="stopping", headers={"Retry-After": "10"})
        try:
            call = await asyncio.to_thread(read, body, self.model, self.settings.slots)
        except RecursionError:
            raise Refused(400, "the body is nested too deeply", code="invalid_json") from None
        queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        answers = self.submit(call, queue)
        request.state.answers = answers
        reply = Reply(call, self.model, self.fingerprint, answers)
        if call.stream:
            return Stream(self.chunks(reply, queue), answers)
        try:
            return Json(await while_connected(request.receive, self.whole(reply, queue)))
        finally:
            cancel(answers)

    # Each of several answers gets the seed that `tt_opt.generate` would give it. If there is no room for all of them,
    # we cancel those that the engine has already accepted.

    def submit(self, call: Call, queue: asyncio.Queue[tuple[int, Piece]]) -> list[Answer]:
        """Give the engine all answers of a call, or none: Refused with 429 if there is no room for all."""
        loop, answers = asyncio.get_running_loop(), []
        seeds = [None if call.seed is None else (call.seed, row) for row in range(len(call.prompts) * call.n)]
        for index, seed in enumerate(seeds):
            def deliver(piece, index=index):
                loop.call_soon_threadsafe(queue.put_nowait, (index, piece))

            try:
                prompt = call.prompts[index // call.n]
                room = self.room(prompt, call.max_new_tokens)
                how = {**call.how, "seed": seed, "seconds": self.settings.timeout, "deliver": deliver}
                answers.append(self.engine.submit(prompt, room, **how))
            except Exception as error:
                cancel(answers)
                raise self.refusal(error) from None
        return answers

    def refusal(self, error: Exception) -> Exception:
        """Return what to tell a client whose request the engine does not accept."""
        if isinstance(error, Full):
            return Refused(429, str(error), code="queue_full", headers={"Retry-After": str(error.retry_after)})
        return Refused(503, str(error), code="stopping") if isinstance(error, Stopped) else error

    # `max_tokens` is a limit and not a wish. If fewer tokens fit, the answer is shorter and ends with "length".

    def room(self, prompt: Sequence[int], asked: int | None) -> int:
        """Return how many tokens an answer may have. Refused if the prompt fills the context."""
        left = self.context - len(prompt)
        if left < 1:
            full = f"the context has {self.context} tokens, and the prompt alone has {len(prompt)}: shorten it"
            raise Refused(400, full, code="context_length_exceeded")
        return min(limit for limit in (left, asked, self.settings.max_tokens) if limit is not None)

    def refuse_model(self, name: Any) -> None:
        """Refuse a request that does not name our model."""
        if not isinstance(name, str):
            ours = f"model must be the name of a model, such as {self.model.name!r}"
            raise Refused(400, ours, param="model", code="invalid_value")
        if name != self.model.name:
            ours = f"there is no model {name!r:.60}; there is {self.model.name!r}"
            raise Refused(404, ours, param="model", code="model_not_found")

    # We put the pieces of an answer together:

    async def whole(self, reply: Reply, queue: asyncio.Queue[tuple[int, Piece]]) -> dict[str, Any]:
        """Return a response with all answers."""
        found = [Piece(text) for text in self.beginnings(reply)]
        async for index, piece in pieces_of(queue, len(found)):
            so_far = found[index]
            found[index] = Piece(so_far.text + piece.text, so_far.tokens + piece.tokens, piece.ended)
        choices = [reply.choice(index, piece, chunk=False) for index, piece in enumerate(found)]
        return {**reply.around(choices, chunk=False), "usage": reply.usage()}

    # Or we send them one by one. The first chunk of a chat contains the role of the speaker.

    async def chunks(self, reply: Reply, queue: asyncio.Queue[tuple[int, Piece]]) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of a streamed response."""
        more: dict[str, Any] = {"usage": None} if reply.call.usage else {}
        for index, text in enumerate(self.beginnings(reply)):
            choice = reply.choice(index, Piece(text), chunk=True)
            if reply.call.chat:
                choice["delta"] = {"role": "assistant", "content": "", "refusal": None}
            if reply.call.chat or text:
                yield reply.around([choice], chunk=True) | more
        async for index, piece in pieces_of(queue, len(reply.answers)):
            yield reply.around([reply.choice(index, piece, chunk=True)], chunk=True) | more
        if reply.call.usage:
            yield reply.around([], chunk=True) | {"usage": reply.usage()}

    def beginnings(self, reply: Reply) -> list[str]:
        """Return the text before each answer: the prompt, if the client wants it repeated."""
        echo = reply.call.echo
        return [echo[index // reply.call.n] if echo else "" for index in range(len(reply.answers))]

    # ### The small endpoints

    def card(self) -> dict[str, Any]:
        """Return our model in the form in which the interface describes models."""
        return {"id": self.model.name, "object": "model", "created": self.created, "owned_by": "tinytorch"}

    async def models(self, request: Request) -> Response:
        """GET /v1/models"""
        return Json({"object": "list", "data": [self.card()]})

    async def one_model(self, request: Request) -> Response:
        """GET /v1/models/NAME"""
        self.refuse_model(request.path_params["name"])
        return Json(self.card())

    async def health(self, request: Request) -> Response:
        """GET /health"""
        well = self.engine.thread.is_alive() and not self.engine.stopping
        return Json({"status": "ok" if well else "stopping"}, 200 if well else 503)

    async def numbers(self, request: Request) -> Response:
        """GET /metrics"""
        return Response(generate_latest(self.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def description(self, request: Request) -> Response:
        """GET /openapi.json"""
        return Json(description(self.model, self.settings))

    async def front(self, request: Request) -> Response:
        """GET /"""
        return HTMLResponse(self.page, headers={"Content-Security-Policy": self.policy, **PAGE_HEADERS})


# ## Numbers and lines
#
# If you run a server, you want to know how well it works. *Prometheus* is a program that reads `/metrics` every few
# seconds and draws the numbers. The two most important are the *latency*, that is, the time to the first token, and the
# rate at which the other tokens follow.


class Metrics:
    """The numbers that `/metrics` shows, in a registry of their own."""

    def __init__(self, engine: Engine):
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("tt_requests", "Requests", ["path", "status"], registry=registry)
        self.read = Counter("tt_prompt_tokens", "Tokens read", registry=registry)
        self.written = Counter("tt_completion_tokens", "Tokens written", registry=registry)
        spread = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
        self.first = Histogram("tt_first_token_seconds", "Time to the first token", buckets=spread, registry=registry)
        rates = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
        self.rate = Histogram("tt_tokens_per_second", "Tokens of an answer", buckets=rates, registry=registry)
        for name in ("active", "waiting"):
            gauge = Gauge(f"tt_{name}_answers", f"Answers that are {name}", registry=registry)
            gauge.set_function(partial(getattr, engine, name))

    def add(self, answers: Sequence[Answer]) -> None:
        """Count the tokens and times of a request."""
        for answer in answers:
            self.read.inc(answer.prompt_length)
            self.written.inc(len(answer.tokens))
            if answer.first is not None:
                self.first.observe(answer.first - answer.submitted)
                seconds = (answer.finished or time.monotonic()) - answer.first
                if len(answer.tokens) > 1 and seconds > 0:
                    self.rate.observe((len(answer.tokens) - 1) / seconds)


# The log has a line for each request, as JSON, so that programs can search it. It does not contain any text, because
# prompts are private.

logger = logging.getLogger("tt_capstone.serve")


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": round(record.created, 3), "level": record.levelname, "event": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line | getattr(record, "fields", {}))


# ## At the door
#
# Each request passes a door before it reaches an endpoint, and its response passes the same door again. There we give
# it a number, check its key, turn errors into responses, and write the line for the log.
#
# A server without a key is meant for programs on this machine. But your browser also runs the scripts of every page
# that you visit. Two tricks would let such a page use your server. It can send a request to `http://127.0.0.1:8000`
# directly; then the browser says in `Origin` where the script came from. Or it can let its own name, `evil.example`,
# point to 127.0.0.1 after you have loaded it (*DNS rebinding*); then that name is in `Host`. We refuse both.


PATHS = {"/", "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/completions", "/v1/chat/completions"}


class Door:
    """Middleware around all endpoints: keys, request ids, errors, metrics and log."""

    def __init__(self, app: Any, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        passage = Passage(Request(scope), send)
        try:
            await self.answer(passage, scope, receive)
        except (Left, ClientDisconnect):
            passage.status = passage.status or 499  # as nginx writes into its log
        finally:
            self.note(passage)

    # An error that we did not expect is our fault. The client gets a number, under which you find the traceback in the
    # log. If we have already sent a part of the response, we cannot turn it into an error any more, so we close the
    # connection.

    async def answer(self, passage: Passage, scope, receive) -> None:
        """Let a request in, and turn every error into a response."""
        try:
            refuse_strangers(passage.request, self.service.settings)
            await self.app(scope, receive, passage.send)
        except Refused as refused:
            await refused.response()(scope, receive, passage.send)
        except (Left, ClientDisconnect):
            raise
        except Exception:
            logger.exception("error", extra={"fields": {"id": passage.id}})
            if passage.status:
                raise
            error = Refused(500, f"the server failed; its log has the cause under {passage.id}", code="internal_error")
            await error.response()(scope, receive, passage.send)

    def note(self, passage: Passage) -> None:
        """Count a request and write its line into the log."""
        answers = getattr(passage.request.state, "answers", [])
        path = passage.request.url.path  # clients can invent any number of them
        self.service.metrics.requests.labels(path if path in PATHS else "other", str(passage.status)).inc()
        self.service.metrics.add(answers)
        logger.info("request", extra={"fields": passage.fields(answers)})


# Programs that forward requests give them an id, by which you can find one request in several logs. We keep such an id
# if it is harmless.


class Passage:
    """A request on its way: its id, when it came, and the status of its response once that has begun."""

    def __init__(self, request: Request, send: Callable):
        self.request, self.onward, self.began, self.status = request, send, time.monotonic(), 0
        theirs = request.headers.get("x-request-id", "")
        self.id = theirs if re.fullmatch(r"[\w.-]{1,64}", theirs, re.ASCII) else f"req_{uuid.uuid4().hex}"

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            extra = [(b"x-request-id", self.id.encode()), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await self.onward(message)

    # The line for the log contains only numbers and names.

    def fields(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Return the fields of the log's line."""
        first = [answer.first - answer.submitted for answer in answers if answer.first is not None]
        return {
            "id": self.id, "method": self.request.method, "path": self.request.url.path[:200], "status": self.status,
            "seconds": round(time.monotonic() - self.began, 4),
            "prompt_tokens": sum(answer.prompt_length for answer in answers),
            "completion_tokens": sum(len(answer.tokens) for answer in answers),
            "first_token_seconds": round(min(first), 4) if first else None,
            "ended": [answer.ended or "cancelled" for answer in answers],
        }  # fmt: skip


# If a comparison stops at the first wrong character, it takes longer the more characters are right, so an attacker
# could guess a key character by character. `compare_digest` always takes the same time.


def refuse_strangers(request: Request, settings: Settings) -> None:
    """Refuse a request whose key is missing or wrong or, without keys, one that is not for a name of this machine."""
    host = request.headers.get("host", "")
    if settings.key is None:
        name = re.sub(r":\d*$", "", host).lower()
        origin = request.headers.get("origin")
        if name not in settings.hosts or origin not in (None, f"http://{host}", f"https://{host}"):
            advice = "without a key the server answers only this machine: start it with --key"
            raise Refused(400, f"host {host!r:.60}, origin {origin!r:.60}: {advice}", code="foreign_host")
    elif request.url.path.startswith(("/v1", "/metrics")):
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(key.strip().encode("utf-8", "replace"), settings.key.encode())
        if scheme.lower() != "bearer" or not right:
            says, headers = "key missing or wrong: send Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"}
            raise Refused(401, says, code="invalid_api_key", headers=headers)


async def refuse_path(request: Request, error: Exception) -> Response:
    """Refuse a path or a method that does not exist, in OpenAI's form."""
    assert isinstance(error, HTTPException)
    says = f"{request.method} {request.url.path}: {error.detail}; /openapi.json lists all paths"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    return Refused(error.status_code, says[:300], code=code, headers=error.headers).response()


# ## The page
#
# The page at `/` is one file, which needs nothing from any other server. Its *content security policy* lets the browser
# run only the script with a certain checksum. So even if an answer contained a script, it would not run.

PAGE_HEADERS = {"Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


def page() -> tuple[str, str]:
    """Return the chat page, and the policy that allows only its own script and style."""
    text = read_beside("page.html")
    sums = {
        tag: " ".join(f"'sha256-{checksum(part)}'" for part in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL))
        for tag in ("script", "style")
    }
    policy = f"default-src 'none'; script-src {sums['script']}; style-src {sums['style']}; connect-src 'self'"
    return text, f"{policy}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def read_beside(name: str) -> str:
    """Return the text of a file of this package, which may itself be in an archive (the appendix *Shipping*)."""
    return resources.files("tt_capstone").joinpath(name).read_text(encoding="utf-8")


def checksum(text: str) -> str:
    """Return the SHA-256 of a text in base64."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def description(language_model: LanguageModel, settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI description of a server: `openapi.json` with the numbers of this server."""
    text = read_beside("openapi.json")
    found = json.loads(text.replace('"SLOTS"', str(settings.slots)).replace('"MODEL"', json.dumps(language_model.name)))
    if settings.key is None:
        found["security"] = []
    return found


# ## The application
#
# Now we connect paths and endpoints. The engine runs as long as the application does.


def app(language_model: LanguageModel, *, settings: Settings | None = None) -> Starlette:
    """Return a server with OpenAI's interface for a language model, as an ASGI application. `state.service` is its
    Service."""
    service = Service(language_model, settings or Settings())

    @asynccontextmanager
    async def running(_):
        with_engine = service.engine.start()
        yield
        await asyncio.to_thread(with_engine.stop, 0)

    routes = [
        Route("/", service.front), Route("/health", service.health), Route("/metrics", service.numbers),
        Route("/openapi.json", service.description), Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.one_model),
        Route("/v1/completions", service.text, methods=["POST"]),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
    ]  # fmt: skip
    door = Middleware(Door, service=service)
    made = Starlette(
        routes=routes, middleware=[door], lifespan=running, exception_handlers={HTTPException: refuse_path}
    )
    made.router.redirect_slashes = False
    made.state.service = service
    return made


# ## Sockets
#
# Two kinds of slow clients never reach our application. The first opens a connection and sends nothing, or now and then
# a letter of a request's head. The second asks for a stream and does not read it. Each would hold a socket forever.
# Fortunately uvicorn accepts a connection class of our own, and with `abort` we can close a socket without waiting for
# its reader.


class Connection(H11Protocol):
    """A connection that is closed when its client takes too long to send a request or to take the response."""

    patience = 20.0  # seconds
    reading: asyncio.TimerHandle | None = None
    writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self.reading = self.loop.call_later(self.patience, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self.reading, self.writing):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    # While an endpoint works on a request, the application measures the time itself. Otherwise the first bytes start
    # the clock, and later ones do not reset it.

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle and not self.cycle.response_complete:
            if self.reading:
                self.reading.cancel()
            self.reading = None
        elif not self.reading:
            self.reading = self.loop.call_later(self.patience, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.writing = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.writing:
            self.writing.cancel()


# ## Stopping
#
# We stop a server by a signal: SIGTERM from the system, or SIGINT from Ctrl-C. By default uvicorn would close its
# socket at once. We want to finish the answers that are being written, and to answer new requests with 503. So the
# signal only tells the engine to accept nothing new. uvicorn continues until the last answer has ended, or until the
# time of grace is over. A second signal ends it at once.


class Server(uvicorn.Server):
    """uvicorn that finishes its answers before it ends."""

    service: Service
    until: float | None = None  # when the time of grace is over

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.until is not None:
            self.should_exit = self.force_exit = True
        self.until = time.monotonic() + self.service.settings.grace
        self.service.engine.refuse()

    async def on_tick(self, counter: int) -> bool:
        if self.until is not None and (not self.service.engine.live or time.monotonic() > self.until):
            cancel(list(self.service.engine.live))
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"{self.service.model.name}: chat at http://{host}:{port}/, OpenAI's interface at /v1", flush=True)


# We put everything together:


def make_server(language_model: LanguageModel, host: str, port: int, settings: Settings) -> Server:
    """Return a server that is not running yet. Port 0 takes any free port. Its method `run` blocks until a signal
    comes, or, on a thread that is not the main one and gets no signals, until `handle_exit` is called."""
    made = app(language_model, settings=settings)
    connection = type("Connection", (Connection,), {"patience": settings.patience})
    config = uvicorn.Config(
        made, host, port, http=connection, ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, timeout_graceful_shutdown=5, timeout_keep_alive=30,
    )  # fmt: skip
    server = Server(config)
    server.service = made.state.service
    return server


# ## The command
#
# A server without a key that the whole network can reach is almost always a mistake, so we refuse to start one.


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a model: the command `serve`. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="serve", description="Serve a language model with OpenAI's interface.")
    parser.add_argument("model", nargs="?", default="smollm2", help="a name, a file or a folder (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (%(default)s)")
    parser.add_argument("--slots", type=int, default=4, help="answers at a time (%(default)s)")
    parser.add_argument("--queue", type=int, default=32, help="requests that may wait (%(default)s)")
    parser.add_argument("--key", default=os.environ.get("TT_KEY"), help="key of the clients; better in TT_KEY")
    parser.add_argument("--max-tokens", type=int, help="tokens of an answer, at most (as many as fit)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for an answer (%(default)s)")
    parser.add_argument("--kernels", choices=["compiled", "fast", "default", "loops"], default=best_set())
    given = parser.parse_args(arguments)
    if given.key is not None and not given.key.strip():
        parser.error("the key is empty: leave --key out, or give a key")
    settings = Settings(given.slots, given.queue, given.key, given.max_tokens, given.timeout)
    if given.key is None and given.host not in settings.hosts | {"::1"}:
        parser.error(f"at {given.host} every machine in the network could use the model: give --key as well")
    if min(given.slots, given.queue + 1, given.max_tokens or 1) < 1 or given.timeout <= 0:
        parser.error("--slots and --max-tokens must be at least 1, --queue at least 0 and --timeout above 0")
    return serve(given, settings)


# We load the model before we start the server. So a server that answers at all is ready.


def serve(given: argparse.Namespace, settings: Settings) -> int:
    """Load a model and serve it."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines())
    logging.basicConfig(handlers=[lines], level=logging.INFO)
    try:
        accelerate(given.kernels)
        language_model = find_language_model(given.model)
    except (OSError, ValueError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    with suppress(KeyboardInterrupt):
        make_server(language_model, given.host, given.port, settings).run()
    return 0


# ## What a restart costs
#
# Our server is *stateless*: it keeps no conversation, and a client sends all of it with each turn. That sounds
# wasteful, but the caches of chapter 16 still hold the beginning, so the model reads only the new turn. As a result you
# can run any number of servers side by side, and if you restart one, its clients lose nothing.

__all__ = ["Settings", "app", "main", "make_server"]
