from itertools import cycle, islice
from random import Random

import pytest

from benchmarks.claims import Claim, claims, first_of, independent, judge
from musilingo_core.data.dialogues import NAMES, NOT_MUSIC, SINGERS, Scene, ask, summary, write
from musilingo_core.data.facts import GENRES, OPPOSED, Facts

CHOIR = Claim("instrument", "choir")  # it may also be the voice
FACTS = Facts(
    instruments=("piano", "strings"),
    absent=("guitar", "flute"),
    genre="classical",
    not_genres=("rock", "metal"),
    tempo="slow",
    voice="none",
    loudness="soft",
    drums="no",
    moods=("calm", "sad"),
)


def test_a_description_is_a_list_of_claims() -> None:
    said = (
        "This is a slow, soft classical piece with piano and strings. "
        "It is instrumental, and it feels calm."
    )
    assert claims(said) == [
        Claim("tempo", "slow"), Claim("loudness", "soft"), Claim("genre", "classical"),
        Claim("instrument", "piano"), Claim("instrument", "strings"), Claim("voice", "none"),
        Claim("mood", "calm"),
    ]  # fmt: skip
    assert claims(said + " " + said) == claims(said)


@pytest.mark.parametrize(
    ("said", "claimed"),
    [
        ("No, I do not hear guitar; I hear piano.", [Claim("instrument", "piano")]),
        ("It is neither slow nor fast.", [Claim("tempo", "moderate")]),
        ("No, nobody sings, it is instrumental.", [Claim("voice", "none")]),
        ("There are no drums.", [Claim("drums", "no")]),
        ("Yes, there are drums.", [Claim("drums", "yes")]),
        ("Yes, a woman sings.", [Claim("voice", "female")]),
        ("I cannot tell whether there is harp.", []),
        ("It is a harpsichord.", [Claim("instrument", "harpsichord")]),
        ("Thank you!", []),
        ("It is not slow, it is fast.", [Claim("tempo", "fast")]),
        ("It is not piano but guitar.", [Claim("instrument", "guitar")]),
        ("I don't hear drums, a man sings.", [Claim("drums", "no"), Claim("voice", "male")]),
        ("It plays without drums.", [Claim("drums", "no")]),
        ("There is no choir.", []),
        ("There is no flute, guitar, harp or piano.", []),
        ("No, I do not hear a singer.", [Claim("voice", "none")]),
        ("No, I believe there is a singer.", [Claim("voice", "some")]),
        ("I cannot tell whether anyone sings.", []),
        ("It is about a man's life.", []),
        ("Guitars in hip hop.", [Claim("instrument", "guitar"), Claim("genre", "hip-hop")]),
        ("It is fast.\n\nIs it a slow song?", [Claim("tempo", "fast")]),
    ],
)
def test_what_is_denied_is_not_claimed(said: str, claimed: list[Claim]) -> None:
    assert claims(said) == claimed


@pytest.mark.parametrize(
    ("about", "value", "true"),
    [
        ("instrument", "piano", True), ("instrument", "guitar", False),
        ("instrument", "harp", None),
        ("genre", "classical", True), ("genre", "rock", False), ("genre", "ambient", None),
        ("tempo", "slow", True), ("tempo", "fast", False), ("tempo", "moderate", None),
        ("voice", "none", True), ("voice", "male", False), ("voice", "some", False),
        ("loudness", "loud", False), ("drums", "no", True), ("drums", "yes", False),
        ("mood", "sad", True), ("mood", "energetic", False), ("mood", "beautiful", None),
    ],
)  # fmt: skip
def test_a_claim_is_true_false_or_open(about: str, value: str, true: bool | None) -> None:
    assert judge(Claim(about, value), FACTS) is true


def test_silent_facts_leave_it_open_and_noise_makes_all_claims_false() -> None:
    assert judge(Claim("tempo", "slow"), Facts(instruments=("piano",))) is None
    assert judge(Claim("tempo", "slow"), Facts(kind="noise")) is False
    sung = Facts(voice="female")
    assert judge(Claim("voice", "some"), sung) is True
    assert judge(Claim("voice", "male"), sung) is False
    assert judge(Claim("voice", "male"), Facts(voice="some")) is True


def known_songs() -> list[Facts]:
    """Facts in which every genre, instrument, voice … stands at least once."""
    manners = zip(
        GENRES, cycle(SINGERS), cycle(["slow", "moderate", "fast"]), cycle(["loud", "soft", ""]),
        cycle(["yes", "no"]), cycle(OPPOSED), strict=False,
    )  # fmt: skip
    songs = []
    for number, (genre, voice, tempo, loudness, drums, mood) in enumerate(manners):
        played = tuple(islice(cycle(n for n in NAMES if n != "choir"), number, number + 3))
        absent = tuple(name for name in NAMES if name not in played)
        others = tuple(other for other in GENRES if other != genre)
        songs.append(
            Facts("music", played, absent, genre, others, tempo, voice, loudness, drums, (mood,))
        )
    return songs


def everything(facts: Facts) -> set[Claim]:
    """All that can be claimed of a song and is true."""
    found = {Claim("instrument", name) for name in facts.instruments}
    found |= {Claim(a, getattr(facts, a)) for a in ("tempo", "loudness", "genre", "voice", "drums")}
    found |= {Claim("mood", mood) for mood in facts.moods}
    return {claim for claim in found if claim.value}


@pytest.mark.parametrize("facts", known_songs(), ids=lambda facts: facts.genre)
def test_all_that_the_training_data_says_of_a_song_is_read_back(facts: Facts) -> None:
    scene = Scene(facts, 90.0, lambda start_s, end_s: facts)
    talks = [write(scene, Random(seed), turns=8) for seed in range(60)]
    said = {claim for talk in talks for _, answer in talk for claim in claims(answer)}
    assert said - {CHOIR} == everything(facts)


@pytest.mark.parametrize("facts", known_songs(), ids=lambda facts: facts.genre)
def test_each_form_of_answer_says_what_was_asked(facts: Facts) -> None:
    scene = Scene(facts, 90.0, lambda start_s, end_s: facts)
    told = {
        "describe": ["tempo", "loudness", "genre", "instrument", "voice", "mood"],
        "instruments": ["instrument"], "genre": ["genre"], "tempo": ["tempo"], "mood": ["mood"],
        "drums": ["drums"], "loud": ["loudness"], "singer": ["voice"], "instrumental": ["voice"],
        "sex": ["voice"], "title": [], "exact tempo": [], "thanks": [],
    }  # fmt: skip
    for topic, about in told.items():
        if turn := ask(topic, scene, Random(0)):
            wanted = {claim for claim in everything(facts) if claim.about in about}
            assert set(claims(turn[1])) - {CHOIR} == wanted, turn
    lead = ask("lead", scene, Random(0))
    assert lead and claims(lead[1]) == [Claim("instrument", facts.instruments[0])]


def test_what_is_no_music_is_read_back() -> None:
    for kind in NOT_MUSIC:
        assert claims(summary(Facts(kind=kind))) == [Claim("kind", kind)]
        assert judge(Claim("kind", kind), Facts(kind=kind)) is True
        assert judge(Claim("kind", kind), FACTS) is False


def test_a_mood_that_tempo_or_loudness_implies_is_not_counted_beside_it() -> None:
    found = claims("This is a slow, soft ambient piece. It feels calm, sad and gentle.")
    assert [c.value for c in independent(found)] == ["slow", "soft", "ambient", "sad"]
    assert independent(claims("It feels calm.")) == [Claim("mood", "calm")]
    assert first_of("mood")("It is slow and feels calm and sad.") == "calm"
    assert first_of("voice")("It is slow.") == ""
