from pathlib import Path
from typing import Any

from benchmarks.digest import described_table, evaluated_table, follow_ups_table, heard_table


def row(length: str, share: float, wrong: float | None, probe: float | None) -> dict[str, Any]:
    return {
        "truth": "certain", "attribute": "slow/fast", "length": length, "tracks": 8,
        "balanced_accuracy": share, "interval": [0.1, 0.9], "wrong": wrong, "noise": 0.0,
        "deaf": 0.5, "probe": probe,
    }  # fmt: skip


def test_a_row_has_all_lengths_the_highest_baselines_and_the_other_run() -> None:
    ours = {"heard": [row("12", 0.5, 0.2, 0.9), row("whole", 0.754, 0.3, None)]}
    theirs = {"heard": [row("12", 0.1, 0.9, None)]}
    lines = heard_table(ours, theirs, "other").splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == (
        "| certain | slow/fast | **50** (10–90; 8) |  | **75** (10–90; 8) | 30 | 0 | 50 | 90 | 10 |"
    )
    nothing = heard_table({"heard": [row("12", 0.5, None, None)]}, {"heard": []}, "other")
    assert nothing.splitlines()[2].endswith("|  | 0 | 50 |  |  |")


def test_descriptions_stand_beside_those_of_a_wrong_song() -> None:
    told = {"true": [4.25], "three_true": [0.9], "false_share": [0.02]}
    run = {"described": [{"right song": told, "wrong song": told}, {"right song": told}]}
    lines = described_table({"one": run}).splitlines()
    assert lines[2:] == [
        "| `one` | 4.2 / 4.2 | 90 / 90 | 2 / 2 |", "| `one`, about a wrong song | 4.2 | 90 | 2 |",
    ]  # fmt: skip


def test_follow_ups_are_a_column_a_set(tmp_path: Path) -> None:
    text = "| replies | fit | n | d |\n|---|--:|--:|--:|\n| right song | **83** (7–9) | 9 | 7 |\n"
    (tmp_path / "follow_ups.md").write_text(text + "| right song, why | 71 | 9 | |\n\nEnd.\n")
    lines = follow_ups_table({"one": tmp_path}).splitlines()
    assert lines[0].endswith("| right song |") and lines[2] == "| `one` | **83** (7–9) |"


def test_multiple_choice_is_a_row_a_metric() -> None:
    def run(length: str, **shares: float) -> dict[str, Any]:
        about = {"metric": "accuracy", "low": 0.5, "high": 0.75, "examples": 9, "chance": 0.25}
        figures = [about | {"control": c.replace("_", " "), "value": v} for c, v in shares.items()]
        unused = about | {"metric": "proper BLEU-1", "control": "right song", "value": 0.1}
        command = f"musilingo evaluate data/choices/choices-{length}.jsonl --output x"
        return {"command": command, "figures": [*figures, unused]}

    ours = [run("12", right_song=0.6, wrong_song=0.3), run("whole", right_song=0.7, wrong_song=0.2)]
    lines = evaluated_table(ours, [run("60", right_song=0.4)], "other").splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2:] == [
        "| accuracy | **60** (50–75; 9) |  | **70** (50–75; 9) | 30 |  |  | 25 | 40 |"
    ]
