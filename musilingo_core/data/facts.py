"""What there is to say about a piece of music, and a teacher that reads it from features.

The teacher is the encoder's own pair of tag heads. Being linear in the features, they label any
mixture of songs exactly; what they say is agreement with a tagger and not truth. Certain facts (of
rendered scores) replace the teacher's where there are some.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
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
CHOIR = ("m:choir", "m:choral")
VOICE = ("m:vocal", "m:vocals", "m:singing", "m:voice", "m:opera", *CHOIR)
DRUMS = ("m:drums", "m:beat", "m:beats")

VOICE_SURE, VOICE_ABSENT = 0.30, 0.13  # probability of the likeliest voice tag
SEX_MARGIN = 0.5  # logits
CHOIR_MARGIN = 0.5  # logits, over the likeliest other voice tag
GENRE_MARGIN = 1.0  # logits by which a genre is surely not the one
TEMPO_OFFSET, TEMPO_MARGIN = 1.3, 0.6  # logits; the offset makes slow and fast equally common
MODERATE = 0.2  # logits either way; of what lies between this and a tempo nothing is said
LOUD_OFFSET, LOUD_MARGIN = 0.6, 0.8  # logits, loud against quiet and soft
MOOD_MARGIN = 1.0  # logits below what is much, where a mood surely is not
PRESENT, ABSENT = 0.18, 0.05  # probability of an instrument's likeliest tag


@dataclass(frozen=True)
class Facts:
    """What may be said. An empty word means that nothing certain can be said.

    Attributes:
        kind: `music`, `noise`, `speech` or `silence`.
        instruments: Heard, the leading one first.
        absent: Instruments that are surely not heard.
        genre: A key of `GENRES`.
        not_genres: Genres that it surely is not.
        tempo: `slow`, `moderate` or `fast`.
        voice: `none`, `male`, `female`, `choir`, `some` (a singer of unclear sex) or empty.
        loudness: `loud`, `soft` or empty.
        drums: `yes`, `no` or empty.
        moods: Words, the clearest first.
        not_moods: Moods that it surely has not.
    """

    kind: str = "music"
    instruments: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    genre: str = ""
    not_genres: tuple[str, ...] = ()
    tempo: str = ""
    voice: str = ""
    loudness: str = ""
    drums: str = ""
    moods: tuple[str, ...] = ()
    not_moods: tuple[str, ...] = ()


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

    def facts(self, features: Tensor, certain: Facts | None = None) -> Facts:
        """Facts of a stretch of music from its rows (rows, size).

        Args:
            features: The rows.
            certain: Facts that are known; whatever they say is taken from them.
        """
        if certain is not None and certain.kind != "music":
            return certain
        logits = self.logits(features)

        def top(tags: tuple[str, ...]) -> float:
            return float(logits[[self.number[tag] for tag in tags]].max())

        def p(tags: tuple[str, ...]) -> float:
            return float(torch.sigmoid(torch.tensor(top(tags))))

        strength = {name: p(tags) for name, tags in INSTRUMENTS.items()}
        ranked = sorted(strength, key=strength.__getitem__, reverse=True)
        styles = {genre: top(tags) for genre, tags in GENRES.items()}
        genre = max(styles, key=styles.__getitem__)
        pace = top(("m:fast",)) - top(("m:slow",)) + TEMPO_OFFSET
        between = "moderate" if abs(pace) < MODERATE else ""
        loud = top(("m:loud",)) - top(("m:quiet", "m:soft")) + LOUD_OFFSET
        facts = Facts(
            instruments=(ranked[0], *(n for n in ranked[1:3] if strength[n] > PRESENT)),
            absent=tuple(n for n in ranked if strength[n] < ABSENT),
            genre=genre,
            not_genres=tuple(g for g in styles if styles[g] < styles[genre] - GENRE_MARGIN),
            tempo=_side(pace, TEMPO_MARGIN, "fast", "slow", between),
            voice=self._voice(top),
            loudness=_side(loud, LOUD_MARGIN, "loud", "soft", ""),
            drums="yes" if p(DRUMS) > 0.25 else "no" if p(DRUMS) < 0.08 else "",
        )
        if certain is not None:
            known = {f.name: getattr(certain, f.name) for f in fields(Facts)}
            facts = replace(facts, **{name: value for name, value in known.items() if value})
        heard = {tag: top((tag,)) for tag in _MOOD_TAGS}
        facts = replace(facts, moods=moods(facts, heard))
        return replace(facts, not_moods=not_moods(facts, heard))

    @staticmethod
    def _voice(top: Callable[[tuple[str, ...]], float]) -> str:
        """Who sings, by the highest logit among tags."""
        solo = tuple(tag for tag in (*VOICE, *MALE, *FEMALE) if tag not in CHOIR)
        highest = torch.sigmoid(torch.tensor(max(top(solo), top(CHOIR))))
        if highest < VOICE_ABSENT:
            return "none"
        if highest < VOICE_SURE:
            return ""
        if top(CHOIR) > top(solo) + CHOIR_MARGIN:
            return "choir"
        return _side(top(FEMALE) - top(MALE), SEX_MARGIN, "female", "male", "some")


# What a mood is surely not.
OPPOSED = {
    "calm": ("energetic", "aggressive", "festive", "happy"),
    "gentle": ("energetic", "aggressive", "festive", "strange"),
    "dreamy": ("energetic", "aggressive", "festive", "happy"),
    "sad": ("happy", "festive", "energetic", "aggressive"),
    "beautiful": ("aggressive", "strange", "festive"),
    "energetic": ("calm", "gentle", "dreamy", "sad"),
    "aggressive": ("calm", "gentle", "dreamy", "sad"),
    "happy": ("sad", "aggressive", "dreamy", "calm"),
    "festive": ("sad", "calm", "gentle", "dreamy"),
    "strange": ("gentle", "beautiful", "happy"),
}
_MOOD_TAGS = {"s:sad": -4.6, "s:happy": -5.3, "m:weird": -2.3, "s:party": -4.6, "s:beautiful": -3.1}
_MOOD_WORDS = {
    "s:sad": "sad",
    "s:happy": "happy",
    "m:weird": "strange",
    "s:party": "festive",
    "s:beautiful": "beautiful",
}


def moods(facts: Facts, logits: dict[str, float]) -> tuple[str, ...]:
    """Up to three moods from tempo, loudness and mood tags, none opposed to one before it.

    Args:
        facts: Of tempo, loudness and genre.
        logits: Of the mood tags; see `_MOOD_TAGS` for what is much.
    """
    above = {tag: logits[tag] - much for tag, much in _MOOD_TAGS.items()}
    tagged = [_MOOD_WORDS[t] for t in sorted(above, key=above.__getitem__)[::-1] if above[t] > 0]
    candidates = [
        *(["energetic"] if facts.tempo == "fast" else []),
        *(["calm"] if facts.tempo == "slow" else []),
        *(["aggressive"] if facts.loudness == "loud" and facts.genre in {"metal", "rock"} else []),
        *(["gentle"] if facts.loudness == "soft" else []),
        *tagged,
        *(["dreamy"] if facts.genre == "ambient" else []),
    ]
    found: list[str] = []
    for mood in candidates:
        if not any(mood in OPPOSED[other] or other in OPPOSED[mood] for other in found):
            found.append(mood)
    return tuple(found[:3]) or ("neutral",)


def not_moods(facts: Facts, logits: dict[str, float]) -> tuple[str, ...]:
    """Moods that surely do not fit: opposed to what does, or without any sign of them.

    Args:
        facts: Of tempo, loudness, genre and moods.
        logits: Of the mood tags.
    """
    against = {
        "energetic": facts.tempo == "slow",
        "calm": facts.tempo == "fast",
        "gentle": facts.loudness == "loud",
        "aggressive": facts.loudness == "soft" or {"metal", "rock"} <= set(facts.not_genres),
        "dreamy": "ambient" in facts.not_genres,
        **{_MOOD_WORDS[t]: logits[t] < much - MOOD_MARGIN for t, much in _MOOD_TAGS.items()},
    }
    opposed = {other for mood in facts.moods for other in OPPOSED.get(mood, ())}
    return tuple(m for m in OPPOSED if m not in facts.moods and (against[m] or m in opposed))


def _side(value: float, margin: float, above: str, below: str, between: str) -> str:
    if value > margin:
        return above
    return below if value < -margin else between
