"""Model repositories of the Hugging Face Hub: fetched at one revision, and the same ever after.

Revisions and hashes that are known are pinned by who asks. What comes without is written down in
`hub.json` of the cache folder when it is fetched first, and compared whenever its files change.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HFValidationError,
    HTTPError,  # of httpx or httpx2, whichever it uses
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils.tqdm import tqdm

from musilingo_core.errors import CheckpointError, WeightsUnavailable
from musilingo_core.storage import OnStatus, cache_folder, sha256

SAFE = (".safetensors",)
PICKLED = (".bin", ".pth")  # fetched where there is nothing safer; read with weights_only
BESIDE = (".json", ".jinja", ".model", ".txt")  # configurations, templates and tokenizers


@dataclass(frozen=True)
class Repository:
    """A model repository of the Hub.

    Attributes:
        name: `OWNER/NAME`.
        revision: A commit; None takes the newest when it is fetched first, and that ever after.
        hashes: SHA-256 of files whose hash is known.
        only: Patterns of the files that are needed.
    """

    name: str
    revision: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ("*",)

    @property
    def key(self) -> str:
        """What it is written down under."""
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def parse_name(part: str | Path) -> tuple[str, str | None]:
    """Name and revision of a text `OWNER/NAME[@REVISION]`; a path that there is has no revision."""
    if Path(part).exists():
        return str(part), None
    name, _, revision = str(part).partition("@")
    return name, revision or None


def is_repository(name: str) -> bool:
    """Whether a text may be the name of a repository and is no path that there is."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name)) and not Path(name).exists()


def fetch_repository(repository: Repository, on_status: OnStatus | None = None) -> Path:
    """The folder of a repository's files: of the cache, or else fetched.

    Raises:
        WeightsUnavailable: Neither the cache nor the Hub has them.
        CheckpointError: A file has another hash than is pinned or was written down.
    """
    record = _records().get(repository.key, {})
    revision = record.get("revision", repository.revision)
    paths = _kept(repository, record)
    if not paths:
        try:
            revision, paths = _fetch(repository, revision, on_status)
        except (HTTPError, OfflineModeIsEnabled, FileNotFoundError, HFValidationError) as error:
            raise _unavailable(repository, revision, error) from error
    _compare(repository, str(revision), paths, record.get("files", {}))
    name, path = next(iter(paths.items()))
    return path.parents[name.count("/")]


def recorded(repository: Repository) -> tuple[str, dict[str, str]]:
    """The revision and the files' SHA-256 that were written down of what was fetched."""
    record = _records().get(repository.key, {"revision": "", "files": {}})
    files = {name: row["sha256"] for name, row in record["files"].items()}
    return record["revision"], {n: h for n, h in files.items() if _wanted(repository, n)}


def _kept(repository: Repository, record: Mapping[str, Any]) -> dict[str, Path]:
    """Each file's place in the cache; nothing where one that is wanted is not there."""
    there = set(record.get("only", ()))
    if "*" not in there and not set(repository.only) <= there:
        return {}
    wanted = [name for name in record["files"] if _wanted(repository, name)]
    try:
        return {
            name: Path(
                hf_hub_download(
                    repository.name, name, revision=record["revision"], local_files_only=True
                )
            )
            for name in wanted
        }
    except LocalEntryNotFoundError:  # the cache was tidied since
        return {}


def _fetch(
    repository: Repository, revision: str | None, on_status: OnStatus | None
) -> tuple[str, dict[str, Path]]:
    """Fetches what is not in the cache yet; gives the commit and each file's place."""
    info = HfApi().model_info(repository.name, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    weights = SAFE if any(name.endswith(SAFE) for name in sizes) else PICKLED
    names = [
        name
        for name in sizes
        if name.endswith(BESIDE + weights)
        and _wanted(repository, name)
        and ("/" not in name or name.startswith("adapter/"))
    ]
    commit = str(info.sha)
    progress = _progress(repository.name, sum(sizes[name] for name in names), on_status)
    paths = {
        name: Path(hf_hub_download(repository.name, name, revision=commit, tqdm_class=progress))
        for name in sorted(names, key=lambda name: sizes[name])
    }
    if not paths:
        raise CheckpointError(repository.name, detail="the repository holds no such files")
    return commit, paths


def _wanted(repository: Repository, name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in repository.only)


def _progress(name: str, size: int, on_status: OnStatus | None) -> type[tqdm]:
    """A bar of huggingface_hub's kind that tells how much of all files has come."""
    text, come = f"Fetching {name} ({size / 1e9:.1f} GB)", 0.0

    class Told(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            nonlocal come
            come += n or 0
            if on_status:
                on_status(text, min(come / size, 1.0) if size else None)
            return super().update(n)

    return Told


def _compare(
    repository: Repository,
    revision: str,
    paths: Mapping[str, Path],
    known: Mapping[str, dict[str, Any]],
) -> None:
    """Compares files with what is pinned or written down of them, and writes down the rest.

    A file that was compared is hashed again once its size or its time is another.
    """
    found = {}
    for name, path in paths.items():
        state = path.stat()
        seen = {"size": state.st_size, "time": state.st_mtime_ns}
        row = known.get(name, {})
        same = {key: row.get(key) for key in seen} == seen
        digest = row["sha256"] if same else sha256(path)
        expected = repository.hashes.get(name) or row.get("sha256") or digest
        if digest != expected:
            detail = f"{name} has sha256 {digest} and not {expected}; delete it to fetch it again"
            raise CheckpointError(path, detail=detail)
        found[name] = {**seen, "sha256": digest}
    if any(known.get(name) != row for name, row in found.items()):
        _write_down(repository, {"revision": revision, "files": found})


def _record_file() -> Path:
    return cache_folder() / "hub.json"


def _records() -> dict[str, Any]:
    try:
        records = json.loads(_record_file().read_text(encoding="utf-8"))
        for record in records.values():
            if not (isinstance(record["revision"], str) and isinstance(record["files"], dict)):
                raise TypeError("no record of a repository")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        detail = "it cannot be read; delete it to forget what was fetched"
        raise CheckpointError(_record_file(), detail=detail) from error
    return dict(records)


def _write_down(repository: Repository, record: dict[str, Any]) -> None:
    file = _record_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):  # other processes write down theirs
        records = _records()
        old = records.get(repository.key, {})
        if old.get("revision") != record["revision"]:
            old = {}
        record["files"] = old.get("files", {}) | record["files"]
        record["only"] = sorted({*old.get("only", ()), *repository.only})
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(records | {repository.key: record}, indent=1), "utf-8")
        os.replace(temporary, file)


def _unavailable(
    repository: Repository, revision: str | None, error: Exception
) -> WeightsUnavailable:
    """What was tried, and how to do without the Hub."""
    at = f" --revision {revision}" if revision else ""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return WeightsUnavailable(
        repository.name,
        ["the cache of huggingface_hub: not all of it is there", f"the Hub: {reason}"],
        "Where the Hub wants to know who asks, run `hf auth login` first. To do without it, run on "
        f"a machine with a network\n  hf download {repository.name}{at} --local-dir DIR\n"
        "copy DIR here, and name DIR instead.",
    )
