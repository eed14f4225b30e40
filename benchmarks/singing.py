"""Makes songs that are certainly sung: synthetic voices sing over recordings of the song lists.

    python -m benchmarks.singing --split train --music data/songs/manifest.jsonl --count 400 \
        --output data/sung-train

Hardly any free recording is sung, so speech synthesisers (``flite``, ``espeak-ng``, ``festival``)
say lines written for this, and Praat (package ``praat-parselmouth``) makes them sing: pitch follows
a melody with vibrato, the tempo is halved, formants are moved a little. The voice is mixed into a
stretch of a recording, at a level from hardly audible to leading; some clips are unaccompanied,
some are a choir of several voices. The two splits share neither voices nor lines nor recordings.
Stretches without a voice are not written: whether the recordings themselves are sung is not
certain.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from musilingo_core.data.manifest import read_sounds

Sound = NDArray[np.float64]

RATE = 24_000  # Hz
PROGRAMS = ("flite", "espeak-ng", "text2wave", "ffmpeg")
LINES = {
    "train": (
        "the moon is shining on the silent sea",
        "oh bring me back to where the river flows",
        "a thousand stars are burning in the night",
        "and all the world is waiting for the dawn",
        "come over the hills my love and dance with me",
        "the wind is calling through the empty streets",
        "i will remember every word you said",
        "we are the fire that never fades away",
        "lay down your heavy heart and rest a while",
        "the summer rain is falling on my face",
        "hold on to me until the morning comes",
        "there is a light that shines for you and i",
        "i walked alone along the winding road",
        "the bells are ringing far across the town",
        "give me your hand and never let it go",
        "nobody knows the way we came along",
    ),
    "test": (
        "the river keeps its secrets under stone",
        "a paper boat is drifting out of sight",
        "tomorrow we shall climb the highest tower",
        "her letters lie unopened by the door",
        "do you recall the garden where we met",
        "the harbour lamps are swaying one by one",
        "no winter ever held a heart so long",
        "sing to the cradle softly as you go",
        "a train rolls slowly past the yellow fields",
        "my brother sold his horses and his plough",
        "under the bridge the water turns to gold",
        "all of my sorrows sailed away in may",
    ),
}
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))
UNACCOMPANIED, CHOIRS = 0.12, 0.12  # shares of clips
LEVELS = (-4.0, 9.0)  # dB, of the voice against the recording
AUDIBLE = 0.01  # of full scale, root mean square


@dataclass(frozen=True)
class Voice:
    """A voice of a synthesiser.

    Attributes:
        sex: As listeners and the encoder hear it.
        split: ``train`` or ``test``.
        command: What speaks; ``{text}`` is the line, ``{file}`` a file that holds it, ``{out}`` the
            sound file to write.
    """

    sex: str
    split: str
    command: tuple[str, ...]


def _flite(name: str) -> tuple[str, ...]:
    return ("flite", "-voice", name, "-t", "{text}", "-o", "{out}")


def _espeak(variant: str) -> tuple[str, ...]:
    return ("espeak-ng", "-v", f"en+{variant}", "-s", "140", "-w", "{out}", "{text}")


def festival(name: str) -> tuple[str, ...]:
    """The command with which one of Festival's voices speaks `{file}` into `{out}`."""
    return ("text2wave", "-eval", f"(voice_{name})", "{file}", "-o", "{out}")


VOICES = {
    "slt": Voice("female", "train", _flite("slt")),
    "f2": Voice("female", "train", _espeak("f2")),
    "f1": Voice("female", "train", _espeak("f1")),
    "slt-hts": Voice("female", "train", festival("cmu_us_slt_arctic_hts")),
    "dita": Voice("female", "train", festival("czech_dita")),
    "awb": Voice("male", "train", _flite("awb")),
    "rms": Voice("male", "train", _flite("rms")),
    "kal16": Voice("male", "train", _flite("kal16")),
    "m3": Voice("male", "train", _espeak("m3")),
    "machac": Voice("male", "train", festival("czech_machac")),
    "lp": Voice("female", "test", festival("lp_diphone")),
    "f4": Voice("female", "test", _espeak("f4")),
    "f5": Voice("female", "test", _espeak("f5")),
    "ked": Voice("male", "test", festival("ked_diphone")),
    "m7": Voice("male", "test", _espeak("m7")),
    "m1": Voice("male", "test", _espeak("m1")),
}


@cache
def speak(voice: Voice, text: str) -> Sound:
    """A line as speech, (samples,) at `RATE`; synthesised once, for some voices start slowly."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "line.wav")
        synthesise(voice.command, text, out)
        samples, rate = soundfile.read(out, dtype="float64")
    return samples if rate == RATE else soxr.resample(samples, rate, RATE)


def synthesise(command: Sequence[str], text: str, out: Path) -> None:
    """Speaks a text into a sound file; the command as in `Voice`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        filled = {"text": text, "file": file.name, "out": str(out)}
        words = [word.format(**filled) if word.startswith("{") else word for word in command]
        subprocess.run(words, check=True, capture_output=True, timeout=120)


@dataclass(frozen=True)
class Manner:
    """How one singer sings one song.

    Attributes:
        tonic: MIDI pitch that the melody moves around.
        scale: Semitones above it.
        slower: How many times longer a line lasts than spoken.
        formants: Factor, for other vocal tracts.
        cents: Out of tune, for choirs.
    """

    tonic: int
    scale: tuple[int, ...]
    slower: float
    formants: float
    cents: float = 0.0


def sing(speech: Sound, sex: str, manner: Manner, dice: random.Random) -> Sound:
    """A spoken line as a sung one, by Praat's overlap-add."""
    import parselmouth
    from parselmouth.praat import call

    low, high = (75, 400) if sex == "male" else (120, 500)  # Hz, where Praat looks for pitch
    sound = parselmouth.Sound(0.7 * speech / max(np.abs(speech).max(), 1e-9), RATE)
    manipulation = call(sound, "To Manipulation", 0.01, low, high)
    pitch = call("Create PitchTier", "melody", 0, sound.duration)
    for time_s, hertz in melody(sound.duration, manner, dice):
        call(pitch, "Add point", time_s, hertz)
    call([pitch, manipulation], "Replace pitch tier")
    slower = call("Create DurationTier", "slower", 0, sound.duration)
    call(slower, "Add point", sound.duration / 2, manner.slower)
    call([slower, manipulation], "Replace duration tier")
    sung = call(manipulation, "Get resynthesis (overlap-add)")
    sung = call(sung, "Change gender", low, 600, manner.formants, 0, 1, 1)
    samples: Sound = sung.values[0]
    return samples


def melody(duration_s: float, manner: Manner, dice: random.Random) -> list[tuple[float, float]]:
    """Points (seconds of speech, Hz) of a melody in steps, each note with a growing vibrato."""
    points = []
    start, degree = 0.0, dice.randrange(4)
    while start < duration_s:
        degree = max(-3, min(7, degree + dice.choice([-2, -1, -1, 0, 1, 1, 2])))
        octave, step = divmod(degree, len(manner.scale))
        midi = manner.tonic + 12 * octave + manner.scale[step] + manner.cents / 100
        hertz = 440 * 2 ** ((midi - 69) / 12)
        length = dice.choice([0.16, 0.2, 0.25, 0.35])
        for offset in np.arange(0, min(length, duration_s - start), 0.015):
            swing = np.sin(2 * np.pi * 5.5 * (start + offset) * manner.slower)
            points.append((start + offset, hertz * (1 + 0.012 * swing * min(1, offset / 0.08))))
        start += length
    return points


def part(name: str, seconds: float, manner: Manner, dice: random.Random) -> Sound:
    """A voice singing line after line, with breaths between."""
    voice, samples = VOICES[name], np.zeros(int(seconds * RATE))
    at_s = dice.uniform(0, 1)
    for line in dice.sample(LINES[voice.split], len(LINES[voice.split])):
        sung = sing(speak(voice, line), voice.sex, manner, dice)
        first = int(at_s * RATE)
        if first >= len(samples):
            break
        sung = sung[: len(samples) - first]
        samples[first : first + len(sung)] += sung
        at_s += len(sung) / RATE + dice.uniform(0.1, 1.0)
    return samples


def in_a_room(samples: Sound, dice: random.Random) -> Sound:
    """With a little reverberation."""
    size = int(0.9 * RATE)
    noise = np.random.default_rng(dice.getrandbits(30)).normal(size=size)
    echo = noise * np.exp(-np.arange(size) / (0.18 * size))
    echo *= 0.36 / np.sqrt((echo**2).sum())
    length = len(samples) + size
    wet = np.fft.irfft(np.fft.rfft(samples, length) * np.fft.rfft(echo, length), length)
    return samples + wet[: len(samples)]


def stretch(path: str, seconds: float, place: float) -> Sound:
    """Some seconds of a recording, mono; `place` from 0 (the beginning) to 1 (the end)."""
    look = ("ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path)
    whole = float(subprocess.run(look, check=True, capture_output=True, text=True).stdout)
    start = max(0.0, place * (whole - seconds))
    command = (
        "ffmpeg",
        "-nostdin",
        "-v",
        "error",
        "-ss",
        f"{start:.3f}",
        "-t",
        f"{seconds}",
        "-i",
        path,
    )
    sound = ("-ac", "1", "-ar", str(RATE), "-f", "f32le", "-")
    done = subprocess.run([*command, *sound], check=True, capture_output=True)
    return np.frombuffer(done.stdout, dtype=np.float32).astype(np.float64)


def audible(path: str, seconds: float, dice: random.Random) -> Sound:
    """A stretch of a recording that is not silent: some end in a minute of nothing.

    Raises:
        ValueError: Ten draws found none.
    """
    for _ in range(10):
        samples = stretch(path, seconds, dice.random())
        if loudness(samples) >= AUDIBLE:
            return samples
    raise ValueError(f"{path} is silent wherever it was looked at; please take it off the list")


def loudness(samples: Sound) -> float:
    """Root mean square of the louder half of tenths of a second."""
    size = RATE // 10
    pieces = samples[: len(samples) // size * size].reshape(-1, size)
    power = np.sort((pieces**2).mean(1))
    return float(np.sqrt(power[len(power) // 2 :].mean())) if len(power) else 0.0


def make(
    recording: dict[str, Any], split: str, seconds: float, seed: str
) -> tuple[Sound, dict[str, Any]]:
    """A sung clip (samples,) and what is certain about it."""
    dice = random.Random(seed)
    kind = dice.random()
    sex = dice.choice(["male", "female"])
    names = [name for name, voice in VOICES.items() if voice.split == split]
    tonic, scale = dice.randrange(12), dice.choice(SCALES)
    singers = [dice.choice([name for name in names if VOICES[name].sex == sex])]
    if kind < CHOIRS:
        singers = dice.choices(names, k=dice.randint(5, 8))
    slower = dice.uniform(1.4, 2.3)
    sung = np.zeros(int(seconds * RATE))
    lines = dice.getrandbits(30)  # a choir sings the same
    for number, name in enumerate(singers):
        lowest = 45 if VOICES[name].sex == "male" else 57
        cents = dice.uniform(-15, 15) if number else 0.0
        manner = Manner(lowest + tonic, scale, slower, dice.uniform(0.93, 1.07), cents)
        sung += part(name, seconds, manner, random.Random(lines))
    sung = in_a_room(sung, dice)
    about: dict[str, Any] = {"voice": "choir" if kind < CHOIRS else sex, "singers": singers}
    if CHOIRS <= kind < CHOIRS + UNACCOMPANIED:
        mixed, about["level_db"] = sung, None
    else:
        about["recording"], level = recording.get("title"), dice.uniform(*LEVELS)
        backing = audible(recording["path"], seconds, dice)
        length = min(len(backing), len(sung))
        backing, sung = backing[:length], sung[:length]
        gain = loudness(backing) / max(loudness(sung), 1e-9) * 10 ** (level / 20)
        mixed, about["level_db"] = backing + gain * sung, round(level, 1)
    return 0.8 * mixed / max(np.abs(mixed).max(), 1e-9), about


def main() -> None:
    """Writes the clips and ``manifest.jsonl``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--split", choices=("train", "test"), required=True)
    parser.add_argument("--music", type=Path, nargs="+", required=True, metavar="JSONL")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    if absent := [program for program in PROGRAMS if shutil.which(program) is None]:
        sys.exit(f"{', '.join(absent)} not found; see benchmarks/README.md.")
    write(options.split, [row for path in options.music for row in read_sounds(path)], options)


def write(split: str, recordings: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """Goes on where it was: a clip that is there is not made again."""
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for number in range(options.count):
            path = options.output / f"{number:04}.flac"
            about_path = path.with_suffix(".json")
            if not about_path.exists():
                recording = recordings[number % len(recordings)]
                seed = f"{split} {options.seed}-{number}"  # else the splits would sing alike
                samples, about = make(recording, split, options.seconds, seed)
                soundfile.write(path, samples, RATE)
                about_path.write_text(json.dumps(about), encoding="utf-8")
            about = json.loads(about_path.read_text("utf-8"))
            manifest.write(json.dumps({"path": path.name, "split": split, **about}) + "\n")
            manifest.flush()


if __name__ == "__main__":
    main()
