import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
import torch

from benchmarks import hearing
from benchmarks.hearing import (
    AT_MOMENT,
    GENRE,
    INSTRUMENT,
    KIND,
    SEX,
    SINGER,
    TEMPO,
    Asker,
    Probes,
    described,
    fluency,
    fluency_table,
    main,
    markdown,
    measure,
    repeats,
    runs_on,
    tables,
    told_table,
    train_probe,
    wrong_songs,
)
from benchmarks.truths import Case, Sounds, chosen, cut, cuts, documented, judged, pushed, splices
from musilingo_core import ChatEngine
from musilingo_core.data.dialogues import Scene, ask, write
from musilingo_core.data.facts import Facts, Teacher
from musilingo_core.data.manifest import read_sounds
from musilingo_core.evaluation import GREEDY, NOISE_S, commit
from musilingo_core.features import Clip
from musilingo_core.times import find_spans
from tests.benchmarks.test_claims import known_songs
from tests.conftest import make_clip


def test_the_first_class_that_an_answer_names_counts() -> None:
    assert INSTRUMENT.read("The lead instrument is synthesizer, not piano.") == "synth"
    assert INSTRUMENT.read("It is not piano but guitars.") == "guitar"
    assert GENRE.read("It is hip hop.") == "hip-hop"
    assert SEX.read("A woman sings.") == "female"
    assert SEX.read("The singer is male.") == "male"
    assert TEMPO.read("It is neither slow nor fast.") == "moderate"
    assert TEMPO.read("It is not slow, it is quick.") == "fast"


@pytest.mark.parametrize("facts", known_songs(), ids=lambda facts: facts.genre)
def test_answers_as_trained_are_read_as_what_is_so_and_are_fluent(facts: Facts) -> None:
    scene = Scene(facts, 90.0, lambda start_s, end_s: facts)
    asked = {
        INSTRUMENT: ["lead", "instruments", "describe", "begin"],
        TEMPO: ["tempo", "describe"],
        GENRE: ["genre", "describe"],
        SINGER: ["singer", "instrumental", "sex", "describe"],
        SEX: ["singer", "instrumental", "sex", "describe"],
        KIND: ["lead", "genre", "describe"],
    }
    for attribute, topics in asked.items():
        for turn in (ask(topic, scene, Random(0)) for topic in topics):
            if turn and (truth := attribute.truth(facts)):
                assert attribute.read(turn[1]) == truth, turn
    for seed in range(20):
        for _, answer in write(scene, Random(seed), turns=8):
            assert not repeats(answer) and not runs_on(answer, finished=True), answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes, a man sings.", "yes"),
        ("No, nobody sings, it is instrumental.", "no"),
        ("It is instrumental.", "no"),
        ("I hear strings.", ""),
        ("I do not hear a singer.", "no"),
        ("Yes, a woman sings, but no drums play.", "yes"),
        ("I hear a choir.", "yes"),
        ("No, there are no drums.", ""),
        ("I'm not sure if there's a singer.", ""),
    ],
)
def test_yes_and_no_are_read_from_what_is_said_of_a_voice(answer: str, said: str) -> None:
    assert SINGER.read(answer) == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("I do not hear music here; I hear only noise.", "noise"),
        ("I do not hear music here; I hear someone speaking.", "speech"),
        ("I hear almost nothing, it is nearly silent.", "silence"),
        ("This is a slow classical piece with piano.", "music"),
        ("I do not hear music here; I hear rain.", ""),
        ("I do not hear music and I hear speech.", "speech"),
        ("It is silence.", "silence"),
        ("I hear nothing.", "silence"),
        ("I do not hear noise; it is a rock song.", "music"),
        (" ", ""),
    ],
)
def test_what_is_not_denied_is_music(answer: str, said: str) -> None:
    assert KIND.read(answer) == said


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


def test_what_was_answered_is_not_asked_again_unless_model_prompt_or_sampling_changed(
    engine: ChatEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "GREEDY", replace(GREEDY, max_new_tokens=8))
    monkeypatch.setattr("musilingo_core.evaluation.NOISE_S", 3.0)
    file = tmp_path / "answers.jsonl"
    case = Case("song", replace(make_clip(), fingerprint=engine.fingerprint), Facts())
    first = Asker(engine, file).ask(case, "Slow?")
    file.write_text(file.read_text() + '{"cut off')
    again = Asker(engine, file)
    with monkeypatch.context() as context:
        context.setattr(ChatEngine, "_prompt", None)  # cannot be asked
        assert again.ask(case, "Slow?") == first
    again.ask(case, "Fast?")
    unheard = again.unheard("Slow?")
    noise = again.unheard("Slow?", noise=True)
    third = Asker(engine, file)
    with monkeypatch.context() as context:
        context.setattr(ChatEngine, "_prompt", None)
        assert (third.unheard("Slow?"), third.unheard("Slow?", noise=True)) == (unheard, noise)
    assert len(third.said) == 4
    for change in (
        (engine.processor, "system", "Be brief."),
        (hearing, "GREEDY", replace(GREEDY, max_new_tokens=9)),
    ):
        with monkeypatch.context() as context:
            context.setattr(*change)
            assert not Asker(engine, file).said
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
    assert (row["constant"], row["deaf"]) == (0.5, 0.5)
    assert row["probe"] == pytest.approx((2 / 4 + 3 / 3) / 2)
    assert row["confusion"] == {
        "slow → slow": 3, "slow → fast": 1, "fast → fast": 1, "fast → slow": 1, "fast → ?": 1,
    }  # fmt: skip
    low, high = row["interval"]
    assert 0 <= low < row["balanced_accuracy"] < high <= 1


def test_a_class_of_too_few_clips_is_left_out() -> None:
    cases = tempo_cases(*[("slow", "It is slow.")] * 3, *[("fast", "It is slow.")] * 2)
    asker = cast(Asker, Says(deaf=""))
    assert measure(asker, cases, TEMPO, None) is None  # one class says little
    recall = measure(asker, cases, TEMPO, None, fewest_classes=1)
    assert recall is not None
    assert (recall["classes"], recall["balanced_accuracy"]) == ({"slow": 3}, 1.0)
    assert (recall["constant"], recall["deaf"], recall["probe"]) == (1.0, 0.0, None)
    both = measure(asker, cases, TEMPO, None, fewest=2)
    assert both is not None and both["balanced_accuracy"] == 0.5
    assert measure(asker, [], SINGER, None, fewest_classes=1) is None


def test_a_probe_learns_what_a_line_can_part() -> None:
    dice = torch.Generator().manual_seed(0)
    rows = [
        (torch.randn(400, generator=dice) + side, name, f"work {number}")
        for side, name in ((1.0, "fast"), (-1.0, "slow"))
        for number in range(10)
    ]
    rare = [(torch.zeros(400), "moderate", "work 0")]
    probe = train_probe(rows + rare)
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
        for number, family in enumerate(["piano", "harpsichord", "choir"] * 2)
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(score) + "\n" for score in scores))
    asker = cast(Asker, Deafened(deaf="Yes."))
    teacher = cast(Teacher, None)
    engine = cast(ChatEngine, Hears())
    sounds = tuple((row, engine.encode("")) for row in read_sounds(manifest))
    rows = list(tables(asker, Sounds(teacher, scores=sounds), NoProbes(), ["12", "whole"]))
    short = [(row["attribute"], row["balanced_accuracy"]) for row in rows if row["length"] == "12"]
    assert short == [("lead instrument", 1 / 3), ("singer yes/no", 1.0)]
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
        sung=heard(*[{"voice": v, "singers": [v]} for v in ["male", "female"] * 2]),
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


def test_answers_are_flawed_that_run_on_or_repeat_themselves() -> None:
    assert all(map(repeats, ["It is slow slow slow.", "Calm, calm.", "Calm and calm.", "Hm. Hm."]))
    assert repeats("It is slow and it is calm, it is slow, and it is calm.")  # four words in a row
    assert not repeats("It is slow. It is calm, and it is sad.")
    assert runs_on("It is", finished=False) and not runs_on("It is slow.\n", finished=True)
    assert runs_on("It is slow.\nIt is fast.", True) and runs_on("It is slow. Is it?", True)
    said = [("Slow?", "Slow."), ("Slow?", "Slow."), ("Slow?", "Slow, slow?"), ("Sad?", "Sad. Sad.")]
    found = fluency([{"question": q, "answer": a, "finished": True} for q, a in said])
    assert list(found["all"].values()) == [4, 3, 1, 2, 2]
    assert list(found["Slow?"].values()) == [3, 2, 1, 1, 1]
    assert "| Slow? | 3 | 2 | 1 | 1 | 33.3 |" in fluency_table(found)


def test_a_line_of_the_table_shows_per_cent_at_each_length() -> None:
    row = {
        "truth": "teacher", "length": "12", "attribute": "genre", "tracks": 20,
        "classes": {"rock": 10, "jazz": 10}, "balanced_accuracy": 0.75, "interval": (0.5, 0.9),
        "constant": 0.5, "wrong": 0.25, "noise": 0.0, "deaf": 0.5, "probe": None,
    }  # fmt: skip
    other = row | {"length": "whole", "attribute": "slow/fast", "probe": 1.0}
    head, _, *lines = markdown([row, other]).splitlines()
    assert head.count("|") == lines[0].count("|") == lines[1].count("|")
    assert "12 s (95 %; tracks)" in head and "whole (95 %; tracks)" in head
    assert lines == [
        "| teacher | genre | 2 (50) | **75** (50–90; 20) | 25 | 0 | 50 | | | | | | |",
        "| teacher | slow/fast | 2 (50) | | | | | | **75** (50–90; 20) | 25 | 0 | 50 | 100 |",
    ]


def test_wrong_songs_are_of_any_other_track() -> None:
    tracks = ["a", "a", *"bcdefgh"]
    found = wrong_songs(tracks)
    assert len(found) == len(tracks) and len(set(found)) > 2
    assert all(tracks[other] != track for other, track in zip(found, tracks, strict=True))
    assert wrong_songs(["a", "a"]) == []  # there is none


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
    values = {of: [found[0] for found in told[of].values()] for of in ("right song", "wrong song")}
    assert values == {"right song": [2.5, 0.5, 0.0], "wrong song": [1.0, 0.0, 3 / 5]}
    assert told["right song"]["true"] == [2.5, 2.0, 3.0]
    table = told_table([told])
    assert "| teacher | right song | 12 | 2.5 (2.0–3.0) | 50 (0–100) | 0 (0–66) |" in table
    alone = cast(Sounds, Given(sounds, cases[:1]))
    assert "wrong song" not in described(cast(Asker, Says("")), alone, "12")


class Given:
    """Test clips that are given."""

    def __init__(self, _: Sounds, found: list[Case]) -> None:
        self.found = found

    def cases(self, length: str) -> list[tuple[str, list[Case]]]:
        return [("teacher", self.found)]


def test_the_command_writes_what_was_asked_said_and_by_what(
    engine: ChatEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "GREEDY", replace(GREEDY, max_new_tokens=8))
    monkeypatch.setattr("musilingo_core.evaluation.NOISE_S", 3.0)
    kinds = [{"path": str(n), "kind": kind} for n, kind in enumerate(["noise", "silence"] * 2)]
    heard = [
        (row, replace(make_clip(key=f"{n:016x}"), fingerprint=engine.fingerprint))
        for n, row in enumerate(kinds)
    ]
    sounds = [Sounds(cast(Teacher, None), other=tuple(heard)), Sounds(cast(Teacher, None))]
    monkeypatch.setattr(hearing, "load_engine", lambda preset, projection: engine)
    monkeypatch.setattr(hearing, "hear_all", lambda *_: sounds.pop(0))
    monkeypatch.setattr("sys.argv", ["", "--lengths", "whole", "--output", str(tmp_path)])

    main()

    found = json.loads((tmp_path / "hearing.json").read_text())
    assert found["command"].startswith("python -m benchmarks.hearing --lengths whole")
    assert found["commit"] == commit()
    assert {row["truth"] for row in found["heard"]} == {"certain, kind", "certain, no sound"}
    assert found["fluency"]["all"]["answers"] == 4 + 2  # noise and no music, too
    report = (tmp_path / "hearing.md").read_text()
    assert found["command"] in report and f"| {KIND.question} | 6 |" in report
