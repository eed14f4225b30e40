import json
import random
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks import singing
from benchmarks.singing import LINES, RATE, VOICES, Manner, loudness, make, melody, write


def test_splits_share_no_voice_and_have_both_sexes() -> None:
    for split in ("train", "test"):
        sexes = [voice.sex for voice in VOICES.values() if voice.split == split]
        assert sexes.count("male") >= 3 and sexes.count("female") >= 3
    commands = [voice.command for voice in VOICES.values()]
    assert len(set(commands)) == len(commands)


def test_a_melody_keeps_to_its_scale() -> None:
    manner = Manner(57, (0, 2, 4, 7, 9), slower=2.0, formants=1.0)
    points = melody(6.0, manner, random.Random(0))
    midi = np.array([69 + 12 * np.log2(hertz / 440) for _, hertz in points])
    assert np.abs(midi - midi.round()).max() < 0.25  # vibrato, and no more
    assert {int(m) % 12 for m in (midi.round() - 57)} <= {0, 2, 4, 7, 9}
    assert len({int(m) for m in midi.round()}) >= 4
    times = [time for time, _ in points]
    assert times == sorted(times) and times[0] >= 0 and times[-1] < 6


def test_loudness_is_that_of_the_loud_parts() -> None:
    tone = np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE)
    assert loudness(np.concatenate([tone, np.zeros(RATE)])) == pytest.approx(0.5**0.5, rel=0.01)
    assert loudness(np.zeros(10)) == 0


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tone instead of a voice, noise instead of a recording."""
    tone = np.sin(2 * np.pi * 220 * np.arange(2 * RATE) / RATE)
    monkeypatch.setattr(singing, "speak", lambda voice, text: tone)
    monkeypatch.setattr(singing, "sing", lambda speech, sex, manner, dice: speech)
    noise = 0.1 * np.random.default_rng(0).normal(size=8 * RATE)
    monkeypatch.setattr(
        singing, "stretch", lambda path, seconds, place: noise[: int(seconds * RATE)]
    )


def share(samples: np.ndarray[Any, Any]) -> float:
    """The share of the tone in the power."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return float(power[np.abs(hertz - 220) < 5].sum() / power.sum())


@pytest.mark.usefixtures("plain")
def test_what_is_certain_is_what_was_mixed() -> None:
    made = [make({"path": "x", "title": "T"}, "train", 6.0, f"0-{n}") for n in range(80)]
    voices = [about["voice"] for _, about in made]
    assert {"male", "female", "choir"} == set(voices)
    for samples, about in made:
        assert len(samples) == 6 * RATE and np.abs(samples).max() == pytest.approx(0.8)
        sexes = {VOICES[name].sex for name in about["singers"]}
        assert about["voice"] == "choir" or sexes == {about["voice"]}
        assert {VOICES[name].split for name in about["singers"]} == {"train"}
        assert (len(about["singers"]) >= 5) == (about["voice"] == "choir")
    alone = [share(samples) for samples, about in made if about["level_db"] is None]
    loud = [share(s) for s, a in made if a["level_db"] is not None and a["level_db"] > 6]
    low = [share(s) for s, a in made if a["level_db"] is not None and a["level_db"] < -2]
    assert min(alone) > max(low) and np.mean(loud) > 2 * np.mean(low)


def test_a_stretch_of_silence_is_not_sung_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def half_silent(path: str, seconds: float, place: float) -> Any:
        return np.full(RATE, 0.5 if place < 0.3 else 0.0)

    monkeypatch.setattr(singing, "stretch", half_silent)
    for seed in range(5):
        assert singing.audible("x", 1.0, random.Random(seed)).max() == 0.5
    monkeypatch.setattr(singing, "stretch", lambda *_: np.zeros(RATE))
    with pytest.raises(ValueError, match="x is silent"):
        singing.audible("x", 1.0, random.Random(0))


@pytest.mark.usefixtures("plain")
def test_a_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    options = Namespace(output=tmp_path, count=3, seconds=2.0, seed=0)
    write("train", [{"path": "x", "title": "T"}], options)
    first = soundfile.read(tmp_path / "0001.flac")[0]
    (tmp_path / "0001.json").unlink()
    kept = (tmp_path / "0002.flac").stat().st_mtime_ns
    write("train", [{"path": "x", "title": "T"}], options)
    assert np.array_equal(soundfile.read(tmp_path / "0001.flac")[0], first)
    assert (tmp_path / "0002.flac").stat().st_mtime_ns == kept
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == ["0000.flac", "0001.flac", "0002.flac"]
    assert all(row["split"] == "train" and row["voice"] for row in rows)


@pytest.mark.usefixtures("plain")
def test_the_splits_share_neither_lines_nor_draws(tmp_path: Path) -> None:
    assert not set(LINES["train"]) & set(LINES["test"])
    levels = []
    for split in ("train", "test"):
        options = Namespace(output=tmp_path / split, count=8, seconds=2, seed=0)
        write(split, [{"path": "x"}], options)
        rows = (tmp_path / split / "manifest.jsonl").read_text().splitlines()
        levels.append([json.loads(row)["level_db"] for row in rows])
    assert sum(one == other for one, other in zip(*levels, strict=True)) < 4
