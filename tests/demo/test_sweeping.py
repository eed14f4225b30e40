"""Songs go in time, whoever left them; nothing else does."""

import os
import time
from pathlib import Path

import pytest

from demo.sweeping import keep_sweeping, sweep

HOUR = 3600.0
IN_AN_HOUR = time.time() + 2 * HOUR  # tests take less


def put(folder: Path, name: str = "song.wav", letter: str = "a") -> Path:
    """A file where Gradio puts uploads."""
    path = folder / (letter * 64) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"music")
    return path


def until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_song_that_a_former_process_left_goes_and_a_fresh_one_stays(tmp_path: Path) -> None:
    left = put(tmp_path)
    time.sleep(3)
    fresh = put(tmp_path, letter="b")
    stop = keep_sweeping(tmp_path, age_s=3)
    until(lambda: not left.exists())
    stop()
    assert fresh.exists()


def test_a_song_goes_while_the_page_runs_and_not_at_once(tmp_path: Path) -> None:
    stop = keep_sweeping(tmp_path, age_s=2)
    song = put(tmp_path)
    uploaded = time.monotonic()
    until(lambda: not song.exists())
    stop()
    assert time.monotonic() - uploaded > 1.5


def test_an_upload_that_was_cut_short_goes(tmp_path: Path) -> None:
    (tmp_path / "tmpabc123").write_bytes(b"half of a song")
    sweep(tmp_path, HOUR, IN_AN_HOUR)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_read_does_not_end_the_sweeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path)
    song = put(tmp_path, letter="b")
    scan = os.scandir

    def scandir(folder: Path) -> object:
        if "a" * 64 in str(folder):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    sweep(tmp_path, HOUR, IN_AN_HOUR)
    assert not song.exists()


def test_a_song_within_its_hour_stays(tmp_path: Path) -> None:
    song = put(tmp_path)
    sweep(tmp_path, HOUR, time.time())
    assert song.exists()


@pytest.mark.parametrize("place", ["Album/song.wav", "song.wav", f"{'a' * 64}/deep/song.wav"])
def test_what_gradio_has_not_put_there_stays(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(b"music")
    sweep(tmp_path, HOUR, IN_AN_HOUR)
    assert (tmp_path / place).exists()


def test_no_link_is_followed(tmp_path: Path) -> None:
    mine = put(tmp_path / "mine")
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / ("b" * 64)).symlink_to(mine.parent, target_is_directory=True)
    (uploads / "tmplink").symlink_to(mine)
    (tmp_path / "link").symlink_to(tmp_path / "mine", target_is_directory=True)
    sweep(uploads, HOUR, IN_AN_HOUR)
    sweep(tmp_path / "link", HOUR, IN_AN_HOUR)
    assert mine.exists()


def test_a_folder_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    sweep(tmp_path / "later", HOUR, IN_AN_HOUR)
