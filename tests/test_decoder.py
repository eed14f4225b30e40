import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers import Cache

from musilingo_core.decoder import MOST_TOGETHER, Decoder
from musilingo_core.generation import decode
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.sampling import Sampling

GREEDY = Sampling(temperature=0, max_new_tokens=30)
Begin = Callable[[int], tuple[torch.Tensor, Cache]]


@pytest.fixture
def decoder(tiny_model: MusiLingoForConditionalGeneration) -> Decoder:
    return Decoder(tiny_model.language_model, packed=False)


@pytest.fixture
def begin(decoder: Decoder, tiny_model: MusiLingoForConditionalGeneration) -> Begin:
    """Reads a prompt of its own for each number."""

    def read(number: int) -> tuple[torch.Tensor, Cache]:
        ids = torch.arange(5 + number, 15 + 2 * number).unsqueeze(0)
        cache = decoder.cache()
        with decoder.alone():
            return decoder.read(tiny_model.get_input_embeddings()(ids).detach(), cache), cache

    return read


class Passes:
    """Notes how many replies each pass advances; the first waits until it may begin."""

    def __init__(self, decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.fails_at = 0  # a pass of so many replies
        self.open = threading.Event()
        self._step = decoder._step
        monkeypatch.setattr(decoder, "_step", self)

    def __call__(self, tokens: Any, caches: Any) -> torch.Tensor:
        assert self.open.wait(timeout=30)
        self.sizes.append(len(tokens))
        if len(tokens) == self.fails_at:
            raise RuntimeError("full")
        return self._step(tokens, caches)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_threads_get_the_tokens_that_each_would_get_alone(decoder: Decoder, begin: Begin) -> None:
    alone = [list(decode(decoder, *begin(number), GREEDY)) for number in range(12)]
    assert len(set(map(tuple, alone))) == 12
    pairs = [begin(number) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda pair: list(decode(decoder, *pair, GREEDY)), pairs))
    assert together == alone


def test_those_who_wait_advance_in_one_pass(
    decoder: Decoder, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(decoder, monkeypatch)
    caches = [begin(number)[1] for number in range(MOST_TOGETHER + 3)]
    with ThreadPoolExecutor(len(caches)) as pool:
        first = pool.submit(decoder.next, 7, caches[0])
        wait_until(lambda: decoder._busy)
        rest = [pool.submit(decoder.next, 7, cache) for cache in caches[1:]]
        wait_until(lambda: len(decoder._waiting) == len(rest))
        passes.open.set()
        assert all(one.result(30).shape[0] == 1 for one in [first, *rest])
    assert passes.sizes == [1, MOST_TOGETHER, 2]


def test_a_second_reply_does_not_wait_for_the_end_of_a_first(
    decoder: Decoder, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    far = threading.Event()
    step = decoder._step

    def slowly(tokens: Any, caches: Any) -> torch.Tensor:
        time.sleep(0.01)  # long beside what else a thread does
        return step(tokens, caches)

    monkeypatch.setattr(decoder, "_step", slowly)

    def say(name: str, number: int) -> None:
        for token in decode(decoder, *begin(number), Sampling(temperature=0, max_new_tokens=100)):
            order.append(name)
            assert token >= 0
            if len(order) == 5:
                far.set()

    threads = [threading.Thread(target=say, args=("first", 1))]
    threads[0].start()
    assert far.wait(30)
    threads.append(threading.Thread(target=say, args=("second", 2)))
    threads[1].start()
    for thread in threads:
        thread.join(60)
    begun = order.index("second")
    assert begun < 80  # of the first's 100
    both = order[begun : len(order) - order[::-1].index("first")]
    assert 0.3 < both.count("second") / len(both) < 0.7


def test_a_reply_that_nobody_pulls_costs_nothing(decoder: Decoder, begin: Begin) -> None:
    left, cache = begin(1)
    tokens = decode(decoder, left, cache, GREEDY)
    next(tokens)
    next(tokens)
    length = cache.get_seq_length()
    list(decode(decoder, *begin(2), GREEDY))
    assert cache.get_seq_length() == length and not decoder._waiting


def test_what_fails_fails_for_all_of_its_pass_and_for_nobody_later(
    decoder: Decoder, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(decoder, monkeypatch)
    caches = [begin(number)[1] for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(decoder.next, 7, caches[0])
        wait_until(lambda: decoder._busy)
        rest = [pool.submit(decoder.next, 7, cache) for cache in caches[1:]]
        wait_until(lambda: len(decoder._waiting) == 3)
        passes.fails_at = 3
        passes.open.set()
        assert first.result(30).shape[0] == 1
        said = [str(one.exception(30)) for one in rest]
    assert sorted(said) == [
        *["Another reply of the same pass failed; please ask again."] * 2,
        "full",
    ]
    assert all(isinstance(one.exception(), RuntimeError) for one in rest) and not decoder._busy
    passes.fails_at = 0
    assert len(list(decode(decoder, *begin(4), GREEDY))) == 30


def test_a_prompt_is_read_before_those_who_wait_go_on(
    decoder: Decoder, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = [begin(number)[1] for number in range(3)]
    passes = Passes(decoder, monkeypatch)
    forward = decoder.language_model.forward

    def noted(**given: Any) -> Any:
        passes.sizes.append(0)
        return forward(**given)

    monkeypatch.setattr(decoder.language_model, "forward", noted)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(decoder.next, 7, caches[0])
        wait_until(lambda: decoder._busy)
        rest = [pool.submit(decoder.next, 7, cache) for cache in caches[1:]]
        wait_until(lambda: len(decoder._waiting) == 2)
        reading = pool.submit(begin, 9)
        wait_until(lambda: decoder._readers == 1)
        passes.open.set()
        for one in [first, *rest, reading]:
            one.result(30)
    assert passes.sizes == [1, 0, 2]


def test_another_model_takes_its_own_step(
    decoder: Decoder,
    begin: Begin,
    tiny_model: MusiLingoForConditionalGeneration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = list(decode(decoder, *begin(1), GREEDY))
    monkeypatch.setattr("musilingo_core.decoder.fits", lambda model: False)
    plain = Decoder(tiny_model.language_model)
    assert list(decode(plain, *begin(1), GREEDY)) == expected
