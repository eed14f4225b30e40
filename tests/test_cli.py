import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from musilingo_core.cli import main
from musilingo_core.data.manifest import read_manifest, write_features
from musilingo_core.encoders import fingerprint
from musilingo_core.encoders.musicnn import MusicnnEncoder
from musilingo_core.engine import ChatEngine
from musilingo_core.errors import ConfigError
from musilingo_core.features import pool
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.schedule import TrainingConfig
from tests.conftest import make_clip, tone
from tests.encoders.test_mert import publish
from tests.test_weights import save_pair

Writer = Callable[..., Path]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(
    tiny_model: MusiLingoForConditionalGeneration,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A tiny model on disk, and a cache of its own."""
    monkeypatch.setenv("MUSILINGO_CACHE", str(tmp_path / "cache"))
    tiny_model.save_pretrained(tmp_path / "tiny")
    processor.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def ask(folder: str, song: Path, *arguments: str) -> list[str]:
    fixed = ["--model", folder, "--max-new-tokens", "6", "--device", "cpu"]
    return ["ask", str(song), *arguments, *fixed]


def test_json_has_one_object_a_turn(folder: str, wav: Writer, capsys: Output) -> None:
    song = wav(tone(7.5))
    assert main(ask(folder, song, "What?", "And then?", "--temperature", "0", "--json")) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert set(first) == {
        "question", "answer", "clip_id", "duration_s", "heard_s", "features_cached",
        "prompt_tokens", "reused_tokens", "new_tokens", "encode_s", "first_token_s", "total_s",
        "model", "seed",
    }  # fmt: skip
    assert first["question"] == "What?" and second["question"] == "And then?"
    assert first["duration_s"] == first["heard_s"] == 7.5
    assert (first["features_cached"], second["features_cached"]) == (False, True)
    assert second["prompt_tokens"] > first["prompt_tokens"]
    assert first["encode_s"] > 0 == second["encode_s"]
    assert first["total_s"] >= first["first_token_s"] > 0
    assert first["model"] == "tiny" and first["seed"] is None


def test_choosing_names_the_likeliest_answer(folder: str, wav: Writer, capsys: Output) -> None:
    song = str(wav(tone(7.5)))
    fixed = ["--options", "slow", "fast", "neither", "--model", folder, "--device", "cpu"]
    assert main(["choose", song, "How fast?", *fixed, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["options"] == ["slow", "fast", "neither"] and row["raw"] is False
    assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
    best = max(row["probabilities"])
    assert row["answer"] == row["options"][row["probabilities"].index(best)]
    assert main(["choose", song, "How fast?", *fixed, "--json", "--raw"]) == 0
    assert json.loads(capsys.readouterr().out)["probabilities"] != row["probabilities"]
    assert main(["choose", song, "How fast?", *fixed]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].endswith(f"%  {row['answer']}")


def test_of_equally_likely_answers_the_first_given_is_chosen(
    folder: str, wav: Writer, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatEngine, "choose", lambda *_: [0.4, 0.4, 0.2])
    command = ["choose", str(wav()), "How?", "--model", folder, "--device", "cpu", "--options"]
    for options in (["slow", "fast", "odd"], ["fast", "slow", "odd"]):
        assert main([*command, *options]) == 0
        words = capsys.readouterr().out.split()
        assert words[1::2] == options


def test_the_next_run_finds_the_features(folder: str, wav: Writer, capsys: Output) -> None:
    song = wav()
    for expected in (False, True):
        assert main(ask(folder, song, "What?", "--json")) == 0
        assert json.loads(capsys.readouterr().out)["features_cached"] is expected


def test_same_seed_same_answer(folder: str, wav: Writer, capsys: Output) -> None:
    answers = []
    for seed in ("1", "1", "2"):
        main(ask(folder, wav(), "What?", "--seed", seed, "--temperature", "2"))
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"words " * 20_000, "cannot be read"), (None, "no such file")],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(
    folder: str, tmp_path: Path, capfd: Output, content: bytes | None, said: str
) -> None:
    song = tmp_path / "bad.mp3"
    if content is not None:
        song.write_bytes(content)
    assert main(ask(folder, song, "What?", "--json")) == 2
    out, err = capfd.readouterr()  # decoders write past Python
    assert out == "" and said in err
    assert err.startswith("musilingo: ") and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "extra",
    [
        ["--model", "nowhere"],
        ["--preset", "stater"],
        ["--device", "tpu9"],
        ["--dtype", "int3"],
        ["--weights", "light"],
        ["--temperature", "-1"],
    ],
)
def test_bad_options_are_told_apart(wav: Writer, capsys: Output, extra: list[str]) -> None:
    assert main(["ask", str(wav()), "What?", *extra]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("musilingo: ") and len(err.splitlines()) == 1


def test_a_moment_after_the_end_is_said_in_one_line(
    folder: str, wav: Writer, capsys: Output
) -> None:
    for questions in (["What at 1:10?"], ["What?", "And at 1:10?"]):
        assert main(ask(folder, wav(tone(3)), *questions, "--json")) == 2
        out, err = capsys.readouterr()
        assert out == "" and "nothing at 1:10" in err and len(err.splitlines()) == 1


def test_a_question_that_is_too_long_is_refused_before_any_answer(
    folder: str, wav: Writer, capsys: Output
) -> None:
    assert main(ask(folder, wav(tone(3)), "What?", "long " * 120)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "shorter" in err and len(err.splitlines()) == 1


def test_a_song_longer_than_max_minutes_is_refused(
    folder: str, wav: Writer, tmp_path: Path, capsys: Output, tiny_encoder: MusicnnEncoder
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "enc")
    song, target = wav(tone(4)), tmp_path / "f.safetensors"
    encode = ["encode", str(song), "--encoder", str(tmp_path / "enc"), "--output", str(target)]
    for command in (ask(folder, song, "What?"), encode):
        for minutes, said in (("0.05", "limit is 0.05 minutes"), ("0", "above 0")):
            assert main([*command, "--max-minutes", minutes]) == 2
            out, err = capsys.readouterr()
            assert out == "" and said in err and len(err.splitlines()) == 1
        assert main([*command, "--max-minutes", "0.1"]) == 0
        capsys.readouterr()


def test_a_place_that_cannot_be_written_is_said_in_one_line(
    wav: Writer, tmp_path: Path, capsys: Output, tiny_encoder: MusicnnEncoder
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "enc")
    command = ["encode", str(wav(tone(3))), "--encoder", str(tmp_path / "enc")]
    assert main([*command, "--output", str(tmp_path)]) == 2  # a folder
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("musilingo: ") and len(err.splitlines()) == 1


def test_a_model_without_its_processor_is_said_in_one_line(
    folder: str, wav: Writer, capsys: Output
) -> None:
    (Path(folder) / "tokenizer_config.json").unlink()
    (Path(folder) / "tokenizer.json").unlink()
    assert main(ask(folder, wav(tone(3)), "What?")) == 2
    err = capsys.readouterr().err
    assert "processor cannot be read" in err and len(err.splitlines()) == 1


def test_encode_writes_features_of_a_published_mert(
    wav: Writer, tmp_path: Path, capsys: Output
) -> None:
    published = tmp_path / "mert"
    published.mkdir()
    publish(published, stable=True)
    target = tmp_path / "out" / "features.safetensors"
    song = wav(tone(10, 44_100), 44_100)
    command = ["encode", str(song), "--output", str(target), "--encoder", str(published)]
    assert main([*command, "--device", "cpu"]) == 0
    features = load_file(target)["features"]
    assert features.shape == (3, 32) and features.dtype == torch.float32
    with safe_open(target, "pt") as file:
        metadata = file.metadata()
    assert float(metadata["duration_s"]) == pytest.approx(10, abs=1e-3)
    assert len(metadata["fingerprint"]) == 16
    assert "3 rows of 32 values" in capsys.readouterr().out


def test_encode_takes_a_saved_encoder_of_our_own(
    wav: Writer, tmp_path: Path, tiny_encoder: MusicnnEncoder
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "enc")
    target = tmp_path / "f.safetensors"
    command = ["encode", str(wav(tone(7))), "--output", str(target)]
    assert main([*command, "--encoder", str(tmp_path / "enc")]) == 0
    assert load_file(target)["features"].shape == (3, 400)


def test_train_learns_from_a_manifest_of_sound_and_features(
    folder: str, wav: Writer, tmp_path: Path, capsys: Output, tiny_encoder: MusicnnEncoder
) -> None:
    wav(tone(4), name="a.wav")
    clip = replace(make_clip(3, key="aaa"), fingerprint=fingerprint(tiny_encoder))
    write_features([clip], tmp_path / "many.safetensors")
    rows = [
        {"clip": "a.wav", "instruction": "What?", "response": "A tone."},
        {"clip": "many.safetensors#aaa", "instruction": "What?", "response": "Noise."},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["train", str(manifest), "--output", str(tmp_path / "run"), "--model", folder]
    assert main([*command, "--steps", "2", "--batch-size", "2", "--learning-rate", "0.01"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert set(load_file(tmp_path / "run" / "projection.safetensors")) == {"weight", "bias"}


def test_a_mert_and_any_llama_go_the_same_road(
    tiny_model: MusiLingoForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    wav: Writer,
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Composed, taught captions, then questions, each sound heard once, and asked."""
    monkeypatch.setenv("MUSILINGO_CACHE", str(tmp_path / "cache"))
    folder = save_pair(tiny_model, tokenizer, tmp_path)
    for seconds in (4, 6):
        wav(tone(seconds, 24_000), 24_000, name=f"{seconds}.wav")
    for stage, question in (("one", ""), ("two", "How long is it?")):
        rows = [
            {"clip": f"{n}.wav", "instruction": question, "response": f"{n} seconds."}
            for n in (4, 6)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{stage}.jsonl").write_text(lines)
    fixed = ["--model", str(folder), "--device", "cpu", "--features", str(tmp_path / "heard")]
    fixed += ["--steps", "15", "--learning-rate", "0.02", "--batch-size", "2"]
    begun = ["--start", str(tmp_path / "run-one")]
    for stage, start in (("one", []), ("two", begun)):
        manifest, run = tmp_path / f"{stage}.jsonl", tmp_path / f"run-{stage}"
        assert main(["train", str(manifest), "--output", str(run), *fixed, *start]) == 0
        losses = [json.loads(line)["loss"] for line in capsys.readouterr().out.splitlines()]
        assert losses[-1] < losses[0]
    assert len(list((tmp_path / "heard").iterdir())) == 2
    song, trained = tmp_path / "4.wav", str(tmp_path / "run-two")
    assert main([*ask(str(folder), song, "How long is it?"), "--projection", trained]) == 0
    assert load_file(tmp_path / "run-two" / "projection.safetensors")["weight"].shape == (32, 32)


def test_a_placeholder_that_the_tokenizer_lacks_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ConfigError, match="no token “<music>”"):
        MusiLingoProcessor(tokenizer, "<music>").form  # noqa: B018 – looking at it is what fails


CAPTIONS = str(Path(__file__).parent / "data" / "musiccaps-50.csv")


def test_published_data_becomes_a_manifest_with_a_report(tmp_path: Path, capsys: Output) -> None:
    command = ["build-data", "musiccaps", CAPTIONS, "--output", str(tmp_path)]
    assert main([*command, "--no-sounds", "--validation", "0.2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["examples"]["test"] == 28 and sum(report["examples"].values()) == 50
    assert len(read_manifest(tmp_path / "manifest.jsonl", "test")) == 28
    assert main([*command, "--sounds", str(tmp_path)]) == 0
    assert "no sound file 50" in capsys.readouterr().out


def test_music_instruct_is_made_again_and_read_as_published(tmp_path: Path, capsys: Output) -> None:
    assert main(["build-data", "music-instruct", CAPTIONS, "--output", str(tmp_path / "qa")]) == 0
    assert "50" in capsys.readouterr().out
    files = [str(path) for path in sorted((tmp_path / "qa").glob("*.json"))]
    command = ["build-data", "music-instruct-published", *files, "--no-sounds"]
    assert main([*command, "--output", str(tmp_path / "made")]) == 0
    example = read_manifest(tmp_path / "made" / "manifest.jsonl")[0]
    assert example.turns[0][0].endswith("?") and example.source.startswith("MusicInstruct")


def test_options_of_an_endpoint_are_refused_without_its_model(
    tmp_path: Path, capsys: Output
) -> None:
    command = ["build-data", "music-instruct", CAPTIONS, "--output", str(tmp_path / "qa")]
    assert main([*command, "--max-rows", "5", "--base-url", "http://localhost:1/v1"]) == 2
    assert "--base-url needs --model" in capsys.readouterr().err
    assert main([*command, "--max-rows", "5", "--kinds", "short", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == 5 and "long pairs" not in report


def test_rendered_scores_become_exact_questions(
    wav: Writer, tmp_path: Path, capsys: Output
) -> None:
    wav(tone(4), name="a.wav")
    row = {"path": "a.wav", "score": "bach/x", "split": "train", "duration_s": 4.0}
    row |= {"family": "piano", "tempo": "slow", "bpm": 60, "dynamics": "soft", "drums": False}
    (tmp_path / "list.jsonl").write_text(json.dumps(row) + "\n")
    command = ["build-data", "scores", "--rendered", str(tmp_path / "list.jsonl")]
    assert main([*command, "--output", str(tmp_path / "qa"), "--heard", "lead", "--json"]) == 0
    assert sum(json.loads(capsys.readouterr().out)["examples"].values()) > 0
    answers = [e.turns[0][1] for e in read_manifest(tmp_path / "qa" / "manifest.jsonl")]
    assert answers and not any("slow" in answer for answer in answers)
    assert main([*command, "--output", str(tmp_path / "no"), "--heard", "colour"]) == 2
    with pytest.raises(SystemExit):  # what may be named must be said
        main([*command, "--output", str(tmp_path / "no")])


def test_leaks_between_sets_are_refused(tmp_path: Path, capsys: Output) -> None:
    made = ["build-data", "musiccaps", CAPTIONS, "--no-sounds", "--output"]
    assert main([*made, str(tmp_path / "a"), "--validation", "0"]) == 0
    beside = ["--beside", str(tmp_path / "a" / "manifest.jsonl")]
    assert main([*made, str(tmp_path / "b"), "--validation", "0.5", *beside]) == 2
    assert "more than one split" in capsys.readouterr().err


def manifest_of(folder: Path, encoder: MusicnnEncoder, clips: int) -> Path:
    """A manifest of made-up features, and those."""
    rows = range(1, clips + 1)
    made = [replace(make_clip(n, key=f"{n:016x}"), fingerprint=fingerprint(encoder)) for n in rows]
    write_features(made, folder / "many.safetensors")
    lines = [
        {"clip": f"many.safetensors#{n:016x}", "instruction": "How long?", "response": f"{n} rows."}
        for n in rows
    ]
    manifest = folder / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


def test_a_stage_is_a_file_and_options_come_before_it(
    folder: str, tmp_path: Path, capsys: Output, tiny_encoder: MusicnnEncoder
) -> None:
    manifest = manifest_of(tmp_path, tiny_encoder, 2)
    (tmp_path / "stage.toml").write_text("steps = 3\nlearning_rate = 0.5\nwarmup_steps = 0\n")
    command = ["train", str(manifest), "--output", str(tmp_path / "run"), "--model", folder]
    command += ["--device", "cpu", "--config", str(tmp_path / "stage.toml"), "--steps", "2"]
    assert main(command) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 and rows[0]["learning_rate"] == 0.5
    assert "- `steps = 2`" in (tmp_path / "run" / "README.md").read_text()


def test_an_evaluation_is_printed_and_goes_into_one_table_with_others(
    folder: str, tmp_path: Path, capsys: Output, tiny_encoder: MusicnnEncoder
) -> None:
    manifest_of(tmp_path, tiny_encoder, 3)
    rows = [
        {"clip": f"many.safetensors#{n:016x}", "question": "How?", "options": ["slow", "fast"]}
        | {"answer": answer}
        for n, answer in enumerate(("slow", "fast", "slow"), start=1)
    ]
    data = tmp_path / "choices.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fixed = ["evaluate", str(data), "--model", folder, "--device", "cpu", "--output"]
    assert main([*fixed, str(tmp_path / "all"), "--seed", "2"]) == 0
    first = capsys.readouterr().out
    assert "| accuracy |" in first and "| 50 | 3 (3) | 2 |" in first
    assert f"1. `musilingo evaluate {data} --model" in first
    assert main([*fixed, str(tmp_path / "few"), "--controls", "no music", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert [(f["metric"], f["control"]) for f in figures] == [
        ("accuracy", "right song"), ("accuracy", "no music")
    ]  # fmt: skip
    assert main(["table", str(tmp_path / "all"), str(tmp_path / "few")]) == 0
    both = capsys.readouterr().out
    assert both.startswith(first[: first.index("\n\n")]) and "\n2. `musilingo" in both
    assert main(["table", str(tmp_path / "few"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["figures"] == figures
    (tmp_path / "few" / "scores.json").write_text('{"figures": [{}]}')
    assert main(["table", str(tmp_path / "few")]) == 2
    assert "please evaluate again" in capsys.readouterr().err


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_loaded(
    tmp_path: Path, capsys: Output, tiny_encoder: MusicnnEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    manifest = manifest_of(tmp_path, tiny_encoder, 1)
    command = ["train", str(manifest), "--output", str(tmp_path / "run"), "--model", "nowhere"]
    assert main([*command, "--tracker", "mine"]) == 2
    assert "pip install trackio" in capsys.readouterr().err


def test_a_tracker_gets_all_settings_and_every_row(
    folder: str, tmp_path: Path, tiny_encoder: MusicnnEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    tracker = SimpleNamespace(
        init=lambda **given: calls.append(given),
        log=lambda row, step: calls.append((step, row["loss"] > 0)),
        finish=lambda: calls.append("finish"),
    )
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    manifest = manifest_of(tmp_path, tiny_encoder, 1)
    command = ["train", str(manifest), "--output", str(tmp_path / "run"), "--model", folder]
    assert main([*command, "--steps", "2", "--tracker", "mine"]) == 0
    settings = {"project": "mine", "config": asdict(TrainingConfig(steps=2))}
    assert calls == [settings, (1, True), (2, True), "finish"]


def test_what_cannot_be_heard_or_asked_is_left_out_and_listed(
    folder: str, wav: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wav(tone(4), name="a.wav")
    (tmp_path / "b.wav").write_bytes(b"words")
    rows = [
        {"clip": clip, "instruction": question, "response": "A tone."}
        for clip in ("a.wav", "b.wav")
        for question in ("What?", "What happens at 0:15?")
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, features = tmp_path / "run", tmp_path / "features"
    command = ["train", str(manifest), "--output", str(run), "--model", folder, "--steps", "2"]
    assert main([*command, "--features", str(features)]) == 0
    assert len(list(features.glob("*.safetensors"))) == 1
    skipped = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert [row["error"] for row in skipped] == [
        "PromptError",
        "UnreadableAudio",
        "UnreadableAudio",
    ]
    assert "3 of 4 examples left out (UnreadableAudio 2, PromptError 1)" in caplog.text


def test_two_processes_learn_what_one_would_with_twice_the_batches(
    folder: str,
    wav: Writer,
    tmp_path: Path,
    tiny_encoder: MusicnnEncoder,
    tiny_model: MusiLingoForConditionalGeneration,
) -> None:
    manifest = manifest_of(tmp_path, tiny_encoder, 7)
    wav(tone(4), name="b.wav")
    (tmp_path / "a.wav").write_bytes(b"words")
    with manifest.open("a") as file:
        for name in "ab":
            row = {"clip": f"{name}.wav", "instruction": "What?", "response": "A tone."}
            file.write(json.dumps(row) + "\n")
    # What `accelerate launch` starts on GPUs; by itself it starts CPU processes through MPI only.
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    fixed = ["train", str(manifest), "--model", folder, "--device", "cpu", "--batch-size", "2"]
    fixed += ["--steps", "4", "--learning-rate", "0.01", "--whiten", "0.1", "--output"]
    done = subprocess.run(
        [*launch, "-m", "musilingo_core", *fixed, str(tmp_path / "two")],
        capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert main([*fixed, str(tmp_path / "one"), "--accumulation", "2"]) == 0
    two, one = (
        [json.loads(line) for line in (tmp_path / n / "log.jsonl").read_text().splitlines()]
        for n in ("two", "one")
    )
    assert len(done.stdout.splitlines()) == 4  # one of them speaks
    assert len((tmp_path / "two" / "skipped.jsonl").read_text().splitlines()) == 1
    assert [row["epoch"] for row in two] == [row["epoch"] for row in one] == [0.5, 1, 1.5, 2]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-4)
    # What is said of these rows: along what no row varies in, AdamW makes whole steps of rounding.
    learnt = [load_file(tmp_path / name / "projection.safetensors") for name in ("two", "one")]
    rows = torch.cat([pool(make_clip(n).features, tiny_model.config.segments) for n in range(1, 8)])
    said = [rows @ state["weight"].T.float() + state["bias"].float() for state in learnt]
    assert torch.nn.functional.cosine_similarity(*(s - s.mean() for s in said)).min() > 0.99


def test_another_projection_is_spoken_with(
    folder: str,
    wav: Writer,
    tmp_path: Path,
    capsys: Output,
    tiny_model: MusiLingoForConditionalGeneration,
) -> None:
    state = tiny_model.multi_modal_projector.state_dict()
    save_file({name: value.flip(0) * 50 for name, value in state.items()}, tmp_path / "p.st")
    said = []
    for options in ([], ["--projection", str(tmp_path / "p.st")]):
        main(ask(folder, wav(), "What?", "--temperature", "0", *options))
        said.append(capsys.readouterr().out)
    assert said[0] != said[1]
    assert main(ask(folder, wav(), "What?", "--projection", str(wav()))) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "musilingo_core", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for word in ("ask", "encode", "train", "build-data"):
        assert word in done.stdout
