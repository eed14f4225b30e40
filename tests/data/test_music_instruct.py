import json
from pathlib import Path

import pytest

from musilingo_core.data.manifest import read_manifest
from musilingo_core.data.music_instruct import Pair, build_music_instruct, write_music_instruct
from musilingo_core.errors import ConfigError, ManifestError

# As published: https://huggingface.co/datasets/m-a-p/Music-Instruct
ROW = {
    "ytid": "-0Gj8-vB1q4",
    "question": "What is the mood? ",
    "answer": " It is sad.",
    "caption": "A sad ballad.",
    "is_audioset_eval": True,
    "sampling_rate": 44100,
}


def written(path: Path, *changes: dict[str, object]) -> Path:
    path.write_text(json.dumps({"QA": [ROW | change for change in changes]}))
    return path


def test_questions_are_split_as_audioset_is_and_keep_their_version(tmp_path: Path) -> None:
    short = written(tmp_path / "music_instruct_short.json", {}, {"answer": ""}, {"question": " "})
    long = written(
        tmp_path / "music_instruct_long.json", {"ytid": "0bcdefghijk", "is_audioset_eval": False}
    )
    report = build_music_instruct([short, long], None, tmp_path / "out", validation=0.0)
    one, two = read_manifest(tmp_path / "out/manifest.jsonl")
    assert one.turns == (("What is the mood?", "It is sad."),)
    assert (one.split, one.source) == ("test", "MusicInstruct short")
    assert (two.split, two.source) == ("train", "MusicInstruct long")
    assert report.counts["skipped"] == {"empty text": 1, "empty question": 1}


def test_a_pair_that_is_in_two_of_the_published_files_is_learnt_once(tmp_path: Path) -> None:
    both = written(tmp_path / "music_instruct.json", {}, {"question": "Why?"})
    long = written(tmp_path / "music_instruct_long.json", {"question": "Why?"})
    report = build_music_instruct([both, long], None, tmp_path / "out")
    assert report.counts["examples"] == {"test": 2}
    assert report.counts["skipped"] == {"the same twice": 1}


def test_a_clip_that_is_train_in_one_file_and_test_in_another_is_refused(tmp_path: Path) -> None:
    one = written(tmp_path / "short.json", {})
    two = written(tmp_path / "long.json", {"is_audioset_eval": False})
    with pytest.raises(ManifestError, match="-0Gj8-vB1q4"):
        build_music_instruct([one, two], None, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "no list “QA”"),
        ('{"QA": 3}', "not a list"),
        ('{"QA": [3]}', "row 1 is not an object"),
        ('{"QA": [{"ytid": "a", "question": "Q?"}]}', "row 1 has no “answer”"),
        ('{"QA": [\n{]}', "line 2"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "short.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match=reason):
        build_music_instruct([path], None, tmp_path / "out")
    with pytest.raises(ConfigError, match="at least one"):
        build_music_instruct([], None, tmp_path / "out")


def test_what_is_written_has_the_published_form(tmp_path: Path) -> None:
    pairs = [
        Pair("-0Gj8-vB1q4", "short", "What’s the mood?", "Sad.", "A ballad.", True),
        Pair("-0Gj8-vB1q4", "long", "What do you hear?", "A ballad.", "A ballad.", True),
    ]
    files = write_music_instruct(pairs, tmp_path)
    (row,) = json.loads(files["short"].read_text(encoding="utf-8"))["QA"]
    assert set(row) == set(ROW) - {"sampling_rate"}
    build_music_instruct(list(files.values()), None, tmp_path / "out")
    examples = read_manifest(tmp_path / "out/manifest.jsonl")
    assert [e.turns[0] for e in examples] == [(pair.question, pair.answer) for pair in pairs]
