"""The paper's prompts against its own tokenisation, stated again from its code, with SentencePiece.

`prompt_wrap`, `instruction_prompt_wrap` and `forward` of github.com/zihaod/MusiLingo, and
`get_context_emb` of its demo, ask the slow LLaMA tokenizer, which is SentencePiece's `encode`.
"""

from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from transformers import LlamaTokenizer

from musilingo_core.features import Clip
from musilingo_core.forms import prompt_settings
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import IGNORED, Message, assistant, user
from tests.conftest import make_clip
from tests.llama_tokenizer import make_tokenizer

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model with LLaMA's settings, and nothing beside it."""
    return make_tokenizer(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def pieces(folder: Path) -> Any:
    """The paper's tokenizer."""
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def processor(folder: Path, prompt: str = "paper") -> MusiLingoProcessor:
    return MusiLingoProcessor(LlamaTokenizer.from_pretrained(folder), **prompt_settings(prompt))


def find(key: str) -> Clip:
    return make_clip(rows=3)


def music() -> list[int]:
    return [MUSIC] * 3


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_first_question_has_the_tokens_of_training(
    folder: Path, pieces: Any, question: str
) -> None:
    prompt = processor(folder).render([user(question, "song")], find)
    before, after = "###Human: <Audio>", f"</Audio> {question} ###Assistant: "
    assert prompt.ids == [BOS, *pieces.encode(before), *music(), *pieces.encode(after)]
    assert set(prompt.labels) == {IGNORED}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_learnt_with_the_sign_that_ends_it(
    folder: Path, pieces: Any, answer: str
) -> None:
    talk = [user("What is it?", "song"), assistant(answer)]
    asked = processor(folder).render(talk[:1], find)
    prompt = processor(folder).render(talk, find)
    regressed = pieces.encode(answer + "###")
    assert prompt.ids == [*asked.ids, *regressed]
    assert prompt.labels == [IGNORED] * len(asked.ids) + regressed


def test_a_caption_follows_music_alone(folder: Path, pieces: Any) -> None:
    prompt = processor(folder).render([user(None, "song"), assistant("A waltz.")], find)
    assert prompt.ids == [BOS, *music(), *pieces.encode("A waltz.###")]


def test_later_turns_have_the_form_of_the_first(folder: Path, pieces: Any) -> None:
    talk = [user("Who?", "song"), assistant("A man."), user("Why?")]
    prompt = processor(folder).render(talk, find)
    first = processor(folder).render(talk[:1], find)
    later = [*pieces.encode("A man."), *pieces.encode("###Human: Why? ###Assistant: ")]
    assert prompt.ids == [*first.ids, *later]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_demos_form_is_the_demos(folder: Path, pieces: Any, turns: int) -> None:
    talk: list[Message] = []
    words = DEMO_SYSTEM + "###Human: <Audio>♪</Audio>"
    for turn in range(turns):
        talk += [user(f"Question {turn}?", None if turn else "song")]
        words += f"{'Human:' if turn else ''} Question {turn}?###Assistant:"
        if turn < turns - 1:
            talk += [assistant(f"Answer {turn}.")]
            words += f" Answer {turn}.###"
    before, after = words.split("♪")
    prompt = processor(folder, "paper-demo").render(talk, find)
    assert prompt.ids == [BOS, *pieces.encode(before), *music(), *pieces.encode(after)]


def test_what_was_said_is_put_back_by_its_own_tokens(folder: Path, pieces: Any) -> None:
    talk = [user("Who?", "song"), assistant("A man."), user("Why?")]
    own = [pieces.piece_to_id("▁"), *pieces.encode("A man.")]
    prompt = processor(folder).fit(talk, find, 500, lambda text: own)
    assert " ".join(map(str, own)) in " ".join(map(str, prompt.ids))
