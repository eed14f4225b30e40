"""The example clips beside the page: any number of them, none included."""

import json
from dataclasses import dataclass
from pathlib import Path

from musilingo_core.errors import ConfigError


@dataclass(frozen=True)
class Example:
    """A clip a visitor can try.

    Attributes:
        path: The sound file.
        title: Its name, a few words.
        what: What it is, one line.
    """

    path: Path
    title: str
    what: str = ""


def read_examples(folder: Path) -> tuple[Example, ...]:
    """Reads ``examples.json`` in `folder`: a list of objects with ``file``, ``title`` and ``what``.

    A folder without that file, and an entry whose clip is not there, give no example.

    Raises:
        ConfigError: ``examples.json`` is there but is not such a list.
    """
    listing = folder / "examples.json"
    if not listing.is_file():
        return ()
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
        examples = [
            Example(folder / entry["file"], str(entry["title"]), str(entry.get("what", "")))
            for entry in entries
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{listing} must be a list of objects with “file” and “title”: {error}"
        ) from error
    return tuple(example for example in examples if example.path.is_file())
