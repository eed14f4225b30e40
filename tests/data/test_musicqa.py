import json
from pathlib import Path

import pytest

from musilingo_core.data.manifest import read_manifest
from musilingo_core.data.musicqa import build_musicqa
from musilingo_core.errors import ConfigError, ManifestError


def written(path: Path, *clips: str) -> Path:
    """As published: https://huggingface.co/datasets/mu-llama/MusicQA"""
    rows = [
        {
            "audio_name": clip,
            "conversation": [
                {"from": "human", "value": " Describe the audio"},
                {"from": "gpt", "value": " A song."},
            ],
        }
        for clip in clips
    ]
    path.write_text(json.dumps(rows))
    return path


def test_splits_are_by_file(tmp_path: Path) -> None:
    sounds = tmp_path / "MusicQA" / "audios"
    sounds.mkdir(parents=True)
    (sounds / "000001.wav").write_bytes(b"sound")
    (sounds / "000009.mp3").write_bytes(b"sound")
    files = [
        written(tmp_path / "FinetuneMusicQA.json", "000001.wav", "000002.wav"),
        written(tmp_path / "EvalMusicQA.json", "000009.wav"),
    ]
    report = build_musicqa(files, tmp_path / "MusicQA", tmp_path / "out", validation=0.0)
    one, two = read_manifest(tmp_path / "out/manifest.jsonl")
    assert one.turns == (("Describe the audio", "A song."),)
    assert (one.clip, one.split) == (str(sounds / "000001.wav"), "train")
    assert (two.clip, two.split) == (str(sounds / "000009.mp3"), "test")
    assert (one.source, two.source) == ("MusicQA finetune", "MusicQA eval")
    assert report.counts["skipped"] == {"no sound file": 1} and not report.notes


def test_an_empty_question_is_no_caption(tmp_path: Path) -> None:
    path = written(tmp_path / "EvalMusicQA.json", "000001.wav")
    path.write_text(path.read_text().replace(" Describe the audio", " "))
    report = build_musicqa([path], None, tmp_path / "out")
    assert report.counts["skipped"] == {"empty question": 1} and not report.counts["examples"]


def test_the_part_that_hides_test_clips_comes_with_a_warning(tmp_path: Path) -> None:
    path = written(tmp_path / "PretrainMusicQA.json", "000001.wav")
    assert "must not test on MusicCaps" in str(build_musicqa([path], None, tmp_path / "out"))


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("music.json", "[]", ConfigError),
        ("EvalMusicQA.json", "{", ManifestError),
        ("EvalMusicQA.json", '[{"audio_name": "a.wav"}]', ManifestError),
        ("EvalMusicQA.json", '[{"audio_name": "a.wav", "conversation": []}]', ManifestError),
        ("EvalMusicQA.json", '[{"audio_name": "a", "conversation": [{}, 1]}]', ManifestError),
    ],
)
def test_a_damaged_or_unknown_file_is_named(
    tmp_path: Path, name: str, text: str, error: type[Exception]
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=name):
        build_musicqa([tmp_path / name], None, tmp_path / "out")
    with pytest.raises(ConfigError, match="at least one"):
        build_musicqa([], None, tmp_path / "out")
