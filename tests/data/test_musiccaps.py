from pathlib import Path

import pytest

from musilingo_core.data.manifest import read_manifest
from musilingo_core.data.musiccaps import CAPTION_INSTRUCTION, build_musiccaps, read_musiccaps
from musilingo_core.errors import ManifestError

EXCERPT = Path(__file__).parent / "musiccaps-50.csv"
HEADER = EXCERPT.read_text(encoding="utf-8").split("\n", 1)[0]


def test_rows_of_the_real_table_are_read_whole() -> None:
    rows = read_musiccaps(EXCERPT)
    assert len(rows) == 50
    assert sum(row.is_audioset_eval for row in rows) == 28
    assert all(len(row.ytid) == 11 and row.end_s - row.start_s == 10 for row in rows)
    assert all(row.aspects and row.caption for row in rows)


def test_captions_are_split_as_audioset_is(tmp_path: Path) -> None:
    rows = read_musiccaps(EXCERPT)
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for row in rows[:40]:
        (sounds / f"[{row.ytid}]-[{row.start_s:.0f}-{row.end_s:.0f}].wav").write_bytes(b"sound")
    report = build_musiccaps(EXCERPT, sounds, tmp_path / "out", validation=0.0)
    examples = read_manifest(tmp_path / "out/manifest.jsonl")
    assert report.counts["skipped"] == {"no sound file": 10}
    for row, example in zip(rows, examples, strict=False):
        assert row.ytid in example.clip
        assert example.turns == ((CAPTION_INSTRUCTION, row.caption),)
        assert example.split == ("test" if row.is_audioset_eval else "train")
        assert example.source == "MusicCaps"


def test_without_sounds_every_row_is_kept_and_the_instruction_may_be_empty(tmp_path: Path) -> None:
    report = build_musiccaps(EXCERPT, None, tmp_path, instruction="", validation=0.5)
    examples = read_manifest(tmp_path / "manifest.jsonl")
    assert len(examples) == 50 and all(example.turns[0][0] == "" for example in examples)
    assert report.counts["examples"]["test"] == 28
    assert report.counts["examples"]["train"] + report.counts["examples"]["validation"] == 22


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("abc,30,40,/m/1,not a list,Caption.,1,False,True", 4),
        ("abc,30,40,/m/1,['a'],Caption.,1,False,maybe", 4),
        ("abc,30,40,/m/1,['a'],Caption.,1,False,True,one too many", 4),
        ("abc,30", 4),
        ("abc,x,40,/m/1,['a'],Caption.,1,False,True", 4),
        ("abc,30,40,/m/1,\"['a']\"x,Caption.,1,False,True", 4),
    ],
)
def test_a_damaged_row_is_named_with_its_line(tmp_path: Path, line: str, number: int) -> None:
    path = tmp_path / "table.csv"
    good = "abc,30,40,/m/1,['a'],\"A caption\nof two lines.\",1,False,True"
    path.write_text(f"{HEADER}\n{good}\n{line}\n")
    with pytest.raises(ManifestError, match=f"line {number}"):
        read_musiccaps(path)


@pytest.mark.parametrize("text", ["", HEADER, "other,columns\n1,2\n"])
def test_another_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ManifestError):
        read_musiccaps(path)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_musiccaps(tmp_path / "gone.csv")
