import copy
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from musilingo_core.data.loader import Loader
from musilingo_core.data.manifest import Example, write_features
from musilingo_core.errors import ConfigError
from musilingo_core.features import Clip
from musilingo_core.initialisation import embed_words
from musilingo_core.likelihood import opening_of
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor, collate
from musilingo_core.schedule import TrainingConfig
from musilingo_core.training import (
    begin_with_words,
    loss_of,
    train,
    train_step,
    validate,
)
from musilingo_core.weights import load_projection, save_projection
from tests.conftest import make_clip
from tests.test_adapter import merge

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


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_half_precision_learns_too(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path, precision: str
) -> None:
    config = TrainingConfig(
        steps=30, batch_size=8, learning_rate=2e-2, warmup_steps=2, precision=precision
    )
    rows = run(tiny_model, processor, tmp_path, config)
    assert tiny_model.language_model.dtype == getattr(torch, precision)
    assert tiny_model.multi_modal_projector.weight.dtype == torch.float32
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.01


def test_accumulated_batches_are_one_large_batch(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    """Eight clips at once or in fours: the epoch is one step either way."""
    whole = run(tiny_model, processor, tmp_path / "a", replace(CONFIG, batch_size=8))
    parts = run(
        tiny_model, processor, tmp_path / "b", replace(CONFIG, batch_size=2, accumulation=4)
    )
    assert [row["epoch"] for row in parts] == [row["epoch"] for row in whole] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(whole, parts, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_whitened_training_gives_a_plain_projection(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    config = replace(CONFIG, whiten=0.1, steps=40, batch_size=8, learning_rate=0.1)
    rows = run(tiny_model, processor, tmp_path, config)
    assert rows[-1]["validation_loss"] < rows[0]["loss"] - 0.01
    assert type(tiny_model.multi_modal_projector) is torch.nn.Linear
    saved = load_file(tmp_path / "projection.safetensors")
    assert set(saved) == {"weight", "bias"}
    tiny_model.multi_modal_projector.load_state_dict(saved)
    loader = Loader(processor, EXAMPLES[-1:], find, CONFIG)
    assert validate(tiny_model, loader) == pytest.approx(rows[-1]["validation_loss"], rel=1e-2)


def test_a_whitened_run_goes_on_where_it_began(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    save_projection(tiny_model, tmp_path / "start.safetensors")
    rates = replace(CONFIG, steps=1, learning_rate=1e-9, weight_decay=0.0)
    losses = []
    file, folder = tmp_path / "start.safetensors", tmp_path / "plain"  # of the run before
    for name, start, config in (
        ("plain", file, rates), ("white", folder, replace(rates, whiten=0.1)),
    ):  # fmt: skip
        rows: list[dict[str, Any]] = []
        train(tiny_model, processor, EXAMPLES, tmp_path / name, config, find, rows.append, start)
        losses.append(rows[0]["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_adapters_learn_beside_the_projection(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    before = {n: p.clone() for n, p in tiny_model.language_model.named_parameters()}
    rows = run(tiny_model, processor, tmp_path, replace(CONFIG, lora_rank=2, steps=20))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.01
    after = dict(tiny_model.language_model.named_parameters())
    changed = {name for name in after if "lora" in name}
    assert changed and all(float(after[n].detach().abs().sum()) > 0 for n in changed)
    for name, value in before.items():
        kept = after.get(name, after.get(name.replace(".weight", ".base_layer.weight")))
        assert kept is not None and torch.equal(kept, value)
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == len(changed)


def test_what_adapters_have_learnt_is_learnt_on_and_saved(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    one, two, plain = (copy.deepcopy(tiny_model) for _ in range(3))
    config = replace(CONFIG, lora_rank=2, steps=20, learning_rate=5e-2)
    learnt = run(one, processor, tmp_path / "one", config)[-1]["validation_loss"]
    with pytest.raises(ConfigError, match="lora_rank = 2"):
        train(
            tiny_model, processor, EXAMPLES, tmp_path / "none", CONFIG, find,
            start=tmp_path / "one",
        )  # fmt: skip
    still, rows = replace(config, steps=1, learning_rate=1e-9), list[dict[str, Any]]()
    folder = tmp_path / "two"
    train(two, processor, EXAMPLES, folder, still, find, rows.append, tmp_path / "one")
    assert rows[0]["validation_loss"] == pytest.approx(learnt, abs=0.01)
    load_projection(plain, processor, folder)
    merge(plain, folder / "adapter")
    spoken = validate(plain, Loader(processor, EXAMPLES[-1:], find, CONFIG))
    assert spoken == pytest.approx(rows[0]["validation_loss"], abs=0.01)


def test_another_adapter_is_another_beginning(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    config, again = replace(CONFIG, lora_rank=2, steps=1), copy.deepcopy(tiny_model)
    start = tmp_path / "one"
    run(copy.deepcopy(tiny_model), processor, start, config)
    train(tiny_model, processor, EXAMPLES, tmp_path / "two", config, find, start=start)
    file = start / "adapter" / "adapter_model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ConfigError, match="other data"):
        train(again, processor, EXAMPLES, tmp_path / "two", config, find, start=start)


def test_long_responses_are_learnt_up_to_a_limit(
    tiny_model: Model, processor: MusiLingoProcessor
) -> None:
    whole = processor.render(EXAMPLES[0].messages(), find)
    cut = whole.shortened(3)
    learnt = [label for label in cut.labels if label >= 0]
    assert processor.tokenizer.decode(learnt).endswith("I c")
    assert cut.ids == whole.ids[: len(cut.ids)] and cut.labels[-1] == cut.ids[-1]
    assert whole.shortened(100) == whole


def test_the_log_has_a_row_a_step(
    tiny_model: Model,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(monotonic=count(0, 10).__next__)  # ten seconds a step
    monkeypatch.setattr("musilingo_core.training.time", clock)
    rows = run(tiny_model, processor, tmp_path, CONFIG)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "validation_loss" in row] == [3, 6]
    assert [row["left_s"] for row in rows] == [50, 40, 30, 20, 10, 0]


@pytest.mark.parametrize(("clip_norm", "clipped"), [(1e-4, True), (1e6, False)])
def test_gradients_are_clipped(
    tiny_model: Model, processor: MusiLingoProcessor, clip_norm: float, clipped: bool
) -> None:
    weight = tiny_model.multi_modal_projector.weight
    before = weight.detach().clone()
    batch = Loader(processor, EXAMPLES[:4], find, CONFIG).plain(0)
    train_step(tiny_model, torch.optim.SGD([weight], lr=1.0), [batch], clip_norm)
    moved = float((weight.detach() - before).norm())
    assert (moved <= 1.001 * clip_norm) and (moved > 0.99 * clip_norm) == clipped


class Cut(Exception):
    """Ends a run from without."""


def cut(row: dict[str, Any]) -> None:
    if row["step"] == 4:
        raise Cut


@pytest.mark.parametrize(
    "more", [{}, {"whiten": 0.1}, {"lora_rank": 2}, {"precision": "float16"}], ids=str
)
def test_a_resumed_run_has_the_losses_it_would_have_had(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path, more: dict[str, Any]
) -> None:
    config, again, after = replace(CONFIG, **more), copy.deepcopy(tiny_model), tmp_path / "cut"
    fresh = copy.deepcopy(tiny_model)
    whole = run(tiny_model, processor, tmp_path / "whole", config)
    with pytest.raises(Cut):
        train(again, processor, EXAMPLES, after, config, find, cut)
    rest = run(fresh, processor, after, config)
    assert [row["step"] for row in rest] == [4, 5, 6]
    logged = [json.loads(line) for line in (after / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rest] == [row["loss"] for row in whole[3:]]


def test_a_whitened_run_is_resumed_in_the_coordinates_it_began_in(
    tiny_model: Model,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of few clips axes are arbitrary: another machine's would be others."""
    config, again, fresh = replace(CONFIG, whiten=0.1), *(copy.deepcopy(tiny_model) for _ in "ab")
    whole = run(tiny_model, processor, tmp_path / "whole", config)
    with pytest.raises(Cut):
        train(again, processor, EXAMPLES, tmp_path / "cut", config, find, cut)
    monkeypatch.setattr("musilingo_core.training.SAMPLED", 3)
    rest = run(fresh, processor, tmp_path / "cut", config)
    assert [row["loss"] for row in rest] == [row["loss"] for row in whole[3:]]


def test_a_checkpoint_cut_off_while_it_is_written_leaves_the_one_before(
    tiny_model: Model,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = run(tiny_model, processor, tmp_path / "whole", CONFIG)
    with pytest.raises(Cut):
        train(tiny_model, processor, EXAMPLES, tmp_path / "cut", CONFIG, find, cut)

    def half(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr("torch.save", half)
        run(tiny_model, processor, tmp_path / "cut", CONFIG)
    rest = run(tiny_model, processor, tmp_path / "cut", CONFIG)
    assert [row["loss"] for row in rest] == [row["loss"] for row in whole[3:]]


@pytest.mark.parametrize(("precision", "bad"), [("auto", float("nan")), ("float16", 1e30)])
def test_a_run_that_runs_away_ends_and_keeps_what_was_good(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path, precision: str, bad: float
) -> None:
    def spoil(row: dict[str, Any]) -> None:
        if row["step"] == 4:  # after a checkpoint, before another
            tiny_model.multi_modal_projector.weight.data.fill_(bad)

    config = replace(CONFIG, steps=40, precision=precision, validate_every=3)
    with pytest.raises(ConfigError, match="lower learning_rate"):
        train(tiny_model, processor, EXAMPLES, tmp_path, config, find, spoil)
    assert not (tmp_path / "projection.safetensors").exists()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["kept"]
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())


def test_a_rate_that_no_weight_can_bear_is_said(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    config = replace(CONFIG, learning_rate=1e30, warmup_steps=0, validate_every=1)
    with pytest.raises(ConfigError, match="lower learning_rate"):
        run(tiny_model, processor, tmp_path, config)


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


def test_a_checkpoint_of_other_features_is_refused(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    file = tmp_path / "features.safetensors"
    examples = [Example(f"{file}#{rows:016x}", (("What?", "That."),)) for rows in (1, 2)]
    write_features([make_clip(rows=rows, key=f"{rows:016x}") for rows in (1, 2)], file)
    train(tiny_model, processor, examples, tmp_path / "run", CONFIG)
    write_features([make_clip(rows=rows, key=f"{rows - 2:016x}") for rows in (3, 4)], file)
    with pytest.raises(ConfigError, match="other data"):
        train(tiny_model, processor, examples, tmp_path / "run", CONFIG)


@pytest.mark.parametrize(("every", "wanted"), [(3, [3, 6]), (100, [4, 6]), (1, list(range(1, 7)))])
def test_the_first_validation_comes_after_an_epoch_at_the_latest(
    tiny_model: Model,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    every: int,
    wanted: list[int],
) -> None:
    rows = run(tiny_model, processor, tmp_path, replace(CONFIG, validate_every=every))
    assert [row["step"] for row in rows if "validation_loss" in row] == wanted


def test_a_validation_may_take_some_of_the_clips(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    heard: list[str] = []

    def counted(place: str) -> Clip:
        heard.append(place)
        return find(place)

    held_out = [replace(e, clip=str(n)) for n, e in enumerate(10 * EXAMPLES[-1:], start=10)]
    config = replace(CONFIG, steps=1, validation_clips=2)
    train(tiny_model, processor, EXAMPLES[:-1] + held_out, tmp_path, config, counted)
    assert {place for place in heard if int(place) >= 10} == {"10", "15"}


def test_nothing_held_out_is_said_once_and_logged_as_nothing(
    tiny_model: Model,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows: list[dict[str, Any]] = []
    train(tiny_model, processor, EXAMPLES[:-1], tmp_path, CONFIG, find, rows.append)
    assert caplog.text.count("nothing is held out") == 1
    assert not any("validation_loss" in row for row in rows)


def test_same_seed_same_projection(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    run(tiny_model, processor, tmp_path / "a", CONFIG)
    first = tiny_model.multi_modal_projector.weight.detach().clone()
    run(tiny_model, processor, tmp_path / "b", CONFIG)
    assert torch.equal(tiny_model.multi_modal_projector.weight, first)


def test_a_projection_begins_with_the_words_of_its_clips(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    words = [("one", "few"), ("two", "few"), ("many", "lots")]
    clips = [make_clip(rows) for rows in (1, 2, 9)]
    begin_with_words(
        tiny_model, processor, [(c.features, w) for c, w in zip(clips, words, strict=True)]
    )
    embeddings = tiny_model.get_input_embeddings().weight.detach()
    for clip, both in zip(clips, words, strict=True):
        wanted = embed_words(both, processor.tokenizer, embeddings)
        rows = clip.features.mean(0, keepdim=True)
        got = tiny_model.get_audio_features(audio_features=[rows]).detach()
        assert torch.nn.functional.cosine_similarity(got, wanted).min() > 0.9
    with pytest.raises(ConfigError, match="2 tokens and a clip 3 words"):
        begin_with_words(tiny_model, processor, [(clips[0].features, ("a", "b", "c"))])


@pytest.mark.parametrize("words", [(), ("slow", "song")])
@pytest.mark.parametrize("whiten", [0.0, 0.1])
def test_a_projection_begins_as_large_as_it_is_told(
    tiny_model: Model,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    words: tuple[str, ...],
    whiten: float,
) -> None:
    examples = [replace(e, words=words) for e in EXAMPLES]
    weights = []
    for scale in (1.0, 50.0):
        config = replace(CONFIG, steps=1, learning_rate=1e-12, scale=scale, whiten=whiten)
        train(tiny_model, processor, examples, tmp_path / str(scale), config, find)
        weights.append(tiny_model.multi_modal_projector.weight.detach().clone())
    torch.testing.assert_close(weights[1], 50 * weights[0], rtol=1e-3, atol=1e-4)


def test_examples_with_words_are_begun_with(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    examples = [replace(e, words=("slow", "song")) for e in EXAMPLES]
    losses = []
    for name, given in (("drawn", EXAMPLES), ("words", examples)):
        config = replace(CONFIG, steps=1, learning_rate=1e-9)
        rows: list[dict[str, Any]] = []
        train(tiny_model, processor, given, tmp_path / name, config, find, rows.append)
        losses.append(rows[0]["loss"])
    assert losses[0] != losses[1]


def test_nothing_to_train_on_is_said(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no example"):
        train(tiny_model, processor, EXAMPLES[-1:], tmp_path, CONFIG, find)
    assert validate(tiny_model, Loader(processor, [], find, CONFIG)) is None


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0}, {"learning_rate": -1.0}, {"batch_size": 0}, {"accumulation": 0},
        {"whiten": -0.1}, {"validation_clips": -1}, {"clip_norm": float("nan")},
        {"precision": "int8"},
    ],
)  # fmt: skip
def test_senseless_settings_are_refused(values: dict[str, Any]) -> None:
    make: Callable[..., TrainingConfig] = TrainingConfig
    with pytest.raises(ConfigError):
        make(**values)
