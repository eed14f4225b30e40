"""What is kept of a song: a `Clip` of features, and the cache that holds clips between turns.

Kept are the encoder's rows *before* the projection, so a newly trained projection keeps the cache.
"""

import hashlib
import logging
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from musilingo_core.errors import ClipNotFound
from musilingo_core.storage import tidy

logger = logging.getLogger(__name__)

ID_DIGITS = 16  # hex digits of a clip id
DECODING = 2  # raised when sound files are read otherwise, so that kept clips are heard anew
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Clip:
    """A song as the language model will meet it.

    Attributes:
        clip_id: 16 hex digits: the file's bytes and the encoder, hashed.
        duration_s: Length of the song, seconds.
        features: (rows, size) float32, the encoder's output.
        times: (rows, 2) float32, the seconds of the song behind each row.
        fingerprint: Of the encoder that heard it.
    """

    clip_id: str
    duration_s: float
    features: Tensor
    times: Tensor
    fingerprint: str = ""

    @property
    def heard_s(self) -> float:
        """Seconds from the start of the song to the last one the encoder heard."""
        return min(float(self.times.max()), self.duration_s)

    def part(self, start_s: float, end_s: float) -> "Clip":
        """The rows that overlap a span of the song (always at least one)."""
        overlap = (self.times[:, 0] < end_s) & (self.times[:, 1] > start_s)
        if not overlap.any():
            middle = self.times.mean(dim=1) - (start_s + end_s) / 2
            overlap[middle.abs().argmin()] = True
        return replace(self, features=self.features[overlap], times=self.times[overlap])


def cropped(clip: Clip, longest_s: float, place: float) -> Clip:
    """A stretch of a clip as if it were the whole.

    Args:
        clip: Stays as it is where it is not longer.
        longest_s: Seconds that the stretch may last; at least one row is kept.
        place: Where it lies, 0 (the beginning) to 1 (the end).
    """
    rows = max(1, int((clip.times[:, 1] - clip.times[0, 0] <= longest_s).sum()))
    if rows >= len(clip.features):
        return clip
    first = round(place * (len(clip.features) - rows))
    times = clip.times[first : first + rows] - clip.times[first, 0]
    features = clip.features[first : first + rows]
    return replace(clip, features=features, times=times, duration_s=float(times.max()))


def pool(features: Tensor, segments: int | None) -> Tensor:
    """Bounds a song's rows without losing its time line.

    Args:
        features: (rows, size), in the order of the song.
        segments: None keeps all rows. Otherwise the first row is the mean of the song, and up to
            this many follow, the means of its equal parts in order.

    Returns:
        (pooled rows, size), as many as `configuration.pooled_rows` says.
    """
    if segments is None or len(features) == 1:
        return features
    parts = features.tensor_split(min(segments, len(features)))
    return torch.stack([features.mean(0), *(part.mean(0) for part in parts)])


def clip_id(path: str | Path, fingerprint: str) -> str:
    """Names a song by its bytes and the encoder that hears it."""
    digest = hashlib.sha256(f"{DECODING} {fingerprint}".encode())
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:ID_DIGITS]


def save_clip(clip: Clip, path: str | Path) -> None:
    """Writes a clip as safetensors, whole or not at all: a temporary file, then a rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    metadata = {
        "clip_id": clip.clip_id,
        "duration_s": repr(clip.duration_s),
        "fingerprint": clip.fingerprint,
    }
    try:
        save_file({"features": clip.features, "times": clip.times}, name, metadata)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def load_clip(path: str | Path) -> Clip:
    """Reads what `save_clip` wrote.

    Raises:
        SafetensorError, KeyError, ValueError: The file is damaged or not a clip.
        OSError: The file cannot be read.
    """
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
        features, times = file.get_tensor("features"), file.get_tensor("times")
    if features.ndim != 2 or times.shape != (len(features), 2) or not len(features):
        raise ValueError(f"features {tuple(features.shape)} and times {tuple(times.shape)}")
    if features.dtype != torch.float32 or not torch.isfinite(features).all():
        raise ValueError("features are not finite float32 values")
    duration_s = float(metadata["duration_s"])
    return Clip(metadata["clip_id"], duration_s, features, times, metadata["fingerprint"])


class FeatureCache:
    """Clips by id: the latest in memory, more on disk, both bounded. Safe between threads.

    Args:
        folder: Where the disk part lives; None keeps clips in memory only.
        memory_bytes: Most bytes of features in memory.
        disk_bytes: Most bytes of files on disk; the longest unused go first.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        memory_bytes: int = 256 * MEGABYTE,
        disk_bytes: int = 2_000 * MEGABYTE,
    ) -> None:
        self.folder = Path(folder) if folder is not None else None
        self.memory_bytes, self.disk_bytes = memory_bytes, disk_bytes
        self._memory: OrderedDict[str, Clip] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Clip:
        """The clip of this id.

        Raises:
            ClipNotFound: It was never put, is gone, or its file is damaged.
        """
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
        clip = self._read(key)
        if clip is None:
            raise ClipNotFound(key)
        self._remember(clip)
        return clip

    def __contains__(self, key: str) -> bool:
        try:
            self.get(key)
        except ClipNotFound:
            return False
        return True

    def put(self, clip: Clip) -> None:
        """Keeps a clip in memory and on disk."""
        self._remember(clip)
        if self.folder is None:
            return
        try:
            save_clip(clip, self._path(self.folder, clip.clip_id))
            self._bound_disk(self.folder)
        except (OSError, SafetensorError) as error:  # a full disk must not cost anyone their song
            logger.warning("The features of a song could not be kept on disk: %s", error)

    def get_or(self, key: str, make: Callable[[], Clip]) -> Clip:
        """The clip of this id; made and kept when there is none."""
        try:
            return self.get(key)
        except ClipNotFound:
            clip = make()
            self.put(clip)
            return clip

    def _remember(self, clip: Clip) -> None:
        with self._lock:
            self._memory[clip.clip_id] = clip
            self._memory.move_to_end(clip.clip_id)
            while len(self._memory) > 1 and self._memory_used() > self.memory_bytes:
                self._memory.popitem(last=False)

    def _memory_used(self) -> int:
        return sum(clip.features.nbytes + clip.times.nbytes for clip in self._memory.values())

    def _read(self, key: str) -> Clip | None:
        if self.folder is None or not _is_id(key):
            return None
        path = self._path(self.folder, key)
        try:
            clip = load_clip(path)
            if clip.clip_id != key:
                raise ValueError("another clip's file")
            with suppress(OSError):  # a cache that cannot be written can still be read
                os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("The features of a song could not be read: %s", error)
            return None
        except (SafetensorError, KeyError, ValueError):
            return None  # damaged: made again, and then overwritten
        return clip

    def _bound_disk(self, folder: Path) -> None:
        tidy(folder, "*.tmp")
        with self._lock:
            files = []
            for path in folder.glob("*.safetensors"):
                try:
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
                except FileNotFoundError:
                    continue  # another process tidied it away
            used = sum(size for _, size, _ in files)
            for _, size, path in sorted(files)[:-1]:
                if used <= self.disk_bytes:
                    return
                path.unlink(missing_ok=True)
                used -= size

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / f"{key}.safetensors"


def _is_id(key: str) -> bool:
    """Whether a text is a clip id; anything else must never become a file name."""
    return len(key) == ID_DIGITS and set(key) <= set("0123456789abcdef")
