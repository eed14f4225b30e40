from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import Cache

from musilingo_core.engine import ChatEngine
from musilingo_core.features import Clip
from musilingo_core.prefix_cache import (
    SPARE,
    PrefixCache,
    SaidTokens,
    cache_of,
    empty_cache,
    position_keys,
)
from musilingo_core.prompt import Message, Prompt, PromptFormat, assistant, user
from musilingo_core.sampling import Sampling
from tests.conftest import make_clip

GREEDY = Sampling(temperature=0, max_new_tokens=12)
FORM = PromptFormat(audio_token_id=5, tokens_per_row=2, segments=2)


def states(length: int, value: float = 0.0) -> Cache:
    """Two layers of (1, 3, length, 4) float32: 192 bytes a position."""
    layer = torch.full((1, 3, length, 4), value)
    return cache_of([(layer, layer), (layer, layer)])


def forgetful(engine: ChatEngine) -> ChatEngine:
    """The same model, which keeps no states but knows the tokens of replies."""
    other = ChatEngine(
        engine.model,
        engine.processor,
        cache=engine.cache,
        prefixes=PrefixCache(0),
        decoder=engine.decoder,
    )
    other.said = engine.said
    return other


@pytest.fixture
def songs(engine: ChatEngine) -> list[Clip]:
    """Two songs that only their features tell apart."""
    clips = [make_clip(9, key=key * 16) for key in "ab"]
    clips[1].features[3] += 1
    return [engine.cache.get_or(clip.clip_id, lambda clip=clip: clip) for clip in clips]


def told(engine: ChatEngine, messages: list[Message]) -> tuple[str, int]:
    """A reply's text, and how many tokens of the prompt were reused."""
    reply = engine.reply(messages, GREEDY)
    return reply.text(), reply.reused_tokens


def test_music_is_told_apart_by_its_features_and_by_nothing_else() -> None:
    one, other = make_clip(9).features, make_clip(9).features + 1
    ids = [1, *[5] * 6, 2, *[5] * 6]
    first, again, unlike = (
        position_keys(Prompt(ids, [], list(rows)), FORM)
        for rows in ((one, one), (one.clone(), one), (other, one))
    )
    assert first == again and first[1:7] == first[8:] and len(set(first[1:7])) == 6
    assert first[0] == 1 and first[7] == 2 and max(first[1:7]) < 0
    assert not set(unlike[1:7]) & set(first) and unlike[7:] == first[7:]


def test_the_longest_beginning_is_found() -> None:
    prefixes = PrefixCache()
    assert prefixes.longest([1, 2]) is None
    prefixes.put([1, 2, 3], states(3, 1.0))
    prefixes.put([1, 2, 4, 5, 6], states(5, 2.0))
    found = prefixes.longest([1, 2, 4, 5, 7, 8])
    assert found is not None and len(found) == 4 and found.keys.tolist() == [1, 2, 4, 5]
    assert found.layers[0][0].shape == (1, 3, 4, 4) and bool((found.layers[1][1] == 2).all())
    assert prefixes.longest([2, 1]) is None


def test_states_grow_in_place_and_what_is_shared_is_never_written_to() -> None:
    first = empty_cache(1)
    new = torch.arange(12.0).view(1, 1, 3, 4)
    keys, values = first.update(new, -new, 0)
    assert torch.equal(keys, new) and torch.equal(values, -new)
    shared = (keys[:, :, :2], values[:, :, :2])
    second = cache_of([shared])
    assert second.get_seq_length() == 2
    second.update(new[:, :, :1] + 100, new[:, :, :1], 0)
    place = first.layers[0].states()[0].data_ptr()
    for _ in range(SPARE):
        first.update(new[:, :, :1], new[:, :, :1], 0)
    assert first.layers[0].states()[0].data_ptr() == place and first.get_seq_length() == 3 + SPARE
    assert torch.equal(first.layers[0].states()[0][:, :, :3], new)
    first.update(new, new, 0)
    assert first.layers[0].states()[0].data_ptr() != place
    assert torch.equal(first.layers[0].states()[0][:, :, :3], new)
    assert torch.equal(shared[0], new[:, :, :2])
    assert second.layers[0].states()[0][0, 0, :, 0].tolist() == [0, 4, 100]


def test_room_to_grow_counts_as_memory() -> None:
    prefixes, cache = PrefixCache(), empty_cache(1)
    cache.update(torch.zeros(1, 3, 5, 4), torch.zeros(1, 3, 5, 4), 0)
    prefixes.put([1, 2, 3, 4, 5], cache)
    assert prefixes.nbytes == 2 * 3 * (5 + SPARE) * 4 * 4


def test_what_a_longer_one_contains_is_not_kept_twice() -> None:
    prefixes = PrefixCache()
    for keys in ([1, 2], [1, 2, 3], [1, 2, 3], [1, 2, 4]):
        prefixes.put(keys, states(len(keys)))
    assert len(prefixes) == 2 and prefixes.nbytes == 6 * 192


def test_what_is_contained_already_is_of_use_and_not_kept_again() -> None:
    prefixes = PrefixCache(most_bytes=10 * 192)
    prefixes.put([1, 2, 3], states(3))
    prefixes.put([4, 5], states(2))
    prefixes.put([1, 2], states(2))
    assert len(prefixes) == 2
    prefixes.put([6] * 6, states(6))
    assert prefixes.longest([1, 2, 3, 4]) is not None and prefixes.longest([4]) is None


def test_of_those_that_share_as_much_the_newest_is_of_use() -> None:
    prefixes = PrefixCache(most_bytes=9 * 192)
    for number in range(6):  # all begin with the system's words, as prompts do
        keys = [1, 10 + number, 2]
        prefixes.longest(keys)
        prefixes.put(keys, states(3))
    assert [int(p.keys[1]) for p in prefixes._prefixes] == [13, 14, 15]


def test_a_pass_that_failed_half_way_leaves_no_uneven_states() -> None:
    cache = empty_cache(2)
    for layer in range(2):
        cache.update(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), layer)
    cache.update(torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 1, 4), 0)
    prefixes = PrefixCache()
    prefixes.put([1, 2, 3, 4, 5], cache)
    found = prefixes.longest([1, 2, 3, 4, 5, 6])
    assert found is not None and len(found) == 4
    assert {keys.shape[2] for keys, _ in found.layers} == {4}


def test_memory_is_bounded_and_what_was_of_use_last_stays() -> None:
    prefixes = PrefixCache(most_bytes=10 * 192)
    prefixes.put([1] * 4, states(4))
    prefixes.put([2] * 4, states(4))
    assert prefixes.longest([1] * 3) is not None
    prefixes.put([3] * 4, states(4))
    assert prefixes.longest([2]) is None and len(prefixes) == 2 and prefixes.nbytes == 8 * 192
    prefixes.put([4] * 11, states(11))  # too much by itself
    assert len(prefixes) == 2 and prefixes.longest([4]) is None
    prefixes.clear()
    assert not prefixes.nbytes


def test_the_next_turn_computes_new_words_only(engine: ChatEngine, songs: list[Clip]) -> None:
    chat = [user("What is it?", songs[0].clip_id)]
    answer, reused = told(engine, chat)
    assert answer and not reused
    chat += [assistant(answer), user("Why?")]
    reply = engine.reply(chat, GREEDY)
    text = reply.text()
    said = engine.said(answer)
    assert said is not None
    before = len(engine.processor.render(chat[:1], engine.clip).ids) + len(said)
    assert reply.reused_tokens in (before, before - 1)  # the last token was perhaps never read
    assert (text, 0) == told(forgetful(engine), chat)
    assert told(engine, chat)[1] == reply.prompt_tokens - 1  # once more: all but the last


def test_edits_and_other_songs_never_see_stale_states(
    engine: ChatEngine, songs: list[Clip]
) -> None:
    one, other = (song.clip_id for song in songs)
    chats = [
        [user("What is it?", one)],
        [user("What is it?", other)],
        [user("What is it!", one)],
        [user("What is it?", one), assistant("A song."), user("Why?")],
        [user("What is it?", one), assistant("A sonG."), user("Why?")],
        [user("What is it?", other), assistant("A song."), user("Why?")],
        [user("What is it?", one), assistant("A song."), user("Why?", other)],
        [user("What is it?"), assistant("A song."), user("Why?", one)],
        [user("What is at 0:04?", one)],
        [user("What is at 0:14?", one)],
        [user("What is it?", one)],
    ]
    for chat in [*chats, *reversed(chats)]:
        text, _ = told(engine, chat)
        assert (text, 0) == told(forgetful(engine), chat)
    assert told(engine, chats[1])[1] > told(engine, [user("Huh?", other)])[1] > 0


def test_states_are_those_computed_anew(engine: ChatEngine, songs: list[Clip]) -> None:
    chat = [user("What is it?", songs[0].clip_id)]
    chat += [assistant(told(engine, chat)[0]), user("Why is that so?")]
    prompt = engine.processor.fit(chat, engine.clip, 10_000, engine.said)
    keys = position_keys(prompt, engine.processor.form)
    fresh = forgetful(engine)
    fresh.prefixes = PrefixCache()
    for which in (engine, fresh):
        told(which, chat)
    reused, anew = engine.prefixes.longest(keys), fresh.prefixes.longest(keys)
    assert reused is not None and anew is not None and len(reused) == len(anew) == len(keys)
    for ours, theirs in zip(reused.layers, anew.layers, strict=True):
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-5)


def test_a_closed_reply_leaves_states_that_others_use(
    engine: ChatEngine, songs: list[Clip]
) -> None:
    chat = [user("What is it?", songs[0].clip_id)]
    unread = engine.reply(chat, GREEDY)
    unread.close()
    assert not len(engine.prefixes)
    reply = engine.reply(chat, GREEDY)
    next(reply)
    assert engine.reply(chat, GREEDY).reused_tokens == reply.prompt_tokens - 1
    reply.close()
    assert len(engine.prefixes) == 1
    assert told(engine, chat) == (told(forgetful(engine), chat)[0], reply.prompt_tokens - 1)


def test_of_those_who_ask_at_once_the_first_reads_for_all(
    engine: ChatEngine, songs: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = [user("What is it?", songs[0].clip_id)]
    replies = [engine.reply(chat, GREEDY) for _ in range(4)]
    read: list[int] = []
    whole = engine.decoder.read

    def noted(embeds: torch.Tensor, cache: Cache) -> torch.Tensor:
        read.append(embeds.shape[1])
        return whole(embeds, cache)

    monkeypatch.setattr(engine.decoder, "read", noted)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda reply: reply.text(), replies))) == 1
    assert read == [replies[0].prompt_tokens, 1, 1, 1]


def test_tokens_of_replies_are_remembered_up_to_a_number() -> None:
    said = SaidTokens(most=2)
    said.put("a", [1])
    said.put("b", [2, 3])
    assert said("a") == [1]
    said.put("c", [4])
    assert said("a") == [1] and said("b") is None and said("c") == [4]


def test_a_reply_is_read_as_it_was_said(engine: ChatEngine, songs: list[Clip]) -> None:
    chat = [user("What is it?", songs[0].clip_id), assistant("abc"), user("Why?")]
    plain = engine.processor.fit(chat, engine.clip, 10_000).ids
    engine.said.put("abc", [*engine.processor.tokenizer("cab").input_ids])
    ours = engine.processor.fit(chat, engine.clip, 10_000, engine.said).ids
    assert ours != plain and sorted(ours) == sorted(plain)
    asked = [user("abc"), assistant("cba"), user("abc")]  # a visitor's words are no reply
    same = engine.processor.fit(asked, engine.clip, 10_000, engine.said).ids
    assert same == engine.processor.fit(asked, engine.clip, 10_000).ids
