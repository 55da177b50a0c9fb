# # Decorators
#
# A support module of chapter 07. You can use `no_grad()` as a context, and as a decorator of a function that shall run
# inside it. A generator function and a coroutine function need more care, because calling them runs nothing. Their code
# runs later, in pieces, each time the caller asks for the next value. So we must enter the context for each piece, and
# leave it while the function waits, because then other code runs.

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any


class Decorator(AbstractContextManager):
    """A context manager that also decorates functions, generator functions and coroutine functions, with or without
    parentheses: `@no_grad()` and `@no_grad`. It must be possible to enter it again while it is entered."""

    def __new__(cls, function: Callable | None = None) -> Any:
        context = super().__new__(cls)
        return context if function is None else context(function)

    def __call__(self, function: Callable) -> Callable:
        """Return the function, wrapped so that it runs in this context."""
        if not callable(function):
            raise TypeError(f"{type(self).__name__} decorates functions, not {type(function).__name__}")
        kinds = (
            (inspect.isasyncgenfunction, _async_generator),
            (inspect.iscoroutinefunction, _coroutine),
            (inspect.isgeneratorfunction, _generator),
        )
        called = type(function).__call__  # of an object that can be called
        wrapped = next((wrapper for is_kind, wrapper in kinds if is_kind(function) or is_kind(called)), _plain)
        return functools.wraps(function)(wrapped(self, function))


# For an ordinary function, we run the call inside the context. For the others, we must return a function of the same
# kind.


def _plain(context, function):
    def inside(*args, **options):
        with context:
            return function(*args, **options)

    return inside


def _generator(context, function):
    def inside(*args, **options):
        return (yield from _in_pieces(context, function(*args, **options)))

    return inside


def _coroutine(context, function):
    async def inside(*args, **options):
        return await _awaited(context, function(*args, **options))

    return inside


# Python resumes and interrupts a coroutine by the same three methods as a generator (`send`, `throw` and `close`), so
# one function serves both. It runs a piece inside the context, hands the value to the caller outside of it, and passes
# back whatever the caller sends or throws.


def _in_pieces(context, running) -> Generator[Any, Any, Any]:
    resume, value = running.send, None
    while True:
        try:
            with context:
                out = resume(value)
        except StopIteration as end:
            return end.value
        try:
            resume, value = running.send, (yield out)
        except GeneratorExit:
            with context:
                running.close()
            raise
        except BaseException as error:
            resume, value = running.throw, error


_awaited = types.coroutine(_in_pieces)


# An asynchronous generator returns a coroutine for each of its values, so we treat each of these like a coroutine.


def _async_generator(context, function):
    async def inside(*args, **options):
        running = function(*args, **options)
        resume, value = running.asend, None
        while True:
            try:
                out = await _awaited(context, resume(value))
            except StopAsyncIteration:
                return
            try:
                resume, value = running.asend, (yield out)
            except GeneratorExit:
                await _awaited(context, running.aclose())
                raise
            except BaseException as error:
                resume, value = running.athrow, error

    return inside


__all__ = ["Decorator"]
