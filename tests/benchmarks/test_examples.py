"""The example clips of the page: their list, their arrangements and their loudness."""

import json

import pytest

from benchmarks import examples
from benchmarks.scores import Note, Score, split_of

LARGEST_BYTES = 900_000


def test_list_beside_the_clips_is_what_the_script_writes() -> None:
    listed = json.loads((examples.TARGET / "examples.json").read_text(encoding="utf-8"))

    written = json.loads(json.dumps([examples.row(example) for example in examples.EXAMPLES]))
    assert listed == written


@pytest.mark.parametrize("example", examples.EXAMPLES, ids=lambda example: example.file)
def test_every_clip_is_there_and_small(example: examples.Example) -> None:
    size = (examples.TARGET / example.file).stat().st_size

    assert 0 < size <= LARGEST_BYTES


@pytest.mark.parametrize("example", examples.EXAMPLES, ids=lambda example: example.file)
def test_the_line_for_the_visitor_names_the_tempo(example: examples.Example) -> None:
    assert f"{example.bpm} bpm" in example.what


@pytest.mark.parametrize("example", examples.EXAMPLES, ids=lambda example: example.file)
def test_nothing_on_the_page_was_trained_on(example: examples.Example) -> None:
    assert split_of(example.score) == "test"


def test_second_lead_joins_in_the_second_half() -> None:
    melody = tuple(Note(float(beat), 1.0, 72) for beat in range(16))
    chords = (Note(1.0, 1.0, 60),)
    bass = (Note(0.0, 4.0, 40),)
    tune = Score("a/b.abc", "traditional", (melody, chords, bass), 4.0, 0.0, 16.0)

    first, second, *_, drums = examples.dance_band(tune)

    assert len(first.notes) == 16
    assert min(note.start for note in second.notes) == 8.0
    assert drums.drums


def test_bass_walks_from_the_root_to_the_fifth() -> None:
    notes = examples.walking([Note(0.0, 4.0, 40)], bar=4.0)

    assert [(note.start, note.pitch) for note in notes] == [(0.0, 40), (2.0, 47)]


def test_second_pass_of_the_loudness_filter_uses_what_the_first_measured() -> None:
    report = """[Parsed_loudnorm_1 @ 0x1]
    {"input_i" : "-20.5", "input_tp" : "-6.0", "input_lra" : "2.1", "input_thresh" : "-30.6",
     "target_offset" : "0.1"}"""

    text = examples.loudness_filter(report)

    assert "measured_I=-20.5:measured_TP=-6.0:measured_LRA=2.1:measured_thresh=-30.6" in text
    assert text.startswith("loudnorm=I=-16.0:TP=-1.5")
