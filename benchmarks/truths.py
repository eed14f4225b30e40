"""Test clips and what is known of each: songs, rendered scores, what is no music, at any length.

*Teacher*: the encoder's own tag heads say so. *Pushed*: the features of three songs in four are
moved towards a voice, for hardly any free recording is sung. *Spliced*: two songs' stretches in a
row (72 s). *Certain*: rendered scores, and noise, speech and near-silence. *Documented*: what a
recording's title, credits or file tags say; in our list they name 7 songs that are sung and 6 that
are not, so figures of these are rough.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import torch

from musilingo_core import ChatEngine
from musilingo_core.data.dialogues import NAMES
from musilingo_core.data.facts import CHOIR, FEMALE, GENRES, MALE, Facts, Teacher
from musilingo_core.data.manifest import read_sounds
from musilingo_core.data.starter import Mixer, rendered_facts, timed
from musilingo_core.features import ID_DIGITS, Clip
from musilingo_core.times import find_spans

LONGEST_S = 1200  # longer tracks are not asked about
SLACK_S = 0.1  # by which a clip may be shorter than asked for: some lack a sample
WHOLE_SCORE_S = 100  # shorter rendered scores are excerpts and no whole songs
NO_SINGER = ("", "none")  # as `Facts` have it: not known, nobody
NO_SOUND = ("noise", "silence")  # kinds of what has neither music nor a voice
# How instrumental the judge finds songs: all documented instrumentals are above, all documented
# songs below the first; what lies between is left out.
INSTRUMENTAL, SUNG = 0.8, 0.65
STRETCH = 12  # rows of each song in a splice of two
MOMENT = "0:54"  # the middle of the second
# What papers call a genre, in our words; others are not counted.
GENRE_NAMES = {genre: genre for genre in GENRES} | {
    "romantic classical": "classical",
    "electronica": "electronic",
    "house": "electronic",
    "electro": "electronic",
    "drum and bass": "electronic",
    "thrash metal": "metal",
}


Sound = tuple[dict[str, Any], Clip]  # a sound file's row in its list, and what was heard of it


@dataclass(frozen=True)
class Case:
    """A clip to ask about.

    Attributes:
        track: Cases of one are alike, so intervals are drawn over tracks: a recording, of rendered
            scores the work, of songs by synthetic voices the (first) voice.
        clip: What is heard.
        facts: What is known of it.
    """

    track: str
    clip: Clip
    facts: Facts


def lasts(clip: Clip, seconds: float) -> bool:
    """Whether a clip is as long as that, or all but."""
    return clip.duration_s >= seconds - SLACK_S


def cut(clip: Clip, seconds: float | None) -> Clip:
    """The middle of a song; None leaves it whole. Shorter songs stay as they are."""
    if seconds is None or clip.duration_s <= seconds:
        return clip
    start = (clip.duration_s - seconds) / 2
    part = clip.part(start + 0.1, start + seconds - 0.1)
    times = part.times - part.times[0, 0]
    key = _key(clip.clip_id, seconds)
    return replace(part, clip_id=key, times=times, duration_s=float(times.max()))


def cuts(sounds: Sequence[Sound], seconds: float | None, shortest: float = 0) -> list[Sound]:
    """The middles of all sounds that are long enough; whole ones if they last the `shortest`."""
    least = shortest if seconds is None else seconds
    return [(row, cut(clip, seconds)) for row, clip in sounds if lasts(clip, least)]


def chosen(rows: Sequence[dict[str, Any]], per_album: int) -> list[dict[str, Any]]:
    """At most so many tracks of an album; always those documented as sung or as not sung."""
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        seen[row["album"]] += 1
        if seen[row["album"]] <= per_album or "vocal" in row.get("documented", {}):
            kept.append(row)
    return kept


def documented(row: dict[str, Any]) -> Facts:
    """Facts that a recording's own papers state."""
    known = row.get("documented", {})
    voice = known.get("vocal")
    sex = known.get("singer", "some")
    return Facts(
        instruments=(known["instrument"],) if known.get("instrument") in NAMES else (),
        genre=GENRE_NAMES.get(known.get("genre", ""), ""),
        voice="" if voice is None else sex if voice else "none",
    )


def scored(row: dict[str, Any], clip: Clip) -> Case:
    """A rendered score; whether a synthetic choir counts as somebody who sings is left open."""
    facts = rendered_facts(row)
    if facts.voice == "choir":
        facts = replace(facts, voice="")
    return Case(row.get("work") or row["score"], clip, facts)


def judged(path: str, verdicts: Mapping[str, float]) -> Facts:
    """Whether anyone sings, by the judge; nothing where it is in doubt or was not asked."""
    instrumental = verdicts.get(path)
    if instrumental is None or SUNG < instrumental < INSTRUMENTAL:
        return Facts()
    return Facts(voice="none" if instrumental >= INSTRUMENTAL else "some")


def pushed(songs: Sequence[Sound], teacher: Teacher) -> list[Sound]:
    """The songs again: every fourth as it is, the others pushed towards a man, a woman, a choir."""
    mixer = Mixer([clip.features for _, clip in songs], teacher, Random(0))
    made = []
    for number, (row, clip) in enumerate(songs):
        if tags := ((), MALE, FEMALE, CHOIR)[number % 4]:
            rows = mixer.push(clip.features, tags).clamp(-mixer.limit, mixer.limit)
            clip = replace(clip, clip_id=_key(clip.clip_id, "pushed"), features=rows)
        made.append((row, clip))
    return made


def splices(songs: Sequence[Sound], teacher: Teacher) -> Iterator[Case]:
    """Two songs' stretches in a row, lead instruments differing, facts of the second's middle."""
    long = [(row, clip) for row, clip in songs if len(clip.features) >= STRETCH]
    leads = [teacher.facts(clip.features[:STRETCH]).instruments[0] for _, clip in long]
    for number, (row, clip) in enumerate(long):
        others = [i for i, lead in enumerate(leads) if lead != leads[number]]
        if not others:
            continue
        _, before = long[others[number % len(others)]]
        rows = torch.cat([before.features[:STRETCH], clip.features[:STRETCH]])
        whole = timed(rows, _key(before.clip_id, clip.clip_id), clip.fingerprint)
        (span,) = find_spans(f"at {MOMENT}", whole.duration_s)
        part = whole.part(span.start_s, span.end_s)
        yield Case(row["path"], whole, teacher.facts(part.features))


def _key(*parts: object) -> str:
    """An id for a clip that is no file."""
    return sha256(" ".join(map(str, parts)).encode()).hexdigest()[:ID_DIGITS]


@dataclass(frozen=True)
class Sounds:
    """Everything there is to ask about, heard once.

    Attributes:
        teacher: Labels songs.
        songs, scores, sung, other: Sound files and what was heard of them.
        verdicts: How instrumental the judge finds songs, by path.
    """

    teacher: Teacher
    songs: tuple[Sound, ...] = ()
    scores: tuple[Sound, ...] = ()
    sung: tuple[Sound, ...] = ()
    other: tuple[Sound, ...] = ()
    verdicts: Mapping[str, float] = field(default_factory=dict)

    def cases(self, length: str) -> Iterator[tuple[str, list[Case]]]:
        """The cases of each truth at a length in seconds, or `whole`."""
        seconds = None if length == "whole" else float(length)
        real = self._tagged(cuts(self.songs, seconds))
        yield "teacher", real
        yield "teacher, pushed", self._tagged(cuts(self._voiced, seconds))
        songs = cuts(self.songs, seconds)
        known = [Case(row["path"], c, documented(row)) for row, c in songs]
        yield "documented", known
        told = [Case(row["path"], c, judged(row["path"], self.verdicts)) for row, c in songs]
        for truth, cases in (("documented", known), ("judged", told)):
            if seconds is None:  # that a song is sung does not mean that every second of it is
                yield f"{truth}, sung", [c for c in cases if c.facts.voice not in NO_SINGER]
            yield f"{truth}, instrumental", [c for c in cases if c.facts.voice == "none"]
        rendered = cuts(self.scores, seconds, WHOLE_SCORE_S)
        yield "certain", [scored(row, c) for row, c in rendered]
        voices = [
            (r["singers"][0], c, Facts(voice=r["voice"])) for r, c in cuts(self.sung, seconds)
        ]
        yield "certain, sung", [Case(*voice) for voice in voices]
        kinds = cuts(self.other, seconds)
        nothing = [Case(row["path"], c, Facts(kind=row["kind"])) for row, c in kinds]
        yield "certain, kind", [*nothing, *real]
        yield "certain, no sound", [case for case in nothing if case.facts.kind in NO_SOUND]

    @cached_property
    def _voiced(self) -> list[Sound]:
        return pushed(self.songs, self.teacher) if self.songs else []

    def splices(self) -> list[Case]:
        """Two songs in a row, with the facts of a moment in the second."""
        return list(splices(self.songs, self.teacher))

    def _tagged(self, sounds: Iterable[Sound]) -> list[Case]:
        return [Case(row["path"], c, self.teacher.facts(c.features)) for row, c in sounds]


def hear_all(
    engine: ChatEngine,
    per_album: int,
    music: Sequence[Path],
    rendered: Sequence[Path] = (),
    sung: Sequence[Path] = (),
    not_music: Sequence[Path] = (),
    judged: Path | None = None,
) -> Sounds:
    """Hears all sound files of some lists, at most so many songs of an album."""

    def heard(rows: Iterable[dict[str, Any]]) -> tuple[Sound, ...]:
        return tuple((row, engine.encode(row["path"])) for row in rows)

    def listed(lists: Sequence[Path], *needed: str) -> list[dict[str, Any]]:
        return [row for path in lists for row in read_sounds(path, *needed)]

    songs = chosen(listed(music), per_album)
    return Sounds(
        teacher=Teacher(engine.model.audio_tower),
        songs=heard(row for row in songs if row["duration_s"] <= LONGEST_S),
        scores=heard(listed(rendered)),
        sung=heard(listed(sung, "voice", "singers")),
        other=heard(listed(not_music)),
        verdicts=_verdicts(judged) if judged else {},
    )


def _verdicts(file: Path) -> dict[str, float]:
    rows = map(json.loads, file.read_text("utf-8").splitlines())
    return {row["path"]: row["instrumental"] for row in rows}
