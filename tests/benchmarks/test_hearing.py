import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from benchmarks.hearing import (
    AT_MOMENT,
    GENRE,
    INSTRUMENT,
    SEX,
    SINGER,
    TEMPO,
    Asker,
    Probes,
    balanced,
    described,
    fluency,
    fluency_line,
    interval,
    markdown,
    measure,
    read_kind,
    read_singer,
    tables,
    told_table,
    train_probe,
    wrong_songs,
)
from benchmarks.truths import Case, Sounds, chosen, cut, cuts, documented, judged, pushed, splices
from musilingo_core import ChatEngine
from musilingo_core.data.facts import Facts, Teacher
from musilingo_core.data.manifest import read_sounds
from musilingo_core.evaluation import NOISE_S
from musilingo_core.features import Clip
from musilingo_core.times import find_spans
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


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("I do not hear music here; I hear only noise.", "noise"),
        ("I do not hear music here; I hear someone speaking.", "speech"),
        ("I hear almost nothing, it is nearly silent.", "silence"),
        ("This is a slow classical piece with piano.", "music"),
        ("I do not hear music here; I hear rain.", ""),
        (" ", ""),
    ],
)
def test_what_is_not_denied_is_music(answer: str, said: str) -> None:
    assert read_kind(answer) == said


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


def test_a_clip_that_lacks_a_sample_is_long_enough() -> None:
    clips = [replace(make_clip(), duration_s=seconds) for seconds in (11.99, 11.5, 12.0)]
    sounds: list[tuple[dict[str, Any], Clip]] = [({}, clip) for clip in clips]
    assert cuts(sounds, 12.0) == [sounds[0], sounds[2]]
    assert cuts(sounds, None, shortest=12) == [sounds[0], sounds[2]]
    assert cuts(sounds, None) == sounds


@pytest.mark.parametrize("vocal", [True, False])
def test_albums_are_kept_small_but_documented_voices_all(vocal: bool) -> None:
    rows = [{"album": "a"}, {"album": "a"}, {"album": "a", "documented": {"vocal": vocal}}]
    assert chosen(rows, 1) == [rows[0], rows[2]]


def test_what_was_answered_is_not_asked_again_unless_the_weights_changed(
    engine: ChatEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "answers.jsonl"
    case = Case("song", replace(make_clip(), fingerprint=engine.fingerprint), Facts())
    first = Asker(engine, file).ask(case, "Slow?")
    file.write_text(file.read_text() + '{"cut off')
    again = Asker(engine, file)
    with monkeypatch.context() as context:
        context.setattr(ChatEngine, "_prompt", None)  # cannot be asked
        assert again.ask(case, "Slow?") == first
    again.ask(case, "Fast?")
    assert len(Asker(engine, file).said) == 2
    with torch.no_grad():
        engine.model.multi_modal_projector.weight += 1
    assert not Asker(engine, file).said


def test_the_moment_asked_about_is_within_the_noise() -> None:
    assert find_spans(AT_MOMENT.question, NOISE_S)


def test_a_judge_in_doubt_says_nothing() -> None:
    verdicts = {"a": 0.9, "b": 0.7, "c": 0.2}
    assert [judged(path, verdicts).voice for path in "abcd"] == ["none", "", "some", ""]


def test_papers_are_read_in_our_words() -> None:
    papers = {"genre": "thrash metal", "vocal": True, "singer": "female", "instrument": "kazoo"}
    facts = documented({"documented": papers})
    assert (facts.genre, facts.voice, facts.instruments) == ("metal", "female", ())
    assert documented({}).voice == ""
    assert documented({"documented": {"vocal": False}}).voice == "none"


class Says:
    """Answers with what was put in the place of a clip's id; without music `deaf`."""

    def __init__(self, deaf: str) -> None:
        self.without = deaf

    def ask(self, case: Case, question: str) -> str:
        return case.clip.clip_id

    def unheard(self, question: str, noise: bool = False) -> str:
        return "Fast noise." if noise else self.without


def tempo_cases(*known_and_said: tuple[str, str]) -> list[Case]:
    """A track of its own for each known tempo and answer."""
    return [
        Case(f"track {number}", make_clip(key=said), Facts(tempo=tempo))
        for number, (tempo, said) in enumerate(known_and_said)
    ]


def test_a_row_is_counted_from_answers_and_stands_beside_its_baselines() -> None:
    slow = [("slow", "It is slow.")] * 3 + [("slow", "It is fast.")]
    fast = [("fast", "It is fast."), ("fast", "It is slow."), ("fast", "Hello.")]
    cases = tempo_cases(*slow, *fast, ("moderate", "It is slow."), ("", "It is slow."))

    def probe(known: Sequence[Case]) -> list[str]:
        return ["slow", "slow", "fast", "fast", "fast", "fast", "fast"][: len(known)]

    row = measure(cast(Asker, Says(deaf="It is fast.")), cases, TEMPO, probe)
    assert row is not None
    assert (row["tracks"], row["classes"]) == (7, {"fast": 3, "slow": 4})
    assert row["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 3) / 2)
    assert (row["most_frequent"], row["deaf"]) == (0.5, 0.5)
    assert row["probe"] == pytest.approx((2 / 4 + 3 / 3) / 2)
    assert row["confusion"] == {
        "slow → slow": 3, "slow → fast": 1, "fast → fast": 1, "fast → slow": 1, "fast → ?": 1,
    }  # fmt: skip
    low, high = row["interval"]
    assert 0 <= low < row["balanced_accuracy"] < high <= 1


def test_a_class_of_too_few_tracks_is_left_out() -> None:
    cases = tempo_cases(*[("slow", "It is slow.")] * 3, *[("fast", "It is slow.")] * 2)
    asker = cast(Asker, Says(deaf=""))
    assert measure(asker, cases, TEMPO, None) is None  # one class says little
    recall = measure(asker, cases, TEMPO, None, fewest_classes=1)
    assert recall is not None
    assert (recall["classes"], recall["balanced_accuracy"]) == ({"slow": 3}, 1.0)
    assert (recall["most_frequent"], recall["deaf"], recall["probe"]) == (1.0, 0.0, None)
    both = measure(asker, cases, TEMPO, None, fewest=2)
    assert both is not None and both["balanced_accuracy"] == 0.5
    assert measure(asker, [], SINGER, None, fewest_classes=1) is None


def test_a_probe_learns_what_a_line_can_part() -> None:
    dice = torch.Generator().manual_seed(0)
    rows = [
        (torch.randn(400, generator=dice) + side, name)
        for side, name in ((1.0, "fast"), (-1.0, "slow"))
        for _ in range(10)
    ]
    probe = train_probe(rows)
    assert probe is not None
    clips = [replace(make_clip(), features=torch.full((3, 400), side)) for side in (-1.0, 1.0)]
    assert probe([Case("", clip, Facts()) for clip in clips]) == ["slow", "fast"]
    assert train_probe(rows[:10]) is None and train_probe([]) is None


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


class Pushes:
    """A mixer that pushes ten deviations whatever is asked."""

    limit = 4.0

    def __init__(self, *_: object) -> None: ...

    def push(self, rows: torch.Tensor, tags: Sequence[str]) -> torch.Tensor:
        return rows + 10


def test_voices_are_pushed_into_three_songs_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.truths.Mixer", Pushes)
    songs: list[tuple[dict[str, Any], Clip]] = [({"path": n}, make_clip(key=n)) for n in "abcde"]
    made = pushed(songs, cast(Teacher, None))
    assert made[0][1] is songs[0][1] and made[4][1] is songs[4][1]  # so nobody asks about it twice
    for (row, clip), (same, before) in zip(made[1:4], songs[1:4], strict=True):
        assert row is same and clip.clip_id != before.clip_id
        assert float(clip.features.max()) == 4


class Deafened(Says):
    """Hears a harpsichord and no singer in everything."""

    teacher = None

    def ask(self, case: Case, question: str) -> str:
        return {SINGER.question: "No, nobody sings."}.get(question, "It is harpsichord.")


class NoProbes(Probes):
    """Has learnt nothing."""

    def __init__(self) -> None:
        """Without data."""

    def of(self, truth: str, attribute: Any) -> None:
        return None


class Hears:
    """An engine to whom all files sound alike."""

    def encode(self, path: str) -> Clip:
        return make_clip(rows=40)


def test_rendered_scores_tell_how_often_nobody_is_heard_to_sing(tmp_path: Path) -> None:
    scores = [
        {"path": f"{number}.flac", "score": f"{number}", "family": family, "tempo": "slow"}
        for number, family in enumerate(["piano", "piano", "harpsichord", "harpsichord", "choir"])
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(score) + "\n" for score in scores))
    asker = cast(Asker, Deafened(deaf="Yes."))
    teacher = cast(Teacher, None)
    engine = cast(ChatEngine, Hears())
    sounds = tuple((row, engine.encode("")) for row in read_sounds(manifest))
    rows = list(tables(asker, Sounds(teacher, scores=sounds), NoProbes(), ["12", "whole"]))
    short = [(row["attribute"], row["balanced_accuracy"]) for row in rows if row["length"] == "12"]
    assert short == [("lead instrument", 0.5), ("singer yes/no", 1.0)]
    assert rows[1]["classes"] == {"no": 4}  # a choir may be heard as singers
    assert {row["truth"] for row in rows} == {"certain"} and rows[-1]["length"] == "whole"
    assert "| certain | singer yes/no | no (100) |" in markdown(rows)


class Agrees(Asker):
    """Hears somebody sing, and noise, in everything."""

    def __init__(self) -> None:
        """Without an engine."""

    def ask(self, case: Case, question: str) -> str:
        return "Yes, a man sings." if "singer" in question.lower() else "I hear only noise."

    def unheard(self, question: str, noise: bool = False) -> str:  # type: ignore[override]
        return ""


def test_invented_and_missed_singers_and_missed_noise_are_counted_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.truths.pushed", lambda songs, teacher: songs)

    def heard(*rows: dict[str, Any]) -> tuple[tuple[dict[str, Any], Clip], ...]:
        return tuple(({"path": str(n)} | r, make_clip(rows=40)) for n, r in enumerate(rows))

    sounds = Sounds(
        cast(Teacher, HearsPiano()),
        songs=heard(*[{"documented": {"vocal": n < 3}} for n in range(6)]),
        verdicts={"0": 0.2, "1": 0.3, "2": 0.4, "3": 0.9, "4": 0.85, "5": 0.8},
        sung=heard(*[{"voice": voice} for voice in ["male", "female"] * 2]),
        other=heard(*[{"kind": kind} for kind in ["noise", "silence", "speech"] * 2]),
    )
    rows = list(tables(Agrees(), sounds, NoProbes(), ["12", "whole"]))
    found = {(row["truth"], row["length"], row["attribute"]): row for row in rows}
    wholes = {
        (truth, name): (row["balanced_accuracy"], list(row["classes"]))
        for (truth, length, name), row in found.items()
        if length == "whole" and not truth.startswith("teacher")
    }
    assert wholes == {
        ("documented, sung", "singer yes/no"): (1.0, ["yes"]),
        ("documented, instrumental", "singer yes/no"): (0.0, ["no"]),
        ("judged, sung", "singer yes/no"): (1.0, ["yes"]),
        ("judged, instrumental", "singer yes/no"): (0.0, ["no"]),
        ("certain, sung", "singer yes/no"): (1.0, ["yes"]),
        ("certain, sung", "singer's sex"): (0.5, ["female", "male"]),
        ("certain, kind", "music or not"): (0.25, ["music", "noise", "silence", "speech"]),
        ("certain, no sound", "music or not"): (0.5, ["noise", "silence"]),
    }
    # A song that its papers call sung may be silent for twelve seconds; a concerto never sings.
    assert ("documented, sung", "12", "singer yes/no") not in found
    assert ("documented, instrumental", "12", "singer yes/no") in found


class HearsPiano:
    """A teacher to whom all is piano."""

    def facts(self, features: torch.Tensor) -> Facts:
        return Facts(instruments=("piano",))


def test_answers_are_fluent_when_they_differ_and_do_not_go_in_circles() -> None:
    circle = "It is slow and it is calm, it is slow, and it is calm."
    short = "It is slow. It is slow."  # three words recur, but no four
    answers = ["A slow piece with piano.", "A slow piece with piano.", circle, short]
    assert fluency(answers) == {"asked": 4, "distinct": 3, "repeating": 1}
    assert fluency([]) == {"asked": 0, "distinct": 0, "repeating": 0}
    line = fluency_line(fluency(answers))
    assert "of 4 clips: 3 different answers, 1 in which four words" in line


def test_a_line_of_the_table_shows_per_cent_at_each_length() -> None:
    row = {
        "truth": "teacher", "length": "12", "attribute": "genre", "tracks": 20,
        "classes": {"rock": 10, "jazz": 10}, "balanced_accuracy": 0.75, "interval": (0.5, 0.9),
        "most_frequent": 0.5, "wrong": 0.25, "noise": 0.0, "deaf": 0.5, "probe": None,
    }  # fmt: skip
    other = row | {"length": "whole", "attribute": "slow/fast", "probe": 1.0}
    head, _, *lines = markdown([row, other]).splitlines()
    assert head.count("|") == lines[0].count("|") == lines[1].count("|")
    assert "12 s (95 %; tracks)" in head and "whole (95 %; tracks)" in head
    assert lines == [
        "| teacher | genre | 2 (50) | **75** (50–90; 20) | 25 | 0 | 50 | | | | | | |",
        "| teacher | slow/fast | 2 (50) | | | | | | **75** (50–90; 20) | 25 | 0 | 50 | 100 |",
    ]


def test_wrong_songs_are_of_another_class_and_track() -> None:
    tracks, truth = ["a", "a", "b", "c", "d"], ["slow", "fast", "fast", "slow", "fast"]
    for number, other in enumerate(wrong_songs(tracks, truth)):
        assert tracks[other] != tracks[number] and truth[other] != truth[number]
    assert wrong_songs(["a", "b"], ["slow", "slow"]) == [0, 1]  # there is none


def test_descriptions_are_judged_for_the_right_song_and_a_wrong_one() -> None:
    def facts(genre: str, lead: str) -> Facts:
        others = tuple({"piano", "guitar"} - {lead})
        rest = tuple({"rock", "classical"} - {genre})
        return Facts(instruments=(lead,), absent=others, genre=genre, not_genres=rest, tempo="slow")

    rock = "This is a slow rock piece with guitar."
    sounds = Sounds(cast(Teacher, None))
    cases = [
        Case("a", make_clip(key=rock), facts("rock", "guitar")),
        Case("b", make_clip(key="This is a slow piece with piano."), facts("classical", "piano")),
    ]
    told = described(cast(Asker, Says("")), cast(Sounds, Given(sounds, cases)), "12")
    assert told["right song"] == {"true": 2.5, "three_true": 0.5, "false_share": 0.0}
    assert told["wrong song"] == {"true": 1.0, "three_true": 0.0, "false_share": 3 / 5}
    assert "| wrong song | 12 | 1.0 | 0 % | 60 % |" in told_table([told])


class Given:
    """Test clips that are given."""

    def __init__(self, _: Sounds, found: list[Case]) -> None:
        self.found = found

    def cases(self, length: str) -> list[tuple[str, list[Case]]]:
        return [("teacher", self.found)]
