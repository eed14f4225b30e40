import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from musilingo_core.data.choices import Choice, write_choices
from musilingo_core.data.manifest import Example, write_features, write_manifest
from musilingo_core.engine import ChatEngine, Said
from musilingo_core.errors import ConfigError, ManifestError
from musilingo_core.evaluation import (
    CONTROLS,
    NONE,
    RIGHT,
    WRONG,
    Clips,
    Question,
    evaluate,
    partners,
    read_option,
    table,
)
from musilingo_core.features import Clip
from musilingo_core.prompt import user
from musilingo_core.sampling import Sampling
from tests.conftest import make_clip, tone

SHORT = Sampling(temperature=0.0, max_new_tokens=4)
OPTIONS = ("slow", "fast", "neither")


@pytest.fixture
def places(engine: ChatEngine, tmp_path: Path) -> list[str]:
    """Four clips in a file, all of other music."""
    made: list[Clip] = []
    for n in range(1, 5):
        clip = make_clip(rows=n, key=f"clip-{n}")
        made.append(replace(clip, fingerprint=engine.fingerprint))
    write_features(made, tmp_path / "f.safetensors")
    return [f"{tmp_path}/f.safetensors#clip-{n}" for n in range(1, 5)]


@pytest.fixture
def choices(places: list[str], tmp_path: Path) -> Path:
    """Four questions about them, with options."""
    path = tmp_path / "choices.jsonl"
    write_choices(
        [
            Choice(place, "How fast?", OPTIONS, n % 3, ("tempo", "odd" if n % 2 else "even"))
            for n, place in enumerate(places)
        ],
        path,
    )
    return path


@pytest.fixture
def manifest(places: list[str], tmp_path: Path) -> Path:
    """Open questions, two turns each, the first two clips of one track; and a caption."""
    path = tmp_path / "open.jsonl"
    turns = (("What is it?", "A song of {}."), ("Why?", "I count {}."))
    examples = [
        Example(
            place,
            tuple((q, a.format(n)) for q, a in turns),
            "test",
            track="one" if n < 2 else str(n),
        )
        for n, place in enumerate(places[:3])
    ]
    write_manifest([*examples, Example(places[3], (("", "A caption."),), "test")], path)
    return path


def figure(figures: list[Any], metric: str, control: str = RIGHT) -> Any:
    return next(f for f in figures if f.metric == metric and f.control == control)


class Knowing:
    """Makes an engine choose by a rule instead of its weights."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows_to_answer: dict[int, int]) -> None:
        def choose(self: ChatEngine, messages: Any, options: Any, **_: Any) -> list[float]:
            clip = next((p for p in messages[0]["content"] if p["type"] == "clip"), None)
            best = 2
            if clip is not None:
                best = rows_to_answer.get(len(self.clip(clip["clip_id"]).features), 2)
            return [float(number == best) for number in range(len(options))]

        monkeypatch.setattr(ChatEngine, "choose", choose)


def test_one_who_hears_is_right_with_the_right_song_only(
    engine: ChatEngine, choices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right answers are 0, 1, 2, 0; without music, or with noise, the engine says 2."""
    Knowing(monkeypatch, {1: 0, 2: 1, 3: 2, 4: 0})
    figures = evaluate(engine, choices, tmp_path / "run")
    by_control = {c: figure(figures, "accuracy", c).value for c in CONTROLS}
    assert by_control == {RIGHT: 1.0, WRONG: 0.0, "noise": 0.25, NONE: 0.25}
    odd = figure(figures, "accuracy, odd", NONE)
    assert (odd.value, odd.examples) == (0.0, 2) and figure(
        figures, "accuracy, even", NONE
    ).value == 0.5
    assert figure(figures, "accuracy").tracks == 4
    assert odd.chance == pytest.approx(1 / 3)  # three options


def test_predictions_stay_beside_their_scores(
    engine: ChatEngine, choices: Path, tmp_path: Path
) -> None:
    evaluate(engine, choices, tmp_path / "run", controls=[NONE], command="musilingo evaluate x")
    rows = [
        json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()
    ]
    assert [(row["number"], row["control"]) for row in rows] == [
        (n, control) for control in (RIGHT, NONE) for n in range(4)
    ]
    assert rows[0]["reference"] == "slow" and rows[4]["heard"] is None
    assert all(sum(row["probabilities"]) == pytest.approx(1, abs=1e-4) for row in rows)
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["command"] == "musilingo evaluate x" and scores["seed"] == 0 and scores["commit"]
    value = next(f["value"] for f in scores["figures"] if f["metric"] == "accuracy")
    assert value == sum(r["prediction"] == r["reference"] for r in rows[:4]) / 4
    text = (tmp_path / "run/scores.md").read_text()
    assert f"| tiny | choices | accuracy | {100 * value:.1f} (" in text


def test_what_is_likely_without_music_is_found_once_for_all_controls(
    engine: ChatEngine, choices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[Any] = []
    original = ChatEngine.log_likelihoods

    def counted(self: ChatEngine, messages: Any, replies: Any) -> torch.Tensor:
        scored.append(messages)
        return original(self, messages, replies)

    monkeypatch.setattr(ChatEngine, "log_likelihoods", counted)
    evaluate(engine, choices, tmp_path / "run", controls=["noise"])
    assert len(scored) == 4 + 4 + 1  # the four clips share question and options
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").open()]
    noise = [user("How fast?", Clips(engine).noise())]
    engine.cache.put(Clips(engine)._noise)
    assert rows[4]["probabilities"] == pytest.approx(engine.choose(noise, OPTIONS), abs=1e-4)


def test_a_run_that_was_cut_off_asks_only_what_is_left(
    engine: ChatEngine, choices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(engine, choices, tmp_path / "run")
    path = tmp_path / "run" / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + lines[5][:20])
    asked: list[Any] = []
    original = ChatEngine.choose

    def counted(self: ChatEngine, messages: Any, *more: Any, **given: Any) -> list[float]:
        asked.append(messages)
        return original(self, messages, *more, **given)

    monkeypatch.setattr(ChatEngine, "choose", counted)
    before = json.loads((tmp_path / "run/scores.json").read_text())["commit"]
    monkeypatch.setattr("musilingo_core.evaluation.commit", lambda: "later")
    assert evaluate(engine, choices, tmp_path / "run") == whole
    assert len(asked) == 16 - 5
    record = json.loads((tmp_path / "run/scores.json").read_text())
    assert record["commit"] == f"{before}, later"  # both had a part in it
    assert [json.loads(line)["commit"] for line in path.open()][3:7] == [before] * 2 + ["later"] * 2


def test_a_folder_is_of_one_model_one_seed_and_the_same_music(
    engine: ChatEngine, choices: Path, tmp_path: Path
) -> None:
    evaluate(engine, choices, tmp_path / "run", controls=[])
    with pytest.raises(ConfigError, match="another run"):
        evaluate(engine, choices, tmp_path / "run", controls=[], seed=1)
    engine.model.multi_modal_projector.weight.data += 1
    with pytest.raises(ConfigError, match="another run"):
        evaluate(engine, choices, tmp_path / "run", controls=[])
    engine.model.multi_modal_projector.weight.data -= 1
    names = [f"clip-{n}" for n in range(1, 5)]
    made = [replace(make_clip(5, key=name), fingerprint=engine.fingerprint) for name in names]
    write_features(made, tmp_path / "f.safetensors")
    with pytest.raises(ConfigError, match="another run"):
        evaluate(engine, choices, tmp_path / "run", controls=[])


def test_open_answers_are_scored_turn_by_turn(
    engine: ChatEngine, manifest: Path, tmp_path: Path
) -> None:
    figures = evaluate(engine, manifest, tmp_path / "run", sampling=SHORT)
    rouge = figure(figures, "proper ROUGE-L F1")
    assert (rouge.examples, rouge.tracks, rouge.data) == (7, 3, "open")
    rows = [
        json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()
    ]
    first = next(row for row in rows if row["kind"] == "answer")
    assert first["questions"] == ["What is it?", "Why?"] and len(first["predictions"]) == 2
    assert first["finished"] == [False, False]  # cut at four tokens
    assert figure(figures, "answers that end by themselves").value == 0
    assert {f.control for f in figures if f.metric == "legacy BLEU"} == set(CONTROLS)
    bert = figure(figures, "proper BERTScore F1")
    assert bert.value is None and bert.missing
    assert bert.missing in (tmp_path / "run/scores.md").read_text()


def test_matched_compares_a_reference_under_two_songs(
    engine: ChatEngine, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def likelihoods(self: ChatEngine, messages: Any, replies: Any) -> torch.Tensor:
        rows = len(self.clip(messages[0]["content"][0]["clip_id"]).features)
        return torch.tensor([float(replies[0] == f"A song of {rows - 1}.")])

    monkeypatch.setattr(ChatEngine, "log_likelihoods", likelihoods)
    figures = evaluate(engine, manifest, tmp_path / "run", sampling=SHORT)
    found = figure(figures, "matched", "")
    assert (found.value, found.examples, found.chance) == (1, 3, 0.5)
    alike = figure(figures, "another song is asked the same", "")
    assert (alike.value, alike.examples) == (0.75, 4)  # there is no other caption
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").open()]
    heard = [row["heard"] for row in rows if row["kind"] == "matched"]
    assert [(own[-6:], wrong[-6:]) for own, wrong in heard[:2]] == [
        ("clip-1", "clip-3"), ("clip-2", "clip-3")
    ]  # fmt: skip


def test_matched_lists_the_options_as_choosing_does(
    engine: ChatEngine, choices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Knowing(monkeypatch, {})
    listed: list[Any] = []

    def likelihoods(self: ChatEngine, messages: Any, replies: Any) -> torch.Tensor:
        listed.append(messages[0]["content"][-1]["options"])
        return torch.zeros(len(replies))

    monkeypatch.setattr(ChatEngine, "log_likelihoods", likelihoods)
    figures = evaluate(engine, choices, tmp_path / "run")
    assert listed == [list(OPTIONS)] * (1 + 2 * 4)  # once without music, under two songs each
    assert figure(figures, "matched", "").value == 0


def test_wrong_songs_are_other_tracks_with_other_answers() -> None:
    questions = [
        Question("d", f"{n}", track, ("How fast?",), (answer,), topics=("tempo",))
        for n, (track, answer) in enumerate(
            [("a", "slow"), ("a", "fast"), ("b", "slow"), ("c", "fast"), ("c", "slow")]
        )
    ]
    questions.append(Question("d", "5", "e", ("Who?",), ("a man",), topics=("voice",)))
    for seed in range(5):
        found = partners(questions, seed)
        for question, (n, same) in zip(questions[:5], found, strict=False):
            other = questions[n]
            assert other.track != question.track and other.references != question.references
            assert other.turns == question.turns and same  # where one asks the same, it is taken
        assert not found[5][1]
    assert len({tuple(partners(questions, seed)) for seed in range(5)}) > 1
    with pytest.raises(ConfigError, match="another track"):
        partners(questions[:2])


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("(B)", "fast"), ("The correct answer is: A", "slow"), ("It is fast.", "fast"),
        ("A or B", ""), ("", ""), ("Neither of them", "neither"), ("D", ""),
    ],
)  # fmt: skip
def test_written_answers_are_read_by_the_published_rule(written: str, means: str) -> None:
    assert read_option(written, OPTIONS) == means


def test_options_in_the_prompt_are_asked_if_wanted(
    engine: ChatEngine, choices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right answers are slow, fast, neither, slow."""
    written = [Said(text, True) for text in ("A", "A or B", "(B)", "It is fast.")]
    monkeypatch.setattr(ChatEngine, "replies", lambda self, talks, sampling: written)
    figures = evaluate(engine, choices, tmp_path / "run", controls=[], generate=True)
    assert figure(figures, "an option was named, published prompt").value == 3 / 4
    right = figure(figures, "accuracy, published prompt")
    assert (right.value, right.chance) == (1 / 4, pytest.approx(1 / 3))
    rows = [
        json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()
    ]
    assert [row["kind"] for row in rows if row["number"] == 0] == ["choice", "letter"]


def test_only_so_many_are_asked(engine: ChatEngine, choices: Path, tmp_path: Path) -> None:
    figures = evaluate(engine, choices, tmp_path / "run", controls=[], limit=3)
    assert figure(figures, "accuracy").examples == 3


def test_what_cannot_be_asked_is_said(
    engine: ChatEngine, choices: Path, manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match="nothing to ask"):
        evaluate(engine, manifest, tmp_path / "run", split="validation")
    with pytest.raises(ConfigError, match="no control “silence”"):
        evaluate(engine, choices, tmp_path / "run", controls=["silence"])


def test_features_of_another_encoder_are_refused(engine: ChatEngine, tmp_path: Path) -> None:
    write_features([make_clip(2, key="x")], tmp_path / "o.safetensors")
    with pytest.raises(ManifestError, match="another encoder"):
        Clips(engine).get(f"{tmp_path}/o.safetensors#x")


def test_the_table_has_a_column_a_control_and_the_commands() -> None:
    cell = {"data": "d", "metric": "accuracy", "value": 0.5, "low": 0.25, "high": 0.75}
    cell |= {"examples": 8, "tracks": 4, "chance": 0.25, "missing": ""}
    empty = cell | {"metric": "proper METEOR", "value": None, "missing": "METEOR needs WordNet."}
    empty |= {"chance": None}
    run = {
        "model": "m", "seed": 3, "commit": "abc", "command": "musilingo evaluate d",
        "skipped": {"no sound file": 2},
        "figures": [
            cell | {"control": RIGHT}, cell | {"control": NONE, "value": 0.25},
            empty | {"control": RIGHT},
        ],
    }  # fmt: skip
    lines = table([run, run | {"command": "musilingo evaluate e", "seed": 4}]).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2] == (
        "| m | d | accuracy | 50.0 (25–75) |  |  | 25.0 (25–75) | 25 | 8 (4) | 3 | abc | 1 |"
    )
    assert lines[3] == "| m | d | proper METEOR |  |  |  |  |  | 8 (4) | 3 | abc | 1 |"
    assert lines[4].endswith("| 8 (4) | 4 | abc | 2 |")
    assert lines[6:] == [
        "", "1. `musilingo evaluate d`", "2. `musilingo evaluate e`", "",
        "- proper METEOR: METEOR needs WordNet.", "- m, d: 2 left out (no sound file).",
    ]  # fmt: skip


def test_what_cannot_be_heard_is_left_out_and_counted(
    engine: ChatEngine, wav: Callable[..., Path], tmp_path: Path
) -> None:
    heard = [wav(tone(seconds=4, hertz=hertz), name=f"{hertz}.wav") for hertz in (220, 330)]
    silent = wav(0 * tone(seconds=4), name="silent.wav")
    path = tmp_path / "choices.jsonl"
    asked = [(*heard, silent, tmp_path / "absent.wav")[n] for n in range(4)]
    write_choices(
        [Choice(str(clip), "How fast?", OPTIONS, n % 3) for n, clip in enumerate(asked)], path
    )
    figures = evaluate(engine, path, tmp_path / "run", controls=[])
    assert figure(figures, "accuracy").examples == 2
    left_out = [json.loads(row) for row in (tmp_path / "run/skipped.jsonl").open()]
    assert [(Path(row["id"]).name, row["error"]) for row in left_out] == [
        ("silent.wav", "SilentAudio"), ("absent.wav", "UnreadableAudio"),
    ]  # fmt: skip
    text = (tmp_path / "run/scores.md").read_text()
    assert "- tiny, choices: 1 left out (SilentAudio)." in text
    path.write_text(path.read_text().splitlines()[2] + "\n")
    with pytest.raises(ManifestError, match="nothing that can be heard"):
        evaluate(engine, path, tmp_path / "none")
