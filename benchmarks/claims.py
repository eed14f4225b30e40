"""What an answer claims about a song, and whether that is so.

A claim is a word from a closed list (an instrument, a genre, noise …). It is true or false by a
song's facts; where the facts leave it open, it is neither, and is not counted.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from musilingo_core.data.dialogues import NAMES
from musilingo_core.data.facts import GENRES, OPPOSED, Facts

TEMPI = {
    "slow": "slow", "slowly": "slow", "fast": "fast", "quick": "fast", "quickly": "fast",
    "mid-tempo": "moderate", "moderate": "moderate", "neither slow nor fast": "moderate",
}  # fmt: skip
LOUDNESS = {"loud": "loud", "soft": "soft", "quiet": "soft"}
VOICES = {
    "instrumental": "none", "nobody": "none", "man": "male", "male": "male", "woman": "female",
    "female": "female", "choir": "choir",
    **dict.fromkeys(("singer", "sing", "singing", "sung", "vocal", "vocalist", "voice"), "some"),
}  # fmt: skip
KINDS = {
    "noise": "noise", "speech": "speech", "speaking": "speech", "spoken": "speech",
    "talking": "speech", "silence": "silence", "silent": "silence", "nothing": "silence",
}  # fmt: skip
WORDS = {  # in the singular where there is one
    "kind": KINDS,
    "tempo": TEMPI,
    "loudness": LOUDNESS,
    "genre": {genre.lower(): genre for genre in GENRES} | {"hip hop": "hip-hop"},
    "instrument": {word: name for name, word in NAMES.items()},
    "voice": VOICES,
    "drums": {"drum": "yes"},
    "mood": {mood: mood for mood in OPPOSED},
}


@dataclass(frozen=True)
class Claim:
    """One thing said of a song.

    Attributes:
        about: A key of `WORDS`.
        value: As the facts have it.
    """

    about: str
    value: str


MEANT = {
    word: [Claim(about, words[word]) for about, words in WORDS.items() if word in words]
    for word in sorted((word for words in WORDS.values() for word in words), key=len, reverse=True)
}  # longest first: "neither slow nor fast" is one thing
WORD = re.compile(rf"\b({'|'.join(map(re.escape, MEANT))})s?\b(?!['’])", re.I)
# A denial goes to the next stop or comma, or past commas to an "or"; "No," only opens an answer.
DENIED = re.compile(
    r"\b(?:no\b(?!,)|not|cannot|neither|without|\w+n['’]t)\b(?P<unsure> (?:tell|know|sure)\b)?"
    r"(?:(?! but\b| and (?:I|it|the|there)\b)[^.;,]|,(?=(?: [\w-]+,)*(?: [\w-]+)? n?or\b))*",
    re.I,
)
OPPOSITES = {
    Claim("drums", "yes"): Claim("drums", "no"),
    Claim("voice", "some"): Claim("voice", "none"),
}
IMPLIED = {
    Claim("mood", "calm"): Claim("tempo", "slow"),
    Claim("mood", "energetic"): Claim("tempo", "fast"),
    Claim("mood", "gentle"): Claim("loudness", "soft"),
    Claim("mood", "aggressive"): Claim("loudness", "loud"),
    Claim("mood", "dreamy"): Claim("genre", "ambient"),
}
PLACE = re.compile(r"\bwould fit [^,.;]*")  # "a quiet dinner" does not make a song quiet


def claims(answer: str) -> list[Claim]:
    """What an answer claims, each thing once, in order.

    What it denies is no claim, save that there are no drums or that nobody sings; nor is what it
    asks.
    """
    sentences = re.split(r"(?<=[.;!?])\s+", PLACE.sub("", answer))
    found = dict.fromkeys(c for s in sentences if not s.endswith("?") for c in _in_sentence(s))
    if any(claim.about == "voice" and claim.value != "some" for claim in found):
        found.pop(Claim("voice", "some"), None)  # "a man sings" is one thing
    return list(found)


def independent(found: Sequence[Claim]) -> list[Claim]:
    """Claims without moods that others of them already imply (see `musilingo_core.data.facts`)."""
    return [claim for claim in found if IMPLIED.get(claim) not in found]


def first_of(about: str) -> Callable[[str], str]:
    """Reads the first thing of a kind that an answer claims; nothing where there is none."""
    return lambda answer: next((c.value for c in claims(answer) if c.about == about), "")


def _in_sentence(sentence: str) -> Iterator[Claim]:
    denials = list(DENIED.finditer(sentence))
    for match in WORD.finditer(sentence):
        denial = next((d for d in denials if d.start() < match.start() < d.end()), None)
        for claim in MEANT[match[1].lower()]:
            if denial is None:
                yield claim
            elif claim in OPPOSITES and not denial["unsure"]:
                yield OPPOSITES[claim]


def judge(claim: Claim, facts: Facts) -> bool | None:
    """Whether a claim is true; None where the facts leave it open.

    The tag heads have no word for organ, brass and bells: by their facts these are always open.
    """
    value = claim.value
    if claim.about == "kind":
        return value == facts.kind
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
