"""no_grad, enable_grad and detect_anomaly as decorators: of functions, generators, coroutines and what they mix to."""

import asyncio
import functools
import inspect

import pytest

import tt_tensor as tt
from tt_autograd import detect_anomaly, enable_grad, grad, is_grad_enabled, no_grad
from tt_tensor import Tensor

both = pytest.mark.parametrize("decorate", [no_grad(), no_grad], ids=["with parentheses", "without"])


@both
def test_a_generator_is_inside_while_it_runs_and_outside_while_it_waits(decorate):
    @decorate
    def double(x):
        """Doubles."""
        while x is not None:
            x = yield (x * 2).requires_grad, is_grad_enabled()
        yield is_grad_enabled()
        return is_grad_enabled()

    x = tt.ones(1, requires_grad=True)
    running = double(x)
    assert inspect.isgeneratorfunction(double) and double.__doc__ == "Doubles."
    assert next(running) == (False, False) and is_grad_enabled()
    assert running.send(x) == (False, False) and is_grad_enabled()
    assert running.send(None) is False
    with pytest.raises(StopIteration) as end:
        next(running)
    assert end.value.value is False and is_grad_enabled()


def test_a_generator_hears_of_errors_and_of_its_end():
    heard = []

    @no_grad()
    def waiting():
        try:
            yield 1
        except KeyError:
            heard.append(("KeyError", is_grad_enabled()))
        try:
            yield 2
        finally:
            heard.append(("closed", is_grad_enabled()))

    running = waiting()
    assert next(running) == 1 and running.throw(KeyError()) == 2
    running.close()
    assert heard == [("KeyError", False), ("closed", False)] and is_grad_enabled()


@both
def test_coroutines_do_not_switch_each_other_off(decorate):
    seen = []

    @decorate
    async def inside():
        seen.append(("inside", is_grad_enabled()))
        await asyncio.sleep(0)
        seen.append(("inside", is_grad_enabled()))
        return (tt.ones(1, requires_grad=True) * 2).requires_grad

    async def outside():
        seen.append(("outside", is_grad_enabled()))
        await asyncio.sleep(0)
        seen.append(("outside", is_grad_enabled()))

    async def main():
        return (await asyncio.gather(inside(), outside()))[0]

    assert inspect.iscoroutinefunction(inside)
    assert asyncio.run(main()) is False and is_grad_enabled()
    assert sorted(seen) == [("inside", False)] * 2 + [("outside", True)] * 2


def test_asynchronous_generators():
    heard = []

    @no_grad()
    async def values():
        try:
            sent = yield is_grad_enabled()
            await asyncio.sleep(0)
            yield sent, is_grad_enabled()
            yield is_grad_enabled()
        except KeyError:
            yield "KeyError", is_grad_enabled()
        finally:
            heard.append(is_grad_enabled())

    async def main():
        running = values()
        first, second = await running.asend(None), await running.asend(5)
        outside = is_grad_enabled()
        third = await running.athrow(KeyError())
        await running.aclose()
        return first, second, outside, third, [value async for value in values()]

    assert inspect.isasyncgenfunction(values)
    assert asyncio.run(main()) == (False, (5, False), True, ("KeyError", False), [False, (None, False), False])
    assert heard == [False, False]


def test_other_things_that_can_be_called():
    class Calls:
        def __call__(self):
            yield is_grad_enabled()

    def generate():
        yield is_grad_enabled()

    assert list(no_grad(Calls())()) == list(no_grad()(functools.partial(generate))()) == [False]
    assert no_grad(is_grad_enabled)() is False and no_grad(enable_grad(is_grad_enabled))() is True
    with pytest.raises(TypeError, match="no_grad decorates functions, not int"):
        no_grad(3)


def test_enable_grad_and_the_guard_decorate_generators_too():
    @enable_grad()
    def recorded():
        yield (tt.ones(1, requires_grad=True) * 2).requires_grad

    @detect_anomaly()
    def guarded():
        yield tt.sqrt(tt.ones(1))
        yield tt.sqrt(-tt.ones(1))

    with no_grad():
        assert list(recorded()) == [True]
    running = guarded()
    next(running)
    assert tt.sqrt(-tt.ones(1)).isnan().all()
    with pytest.raises(RuntimeError, match="sqrt"):
        next(running)
    with pytest.raises(RuntimeError, match="sqrt"), detect_anomaly(), detect_anomaly():
        tt.sqrt(-tt.ones(1))
    assert tt.sqrt(-tt.ones(1)).isnan().all()


def test_a_gradient_can_be_taken_between_two_values():
    @no_grad()
    def steps(x):
        for _ in range(3):
            x.data -= 0.5 * x.grad
            yield x.item()

    x = Tensor([4.0], requires_grad=True)
    walk = steps(x)
    for wanted in (2.0, 1.0, 0.5):
        (x.grad,) = grad((x * x).sum() / 2, x)
        assert next(walk) == wanted
