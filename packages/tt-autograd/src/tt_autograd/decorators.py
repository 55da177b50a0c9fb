# # Decorators
#
# A support module of chapter 07. `no_grad()` is a context, and a decorator for a function that shall run inside it. A
# generator function and a coroutine function need more care, because calling them runs nothing: their code runs later,
# in pieces, each time the caller asks for the next value. The context has to be entered for each piece, and left while
# the function waits, because then other code runs.

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
        """The function, running in this context."""
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


# A coroutine is resumed and interrupted by the same three methods as a generator (`send`, `throw` and `close`), so one
# function serves both.


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


# An asynchronous generator gives a coroutine for each of its values.


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
