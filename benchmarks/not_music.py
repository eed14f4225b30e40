"""Makes clips that hold no music: near-silence, noises and synthetic speech.

A listener that answers about music should say so when there is none; these clips train and check
that. The two splits share no noise colour's random numbers, no text and no voice, and no voice of
one speaks here and sings in the other (``singing.py``). Needs ``espeak-ng``, ``festival`` with the
voices of ``TEST_VOICES``, and ``ffmpeg``.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.singing import VOICES, festival, synthesise

SAMPLE_RATE = 44_100  # Hz
WORDS_PER_SECOND = 2.4  # of read English, on the slow side: the text must not run out
SILENCE_DBFS = (-75.0, -60.0)  # peak of "silence": heard as nothing, yet not digital zero
NOISE_DBFS = (-26.0, -3.0)  # peak of the noises
LENGTHS_S = {"train": (12, 30), "test": (62, 90)}  # shortest and longest clip

Waveform = NDArray[np.float64]

# ---- texts, all in the public domain (first printed 1776 to 1908)

TRAIN_TEXTS = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having "
    "nothing to do. Once or twice she had peeped into the book her sister was reading, but it had "
    "no pictures or conversations in it, and what is the use of a book, thought Alice, without "
    "pictures or conversations? So she was considering in her own mind, as well as she could, for "
    "the hot day made her feel very sleepy and stupid, whether the pleasure of making a daisy "
    "chain would be worth the trouble of getting up and picking the daisies.",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a wife. However little known the feelings or views of such a man may be "
    "on his first entering a neighbourhood, this truth is so well fixed in the minds of the "
    "surrounding families, that he is considered the rightful property of some one or other of "
    "their daughters.",
    "Four score and seven years ago our fathers brought forth on this continent a new nation, "
    "conceived in liberty, and dedicated to the proposition that all men are created equal. Now "
    "we are engaged in a great civil war, testing whether that nation, or any nation so conceived "
    "and so dedicated, can long endure. We are met on a great battlefield of that war.",
    "The Mole had been working very hard all the morning, spring cleaning his little home. First "
    "with brooms, then with dusters; then on ladders and steps and chairs, with a brush and a "
    "pail of whitewash; till he had dust in his throat and eyes, and splashes of whitewash all "
    "over his black fur, and an aching back and weary arms.",
    "To Sherlock Holmes she is always the woman. I have seldom heard him mention her under any "
    "other name. In his eyes she eclipses and predominates the whole of her sex. It was not that "
    "he felt any emotion akin to love. All emotions, and that one particularly, were abhorrent to "
    "his cold, precise but admirably balanced mind.",
)
TEST_TEXTS = (
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in "
    "my purse, and nothing particular to interest me on shore, I thought I would sail about a "
    "little and see the watery part of the world. It is a way I have of driving off the spleen "
    "and regulating the circulation.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the "
    "age of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the "
    "season of light, it was the season of darkness, it was the spring of hope, it was the winter "
    "of despair.",
    "When in the course of human events, it becomes necessary for one people to dissolve the "
    "political bands which have connected them with another, and to assume among the powers of "
    "the earth the separate and equal station to which the laws of nature entitle them, a decent "
    "respect to the opinions of mankind requires that they should declare the causes which impel "
    "them to the separation.",
)
TRAIN_ACCENTS = tuple(
    f"{accent}+{variant}"
    for accent in (
        "en-us",
        "en-gb",
        "en-gb-scotland",
        "en-gb-x-rp",
        "de",
        "fr-fr",
        "es",
        "it",
        "ru",
    )
    for variant in ("f1", "f2", "f3", "m3", "m4", "m5", "belinda", "edward")
)
SINGERS_SPEAK = 0.2  # of training speech; with half of it, real singing went unheard
SPEAKERS_SPEAK = 0.3  # of training speech: voices from recordings that sing nowhere
SPEAKERS = {
    "ona": "upc_ca_ona_hts",
    "pc": "pc_diphone",
    "mv": "hy_fi_mv_diphone",
    "lj": "suo_fi_lj_diphone",
    "krb": "czech_krb",
    "ph": "czech_ph",
}
TRAIN_VOICES = tuple(name for name, voice in VOICES.items() if voice.split == "train")
TEST_VOICES = ("lp", "ked", "f4", "f5", "m1", "m7")  # of `singing.VOICES`, too

# ---- noises, each a function of a random generator and a number of samples, peak not yet set


def coloured(rng: np.random.Generator, samples: int, exponent: float) -> Waveform:
    """Makes noise whose power falls as frequency to a power.

    Args:
        rng: source of randomness.
        samples: how many.
        exponent: 0 white, 1 pink, 2 brown, −1 blue, −2 violet.

    Returns:
        (samples,) of any level.
    """
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(
        np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 20.0
    )  # level below 20 Hz: no drift
    return np.fft.irfft(spectrum * frequency ** (-exponent / 2), samples)


def band(rng: np.random.Generator, samples: int, low_hz: float, high_hz: float) -> Waveform:
    """Makes noise between two frequencies."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum * ((frequency >= low_hz) & (frequency <= high_hz)), samples)


def hum(rng: np.random.Generator, samples: int, mains_hz: float) -> Waveform:
    """Makes the hum of a mains-powered device: harmonics that fall off, and a little hiss."""
    time = np.arange(samples) / SAMPLE_RATE
    tones = [
        rng.uniform(0.3, 1) / k * np.sin(2 * np.pi * (k * mains_hz * time + rng.random()))
        for k in range(1, 9)
    ]
    return np.sum(tones, axis=0) + 0.02 * rng.standard_normal(samples)


def impulses(rng: np.random.Generator, samples: int, per_second: float, decay_s: float) -> Waveform:
    """Makes clicks at random moments.

    Args:
        rng: source of randomness.
        samples: how many.
        per_second: clicks a second on average.
        decay_s: time in which a click falls to 1/e.

    Returns:
        (samples,) with at least one click.
    """
    count = max(1, rng.poisson(per_second * samples / SAMPLE_RATE))
    train = np.zeros(samples)
    np.add.at(train, rng.integers(0, samples, count), rng.uniform(0.2, 1, count))
    tail = np.exp(-np.arange(int(decay_s * 8 * SAMPLE_RATE)) / (decay_s * SAMPLE_RATE))
    click = tail * rng.standard_normal(len(tail))
    size = samples + len(click)
    return np.fft.irfft(np.fft.rfft(train, size) * np.fft.rfft(click, size), size)[:samples]


def rain(rng: np.random.Generator, samples: int) -> Waveform:
    """Makes a rain-like sound: filtered noise that swells, and many small drops."""
    time = np.arange(samples) / SAMPLE_RATE
    swell = 1 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.05, 0.3) * time + rng.random()))
    bed = band(rng, samples, 800, 9000) * swell
    drops = impulses(rng, samples, per_second=60, decay_s=0.001)
    return bed / np.abs(bed).max() + 0.8 * drops / np.abs(drops).max()


def any_band(rng: np.random.Generator) -> tuple[float, float]:
    """Draws the edges of a band, Hz: half an octave to five octaves wide."""
    low = float(np.exp(rng.uniform(np.log(60), np.log(4000))))
    return low, low * 2 ** rng.uniform(0.5, 5)


def any_pitch(rng: np.random.Generator) -> float:
    """Draws the pitch of a hum, Hz: 40 to 240, but none near the test's 60."""
    pitch = float(np.exp(rng.uniform(np.log(40), np.log(240))))
    return pitch if abs(pitch - 60) > 5 else any_pitch(rng)


Noise = Callable[[np.random.Generator, int], Waveform]
TRAIN_NOISES: dict[str, Noise] = {
    "white": lambda rng, samples: coloured(rng, samples, 0),
    "pink": lambda rng, samples: coloured(rng, samples, 1),
    "brown": lambda rng, samples: coloured(rng, samples, 2),
    "hum": lambda rng, samples: hum(rng, samples, any_pitch(rng)),
    "violet": lambda rng, samples: coloured(rng, samples, -2),
    "any colour": lambda rng, samples: coloured(rng, samples, rng.uniform(-1, 2.5)),
    "any band": lambda rng, samples: band(rng, samples, *any_band(rng)),
    "clicks": lambda rng, samples: impulses(rng, samples, per_second=4, decay_s=0.002),
    "rustle": lambda rng, samples: impulses(
        rng, samples, rng.uniform(6, 80), float(np.exp(rng.uniform(-8, -5)))
    ),
    "rain": rain,
}
TEST_NOISES: dict[str, Noise] = {
    "white": lambda rng, samples: coloured(rng, samples, 0),
    "blue": lambda rng, samples: coloured(rng, samples, -1),
    "between pink and brown": lambda rng, samples: coloured(rng, samples, 1.5),
    "band 300 to 3400 Hz": lambda rng, samples: band(rng, samples, 300, 3400),
    "hum 60 Hz": lambda rng, samples: hum(rng, samples, 60),
    "crackle": lambda rng, samples: impulses(rng, samples, per_second=25, decay_s=0.0005),
}
FLOORS: dict[str, dict[str, Noise]] = {
    "train": {sort: TRAIN_NOISES[sort] for sort in ("white", "pink", "hum")},
    "test": {sort: TEST_NOISES[sort] for sort in ("blue", "between pink and brown", "hum 60 Hz")},
}
NOISES = {"train": TRAIN_NOISES, "test": TEST_NOISES}

# ---- clips


def scaled(waveform: Waveform, peak_dbfs: float) -> Waveform:
    """Brings a waveform's peak to a level.

    Args:
        waveform: not all zero.
        peak_dbfs: decibels below full scale, negative.

    Returns:
        The waveform times a constant.
    """
    return waveform / np.abs(waveform).max() * 10 ** (peak_dbfs / 20)


def passage(texts: Sequence[str], seconds: float, rng: random.Random) -> str:
    """Takes enough text to speak for a while.

    Args:
        texts: where from.
        seconds: how long.
        rng: chooses where to begin.

    Returns:
        Whole words from one text, then on into the next.
    """
    start = rng.randrange(len(texts))
    words = " ".join([*texts[start:], *texts[:start]]).split()
    count = round(seconds * WORDS_PER_SECOND * 1.7)  # fast voices need more
    return " ".join((words * (count // len(words) + 1))[:count])


def speech_command(split: str, rng: random.Random) -> tuple[list[str], str]:
    """The command that speaks ``{file}`` into ``{out}``, and the voice's name.

    Args:
        split: ``train`` (espeak-ng in many accents, and voices that sing in its songs) or ``test``
            (voices that sing in its songs).
        rng: chooses voice, speed and pitch.
    """
    if split == "test":
        voice = rng.choice(TEST_VOICES)
        return list(VOICES[voice].command), voice
    dice = rng.random()
    if dice < SINGERS_SPEAK:
        voice = rng.choice(TRAIN_VOICES)
        return list(VOICES[voice].command), voice
    if dice < SINGERS_SPEAK + SPEAKERS_SPEAK:
        voice = rng.choice(list(SPEAKERS))
        return list(festival(SPEAKERS[voice])), voice
    voice, speed, pitch = rng.choice(TRAIN_ACCENTS), rng.randint(130, 190), rng.randint(30, 65)
    manner = ["-v", voice, "-s", str(speed), "-p", str(pitch)]
    return ["espeak-ng", *manner, "-w", "{out}", "{text}"], f"espeak-ng {voice}"


def write_waveform(waveform: Waveform, target: Path) -> None:
    """Writes a mono waveform as 24-bit FLAC, so that near-silence keeps its shape."""
    raw = ["-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", "1", "-i", "-", "-sample_fmt", "s32"]
    samples = waveform.astype("<f4").tobytes()
    subprocess.run(["ffmpeg", "-v", "error", "-y", *raw, str(target)], input=samples, check=True)


def write_speech(split: str, target: Path, seconds: int, rng: random.Random) -> str:
    """Writes a clip of synthetic speech and gives the voice's name."""
    text = passage(TRAIN_TEXTS if split == "train" else TEST_TEXTS, seconds, rng)
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder, "speech.wav")
        command, voice = speech_command(split, rng)
        synthesise(command, text, spoken)
        cut = f"apad,atrim=0:{seconds},afade=t=out:st={seconds - 0.2}:d=0.2"
        sound = ["-ar", str(SAMPLE_RATE), "-sample_fmt", "s16", str(target)]
        subprocess.run(
            ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(spoken), "-af", cut, *sound],
            check=True,
        )
    return voice


def make_clip(kind: str, split: str, index: int, seed: int, folder: Path) -> dict[str, Any]:
    """Makes one clip.

    Args:
        kind: ``silence``, ``noise`` or ``speech``.
        split: ``train`` or ``test``.
        index: of the clip among those of its kind.
        seed: of all choices.
        folder: where to.

    Returns:
        The clip's row of the manifest.
    """
    rng = random.Random(f"{seed} {split} {kind} {index}")
    seconds = rng.randint(*LENGTHS_S[split])
    path = folder / f"{kind}-{index:03d}.flac"
    row: dict[str, Any] = {"path": path.name, "kind": kind, "split": split, "duration_s": seconds}
    if kind == "speech":
        return row | {"sort": write_speech(split, path, seconds, rng)}
    noises = FLOORS[split] if kind == "silence" else NOISES[split]
    sort = list(noises)[index % len(noises)]
    waveform = noises[sort](np.random.default_rng(rng.getrandbits(64)), seconds * SAMPLE_RATE)
    peak_dbfs = rng.uniform(*(SILENCE_DBFS if kind == "silence" else NOISE_DBFS))
    write_waveform(scaled(waveform, peak_dbfs), path)
    return row | {"sort": sort, "peak_dbfs": round(peak_dbfs, 1)}


def main() -> None:
    """Makes clips and writes their manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the clips and manifest.jsonl"
    )
    parser.add_argument("--split", choices=("train", "test"), required=True)
    parser.add_argument("--per-kind", type=int, default=20, help="clips of each of the three kinds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind in ("silence", "noise", "speech"):
        for index in range(options.per_kind):
            rows.append(make_clip(kind, options.split, index, options.seed, options.output))
            print(options.output / rows[-1]["path"], file=sys.stderr)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (options.output / "manifest.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
