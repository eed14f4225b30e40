"""Every error a user can cause or mend, as one tree.

    MusiLingoError
    ├── AudioError
    │   ├── UnreadableAudio      no decoder could read the file
    │   ├── SilentAudio          nothing to hear
    │   ├── AudioTooShort
    │   └── AudioTooLong
    ├── ClipNotFound             the features of a song are no longer kept
    ├── PromptError
    │   └── ContextTooLong       one single turn does not fit the model
    ├── ConfigError
    ├── CheckpointError          weights missing, unexpected or of the wrong shape
    ├── NotEnoughMemory          a model does not fit where it is to run
    ├── DeviceNotLent            there is no GPU for a call at the moment
    ├── ManifestError            a line of training or test data cannot be used
    ├── ResourceMissing          a metric needs a package or data that is not here
    └── WeightsUnavailable       no source could give the weights

``str(error)`` is what the user reads: it says what is wrong and what to do. Anything that is not a
`MusiLingoError` is a bug and is left to reach the log whole.
"""

import math
from collections.abc import Iterable
from pathlib import Path


class MusiLingoError(Exception):
    """Base of all errors that a user can understand and mend."""


class AudioError(MusiLingoError):
    """A sound file cannot be used."""


class UnreadableAudio(AudioError):
    """No decoder could read the file.

    Args:
        name: File name, as the user knows it.
        reasons: One text for each decoder tried, saying why it failed.
    """

    def __init__(self, name: str, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(
            f"“{name}” cannot be read as music; please choose a WAV, FLAC, MP3, OGG, OPUS or "
            f"M4A file ({'; '.join(self.reasons)})."
        )


class SilentAudio(AudioError):
    """The file holds digital silence."""

    def __init__(self, name: str, peak_dbfs: float) -> None:
        self.peak_dbfs = peak_dbfs
        loudest = "zero" if peak_dbfs == -math.inf else f"at {peak_dbfs:.0f} dBFS"
        super().__init__(
            f"“{name}” is silent (its loudest sample is {loudest}), so there is nothing to hear; "
            "please choose another file."
        )


class AudioTooShort(AudioError):
    """The file ends before there is anything to hear."""

    def __init__(self, name: str, duration_s: float, limit_s: float) -> None:
        self.duration_s, self.limit_s = duration_s, limit_s
        super().__init__(
            f"“{name}” lasts {duration_s:.2f} s; please choose a clip of at least {limit_s:g} s."
        )


class AudioTooLong(AudioError):
    """The file is longer than the limit."""

    def __init__(self, name: str, duration_s: float, limit_s: float) -> None:
        self.duration_s, self.limit_s = duration_s, limit_s
        super().__init__(
            f"“{name}” lasts {duration_s / 60:.1f} minutes and the limit is {limit_s / 60:g} "
            "minutes; please choose a shorter file or cut it."
        )


class ClipNotFound(MusiLingoError):
    """A message names a song whose features are not kept (any more)."""

    def __init__(self, clip_id: str) -> None:
        self.clip_id = clip_id
        super().__init__("This song is no longer kept in memory; please upload it again.")


class PromptError(MusiLingoError):
    """A conversation cannot be turned into a prompt."""


class ContextTooLong(PromptError):
    """Instructions, music and one question alone are longer than the model's context."""

    def __init__(self, tokens: int, limit: int) -> None:
        self.tokens, self.limit = tokens, limit
        super().__init__(
            f"This question needs {tokens} tokens and the model can read {limit}; please ask a "
            "shorter one."
        )


class ConfigError(MusiLingoError):
    """A setting is unknown or has a value that makes no sense."""


class CheckpointError(MusiLingoError):
    """Weights do not fit the model.

    Args:
        where: File or folder.
        missing: Names the model has and the file lacks.
        unexpected: Names the file has and the model lacks.
        detail: Anything else worth saying, such as a wrong shape.
    """

    def __init__(
        self,
        where: str | Path,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        detail: str = "",
    ) -> None:
        self.missing, self.unexpected = tuple(missing), tuple(unexpected)
        parts = [detail] if detail else []
        for word, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
                parts.append(f"{word}: {shown}")
        super().__init__(f"The weights in {where} do not fit the model ({'; '.join(parts)}).")


class NotEnoughMemory(MusiLingoError):
    """A model does not fit where it is to run.

    Args:
        needed: Bytes.
        free: Bytes that there are.
        where: The device.
        fitting: (options, bytes) of ways to run it that would fit.
    """

    def __init__(
        self, needed: int, free: int, where: str, fitting: Iterable[tuple[str, int]]
    ) -> None:
        self.needed, self.free, self.fitting = needed, free, tuple(fitting)
        ways = [f"{options} ({size / 1e9:.1f} GB)" for options, size in self.fitting]
        advice = f"these would fit: {', '.join(ways)}" if ways else "nothing of it would fit here"
        super().__init__(
            f"The model needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free on "
            f"{where}; {advice}."
        )


class DeviceNotLent(MusiLingoError):
    """There is no GPU for a call at the moment; `reason` is its lender's."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"No GPU is free: {reason.strip().rstrip('.')}. Please try again later.")


class ManifestError(MusiLingoError):
    """A line of a manifest cannot be used; line 0 stands for all of it."""

    def __init__(self, path: str | Path, line: int, reason: str) -> None:
        self.path, self.line = Path(path), line
        super().__init__(f"{path}, line {line}: {reason}" if line else f"{path}: {reason}")


class ResourceMissing(MusiLingoError):
    """A metric needs a package or data that is not here.

    Args:
        metric: What cannot be computed.
        needed: What is missing, and why if that is known.
        remedy: How to get it.
    """

    def __init__(self, metric: str, needed: str, remedy: str) -> None:
        self.metric = metric
        super().__init__(f"{metric} needs {needed}; {remedy}.")


class WeightsUnavailable(MusiLingoError):
    """No source could give the weights.

    Args:
        name: What was wanted.
        tried: One text for each source tried, saying why it failed.
        by_hand: What the user can do to place the files without a network.
    """

    def __init__(self, name: str, tried: Iterable[str], by_hand: str) -> None:
        self.tried, self.by_hand = tuple(tried), by_hand
        lines = [f"{name} could not be fetched. Tried:", *(f"  - {t}" for t in self.tried), by_hand]
        super().__init__("\n".join(lines))
