"""LP-MusicCaps-MSD: captions of half a million songs, which GPT-3.5 wrote from their tags.

Reads https://huggingface.co/datasets/seungheondoh/LP-MusicCaps-MSD as Parquet (as published), as
Arrow (as `save_to_disk` of the package `datasets` leaves it) or as JSON; Doh et al.,
https://arxiv.org/abs/2307.16372. The first stage of MusiLingo's training learns from the writing
captions alone (msd_dataset.py of its repository). The sound is the Million Song Dataset's.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from musilingo_core.data.published import Collection, Report, checked_rows, read_json
from musilingo_core.errors import ConfigError, ManifestError

# The authors advise against the last: it guesses attributes that no tag names.
KINDS = ("writing", "summary", "paraphrase", "attribute_prediction")
_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json")
_NOT_DATA = ("cache-", "dataset_", "state.", "manifest.", "skipped.")


def build_lp_musiccaps(
    folder: str | Path,
    sounds: str | Path | None,
    output: str | Path,
    kinds: Sequence[str] = ("writing",),
    beside: Sequence[str | Path] = (),
) -> Report:
    """Captions without instruction, in the set's own three splits.

    Args:
        folder: With the set's files; the name of a file or of its folder begins with its split.
        sounds: Folder of sound files, at the set's own `path` or named by track id; None keeps
            every row, without sound.
        output: Folder for `manifest.jsonl` and `skipped.jsonl`.
        kinds: Of captions, out of `KINDS`; each gives an example of its own.
        beside: Manifests that will be used together with this one.

    Raises:
        ConfigError: A kind is unknown, a folder is missing or empty, a file's name tells no split,
            or pyarrow is not installed.
        ManifestError: A file is damaged, or a clip would be in two splits.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(
                f"There are no “{kind}” captions; please choose of {', '.join(KINDS)}."
            )
    columns = ["track_id", "path", *(f"caption_{kind}" for kind in kinds)]
    collection = Collection("LP-MusicCaps-MSD", sounds)
    for path in _files(Path(folder)):
        split = _split(path)
        for row in _rows(path, columns):
            track, place = str(row["track_id"]), str(row["path"])
            for kind in kinds:
                caption = str(row[f"caption_{kind}"] or "")
                source = f"LP-MusicCaps-MSD {kind}"
                stem = os.path.splitext(place)[0]
                names = (place, stem, os.path.basename(stem), track)
                collection.add(track, None, caption, split, source, names)
    return collection.write(output, beside)


def _files(folder: Path) -> list[Path]:
    """The set's files, without caches, descriptions and what an earlier run left there."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES and not path.name.startswith(_NOT_DATA)
    )
    if not files:
        raise ConfigError(f"There is no {', '.join(_SUFFIXES)} file in {folder}.")
    return files


def _split(path: Path) -> str:
    for name in (path.name, path.parent.name):
        if match := re.match(r"(train|valid|test)(?:ation)?(?:[-.]|$)", name):
            return _SPLITS[match[1]]
    raise ConfigError(f"{path} or its folder must begin with train, valid or test to tell a split.")


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    if path.suffix in (".parquet", ".arrow"):
        return _table_rows(path, columns)
    return checked_rows(path, read_json(path, lines=True), *columns)


def _table_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(f"{path} needs pyarrow; please run: pip install pyarrow") from error
    try:
        batches: Iterable[Any]
        if path.suffix == ".parquet":
            batches = parquet.ParquetFile(path).iter_batches(columns=list(columns))
        else:
            batches = arrow.ipc.open_stream(arrow.memory_map(str(path)))
        for batch in batches:
            yield from batch.select(list(columns)).to_pylist()
    except (arrow.ArrowException, KeyError, OSError) as error:
        raise ManifestError(path, 0, f"cannot be read: {error}") from error
