"""The real starter, on real sound: what a deaf model could not pass."""

from pathlib import Path

import pytest

from musilingo_core import ChatEngine, Sampling, assistant, user
from musilingo_core.prompt import Message
from tests.conftest import make_clip

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
GREEDY = Sampling(temperature=0, max_new_tokens=60)
CHORALE, SONATA, HORNPIPE = (
    EXAMPLES / name
    for name in ("chorale-strings.mp3", "sonata-piano.mp3", "hornpipe-synthesizer.mp3")
)

pytestmark = pytest.mark.starter


def ask(engine: ChatEngine, song: Path, *questions: str) -> list[str]:
    """A conversation about a song; gives the answers."""
    clip, messages, answers = engine.encode(song), list[Message](), []
    for question in questions:
        messages.append(user(question, None if messages else clip.clip_id))
        answers.append(engine.reply(messages, GREEDY).text())
        messages.append(assistant(answers[-1]))
    return answers


def test_two_songs_of_opposite_kind_get_opposite_answers(starter: ChatEngine) -> None:
    question = "Is it slow or fast?"
    assert "slow" in ask(starter, CHORALE, question)[0].lower()
    assert "fast" in ask(starter, SONATA, question)[0].lower()


def test_the_instruments_are_named(starter: ChatEngine) -> None:
    question = "Which instruments do you hear?"
    heard = [ask(starter, song, question)[0].lower() for song in (CHORALE, SONATA, HORNPIPE)]
    assert "strings" in heard[0] and "piano" in heard[1] and "synth" in heard[2]


def test_nobody_is_made_to_sing(starter: ChatEngine) -> None:
    for song in (SONATA, HORNPIPE):
        answer = ask(starter, song, "Is there a singer?")[0].lower()
        assert answer.startswith("no")


def test_a_follow_up_is_about_the_song_and_the_answer_before(starter: ChatEngine) -> None:
    talk = ("Which instruments do you hear?", "What makes you say that?")
    _, why = ask(starter, CHORALE, *talk)
    _, other = ask(starter, SONATA, *talk)
    assert "strings" in why.lower() and "piano" in other.lower()


def test_the_same_seed_says_the_same(starter: ChatEngine) -> None:
    clip = starter.encode(CHORALE)
    sampling = Sampling(temperature=1.0, seed=7, max_new_tokens=30)
    texts = [
        starter.reply([user("Describe this song.", clip.clip_id)], sampling).text()
        for _ in range(2)
    ]
    assert texts[0] == texts[1]


def test_the_prompt_byte_for_byte(starter: ChatEngine) -> None:
    processor = starter.processor
    prompt = processor.render([user("What is it?", "song")], lambda key: make_clip(rows=10))
    rows = 1 + 4  # the mean of the song and of four parts
    tokenizer = processor.tokenizer
    assert tokenizer.decode(prompt.ids, clean_up_tokenization_spaces=False) == (
        "<|im_start|>system\nYou hear music and answer questions about it.<|im_end|>\n"
        f"<|im_start|>user\n{'<jupyter_output>' * 16 * rows}\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    placeholder = tokenizer.convert_tokens_to_ids("<jupyter_output>")
    assert placeholder == starter.model.config.audio_token_id != tokenizer.unk_token_id
    assert prompt.ids.count(placeholder) == 16 * rows
    begun = prompt.ids.index(placeholder)
    assert prompt.ids[begun : begun + 16 * rows] == [placeholder] * (16 * rows)
