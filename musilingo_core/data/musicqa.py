"""MusicQA: questions and answers about MusicCaps, MagnaTagATune and MTG-Jamendo clips.

Reads the published JSON, https://huggingface.co/datasets/mu-llama/MusicQA; Liu et al., MU-LLaMA,
https://arxiv.org/abs/2308.11276. One row is one question: `{"audio_name": "000123.wav",
"conversation": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}`, nine rows a clip.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musilingo_core.data.published import (
    VALIDATION,
    Collection,
    Report,
    checked_rows,
    read_json,
)
from musilingo_core.errors import ConfigError, ManifestError

# The set's parts by the start of their file's name, and their splits.
PARTS = {"pretrain": "train", "finetune": "train", "eval": "test"}
PRETRAIN_NOTE = (
    "the Pretrain part is MusicCaps, test clips among it, under numbers that cannot be traced: "
    "whoever trains on it must not test on MusicCaps or MusicInstruct"
)


def build_musicqa(
    files: Sequence[str | Path],
    sounds: str | Path | None,
    output: str | Path,
    validation: float = VALIDATION,
    beside: Sequence[str | Path] = (),
) -> Report:
    """MusicQA, split by its files.

    Args:
        files: Of `PretrainMusicQA.json`, `FinetuneMusicQA.json` (both train) and
            `EvalMusicQA.json` (test).
        sounds: Its folder `audios`; None keeps every row, without sound.
        output: Folder for `manifest.jsonl` and `skipped.jsonl`.
        validation: Share of training clips held out.
        beside: Manifests that will be used together with this one.

    Raises:
        ConfigError: No file is named or its name tells no part, there is no such folder, or the
            share is no share.
        ManifestError: A file is damaged, or a clip would be in two splits.
    """
    if not files:
        raise ConfigError("Please name at least one file of MusicQA.")
    collection = Collection("MusicQA", sounds, validation)
    parts = set()
    for path in map(Path, files):
        part = next((part for part in PARTS if path.name.lower().startswith(part)), "")
        if not part:
            raise ConfigError(f"{path} must begin with Pretrain, Finetune or Eval to tell a split.")
        parts.add(part)
        source = f"MusicQA {part}"
        for row in checked_rows(path, read_json(path), "audio_name", "conversation"):
            clip = str(row["audio_name"])
            question, answer = _texts(path, clip, row["conversation"])
            names = (clip, Path(clip).stem)
            collection.add(clip, question, answer, PARTS[part], source, names)
    return collection.write(output, beside, [PRETRAIN_NOTE] if "pretrain" in parts else [])


def _texts(path: Path, clip: str, conversation: Any) -> tuple[str, str]:
    """The question and the answer of a row."""
    try:
        question, answer = (str(turn["value"]) for turn in conversation)
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(path, 0, f"“{clip}” has no question and answer: {error!r}") from error
    return question, answer
