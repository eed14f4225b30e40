"""Questions with options, one of which is right: our own lists, and MuChoMusic as published.

Our own are JSON Lines:

    {"clip": "a.ogg", "question": "How fast is it?", "options": ["slow", "fast"], "answer": "slow"}

with `clip` as in a manifest, and perhaps `topic`, `track` (clips of one track are alike) and
`source`. MuChoMusic (Weck et al., https://arxiv.org/abs/2408.01337) comes as a CSV or as the JSON
that its `prepare_prompts.py` writes.
"""

import ast
import csv
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from musilingo_core.data.manifest import absolute, read_rows
from musilingo_core.data.published import NO_SOUND, SoundFolder, read_json
from musilingo_core.errors import ConfigError, ManifestError

MUCHOMUSIC = "MuChoMusic"
OPTION_COLUMNS = (
    "correct_answer", "distractor_1_answer", "distractor_2_answer", "distractor_3_answer",
)  # fmt: skip
# The last question: as published, an example with its answer may stand before it.
_PROMPT = re.compile(r".*Question:\s*(.*?)\s*Options:\s*\(A\)", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """A question about a clip, with options.

    Attributes:
        clip: Where the music is, as in a manifest.
        question: As a visitor would ask.
        options: At least two different answers.
        answer: Number of the right one.
        topics: What it asks about, for figures of their own.
        track: Clips of one track are alike; intervals are drawn over tracks.
        source: For reports.
    """

    clip: str
    question: str
    options: tuple[str, ...]
    answer: int
    topics: tuple[str, ...] = ()
    track: str = ""
    source: str = ""


def read_choices(
    path: str | Path, sounds: str | Path | None = None
) -> tuple[list[Choice], list[dict[str, str]]]:
    """The questions of a file, and those left out for want of a sound file (`id`, `reason`).

    Args:
        path: `.csv` and `.json` are MuChoMusic's, anything else is JSON Lines.
        sounds: Folder of the sound files, where the file itself names none or others.

    Raises:
        ManifestError: It cannot be read or a row is damaged; names file and line or row.
        ConfigError: The file names no sound files, and no folder is given.
    """
    path = Path(path)
    if path.suffix == ".csv":
        return _muchomusic_csv(path, sounds)
    if path.suffix == ".json":
        return _muchomusic_json(path, sounds)
    choices = []
    for number, row in read_rows(path):
        try:
            choices.append(_own(row, path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ManifestError(path, number, f"not a question with options: {error!r}") from error
    return choices, []


def write_choices(choices: Iterable[Choice], path: str | Path) -> None:
    """Writes our own kind of list; clips below its folder become relative to it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = f"{path.parent.resolve()}/"
    with path.open("w", encoding="utf-8") as file:
        for choice in choices:
            row: dict[str, Any] = {
                "clip": choice.clip.removeprefix(folder),
                "question": choice.question,
                "options": choice.options,
                "answer": choice.options[choice.answer],
                "topic": choice.topics,
                "track": choice.track,
                "source": choice.source,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _own(row: dict[str, Any], path: Path) -> Choice:
    options, topics = tuple(map(str, row["options"])), row.get("topic", ())
    clip = absolute(row["clip"], path.parent.resolve())
    return Choice(
        clip=clip,
        question=str(row["question"]),
        options=_checked(options),
        answer=options.index(str(row["answer"])),
        topics=(topics,) if isinstance(topics, str) else tuple(topics),
        track=str(row.get("track", clip)),
        source=str(row.get("source", "")),
    )


def _checked(options: tuple[str, ...]) -> tuple[str, ...]:
    if len(options) < 2 or len(set(options)) < len(options) or not all(map(str.strip, options)):
        raise ValueError("needs at least two options, each with other words")
    return options


def _muchomusic_csv(
    path: Path, sounds: str | Path | None
) -> tuple[list[Choice], list[dict[str, str]]]:
    """The published CSV. Its right options come first: their order is drawn by the question."""
    if sounds is None:
        raise ConfigError(f"{path} names no sound files; please name their folder (--sounds).")
    folder, choices, skipped = SoundFolder(sounds), [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(path, 0, f"cannot be read: {error}") from error
    for number, row in enumerate(rows, start=1):
        try:
            key = row["dataset_identifier"].removesuffix(".json")
            if row["dataset"] != "sdd":  # MusicCaps: the YouTube id, and the number of a caption
                key = key.rpartition("_")[0]
            clip, reason = folder.find((key, f"{key}.2min"))
            if reason:
                skipped.append({"id": key, "reason": reason})
                continue
            options = [row[name] for name in OPTION_COLUMNS]
            order = _drawn(row["question"] + key, len(options))
            topics = [*_list(row["music_knowledge"]), *_list(row["music_reasoning"])]
            shown = _checked(tuple(options[i] for i in order))
            right, question = order.index(0), row["question"]
            choices.append(Choice(clip, question, shown, right, tuple(topics), key, MUCHOMUSIC))
        except (KeyError, ValueError, SyntaxError, TypeError, AttributeError) as error:
            reason = f"row {number} is not MuChoMusic's: {error!r}"
            raise ManifestError(path, 0, reason) from error
    return choices, skipped


def _muchomusic_json(
    path: Path, sounds: str | Path | None
) -> tuple[list[Choice], list[dict[str, str]]]:
    """What the published `prepare_prompts.py` writes; options are in the order of the prompt."""
    folder = SoundFolder(sounds) if sounds is not None else None
    choices, skipped = [], []
    for number, row in enumerate(read_json(path), start=1):
        try:
            place, key = str(row["audio_path"]), str(row["id"])
            clip, reason = absolute(place, path.parent.resolve()), ""
            if folder is not None:
                clip, reason = folder.find((Path(place).stem, key, f"{key}.2min"))
            elif not Path(clip).is_file():
                reason = NO_SOUND
            if reason:
                skipped.append({"id": key, "reason": reason})
                continue
            question = _PROMPT.match(row["prompt"])
            if question is None:
                raise ValueError("its prompt holds no question with options")
            shown = _checked(tuple(map(str, row["answers"])))
            right, topics = row["answer_orders"].index(0), [*row["knowledge"], *row["reasoning"]]
            choices.append(Choice(clip, question[1], shown, right, tuple(topics), key, MUCHOMUSIC))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            reason = f"row {number} is not MuChoMusic's: {error!r}"
            raise ManifestError(path, 0, reason) from error
    return choices, skipped


def _drawn(text: str, count: int) -> list[int]:
    """An order, the same for the same text on every machine."""
    order = list(range(count))
    Random(hashlib.sha256(text.encode()).hexdigest()).shuffle(order)
    return order


def _list(text: str | None) -> Sequence[str]:
    """A Python list in a cell; an empty cell is an empty one."""
    return ast.literal_eval(text) if text else []
