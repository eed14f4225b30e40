"""Any number of example clips, none included."""

import json
from pathlib import Path

import pytest

from demo.examples import Example, read_examples
from musilingo_core.errors import ConfigError


def write(folder: Path, entries: object) -> None:
    (folder / "examples.json").write_text(json.dumps(entries), encoding="utf-8")


def test_no_folder_gives_no_examples(tmp_path: Path) -> None:
    assert read_examples(tmp_path / "missing") == ()


def test_an_entry_without_its_clip_gives_no_example(tmp_path: Path) -> None:
    (tmp_path / "waltz.flac").touch()
    write(tmp_path, [{"file": "waltz.flac", "title": "Waltz"}, {"file": "gone.flac", "title": "?"}])
    assert read_examples(tmp_path) == (Example(tmp_path / "waltz.flac", "Waltz", ""),)


def test_more_than_a_page_needs_may_be_said_of_a_clip(tmp_path: Path) -> None:
    (tmp_path / "a.ogg").touch()
    write(tmp_path, [{"file": "a.ogg", "title": "A", "what": "a reel", "licence": "CC0"}])
    assert read_examples(tmp_path)[0].what == "a reel"


@pytest.mark.parametrize("entries", [{"file": "a"}, [{"title": "no file"}], ["a.flac"], 7])
def test_a_listing_of_another_shape_is_an_error_that_names_it(
    tmp_path: Path, entries: object
) -> None:
    write(tmp_path, entries)
    with pytest.raises(ConfigError, match=r"examples\.json"):
        read_examples(tmp_path)
