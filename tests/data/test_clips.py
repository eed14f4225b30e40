from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musilingo_core.audio import AudioLimits
from musilingo_core.data.clips import Clips, usable
from musilingo_core.data.manifest import Example, write_features
from musilingo_core.errors import ConfigError, ManifestError
from musilingo_core.features import load_clip
from tests.conftest import CountingEncoder, make_clip, tone

Writer = Callable[..., Path]


def about(place: Path | str, question: str = "What?", **more: str) -> Example:
    return Example(str(place), ((question, "That."),), **more)


def test_a_sound_is_heard_once_for_all_runs_that_share_a_folder(
    wav: Writer, tmp_path: Path, counting_encoder: CountingEncoder
) -> None:
    sound, folder = wav(tone(3)), tmp_path / "features"
    clips = Clips(counting_encoder, folder)
    first, runs = clips(str(sound)), counting_encoder.runs
    assert runs and first.duration_s == pytest.approx(3)
    sound_bytes = sound.read_bytes()
    sound.unlink()
    assert clips(str(sound)).clip_id == first.clip_id  # it is not looked at again
    wav(tone(3))
    assert sound.read_bytes() == sound_bytes
    assert Clips(counting_encoder, folder)(str(sound)).features.shape == first.features.shape
    assert len(list(folder.iterdir())) == 2  # written anew: heard anew
    runs = counting_encoder.runs
    Clips(counting_encoder, folder)(str(sound))
    assert counting_encoder.runs == runs


def test_every_sound_is_heard_before_the_first_step(
    wav: Writer, tmp_path: Path, counting_encoder: CountingEncoder
) -> None:
    sounds = [wav(tone(2), name=f"{n}.wav") for n in range(3)]
    examples = [about(s) for s in sounds] + [about(sounds[0], "Why?", split="validation")]
    told: list[float | None] = []
    clips = Clips(counting_encoder, tmp_path / "features")
    kept = usable(
        [*examples, about("gone.wav", split="test")], clips, tmp_path / "run",
        on_status=lambda text, fraction: told.append(fraction),
    )  # fmt: skip
    assert kept == examples
    assert told == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0, None]
    runs = counting_encoder.runs
    assert {clips(e.clip).duration_s for e in kept} == {2.0} and counting_encoder.runs == runs
    assert not (tmp_path / "run" / "skipped.jsonl").exists()


def test_what_ends_no_run_is_left_out(
    wav: Writer, tmp_path: Path, counting_encoder: CountingEncoder
) -> None:
    good = wav(tone(12), name="good.wav")
    (tmp_path / "text.mp3").write_bytes(b"words " * 2000)
    bad = [
        about(tmp_path / "text.mp3"),
        about(tmp_path / "gone.wav"),
        about(wav(np.zeros(16_000, np.float32), name="silent.wav")),
        about(wav(tone(31), name="long.wav")),
        about(good, "What happens at 0:15?"),
        Example(str(good), (("What?", "That."), ("", "This."))),
    ]
    fine = [about(good), about(good, "What happens at 0:05?"), about(good, "")]
    unheard = Example("", (("Is it 1:00 long?", "Yes."),))
    clips = Clips(counting_encoder, tmp_path / "features", AudioLimits(max_duration_s=30))
    assert usable([*bad, *fine, unheard], clips, tmp_path) == [*fine, unheard]
    listed = (tmp_path / "skipped.jsonl").read_text().splitlines()
    errors = [line.split('"error": "')[1].split('"')[0] for line in listed]
    assert errors == [
        "UnreadableAudio", "UnreadableAudio", "SilentAudio", "AudioTooLong",
        "PromptError", "PromptError",
    ]  # fmt: skip
    assert usable(fine, clips, tmp_path, crop_s=4.0) == [fine[0], fine[2]]
    with pytest.raises(ConfigError, match="None of the examples"):
        usable(bad, clips, tmp_path)


def test_features_are_not_read_before_they_are_asked_about_a_moment(
    tmp_path: Path, counting_encoder: CountingEncoder
) -> None:
    clips, file = Clips(counting_encoder, tmp_path), tmp_path / "many.safetensors"
    ours = replace(make_clip(2, key="aaa"), fingerprint=clips.fingerprint)
    write_features([ours], file)
    good, late = about(f"{file}#aaa"), about(f"{file}#aaa", "What is at 1:00?")
    unread = about(tmp_path / "none.safetensors#aaa")
    assert usable([good, late, unread], clips, tmp_path / "run") == [good, unread]
    assert clips(good.clip).features.shape == ours.features.shape
    write_features([make_clip(2, key="aaa")], tmp_path / "theirs.safetensors")
    with pytest.raises(ManifestError, match="another encoder"):
        clips(f"{tmp_path}/theirs.safetensors#aaa")


def test_what_was_heard_is_a_file_of_features(
    wav: Writer, tmp_path: Path, counting_encoder: CountingEncoder
) -> None:
    clips = Clips(counting_encoder, tmp_path / "features")
    kept = load_clip(clips.heard(str(wav(tone(2)))))
    assert kept.fingerprint == clips.fingerprint and len(kept.features) == 2
