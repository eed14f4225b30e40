import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from musilingo_core.data.lp_musiccaps import build_lp_musiccaps
from musilingo_core.data.manifest import read_manifest
from musilingo_core.errors import ConfigError, ManifestError

# The columns of https://huggingface.co/datasets/seungheondoh/LP-MusicCaps-MSD
ROW = {
    "track_id": "TRIHXPZ128F1466744",
    "title": "In The Sunshine",
    "artist_name": "ARRESTED DEVELOPMENT",
    "release": "Zingalamaduni",
    "year": 1994,
    "tag": ["hip hop", "rap"],
    "caption_writing": "An amiable rap tune.",
    "caption_summary": "A summery song.",
    "caption_paraphrase": "",
    "caption_attribute_prediction": "A guess.",
    "path": "3/4/1234.clip.mp3",
}


def as_parquet(rows: list[dict[str, object]], path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path.with_suffix(".parquet"))


def as_arrow(rows: list[dict[str, object]], path: Path) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_stream(path.with_suffix(".arrow"), table.schema) as stream:
        stream.write_table(table)


def as_json(rows: list[dict[str, object]], path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps(rows))


def as_lines(rows: list[dict[str, object]], path: Path) -> None:
    path.with_suffix(".jsonl").write_text("\n".join(json.dumps(row) for row in rows))


@pytest.mark.parametrize("write", [as_parquet, as_arrow, as_json, as_lines])
def test_every_published_form_gives_captions_without_instruction(
    tmp_path: Path, write: Callable[[list[dict[str, object]], Path], None]
) -> None:
    sounds = tmp_path / "songs"
    (sounds / "3" / "4").mkdir(parents=True)
    (sounds / "3" / "4" / "1234.clip.mp3").write_bytes(b"sound")
    (sounds / "TRB.flac").write_bytes(b"sound")
    data = tmp_path / "data"
    data.mkdir()
    lost = ROW | {"track_id": "TRC", "path": "3/4/9999.clip.mp3"}
    write([ROW, lost], data / "train-00000-of-00002-557f11f5f8c72ffa")
    write([ROW | {"track_id": "TRB", "path": "5/6/7.clip.mp3"}], data / "valid-00000-of-00001")
    (data / "dataset_info.json").write_text("{}")
    report = build_lp_musiccaps(data, sounds, tmp_path / "out")
    one, two = read_manifest(tmp_path / "out/manifest.jsonl")
    assert one.clip == str(sounds / "3/4/1234.clip.mp3")
    assert one.turns == (("", "An amiable rap tune."),)
    assert (one.split, one.source) == ("train", "LP-MusicCaps-MSD writing")
    assert (two.clip, two.split) == (str(sounds / "TRB.flac"), "validation")
    assert report.counts["skipped"] == {"no sound file": 1}


def test_each_kind_of_caption_asked_for_is_an_example_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    as_arrow([ROW], tmp_path / "test" / "data-00000-of-00001")
    as_arrow([ROW], tmp_path / "test" / "cache-0123456789abcdef")  # a program's own
    kinds = ("writing", "summary", "paraphrase")
    build_lp_musiccaps(tmp_path, None, tmp_path / "out", kinds)
    report = build_lp_musiccaps(tmp_path, None, tmp_path / "out", kinds)  # beside its own output
    examples = read_manifest(tmp_path / "out/manifest.jsonl", "test")
    assert [e.turns[0][1] for e in examples] == ["An amiable rap tune.", "A summery song."]
    assert report.counts["skipped"] == {"empty text": 1}
    with pytest.raises(ConfigError, match="no “poem” captions"):
        build_lp_musiccaps(tmp_path, None, tmp_path / "out", ["poem"])


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no"):
        build_lp_musiccaps(tmp_path, None, tmp_path / "out")
    damaged = tmp_path / "train-0.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    with pytest.raises(ManifestError, match=r"train-0\.parquet"):
        build_lp_musiccaps(tmp_path, None, tmp_path / "out")
    as_parquet([{"track_id": "a", "path": "b"}], damaged)
    with pytest.raises(ManifestError, match="caption_writing"):
        build_lp_musiccaps(tmp_path, None, tmp_path / "out")
    damaged.rename(tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match="begin with train, valid or test"):
        build_lp_musiccaps(tmp_path, None, tmp_path / "out")


def test_without_pyarrow_a_table_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_parquet([ROW], tmp_path / "train-0")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        build_lp_musiccaps(tmp_path, None, tmp_path / "out")
