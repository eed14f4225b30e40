"""The listing of the real songs, and how a package's members become tracks; nothing is fetched."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import music
from benchmarks.music import Track

TRAIN = music.read_listing("train")
TEST = music.read_listing("test")
ROW = {"split": "test", "package": "p", "member": "a/b.ogg", "album": "p", "title": "B"}


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A listing of two packages with one track each."""
    path = tmp_path / "music.jsonl"
    other = ROW | {"package": "q", "album": "q", "artist": "A", "documented": {"genre": "rock"}}
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, other)), encoding="utf-8")
    monkeypatch.setattr(music, "LISTING", path)
    monkeypatch.setattr(music, "duration_of", lambda path: 1.5)
    return path


def test_listing_is_sorted_and_counts_190_training_and_143_test_tracks() -> None:
    rows = [json.loads(line) for line in music.LISTING.read_text(encoding="utf-8").splitlines()]
    keys = [(row["split"], row["package"], row["album"]) for row in rows]

    assert (len(TRAIN), len(TEST), len(rows)) == (190, 143, 333)
    assert keys == sorted(keys)


def test_every_track_has_a_title_and_members_inside_its_package() -> None:
    for track in TRAIN + TEST:
        assert track.title == track.title.strip() != "", track
        assert track.members, track
        for member in track.members:
            outer, _, inner = member.partition("!")
            assert outer.startswith("usr/share/"), track
            assert ".." not in Path(outer).parts, track
            assert (Path(outer).suffix in {".pk3", ".zip"}) == bool(inner), track


def test_documented_facts_name_their_source() -> None:
    assert all("source" in track.documented for track in TEST if track.documented)
    assert not any(track.documented or track.artist for track in TRAIN)


def test_splits_share_no_package_album_or_member() -> None:
    for attribute in ("package", "album"):
        train, test = ({getattr(track, attribute) for track in split} for split in (TRAIN, TEST))
        assert not train & test
    train, test = ({name for track in split for name in track.members} for split in (TRAIN, TEST))
    assert not train & test


@pytest.mark.parametrize("tracks", [TRAIN, TEST])
def test_no_two_tracks_go_to_the_same_file_even_where_case_does_not_count(
    tracks: Sequence[Track],
) -> None:
    assert len({track.path.as_posix().lower() for track in tracks}) == len(tracks)


@pytest.mark.parametrize(
    ("member", "path", "is_rendered"),
    [
        ("usr/share/a/One Two.ogg", "p/One_Two.ogg", False),
        ("usr/share/a.pk3!music/c.ogg", "p/c.ogg", False),
        ("usr/share/a.pk3!c.ogg", "p/c.ogg", False),
        ("usr/share/a/c.xm", "p/B_side.flac", True),
        (["usr/share/a/song.ogg", "usr/share/a/guitar.ogg"], "p/B_side.flac", True),
    ],
)
def test_path_of_a_track_follows_from_its_member(
    member: str | list[str], path: str, is_rendered: bool
) -> None:
    track = Track("test", "p", member, "p", "B side")

    assert (track.path.as_posix(), track.is_rendered) == (path, is_rendered)


def test_member_is_taken_out_of_a_folder_and_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "plain.ogg").write_bytes(b"plain")
    with zipfile.ZipFile(tmp_path / "a.pk3", "w") as archive:
        archive.writestr("music/inner.ogg", b"inner")

    for member, content in {"plain.ogg": b"plain", "a.pk3!music/inner.ogg": b"inner"}.items():
        music.take_out(member, tmp_path, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == content


@pytest.mark.parametrize(
    ("member", "complaint"),
    [
        ("no.ogg", "no no.ogg in the package"),
        ("a.pk3!no.ogg", "no no.ogg in a.pk3"),
        ("broken.pk3!no.ogg", "no no.ogg in broken.pk3"),
    ],
)
def test_missing_member_is_named(tmp_path: Path, member: str, complaint: str) -> None:
    zipfile.ZipFile(tmp_path / "a.pk3", "w").close()
    (tmp_path / "broken.pk3").write_bytes(b"no archive")

    with pytest.raises(music.TrackError, match=complaint):
        music.take_out(member, tmp_path, tmp_path / "out")


def test_track_that_is_there_is_not_fetched_again(
    tmp_path: Path, listing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def pretend(package: str, tracks: Sequence[Track], output: Path) -> list[str]:
        asked.append(package)
        for track in tracks:
            (output / track.path).parent.mkdir()
            (output / track.path).touch()
        return []

    monkeypatch.setattr(music, "fetch_package", pretend)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/b.ogg").touch()

    assert music.fetch_split("test", tmp_path) == []
    assert music.fetch_split("test", tmp_path) == []
    assert asked == ["q"]
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").open(encoding="utf-8")]
    facts = {"title": "B", "duration_s": 1.5}
    assert rows == [
        {"path": "p/b.ogg", "album": "p", **facts, "artist": None, "documented": {}},
        {"path": "q/b.ogg", "album": "q", **facts, "artist": "A", "documented": {"genre": "rock"}},
    ]


def test_bad_package_is_named_and_the_next_one_still_tried(
    tmp_path: Path, listing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*command: str | Path, folder: Path | None = None) -> str:
        raise music.TrackError(f"{command[0]}: E: Unable to locate package {command[-1]}")

    monkeypatch.setattr(music, "run", refuse)

    assert music.fetch_split("test", tmp_path) == [
        "p: apt-get: E: Unable to locate package p",
        "q: apt-get: E: Unable to locate package q",
    ]
    assert (tmp_path / "manifest.jsonl").read_text(encoding="utf-8") == ""
    assert not list(tmp_path.glob(".unpacked-*"))


def test_missing_programs_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["music", "--split", "test", "--output", str(tmp_path / "x")])
    monkeypatch.setattr("shutil.which", lambda program: None)

    with pytest.raises(SystemExit, match="apt-get, dpkg, ffmpeg, ffprobe not found") as stopped:
        music.main()

    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "x").exists()
