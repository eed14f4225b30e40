from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from benchmarks.hearing import (
    GENRE,
    INSTRUMENT,
    SEX,
    balanced,
    chosen,
    cut,
    documented,
    interval,
    markdown,
    read_singer,
    splices,
)
from musilingo_core.data.facts import Facts, Teacher
from musilingo_core.features import Clip
from tests.conftest import make_clip


def test_the_first_class_that_an_answer_names_counts() -> None:
    assert INSTRUMENT.read("The lead instrument is synthesizer, not piano.") == "synth"
    assert INSTRUMENT.read("Pianos? No: a violin.") == ""
    assert GENRE.read("It is hip-hop music.") == "hip-hop"
    assert SEX.read("A woman sings.") == "female"
    assert SEX.read("The singer is male.") == "male"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes, a man sings.", "yes"),
        ("No, nobody sings, it is instrumental.", "no"),
        ("It is instrumental.", "no"),
        ("I hear strings.", ""),
    ],
)
def test_yes_and_no_are_read_from_sentences(answer: str, said: str) -> None:
    assert read_singer(answer) == said


def test_accuracy_is_the_mean_over_classes() -> None:
    truth = ["a", "a", "a", "b"]
    assert balanced(truth, ["a", "a", "x", "x"], ["a", "b"]) == pytest.approx(1 / 3)
    low, high = interval(["t1", "t2", "t3", "t4"], truth, truth, ["a", "b"])
    assert low == high == 1


def test_a_cut_is_the_middle_and_shorter_songs_stay() -> None:
    clip = make_clip(rows=20)
    part = cut(clip, 12.0)
    assert len(part.features) < 8 and part.clip_id != clip.clip_id
    middle = clip.features[len(clip.features) // 2]
    assert any(torch.equal(row, middle) for row in part.features)
    assert cut(clip, None) is clip and cut(clip, 1e6) is clip


def test_albums_are_kept_small_but_documented_voices_all() -> None:
    rows = [{"album": "a"}, {"album": "a"}, {"album": "a", "documented": {"vocal": True}}]
    assert chosen(rows, 1) == [rows[0], rows[2]]


def test_papers_are_read_in_our_words() -> None:
    papers = {"genre": "thrash metal", "vocal": True, "singer": "female", "instrument": "kazoo"}
    facts = documented({"documented": papers})
    assert (facts.genre, facts.voice, facts.instruments) == ("metal", "female", ())
    assert documented({}).voice == ""
    assert documented({"documented": {"vocal": False}}).voice == "none"


class ByMean:
    """A teacher to whom high values are a piano, low ones strings."""

    def facts(self, rows: torch.Tensor) -> Facts:
        return Facts(instruments=("piano" if rows.mean() > 0 else "strings",))


def test_a_splice_is_asked_about_the_second_of_two_different_songs() -> None:
    songs: list[tuple[dict[str, Any], Clip]] = [
        ({"path": path}, replace(make_clip(rows=14), features=torch.full((14, 400), value)))
        for path, value in (("a", 1.0), ("b", -1.0), ("c", 1.0))
    ]
    cases = list(splices(songs, cast(Teacher, ByMean())))
    assert [case.facts.instruments for case in cases] == [("piano",), ("strings",), ("piano",)]
    for case in cases:
        first, second = case.clip.part(0, 30), case.clip.part(45, 60)
        assert float(first.features.mean()) == -float(second.features.mean())


def test_a_line_of_the_table_shows_per_cent_at_each_length() -> None:
    row = {
        "truth": "teacher", "length": "12", "attribute": "genre", "tracks": 20,
        "classes": {"rock": 10, "jazz": 10}, "balanced_accuracy": 0.75, "interval": (0.5, 0.9),
        "most_frequent": 0.5, "deaf": 0.5, "probe": None,
    }  # fmt: skip
    other = row | {"length": "whole", "attribute": "slow/fast", "probe": 1.0}
    head, _, *lines = markdown([row, other]).splitlines()
    assert head.count("|") == lines[0].count("|") == lines[1].count("|")
    assert "12 s (95 %; tracks)" in head and "whole (95 %; tracks)" in head
    assert lines == [
        "| teacher | genre | 2 (50) | **75** (50–90; 20) | 50 |  | | | |",
        "| teacher | slow/fast | 2 (50) | | | | **75** (50–90; 20) | 50 | 100 |",
    ]
