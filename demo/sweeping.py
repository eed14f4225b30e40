"""Deletes visitors' songs in time, those too that a former process left when it was killed.

Gradio by itself knows the files of the running process only. Knows nothing else of the page.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SWEEPS_PER_AGE = 10
HASH = re.compile("[0-9a-f]{64}")  # Gradio puts each file into a folder named by its content

log = logging.getLogger(__name__)


def sweep(folder: Path, age_s: float, now: float) -> None:
    """Deletes what Gradio has put into `folder` more than `age_s` seconds before `now`.

    Nothing else, should the folder hold more than it ought to: only files in folders named by a
    hash, and uploads that were cut short. Links are left alone, and so is a folder that is one.

    Args:
        folder: Where songs are uploaded to; may be missing.
        age_s: Age in seconds, counted as Gradio counts it: since the file came to stand here. Its
            time of modification is no help, for copies of examples keep that of the original.
        now: The time, as `time.time` gives it.
    """
    for entry in _uploads(folder):
        try:
            if now - entry.stat(follow_symlinks=False).st_ctime > age_s:
                os.unlink(entry)
        except FileNotFoundError:
            pass  # Gradio was quicker
        except OSError as error:  # not ours, or open on Windows: the next sweep tries again
            log.warning("%s could not be deleted: %s", entry.path, error)


def keep_sweeping(folder: Path, age_s: float) -> Callable[[], None]:
    """Sweeps at once and every few minutes, so that no song in `folder` grows older than `age_s`.

    Returns:
        What ends it; otherwise it goes on as long as the process.
    """
    ended = threading.Event()
    every_s = age_s / SWEEPS_PER_AGE

    def run() -> None:
        while True:
            sweep(folder, age_s - every_s, time.time())
            if ended.wait(every_s):
                return

    threading.Thread(target=run, name="sweeping", daemon=True).start()
    return ended.set


def _uploads(folder: Path) -> Iterator[os.DirEntry[str]]:
    for entry in [] if folder.is_symlink() else _entries(folder):
        if entry.is_file(follow_symlinks=False) and entry.name.startswith("tmp"):
            yield entry
        elif entry.is_dir(follow_symlinks=False) and HASH.fullmatch(entry.name):
            inside = _entries(Path(entry))
            yield from (each for each in inside if each.is_file(follow_symlinks=False))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:  # not ours: the sweeping goes on, and tries again
        log.warning("%s could not be swept: %s", folder, error)
        return []
