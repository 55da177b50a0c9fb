"""The engine: the same answers as alone, texts that are certain, and what happens when something goes wrong."""

import math
import threading
import time

import numpy as np
import pytest

import tt_opt
import tt_tensor as tt
from tt_autograd import is_grad_enabled
from tt_capstone import LanguageModel
from tt_capstone.engine import Engine, Full, Stopped, likelihoods, small_language_model
from tt_nlp import Encoder
from tt_nlp.transformers import small_gpt

BYTES = [bytes([number]) for number in range(256)]


@pytest.fixture(scope="module")
def small():
    return small_language_model()


@pytest.fixture
def engine(small):
    with Engine(small, slots=2, queue=3) as engine:
        yield engine


def text_of(answer):
    return "".join(piece.text for piece in answer)


def alone(whole, prompt, count, seed, row=0, **how):
    """The text that `tt_opt.generate` writes."""
    texts = tt_opt.generate(whole.model, [prompt] * (row + 1), count, seed=seed, **how)
    return whole.tokenizer.decode(texts[row][len(prompt) :])


def slowly(model, seconds=0.02):
    """Make each pass of a model take a while; returns the list of the passes."""
    passes, lm_head = [], model.lm_head.forward

    def forward(x):
        passes.append(threading.current_thread().name)
        time.sleep(seconds)
        return lm_head(x)

    model.lm_head.forward = forward
    return passes


@pytest.fixture
def slow():
    whole = small_language_model()
    whole.passes = slowly(whole.model)
    return whole


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.002)


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"temperature": 0}, {"temperature": 0.5, "top_p": 0.7}])
def test_answers_from_many_threads_are_those_alone(small, how):
    found = {}

    def ask(number):
        prompt = [number, 2, 3]
        found[number] = text_of(engine.submit(prompt, 5 + number, seed=(number, 1), **how))

    with Engine(small, slots=3, queue=20) as engine:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {n: alone(small, [n, 2, 3], 5 + n, seed=n, row=1, **how) for n in range(10)}
    assert engine.counters["ended: length"] == 10 and engine.counters["tokens written"] == sum(range(5, 15))
    assert engine.counters["tokens read"] == 30 and engine.counters["failed passes"] == 0


def test_a_stop_token_ends_an_answer_and_is_not_shown(small, engine):
    text = alone(small, [1], 20, seed=4)
    [stop] = small.tokenizer.encode(text[6])
    *pieces, last = engine.submit([1], 20, seed=(4, 0), stop=[stop])
    assert "".join(piece.text for piece in (*pieces, last)) == text[: text.index(text[6])]
    assert last.ended == "stop"


def test_stop_texts_are_held_back_across_tokens(small, engine):
    text = alone(small, [1], 30, seed=5)
    for stops in ([text[4:7]], [text[10:14], text[3] + "never"], ["never", text[0]]):
        pieces = list(engine.submit([1], 30, seed=(5, 0), stop_texts=stops))
        shown = "".join(piece.text for piece in pieces)
        places = [text.index(stop) for stop in stops if stop in text]
        assert shown == text[: min(places)] and pieces[-1].ended == "stop"
    never = list(engine.submit([1], 30, seed=(5, 0), stop_texts=[text[-2:] + "."]))
    assert "".join(piece.text for piece in never) == text and never[-1].ended == "length"
    assert never[-1].text == text[-2:]  # what was held back


def test_pieces_are_whole_characters_and_offsets_count_them():
    wanted = "é😀 ß"
    tokenizer = Encoder(BYTES)
    model = small_gpt(256, layers=1, width=16, length=64)
    ids = iter([*wanted.encode(), 0xC3] * 3)
    model.lm_head.forward = lambda x: tt.from_numpy(np.eye(256, dtype=np.float32)[[next(ids)]] * 100)
    with Engine(LanguageModel("bytes", model, tokenizer)) as engine:
        pieces = list(engine.submit([1], len(wanted.encode()) + 1, temperature=0, logprobs=1))
        held = list(engine.submit([1], len(wanted.encode()) + 1, temperature=0, stop_texts=["😀 x"]))
        cut = list(engine.submit([1], 50, temperature=0, logprobs=0, stop_texts=["😀 "]))
    assert [piece.text for piece in pieces] == [*wanted, "\ufffd"]
    tokens = [token for piece in pieces for token in piece.tokens]
    assert [token.number for token in tokens] == [*wanted.encode(), 0xC3]
    assert [token.offset for token in tokens] == [0, 0, 1, 1, 1, 1, 2, 3, 3, 4]
    assert [piece.text for piece in held] == ["é", "😀 ß", "\ufffd"]
    assert [[token.offset for token in piece.tokens] for piece in held] == [[0, 0], [1, 1, 1, 1, 2, 3, 3], [4]]
    assert tokens[0].top == ((wanted.encode()[0], tokens[0].logprob),)
    assert "".join(piece.text for piece in cut) == "é"
    assert [token.number for piece in cut for token in piece.tokens] == [*"é".encode()]


def test_log_probabilities_are_those_of_the_model(small, engine):
    prompt = [1, 2]
    pieces = list(engine.submit(prompt, 8, seed=(3, 0), temperature=0.3, top_p=0.5, logprobs=3))
    tokens = [token for piece in pieces for token in piece.tokens]
    text = prompt + [token.number for token in tokens]
    logits = tt_opt.read(small.model, [(tt_opt.KVCache.of(small.model), text[:-1])], every=True).astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for row, token in zip(logs[len(prompt) - 1 :], tokens, strict=True):
        best = np.argsort(-row, kind="stable")[:3]
        assert math.isclose(token.logprob, row[token.number], abs_tol=1e-5)
        assert [number for number, _ in token.top] == best.tolist()
        assert np.allclose([logprob for _, logprob in token.top], row[best], atol=1e-5)
    assert all(token.logprob is None and token.top == () for p in engine.submit(prompt, 3) for token in p.tokens)


def test_likelihoods_of_hard_logits():
    logprob, top = likelihoods(np.array([1e4, -1e4, -np.inf], np.float32), 2, 20)
    assert logprob == -math.inf and top == ((0, 0.0), (1, -2e4), (2, -math.inf))


# -- the thread -------------------------------------------------------------------------------------------------------


def test_the_model_runs_on_the_engines_thread_without_recording(slow):
    modes, forward = set(), slow.model.lm_head.forward

    def watched(x):
        modes.add((is_grad_enabled(), slow.model.training, slow.model.transformer.h[0].training))
        return forward(x)

    slow.model.train()
    slow.model.transformer.h[0].eval()
    slow.model.lm_head.forward = watched
    with Engine(slow) as engine:
        text_of(engine.submit([1], 3))
    assert set(slow.passes) == {"engine"} and modes == {(False, False, False)}
    assert slow.model.training and not slow.model.transformer.h[0].training and is_grad_enabled()


def test_kernel_sets_hold_on_the_engines_thread(slow):
    found, forward = [], slow.model.lm_head.forward
    slow.model.lm_head.forward = lambda x: (found.append(tt_opt.kernel_set()), forward(x))[1]
    with tt_opt.accelerate("fast"), Engine(slow) as engine:
        text_of(engine.submit([1], 2))
    assert found == ["fast"] * 2


# -- when something goes wrong ----------------------------------------------------------------------------------------


def test_a_full_engine_says_so_and_when_to_come_again(slow):
    with Engine(slow, slots=1, queue=1) as engine:
        answers = [engine.submit([1], 20) for _ in range(2)]
        with pytest.raises(Full, match="2 requests .* try again in 1 s") as caught:
            engine.submit([1], 1)
        assert caught.value.retry_after == 1 and len(engine.live) == 2
        for answer in answers:
            answer.cancel()
        engine.submit([1], 1).cancel()  # there is room at once


@pytest.mark.parametrize("waits", [False, True])
def test_cancelling_frees_the_slot(slow, waits):
    with Engine(slow, slots=1, queue=5) as engine:
        first, second = engine.submit([1], 60), engine.submit([2], 60)
        until(lambda: engine.active == 1)
        (second if waits else first).cancel()
        (second if waits else first).cancel()
        cancelled = list(second if waits else first)
        assert cancelled[-1].ended == "cancelled"
        third = engine.submit([3], 2)
        if waits:
            first.cancel()
        else:
            second.cancel()
        assert len(text_of(third)) == 2
        until(lambda: not engine.live)
        assert engine.active == engine.waiting == 0 and len(engine.batcher.free) == 1
    assert engine.counters["ended: cancelled"] == 2 and engine.counters["ended: length"] == 1


def test_time_ends_an_answer_with_what_it_has(slow):
    with Engine(slow, slots=1) as engine:
        pieces = list(engine.submit([1], 60, seconds=0.15))
        assert pieces[-1].ended == "length" and 1 <= len(pieces) < 30
        running = engine.submit([1], 60)
        late = list(engine.submit([1], 60, seconds=0.05))
        assert [(piece.text, piece.ended) for piece in late] == [("", "expired")] and "0.05 seconds" in late[0].error
        running.cancel()


def test_a_pass_that_fails_ends_its_answers_and_no_others(slow):
    forward, count = slow.model.lm_head.forward, iter(range(1000))

    def fails_once(x):
        if next(count) == 2:
            raise MemoryError("no more memory")
        return forward(x)

    slow.model.lm_head.forward = fails_once
    with Engine(slow, slots=2, queue=5) as engine:
        answers = [engine.submit([i], 6, seed=(i, 0)) for i in range(4)]
        ends = [list(answer)[-1] for answer in answers]
        assert [end.ended for end in ends] == ["failed", "failed", "length", "length"]
        assert "MemoryError: no more memory" in ends[0].error and engine.counters["failed passes"] == 1
        assert text_of(engine.submit([1], 6, seed=(1, 0))) == alone(slow, [1], 6, seed=1)
        assert len(engine.batcher.free) == 2


def test_logits_that_are_not_numbers_fail_one_answer(slow):
    forward = slow.model.lm_head.forward

    def spoiled(x):
        out = forward(x).numpy().copy()
        out[:1] = np.nan
        return tt.from_numpy(out)

    with Engine(slow, slots=2) as engine:
        answers = [engine.submit([i], 8, seed=(i, 0)) for i in range(2)]
        until(lambda: engine.active == 2)
        slow.model.lm_head.forward = spoiled
        failed = list(answers[0])[-1]
        slow.model.lm_head.forward = forward
        assert failed.ended == "failed" and "has the model diverged?" in failed.error
        assert list(answers[1])[-1].ended in ("length", "failed")


def test_a_receiver_that_is_gone_ends_its_answer(slow):
    def deliver(piece):
        raise RuntimeError("Event loop is closed")

    with Engine(slow, slots=1) as engine:
        answer = engine.submit([1], 60, deliver=deliver)
        until(lambda: not engine.live)
        assert answer.ended == "cancelled" and text_of(engine.submit([1], 2))


def test_stopping_finishes_what_runs_and_refuses_what_is_new(slow):
    engine = Engine(slow, slots=1).start()
    answers = [engine.submit([i], 5, seed=(i, 0)) for i in range(3)]
    engine.refuse()
    with pytest.raises(Stopped, match="has been stopped"):
        engine.submit([1], 5)
    engine.stop()
    assert [text_of(answer) for answer in answers] == [alone(slow, [i], 5, seed=i) for i in range(3)]
    assert not engine.thread.is_alive()


def test_stopping_waits_no_longer_than_allowed(slow):
    engine = Engine(slow, slots=1).start()
    answers = [engine.submit([1], 60) for _ in range(2)]
    start = time.monotonic()
    engine.stop(0.1)
    assert time.monotonic() - start < 1
    assert [list(answer)[-1].ended for answer in answers] == ["cancelled", "cancelled"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_leaves_nobody_waiting(slow):
    def exits(x):
        raise SystemExit

    slow.model.lm_head.forward = exits
    engine = Engine(slow).start()
    pieces = list(engine.submit([1], 5))
    assert pieces[-1].ended == "failed" and pieces[-1].error == "the engine has ended"
    engine.thread.join()
    with pytest.raises(Stopped):
        engine.submit([1], 5)


def test_wrong_arguments(small, engine):
    for error, how in [
        (ValueError, {"temperature": -1}), (ValueError, {"top_p": 0}), (ValueError, {"stop_texts": [""]}),
        (ValueError, {"max_new_tokens": 0}), (ValueError, {"prompt": []}), (TypeError, {"prompt": "text"}),
    ]:
        with pytest.raises(error):
            engine.submit(**{"prompt": [1], "max_new_tokens": 1, **how})
    assert not engine.live
    with pytest.raises(ValueError, match="0 or more, not -1"):
        Engine(small, queue=-1)
    with pytest.raises(Stopped, match="start"):
        Engine(small).submit([1], 1)
