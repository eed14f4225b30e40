"""Where and how the page runs: the only reader of environment variables in `demo`.

Defaults live in `Settings`; the environment holds differences, named ``MUSILINGO_`` and the field
in capitals (``MUSILINGO_PORT=8000``). Says nothing about how the page looks.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from musilingo_core.errors import ConfigError

PREFIX = "MUSILINGO_"
HERE = Path(__file__).resolve().parent
# One folder for each user of this machine, who could not write into another's.
UPLOADS = Path(tempfile.gettempdir()) / f"musilingo-uploads-{getattr(os, 'getuid', lambda: 0)()}"


@dataclass(frozen=True)
class Settings:
    """Everything about a running page that is not words or looks.

    Attributes:
        host: Address to listen on; a Space listens on all of them.
        port: Port to listen on; None takes the first free one from 7860 on (a Space takes 7860).
        preset: Which model to load, a name that `musilingo_core.engine.load_engine` knows.
        model: A whole model to load instead of the preset: a folder, or the Hub's ``OWNER/NAME``.
        encoder: Parts to load instead of the preset, named alike: a MERT …
        language_model: … and a LLaMA that chats.
        projection: A trained projection, named alike, instead of the model's own.
        prompt: Name of a prompt form instead of the model's own.
        device: ``auto``, ``cpu``, ``cuda`` …, or ``spread``: over all GPUs.
        encoder_device: Of the encoder, where it is another.
        dtype: Of the language model and of MERT: ``auto``, ``float32``, ``bfloat16``, ``float16``.
        weights: That make words: ``auto``, ``packed`` (int8, on a processor), ``plain``, ``8bit``,
            ``4bit``.
        max_file_mb: Largest sound file a visitor may send, in megabytes (10⁶ bytes).
        max_minutes: Longest song a visitor may send.
        replies: Replies written at the same time.
        listeners: Visitors whose songs are listened to at the same time; the encoder takes one song
            after another, and those that it knows at once.
        queue_size: Visitors who may wait for either; more are turned away with a message.
        upload_age_s: Seconds an uploaded song stays on disk at most; never more than an hour.
        uploads: Folder for uploaded songs, for this page alone and safe to delete.
        examples: Folder with ``examples.json`` and its clips; may be missing.
        zero_gpu: Whether a GPU is lent for each call; such a Space says so itself.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    preset: str = "starter"
    model: str | None = None
    encoder: str | None = None
    language_model: str | None = None
    projection: str | None = None
    prompt: str | None = None
    device: str = "auto"
    encoder_device: str | None = None
    dtype: str = "auto"
    weights: str = "auto"
    max_file_mb: int = 250
    max_minutes: int = 20
    replies: int = 8
    listeners: int = 2
    queue_size: int = 40
    upload_age_s: int = 3000
    uploads: Path = UPLOADS
    examples: Path = HERE.parent / "assets" / "examples"
    zero_gpu: bool = False

    def __post_init__(self) -> None:
        """Refuses numbers that would start a page nobody can use.

        Raises:
            ConfigError: A number is out of its range; the sentence names the setting and the range.
        """
        for name, low, high in (
            ("max_file_mb", 1, 4000),
            ("max_minutes", 1, 600),
            ("replies", 1, 64),
            ("listeners", 1, 64),
            ("queue_size", 1, 10_000),
            ("upload_age_s", 60, 3600),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"{PREFIX}{name.upper()} is {getattr(self, name)}; it must lie between {low} "
                    f"and {high}."
                )
        if self.port is not None and not 0 < self.port < 65_536:
            raise ConfigError(f"{PREFIX}PORT is {self.port}; it must lie between 1 and 65535.")

    @property
    def max_file_bytes(self) -> int:
        """Largest sound file a visitor may send, in bytes."""
        return self.max_file_mb * 1_000_000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Reads the settings that differ from the defaults.

        Args:
            environment: Names and values; ``SPACE_ID`` tells a Hugging Face Space, and
                ``SPACES_ZERO_GPU`` one that is lent its GPU.

        Raises:
            ConfigError: A value cannot be read; the sentence names the variable.
        """
        changes: dict[str, Any] = {}
        if environment.get("SPACE_ID"):
            changes = {"host": "0.0.0.0", "port": 7860}
        changes["zero_gpu"] = _is_true(environment.get("SPACES_ZERO_GPU", ""))
        for field in fields(cls):
            name = PREFIX + field.name.upper()
            if environment.get(name):
                changes[field.name] = _read(name, environment[name])
        return cls(**changes)


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "t", "true")


def _read(name: str, value: str) -> Any:
    """One value in its field's type."""
    readers: dict[str, Callable[[str], Any]] = {
        "PORT": int,
        "MAX_FILE_MB": int,
        "MAX_MINUTES": int,
        "REPLIES": int,
        "LISTENERS": int,
        "QUEUE_SIZE": int,
        "UPLOAD_AGE_S": int,
        "UPLOADS": lambda text: Path(text).resolve(),
        "EXAMPLES": lambda text: Path(text).resolve(),
        "ZERO_GPU": _is_true,
    }
    try:
        return readers.get(name.removeprefix(PREFIX), str)(value)
    except ValueError:
        raise ConfigError(f"{name} is “{value}”; it must be a whole number.") from None
