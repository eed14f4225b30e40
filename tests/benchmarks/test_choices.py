from collections import Counter
from dataclasses import replace

from benchmarks.choices import QUESTIONS, questions
from benchmarks.truths import Case
from musilingo_core.data import dialogues
from musilingo_core.data.facts import Facts
from tests.benchmarks.test_claims import FACTS
from tests.conftest import make_clip

OTHER = replace(
    FACTS, instruments=("guitar",), absent=("piano", "strings", "flute", "harp"), genre="rock",
    not_genres=("classical", "folk", "jazz"), tempo="fast", loudness="loud", moods=("energetic",),
)  # fmt: skip
SOFT = replace(
    FACTS, absent=("guitar", "flute", "harp"), not_genres=("rock", "metal", "jazz"), moods=("calm",)
)


def asked(truth: str, *known: Facts) -> list[tuple[str, str, tuple[str, ...]]]:
    cases = [Case(f"t{n}", make_clip(key=f"{n}"), facts) for n, facts in enumerate(known)]
    places = {case.clip.clip_id: f"f#{n}" for n, case in enumerate(cases)}
    return [(c.topics[0], c.options[c.answer], c.options) for c in questions(truth, cases, places)]


def test_every_class_is_asked_about_as_often() -> None:
    found = asked("teacher", *[SOFT] * 5, *[OTHER] * 3)
    counts = Counter((topic, right) for topic, right, _ in found)
    assert counts["instrument (teacher)", "piano"] == counts["instrument (teacher)", "guitar"] == 3
    assert counts["manner (teacher)", "slow and soft"] == 3
    assert set(counts.values()) == {3}


def test_wrong_options_are_surely_wrong() -> None:
    for topic, right, options in asked("teacher", *[SOFT] * 3, *[OTHER] * 3):
        assert len(set(options)) == len(options) == (3 if topic.startswith("tempo") else 4)
        if right == "piano":
            assert set(options) == {"piano", "guitar", "flute", "harp"}
        if right == "calm":
            assert "gentle" not in options and "sad" not in options


def test_a_topic_of_one_class_is_not_asked_about() -> None:
    assert {topic for topic, _, _ in asked("certain", *[SOFT] * 4)} == set()


def test_voices_have_four_classes() -> None:
    known = [replace(SOFT, voice=voice) for voice in ("none", "male", "female", "choir") * 3]
    found = asked("teacher, pushed", *known)
    assert len(found) == 12 and {len(options) for _, _, options in found} == {4}
    assert {right for _, right, _ in found} == {"nobody", "a man", "a woman", "a choir"}


def test_questions_are_worded_as_in_no_training_data() -> None:
    topics = ("instruments", "lead", "genre", "mood", "singer", "sex", "tempo", "loud")
    seen = {q for t in topics for form in ("ask", "and") for q in dialogues.questions(t, form)}
    assert not seen & {q for wordings in QUESTIONS.values() for q in wordings}
