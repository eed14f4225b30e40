"""MusicInstruct: 60,493 questions and answers about the clips of MusicCaps.

27,540 short ones about single facts and 32,953 long ones, which GPT-4 wrote from the captions;
https://huggingface.co/datasets/m-a-p/Music-Instruct (CC-BY-NC 4.0); Deng et al., MusiLingo,
https://arxiv.org/abs/2309.08730. Reads the published JSON, and writes the same for sets made again.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from musilingo_core.data.published import (
    VALIDATION,
    Collection,
    Report,
    checked_rows,
    read_json,
)
from musilingo_core.errors import ConfigError, ManifestError

KINDS = ("short", "long")


@dataclass(frozen=True)
class Pair:
    """A question about a clip of MusicCaps and its answer.

    Attributes:
        ytid: The clip.
        kind: `short` or `long`.
        question, answer: In plain English.
        caption: From which the answer was made.
        is_audioset_eval: Whether the clip is of the test split.
    """

    ytid: str
    kind: str
    question: str
    answer: str
    caption: str
    is_audioset_eval: bool


def build_music_instruct(
    files: Sequence[str | Path],
    sounds: str | Path | None,
    output: str | Path,
    validation: float = VALIDATION,
    beside: Sequence[str | Path] = (),
) -> Report:
    """MusicInstruct, split by `is_audioset_eval`.

    Args:
        files: `music_instruct_short.json` and `music_instruct_long.json`, or `music_instruct.json`,
            which holds the pairs of both.
        sounds: Folder of sound files named by YouTube id; None keeps every row, without sound.
        output: Folder for `manifest.jsonl` and `skipped.jsonl`.
        validation: Share of training clips held out.
        beside: Manifests that will be used together with this one.

    Raises:
        ConfigError: No file is named, there is no such folder, or the share is no share.
        ManifestError: A file is damaged, or a clip would be in two splits.
    """
    if not files:
        raise ConfigError("Please name at least one file of MusicInstruct.")
    collection = Collection("MusicInstruct", sounds, validation)
    for path in map(Path, files):
        kind = next((f" {kind}" for kind in KINDS if kind in path.stem), "")
        data = read_json(path)
        rows = data.get("QA") if isinstance(data, dict) else None
        if rows is None:
            raise ManifestError(path, 1, "has no list “QA”; is it a file of MusicInstruct?")
        for row in checked_rows(path, rows, "ytid", "question", "answer", "is_audioset_eval"):
            split = "test" if row["is_audioset_eval"] else "train"
            question, answer = str(row["question"]), str(row["answer"])
            collection.add(row["ytid"], question, answer, split, f"MusicInstruct{kind}")
    return collection.write(output, beside)


def write_music_instruct(pairs: Iterable[Pair], folder: str | Path) -> dict[str, Path]:
    """Writes pairs as the published set has them; gives each kind's file.

    The published rows have a `sampling_rate` of their authors' sound arrays, too, which has no
    meaning here.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(pairs)
    files = {}
    for kind in KINDS:
        rows = [
            {
                "ytid": pair.ytid,
                "question": pair.question,
                "answer": pair.answer,
                "caption": pair.caption,
                "is_audioset_eval": pair.is_audioset_eval,
            }
            for pair in pairs
            if pair.kind == kind
        ]
        files[kind] = folder / f"music_instruct_{kind}.json"
        text = json.dumps({"QA": rows}, ensure_ascii=False, indent=1)
        files[kind].write_text(text + "\n", encoding="utf-8")
    return files
