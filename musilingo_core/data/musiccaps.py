"""MusicCaps: 5,521 clips of 10 s, each with a musician's caption and a list of aspects.

Reads the public CSV as it is. Google, CC-BY-SA 4.0, https://huggingface.co/datasets/google/MusicCaps;
Agostinelli et al., MusicLM, https://arxiv.org/abs/2301.11325. The sound is on YouTube and not part
of it; a sound file must hold the ten seconds from `start_s` to `end_s` only.
"""

import ast
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from musilingo_core.data.published import VALIDATION, Collection, Report
from musilingo_core.errors import ManifestError

# What MusiLingo asks for every clip (musiccaps_dataset.py of its repository).
CAPTION_INSTRUCTION = "Please give a caption to the music."
_FLAGS = {"True": True, "False": False}


@dataclass(frozen=True)
class MusicCapsRow:
    """One clip of MusicCaps.

    Attributes:
        ytid: Of the YouTube video.
        start_s, end_s: Where in the video.
        aspects: Short descriptions, such as `slow tempo`.
        caption: A few sentences.
        is_audioset_eval: Whether it is of AudioSet's evaluation split, which is the test split.
    """

    ytid: str
    start_s: float
    end_s: float
    aspects: tuple[str, ...]
    caption: str
    is_audioset_eval: bool


def read_musiccaps(path: str | Path) -> list[MusicCapsRow]:
    """All rows of `musiccaps-public.csv`.

    Raises:
        ManifestError: The file cannot be read or a row is damaged; names file and line.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            line, rows = 1, []
            for row in reader:
                # A caption may span lines: a row is named by its first.
                rows.append(_row(path, line + 1, row))
                line = reader.line_num
    except csv.Error as error:
        raise ManifestError(path, line + 1, f"not CSV: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(path, 0, f"cannot be read: {error}") from error
    if not rows:
        raise ManifestError(path, 1, "has no rows")
    return rows


def _row(path: str | Path, line: int, row: Mapping[str, str]) -> MusicCapsRow:
    try:
        aspects = ast.literal_eval(row["aspect_list"])
        if not isinstance(aspects, list) or None in row:
            raise ValueError("aspect_list is no list, or there are too many columns")
        return MusicCapsRow(
            row["ytid"],
            float(row["start_s"]),
            float(row["end_s"]),
            tuple(str(aspect) for aspect in aspects),
            row["caption"].strip(),
            _FLAGS[row["is_audioset_eval"]],
        )
    except (KeyError, ValueError, SyntaxError, TypeError, AttributeError) as error:
        raise ManifestError(path, line, f"not a row of MusicCaps: {error!r}") from error


def build_musiccaps(
    table: str | Path,
    sounds: str | Path | None,
    output: str | Path,
    instruction: str = CAPTION_INSTRUCTION,
    validation: float = VALIDATION,
    beside: Sequence[str | Path] = (),
) -> Report:
    """Captions of MusicCaps, split by `is_audioset_eval`.

    Args:
        table: `musiccaps-public.csv`.
        sounds: Folder of sound files named by YouTube id; None keeps every row, without sound.
        output: Folder for `manifest.jsonl` and `skipped.jsonl`.
        instruction: Asked about each clip; may be empty.
        validation: Share of training clips held out.
        beside: Manifests that will be used together with this one.

    Raises:
        ConfigError: There is no such folder, or the share is no share.
        ManifestError: The table is damaged, or a clip would be in two splits.
    """
    collection = Collection("MusicCaps", sounds, validation)
    for row in read_musiccaps(table):
        split = "test" if row.is_audioset_eval else "train"
        collection.add(row.ytid, instruction or None, row.caption, split)
    return collection.write(output, beside)
