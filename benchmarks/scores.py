"""Renders public-domain scores to sound, so that instrument, tempo and dynamics are known.

The scores come from the corpus inside the package ``music21``; this script gives all their parts to
one General MIDI instrument family, sets the tempo, writes a MIDI file and has ``fluidsynth`` play
it. It judges nothing and trains nothing: it writes sound files and a manifest that other programs
read. Needs ``music21``, and the programs ``fluidsynth`` and ``ffmpeg``.

Public domain is judged by the composer: every composer in ``SOURCES`` died more than 70 years ago,
and the folk tunes are traditional, printed in 1883. Only the notes are taken from the encodings in
the corpus (pitches, lengths, metre), no editor's markings. Check the terms of the corpus before you
share an encoding itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
DYNAMICS = {"soft": 48, "medium": 78, "loud": 112}  # MIDI velocity
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
    """

    pattern: str
    composer: str
    died: int
    weight: int


SOURCES = (
    Source("bach/bwv*.mxl", "Johann Sebastian Bach", 1750, 9),
    Source("ryansMammoth/*Reel.abc", "traditional", 1883, 4),
    Source("ryansMammoth/*Hornpipe.abc", "traditional", 1883, 3),
    Source("mozart/k*.mxl", "Wolfgang Amadeus Mozart", 1791, 2),
    Source("haydn/opus*.mxl", "Joseph Haydn", 1809, 2),
    Source("beethoven/opus18no1/*.mxl", "Ludwig van Beethoven", 1827, 1),
    Source("beethoven/opus59no?/*.mxl", "Ludwig van Beethoven", 1827, 1),
    Source("schumann_robert/opus41no1/*.mxl", "Robert Schumann", 1856, 1),
    Source("joplin/*.mxl", "Scott Joplin", 1917, 1),
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
    """

    name: str
    composer: str
    parts: tuple[tuple[Note, ...], ...]
    bar: float
    pickup: float
    end: float
    beat_quarters: float = 1.0

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
    """

    family: str
    programs: tuple[int, ...]
    tempo: str
    bpm: int
    dynamics: str
    drums: bool


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


def choose_names(names: Iterable[str], split: str, seed: int) -> list[tuple[str, Source]]:
    """Puts the scores of a split in a random order in which each source has its weight.

    Args:
        names: scores as ``folder/file``.
        split: ``train`` or ``test``.
        seed: of the random order.

    Returns:
        Each score once, with its source.
    """
    ours = [name for name in names if split_of(name) == split]
    keyed = []
    for source in SOURCES:
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
        The score with its beat chosen by ``set_beat``; None when it is in a compound or changing
        metre, has no notes, or has no beat that fits ``ONSETS_PER_BEAT``.
    """
    from music21 import corpus, meter

    parsed = corpus.parse(name)
    metres = {sign.ratioString for sign in parsed.recurse().getElementsByClass(meter.TimeSignature)}
    if len(metres) != 1:
        return None
    upper, lower = (int(number) for number in metres.pop().split("/"))
    if upper not in (2, 3, 4) or lower not in (2, 4):
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
    if len(parts) == 1:  # a folk tune: a melody alone would be thin
        parts += accompaniment(parts[0], _sharps_of(parsed), bar, pickup)
    return set_beat(Score(name, composer, tuple(parts), bar, pickup, end))


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


def _sharps_of(parsed: Any) -> int:
    """Gives the sharps of the first key signature, flats negative."""
    from music21 import key

    signature = parsed.recurse().getElementsByClass(key.KeySignature).first()
    return int(signature.sharps) if signature is not None else 0


def set_beat(score: Score) -> Score | None:
    """Chooses what counts as a beat: the quarter note, else the eighth or the half.

    The quarter is given up where the music moves too fast or too slowly in it: a reel in 2/4 with
    sixteenths and the same reel written in cut time with eighths are the same music.

    Args:
        score: with the quarter note as its beat.

    Returns:
        The same music counted in the chosen beat; None when no beat fits ``ONSETS_PER_BEAT``.
    """
    low, high = ONSETS_PER_BEAT
    for quarters in (1.0, 0.5, 2.0):
        whole_bars = (score.bar / quarters).is_integer()
        if whole_bars and low <= score.onsets_per_beat * quarters <= high:
            return _counted_in(score, quarters)
    return None


def _counted_in(score: Score, quarters: float) -> Score:
    parts = tuple(
        tuple(Note(note.start / quarters, note.length / quarters, note.pitch) for note in part)
        for part in score.parts
    )
    bar, pickup, end = (value / quarters for value in (score.bar, score.pickup, score.end))
    return Score(score.name, score.composer, parts, bar, pickup, end, quarters)


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
    melody: Sequence[Note], sharps: int, bar: float, pickup: float
) -> list[tuple[Note, ...]]:
    """Writes chords and a bass under a melody.

    Args:
        melody: its notes in quarter notes.
        sharps: sharps of the key signature, flats negative.
        bar: length of a bar in quarter notes.
        pickup: length of the incomplete first bar.

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
        for beat in range(1, int(bar)):
            chords += [Note(start + beat, 1.0, 53 + (tone - 53) % 12) for tone in tones]
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


def drum_part(bar: float, beats: float) -> tuple[Note, ...]:
    """Writes a plain drum pattern: bass drum, snare on the weak beats, hi-hat twice a beat.

    Args:
        bar: length of a bar in beats.
        beats: how long.

    Returns:
        Notes in General MIDI's drum numbers.
    """
    kick, snare, hat = 36, 38, 42
    notes = []
    for half in range(int(beats * 2)):
        at = half / 2
        in_bar = at % bar
        notes.append(Note(at, 0.25, hat))
        if in_bar == 0 or (bar >= 4 and in_bar % 4 == 2):
            notes.append(Note(at, 0.25, kick))
        elif in_bar % 1 == 0 and (in_bar % 2 == 1 or bar == 3):
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
    family = FAMILIES[plan.family]
    velocity = DYNAMICS[plan.dynamics]
    voices = []
    for index, part in enumerate(score.parts):
        program = plan.programs[index * len(plan.programs) // len(score.parts)]
        softer = 0 if index == 0 else 10  # the melody stands out a little
        voices.append(Voice(program, place(part, family.low, family.high), velocity - softer))
    if plan.drums:
        voices.append(Voice(0, drum_part(score.bar, score.end), velocity - 14, drums=True))
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


def midi_bytes(voices: Sequence[Voice], bpm: float, bar: float = 4.0, pickup: float = 0.0) -> bytes:
    """Writes voices as a Standard MIDI File of format 1.

    Args:
        voices: at most 15 without drums.
        bpm: beats per minute.
        bar: length of a bar in beats, for the accents.
        pickup: length of the incomplete first bar in beats.

    Returns:
        The bytes of the file.
    """
    tempo = round(60_000_000 / bpm).to_bytes(3, "big")
    tracks = [_track([(0, b"\xff\x51\x03" + tempo)])]
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


def usable_scores(split: str, count: int, seed: int) -> list[Score]:
    """Reads scores of a split until there are enough.

    Args:
        split: ``train`` or ``test``.
        count: how many.
        seed: of their order.

    Returns:
        At most ``count`` scores.
    """
    scores: list[Score] = []
    for name, source in choose_names(corpus_names(), split, seed):
        score = read_score(name, source.composer)
        if score is not None:
            scores.append(score)
            print(f"{len(scores)}/{count} {name}", file=sys.stderr)
        if len(scores) == count:
            break
    return scores


def make_clip(
    score: Score, plan: Plan, seconds: float, rng: random.Random
) -> tuple[bytes, list[Voice]]:
    """Makes the MIDI file of one clip.

    Args:
        score: where the music comes from.
        plan: how it shall sound.
        seconds: how long.
        rng: chooses the bar to start with.

    Returns:
        The MIDI file and its voices.
    """
    beats = seconds * plan.bpm / 60
    bars = int((score.end - score.pickup) / score.bar)
    start_bar = rng.randrange(max(1, bars // 2))
    music = excerpt(score, start_bar, beats)
    voices = arrange(music, plan)
    return midi_bytes(voices, plan.bpm, music.bar), voices


def _row(
    path: Path, score: Score, plan: Plan, split: str, seconds: float, voices: Sequence[Voice]
) -> dict[str, Any]:
    row = {
        "path": path.name,
        "score": score.name,
        "composer": score.composer,
        "split": split,
        "duration_s": seconds,
    }
    row |= asdict(plan) | {"program": plan.programs[0], "beat_quarters": score.beat_quarters}
    return row | {
        "bar_beats": score.bar,
        "onsets_per_s": round(onsets_per_second(voices, plan.bpm, seconds), 2),
    }


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
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


def main() -> None:
    """Renders clips and writes their manifest."""
    options = arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    plans = make_plans(options.count, options.tempi, options.drum_share, options.seed)
    scores = usable_scores(options.split, min(options.count, options.scores), options.seed)
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
        midi, voices = make_clip(
            score, plan, options.seconds, random.Random(f"{options.seed} {index}")
        )
        path = options.output / f"{index:04d}-{plan.family}-{plan.tempo}.flac"
        render(midi, path, options.seconds, options.soundfont, FAMILIES[plan.family].gain)
        rows.append(_row(path, score, plan, options.split, options.seconds, voices))
        print(f"{index + 1}/{len(plans)} {path.name}", file=sys.stderr)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (options.output / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
