import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import probe
from benchmarks.probe import KIND, Sample, check_apart, in_samples, markdown, mean, measure, spread
from tests.conftest import make_clip

CHANGED = {
    "path": "a.flac",
    "score": "bach/bwv1.6.mxl",
    "work": "bach/bwv1",
    "composer": "Bach",
    "duration_s": 30.0,
    "tempo": "slow",
    "sections": [
        {"start_s": 0.0, "end_s": 15.0, "family": "piano"},
        {"start_s": 15.0, "end_s": 30.0, "family": "flute"},
    ],
}


PACES = (("50", "slow"), ("150", "fast"), ("100", "moderate"), ("150", "fast"))


def sample(work: str, rows: Sequence[Sequence[float]], composer: str = "", **known: str) -> Sample:
    return Sample(work, composer, known, torch.tensor(rows))


def songs(split: str, count: int = 120) -> list[Sample]:
    """Three clips a work. The features tell the mode, the composer and the tempo, not the drums."""
    dice = Random(split)
    made = []
    for number in range(count):
        mode, drums = dice.choice(["major", "minor"]), dice.choice(["yes", "no"])
        composer, bpm = dice.choice(["Bach", "Haydn"]), dice.uniform(50, 180)
        values = [
            (mode == "major") + dice.gauss(0, 0.2),
            (composer == "Bach") + dice.gauss(0, 0.2),
            np.log(bpm) + dice.gauss(0, 0.01),
        ]
        known = {"mode": mode, "drums": drums, "bpm": str(round(bpm))}
        known["metre"] = "triple" if composer == "Bach" else "duple"  # so it can be guessed
        made.append(sample(f"{split} {number // 3}", [values, values], composer, **known))
    return made


def test_a_clip_is_seen_as_mean_and_deviation_of_its_rows() -> None:
    clip = sample("work", [[1.0, 2.0], [3.0, 2.0]])

    assert mean([clip]).tolist() == [[2.0, 2.0]]
    assert spread([clip]).tolist() == [[2.0, 2.0, 1.0, 0.0]]


def test_a_clip_that_changes_is_also_two_that_do_not() -> None:
    clip = replace(make_clip(rows=10), duration_s=30.0)

    whole, first, second = in_samples(CHANGED, lambda path: clip)

    assert (whole.labels["lead"], whole.labels["change"]) == ("", "lead")
    assert (first.labels["lead"], second.labels["lead"]) == ("piano", "flute")
    assert {s.labels["tempo"] for s in (whole, first, second)} == {"slow"}
    assert {s.work for s in (whole, first, second)} == {"bach/bwv1"}
    assert len(whole.rows) == 10
    assert torch.equal(first.rows, clip.part(1.5, 13.5).features)
    assert torch.equal(second.rows, clip.part(16.5, 28.5).features)


def test_what_is_no_music_has_its_kind_only() -> None:
    (found,) = in_samples({"path": "a.flac", "kind": "noise"}, lambda path: make_clip())

    assert found.labels == {KIND: "noise"} and found.work == "a.flac"


def test_what_the_features_tell_is_heard() -> None:
    row = measure("mode", songs("train"), {"scores": songs("test"), "others": songs("more")})

    assert row is not None and row["heard"] == "yes"
    found = row["tests"]["scores"]
    value, (low, high) = found["mean"]
    assert 0.9 < low <= value <= high <= 1
    assert (found["chance"], found["clips"], found["works"]) == (0.5, 120, 40)
    assert row["classes"].keys() == {"major", "minor"} and row["train"] == 120


def test_what_the_features_do_not_tell_is_not_heard() -> None:
    row = measure("drums", songs("train"), {"scores": songs("test")})

    assert row is not None and row["heard"] == "no"


def test_what_can_be_guessed_without_sound_is_not_heard() -> None:
    row = measure("metre", songs("train"), {"scores": songs("test")})

    assert row is not None and row["heard"] == "no"
    assert row["tests"]["scores"]["mean"][0] > 0.9
    assert row["tests"]["scores"]["guess"] == 1.0


def test_what_is_heard_in_one_list_only_is_not_heard() -> None:
    deaf = [replace(song, rows=torch.zeros(2, 3)) for song in songs("more")]

    row = measure("mode", songs("train"), {"scores": songs("test"), "others": deaf})

    assert row is not None and row["heard"] == "no"


def test_a_tempo_is_right_when_it_is_near() -> None:
    row = measure("bpm", songs("train"), {"scores": songs("test")})

    assert row is not None and row["heard"] == "yes"
    assert row["tests"]["scores"]["mean"][0] > 0.9
    assert row["tests"]["scores"]["chance"] < 0.2
    test = [sample("work", [[0.0]], bpm=bpm) for bpm in ("100", "104", "96", "90")]
    near = probe.score("bpm", test, lambda samples: ["100"] * len(samples))
    assert near[0] == 0.5  # 100 / 96 is above 1.04
    known = [sample("a", [[0.0]], bpm=bpm, tempo=pace) for bpm, pace in PACES]
    found = probe.pace(known, lambda samples: ["60", "60", "120", "120"])
    assert found == {"median_error": pytest.approx(0.2), "slow_or_fast": 0.75}
    assert probe._chance("bpm", test) == 0.5


@pytest.mark.parametrize(
    ("value", "low", "chance", "guess", "said"),
    [
        (0.7, 0.6, 0.5, 0.55, "yes"),
        (0.7, 0.6, 0.5, 0.65, "no"),
        (0.7, 0.5, 0.5, 0.4, "no"),
        (0.4, 0.3, 0.1, 0.1, "faintly"),
    ],
)
def test_heard_is_what_beats_chance_and_guess_and_is_mostly_right(
    value: float, low: float, chance: float, guess: float, said: str
) -> None:
    sure = {"value": (0.9, (0.9, 0.9)), "chance": 0.1, "guess": 0.1}
    other = {"value": (value, (low, 1.0)), "chance": chance, "guess": guess}

    assert probe.verdict([sure, other]) == said


def test_what_is_constant_in_training_and_huge_elsewhere_does_not_rule() -> None:
    def with_more(songs: list[Sample], value: float) -> list[Sample]:
        more = torch.tensor([[value], [value]])
        return [replace(song, rows=torch.cat([song.rows, more], dim=1)) for song in songs]

    train = with_more(songs("train"), 0.0)
    train[0].rows[:, -1] += 1e-3
    for name in ("mode", "bpm"):
        row = measure(name, train, {"scores": with_more(songs("test"), 1000.0)})
        assert row is not None and row["tests"]["scores"]["mean"][0] > 0.6


def test_an_attribute_is_guessed_without_what_says_the_same() -> None:
    dice = Random(0)
    train = []
    for number in range(60):
        mode = dice.choice(["major", "minor"])
        train.append(sample(f"{number}", [[0.0]], "Bach", mode=mode, key=f"C {mode}"))

    said = probe.guessing("mode", train)(train)

    assert len(set(said)) == 1


def test_rare_classes_and_attributes_of_one_class_are_left_out() -> None:
    train = songs("train")
    rare = [replace(song, labels={"mode": "dorian"}) for song in train[:3]]

    row = measure("mode", train + rare, {"scores": songs("test")})

    assert row is not None and row["classes"].keys() == {"major", "minor"}
    assert measure("key", train, {"scores": songs("test")}) is None
    one = [replace(song, labels={"mode": "major"}) for song in train]
    assert measure("mode", train, {"scores": one}) is None


def test_a_work_may_not_be_trained_and_tested_on() -> None:
    check_apart(songs("train"), songs("test"))
    with pytest.raises(SystemExit, match="train 0 is in a training and in a test list"):
        check_apart(songs("train"), songs("train")[:1])


def test_the_table_says_all_of_it() -> None:
    found = {"clips": 30, "works": 20, "chance": 0.5, "guess": 0.61}
    found |= {"mean": (0.7, (0.62, 0.8)), "mean and spread": (0.75, (0.7, 0.81))}
    row = {
        "attribute": "mode",
        "classes": {"major": 1, "minor": 1},
        "train": 99,
        "better": "mean and spread",
        "tests": {"scores": found},
        "heard": "yes",
    }

    table = markdown([row])

    assert table.splitlines()[2] == (
        "| mode | 2 | 99 | 70 (62–80; 20) | **75** (70–81; 20) | 61 | 50 | yes |"
    )
    counts = {line.count("|") for line in table.splitlines()}
    assert len(counts) == 1
    found |= {"median_error": 0.2, "slow_or_fast": 0.75}
    assert markdown([row | {"attribute": "bpm"}]).endswith(
        "\n\nscores: beats per minute are 20 % off (median); by them, slow is told from fast in "
        "75 %.\n"
    )


def test_the_command_hears_files_and_writes_what_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lists(split: str) -> Path:
        rows = []
        for number in range(24):
            family = ("piano", "flute")[number % 2]
            row = {"path": f"{family}-{number}.flac", "score": f"{split} {number}"}
            rows.append(row | {"composer": "Bach", "family": family, "duration_s": 30.0})
        path = tmp_path / split / "manifest.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def hears(path: str) -> Any:
        clip = make_clip(rows=4)
        return replace(clip, features=clip.features + 3 * ("flute" in path))

    monkeypatch.setattr(probe, "load_encoder", lambda folder, device: None)
    monkeypatch.setattr(probe, "ear", lambda encoder: hears)
    train, test = lists("train"), lists("test")
    words = ["probe", "--train", str(train), "--test", str(test), "--encoder", "x"]
    monkeypatch.setattr("sys.argv", [*words, "--output", str(tmp_path / "out")])

    probe.main()

    written = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert written["heard"] == ["lead", "family"]  # and nothing of which only one class is known
    table = (tmp_path / "out" / "probe.md").read_text()
    assert "| test: mean |" in table and table.strip() in capsys.readouterr().out
