"""What the builders of published data sets share.

Finds a clip's sound file by its id, gathers examples with a reason for every row left out, writes
the manifest, and checks that no clip is in two splits. Each set's own file knows its columns.
"""

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musilingo_core.data.manifest import Example, read_manifest, write_manifest
from musilingo_core.errors import ConfigError, ManifestError

SOUND_SUFFIXES = {
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a"),
    *(".mp4", ".aac", ".aif", ".aiff", ".wma", ".webm", ".mka"),
}
VALIDATION = 0.02  # share of a set's training clips held out
NO_SOUND, EMPTY_SOUND = "no sound file", "the sound file is empty"
# ID, YID, ID_30_40, ID-30000-40000, [ID], [ID]-[30-40]: what the usual download tools write.
_YOUTUBE_NAME = re.compile(r"\[([\w-]{11})\].*|Y?([\w-]{11})(?:[_-]\d+(?:\.\d+)?){0,2}")


def youtube_id(name: str) -> str:
    """The YouTube id in a file's name without suffix; a name that has none comes back as it is."""
    match = _YOUTUBE_NAME.fullmatch(name)
    return (match[1] or match[2]) if match else name


class SoundFolder:
    """The sound files in a folder and in all folders below it.

    Args:
        folder: Where to look.

    Raises:
        ConfigError: There is no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        if not self.folder.is_dir():
            raise ConfigError(f"There is no folder {folder}; please name the one with the sounds.")
        self._files: dict[str, Path] = {}
        for path in sorted(self._walk()):
            relative = path.relative_to(self.folder).as_posix()
            name = path.stem
            for key in (relative, relative.removesuffix(path.suffix), name, youtube_id(name)):
                self._files.setdefault(key, path)

    def _walk(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if Path(name).suffix.lower() in SOUND_SUFFIXES:
                    yield Path(folder, name)

    def find(self, names: Iterable[str]) -> tuple[str, str]:
        """Where a clip is, and why it cannot be used; one of the two is empty.

        Args:
            names: Ids, file names without suffix, or paths relative to the folder; first wins.
        """
        for name in names:
            if name in self._files:
                path = self._files[name]
                return (str(path), "") if path.stat().st_size else ("", EMPTY_SOUND)
        return "", NO_SOUND


def held_out(clip_id: str, share: float) -> bool:
    """Whether a training clip is for validation: the same on every machine, in every set."""
    digest = hashlib.sha256(clip_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclass(frozen=True)
class Report:
    """What a builder made.

    Attributes:
        name: The set.
        counts: Numbers by what they count, such as `examples`, `clips` and `skipped`.
        facts: What else there is to say, such as the seconds it took.
        notes: What the user should know.
    """

    name: str
    counts: Mapping[str, Mapping[str, int]]
    facts: Mapping[str, str | float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, **self.counts, **self.facts, "notes": list(self.notes)}

    def __str__(self) -> str:
        lines = [self.name]
        for title, counts in self.counts.items():
            each = "; ".join(f"{name} {number}" for name, number in counts.items())
            lines += [f"  {title}: {sum(counts.values())} ({each})"] if counts else []
        lines += [f"  {name}: {value}" for name, value in self.facts.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


class Collection:
    """Gathers a set's examples, and a reason for each row left out.

    Args:
        name: The set's published name.
        sounds: Folder of sound files; without one every row is kept, with its id as its clip.
        validation: Share of training clips to hold out, at least 0 and below 1.

    Raises:
        ConfigError: There is no such folder, or the share is no share.
    """

    def __init__(self, name: str, sounds: str | Path | None, validation: float = 0.0) -> None:
        if not 0 <= validation < 1:
            raise ConfigError(f"The share held out must be from 0 to below 1, not {validation:g}.")
        self.name, self.validation = name, validation
        self.sounds = SoundFolder(sounds) if sounds is not None else None
        self.examples: list[Example] = []
        self.skipped: list[dict[str, str]] = []
        self._seen: set[tuple[str, str, tuple[str, str]]] = set()

    def add(
        self,
        clip_id: str,
        question: str | None,
        answer: str,
        split: str,
        source: str = "",
        names: Sequence[str] = (),
    ) -> None:
        """Keeps one question and answer, or notes why it is left out.

        Args:
            clip_id: By which the clip is known, and held out.
            question: None for a caption without instruction.
            answer: Must not be empty.
            split: `train`, `validation` or `test`; some of `train` goes to `validation`.
            source: For reports; by default the set's name.
            names: Under which to look for the sound file; by default the id.
        """
        place, reason = clip_id, ""
        if self.sounds is not None:
            place, reason = self.sounds.find(names or (clip_id,))
        turn = ("" if question is None else question.strip(), answer.strip())
        if not turn[1]:
            reason = "empty text"
        elif question is not None and not turn[0]:
            reason = "empty question"
        elif (clip_id, split, turn) in self._seen:
            reason = "the same twice"
        if reason:
            self.skip(clip_id, reason)
            return
        self._seen.add((clip_id, split, turn))
        self.keep(place, clip_id, turn, split, source or self.name)

    def keep(
        self, place: str, clip_id: str, turn: tuple[str, str], split: str, source: str
    ) -> None:
        """Keeps a question and answer about the clip at a place."""
        if split == "train" and held_out(clip_id, self.validation):
            split = "validation"
        self.examples.append(Example(place, (turn,), split, source, track=clip_id))

    def skip(self, clip_id: str, reason: str) -> None:
        """Notes a row that is left out."""
        self.skipped.append({"id": clip_id, "reason": reason})

    def write(
        self, output: str | Path, beside: Sequence[str | Path] = (), notes: Sequence[str] = ()
    ) -> Report:
        """Writes `manifest.jsonl` and `skipped.jsonl`.

        Args:
            output: Folder.
            beside: Manifests that will be used together with this one.
            notes: For the report.

        Raises:
            ManifestError: A clip would be in two splits.
        """
        manifest = Path(output) / "manifest.jsonl"
        others = {Path(path): read_manifest(path) for path in beside}
        refuse_leaks({**others, manifest: self.examples})
        write_manifest(self.examples, manifest)
        write_skipped(self.skipped, output)
        counts = {
            "examples": Counter(example.split for example in self.examples),
            "clips": Counter(split for _, split in {(e.clip, e.split) for e in self.examples}),
            "sources": Counter(example.source for example in self.examples),
            "skipped": Counter(row["reason"] for row in self.skipped),
        }
        return Report(self.name, counts, {"manifest": str(manifest)}, tuple(notes))


def write_skipped(rows: Iterable[Mapping[str, Any]], output: str | Path) -> None:
    """Writes the rows left out, one JSON object a line, to `skipped.jsonl` of a folder."""
    with (Path(output) / "skipped.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def refuse_leaks(manifests: Mapping[Path, Iterable[Example]]) -> None:
    """Makes sure that no clip is in two splits.

    Clips are the same when their track is (the id in their set, wherever the files lie), or the
    file.

    Raises:
        ManifestError: Some are; names them.
    """
    if leaks := _leaks(manifests, "track") or _leaks(manifests, "clip"):
        shown = [
            f"{clip} ({', '.join(f'{split} in {path}' for split, path in places.items())})"
            for clip, places in list(leaks.items())[:5]
        ]
        more = f" and {len(leaks) - 5} more" if len(leaks) > 5 else ""
        reason = f"clips in more than one split: {'; '.join(shown)}{more}; take them out of one"
        raise ManifestError(list(manifests)[-1], 0, reason)


def _leaks(manifests: Mapping[Path, Iterable[Example]], by: str) -> dict[str, dict[str, Path]]:
    """Tracks or clips that are in several splits, each with a manifest for every split."""
    seen: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for manifest, examples in manifests.items():
        for example in examples:
            seen[getattr(example, by)].setdefault(example.split, manifest)
    seen.pop("", None)  # no track is named
    return {name: places for name, places in seen.items() if len(places) > 1}


def read_json(path: str | Path, lines: bool = False) -> Any:
    """A JSON file; with `lines`, one that is no list may have one value a line.

    Raises:
        ManifestError: It cannot be read or is no JSON; names file and line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(path, 0, f"cannot be read: {error}") from error
    if not lines or text.lstrip().startswith("["):
        return _parsed(path, text)
    numbered = enumerate(text.split("\n"))  # not splitlines: JSON text may hold other line ends
    return [_parsed(path, line, number) for number, line in numbered if line.strip()]


def _parsed(path: str | Path, text: str, lines_before: int = 0) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = lines_before + error.lineno
        raise ManifestError(path, line, f"not JSON: {error.msg}") from error


def checked_rows(path: str | Path, rows: object, *needed: str) -> Iterator[dict[str, Any]]:
    """The objects of a list, each with what it must have.

    Raises:
        ManifestError: It is no list of objects, or one lacks a field.
    """
    if not isinstance(rows, list):
        raise ManifestError(path, 0, "not a list of rows")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ManifestError(path, 0, f"row {number} is not an object")
        missing = [name for name in needed if name not in row]
        if missing:
            raise ManifestError(path, 0, f"row {number} has no “{missing[0]}”")
        yield row
