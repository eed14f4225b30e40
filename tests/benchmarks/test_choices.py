from collections import Counter
from dataclasses import replace

from benchmarks.choices import QUESTIONS, by_options_alone, questions
from benchmarks.truths import Case
from musilingo_core.data import dialogues
from musilingo_core.data.choices import Choice
from musilingo_core.data.facts import Facts
from tests.benchmarks.test_claims import FACTS
from tests.benchmarks.test_follow_ups import apart, plain
from tests.conftest import make_clip

LEADS = {"piano": "classical", "guitar": "rock", "flute": "folk", "harp": "jazz"}
MOODS = ("calm", "energetic", "sad", "happy")


def known(number: int) -> Facts:
    """Facts of the numberth of four classes; the others of each kind are surely wrong."""
    leads, genres = list(LEADS), list(LEADS.values())
    mine = leads[number], genres[number], MOODS[number]
    return replace(
        FACTS,
        instruments=(mine[0],),
        absent=(*(n for n in leads if n != mine[0]), "organ"),
        genre=mine[1],
        not_genres=(*(n for n in genres if n != mine[1]), "metal"),
        moods=(mine[2],),
        not_moods=(*(m for m in MOODS if m != mine[2]), "strange"),
        tempo=("slow", "fast")[number % 2],
        loudness=("soft", "loud")[number // 2],
    )


def asked(truth: str, *known: Facts) -> list[tuple[str, str, tuple[str, ...]]]:
    cases = [Case(f"t{n}", make_clip(key=f"{n}"), facts) for n, facts in enumerate(known)]
    places = {case.clip.clip_id: f"f#{n}" for n, case in enumerate(cases)}
    return [(c.topics[0], c.options[c.answer], c.options) for c in questions(truth, cases, places)]


def test_every_class_is_asked_about_as_often() -> None:
    found = asked("teacher", *[known(0)] * 5, *[known(n) for n in (1, 2, 3) * 3])
    counts = Counter((topic, right) for topic, right, _ in found)
    assert counts["instrument (teacher)", "piano"] == counts["instrument (teacher)", "guitar"] == 3
    assert {topic for topic, _ in counts} == {
        f"{topic} (teacher)" for topic in ("instrument", "genre", "mood")
    }
    assert set(counts.values()) == {3}


def test_wrong_options_are_right_elsewhere() -> None:
    found = asked("teacher", *[known(n) for n in (0, 1, 2, 3) * 3])
    for topic, _, options in found:
        assert len(set(options)) == len(options) == 4
        assert set(options) == {right for name, right, _ in found if name == topic}


def test_a_class_whose_wrong_options_are_nowhere_right_is_left_out() -> None:
    bells = replace(known(0), instruments=("bells",), absent=("organ", "brass", "choir"))
    found = asked("certain", *[bells] * 4, *[known(n) for n in (0, 1, 2, 3) * 3])
    assert {right for topic, right, _ in found if "instrument" in topic} == set(LEADS)


def test_few_classes_of_many_clips_come_before_many_of_few() -> None:
    rare = replace(known(0), genre="blues", not_genres=("rock", "folk", "jazz"))
    found = asked("teacher", *[rare] * 2, *[known(n) for n in (0, 1, 2, 3) * 8])
    counts = Counter(right for topic, right, _ in found if topic == "genre (teacher)")
    assert counts == {"classical": 8, "rock": 8, "folk": 8, "jazz": 8}


def test_of_several_moods_the_rarest_is_asked_about() -> None:
    moods = [replace(known(n), moods=("calm", MOODS[n])) for n in (1, 2, 3) * 3]
    found = asked("teacher", *[known(0)] * 3, *moods)
    counts = Counter(right for topic, right, _ in found if topic == "mood (teacher)")
    assert counts == dict.fromkeys(MOODS, 3)


def test_a_topic_of_one_class_is_not_asked_about() -> None:
    assert {topic for topic, _, _ in asked("certain", *[known(0)] * 4)} == set()


def test_options_alone_tell_no_answer_that_is_as_often_wrong() -> None:
    fair = [Choice("f", "?", ("a", "b"), n % 2, ("x",), f"{n}") for n in range(40)]
    told = [Choice("f", "?", ("a", "b"), 0, ("x",), f"{n}") for n in range(40)]
    assert by_options_alone(told) == 1.0
    assert by_options_alone(fair) <= 0.5


def test_voices_have_four_classes() -> None:
    voices = ("none", "male", "female", "choir") * 3
    found = asked("certain, sung", *[replace(known(0), voice=voice) for voice in voices])
    assert len(found) == 12 and {len(options) for _, _, options in found} == {4}
    assert {right for _, right, _ in found} == {"nobody", "a man", "a woman", "a choir"}


def test_questions_are_worded_as_in_no_training_data_nor_nearly_so() -> None:
    topics = ("instruments", "lead", "genre", "mood", "singer", "sex", "tempo", "loud")
    seen = [q for t in topics for form in ("ask", "and") for q in dialogues.questions(t, form)]
    for question in (q for wordings in QUESTIONS.values() for q in wordings):
        assert min(apart(plain(question), plain(known)) for known in seen) >= 2, question
