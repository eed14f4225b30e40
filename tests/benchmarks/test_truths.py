import json
from pathlib import Path
from typing import cast

import pytest

from benchmarks.truths import Sounds, hear_all, scored
from musilingo_core import ChatEngine
from musilingo_core.data.facts import Teacher
from musilingo_core.errors import ManifestError
from tests.conftest import make_clip


def test_alike_clips_are_one_track() -> None:
    rows = [{"voice": "male", "singers": ["rms"]}, {"voice": "choir", "singers": ["rms", "slt"]}]
    sounds = Sounds(cast(Teacher, None), sung=tuple((row, make_clip()) for row in rows))
    cases = dict(sounds.cases("whole"))["certain, sung"]
    assert [(case.track, case.facts.voice) for case in cases] == [("rms", "male"), ("rms", "choir")]
    row = {"path": "a.flac", "score": "bwv1.6", "work": "bwv1", "family": "piano", "tempo": "slow"}
    assert scored(row, make_clip()).track == "bwv1"
    del row["work"]
    assert scored(row, make_clip()).track == "bwv1.6"


def test_nobody_says_whether_a_synthetic_choir_sings() -> None:
    row = {"score": "bwv1.6", "family": "choir", "tempo": "slow"}
    facts = scored(row, make_clip()).facts
    assert (facts.instruments, facts.voice) == (("choir",), "")
    assert scored(row | {"family": "organ"}, make_clip()).facts.voice == "none"


def test_a_list_of_songs_must_say_who_sings(
    tmp_path: Path, engine: ChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.truths.Teacher", lambda encoder: None)
    sung = tmp_path / "manifest.jsonl"
    sung.write_text(json.dumps({"path": "a.flac", "voice": "male"}) + "\n")
    with pytest.raises(ManifestError, match="singers"):
        hear_all(engine, 3, [], sung=[sung])
