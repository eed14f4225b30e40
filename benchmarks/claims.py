"""What an answer claims about a song, and whether that is so.

A claim is a word from a closed list (an instrument, a genre, a tempo …). It is true or false by a
song's facts; where the facts leave it open, it is neither, and is not counted.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from musilingo_core.data.dialogues import NAMES
from musilingo_core.data.facts import GENRES, OPPOSED, Facts

TEMPI = {
    "slow": "slow", "slowly": "slow", "fast": "fast", "quick": "fast", "quickly": "fast",
    "mid-tempo": "moderate", "moderate": "moderate", "neither slow nor fast": "moderate",
}  # fmt: skip
LOUDNESS = {"loud": "loud", "soft": "soft", "quiet": "soft"}
VOICES = {
    "instrumental": "none", "nobody": "none", "no singer": "none", "a man": "male", "male": "male",
    "a woman": "female", "female": "female", "choir": "choir", "someone sings": "some",
}  # fmt: skip
DRUMS = {"no drums": "no", "drums": "yes"}
WORDS = {
    "tempo": TEMPI,
    "loudness": LOUDNESS,
    "genre": {genre: genre for genre in GENRES},
    "instrument": {word: name for name, word in NAMES.items() if name != "choir"},
    "voice": VOICES,
    "drums": DRUMS,
    "mood": {mood: mood for mood in OPPOSED},
}
DENIED = re.compile(r"\b(?:no|not|cannot|neither)\b[^.;,]*")


@dataclass(frozen=True)
class Claim:
    """One thing said of a song.

    Attributes:
        about: A key of `WORDS`.
        value: As the facts have it.
    """

    about: str
    value: str


def claims(answer: str) -> list[Claim]:
    """What an answer claims, each thing once, in order; what it denies is no claim."""
    found: dict[Claim, None] = {}
    for sentence in re.split(r"(?<=[.;!?])\s+", answer):
        for claim in _in_sentence(sentence):
            found[claim] = None
    return list(found)


def _in_sentence(sentence: str) -> Iterator[Claim]:
    places = []
    for about, words in WORDS.items():
        # Longest first, so that "neither slow nor fast" is one thing and "no drums" is not drums.
        pattern = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
        for match in re.finditer(rf"\b(?:{pattern})\b", sentence, re.I):
            lower = {word.lower(): value for word, value in words.items()}
            places.append((match.start(), Claim(about, lower[match.group().lower()])))
    denied = [match.span() for match in DENIED.finditer(sentence)]
    for start, claim in sorted(places, key=lambda place: place[0]):
        inside = any(low < start < high for low, high in denied)
        if not inside or claim.about in ("voice", "drums", "tempo"):
            yield claim


def judge(claim: Claim, facts: Facts) -> bool | None:
    """Whether a claim is true; None where the facts leave it open."""
    value = claim.value
    if facts.kind != "music":
        return False
    if claim.about == "instrument":
        return True if value in facts.instruments else False if value in facts.absent else None
    if claim.about == "genre":
        return True if value == facts.genre else False if value in facts.not_genres else None
    if claim.about == "mood":
        opposed = any(value in OPPOSED[m] or m in OPPOSED[value] for m in _known(facts.moods))
        return True if value in facts.moods else False if opposed else None
    if claim.about == "tempo":
        return _either(value, facts.tempo, between="moderate")
    if claim.about == "voice":
        sung = {"", "none"}
        if "some" in (value, facts.voice) and value not in sung and facts.voice not in sung:
            return True
        return _either(value, facts.voice)
    return _either(value, facts.loudness if claim.about == "loudness" else facts.drums)


def _known(moods: tuple[str, ...]) -> list[str]:
    return [mood for mood in moods if mood in OPPOSED]


def _either(value: str, truth: str, between: str = "") -> bool | None:
    """True, false, or open where the truth is silent or one of the two lies in between."""
    if not truth:
        return None
    if value == truth:
        return True
    return None if between and between in (value, truth) else False
