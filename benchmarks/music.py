"""Fetches the real songs of the training and of the hearing benchmark from Debian packages.

``music.jsonl`` beside this file lists the tracks. This script downloads each package with ``apt-get
download``, takes out the listed tracks and writes them with a manifest. It needs Debian or Ubuntu
with ``ffmpeg`` and fresh package lists, but not root: nothing is installed. The training songs are
0.6 GB to download, the test songs 5.5 GB; unpacking ``0ad-data`` takes another 5 GB for a while.

The listing was made with Debian 12 (bookworm); what another release lacks is named at the end. The
terms of a package's music are in its ``usr/share/doc/*/copyright``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

LISTING = Path(__file__).with_name("music.jsonl")
PROGRAMS = ("apt-get", "dpkg", "ffmpeg", "ffprobe")
LONGEST_S = "600"  # seconds; some tracker modules loop for ever


class TrackError(Exception):
    """Why a package or one of its tracks cannot be had, in one line."""


@dataclass(frozen=True)
class Track:
    """One line of the listing.

    Attributes:
        split: ``train`` or ``test``.
        package: name of the Debian package.
        member: path in the package, ``archive!inner`` inside a zip archive; a list of them are the
            stems of one song, to be mixed.
        album: what belongs together; a package may hold several albums.
        title: of the track.
        artist: None when not known.
        documented: facts stated by the recording's own tags or papers, and their ``source``.
    """

    split: str
    package: str
    member: str | list[str]
    album: str
    title: str
    artist: str | None = None
    documented: dict[str, Any] = field(default_factory=dict)

    @property
    def members(self) -> list[str]:
        """The paths in the package."""
        return [self.member] if isinstance(self.member, str) else self.member

    @property
    def is_rendered(self) -> bool:
        """Whether ``ffmpeg`` makes the track: a mix or tracker music."""
        return len(self.members) > 1 or self.members[0].endswith(".xm")

    @property
    def path(self) -> Path:
        """Where the track goes, relative to the manifest."""
        name = f"{self.title}.flac" if self.is_rendered else re.split("[/!]", self.members[0])[-1]
        return Path(self.album, re.sub(r"[^\w.'-]+", "_", name))


def read_listing(split: str) -> list[Track]:
    """Reads the tracks of a split (``train`` or ``test``), sorted by package."""
    lines = LISTING.read_text(encoding="utf-8").splitlines()
    return [track for line in lines if (track := Track(**json.loads(line))).split == split]


def run(*command: str | Path, folder: Path | None = None) -> str:
    """Runs a program in a folder and gives its output; raises ``TrackError`` when it fails."""
    english = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=folder, env=english, capture_output=True, errors="replace")
    if done.returncode:
        complaint = done.stderr.strip() or f"exit status {done.returncode}"
        raise TrackError(f"{command[0]}: {complaint.splitlines()[-1]}")
    return done.stdout


def duration_of(path: Path) -> float:
    """Measures a sound file in seconds; raises ``TrackError`` when it is none."""
    entry = ("-show_entries", "format=duration", "-of", "csv=p=0")
    return round(float(run("ffprobe", "-v", "error", *entry, path)), 2)


def take_out(member: str, unpacked: Path, target: Path) -> None:
    """Copies a member of an unpacked package; raises ``TrackError`` when there is no such member.

    Args:
        member: its path in the package, ``archive!inner`` inside a zip archive.
        unpacked: folder with the package's contents.
        target: file to write.
    """
    outer, _, inner = member.partition("!")
    if not (unpacked / outer).is_file():
        raise TrackError(f"no {outer} in the package")
    if not inner:
        shutil.copyfile(unpacked / outer, target)
        return
    try:
        with zipfile.ZipFile(unpacked / outer) as archive:
            target.write_bytes(archive.read(inner))
    except (KeyError, zipfile.BadZipFile) as error:
        raise TrackError(f"no {inner} in {outer}") from error


def render(parts: Sequence[Path], target: Path) -> None:
    """Mixes sound files at their own levels, or renders tracker music, to 44.1 kHz FLAC."""
    inputs = [word for part in parts for word in ("-i", str(part))]
    mix = f"amix=inputs={len(parts)}:normalize=0:duration=longest,alimiter=limit=0.97"
    effect = ["-filter_complex", mix] if len(parts) > 1 else []
    sound = ["-ar", "44100", "-t", LONGEST_S]
    run("ffmpeg", "-nostdin", "-v", "error", "-y", *inputs, *effect, *sound, target)


def make_track(track: Track, unpacked: Path, output: Path) -> None:
    """Puts a track of an unpacked package in its place, whole or not at all (``TrackError``)."""
    parts = []
    for index, member in enumerate(track.members):
        parts.append(unpacked / f"part-{index}{Path(member).suffix}")
        take_out(member, unpacked, parts[-1])
    made = unpacked / "made.flac" if track.is_rendered else parts[0]
    if track.is_rendered:
        render(parts, made)
    duration_of(made)  # what is no sound must not pass for a fetched track
    (output / track.path).parent.mkdir(parents=True, exist_ok=True)
    made.replace(output / track.path)


def fetch_package(package: str, tracks: Sequence[Track], output: Path) -> Iterator[str]:
    """Fetches tracks of one package, unpacked inside the output folder, and yields complaints."""
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=output) as folder:
        unpacked = Path(folder).resolve()
        try:
            run("apt-get", "download", "-q", package, folder=unpacked)
            run("dpkg", "-x", next(unpacked.glob("*.deb")), unpacked)
        except TrackError as error:
            yield f"{package}: {error}"
            return
        for track in tracks:
            try:
                make_track(track, unpacked, output)
            except TrackError as error:
                yield f"{package}, {track.title}: {error}"


def manifest_line(track: Track, output: Path) -> str:
    """Gives a fetched track's line of the manifest."""
    row = {
        "path": track.path.as_posix(),
        "album": track.album,
        "title": track.title,
        "duration_s": duration_of(output / track.path),
        "artist": track.artist,
        "documented": track.documented,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def fetch_split(split: str, output: Path) -> list[str]:
    """Completes a folder and its manifest and gives a line for each thing that cannot be had."""
    output.mkdir(parents=True, exist_ok=True)
    tracks = read_listing(split)
    wanted = [track for track in tracks if not (output / track.path).exists()]
    complaints: list[str] = []
    for package, group in groupby(wanted, key=lambda track: track.package):
        print(package, file=sys.stderr)
        complaints += fetch_package(package, list(group), output)
    lines = [manifest_line(track, output) for track in tracks if (output / track.path).exists()]
    (output / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    return complaints


def main() -> None:
    """Fetches a split; the exit status is 1 when something is missing at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--split", choices=("train", "test"), required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder, one for each split")
    options = parser.parse_args()
    if absent := [program for program in PROGRAMS if shutil.which(program) is None]:
        sys.exit(f"{', '.join(absent)} not found: use Debian or Ubuntu with ffmpeg installed.")
    if complaints := fetch_split(options.split, options.output):
        sys.exit("\n".join(["These could not be had:", *complaints]))


if __name__ == "__main__":
    main()
