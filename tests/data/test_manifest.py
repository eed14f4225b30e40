from dataclasses import replace
from pathlib import Path

import pytest
import torch

from musilingo_core.data.manifest import (
    Example,
    FeatureFiles,
    read_manifest,
    read_sounds,
    write_features,
    write_manifest,
)
from musilingo_core.errors import ManifestError
from musilingo_core.features import save_clip
from tests.conftest import make_clip


def test_examples_come_back_as_they_were(tmp_path: Path) -> None:
    examples = [
        Example(f"{tmp_path}/a.wav", (("What?", "A “song”."),), "train", "me"),
        Example(f"{tmp_path}/f.safetensors#k", (("Who?", "She."), ("Why?", "So.")), "test"),
        Example("", (("Slow or fast?", "Slow."),), "train", "no music"),
    ]
    write_manifest(examples, tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl") == examples
    assert read_manifest(tmp_path / "m.jsonl", "test") == examples[1:2]
    assert '"clip": "a.wav", "instruction": "What?"' in (tmp_path / "m.jsonl").read_text()


def test_line_ends_inside_a_text_end_no_line(tmp_path: Path) -> None:
    examples = [Example(f"{tmp_path}/a.wav", (("One\u2028line?", "Yes,\x85one."),))]
    write_manifest(examples, tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl") == examples


def test_a_conversation_is_messages_with_the_clip_first() -> None:
    messages = Example("song", (("Who?", "She."), ("Why?", "So."))).messages()
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2
    assert [p["type"] for p in messages[0]["content"]] == ["clip", "text"]
    assert [p["type"] for p in messages[2]["content"]] == ["text"]
    (asked, _) = Example("", (("Who?", "She."),)).messages()
    assert [p["type"] for p in asked["content"]] == ["text"]


@pytest.mark.parametrize("line", ["{", "[]", '{"clip": "a"}', '{"clip": "a", "turns": [1]}', "3"])
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"clip": "a", "instruction": "b", "response": "c"}\n\n' + line + "\n")
    with pytest.raises(ManifestError, match="line 3"):
        read_manifest(path)


def test_a_list_of_sounds_is_relative_to_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(
        '{"path": "a.flac", "kind": "noise"}\n\n{"path": "/b.flac", "kind": "speech"}\n'
    )
    rows = read_sounds(path, "kind")
    assert [row["path"] for row in rows] == [str(tmp_path / "a.flac"), "/b.flac"]
    assert [row["kind"] for row in rows] == ["noise", "speech"]


@pytest.mark.parametrize(
    ("line", "reason"), [("{", "not JSON"), ('"a"', "not a JSON object"), ("{}", "no “path”")]
)
def test_a_bad_line_of_a_list_is_named_with_its_number(
    tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"path": "a.flac"}\n' + line + "\n")
    with pytest.raises(ManifestError, match=f"line 2: .*{reason}"):
        read_sounds(path)


def test_features_are_found_by_file_and_key(tmp_path: Path) -> None:
    clips = [make_clip(3, key="aaa"), make_clip(5, key="bbb")]
    write_features(clips, tmp_path / "many.safetensors")
    save_clip(clips[0], tmp_path / "one.safetensors")
    files = FeatureFiles()
    for clip in clips:
        found = files.get(f"{tmp_path}/many.safetensors#{clip.clip_id}")
        assert torch.equal(found.features, clip.features)
        assert found.duration_s == clip.duration_s and found.fingerprint == clip.fingerprint
    assert torch.equal(files.get(f"{tmp_path}/one.safetensors").features, clips[0].features)
    assert FeatureFiles.is_features("x.safetensors#k") and not FeatureFiles.is_features("x.wav")


def test_clips_made_from_one_another_are_written_each(tmp_path: Path) -> None:
    clip = make_clip(3, key="aaa")
    other = replace(clip, clip_id="bbb", features=2 * clip.features)  # the same times
    write_features([clip, other], tmp_path / "both.safetensors")
    found = FeatureFiles().get(f"{tmp_path}/both.safetensors#bbb")
    assert torch.equal(found.times, clip.times)
    assert torch.equal(found.features, 2 * clip.features)


@pytest.mark.parametrize("place", ["gone.safetensors", "many.safetensors#zzz"])
def test_missing_features_are_named(tmp_path: Path, place: str) -> None:
    write_features([make_clip(3, key="aaa")], tmp_path / "many.safetensors")
    with pytest.raises(ManifestError, match="no features"):
        FeatureFiles().get(f"{tmp_path}/{place}")
