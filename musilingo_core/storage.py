"""Where fetched files are kept, and how they get there whole or not at all."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OnStatus = Callable[[str, float | None], None]  # what is going on, and its fraction if known
STALE_S = 86_400  # a temporary file this old belongs to nobody


def cache_folder() -> Path:
    """Where weights and features are kept: `$MUSILINGO_CACHE`, or the user's cache folder."""
    if place := os.environ.get("MUSILINGO_CACHE"):
        return Path(place).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "musilingo"


def sha256(path: Path) -> str:
    """A file's SHA-256, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tidy(folder: Path, pattern: str) -> None:
    """Removes what killed processes left behind: matching files and folders older than a day."""
    for left in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process tidies too
            if time.time() - left.stat().st_mtime < STALE_S:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A temporary folder on the same disk, so that a rename finishes the work."""
    tidy(parent, ".staging-*")
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=".staging-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Renames; another process that was quicker wins, its result is the same."""
    try:
        os.replace(source, target)
    except OSError:
        if not target.exists():
            raise
