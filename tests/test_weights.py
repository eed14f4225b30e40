import json
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import compute_module_sizes
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForMultimodalLM,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

from musilingo_core.adapter import add_adapter, save_adapter
from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.engine import ChatEngine, load_engine
from musilingo_core.errors import CheckpointError, ConfigError
from musilingo_core.folders import read_state
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.models import PRESETS, Source, find_preset
from musilingo_core.placement import Placement, find_device
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import user
from musilingo_core.sampling import Sampling
from musilingo_core.weights import (
    compose,
    load_folder,
    load_model,
    load_projection,
    save_projection,
)
from musilingo_core.wheels import Wheel
from tests.conftest import make_clip
from tests.encoders.test_mert import publish


def test_requirements_and_presets_are_pinned() -> None:
    for preset in PRESETS.values():
        for part in (preset.encoder, preset.language_model):
            if isinstance(part, Wheel):
                assert len(part.sha256) == 64 and "==" in part.requirement and part.size > 1e6
        assert preset.settings()["audio_token"] and preset.licences
        assert preset.checkpoint or (preset.folder / "README.md").is_file()
    with pytest.raises(ConfigError, match="starter"):
        find_preset("stater")


def test_licences_are_named_of_whatever_is_put_together() -> None:
    assert Source("starter").licences == find_preset("starter").licences
    assert (
        Source(model="m-a-p/MusiLingo-long-v1").licences == find_preset("musilingo-long").licences
    )
    parts = Source(
        encoder="m-a-p/MERT-v1-95M@main", language_model=Path("/own/llama"), projection="run"
    )
    assert parts.licences == (
        ("MERT-v1-95M", "CC-BY-NC-4.0, not for commercial use"),
        ("llama", "as its authors say"),
        ("run", "as its authors say"),
    )
    assert Source(model="own/model").licences == (("model", "as its authors say"),)
    fixed = Source(model="m-a-p/MusiLingo-musicqa-v1@0123abc")
    assert fixed.licences == find_preset("musilingo-musicqa").licences
    assert Source("starter", projection="run").licences[-1] == ("run", "as its authors say")


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
    model, loaded = load_folder(tmp_path)
    assert loaded.form == processor.form
    assert model.config.tokens_per_row == 2
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_folder(tmp_path / "nothing")


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
    plain, eight = (
        load_model(Source(model=own, projection=run), Placement(dtype=torch.float32, bits=bits))[
            0
        ].language_model
        for bits in (None, 8)
    )
    true, found = (each.model.layers[1].mlp.up_proj.weight for each in (plain, eight))
    assert found.dtype == torch.int8
    most = float(true.detach().abs().max()) / 99
    assert torch.allclose(found * found.SCB[:, None] / 127, true, atol=most)


def test_a_model_may_be_spread(
    tiny_model: MusiLingoForConditionalGeneration, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    tiny_model.save_pretrained(tmp_path / "own")
    processor.save_pretrained(tmp_path / "own")
    clip, said = make_clip(), []
    greedy = Sampling(temperature=0, repetition_penalty=5, max_new_tokens=20)
    for device in ("cpu", "spread"):
        engine = load_engine(
            model=tmp_path / "own", device=device, dtype="float32", weights="plain"
        )
        engine.cache.put(clip)
        said.append(engine.reply([user("What?", clip.clip_id)], greedy).text())
    # As where a GPU has no room for all of it: layers that come when they are needed.
    words = engine.model.language_model
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places = {f"language_model.{name}": place for name, place in places.items()}
    places |= {"audio_tower": "cpu", "multi_modal_projector": "disk"}
    dispatch_model(engine.model, places, main_device="cpu", offload_dir=tmp_path / "kept")
    assert words.model.layers[1].mlp.up_proj.weight.device.type == "meta"
    apart = ChatEngine(engine.model, engine.processor)
    assert not apart.decoder.packed
    apart.cache.put(clip)
    said.append(apart.reply([user("What?", clip.clip_id)], greedy).text())
    assert said[0] and said[0] == said[1] == said[2]


def test_what_is_spread_is_placed_in_order(
    tiny_model: MusiLingoForConditionalGeneration,
) -> None:
    sizes = compute_module_sizes(tiny_model)
    room = sizes["audio_tower"] + sizes["multi_modal_projector"] + sizes["language_model"] // 2
    places = infer_auto_device_map(
        tiny_model, {0: room, "cpu": 10**9}, list(tiny_model._no_split_modules)
    )
    assert places["audio_tower"] == places["multi_modal_projector"] == 0
    assert places["language_model.model.embed_tokens"] == 0 and "cpu" in places.values()
    with pytest.raises(ConfigError, match="encoder on the first GPU"):
        load_engine(device="spread", encoder_device="cpu")


def test_weights_go_to_the_gpu_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.current_device", lambda: 3)
    assert Placement(torch.device("cuda")).device_map == {"": "cuda:3"}
    assert Placement(torch.device("cuda:1")).device_map == {"": "cuda:1"}
    assert Placement(torch.device("cuda"), spread=True).device_map == "auto"


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("parts", [False, True])
def test_other_files_beside_a_language_model_are_not_read(
    tiny_model: MusiLingoForConditionalGeneration, tmp_path: Path, pickled: bool, parts: bool
) -> None:
    state = {name: value.clone() for name, value in tiny_model.language_model.state_dict().items()}
    kind = "pytorch_model.bin" if pickled else "model.safetensors"
    save = torch.save if pickled else save_file
    names = sorted(state)
    shards = {kind: names}
    if parts:
        stem, suffix = kind.split(".")
        shards = {f"{stem}-{n + 1}-of-2.{suffix}": names[n::2] for n in range(2)}
        index = {name: file for file, held in shards.items() for name in held}
        (tmp_path / f"{kind}.index.json").write_text(json.dumps({"weight_map": index}))
    for file, held in shards.items():
        save({name: state[name] for name in held}, tmp_path / file)
    other = {name: value + 1 for name, value in state.items()}
    for file in ("consolidated.safetensors", "adapter_model.safetensors", "model_old.safetensors"):
        if not pickled:
            save_file(other | {"more": torch.zeros(1)}, tmp_path / file)
    torch.save(other, tmp_path / "pytorch_model_old.bin")
    found = read_state(tmp_path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    (tmp_path / next(iter(shards))).unlink()
    with pytest.raises(CheckpointError, match="there is no "):
        read_state(tmp_path)


def save_pair(
    model: MusiLingoForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Path:
    """The folder of a tiny MERT joined with a model's language model."""
    mert, llama, folder = (tmp_path / name for name in ("mert", "llama", "pair"))
    mert.mkdir()
    publish(mert, stable=True)
    model.language_model.save_pretrained(llama)
    tokenizer.save_pretrained(llama)
    pair, processor = compose(mert, llama, {"audio_token": "<audio>"})
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
        loaded, _ = load_model(Source(model=folder), Placement(dtype=dtype))
        assert loaded.audio_tower.dtype == loaded.language_model.dtype == dtype
        assert loaded.multi_modal_projector.weight.dtype == torch.float32
    assert load_model(Source(model=folder))[0].audio_tower.dtype == torch.float32


def test_tied_bfloat16_words_and_a_float32_ear_come_back_from_their_folder(
    tied_model: MusiLingoForConditionalGeneration,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("musilingo_core.placement.served_dtype", lambda device: torch.bfloat16)
    tied_model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, loaded = load_folder(tmp_path)
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
