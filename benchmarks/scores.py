"""Renders public-domain scores to sound, so that it is known what sounds.

The scores come from the corpus inside the package ``music21``; this script gives their parts to one
or two General MIDI instrument families, sets tempo, dynamics and key, writes a MIDI file and has
``fluidsynth`` play it. It judges nothing and trains nothing: it writes sound files and a manifest
that other programs read. Needs ``music21``, and the programs ``fluidsynth`` and ``ffmpeg``.

A row of the manifest says what sounds throughout the clip. Where something changes within it,
``sections`` has a row for each part with ``start_s``, ``end_s`` and what is so there only. ``key``
is empty where it is not certain (see ``key_of`` and ``key_margin``).

Public domain is judged by the composer: every composer in ``SOURCES`` died more than 70 years ago,
and the folk tunes are traditional, printed in 1883. Only the notes are taken from the encodings in
the corpus (pitches, lengths, metre), no editor's markings. Check the terms of the corpus before you
share an encoding itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

SAMPLE_RATE = 44_100  # Hz, that of the samples in the soundfont: no aliasing
TICKS = 480  # MIDI ticks per beat
FADE_S = 0.5  # seconds, at the end of a clip
DRUM_CHANNEL = 9  # General MIDI's channel 10, counted from 0
MOST_VOICES = 15  # MIDI channels without that of the drums
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")  # Debian: fluid-soundfont-gm

# Distinct onsets per beat. With these limits, slow clips stay under 66 · 2.4 / 60 = 2.6 onsets a
# second and fast ones above 138 · 1.2 / 60 = 2.7: the beats per minute really say how fast the
# music sounds.
ONSETS_PER_BEAT = (1.2, 2.4)

TEMPI = {
    "slow": (44, 66),
    "medium": (84, 108),
    "fast": (138, 190),
}  # beats per minute, both ends included
COMPOUND = (6, 9, 12)  # eighths in a bar whose beat is a dotted quarter
DYNAMICS = {"soft": 48, "medium": 78, "loud": 112}  # MIDI velocity
SOFTER = 10  # velocity that parts below the melody lack
ACCOMPANYING = 0.65  # share of the melody's velocity that a second family has: 7 dB less
PLAYING = 0.6  # share of the beats in which each of two families must sound
KEY_MARGIN = 0.05  # correlation by which an excerpt must fit its key better than any other
TURN = (0.35, 0.65)  # share of a clip before something changes
TONICS = ("C", "D-flat", "D", "E-flat", "E", "F", "F-sharp", "G", "A-flat", "A", "B-flat", "B")
MINOR_TONICS = {"D-flat": "C-sharp", "A-flat": "G-sharp"}  # what minor keys are called instead
TEST_SHARE = 3  # one work in three is a test work
SHOWN = {"mozart/k545"}  # visitors hear it on the page, so it is not trained on


@dataclass(frozen=True)
class Source:
    """A folder of the corpus and why its scores are in the public domain.

    Attributes:
        pattern: what the score names look like (``fnmatch``).
        composer: the composer's name.
        died: year of death; for traditional tunes the year of the print they are taken from.
        weight: share of the clips that shall come from here.
        more: whether it is used with ``--more`` only.
    """

    pattern: str
    composer: str
    died: int
    weight: int
    more: bool = False


SOURCES = (
    Source("bach/bwv*.mxl", "Johann Sebastian Bach", 1750, 9),
    Source("ryansMammoth/*Reel.abc", "traditional", 1883, 4),
    Source("ryansMammoth/*Hornpipe.abc", "traditional", 1883, 3),
    Source("beethoven/opus18no1/*.mxl", "Ludwig van Beethoven", 1827, 1),
    Source("beethoven/opus59no?/*.mxl", "Ludwig van Beethoven", 1827, 1),
    Source("schumann_robert/opus41no1/*.mxl", "Robert Schumann", 1856, 1),
    Source("joplin/*.mxl", "Scott Joplin", 1917, 1),
    Source("ryansMammoth/*Jig.abc", "traditional", 1883, 5, more=True),
    Source("mozart/k*/*.mxl", "Wolfgang Amadeus Mozart", 1791, 3, more=True),
    Source("haydn/opus*/*.mxl", "Joseph Haydn", 1809, 2, more=True),
)


@dataclass(frozen=True)
class Family:
    """A group of General MIDI instruments that sound alike.

    Attributes:
        palettes: sets of programs (0 to 127); within a set, from the highest part to the lowest.
        low: lowest MIDI pitch that suits the family.
        high: highest one.
        gain: fluidsynth's gain, so that loud chords stay below full scale.
    """

    palettes: tuple[tuple[int, ...], ...]
    low: int
    high: int
    gain: float = 0.5


FAMILIES = {
    "piano": Family(((0,), (1,)), 28, 100),
    "harpsichord": Family(((6,),), 29, 89),
    "organ": Family(((19,), (16,), (20,)), 36, 96),
    "guitar": Family(((24,), (25,), (26,), (27,)), 40, 84),
    "strings": Family(((48,), (49,), (40, 40, 41, 42)), 36, 96),
    "flute": Family(((73,), (74,)), 60, 96),
    "brass": Family(((61,), (56, 56, 57, 58), (60,)), 36, 84),
    "harp": Family(((46,),), 31, 100),
    "bells": Family(((9,), (11,), (12,), (14,)), 53, 100),
    "choir": Family(((52,), (53,)), 41, 81),
    "synth": Family(((80,), (81,), (90,)), 36, 96, gain=0.2),
}


@dataclass(frozen=True)
class Note:
    """One sounding note.

    Attributes:
        start: beats from the beginning.
        length: in beats.
        pitch: MIDI pitch, 0 to 127.
    """

    start: float
    length: float
    pitch: int


@dataclass(frozen=True)
class Score:
    """What is used of a score.

    Attributes:
        name: its name in the corpus.
        composer: the composer's name.
        parts: the notes of each part, highest part first.
        bar: length of a bar in beats.
        pickup: length of the incomplete first bar in beats, 0 when there is none.
        end: where the last bar ends, in beats.
        beat_quarters: length of a beat in the quarter notes of the score's own notation.
        metre: the time signature, such as 6/8.
        key: pitch class of the tonic (0 to 11), and major or minor; None where it is not certain.
    """

    name: str
    composer: str
    parts: tuple[tuple[Note, ...], ...]
    bar: float
    pickup: float
    end: float
    beat_quarters: float = 1.0
    metre: str = "4/4"
    key: tuple[int, str] | None = None

    @property
    def division(self) -> str:
        """``compound`` where a beat falls into three, else ``simple``."""
        return "compound" if int(self.metre.partition("/")[0]) in COMPOUND else "simple"

    @property
    def grouping(self) -> str:
        """``triple`` where a bar has three beats on paper, ``duple`` where it has two or four."""
        return "triple" if int(self.metre.partition("/")[0]) in (3, 9) else "duple"

    @property
    def onsets_per_beat(self) -> float:
        """Distinct moments at which a note begins, per beat."""
        return len({round(note.start, 3) for part in self.parts for note in part}) / self.end


@dataclass(frozen=True)
class Plan:
    """How one clip shall sound.

    Attributes:
        family: a key of ``FAMILIES``.
        programs: General MIDI programs, highest part first.
        tempo: a key of ``TEMPI``.
        bpm: beats per minute.
        dynamics: a key of ``DYNAMICS``.
        drums: whether a drum pattern goes along.
        second: the family of all parts but the highest; empty when it is the same.
        second_programs: its programs.
        transpose: semitones up.
    """

    family: str
    programs: tuple[int, ...]
    tempo: str
    bpm: int
    dynamics: str
    drums: bool
    second: str = ""
    second_programs: tuple[int, ...] = ()
    transpose: int = 0


@dataclass(frozen=True)
class Voice:
    """The notes of one MIDI channel.

    Attributes:
        program: General MIDI program; ignored for drums.
        notes: what it plays.
        velocity: MIDI velocity of an unaccented note.
        drums: whether this is the drum channel.
    """

    program: int
    notes: tuple[Note, ...]
    velocity: int
    drums: bool = False


# ---- which score belongs where


def work_of(name: str) -> str:
    """Gives the work a score belongs to, so that the movements of a work stay together."""
    folder, _, file = name.rpartition("/")
    return folder if "/" in folder else f"{folder}/{file.split('.')[0]}"


def split_of(name: str) -> str:
    """Says whether a score is for ``train`` or ``test``: by its work alone, not by the seed."""
    if work_of(name) in SHOWN:
        return "test"
    digest = hashlib.sha256(work_of(name).encode()).digest()
    return "test" if digest[0] % TEST_SHARE == 0 else "train"


def corpus_names() -> list[str]:
    """Lists the scores of the music21 corpus as ``folder/file``, sorted."""
    from music21 import corpus

    paths = (Path(path).as_posix() for path in corpus.getCorePaths())
    return sorted(path.rpartition("/corpus/")[2] for path in paths)


def choose_names(
    names: Iterable[str], split: str, seed: int, more: bool = False
) -> list[tuple[str, Source]]:
    """Puts the scores of a split in a random order in which each source has its weight.

    Args:
        names: scores as ``folder/file``.
        split: ``train`` or ``test``.
        seed: of the random order.
        more: whether all sources are used.

    Returns:
        Each score once, with its source.
    """
    ours = [name for name in names if split_of(name) == split]
    keyed = []
    for source in (source for source in SOURCES if more or not source.more):
        rng = random.Random(f"{seed} {source.pattern}")
        found = [name for name in ours if Path(name).match(source.pattern)]
        rng.shuffle(found)
        # Position k of a source with weight w comes at "time" (k + u) / w: sources interleave by
        # weight.
        keyed += [
            ((k + rng.random()) / source.weight, name, source) for k, name in enumerate(found)
        ]
    return [(name, source) for _, name, source in sorted(keyed, key=lambda item: item[:2])]


# ---- reading a score


def read_score(name: str, composer: str) -> Score | None:
    """Reads a score of the corpus.

    Args:
        name: ``folder/file`` in the corpus.
        composer: the composer's name.

    Returns:
        The score with its beat chosen by ``set_beat``; None when it is in a rare or changing metre,
        has no notes, or has no beat that fits ``ONSETS_PER_BEAT``.
    """
    from music21 import corpus, key, meter

    parsed = corpus.parse(name)
    metres = {sign.ratioString for sign in parsed.recurse().getElementsByClass(meter.TimeSignature)}
    if len(metres) != 1:
        return None
    metre = metres.pop()
    upper, lower = (int(number) for number in metre.split("/"))
    compound = upper in COMPOUND and lower == 8
    if not compound and (upper not in (2, 3, 4) or lower not in (2, 4)):
        return None
    parts = [_notes_of(part) for part in parsed.parts]
    parts = sorted((part for part in parts if part), key=_mean_pitch, reverse=True)[:8]
    if not parts:
        return None
    bar = upper * 4 / lower
    first = parsed.parts[0].getElementsByClass("Measure").first()
    pickup = float(first.duration.quarterLength) if first is not None else 0.0
    pickup = pickup if pickup < bar else 0.0
    last = max(note.start + note.length for part in parts for note in part)
    end = pickup + max(1, -(-(last - pickup) // bar)) * bar
    signs = list(parsed.recurse().getElementsByClass(key.KeySignature))
    sure = key_of(signs, parts[-1])
    if len(parts) == 1:  # a folk tune: a melody alone would be thin
        sharps = int(signs[0].sharps) if signs else 0
        parts += accompaniment(parts[0], sharps, bar, pickup, 1.5 if compound else 1.0)
    return set_beat(Score(name, composer, tuple(parts), bar, pickup, end, 1.0, metre, sure))


def _notes_of(part: Any) -> tuple[Note, ...]:
    """Gives the notes of a music21 part: ties joined, chords taken apart, grace notes left out."""
    notes = []
    for element in part.stripTies().flatten().notes:
        if element.quarterLength > 0:
            start, length = float(element.offset), float(element.quarterLength)
            notes += [Note(start, length, int(pitch.midi)) for pitch in element.pitches]
    return tuple(notes)


def _mean_pitch(notes: Sequence[Note]) -> float:
    return sum(note.pitch for note in notes) / len(notes)


def key_of(signs: Sequence[Any], lowest: Sequence[Note]) -> tuple[int, str] | None:
    """The key on which a score's only key signature and its last bass note agree.

    Args:
        signs: music21's key signatures; some state a mode besides, and then it must agree as well.
        lowest: the lowest part.

    Returns:
        Pitch class of the tonic and ``major`` or ``minor``; None where they disagree, where the
        score has several signatures, and in church modes.
    """
    if len({sign.sharps for sign in signs}) != 1:
        return None
    major = 7 * signs[0].sharps % 12
    bass = max(lowest, key=lambda note: (note.start, -note.pitch)).pitch % 12
    mode = {major: "major", (major + 9) % 12: "minor"}.get(bass)
    stated = {getattr(sign, "mode", None) for sign in signs} - {None}
    return (bass, mode) if mode and stated <= {mode} else None


def key_margin(notes: Iterable[Note], key: tuple[int, str]) -> float:
    """Says how much better an excerpt fits a key than any other key.

    Args:
        notes: the excerpt; long notes weigh more.
        key: pitch class of the tonic, and ``major`` or ``minor``.

    Returns:
        Correlation with the key's profile less that with the best other one (profiles of Aarden and
        Essen, music21's choice), 0 to 2; 0 where another key fits better.
    """
    from music21 import note as notation
    from music21 import stream

    music = stream.Stream()
    for note in notes:
        music.append(notation.Note(note.pitch, quarterLength=note.length))
    best = music.analyze("key")
    if (best.tonic.pitchClass, best.mode) != key:
        return 0.0
    return best.correlationCoefficient - best.alternateInterpretations[0].correlationCoefficient


def set_beat(score: Score) -> Score | None:
    """Chooses what counts as a beat: the quarter note, else the eighth or the half.

    The quarter is given up where the music moves too fast or too slowly in it: a reel in 2/4 with
    sixteenths and the same reel written in cut time with eighths are the same music. In a compound
    metre it is the dotted quarter, which may hold half as many notes again: ``fitted`` slows it.

    Args:
        score: with the quarter note as its beat.

    Returns:
        The same music counted in the chosen beat; None when no beat fits ``ONSETS_PER_BEAT``.
    """
    low, high = ONSETS_PER_BEAT
    compound = score.division == "compound"
    for unit in (1.0,) if compound else (1.0, 0.5, 2.0):
        quarters = 1.5 * unit if compound else unit
        whole_bars = (score.bar / quarters).is_integer()
        if whole_bars and low <= score.onsets_per_beat * unit <= high:
            return _counted_in(score, quarters)
    return None


def _counted_in(score: Score, quarters: float) -> Score:
    parts = tuple(
        tuple(Note(note.start / quarters, note.length / quarters, note.pitch) for note in part)
        for part in score.parts
    )
    bar, pickup, end = (value / quarters for value in (score.bar, score.pickup, score.end))
    return replace(score, parts=parts, bar=bar, pickup=pickup, end=end, beat_quarters=quarters)


# ---- arranging


def triad_for(notes: Iterable[Note], sharps: int) -> tuple[int, int, int]:
    """Finds the triad of a key that fits a bar of melody best.

    Args:
        notes: the melody's notes.
        sharps: sharps of the key signature, flats negative.

    Returns:
        Pitch classes (0 to 11) of root, third and fifth. Only major and minor triads of the scale
        are tried, tonic, subdominant and dominant first.
    """
    weight = [0.0] * 12
    for note in notes:
        weight[note.pitch % 12] += note.length
    tonic = 7 * sharps % 12
    triads = []
    for root, third in ((0, 4), (7, 4), (5, 4), (9, 3), (2, 3), (4, 3)):
        low = (tonic + root) % 12
        triads.append((low, (low + third) % 12, (low + 7) % 12))
    # A root counts twice; on a tie max() keeps the first.
    return max(triads, key=lambda triad: sum(weight[tone] for tone in triad) + weight[triad[0]])


def accompaniment(
    melody: Sequence[Note], sharps: int, bar: float, pickup: float, beat: float = 1.0
) -> list[tuple[Note, ...]]:
    """Writes chords and a bass under a melody.

    Args:
        melody: its notes in quarter notes.
        sharps: sharps of the key signature, flats negative.
        bar: length of a bar in quarter notes.
        pickup: length of the incomplete first bar.
        beat: length of a beat in quarter notes.

    Returns:
        Two parts: a chord on every beat but the first of each bar, and the chord's root in the bass
        on the first.
    """
    last = max(note.start + note.length for note in melody)
    chords: list[Note] = []
    bass: list[Note] = []
    start = pickup
    while start < last:
        tones = triad_for([note for note in melody if start <= note.start < start + bar], sharps)
        bass.append(Note(start, bar, 36 + (tones[0] - 36) % 12))
        for number in range(1, int(bar / beat)):
            at = start + number * beat
            chords += [Note(at, beat, 53 + (tone - 53) % 12) for tone in tones]
        start += bar
    return [part for part in (tuple(chords), tuple(bass)) if part]


def excerpt(score: Score, start_bar: int, beats: float, *, with_pickup: bool = False) -> Score:
    """Takes a stretch of a score, from the beginning again where the score ends.

    Args:
        score: where from.
        start_bar: the full bar to start with, counted from 0.
        beats: how long; the notes that begin later are left out.
        with_pickup: start with the incomplete first bar instead.

    Returns:
        A score that begins on a bar line, without a pickup, or else with it.
    """
    start = 0.0 if with_pickup else score.pickup + start_bar * score.bar
    length = (
        score.end - score.pickup
    )  # one time through: whole bars, the bar lines keep their places
    last = max(note.start + note.length for part in score.parts for note in part)
    has_room = last <= length  # the last bar leaves room for the pickup that leads back
    parts = []
    for part in score.parts:
        kept = []
        for note in part:
            again = note.start >= score.pickup or has_room
            times = range(int((beats + start) // length) + 1 if again else 1)
            moved = (replace(note, start=note.start - start + time * length) for time in times)
            kept += [note for note in moved if 0 <= note.start < beats]
        parts.append(tuple(sorted(kept, key=lambda note: (note.start, note.pitch))))
    kept_parts = tuple(part for part in parts if part)
    pickup = score.pickup if with_pickup else 0.0
    return replace(score, parts=kept_parts, pickup=pickup, end=beats)


def place(notes: Sequence[Note], low: int, high: int) -> tuple[Note, ...]:
    """Moves a part by octaves into a range.

    The whole part is moved first, so that its line keeps its shape; only notes that still stick out
    are moved alone.

    Args:
        notes: the part, not empty.
        low: lowest pitch allowed.
        high: highest pitch allowed, at least 11 above ``low``.

    Returns:
        The part within the range.
    """

    def outside(shift: int) -> tuple[int, int]:
        return sum(not low <= note.pitch + shift <= high for note in notes), abs(shift)

    shift = min(range(-48, 49, 12), key=outside)
    return tuple(replace(note, pitch=_fold(note.pitch + shift, low, high)) for note in notes)


def _fold(pitch: int, low: int, high: int) -> int:
    if pitch < low:
        return low + (pitch - low) % 12
    if pitch > high:
        return high - (high - pitch) % 12
    return pitch


def drum_part(bar: float, beats: float, division: int = 2) -> tuple[Note, ...]:
    """Writes a plain drum pattern: bass drum, snare on the weak beats, hi-hat between.

    Args:
        bar: length of a bar in beats.
        beats: how long.
        division: strokes of the hi-hat in a beat.

    Returns:
        Notes in General MIDI's drum numbers.
    """
    kick, snare, hat = 36, 38, 42
    notes = []
    for stroke in range(int(beats * division)):
        beat, between = divmod(stroke, division)
        at, in_bar = stroke / division, beat % bar
        notes.append(Note(at, 0.25, hat))
        if between:
            continue
        if in_bar == 0 or (bar >= 4 and in_bar % 4 == 2):
            notes.append(Note(at, 0.25, kick))
        elif in_bar % 2 == 1 or bar == 3:
            notes.append(Note(at, 0.25, snare))
    return tuple(notes)


def arrange(score: Score, plan: Plan) -> list[Voice]:
    """Gives the parts of a score to the instruments of a plan.

    Args:
        score: an excerpt.
        plan: how it shall sound.

    Returns:
        One voice a part, and one for the drums where wanted.
    """
    loud = DYNAMICS[plan.dynamics]
    voices = []
    for index, part in enumerate(score.parts):
        if plan.second and index:
            family, programs = FAMILIES[plan.second], plan.second_programs
            program = programs[(index - 1) * len(programs) // (len(score.parts) - 1)]
            velocity = round(loud * ACCOMPANYING)
        else:
            family = FAMILIES[plan.family]
            program = plan.programs[index * len(plan.programs) // len(score.parts)]
            velocity = loud - (SOFTER if index else 0)  # the melody stands out a little
        moved = [replace(note, pitch=note.pitch + plan.transpose) for note in part]
        voices.append(Voice(program, place(moved, family.low, family.high), velocity))
    if plan.drums:
        strokes = 3 if score.division == "compound" else 2
        pattern = drum_part(score.bar, score.end, strokes)
        voices.append(Voice(0, pattern, loud - 14, drums=True))
    return voices


# ---- writing MIDI


def _variable_length(number: int) -> bytes:
    """Encodes a number as MIDI files do: seven bits a byte, high bit set on all but the last."""
    encoded = [number & 0x7F]
    while number := number >> 7:
        encoded.insert(0, number & 0x7F | 0x80)
    return bytes(encoded)


def _track(events: Iterable[tuple[int, bytes]]) -> bytes:
    """Encodes one MIDI track from (tick, message) pairs in order."""
    body, now = b"", 0
    for tick, message in events:
        body += _variable_length(tick - now) + message
        now = tick
    body += b"\x00\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body)) + body


def _voice_events(voice: Voice, channel: int, bar: float, pickup: float) -> list[tuple[int, bytes]]:
    """Gives the messages of a voice in order; notes on a bar line are a little stronger."""
    events: list[tuple[int, int, bytes]] = []
    for note in voice.notes:
        accent = 8 if (note.start - pickup) % bar == 0 else 0
        velocity = max(1, min(127, voice.velocity + accent))
        on = round(note.start * TICKS)
        # A gap of a sixteenth of the note keeps repeated notes apart.
        off = max(on + 1, round((note.start + note.length * 15 / 16) * TICKS))
        events.append((on, 1, bytes((0x90 | channel, note.pitch, velocity))))
        events.append((off, 0, bytes((0x80 | channel, note.pitch, 0))))
    program = [] if voice.drums else [(0, bytes((0xC0 | channel, voice.program)))]
    return program + [(tick, message) for tick, _, message in sorted(events)]


def midi_bytes(
    voices: Sequence[Voice],
    bpm: float,
    bar: float = 4.0,
    pickup: float = 0.0,
    changes: Iterable[tuple[float, float]] = (),
) -> bytes:
    """Writes voices as a Standard MIDI File of format 1.

    Args:
        voices: at most ``MOST_VOICES`` without drums.
        bpm: beats per minute.
        bar: length of a bar in beats, for the accents.
        pickup: length of the incomplete first bar in beats.
        changes: (beat, beats per minute from there on).

    Returns:
        The bytes of the file.
    """
    tempi = [(0.0, bpm), *changes]
    lengths = [(at, round(60_000_000 / rate).to_bytes(3, "big")) for at, rate in tempi]
    tracks = [_track([(round(at * TICKS), b"\xff\x51\x03" + length) for at, length in lengths])]
    channels = iter(number for number in range(16) if number != DRUM_CHANNEL)
    for voice in voices:
        channel = DRUM_CHANNEL if voice.drums else next(channels)
        tracks.append(_track(_voice_events(voice, channel, bar, pickup)))
    return b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), TICKS) + b"".join(tracks)


# ---- planning and rendering


def make_plans(count: int, tempi: Sequence[str], drum_share: float, seed: int) -> list[Plan]:
    """Plans clips, balanced over family and tempo.

    Args:
        count: how many.
        tempi: keys of ``TEMPI``.
        drum_share: share of the medium and fast clips that get drums, 0 to 1.
        seed: of all choices.

    Returns:
        The plans; the k-th is of the family and tempo in cell k modulo the number of cells.
    """
    rng = random.Random(seed)
    cells = [(family, tempo) for tempo in tempi for family in FAMILIES]
    dynamics = tuple(DYNAMICS)
    plans = []
    for index in range(count):
        round_number, cell = divmod(index, len(cells))
        family, tempo = cells[cell]
        palettes = FAMILIES[family].palettes
        low, high = TEMPI[tempo]
        drums = rng.random() < drum_share and tempo != "slow"
        programs = palettes[(round_number + tuple(TEMPI).index(tempo)) % len(palettes)]
        loudness = dynamics[(cell + round_number) % len(dynamics)]
        plans.append(Plan(family, programs, tempo, rng.randint(low, high), loudness, drums))
    return plans


def vary(plan: Plan, pairs: float, changes: float, rng: random.Random) -> tuple[Plan, ...]:
    """Gives some clips a second family, and others a change of one thing in their course.

    Args:
        plan: of one family throughout.
        pairs: share of the clips with a second family, 0 to 1.
        changes: share with a change.
        rng: chooses.

    Returns:
        The plan of each section, mostly only one. Only families of the same gain meet.
    """
    gain = FAMILIES[plan.family].gain
    others = [name for name in FAMILIES if name != plan.family and FAMILIES[name].gain == gain]
    dice = rng.random()
    if dice < pairs and others:
        second = rng.choice(others)
        programs = rng.choice(FAMILIES[second].palettes)
        return (replace(plan, second=second, second_programs=programs),)
    if not pairs <= dice < pairs + changes:
        return (plan,)
    what = rng.choice(["family", "tempo", "dynamics"] if others else ["tempo", "dynamics"])
    if what == "family":
        family = rng.choice(others)
        programs = rng.choice(FAMILIES[family].palettes)
        return plan, replace(plan, family=family, programs=programs)
    if what == "tempo":
        tempo = rng.choice([name for name in ("slow", "fast") if name != plan.tempo])
        return plan, replace(plan, tempo=tempo, bpm=rng.randint(*TEMPI[tempo]))
    dynamics = rng.choice([name for name in ("soft", "loud") if name != plan.dynamics])
    return plan, replace(plan, dynamics=dynamics)


def fitted(plan: Plan, score: Score) -> Plan:
    """Slows a plan down for a compound metre, so that its notes come as fast as others' do."""
    return replace(plan, bpm=round(plan.bpm / 1.5)) if score.division == "compound" else plan


def render(midi: bytes, target: Path, seconds: float, soundfont: Path, gain: float = 0.5) -> None:
    """Plays a MIDI file into a sound file, mono.

    Args:
        midi: the file's bytes.
        target: where to; its ending chooses the format.
        seconds: length of the clip; the last ``FADE_S`` fade out.
        soundfont: the instruments.
        gain: fluidsynth's gain.

    Raises:
        subprocess.CalledProcessError: fluidsynth or ffmpeg failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "score.mid"), Path(folder, "sound.wav")
        score.write_bytes(midi)
        play = ["fluidsynth", "-ni", "-q", "-g", str(gain), "-r", str(SAMPLE_RATE), "-T", "wav"]
        _call([*play, "-F", str(sound), str(soundfont), str(score)])
        # The left channel alone: the layered synthesizers of FluidR3 are recorded in opposite phase
        # and lose 8 to 13 dB when both channels are added up.
        fade = f"pan=mono|c0=c0,apad,atrim=0:{seconds},afade=t=out:st={seconds - FADE_S}:d={FADE_S}"
        write = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(sound), "-af", fade]
        _call([*write, "-sample_fmt", "s16", str(target)])


def _call(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def onsets_per_second(voices: Iterable[Voice], bpm: float, seconds: float) -> float:
    """Counts distinct moments at which a note (not a drum) begins, per second of the clip."""
    beats = seconds * bpm / 60
    starts = {round(note.start, 3) for voice in voices if not voice.drums for note in voice.notes}
    return len({start for start in starts if start < beats}) / seconds


def usable_scores(split: str, count: int, seed: int, more: bool = False) -> list[Score]:
    """Reads scores of a split until there are enough.

    Args:
        split: ``train`` or ``test``.
        count: how many.
        seed: of their order.
        more: whether all sources and compound metres are used.

    Returns:
        At most ``count`` scores.
    """
    scores: list[Score] = []
    for name, source in choose_names(corpus_names(), split, seed, more):
        score = read_score(name, source.composer)
        if score is not None and (more or score.division == "simple"):
            scores.append(score)
            print(f"{len(scores)}/{count} {name}", file=sys.stderr)
        if len(scores) == count:
            break
    return scores


@dataclass(frozen=True)
class Section:
    """A part of a clip, mostly all of it.

    Attributes:
        plan: how it sounds.
        start_s: where it begins, in seconds.
        end_s: where it ends.
        music: the excerpt, counted from the section's own beginning.
        voices: the excerpt arranged.
    """

    plan: Plan
    start_s: float
    end_s: float
    music: Score
    voices: list[Voice]


def make_sections(
    score: Score, plans: Sequence[Plan], seconds: float, rng: random.Random
) -> list[Section]:
    """Arranges the music of one clip.

    Args:
        score: where the music comes from.
        plans: how the clip shall sound, and perhaps how from a bar near its middle on.
        seconds: how long the clip is.
        rng: chooses the bar to start with and the bar of the change.

    Returns:
        A section for each plan. A second family that would hardly be heard is given up, and a
        change for which MIDI has too few channels.
    """
    plans = plans[: MOST_VOICES // len(score.parts)]
    bars = int((score.end - score.pickup) / score.bar)
    bar, start_s = rng.randrange(max(1, bars // 2)), 0.0
    sections = []
    for number, plan in enumerate(plans):
        beats = (seconds - start_s) * plan.bpm / 60
        if number < len(plans) - 1:  # whole bars
            share = rng.uniform(*TURN)
            beats = max(1, round(share * seconds * plan.bpm / 60 / score.bar)) * score.bar
        music = excerpt(score, bar, beats)
        if plan.second and not _both_play(music):
            plan = replace(plan, second="", second_programs=())
        end_s = start_s + beats * 60 / plan.bpm
        sections.append(Section(plan, start_s, end_s, music, arrange(music, plan)))
        bar, start_s = bar + int(beats / score.bar), end_s
    return sections


def _both_play(music: Score) -> bool:
    """Whether the highest part and the others each sound in most beats."""
    melody, others = music.parts[:1], music.parts[1:]
    for parts in (melody, others):
        notes = [note for part in parts for note in part]
        ends = [(int(note.start), math.ceil(note.start + note.length)) for note in notes]
        beats = {beat for start, end in ends for beat in range(start, end) if beat < music.end}
        if len(beats) < PLAYING * music.end:
            return False
    return True


def joined(sections: Sequence[Section]) -> tuple[list[Voice], list[tuple[float, float]]]:
    """Puts the sections of a clip one after the other.

    Args:
        sections: at least one.

    Returns:
        All voices, whose notes end where their section does, and the (beat, beats per minute) of
        each section. The voices of a single section stay as they are.
    """
    if len(sections) == 1:
        return sections[0].voices, [(0.0, sections[0].plan.bpm)]
    voices, tempi, at = [], [], 0.0
    for section in sections:
        tempi.append((at, float(section.plan.bpm)))
        for voice in section.voices:
            notes = tuple(
                Note(note.start + at, min(note.length, section.music.end - note.start), note.pitch)
                for note in voice.notes
            )
            voices.append(replace(voice, notes=notes))
        at += section.music.end
    return voices, tempi


def make_row(path: Path, score: Score, split: str, sections: Sequence[Section]) -> dict[str, Any]:
    """Says what is known of a clip.

    Args:
        path: its sound file.
        score: where the music comes from.
        split: ``train`` or ``test``.
        sections: of the clip.

    Returns:
        A row of the manifest: what is the same in all sections, and ``sections`` where something is
        not.
    """
    known = []
    for section in sections:
        plan, seconds = section.plan, section.end_s - section.start_s
        onsets = onsets_per_second(section.voices, plan.bpm, seconds)
        known.append(asdict(plan) | {"program": plan.programs[0], "onsets_per_s": round(onsets, 2)})
    row = {
        "path": path.name,
        "score": score.name,
        "work": work_of(score.name),
        "composer": score.composer,
        "split": split,
        "duration_s": round(sections[-1].end_s, 3),
        "metre": score.metre,
        "grouping": score.grouping,
        "division": score.division,
        "beat_quarters": score.beat_quarters,
        "bar_beats": score.bar,
    } | _key_in(score, sections)
    same = {name for name in known[0] if all(one[name] == known[0][name] for one in known)}
    row |= {name: value for name, value in known[0].items() if name in same}
    if len(sections) > 1:
        row["sections"] = [
            {"start_s": round(section.start_s, 3), "end_s": round(section.end_s, 3)}
            | {name: value for name, value in one.items() if name not in same}
            for section, one in zip(sections, known, strict=True)
        ]
    return row


def _key_in(score: Score, sections: Sequence[Section]) -> dict[str, Any]:
    """The sounding key in words, empty unless the excerpt bears the score out, and the margin."""
    if score.key is None:
        return {"key": "", "key_margin": None}
    notes = [note for section in sections for part in section.music.parts for note in part]
    margin = key_margin(notes, score.key)
    tonic, mode = score.key
    name = TONICS[(tonic + sections[0].plan.transpose) % 12]
    name = MINOR_TONICS.get(name, name) if mode == "minor" else name
    return {"key": f"{name} {mode}" if margin > KEY_MARGIN else "", "key_margin": round(margin, 3)}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the clips and manifest.jsonl"
    )
    parser.add_argument("--split", choices=("train", "test"), required=True)
    parser.add_argument("--count", type=int, required=True, help="number of clips")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each clip")
    parser.add_argument("--tempi", nargs="+", choices=tuple(TEMPI), default=list(TEMPI))
    parser.add_argument(
        "--scores", type=int, default=160, help="number of different scores at most"
    )
    parser.add_argument(
        "--drum-share", type=float, default=0.15, help="share of faster clips with drums"
    )
    parser.add_argument(
        "--more", action="store_true", help="also jigs, Mozart and Haydn, and compound metres"
    )
    parser.add_argument("--transpose", action="store_true", help="each clip into a random key")
    parser.add_argument("--pairs", type=float, default=0.0, help="share with a second family")
    parser.add_argument("--changes", type=float, default=0.0, help="share with a change")
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--manifest-only", action="store_true", help="the sounds are there from an earlier run"
    )
    return parser.parse_args(words)


def main() -> None:
    """Renders clips and writes their manifest."""
    options = arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    plans = make_plans(options.count, options.tempi, options.drum_share, options.seed)
    most = min(options.count, options.scores)
    scores = usable_scores(options.split, most, options.seed, options.more)
    if not scores:
        raise SystemExit("No usable score: is the corpus of music21 installed?")
    order = random.Random(options.seed)
    # A different score order each time round, so that a score does not always meet the same
    # families.
    queue = [
        score
        for _ in range(-(-len(plans) // len(scores)))
        for score in order.sample(scores, len(scores))
    ]
    rows = []
    for index, (plan, score) in enumerate(zip(plans, queue, strict=False)):
        dice = random.Random(f"{options.seed} {index} more")
        if options.transpose:
            plan = replace(plan, transpose=dice.randint(-5, 6))
        varied = vary(plan, options.pairs, options.changes, dice)
        fits = [fitted(one, score) for one in varied]
        rng = random.Random(f"{options.seed} {index}")
        sections = make_sections(score, fits, options.seconds, rng)
        path = options.output / f"{index:04d}-{plan.family}-{plan.tempo}.flac"
        gain = FAMILIES[plan.family].gain
        voices, tempi = joined(sections)
        midi = midi_bytes(voices, tempi[0][1], score.bar, changes=tempi[1:])
        if not options.manifest_only:
            render(midi, path, options.seconds, options.soundfont, gain)
        row = make_row(path, score, options.split, sections)
        rows.append(row | {"soundfont": options.soundfont.stem})
        print(f"{index + 1}/{len(plans)} {path.name}", file=sys.stderr)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (options.output / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
