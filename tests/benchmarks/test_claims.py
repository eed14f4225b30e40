import pytest

from benchmarks.claims import Claim, claims, judge
from musilingo_core.data.facts import Facts

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
