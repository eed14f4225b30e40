"""Makes the example clips of the page from public-domain scores.

Three clips as different as three can be: a slow chorale for strings, a fast sonata for piano, a
folk tune for synthesizers and drums. Each is rendered with ``benchmarks.scores``, brought to one
loudness and written as MP3 beside ``examples.json``, which says what a visitor hears. Run from the
root of the repository: ``python -m benchmarks.examples``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.scores import SOUNDFONT, Note, Score, Voice, excerpt, midi_bytes, read_score, render

LOUDNESS_LUFS = -16.0  # integrated loudness of every clip
TRUE_PEAK_DBFS = -1.5
FADE_IN_S, FADE_OUT_S = 0.05, 2.5
GAIN = 0.25  # fluidsynth's; the loudness is set afterwards
BIT_RATE = "96k"  # 60 s come to 720 kB
TARGET = Path(__file__).resolve().parent.parent / "assets" / "examples"

GRAND_PIANO, STRING_ENSEMBLE = 0, 48
SAW_LEAD, SQUARE_LEAD, POLYSYNTH, SYNTH_BASS = 81, 80, 90, 38
KICK, SNARE, HAT, CRASH = 36, 38, 42, 49


def strings(score: Score) -> list[Voice]:
    """Gives each part to the string ensemble, melody and bass a little stronger."""
    last = len(score.parts) - 1
    levels = [84 if index in (0, last) else 72 for index in range(last + 1)]
    return [
        Voice(STRING_ENSEMBLE, part, level) for part, level in zip(score.parts, levels, strict=True)
    ]


def piano(score: Score) -> list[Voice]:
    """Gives both hands of a score to the piano."""
    return [Voice(GRAND_PIANO, part, 100 - 10 * index) for index, part in enumerate(score.parts)]


def dance_band(score: Score) -> list[Voice]:
    """Arranges a tune with chords and bass for synthesizers and drums.

    A second lead joins the tune an octave lower in the second half.

    Args:
        score: melody, chords and bass, as ``read_score`` gives a folk tune, in bars of four beats.

    Returns:
        The voices of the band.
    """
    melody, chords, bass = score.parts
    half = score.pickup + (score.end - score.pickup) / 2
    lower = tuple(replace(note, pitch=note.pitch - 12) for note in melody if note.start >= half)
    short = tuple(replace(note, length=note.length * 0.6) for note in chords)
    return [
        Voice(SAW_LEAD, melody, 80),
        Voice(SQUARE_LEAD, lower, 60),
        Voice(POLYSYNTH, short, 70),
        Voice(SYNTH_BASS, walking(bass, score.bar), 110),
        Voice(0, backbeat(score.bar, score.pickup, score.end), 118, drums=True),
    ]


def walking(bass: Sequence[Note], bar: float) -> tuple[Note, ...]:
    """Turns one bass note a bar into root and fifth on every other beat."""
    notes = []
    for note in bass:
        for beat in range(0, int(bar), 2):
            fifth = 7 if beat % 4 else 0
            notes.append(
                Note(note.start + beat, 1.5, note.pitch + fifth - (12 if note.pitch > 43 else 0))
            )
    return tuple(notes)


def backbeat(bar: float, pickup: float, end: float) -> tuple[Note, ...]:
    """Writes drums: bass drum and snare in turn, hi-hat between, a cymbal every eight bars.

    Args:
        bar: length of a bar in beats.
        pickup: where the first full bar begins, in beats.
        end: where the drums stop, in beats.

    Returns:
        Notes in General MIDI's drum numbers.
    """
    notes = []
    for half in range(int((end - pickup) * 2)):
        beat = half / 2
        drum = HAT
        if beat.is_integer():
            drum = SNARE if beat % 2 else KICK
        notes.append(Note(pickup + beat, 0.25, drum))
        if beat % (8 * bar) == 0:
            notes.append(Note(pickup + beat, 0.25, CRASH))
    return tuple(notes)


@dataclass(frozen=True)
class Example:
    """One clip of the page.

    Attributes:
        file: its name.
        title: what the page calls it.
        what: one line for the visitor.
        composer: who wrote the music.
        score: its name in the corpus of music21.
        instruments: what is heard.
        bpm: quarter notes of the notation per minute.
        seconds: length.
        arrangement: gives the parts to instruments.
    """

    file: str
    title: str
    what: str
    composer: str
    score: str
    instruments: tuple[str, ...]
    bpm: int
    seconds: float
    arrangement: Callable[[Score], list[Voice]]


EXAMPLES = (
    Example(
        file="chorale-strings.mp3",
        title="Slow chorale for strings",
        what="Bach, chorale “Jesu, meine Freude” (BWV 227.1), rendered for strings at 50 bpm",
        composer="Johann Sebastian Bach",
        score="bach/bwv227.1.mxl",
        instruments=("string ensemble",),
        bpm=50,
        seconds=60.0,
        arrangement=strings,
    ),
    Example(
        file="sonata-piano.mp3",
        title="Fast sonata for piano",
        what="Mozart, Sonata K. 545, first movement, bars 1 to 12 twice, rendered for piano "
        "at 138 bpm",
        composer="Wolfgang Amadeus Mozart",
        score="mozart/k545/movement1_exposition.mxl",
        instruments=("piano",),
        bpm=138,
        seconds=43.0,
        arrangement=piano,
    ),
    Example(
        file="hornpipe-synthesizer.mp3",
        title="Folk tune for synthesizers and drums",
        what="Fisher's Hornpipe, traditional (printed in 1883), arranged for synthesizers and "
        "drums at 92 bpm",
        composer="traditional",
        score="ryansMammoth/FishersHornpipe.abc",
        instruments=("synthesizer", "synthesizer bass", "drums"),
        bpm=92,
        seconds=43.0,
        arrangement=dance_band,
    ),
)


def midi_of(example: Example) -> bytes:
    """Arranges an example: whole bars from the very beginning, as many as fit its length.

    Args:
        example: which.

    Returns:
        The MIDI file.

    Raises:
        SystemExit: the score cannot be used.
    """
    score = read_score(example.score, example.composer)
    if score is None:
        raise SystemExit(f"{example.score}: no usable score")
    bpm = example.bpm / score.beat_quarters
    bars = (example.seconds * bpm / 60 - score.pickup) // score.bar
    music = excerpt(score, 0, score.pickup + bars * score.bar, with_pickup=True)
    return midi_bytes(example.arrangement(music), bpm, music.bar, music.pickup)


def loudness_filter(report: str) -> str:
    """Gives the second pass of ffmpeg's ``loudnorm`` from what the first printed.

    Args:
        report: standard error of the first pass, which ends with a JSON object.

    Returns:
        The filter's description.
    """
    measured = json.loads(re.findall(r"\{[^{}]*\}", report)[-1])
    names = {"I": "input_i", "TP": "input_tp", "LRA": "input_lra", "thresh": "input_thresh"}
    known = ":".join(f"measured_{name}={measured[key]}" for name, key in names.items())
    return f"{_target()}:{known}:offset={measured['target_offset']}:linear=true"


def _target() -> str:
    return f"loudnorm=I={LOUDNESS_LUFS}:TP={TRUE_PEAK_DBFS}:LRA=11"


def write_mp3(sound: Path, target: Path, seconds: float, title: str) -> None:
    """Fades a sound in and out, brings it to ``LOUDNESS_LUFS`` and writes it as MP3."""
    fades = f"afade=t=in:d={FADE_IN_S},afade=t=out:st={seconds - FADE_OUT_S}:d={FADE_OUT_S}"
    base = ["ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-y", "-i", str(sound), "-af"]
    first = [*base, f"{fades},{_target()}:print_format=json", "-f", "null", "-"]
    report = subprocess.run(first, check=True, capture_output=True, text=True).stderr
    second = [*base, f"{fades},{loudness_filter(report)}", "-ar", "44100", "-b:a", BIT_RATE]
    tags = ["-map_metadata", "-1", "-metadata", f"title={title}", "-bitexact"]
    subprocess.run([*second, *tags, str(target)], check=True, capture_output=True)


def row(example: Example) -> dict[str, Any]:
    """Gives what ``examples.json`` says about an example."""
    keys = ("file", "title", "what", "composer", "score", "instruments", "bpm")
    return {key: getattr(example, key) for key in keys}


def main() -> None:
    """Makes the clips and their list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=TARGET)
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for example in EXAMPLES:
            sound = Path(folder, "sound.wav")
            render(midi_of(example), sound, example.seconds, options.soundfont, GAIN)
            write_mp3(sound, options.output / example.file, example.seconds, example.title)
    text = json.dumps([row(example) for example in EXAMPLES], indent=2, ensure_ascii=False)
    (options.output / "examples.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
