"""What there is to say about a piece of music, and a teacher that reads it from features.

The teacher is the encoder's own pair of tag heads. Being linear in the features, they label any
mixture of songs exactly; what they say is agreement with a tagger and not truth. Certain facts (of
rendered scores) replace the teacher's where there are some.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from musilingo_core.encoders.musicnn import MusicnnEncoder

# Our word for a class: the tags that speak for it. m: MagnaTagATune, s: Million Song Dataset.
INSTRUMENTS = {
    "guitar": ("m:guitar", "s:guitar"),
    "strings": ("m:strings", "m:violin", "m:cello"),
    "piano": ("m:piano",),
    "synth": ("m:synth",),
    "flute": ("m:flute",),
    "harpsichord": ("m:harpsichord",),
    "sitar": ("m:sitar",),
    "harp": ("m:harp",),
}
GENRES = {
    "classical": ("m:classical", "m:classic"),
    "electronic": ("m:techno", "m:electronic", "s:electronic", "s:house", "s:electro"),
    "ambient": ("m:ambient", "m:new age", "s:ambient", "s:chillout"),
    "rock": ("m:rock", "s:rock", "s:hard rock", "s:classic rock", "s:punk", "s:alternative"),
    "metal": ("m:metal", "s:metal", "s:heavy metal"),
    "pop": ("m:pop", "s:pop", "s:indie pop"),
    "jazz": ("s:jazz",),
    "folk": ("s:folk",),
    "country": ("m:country", "s:country"),
    "blues": ("s:blues",),
    "soul": ("s:soul", "s:rnb"),
    "funk": ("s:funk",),
    "hip-hop": ("s:hip-hop",),
    "Indian": ("m:indian",),
    "opera": ("m:opera",),
}
FEMALE = ("m:female", "m:woman", "m:female vocal", "m:female voice", "s:female vocalists")
MALE = ("m:male", "m:man", "m:male vocal", "m:male voice", "s:male vocalists")
VOICE = ("m:vocal", "m:vocals", "m:singing", "m:voice", "m:choir", "m:choral", "m:opera")
DRUMS = ("m:drums", "m:beat", "m:beats")

VOICE_SURE, VOICE_ABSENT = 0.30, 0.13  # probability of the likeliest voice tag
SEX_MARGIN = 0.5  # logits
TEMPO_OFFSET, TEMPO_MARGIN = 1.3, 0.6  # logits; the offset makes slow and fast equally common
LOUD_OFFSET, LOUD_MARGIN = 0.6, 0.8  # logits, loud against quiet and soft
PRESENT, ABSENT = 0.18, 0.05  # probability of an instrument's likeliest tag


@dataclass(frozen=True)
class Facts:
    """What may be said. An empty word means that nothing certain can be said.

    Attributes:
        kind: `music`, `noise`, `speech` or `silence`.
        instruments: Heard, the leading one first.
        absent: Instruments that are surely not heard.
        genre: A key of `GENRES`.
        tempo: `slow`, `moderate` or `fast`.
        voice: `none`, `male`, `female`, `some` (a singer of unclear sex) or empty.
        loudness: `loud`, `soft` or empty.
        drums: `yes`, `no` or empty.
        moods: Words, the clearest first.
    """

    kind: str = "music"
    instruments: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    genre: str = ""
    tempo: str = ""
    voice: str = ""
    loudness: str = ""
    drums: str = ""
    moods: tuple[str, ...] = ()


class Teacher:
    """Reads facts from features through the encoder's tag heads."""

    def __init__(self, encoder: MusicnnEncoder) -> None:
        self.encoder = encoder
        names = [f"{'ms'[i]}:{tag}" for i, tags in enumerate(encoder.config.tags) for tag in tags]
        self.number = {name: i for i, name in enumerate(names)}

    def heads(self) -> Tensor:
        """(tags, size): what each tag's logit weighs in a feature row, in the order of `number`."""
        networks: Any = self.encoder.networks
        return torch.block_diag(*(network.head.weight.detach() for network in networks))

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """(rows, size) to (tags,): of the mean row, which is the mean over rows."""
        return self.encoder.tag_logits(features.mean(0))

    def facts(self, features: Tensor) -> Facts:
        """Facts of a stretch of music from its rows (rows, size)."""
        logits = self.logits(features)

        def top(tags: tuple[str, ...]) -> float:
            return float(logits[[self.number[tag] for tag in tags]].max())

        def p(tags: tuple[str, ...]) -> float:
            return float(torch.sigmoid(torch.tensor(top(tags))))

        strength = {name: p(tags) for name, tags in INSTRUMENTS.items()}
        ranked = sorted(strength, key=strength.__getitem__, reverse=True)
        pace = top(("m:fast",)) - top(("m:slow",)) + TEMPO_OFFSET
        loud = top(("m:loud",)) - top(("m:quiet", "m:soft")) + LOUD_OFFSET
        facts = Facts(
            instruments=(ranked[0], *(n for n in ranked[1:3] if strength[n] > PRESENT)),
            absent=tuple(n for n in ranked if strength[n] < ABSENT),
            genre=max(GENRES, key=lambda genre: p(GENRES[genre])),
            tempo=_side(pace, TEMPO_MARGIN, "fast", "slow", "moderate"),
            voice=self._voice(p(VOICE + MALE + FEMALE), top(FEMALE) - top(MALE)),
            loudness=_side(loud, LOUD_MARGIN, "loud", "soft", ""),
            drums="yes" if p(DRUMS) > 0.25 else "no" if p(DRUMS) < 0.08 else "",
        )
        return replace(facts, moods=moods(facts, {t: top((t,)) for t in _MOOD_TAGS}))

    @staticmethod
    def _voice(probability: float, female_minus_male: float) -> str:
        if probability < VOICE_ABSENT:
            return "none"
        if probability < VOICE_SURE:
            return ""
        return _side(female_minus_male, SEX_MARGIN, "female", "male", "some")


_MOOD_TAGS = {"s:sad": -4.6, "s:happy": -5.3, "m:weird": -2.3, "s:party": -4.6, "s:beautiful": -3.1}


def moods(facts: Facts, logits: dict[str, float]) -> tuple[str, ...]:
    """Moods from tempo, loudness and mood tags (logits; see `_MOOD_TAGS` for what is much)."""
    found = []
    if facts.tempo == "fast":
        found.append("energetic")
    if facts.tempo == "slow":
        found.append("calm")
    if facts.loudness == "loud" and facts.genre in {"metal", "rock"}:
        found.append("aggressive")
    if facts.loudness == "soft":
        found.append("gentle")
    words = {"s:sad": "sad", "s:happy": "happy", "m:weird": "strange", "s:party": "festive"}
    words["s:beautiful"] = "beautiful"
    found += [words[tag] for tag, much in _MOOD_TAGS.items() if logits[tag] > much]
    if facts.genre == "ambient":
        found.append("dreamy")
    return tuple(found[:3]) or ("neutral",)


def _side(value: float, margin: float, above: str, below: str, between: str) -> str:
    if value > margin:
        return above
    return below if value < -margin else between
