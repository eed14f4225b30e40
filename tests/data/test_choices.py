import csv
import json
from pathlib import Path
from typing import Any

import pytest

from musilingo_core.data.choices import Choice, read_choices, write_choices
from musilingo_core.errors import ConfigError, ManifestError

ROW: dict[str, Any] = {
    "clip": "a.ogg", "question": "How fast?", "options": ["slow", "fast"], "answer": "fast",
}  # fmt: skip
# The example of MuChoMusic's README.
PUBLISHED: dict[str, Any] = {
    "id": 415600,
    "prompt": "Question: What rhythm pattern do the digital drums follow?\n Options: "
    "(A) Scat. (B) Four on the floor. (C) A melody. (D) Off-beat. \n The correct answer is: ",
    "answers": ["Scat.", "Four on the floor.", "A melody.", "Off-beat."],
    "answer_orders": [3, 0, 2, 1],
    "dataset": "sdd",
    "genre": "Reggae",
    "reasoning": ["genre and style"],
    "knowledge": ["metre and rhythm"],
    "audio_path": "audio/415600.2min.mp3",
    "model_output": "A",
}
COLUMNS = {
    "question": "Which voice?", "dataset": "sdd", "dataset_identifier": "415600.json",
    "genre": "", "music_reasoning": "['mood']", "music_knowledge": "",
    "correct_answer": "right", "distractor_1_answer": "one", "distractor_2_answer": "two",
    "distractor_3_answer": "three",
}  # fmt: skip


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_our_own_list_survives_being_written(tmp_path: Path) -> None:
    (choice,), skipped = read_choices(lines(tmp_path / "c.jsonl", ROW | {"topic": "tempo"}))
    clip = str(tmp_path / "a.ogg")
    assert choice == Choice(clip, "How fast?", ("slow", "fast"), 1, ("tempo",), clip)
    assert skipped == []
    write_choices([choice], tmp_path / "again.jsonl")
    assert read_choices(tmp_path / "again.jsonl") == ([choice], [])
    assert '"clip": "a.ogg"' in (tmp_path / "again.jsonl").read_text()


@pytest.mark.parametrize(
    "change",
    [{"answer": "medium"}, {"options": ["fast"]}, {"options": ["fast", "fast"]}, {"clip": None}],
)
def test_a_row_that_is_no_choice_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match=r"c\.jsonl, line 2"):
        read_choices(lines(tmp_path / "c.jsonl", ROW, ROW | change))


def test_muchomusic_as_its_script_writes_it(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "415600.2min.mp3").write_bytes(b"x")
    path = tmp_path / "m.json"
    path.write_text(json.dumps([PUBLISHED, PUBLISHED | {"id": 7, "audio_path": "audio/7.mp3"}]))
    (choice,), skipped = read_choices(path)
    assert choice.question == "What rhythm pattern do the digital drums follow?"
    assert choice.options[choice.answer] == "Four on the floor."
    assert choice.topics == ("metre and rhythm", "genre and style")
    assert choice.track == "415600" and choice.source == "MuChoMusic"
    assert skipped == [{"id": "7", "reason": "no sound file"}]
    assert read_choices(path, tmp_path / "audio") == ([choice], skipped)


def test_muchomusic_as_its_table(tmp_path: Path) -> None:
    for name in ("415600.2min.mp3", "[-0Gj8-vB1q4]-[30-40].wav"):
        (tmp_path / name).write_bytes(b"x")
    youtube = {"dataset": "musiccaps", "dataset_identifier": "-0Gj8-vB1q4_0.json"}
    rows = [COLUMNS, COLUMNS | youtube, COLUMNS | {"dataset_identifier": "9.json"}]
    path = table(tmp_path / "muchomusic.csv", *rows)
    (song, clip), skipped = read_choices(path, tmp_path)
    assert sorted(song.options) == ["one", "right", "three", "two"]
    assert song.options[song.answer] == clip.options[clip.answer] == "right"
    assert song.topics == ("mood",)
    assert clip.track == "-0Gj8-vB1q4" and clip.clip.endswith("[-0Gj8-vB1q4]-[30-40].wav")
    assert skipped == [{"id": "9", "reason": "no sound file"}]
    with pytest.raises(ConfigError, match="--sounds"):
        read_choices(path)


def test_right_options_of_the_table_stand_anywhere(tmp_path: Path) -> None:
    rows = []
    for number in range(40):
        (tmp_path / f"{number}.mp3").write_bytes(b"x")
        rows.append(COLUMNS | {"dataset_identifier": f"{number}.json"})
    choices, _ = read_choices(table(tmp_path / "m.csv", *rows), tmp_path)
    assert {choice.answer for choice in choices} == {0, 1, 2, 3}


def test_an_example_before_the_question_is_not_asked(tmp_path: Path) -> None:
    """The prompt that the published script makes with its default settings."""
    example = (
        "Question: What rhythm pattern do the digital drums primarily follow in this pop music "
        "piece? \n Options: (A) Four on the floor. (B) Off-beat syncopation. (C) Scat singing. "
        "(D) E-guitar playing a simple melody. \n The correct answer is: A"
    )
    asked = PUBLISHED["prompt"].replace("What rhythm pattern", "Which words")
    (tmp_path / "415600.mp3").write_bytes(b"x")
    path = tmp_path / "m.json"
    path.write_text(json.dumps([PUBLISHED | {"prompt": f"{example}\n {asked}"}]))
    (choice,), _ = read_choices(path, tmp_path)
    assert choice.question == "Which words do the digital drums follow?"


@pytest.mark.parametrize("change", [{"answer_orders": [1, 2, 3]}, {"prompt": "?"}, {"answers": 4}])
def test_damaged_muchomusic_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "415600.mp3").write_bytes(b"x")
    path = tmp_path / "m.json"
    path.write_text(json.dumps([PUBLISHED | change]))
    with pytest.raises(ManifestError, match="row 1"):
        read_choices(path, tmp_path)
    wrong = table(tmp_path / "m.csv", COLUMNS | {"music_reasoning": "['mood'"})
    with pytest.raises(ManifestError, match="row 1"):
        read_choices(wrong, tmp_path)
