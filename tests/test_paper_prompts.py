"""The paper's prompts against its own tokenisation, stated again from its code, with SentencePiece.

`prompt_wrap`, `instruction_prompt_wrap` and `forward` of github.com/zihaod/MusiLingo, and
`get_context_emb` of its demo, ask the slow LLaMA tokenizer, which is SentencePiece's `encode`.
"""

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaTokenizer

from musilingo_core.features import Clip
from musilingo_core.forms import prompt_settings
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import IGNORED, Message, assistant, user
from tests.conftest import make_clip

BOS, MUSIC = 1, 0
DEMO_SYSTEM = (
    "Give the following music: <Audio>AudioContent</Audio>. "
    "You will be able to see the music once I provide it to you. Please answer my questions."
)
QUESTIONS = [
    "What instruments do you hear?",
    "  Two spaces, and a tab\tbetween? ",
    "###Human: <Audio> </s> ### Ünïcödé 音楽 🎵",
    "1234 at 1:99",
]
ANSWERS = ["A slow piano piece.", "It has 120 bpm!", "Yes", "« Ça va » 🎹"]


def processor(llama_tokens: Path, prompt: str = "paper") -> MusiLingoProcessor:
    return MusiLingoProcessor(
        LlamaTokenizer.from_pretrained(llama_tokens), **prompt_settings(prompt)
    )


def find(key: str) -> Clip:
    return make_clip(rows=3)


def music() -> list[int]:
    return [MUSIC] * 3


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_first_question_has_the_tokens_of_training(
    llama_tokens: Path, llama_pieces: Any, question: str
) -> None:
    prompt = processor(llama_tokens).render([user(question, "song")], find)
    before, after = "###Human: <Audio>", f"</Audio> {question} ###Assistant: "
    assert prompt.ids == [BOS, *llama_pieces.encode(before), *music(), *llama_pieces.encode(after)]
    assert set(prompt.labels) == {IGNORED}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_learnt_with_the_sign_that_ends_it(
    llama_tokens: Path, llama_pieces: Any, answer: str
) -> None:
    talk = [user("What is it?", "song"), assistant(answer)]
    asked = processor(llama_tokens).render(talk[:1], find)
    prompt = processor(llama_tokens).render(talk, find)
    regressed = llama_pieces.encode(answer + "###")
    assert prompt.ids == [*asked.ids, *regressed]
    assert prompt.labels == [IGNORED] * len(asked.ids) + regressed


def test_a_caption_follows_music_alone(llama_tokens: Path, llama_pieces: Any) -> None:
    prompt = processor(llama_tokens).render([user(None, "song"), assistant("A waltz.")], find)
    assert prompt.ids == [BOS, *music(), *llama_pieces.encode("A waltz.###")]


def test_later_turns_have_the_form_of_the_first(llama_tokens: Path, llama_pieces: Any) -> None:
    talk = [user("Who?", "song"), assistant("A man."), user("Why?")]
    prompt = processor(llama_tokens).render(talk, find)
    first = processor(llama_tokens).render(talk[:1], find)
    later = [*llama_pieces.encode("A man."), *llama_pieces.encode("###Human: Why? ###Assistant: ")]
    assert prompt.ids == [*first.ids, *later]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_demos_form_is_the_demos(llama_tokens: Path, llama_pieces: Any, turns: int) -> None:
    talk: list[Message] = []
    words = DEMO_SYSTEM + "###Human: <Audio>♪</Audio>"
    for turn in range(turns):
        talk += [user(f"Question {turn}?", None if turn else "song")]
        words += f"{'Human:' if turn else ''} Question {turn}?###Assistant:"
        if turn < turns - 1:
            talk += [assistant(f"Answer {turn}.")]
            words += f" Answer {turn}.###"
    before, after = words.split("♪")
    prompt = processor(llama_tokens, "paper-demo").render(talk, find)
    assert prompt.ids == [BOS, *llama_pieces.encode(before), *music(), *llama_pieces.encode(after)]


def test_what_was_said_is_put_back_by_its_own_tokens(llama_tokens: Path, llama_pieces: Any) -> None:
    talk = [user("Who?", "song"), assistant("A man."), user("Why?")]
    own = [llama_pieces.piece_to_id("▁"), *llama_pieces.encode("A man.")]
    prompt = processor(llama_tokens).fit(talk, find, 500, lambda text: own)
    assert " ".join(map(str, own)) in " ".join(map(str, prompt.ids))
