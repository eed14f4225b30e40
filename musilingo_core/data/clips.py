"""Where training finds its music: features as they are, sounds heard once, before the first step.

What is heard is kept in a folder without bounds, one file a sound. It is named by where the sound
lies and when it was written: to take a run up again, no sound has to be read.
"""

import functools
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object

from musilingo_core.audio import AudioLimits
from musilingo_core.data.manifest import Example, FeatureFiles
from musilingo_core.data.published import write_skipped
from musilingo_core.encoders import MusicEncoder, fingerprint
from musilingo_core.engine import hear
from musilingo_core.errors import (
    AudioError,
    ConfigError,
    MusiLingoError,
    PromptError,
    UnreadableAudio,
)
from musilingo_core.features import DECODING, ID_DIGITS, Clip, cropped, save_clip
from musilingo_core.prompt import check
from musilingo_core.times import find_spans

logger = logging.getLogger(__name__)

DIGIT = re.compile(r"\d")  # in every question about a moment that a song may not have

Fault = tuple[str, str]  # an error's name and its sentence


class Clips:
    """Gives the clip at an example's place.

    Args:
        encoder: Hears sounds; features must be its own.
        folder: Gets the features of sounds. Runs may share it.
        limits: What sound files are accepted.
    """

    def __init__(
        self, encoder: MusicEncoder, folder: str | Path, limits: AudioLimits = AudioLimits()
    ) -> None:
        self.encoder, self.folder, self.limits = encoder, Path(folder), limits
        self.fingerprint = fingerprint(encoder)
        self._files = FeatureFiles()
        self.heard = functools.cache(self._hear)

    def __call__(self, place: str) -> Clip:
        """The clip at a place.

        Raises:
            AudioError: It is a sound file that cannot be used.
            ManifestError: Its features are missing, damaged or of another encoder.
        """
        file = place if FeatureFiles.is_features(place) else self.heard(place)
        return self._files.get_of(file, self.fingerprint)

    def _hear(self, place: str) -> str:
        """The file of a sound's features; made where it is missing."""
        if not Path(place).is_file():
            raise UnreadableAudio(Path(place).name, ["there is no such file"])
        about = Path(place).stat()
        named = (DECODING, self.fingerprint, place, about.st_size, about.st_mtime_ns)
        key = hashlib.sha256(str(named).encode()).hexdigest()[:ID_DIGITS]
        path = self.folder / f"{key}.safetensors"
        if not path.is_file():
            clip = hear(self.encoder, place, self.limits, name=self.fingerprint, key=key)
            save_clip(clip, path)
        return str(path)


def usable(
    examples: Sequence[Example],
    clips: Clips,
    folder: str | Path,
    crop_s: float = 0.0,
    on_status: Callable[[str, float | None], None] | None = None,
) -> list[Example]:
    """Hears every sound and gives the examples to train and validate with.

    A sound that cannot be used or a question about a moment past a song's end does not end a run:
    such examples are left out, counted in a warning, and listed in `skipped.jsonl`. Several
    processes share the hearing.

    Args:
        examples: Of a manifest.
        clips: Hears.
        folder: Of the run.
        crop_s: See `TrainingConfig`: of longer songs, moments later than this are not heard.
        on_status: Told how far it is: a text, and its fraction if known.

    Raises:
        ConfigError: None of them can be used.
    """
    wanted = [e for e in examples if e.split in ("train", "validation")]
    unheard = _hear_all(wanted, clips, on_status)
    if on_status:
        on_status("Checking examples", None)
    faults = [unheard.get(e.clip) or _fault(e, clips, crop_s) for e in wanted]
    kept = [e for e, fault in zip(wanted, faults, strict=True) if fault is None]
    if len(kept) == len(wanted):
        return kept
    listed = Path(folder) / "skipped.jsonl"
    if PartialState().is_main_process:
        rows = [
            {"clip": e.clip, "turns": e.turns, "error": fault[0], "reason": fault[1]}
            for e, fault in zip(wanted, faults, strict=True)
            if fault is not None
        ]
        listed.parent.mkdir(parents=True, exist_ok=True)
        write_skipped(rows, folder)
        counts = Counter(row["error"] for row in rows).most_common()
        named = ", ".join(f"{name} {n}" for name, n in counts)
        left_out = len(wanted) - len(kept)
        logger.warning("%d of %d examples left out (%s): %s", left_out, len(wanted), named, listed)
    if not kept:
        raise ConfigError(f"None of the examples can be used; {listed} says why.")
    return kept


def _hear_all(
    examples: Sequence[Example],
    clips: Clips,
    on_status: Callable[[str, float | None], None] | None,
) -> dict[str, Fault]:
    """Hears all sounds, each in one process; gives those that cannot be used, and why."""
    processes = PartialState()
    sounds = sorted({e.clip for e in examples if e.clip and not FeatureFiles.is_features(e.clip)})
    mine = sounds[processes.process_index :: processes.num_processes]
    faults: list[tuple[str, Fault]] = []
    for number, place in enumerate(mine, start=1):
        try:
            clips.heard(place)
        except AudioError as error:
            faults.append((place, _said(error)))
        if on_status:
            on_status("Hearing sounds", number / len(mine))
    return dict(gather_object(faults))


def _fault(example: Example, clips: Clips, crop_s: float) -> Fault | None:
    """Why an example cannot be rendered, told without rendering, which would take minutes."""
    timed = [question for question, _ in example.turns if example.clip and DIGIT.search(question)]
    try:
        check(example.messages())
        if timed:
            clip = clips(example.clip)
            heard = cropped(clip, crop_s, 1.0) if crop_s else clip
            for question in timed:
                find_spans(question, heard.duration_s)
    except PromptError as error:
        return _said(error)
    return None


def _said(error: MusiLingoError) -> Fault:
    return type(error).__name__, str(error)
