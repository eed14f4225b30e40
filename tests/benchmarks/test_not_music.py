"""The pure parts of the clips without music: levels, colours, texts and commands."""

import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks import not_music
from benchmarks.not_music import LENGTHS_S
from benchmarks.singing import VOICES, festival

SAMPLES = 2 * not_music.SAMPLE_RATE


def band_power(waveform: not_music.Waveform, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / not_music.SAMPLE_RATE)
    return float(power[(frequency >= low_hz) & (frequency < high_hz)].sum())


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_noise_is_finite_and_not_silent(split: str) -> None:
    for sort, noise in not_music.NOISES[split].items():
        waveform = noise(np.random.default_rng(0), SAMPLES)

        assert waveform.shape == (SAMPLES,), sort
        assert np.isfinite(waveform).all(), sort
        assert np.abs(waveform).max() > 0, sort


@pytest.mark.parametrize(("exponent", "decibels_an_octave"), [(0, 3), (1, 0), (2, -3), (-1, 6)])
def test_power_of_an_octave_follows_the_colour(exponent: float, decibels_an_octave: float) -> None:
    waveform = not_music.coloured(np.random.default_rng(1), SAMPLES, exponent)

    ratio = band_power(waveform, 2000, 4000) / band_power(waveform, 1000, 2000)

    assert 10 * np.log10(ratio) == pytest.approx(decibels_an_octave, abs=0.5)


def test_scaled_waveform_has_the_peak_asked_for() -> None:
    waveform = not_music.scaled(np.array([0.1, -0.5, 0.2]), -60.0)

    assert np.abs(waveform).max() == pytest.approx(0.001)


def test_silence_is_never_digital_zero() -> None:
    assert min(not_music.SILENCE_DBFS) > -80


def test_passage_is_long_enough_and_made_of_the_texts() -> None:
    text = not_music.passage(not_music.TEST_TEXTS, 30.0, random.Random(0))

    assert len(text.split()) >= 30 * not_music.WORDS_PER_SECOND
    assert set(text.split()) <= set(" ".join(not_music.TEST_TEXTS).split())


def test_splits_share_no_text_and_no_voice_speaking_or_singing() -> None:
    assert not set(not_music.TRAIN_TEXTS) & set(not_music.TEST_TEXTS)
    sung = {split: {n for n, v in VOICES.items() if v.split == split} for split in LENGTHS_S}
    spoken = {voice.partition("+")[2] for voice in not_music.TRAIN_ACCENTS}
    assert not (spoken | sung["train"]) & (set(not_music.TEST_VOICES) | sung["test"])
    spoken |= {*not_music.TRAIN_VOICES, *not_music.SPEAKERS}
    commands = {VOICES[name].command for name in not_music.TEST_VOICES}
    assert not {festival(voice) for voice in not_music.SPEAKERS.values()} & commands
    for split, names in (("train", spoken), ("test", set(not_music.TEST_VOICES))):
        for seed in range(10):
            command, voice = not_music.speech_command(split, random.Random(seed))
            assert voice.partition("+")[2] in names or voice in names
            assert "{out}" in command


def test_hums_of_the_training_split_are_none_of_the_test_s() -> None:
    pitches = [not_music.any_pitch(np.random.default_rng(seed)) for seed in range(50)]

    assert all(40 <= pitch <= 240 and abs(pitch - 60) > 5 for pitch in pitches)
    assert max(pitches) > 120


def test_test_clips_are_long_enough_to_be_cut_to_a_minute() -> None:
    assert LENGTHS_S["test"][0] > 60


def test_a_clip_is_named_relative_to_its_folder(tmp_path: Path) -> None:
    row = not_music.make_clip("noise", "test", 0, 0, tmp_path)

    assert Path(row["path"]).name == row["path"]
    assert (tmp_path / row["path"]).is_file()
