"""Examples to learn from or to be tested on, one JSON object a line.

    {"clip": "songs/a.ogg", "instruction": "What is the mood?", "response": "It is calm."}

`clip` is a sound file, a file that `musilingo encode` wrote, or `FILE.safetensors#KEY` for one of
many in a file of `write_features`; relative to the manifest. A conversation of several turns has
`turns`, a list of {"instruction", "response"}, instead. Optional: `split`,
`source`, `track`, `words`.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from musilingo_core.errors import ManifestError
from musilingo_core.features import Clip, load_clip
from musilingo_core.prompt import Message, assistant, user


@dataclass(frozen=True)
class Example:
    """One conversation about one clip.

    Attributes:
        clip: Where the music is, as in the manifest, made absolute; empty where there is none, as
            when `choose` asks what would be said of any music.
        turns: (instruction, response) pairs in order; a caption's instruction is empty.
        split: `train`, `validation` or `test`.
        source: Where it comes from, for reports.
        track: Clips of one track are alike; by default each clip is a track of its own.
        words: What each token of a row is to begin as, where a projection begins from words.
    """

    clip: str
    turns: tuple[tuple[str, str], ...]
    split: str = "train"
    source: str = ""
    track: str = ""
    words: tuple[str, ...] = ()

    def messages(self) -> list[Message]:
        """The conversation, with the clip's place as its id."""
        messages = []
        for number, (instruction, response) in enumerate(self.turns):
            messages.append(user(instruction or None, None if number else self.clip or None))
            messages.append(assistant(response))
        return messages


def read_manifest(path: str | Path, split: str | None = None) -> list[Example]:
    """All examples of a manifest, or those of one split.

    Raises:
        ManifestError: A line is not JSON or lacks a field; names file and line.
    """
    path = Path(path)
    folder = str(path.parent.resolve())
    examples = []
    for number, row in read_rows(path):
        try:
            example = _example(row, folder)
        except (KeyError, TypeError, AttributeError) as error:
            raise ManifestError(path, number, f"not an example: {error!r}") from error
        if split in (None, example.split):
            examples.append(example)
    return examples


def read_sounds(path: str | Path, *needed: str) -> list[dict[str, Any]]:
    """A list of sound files, one JSON object a line, with `path` made absolute.

    Args:
        path: The list; the `path` of each row is relative to its folder.
        needed: What each row must have besides `path`.

    Raises:
        ManifestError: A line is not JSON or lacks a field; names file and line.
    """
    path = Path(path)
    rows = []
    for number, row in read_rows(path):
        missing = [name for name in ("path", *needed) if name not in row]
        if missing:
            raise ManifestError(path, number, f"has no “{missing[0]}”")
        rows.append(row | {"path": str((path.parent / row["path"]).resolve())})
    return rows


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and the objects on them.

    Raises:
        ManifestError: The file cannot be read, or a line is no JSON object; names file and line.
    """
    try:
        # Not splitlines: JSON text may hold other line ends, such as U+2028.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(path, 0, f"cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(path, number, f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ManifestError(path, number, "not a JSON object")
        yield number, row


def kept_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of JSON Lines that a run may have been cut off in; half a last line is taken away."""
    if not path.exists():
        return []
    whole, _, half = path.read_text("utf-8").rpartition("\n")
    if half:
        path.write_text(whole + "\n" if whole else "", encoding="utf-8")
    return [json.loads(line) for line in whole.split("\n")] if whole else []


def write_manifest(examples: Iterable[Example], path: str | Path) -> None:
    """Writes examples; clips below the manifest's folder become relative to it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = f"{path.parent.resolve()}/"
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            turns = [{"instruction": i, "response": r} for i, r in example.turns]
            row: dict[str, Any] = {"clip": example.clip.removeprefix(folder)}
            row |= turns[0] if len(turns) == 1 else {"turns": turns}
            row |= {"split": example.split, "source": example.source}
            row |= {"track": example.track} if example.track else {}
            row |= {"words": example.words} if example.words else {}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def absolute(place: str, folder: str | Path) -> str:
    """A clip's place as a list in a folder names it, made absolute."""
    return os.path.normpath(os.path.join(folder, place))


def _example(row: dict[str, Any], folder: str) -> Example:
    turns = row.get("turns") or [row]
    return Example(
        clip=absolute(row["clip"], folder) if row["clip"] else "",
        turns=tuple((str(turn["instruction"]), str(turn["response"])) for turn in turns),
        split=row.get("split", "train"),
        source=row.get("source", ""),
        track=row.get("track", ""),
        words=tuple(row.get("words", ())),
    )


def write_features(clips: Iterable[Clip], path: str | Path) -> None:
    """Many clips in one safetensors file, for `FILE#clip_id`."""
    tensors: dict[str, Tensor] = {}
    metadata = {}
    for clip in clips:
        # Clones: clips made from one another may share memory, which the format does not know.
        tensors[f"{clip.clip_id}.features"] = clip.features.clone()
        tensors[f"{clip.clip_id}.times"] = clip.times.clone()
        metadata[clip.clip_id] = repr(clip.duration_s)
        metadata["fingerprint"] = clip.fingerprint
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)


class FeatureFiles:
    """Clips out of safetensors files: `FILE` of `encode`, or `FILE#KEY` of `write_features`."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Any, dict[str, str]]] = {}  # files and their metadata

    @staticmethod
    def is_features(place: str) -> bool:
        """Whether a manifest's clip is features and not sound."""
        return place.partition("#")[0].endswith(".safetensors")

    def get_of(self, place: str, fingerprint: str) -> Clip:
        """The clip at a place, heard by the encoder of this fingerprint.

        Raises:
            ManifestError: There is no such clip, it is damaged, or of another encoder.
        """
        clip = self.get(place)
        if clip.fingerprint != fingerprint:
            raise ManifestError(place, 0, "these features are of another encoder")
        return clip

    def get(self, place: str) -> Clip:
        """The clip at a place.

        Raises:
            ManifestError: There is no such file or key, or it is damaged.
        """
        path, _, key = place.partition("#")
        try:
            if not key:
                return load_clip(path)
            if path not in self._open:
                file = safe_open(path, "pt")
                self._open[path] = file, file.metadata()
            file, metadata = self._open[path]
            return Clip(
                clip_id=key,
                duration_s=float(metadata[key]),
                features=file.get_tensor(f"{key}.features"),
                times=file.get_tensor(f"{key}.times"),
                fingerprint=metadata["fingerprint"],
            )
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ManifestError(path, 0, f"no features “{key}”: {error}") from error
