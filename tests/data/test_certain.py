import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from musilingo_core.data.certain import (
    ATTRIBUTES,
    MANY,
    Recipe,
    ask,
    build,
    labels,
    read_heard,
    stretches,
    throughout,
)
from musilingo_core.data.dialogues import NAMES
from musilingo_core.data.manifest import Example, read_manifest
from musilingo_core.errors import ConfigError, ManifestError
from musilingo_core.times import find_spans

ROW: dict[str, Any] = {
    "score": "bach/bwv1.6.mxl",
    "work": "bach/bwv1",
    "split": "train",
    "duration_s": 30.0,
    "family": "flute",
    "second": "harp",
    "tempo": "medium",
    "bpm": 96,
    "dynamics": "soft",
    "drums": False,
    "key": "E-flat major",
    "grouping": "triple",
    "division": "simple",
}
OLD = {"score": "bach/bwv2.6.mxl", "family": "choir", "tempo": "slow"}  # no more was once said
CHANGED = {name: value for name, value in ROW.items() if name != "family"} | {
    "second": "",
    "sections": [
        {"start_s": 0.0, "end_s": 14.4, "family": "piano"},
        {"start_s": 14.4, "end_s": 30.0, "family": "flute"},
    ],
}
ALL = frozenset(ATTRIBUTES)


def asked(row: dict[str, Any], heard: frozenset[str] = ALL) -> dict[str, dict[str, set[str]]]:
    """Everything that is ever said about a row, by topic and question."""
    said: dict[str, dict[str, set[str]]] = {}
    for seed in range(200):
        for topic, (question, answer) in ask(
            stretches(row), Recipe(heard, questions=17), Random(seed), Counter()
        ):
            said.setdefault(topic, {}).setdefault(question, set()).add(answer)
    return said


def answers(said: dict[str, set[str]]) -> set[str]:
    return set().union(*said.values())


def write_list(path: Path, rows: Sequence[dict[str, Any]], sounds: bool = True) -> Path:
    """A list of sound files `0.flac`, `1.flac` … beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = [{"path": f"{number}.flac"} | row for number, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in named))
    for row in named if sounds else ():
        (path.parent / row["path"]).touch()
    return path


def test_a_row_is_read_in_one_word_for_each_attribute() -> None:
    assert labels(ROW) == {
        "lead": "flute",
        "second": "harp",
        "family": "woodwinds",
        "tempo": "moderate",
        "bpm": "96",
        "key": "E-flat major",
        "mode": "major",
        "metre": "triple",
        "division": "simple",
        "dynamics": "soft",
        "drums": "no",
        "singer": "none",
    }


def test_an_old_row_says_less() -> None:
    known = {name: label for name, label in labels(OLD).items() if label}

    assert known == {
        "lead": "choir",
        "second": "none",
        "family": "voices",
        "tempo": "slow",
        "singer": "choir",
    }


def test_answers_are_exact() -> None:
    said = {topic: answers(found) for topic, found in asked(ROW).items()}

    assert said["lead"] == {"The lead instrument is flute."}
    assert said["second"] == {"It is accompanied by harp."}
    assert said["instruments"] == {"I hear flute and harp."}
    assert said["family"] == {"The lead instrument belongs to the woodwinds."}
    assert said["tempo"] == {"It is neither slow nor fast."}
    assert said["bpm"] == {"It has 96 beats per minute."}
    assert said["key"] == {"It is in E-flat major."}
    assert said["mode"] == {"It is in a major key."}
    assert said["metre"] == {"It is in triple time."}
    assert said["division"] == {"It is simple: each beat divides into two."}
    assert said["dynamics"] == {"It is soft."}
    assert said["drums"] == {"No, there are no drums."}
    assert said["change"] == {"The lead instrument, the tempo and the loudness stay the same."}
    assert said["singer"] == {"No, nobody sings, it is instrumental."}
    assert answers(asked(OLD)["singer"]) == {"Yes, a choir sings."}
    for question, found in asked(ROW)["presence"].items():
        (answer,) = found
        there = any(re.search(rf"\b{name}\b", question) for name in ("flute", "harp"))
        assert answer.startswith("Yes" if there else "No")


def test_every_attribute_is_asked_for_in_several_ways() -> None:
    said = asked(ROW)

    assert set(said) == {*ATTRIBUTES, "instruments", "presence", "moment", "choice"}
    assert all(len(found) >= 3 for found in said.values())


def test_of_the_options_one_is_right() -> None:
    right = {"flute", "woodwinds", "neither slow nor fast", "major", "triple", "simple", "soft"}
    said = asked(ROW)["choice"]

    assert answers(said) == right
    for question, (answer,) in said.items():
        options = question.split("\n- ")[1:]
        assert options.count(answer) == 1 and 2 <= len(set(options)) == len(options) <= 5
        assert "harp" not in options  # it plays as well
    assert answers(asked(ROW, frozenset({"tempo"}))["choice"]) == {"neither slow nor fast"}


def test_bells_are_percussion_but_no_drums() -> None:
    said = asked(ROW | {"family": "bells"})

    assert answers(said["family"]) == {"The lead instrument belongs to the percussion."}
    assert not [question for question in said["drums"] if "percussion" in question]


def test_drums_are_named_among_the_instruments() -> None:
    drummed = ROW | {"second": "", "drums": True}
    said = asked(drummed)

    assert answers(said["instruments"]) == {"I hear flute and drums."}
    assert "second" not in said  # drums alone accompany it
    assert answers(asked(drummed, ALL - {"drums"})["instruments"]) == {"I hear flute."}


def test_what_the_encoder_does_not_hear_cannot_be_told() -> None:
    for row in (ROW, OLD, CHANGED):
        said = asked(row, frozenset())
        assert all(
            a.startswith("I cannot tell ") for found in said.values() for a in answers(found)
        )
    said = asked(ROW, frozenset({"lead"}))
    assert answers(said["lead"]) == {"The lead instrument is flute."}
    assert answers(said["instruments"]) == {
        "The lead instrument is flute; I cannot tell what accompanies it from the sound."
    }
    assert answers(said["key"]) == {"I cannot tell the key from the sound."}
    assert "presence" not in said


def test_what_is_not_certain_is_not_asked_and_the_reason_is_counted() -> None:
    skipped: Counter[str] = Counter()
    topics = {
        topic for topic, _ in ask(stretches(OLD), Recipe(ALL, questions=17), Random(0), skipped)
    }

    assert not topics & {"bpm", "key", "mode", "metre", "division", "dynamics", "drums"}
    assert {"lead", "family", "tempo", "singer", "change"} <= topics
    assert skipped["bpm: the list does not say"] == 1
    assert any(reason.startswith("key: the key is ambiguous") for reason in skipped)


def test_a_change_is_named_with_its_moment() -> None:
    whole = throughout(stretches(CHANGED))
    said = asked(CHANGED)

    assert (whole["lead"], whole["change"], whole["tempo"]) == (MANY, "lead", "moderate")
    change = "At 0:14 the lead instrument changes from piano to flute."
    assert answers(said["change"]) == {change}
    assert not {"lead", "instruments", "presence"} & set(said)
    for unheard in ("lead", "change"):
        told = answers(asked(CHANGED, ALL - {unheard})["change"])
        assert told == {"I cannot tell what changes from the sound."}


def test_what_is_heard_around_a_moment_lies_in_one_stretch() -> None:
    seen = set()
    for question, found in asked(CHANGED)["moment"].items():
        (answer,) = found
        (span,) = find_spans(question, 30.0)
        assert span.end_s <= 14.4 or span.start_s >= 14.4
        if "lead" in answer:
            seen.add(span.end_s <= 14.4)
            assert answer.endswith("is piano." if span.end_s <= 14.4 else "is flute.")
            assert answer.startswith(f"At {re.findall(r'[0-9]:[0-9]+', question)[0]} the lead")
        elif re.search("slow|fast", question):
            assert answer.endswith(" it is neither slow nor fast.")
    assert seen == {True, False}


def test_a_manifest_depends_on_the_seed_and_not_on_other_lists(tmp_path: Path) -> None:
    scores = write_list(tmp_path / "scores" / "list.jsonl", [ROW, OLD])
    other = write_list(tmp_path / "other" / "list.jsonl", [{"kind": "noise"}])

    def made(rendered: list[Path], seed: int) -> list[Example]:
        build(rendered, [other], tmp_path / "out", Recipe(ALL, seed=seed))
        return read_manifest(tmp_path / "out" / "manifest.jsonl")

    both = made([scores], 0)
    assert both == made([scores], 0) != made([scores], 1)
    assert made([], 0) == [example for example in both if example.source == "certain/noise"]


def test_examples_name_their_topic_score_and_split(tmp_path: Path) -> None:
    scores = write_list(tmp_path / "list.jsonl", [ROW | {"split": "test"}])

    report = build([scores], [], tmp_path, Recipe(ALL, questions=3))

    found = read_manifest(tmp_path / "manifest.jsonl")
    assert len(found) == 3 and report.counts["examples"] == {"test": 3}
    assert {example.clip for example in found} == {str(tmp_path / "0.flac")}
    assert report.counts["sources"] == dict.fromkeys((example.source for example in found), 1)
    for example in found:
        assert example.source.startswith("certain/") and example.track == ROW["work"]
        assert example.split == "test" and len(example.turns) == 1


def test_works_are_held_out_whole(tmp_path: Path) -> None:
    rows = [ROW | {"work": f"work {n // 2}", "score": f"{n}"} for n in range(120)]
    recipe = Recipe(ALL, questions=1, validation=0.3)

    build([write_list(tmp_path / "list.jsonl", rows)], [], tmp_path, recipe)

    splits: dict[str, set[str]] = {}
    for example in read_manifest(tmp_path / "manifest.jsonl"):
        splits.setdefault(example.track, set()).add(example.split)
    assert all(len(found) == 1 for found in splits.values())
    assert 8 < sum(found == {"validation"} for found in splits.values()) < 28


def test_a_work_in_two_splits_is_refused(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"score": "bach/bwv1.1.mxl", "split": "test"}]

    with pytest.raises(ManifestError, match=r"bach/bwv1 \(.* in .*, test in "):
        build([write_list(tmp_path / "list.jsonl", rows)], [], tmp_path, Recipe(ALL))


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("noise", "I do not hear music here; I hear only noise."),
        ("speech", "I do not hear music here; I hear someone speaking."),
        ("silence", "I do not hear music here; I hear almost nothing, it is nearly silent."),
    ],
)
def test_what_is_no_music_is_not_called_music(tmp_path: Path, kind: str, answer: str) -> None:
    other = write_list(tmp_path / "list.jsonl", [{"kind": kind, "split": "test"}])

    build([], [other], tmp_path, Recipe(ALL, questions=8))

    found = read_manifest(tmp_path / "manifest.jsonl", "test")
    assert len({example.turns[0][0] for example in found}) == 8
    said = {example.turns[0][1] for example in found}
    assert answer in said and said <= {answer, kind}  # one word where there are options


def test_clips_without_music_have_one_name_in_both_splits(tmp_path: Path) -> None:
    lists = [
        write_list(tmp_path / split / "list.jsonl", [{"kind": "noise", "split": split}])
        for split in ("train", "test")
    ]
    report = build([], lists, tmp_path, Recipe(ALL, questions=1, validation=0.0))
    assert report.counts["clips"] == {"train": 1, "test": 1}


def test_what_is_left_out_has_its_reason(tmp_path: Path) -> None:
    scores = write_list(tmp_path / "a" / "list.jsonl", [OLD], sounds=False)
    other = write_list(tmp_path / "b" / "list.jsonl", [{"kind": "applause"}])

    report = build([scores], [other], tmp_path, Recipe(ALL))

    assert not report.counts["examples"]
    assert report.counts["skipped"] == {
        "no sound file": 1,
        "“applause” is no kind of sound known here": 1,
    }
    (tmp_path / "a" / "0.flac").touch()
    build([scores], [], tmp_path, Recipe(ALL, questions=17))
    skipped = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert {"id": str(tmp_path / "a" / "0.flac"), "reason": "bpm: the list does not say"} in skipped


def test_what_is_heard_comes_by_name_or_from_the_probe(tmp_path: Path) -> None:
    probe = tmp_path / "probe.json"
    probe.write_text('{"heard": ["lead", "tempo"], "rows": []}')

    assert read_heard([str(probe), "singer"]) == {"lead", "tempo", "singer"}
    assert read_heard(["all"]) == ALL
    probe.write_text("[]")
    with pytest.raises(ConfigError, match="does not say what is heard"):
        read_heard([str(probe)])
    with pytest.raises(ConfigError, match="“colour” is not known"):
        Recipe(frozenset({"colour"}))
    with pytest.raises(ConfigError, match="1 to 17 questions"):
        Recipe(ALL, questions=18)


def test_every_family_has_a_name_and_a_group() -> None:
    scores = pytest.importorskip("benchmarks.scores")

    for family in scores.FAMILIES:
        assert labels({"family": family})["family"] and family in NAMES
    assert set(scores.TEMPI) == {"slow", "medium", "fast"}
