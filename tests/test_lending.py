import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from musilingo_core.decoder import Decoder
from musilingo_core.engine import ChatEngine
from musilingo_core.errors import (
    AudioError,
    ClipNotFound,
    ConfigError,
    MusiLingoError,
    PromptError,
)
from musilingo_core.lending import LentEngine
from musilingo_core.prompt import assistant, user
from musilingo_core.sampling import Sampling
from tests.conftest import make_clip, tone
from tests.forking import lend

GREEDY = Sampling(temperature=0, repetition_penalty=5, max_new_tokens=12)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def lent(engine: ChatEngine) -> LentEngine:
    torch.randn(1_000_000).exp()  # with OpenMP's threads, which a forked process has not
    return LentEngine(engine, lend)


def test_what_is_lent_hears_and_says_the_same(
    lent: LentEngine, engine: ChatEngine, wav: Callable[..., Path]
) -> None:
    heard: list[float] = []
    clip = lent.encode(wav(tone(5)), heard.append)
    assert heard == [0.0] and clip.clip_id in engine.cache  # kept here, and shared with it
    true = engine._hear(clip.clip_id, wav(tone(5)), None)
    torch.testing.assert_close(clip.features, true.features)
    assert torch.equal(clip.times, true.times) and clip.duration_s == true.duration_s
    talk = [user("What?", clip.clip_id)]
    for question in ("And?", "At 0:02?"):
        answer = lent.reply(talk, GREEDY).text()
        assert answer and answer == engine.reply(talk, GREEDY).text()
        talk += [assistant(answer), user(question)]


def test_a_song_is_heard_once(lent: LentEngine, wav: Callable[..., Path]) -> None:
    clip = lent.encode(wav(tone(3)))
    lent._hear_there = lambda *given: pytest.fail("heard again")
    assert lent.encode(wav(tone(3))) == clip


def test_songs_are_heard_elsewhere_side_by_side(
    lent: LentEngine, engine: ChatEngine, wav: Callable[..., Path]
) -> None:
    with engine._encoding:  # one song after another is for who hears here
        assert len(lent.encode(wav(tone(3))).features)


def test_an_encoder_on_the_processor_needs_nothing_that_is_lent(
    engine: ChatEngine, wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(engine.model), "device", torch.device("meta"))
    lent = LentEngine(engine, lend)
    lent._hear_there = lambda *given: pytest.fail("lent")
    heard: list[float] = []
    assert len(lent.encode(wav(tone(5)), heard.append).features)
    assert heard[-1] == 1.0


def test_nothing_is_kept_where_it_was_lent_but_a_replys_tokens_here(lent: LentEngine) -> None:
    clip = make_clip()
    lent.cache.put(clip)
    reply = lent.reply([user("What?", clip.clip_id)], GREEDY)
    text = reply.text()
    assert reply.new_tokens and reply.first_token_s and reply.first_token_s > 0
    assert not len(lent.prefixes)
    assert lent.said(text) and lent.processor.tokenizer.decode(lent.said(text)).strip() == text


def test_a_reply_that_a_stop_string_ended_is_remembered_too(
    lent: LentEngine, engine: ChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = [user("What is it?")]
    whole = engine.reply(talk, GREEDY).text()
    monkeypatch.setattr(engine.processor, "stop_strings", [whole[5:7]])
    text = lent.reply(talk, GREEDY).text()
    own = lent.said(text)
    assert own and engine.processor.tokenizer.decode(own).strip() == text != whole


def test_what_would_compute_here_is_refused(lent: LentEngine) -> None:
    with pytest.raises(ConfigError, match="only hear and reply"):
        lent.choose([user("Slow?")], ["yes", "no"])
    with pytest.raises(ConfigError, match="only hear and reply"):
        lent.replies([[user("Slow?")]])


def test_errors_come_back_with_their_words(lent: LentEngine, wav: Callable[..., Path]) -> None:
    with pytest.raises(MusiLingoError, match="silent"):
        lent.encode(wav(tone(2) * 0))
    (wav(tone(2)).parent / "broken.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(MusiLingoError, match=r"broken\.wav"):
        lent.encode(wav(tone(2)).parent / "broken.wav")
    with pytest.raises(AudioError, match="no such file"):
        lent.encode("nothing.wav")
    with pytest.raises(ClipNotFound):
        lent.reply([user("What?", "0" * 16)])
    with pytest.raises(PromptError):
        lent.reply([assistant("Well.")])
    clip = make_clip()
    clip.features[0, 0] = float("nan")
    lent.cache.put(clip)
    with pytest.raises(MusiLingoError, match="damaged"):
        lent.reply([user("What?", clip.clip_id)], GREEDY).text()


def test_who_stops_has_it_end_there_by_itself(
    engine: ChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed from outside, a worker of `spaces` that serves another by then would end that."""
    made, ended = list[int](), list[str]()

    def watched(task: Callable[..., Iterator[int]]) -> Callable[..., Iterator[int]]:
        there = lend(task)

        def watch(*given: object) -> Iterator[int]:
            try:
                for token in there(*given):
                    made.append(token)
                    yield token
                ended.append("by itself")
            except GeneratorExit:
                ended.append("closed")
                raise

        return watch

    clip = make_clip()
    engine.cache.put(clip)
    sampling = Sampling(temperature=0, repetition_penalty=5, max_new_tokens=250)
    talk = [user("What?", clip.clip_id)]
    whole = engine.reply(talk, sampling)
    assert whole.text() and whole.new_tokens > 50
    step = Decoder.next

    def slowly(self: Decoder, *given: Any) -> Any:
        time.sleep(0.05)
        return step(self, *given)

    monkeypatch.setattr(Decoder, "next", slowly)
    reply = LentEngine(engine, watched).reply(talk, sampling)
    next(reply)
    reply.close()
    assert ended == ["by itself"] and len(made) < 50


def test_locks_that_were_held_at_the_fork_hold_nobody(
    lent: LentEngine, engine: ChatEngine, wav: Callable[..., Path]
) -> None:
    clip = make_clip()
    lent.cache.put(clip)
    talk = [user("What?", clip.clip_id)]
    prompt = replace(lent._prompt(talk, GREEDY), audio_features=[])
    keys, song = list(range(len(prompt.ids))), wav(tone(2))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.cache._lock, engine._encoding, engine.decoder.alone(), engine.prefixes._lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        tokens = list(lent._speak_there(__file__, prompt, [clip.features.numpy()], keys, GREEDY))
        assert len(list(lent._hear_there("0" * 16, str(song)))) == 1
    finally:
        done.set()
        thread.join()
    assert tokens == engine.said(engine.reply(talk, GREEDY).text())
