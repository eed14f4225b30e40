from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Cache

from musilingo_core.decoder import Decoder
from musilingo_core.generation import TextStream, decode, decode_together
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.sampling import Sampling
from tests.test_llama import llama


@pytest.fixture
def embeds(tiny_model: MusiLingoForConditionalGeneration) -> torch.Tensor:
    return tiny_model.get_input_embeddings()(torch.arange(5, 25).unsqueeze(0)).detach()


def say(
    model: MusiLingoForConditionalGeneration, embeds: torch.Tensor, sampling: Sampling, **rest: Any
) -> Iterator[int]:
    """Tokens of a reply to a prompt that nothing is known of."""
    decoder = Decoder(model.language_model, packed=False)
    cache = decoder.cache()
    return decode(decoder, decoder.read(embeds, cache), cache, sampling, **rest)


def test_greedy_equals_transformers_generate(
    tiny_model: MusiLingoForConditionalGeneration, embeds: torch.Tensor
) -> None:
    greedy = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=30)
    ours = list(say(tiny_model, embeds, greedy))
    theirs = tiny_model.language_model.generate(
        inputs_embeds=embeds, do_sample=False, max_new_tokens=30, eos_token_id=None
    )
    assert ours == theirs[0].tolist()


def test_a_token_is_computed_when_it_is_pulled(
    tiny_model: MusiLingoForConditionalGeneration, embeds: torch.Tensor
) -> None:
    decoder = Decoder(tiny_model.language_model)
    cache = decoder.cache()
    tokens = decode(decoder, decoder.read(embeds, cache), cache, Sampling(seed=1))
    assert cache.get_seq_length() == 20
    for _ in range(5):
        next(tokens)
    assert cache.get_seq_length() == 24
    tokens.close()  # type: ignore[attr-defined]
    assert cache.get_seq_length() == 24


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0, max_new_tokens=25),
        Sampling(temperature=0.02, top_p=1, top_k=0, max_new_tokens=25, seed=3),
    ],
)
def test_prompts_decoded_together_get_the_tokens_each_would_get_alone(
    tiny_model: MusiLingoForConditionalGeneration, sampling: Sampling, packed: bool
) -> None:
    model = llama() if packed else tiny_model.language_model
    words = model.get_input_embeddings()
    endings = ([21, 22, 23], [30], [21, 40, 41, 42, 43, 44, 45], [], [21])
    prompts = [words(torch.tensor([[*range(5, 20), *end]])).detach() for end in endings]
    decoder = Decoder(model, packed)

    def begun(prompt: torch.Tensor) -> tuple[torch.Tensor, Cache]:
        cache = decoder.cache()
        return decoder.read(prompt, cache), cache

    alone = [list(decode(decoder, *begun(prompt), sampling)) for prompt in prompts]
    assert len(set(map(tuple, alone))) == len(alone)
    stops = [alone[0][3], alone[2][7]]  # some replies end before others
    alone = [list(decode(decoder, *begun(prompt), sampling, stops)) for prompt in prompts]
    together: list[list[int]] = [[] for _ in prompts]
    pairs = [begun(prompt) for prompt in prompts]
    for number, token in decode_together(decoder, pairs, sampling, stops):
        together[number].append(token)
    assert together == alone
    assert len({len(tokens) for tokens in alone}) > 1
    assert not list(decode_together(decoder, [], sampling))


def test_same_seed_same_tokens_and_others_differ(
    tiny_model: MusiLingoForConditionalGeneration, embeds: torch.Tensor
) -> None:
    def run(seed: int | None) -> list[int]:
        sampling = Sampling(temperature=2, top_p=1, top_k=0, max_new_tokens=20, seed=seed)
        return list(say(tiny_model, embeds, sampling))

    assert run(1) == run(1) != run(2)
    assert run(None) != run(None)


def test_a_stop_token_ends_the_reply_and_is_not_given(
    tiny_model: MusiLingoForConditionalGeneration, embeds: torch.Tensor
) -> None:
    greedy = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=30)
    tokens = list(say(tiny_model, embeds, greedy))
    stopped = list(say(tiny_model, embeds, greedy, stop_ids=[tokens[4]]))
    assert stopped == tokens[: tokens.index(tokens[4])]


def test_some_tokens_are_never_chosen(
    tiny_model: MusiLingoForConditionalGeneration, embeds: torch.Tensor
) -> None:
    greedy = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=10)
    first = next(say(tiny_model, embeds, greedy))
    assert first not in list(say(tiny_model, embeds, greedy, never=[first]))


def test_a_tiny_temperature_is_greedy(
    tiny_model: MusiLingoForConditionalGeneration, embeds: torch.Tensor
) -> None:
    cold = Sampling(temperature=1e-40, repetition_penalty=1, max_new_tokens=5)
    greedy = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=5)
    assert list(say(tiny_model, embeds, cold)) == list(say(tiny_model, embeds, greedy))


@pytest.mark.parametrize("only", [{"top_k": 1, "top_p": 1.0}, {"top_k": 0, "top_p": 1e-6}])
def test_a_choice_of_one_token_is_greedy_however_hot(
    tiny_model: MusiLingoForConditionalGeneration, embeds: torch.Tensor, only: dict[str, Any]
) -> None:
    def run(**settings: Any) -> list[int]:
        sampling = Sampling(max_new_tokens=20, seed=1, **settings)
        return list(say(tiny_model, embeds, sampling))

    greedy = run(temperature=0)
    assert run(temperature=5, **only) == greedy
    assert run(temperature=5, top_k=0, top_p=1) != greedy


def test_a_repetition_penalty_changes_what_is_said_again(
    tiny_model: MusiLingoForConditionalGeneration, embeds: torch.Tensor
) -> None:
    def distinct(penalty: float) -> int:
        sampling = Sampling(temperature=0, repetition_penalty=penalty, max_new_tokens=40)
        return len(set(say(tiny_model, embeds, sampling)))

    assert distinct(2.0) > distinct(1.0)


def pieces(tokenizer: Any, text: str, stops: tuple[str, ...] = ()) -> Iterator[str]:
    stream = TextStream(tokenizer, stops)
    for token in tokenizer(text, add_special_tokens=False).input_ids:
        yield stream.push(token)
    yield stream.finish()


@settings(deadline=None)
@given(st.text(max_size=40))
def test_pieces_add_up_to_the_text_without_its_outer_white_space(tokenizer: Any, text: str) -> None:
    text = text.replace("\ufffd", "?")
    assert "".join(pieces(tokenizer, text)) == text.strip()


def test_characters_are_whole(tokenizer: Any) -> None:
    given_out = [piece for piece in pieces(tokenizer, "né 🎵!") if piece]
    assert given_out == ["n", "é", " 🎵", "!"]


@settings(deadline=None)
@given(st.text("ab#\n H", max_size=30))
def test_stop_strings_are_never_shown(tokenizer: Any, text: str) -> None:
    shown = "".join(pieces(tokenizer, text, ("###", "\nH")))
    ends = [at for stop in ("###", "\nH") if (at := text.lstrip().find(stop)) >= 0]
    assert shown == text.lstrip()[: min(ends, default=None)].rstrip()


def test_half_a_stop_string_is_shown_once_it_cannot_become_one(tokenizer: Any) -> None:
    given_out = list(pieces(tokenizer, "a##b", ("###",)))
    assert given_out == ["a", "", "", "##b", ""]
