import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from musilingo_core.data.facts import HEADS, Teacher
from musilingo_core.data.manifest import Example
from musilingo_core.errors import ConfigError
from musilingo_core.features import Clip
from musilingo_core.likelihood import opening_of
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor, collate
from musilingo_core.schedule import TrainingConfig, learning_rate
from musilingo_core.training import (
    initialise,
    loss_of,
    save_projection,
    train,
    validate,
)
from tests.conftest import make_clip

Model = MusiLingoForConditionalGeneration
CONFIG = TrainingConfig(steps=6, batch_size=2, validate_every=3, warmup_steps=2, learning_rate=1e-2)


def find(place: str) -> Clip:
    return make_clip(rows=int(place))


EXAMPLES = [
    Example(str(rows), (("What is it?", f"A song of {rows}."), ("Why?", "I count.")))
    for rows in range(1, 9)
] + [Example("9", (("What is it?", "A song of 9."),), "validation")]


def run(model: Model, processor: MusiLingoProcessor, folder: Path, config: TrainingConfig) -> Any:
    rows: list[dict[str, Any]] = []
    train(model, processor, EXAMPLES, folder, config, find, rows.append)
    return rows


def test_the_loss_is_transformers_own(tiny_model: Model, processor: MusiLingoProcessor) -> None:
    prompts = [processor.render(example.messages(), find) for example in EXAMPLES[:3]]
    with torch.no_grad():
        theirs = tiny_model(**collate(prompts)).loss
    opening = opening_of(tiny_model, prompts)
    assert opening is not None
    for given in (None, opening, opening):  # using it leaves it as it was
        total, tokens = loss_of(tiny_model, [[prompt] for prompt in prompts], given)
        assert float(total.detach()) / tokens == pytest.approx(float(theirs), rel=1e-4)


def test_training_lowers_the_loss_and_moves_only_the_projection(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    frozen = {
        name: value.clone()
        for name, value in tiny_model.state_dict().items()
        if "projector" not in name
    }
    config = TrainingConfig(steps=40, batch_size=4, validate_every=20, learning_rate=2e-2)
    rows = run(tiny_model, processor, tmp_path, config)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.01
    assert rows[-1]["validation_loss"] is not None
    after = tiny_model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    saved = load_file(tmp_path / "projection.safetensors")
    weight = tiny_model.multi_modal_projector.weight.detach()
    torch.testing.assert_close(saved["weight"].float(), weight, atol=1e-2, rtol=1e-2)


def test_training_along_heads_leaves_what_they_do_not_read(
    tiny_model: Model,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(HEADS, "pair", ("m:slow", "s:rock"))
    network_heads = Teacher(tiny_model.audio_tower).heads()[[1, 2]]
    config = replace(CONFIG, along="pair", steps=60, learning_rate=0.2)
    (tmp_path / "start").mkdir()
    save_projection(tiny_model, tmp_path / "start" / "p.safetensors")
    start = tmp_path / "start" / "p.safetensors"
    before, bias = (load_file(start)[name].float() for name in ("weight", "bias"))
    rows: list[dict[str, Any]] = []
    train(tiny_model, processor, EXAMPLES, tmp_path, config, find, rows.append, start)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.01
    weight = tiny_model.multi_modal_projector.weight.detach()
    assert not hasattr(tiny_model.multi_modal_projector, "parametrizations")
    saved = load_file(tmp_path / "projection.safetensors")
    torch.testing.assert_close(saved["weight"].float(), weight, atol=1e-2, rtol=1e-2)
    assert torch.equal(tiny_model.multi_modal_projector.bias.detach(), bias)
    change = weight - before
    assert change.norm() > 0.01 * before.norm()
    _, _, unread = torch.linalg.svd(network_heads, full_matrices=True)
    torch.testing.assert_close(
        change @ unread[2:].T, torch.zeros(len(change), 398), atol=1e-4, rtol=0
    )


def test_heads_that_are_not_there_cannot_be_trained_along(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"Training along “drums” is not possible.*voices"):
        run(tiny_model, processor, tmp_path, replace(CONFIG, along="drums"))


def test_the_log_has_a_row_a_step(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    rows = run(tiny_model, processor, tmp_path, CONFIG)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "validation_loss" in row] == [3, 6]
    assert rows[-1]["left_s"] == 0


def test_a_resumed_run_has_the_losses_it_would_have_had(
    tiny_model: Model,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = run(tiny_model, processor, tmp_path / "whole", CONFIG)

    class Cut(Exception):
        pass

    def cut(row: dict[str, Any]) -> None:
        if row["step"] == 4:
            raise Cut

    with pytest.raises(Cut):
        train(tiny_model, processor, EXAMPLES, tmp_path / "cut", CONFIG, find, cut)
    rest = run(tiny_model, processor, tmp_path / "cut", CONFIG)
    assert [row["step"] for row in rest] == [4, 5, 6]
    logged = [json.loads(line) for line in (tmp_path / "cut/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rest] == [row["loss"] for row in whole[3:]]


def test_a_checkpoint_of_other_settings_is_refused(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    run(tiny_model, processor, tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="other settings"):
        run(tiny_model, processor, tmp_path, TrainingConfig(steps=7, batch_size=2))


def test_a_checkpoint_of_other_data_is_refused(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    run(tiny_model, processor, tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="other data"):
        train(tiny_model, processor, EXAMPLES[:-1], tmp_path, CONFIG, find)
    with pytest.raises(ConfigError, match="other data"):  # the same words, another clip
        train(tiny_model, processor, EXAMPLES, tmp_path, CONFIG, lambda place: make_clip(rows=9))


def test_same_seed_same_projection(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    run(tiny_model, processor, tmp_path / "a", CONFIG)
    first = tiny_model.multi_modal_projector.weight.detach().clone()
    run(tiny_model, processor, tmp_path / "b", CONFIG)
    assert torch.equal(tiny_model.multi_modal_projector.weight, first)


def test_a_new_projection_speaks_at_the_size_of_words(tiny_model: Model) -> None:
    initialise(tiny_model, 0)
    audio = tiny_model.get_audio_features(audio_features=torch.randn(50, 1, 400))
    words = tiny_model.get_input_embeddings().weight
    assert float(audio.detach().std()) == pytest.approx(float(words.detach().std()), rel=0.1)


def test_the_rate_rises_then_falls() -> None:
    config = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, abs=0.002)


def test_nothing_to_train_on_is_said(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no example"):
        train(tiny_model, processor, EXAMPLES[-1:], tmp_path, CONFIG, find)
    assert validate(tiny_model, [], 2) is None


@pytest.mark.parametrize("values", [{"steps": 0}, {"learning_rate": -1.0}, {"batch_size": 0}])
def test_senseless_settings_are_refused(values: dict[str, Any]) -> None:
    make: Callable[..., TrainingConfig] = TrainingConfig
    with pytest.raises(ConfigError):
        make(**values)
