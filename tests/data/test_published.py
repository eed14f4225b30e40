from pathlib import Path

import pytest

from musilingo_core.data.manifest import Example, read_manifest, write_manifest
from musilingo_core.data.published import (
    Collection,
    SoundFolder,
    held_out,
    read_json,
    youtube_id,
)
from musilingo_core.errors import ConfigError, ManifestError

YTID = "-0Gj8-vB1q4"


@pytest.mark.parametrize(
    "name",
    [
        f"{YTID}.wav",
        f"[{YTID}]-[30-40].MP3",
        f"[{YTID}].opus",
        f"Y{YTID}.flac",
        f"{YTID}_30_40.m4a",
        f"{YTID}-30000-40000.ogg",
        f"deep/er/{YTID}_30.0.webm",
    ],
)
def test_a_clip_is_found_under_the_names_that_download_tools_give_it(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"sound")
    assert SoundFolder(tmp_path).find([YTID]) == (str(path), "")


def test_an_id_that_begins_with_y_or_ends_like_a_time_stays_whole() -> None:
    assert youtube_id("Yabcdefghij") == "Yabcdefghij"
    assert youtube_id("Yabcdefghij_30_40") == "Yabcdefghij"
    assert youtube_id("abcdefgh_12") == "abcdefgh_12"
    assert youtube_id("000123") == "000123"


def test_a_sound_that_is_missing_or_empty_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / f"{YTID}.wav").touch()
    (tmp_path / "notes.txt").write_text("no sound")
    folder = SoundFolder(tmp_path)
    assert folder.find([YTID]) == ("", "the sound file is empty")
    assert folder.find(["notes", "zzz"]) == ("", "no sound file")
    with pytest.raises(ConfigError, match="no folder"):
        SoundFolder(tmp_path / "gone")


def test_about_the_share_asked_for_is_held_out_and_always_the_same() -> None:
    held = [clip for clip in map(str, range(5000)) if held_out(clip, 0.02)]
    assert 70 < len(held) < 130
    assert not any(held_out(clip, 0.0) for clip in held)
    assert held[:3] == ["51", "55", "152"]


def test_only_training_clips_are_held_out() -> None:
    collection = Collection("Set", None, validation=0.99)
    for number in range(20):
        collection.add(f"train{number}", "Q?", "A.", "train")
        collection.add(f"test{number}", "Q?", "A.", "test")
    splits = {example.clip: example.split for example in collection.examples}
    assert {splits[f"test{number}"] for number in range(20)} == {"test"}
    assert "validation" in {splits[f"train{number}"] for number in range(20)}
    with pytest.raises(ConfigError, match="share"):
        Collection("Set", None, validation=1.0)


def test_what_is_kept_and_skipped_is_written_and_counted(tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for name in ("a", "b"):
        (sounds / f"{name}.wav").write_bytes(b"sound")
    collection = Collection("Set", sounds)
    for clip, answer in (
        ("a", " One. "),
        ("a", "Two."),
        ("b", "  "),
        ("c", "Three."),
        ("a", "Two."),
    ):
        collection.add(clip, None, answer, "train")
    collection.add("a", " ", "Four.", "train")
    report = collection.write(tmp_path / "out", notes=["Listen."])
    examples = read_manifest(tmp_path / "out/manifest.jsonl")
    assert [(e.clip, e.turns) for e in examples] == [
        (str(sounds / "a.wav"), (("", "One."),)),
        (str(sounds / "a.wav"), (("", "Two."),)),
    ]
    assert report.counts["examples"] == {"train": 2} and report.counts["clips"] == {"train": 1}
    skipped = {"empty text": 1, "no sound file": 1, "the same twice": 1, "empty question": 1}
    assert report.as_dict()["skipped"] == skipped
    assert (tmp_path / "out/skipped.jsonl").read_text().splitlines()[:2] == [
        '{"id": "b", "reason": "empty text"}',
        '{"id": "c", "reason": "no sound file"}',
    ]
    assert "skipped: 4 (empty text 1; no sound file 1;" in str(report)
    assert "note: Listen." in str(report)


def collected(folder: Path, name: str, clip: str, split: str, *beside: Path) -> Path:
    """A manifest of one clip; its sound is `clip.wav` in the folder, if there is one."""
    sounds = folder if (folder / f"{clip}.wav").exists() else None
    collection = Collection(name, sounds)
    collection.add(clip, None, "A.", split)
    collection.write(folder, beside)
    return folder / "manifest.jsonl"


def test_one_clip_in_two_splits_is_found_wherever_the_files_lie(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{YTID}.wav").write_bytes(b"sound")
    train = collected(tmp_path / "a", "MusicCaps", YTID, "train")
    assert collected(tmp_path / "b", "MusicInstruct", YTID, "train", train).exists()
    with pytest.raises(ManifestError, match=f"{YTID}.*train in .*a/manifest.*test in .*b/manifest"):
        collected(tmp_path / "b", "MusicInstruct", YTID, "test", train)


def test_one_clip_in_two_splits_is_found_without_sounds(tmp_path: Path) -> None:
    train = collected(tmp_path / "a", "MusicQA", "000001.wav", "train")
    with pytest.raises(ManifestError, match=r"000001\.wav"):
        collected(tmp_path / "b", "MusicQA", "000001.wav", "test", train)


def test_files_of_one_name_in_two_folders_are_two_clips_where_no_track_is_named(
    tmp_path: Path,
) -> None:
    turns, mine = (("", "A."),), tmp_path / "mine.jsonl"
    write_manifest([Example("/one/000001.wav", turns, "train", "Mine")], mine)
    assert collected(tmp_path, "Set", "/two/000001.wav", "test", mine).exists()


def test_a_set_that_leaks_into_its_neighbour_is_not_written(tmp_path: Path) -> None:
    write_manifest([Example("/x/a.wav", (("", "A."),), "test", "Mine")], tmp_path / "a.jsonl")
    collection = Collection("Mine", None)
    collection.add("/x/a.wav", None, "A.", "train")
    with pytest.raises(ManifestError, match="more than one split"):
        collection.write(tmp_path / "out", beside=[tmp_path / "a.jsonl"])
    assert not (tmp_path / "out").exists()


def test_damaged_json_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1,\n2,\n}")
    with pytest.raises(ManifestError, match="line 3"):
        read_json(path)
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(ManifestError, match="line 3"):
        read_json(path, lines=True)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_json(path)
