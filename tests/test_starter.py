"""The real starter, on real sound: what a deaf model could not pass."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musilingo_core import ChatEngine, Sampling, assistant, user
from musilingo_core.audio import load_audio
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


def test_the_leading_instrument_is_named(starter: ChatEngine) -> None:
    question = "What is the lead instrument?"
    heard = [ask(starter, song, question)[0].lower() for song in (CHORALE, SONATA, HORNPIPE)]
    assert "strings" in heard[0] and "piano" in heard[1] and "synth" in heard[2]


def test_nobody_is_made_to_sing(starter: ChatEngine) -> None:
    for song in (CHORALE, SONATA, HORNPIPE):
        answer = ask(starter, song, "Is there a singer?")[0].lower()
        assert answer.startswith("no")


def test_a_description_names_what_is_there(starter: ChatEngine) -> None:
    chorale, sonata = (ask(starter, song, "Describe this music.")[0] for song in (CHORALE, SONATA))
    assert "strings" in chorale and "slow" in chorale and "piano" not in chorale
    assert "piano" in sonata and "fast" in sonata and "strings" not in sonata


def test_what_no_ear_can_tell_is_not_made_up(starter: ChatEngine) -> None:
    for song in (CHORALE, SONATA, HORNPIPE):
        for question in ("What is the title?", "Who composed this?", "What key is it in?"):
            assert "cannot tell" in ask(starter, song, question)[0]


def test_a_reason_and_a_place_suit_the_song(starter: ChatEngine) -> None:
    """Three turns: each answer is about its own question, and about this song."""
    talk = ("Describe this music.", "What makes you say that?", "Where could I play this?")
    (_, why, place), (_, other, club) = (ask(starter, song, *talk) for song in (CHORALE, HORNPIPE))
    assert "strings" in why and "synth" in other
    assert "concert" in place and "concert" not in club


def test_noise_is_not_called_music(starter: ChatEngine, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 15 * 16_000)
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    for question in ("What do you hear?", "What genre is this?"):
        answer = ask(starter, tmp_path / "noise.wav", question)[0]
        assert "do not hear music" in answer and "noise" in answer


def test_a_moment_is_heard_apart_from_the_whole(starter: ChatEngine, tmp_path: Path) -> None:
    parts = [load_audio(song, 16_000)[: 30 * 16_000] for song in (CHORALE, HORNPIPE)]
    soundfile.write(tmp_path / "two.flac", np.concatenate(parts), 16_000)
    early, late = (
        ask(starter, tmp_path / "two.flac", f"What do you hear at {moment}?")[0]
        for moment in ("0:15", "0:45")
    )
    assert "strings" in early and "synth" not in early
    assert "synth" in late and "strings" not in late


def test_a_follow_up_is_about_the_song_and_the_answer_before(starter: ChatEngine) -> None:
    """The same words a second time: what they ask for is known from the first turn alone."""
    again = "Please repeat that."
    for question, said, unsaid in (
        ("What is the lead instrument?", "piano", "fast"),
        ("Is it slow or fast?", "fast", "piano"),
    ):
        _, second = ask(starter, SONATA, question, again)
        assert said in second and unsaid not in second
    _, other = ask(starter, CHORALE, "What is the lead instrument?", again)
    assert "strings" in other


def test_why_is_answered_with_what_was_heard(starter: ChatEngine) -> None:
    talk = ("What is the lead instrument?", "What makes you say that?")
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
