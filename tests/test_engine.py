import threading
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Cache

from musilingo_core.audio import AudioLimits
from musilingo_core.encoders import fingerprint
from musilingo_core.engine import ChatEngine, Said, hear
from musilingo_core.errors import (
    AudioError,
    AudioTooLong,
    ClipNotFound,
    ConfigError,
    PromptError,
)
from musilingo_core.features import FeatureCache
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import assistant, user, with_options
from musilingo_core.sampling import Sampling
from musilingo_core.weights import load_folder
from tests.conftest import CountingEncoder, tone

GREEDY = Sampling(temperature=0, max_new_tokens=12)
Writer = Callable[..., Path]


@pytest.fixture
def counting(engine: ChatEngine, counting_encoder: CountingEncoder) -> CountingEncoder:
    """The engine with an encoder that counts its runs."""
    engine.model.audio_tower = counting_encoder
    engine.fingerprint = fingerprint(counting_encoder)
    return counting_encoder


def test_encoding_says_what_was_heard(engine: ChatEngine, wav: Writer) -> None:
    clip = engine.encode(wav(tone(7.3)))
    assert clip.duration_s == pytest.approx(7.3, abs=1e-3)
    assert clip.heard_s == clip.duration_s
    assert clip.features.shape == (3, 400)


def test_a_second_upload_of_the_same_bytes_runs_neither_decoder_nor_encoder(
    engine: ChatEngine, counting: CountingEncoder, wav: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engine.encode(wav(tone(3), name="a.wav"))
    runs = counting.runs
    monkeypatch.setattr("musilingo_core.engine.read_blocks", None)
    again = wav(tone(3), name="b.wav")
    assert engine.is_cached(again)
    assert engine.encode(again) is first
    assert counting.runs == runs


def test_features_survive_the_engine(engine: ChatEngine, wav: Writer) -> None:
    clip = engine.encode(wav(tone(3)))
    later = ChatEngine(engine.model, engine.processor, cache=FeatureCache(engine.cache.folder))
    assert later.is_cached(wav(tone(3)))
    assert later.clip(clip.clip_id).duration_s == clip.duration_s


def test_two_visitors_with_one_song_hear_it_once(
    engine: ChatEngine, counting: CountingEncoder, wav: Writer
) -> None:
    path, clips = wav(tone(5)), list[Any]()
    threads = [threading.Thread(target=lambda: clips.append(engine.encode(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({clip.clip_id for clip in clips}) == 1 and len(clips) == 4
    assert counting.runs == 1


def test_a_song_heard_under_a_wider_limit_is_still_too_long(
    engine: ChatEngine, wav: Writer
) -> None:
    engine.encode(wav(tone(6)))
    engine.limits = AudioLimits(max_duration_s=5)
    with pytest.raises(AudioTooLong):
        engine.encode(wav(tone(6)))


def test_a_full_disk_costs_nobody_their_song(
    engine: ChatEngine, wav: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("musilingo_core.features.save_clip", fail)
    clip = engine.encode(wav(tone(2)))
    assert engine.reply([user("What?", clip.clip_id)], GREEDY).text()


def test_bad_files_leave_nothing_behind(engine: ChatEngine, wav: Writer, tmp_path: Path) -> None:
    engine.limits = AudioLimits(max_duration_s=5)
    with pytest.raises(AudioTooLong):
        engine.encode(wav(tone(6)))
    text = tmp_path / "words.mp3"
    text.write_text("words")
    with pytest.raises(AudioError):
        engine.encode(text)
    assert not list(tmp_path.glob("features/*"))
    assert engine.encode(wav(tone(2))).duration_s == 2


def test_a_reply_streams_and_counts(engine: ChatEngine, wav: Writer) -> None:
    clip = engine.encode(wav())
    reply = engine.reply([user("What?", clip.clip_id)], GREEDY)
    assert reply.first_token_s is None and reply.new_tokens == 0
    text = "".join(reply)
    assert text == engine.reply([user("What?", clip.clip_id)], GREEDY).text()
    assert 0 < reply.new_tokens <= 12
    assert reply.first_token_s is not None and reply.first_token_s > 0
    prompt = engine.processor.render([user("What?", clip.clip_id)], engine.clip)
    assert reply.prompt_tokens == len(prompt.ids)


def test_the_reply_is_what_transformers_generates(engine: ChatEngine, wav: Writer) -> None:
    clip = engine.encode(wav(tone(9)))
    messages = [user("What?", clip.clip_id)]
    batch = engine.processor([messages], engine.clip)
    del batch["labels"]
    theirs = engine.model.generate(**batch, do_sample=False, max_new_tokens=12)
    new = theirs[0, batch["input_ids"].shape[1] :]
    greedy = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=12)
    words = engine.processor.tokenizer.decode(new, skip_special_tokens=True)
    ours = engine.reply(messages, greedy).text()
    assert ours and ours.rstrip("\ufffd\n ") == words.strip().rstrip("\ufffd\n ")


def test_closing_a_reply_ends_the_computing(
    engine: ChatEngine, wav: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = engine.encode(wav())
    passes: list[int] = []
    compute = engine.decoder.next

    def counted(token: int, cache: Cache) -> torch.Tensor:
        passes.append(token)
        return compute(token, cache)

    monkeypatch.setattr(engine.decoder, "next", counted)
    reply = engine.reply([user("What?", clip.clip_id)], Sampling(temperature=0, max_new_tokens=200))
    next(reply)
    done = len(passes)
    reply.close()
    with pytest.raises(StopIteration):
        next(reply)
    assert len(passes) == done < 200


def test_earlier_turns_matter(engine: ChatEngine, wav: Writer) -> None:
    clip = engine.encode(wav())

    def reply(question: str, answer: str) -> str:
        talk = [user(question, clip.clip_id), assistant(answer), user("Why?")]
        return engine.reply(talk, GREEDY).text()

    plain = reply("Is it loud?", "Yes.")
    assert any(reply(question, "Yes.") != plain for question in ("Is it soft?", "Who sings?"))
    assert any(reply("Is it loud?", answer) != plain for answer in ("No.", "It is not."))


def test_a_long_conversation_drops_turns_and_says_so(engine: ChatEngine, wav: Writer) -> None:
    clip = engine.encode(wav())
    talk = [user("a" * 150, clip.clip_id), assistant("b" * 150), user("c" * 150)]
    talk += [assistant("d" * 50), user("e?")]
    reply = engine.reply(talk, GREEDY)
    assert reply.dropped_turns == 1
    assert reply.prompt_tokens <= engine.context_tokens - 12
    reply.text()


def test_stop_strings_of_a_saved_model_end_its_replies(
    engine: ChatEngine, processor: MusiLingoProcessor, wav: Writer, tmp_path: Path
) -> None:
    clip = engine.encode(wav())
    messages = [user("What?", clip.clip_id)]
    plain = engine.reply(messages, GREEDY).text()
    stop = next(c for c in plain[2:] if c not in plain[:2])
    with_stop = copy(processor)
    with_stop.stop_strings = (stop,)
    engine.model.save_pretrained(tmp_path / "own")
    with_stop.save_pretrained(tmp_path / "own")
    model, loaded = load_folder(tmp_path / "own")
    own = ChatEngine(model, loaded, cache=engine.cache, decoder=engine.decoder)
    assert own.reply(messages, GREEDY).text() == plain[: plain.index(stop)].rstrip()


def test_choosing_takes_off_what_is_likely_without_music(engine: ChatEngine, wav: Writer) -> None:
    asked = [user("How fast?", engine.encode(wav(tone(9))).clip_id)]
    options = ["slow", "fast", "neither slow nor fast"]
    heard = engine.log_likelihoods(with_options(asked, options), options)
    unheard = engine.log_likelihoods(with_options([user("How fast?")], options), options)
    assert engine.choose(asked, options) == pytest.approx((heard - unheard).softmax(0).tolist())
    assert engine.choose(asked, options, raw=True) == pytest.approx(heard.softmax(0).tolist())
    known = engine.choose(asked, options, prior=heard)
    assert known == pytest.approx([1 / 3] * 3)
    assert not torch.allclose(heard, unheard)
    assert sum(engine.choose(asked, options)) == pytest.approx(1)


def test_a_choice_lists_the_options(engine: ChatEngine, wav: Writer) -> None:
    asked = [user("How fast?", engine.encode(wav(tone(9))).clip_id)]
    written = [user("How fast?\nOptions:\n- slow\n- fast", asked[0]["content"][0]["clip_id"])]
    plain = engine.log_likelihoods(written, ["slow", "fast"]).softmax(0).tolist()
    assert engine.choose(asked, ["slow", "fast"], raw=True) == pytest.approx(plain)
    assert (
        with_options(asked, ["slow"])
        != asked
        == [user("How fast?", asked[0]["content"][0]["clip_id"])]
    )


def test_without_music_nothing_is_taken_off(engine: ChatEngine) -> None:
    asked, options = [user("How fast?")], ["slow", "fast"]
    plain = engine.log_likelihoods(with_options(asked, options), options).softmax(0).tolist()
    assert engine.choose(asked, options) == pytest.approx(plain)


def test_a_choice_after_a_long_conversation_drops_the_same_turns_for_all(
    engine: ChatEngine, wav: Writer
) -> None:
    clip = engine.encode(wav())
    talk = [user("a" * 150, clip.clip_id), assistant("b" * 150), user("c" * 150)]
    kept = [user("c" * 150, clip.clip_id), assistant("d" * 50), user("e?")]
    talk += [assistant("d" * 50), user("e?")]
    options = ["no", "yes, very much so, from the beginning to the end"]
    assert engine.choose(talk, options) == pytest.approx(engine.choose(kept, options))


@pytest.mark.parametrize("options", [["slow"], ["slow", "slow"], ["slow", " "], []])
def test_options_that_are_no_choice_are_refused(engine: ChatEngine, options: list[str]) -> None:
    with pytest.raises(PromptError, match="two options"):
        engine.choose([user("How fast?")], options)
    for messages in ([user("How fast?"), assistant("Hm.")], [user(" ")], [{"role": "user"}]):
        with pytest.raises(PromptError):
            engine.choose(messages, ["slow", "fast"])


def test_questions_that_cannot_be_answered_say_why(engine: ChatEngine) -> None:
    with pytest.raises(PromptError, match="question"):
        engine.reply([])
    with pytest.raises(ClipNotFound):
        engine.reply([user("What?", "0" * 16)])
    with pytest.raises(ConfigError, match="up to 256 tokens"):
        engine.reply([user("What?")], Sampling(max_new_tokens=500))


def test_hearing_alone_needs_no_engine(counting_encoder: CountingEncoder, wav: Writer) -> None:
    clip = hear(counting_encoder, wav(tone(2.5)))
    assert clip.features.shape == (3, 2)
    assert clip.times.tolist() == [[0, 1], [1, 2], [1.5, 2.5]]


def test_replies_are_those_that_each_question_gets_alone(engine: ChatEngine, wav: Writer) -> None:
    song, other = (engine.encode(wav(tone(s), name=f"{s}.wav")).clip_id for s in (7, 12))
    talks = [
        [user("What is it?", song)],
        [user("And the drums? Are there any drums at all?", song)],
        [user("What is it?", other), assistant("A piano."), user("Is it slow?")],
        [user("What is it?")],
    ]
    alone = [engine.reply(talk, GREEDY).text() for talk in talks]
    assert [said.text for said in engine.replies(talks, GREEDY)] == alone
    assert len(set(alone)) == len(alone)
    assert engine.replies([], GREEDY) == []


def test_a_stop_string_finishes_a_reply_and_its_computing(
    engine: ChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = [[user("What is it?")], [user("Who sings?")]]
    whole = engine.replies(talks, GREEDY)
    assert not any(said.finished for said in whole)  # both were cut
    stops = [said.text[at : at + 2] for said, at in zip(whole, (3, 4), strict=True)]
    ends = [min(said.text.find(s) for s in stops if s in said.text) for said in whole]
    monkeypatch.setattr(engine.processor, "stop_strings", stops)
    rows: list[int] = []
    forward = engine.model.language_model.forward

    def noted(**given: Any) -> Any:
        outputs = forward(**given)
        rows.append(len(outputs.logits))
        return outputs

    monkeypatch.setattr(engine.model.language_model, "forward", noted)
    assert engine.replies(talks, GREEDY) == [
        Said(said.text[:end].rstrip(), finished=True) for said, end in zip(whole, ends, strict=True)
    ]
    assert rows[-1] == 1 and len(rows) < 12  # one goes on alone, neither to the end


def test_a_reply_that_a_stop_string_ended_is_not_read_again(
    engine: ChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = [user("What is it?")]
    whole = engine.reply(talk, GREEDY).text()
    monkeypatch.setattr(engine.processor, "stop_strings", [whole[5:7]])
    reply = engine.reply(talk, GREEDY)
    text = reply.text()
    assert text == whole[: whole.find(whole[5:7])].rstrip()
    own = engine.said(text)
    assert own and len(own) < reply.new_tokens  # without those of the stop string
    assert engine.processor.tokenizer.decode(own).strip() == text
    later = engine.reply([*talk, assistant(text), user("Why?")], GREEDY)
    assert later.reused_tokens >= reply.prompt_tokens + len(own)


def test_a_reply_that_ends_with_its_own_token_is_finished(
    engine: ChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_bounds", lambda: (range(len(engine.processor.tokenizer)), []))
    assert engine.replies([[user("What is it?")]], GREEDY) == [Said("", finished=True)]
