"""Published MusiLingo checkpoints, against the original's arithmetic stated again.

The restatement follows `encode_audio`, `instruction_prompt_wrap` and `answer` of
github.com/zihaod/MusiLingo, with plain transformers models and SentencePiece.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import HubertConfig, HubertModel, LlamaConfig, LlamaForCausalLM

from musilingo_core.checkpoints import encoder_config, is_published, read_projection
from musilingo_core.engine import ChatEngine, load_engine
from musilingo_core.errors import CheckpointError, WeightsUnavailable
from musilingo_core.folders import read_pickle, read_shapes
from musilingo_core.prompt import user
from musilingo_core.sampling import Sampling
from musilingo_core.weights import save_projection
from tests.conftest import tone

RATE = 24_000
MERT = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 1,
    "intermediate_size": 96,
    "conv_dim": [16] * 7,
    "num_conv_pos_embedding_groups": 4,
    "do_stable_layer_norm": True,
}
LLAMA = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


class Original(torch.nn.Module):
    """What a published checkpoint holds, under its names."""

    def __init__(self, vocabulary: int, **more: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        settings = LLAMA | more
        self.audio_encoder = HubertModel(HubertConfig(**MERT)).eval()
        self.llama_model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **settings)).eval()
        self.llama_proj = torch.nn.Linear(64, settings["hidden_size"])
        self.settings = settings

    @torch.no_grad()
    def encode_audio(self, audio: Tensor) -> Tensor:
        """(tokens, 48) of (samples,): mean over hidden states, then over blocks of 325 frames."""
        out = self.audio_encoder(audio[None], output_hidden_states=True)
        states = torch.stack([*out.hidden_states[:-1], out.last_hidden_state])
        embeds = states.transpose(0, 1).mean(-3)
        frames, size = embeds.shape[1:]
        whole = frames // 325
        averaged = embeds[:, : whole * 325].reshape(1, whole, 325, size).mean(2)
        if frames % 325:
            averaged = torch.cat([averaged, embeds[:, whole * 325 :].mean(1, keepdim=True)], 1)
        return self.llama_proj(averaged)[0]

    @torch.no_grad()
    def answer(self, audio: Tensor, question: str, pieces: Any, tokens: int) -> list[int]:
        """Greedy token ids up to one of the two ways to write `###`."""
        before, after = "###Human: <Audio>", f"</Audio> {question} ###Assistant: "
        words = self.llama_model.get_input_embeddings()
        embeds = torch.cat(
            [
                words(torch.tensor([1, *pieces.encode(before)])),
                self.encode_audio(audio),
                words(torch.tensor(pieces.encode(after))),
            ]
        )
        said: list[int] = []
        for _ in range(tokens):
            row = torch.cat([embeds, words(torch.tensor(said, dtype=torch.long))])
            said.append(int(self.llama_model(inputs_embeds=row[None]).logits[0, -1].argmax()))
            if said[-1] == 2:
                return said[:-1]
        return said


@pytest.fixture(scope="module")
def original(llama_pieces: Any) -> Original:
    return Original(
        len(llama_pieces) + 1
    )  # as the published one: one row more than the tokenizer has


def publish(original: Original, folder: Path, tokens: Path, old_names: bool = True) -> Path:
    """Writes a checkpoint as m-a-p/MusiLingo-long-v1 is laid out: sharded, with old names."""
    folder.mkdir(exist_ok=True)
    state = {f"model.{name}": value.clone() for name, value in original.state_dict().items()}
    if old_names:
        place = "model.audio_encoder.encoder.pos_conv_embed.conv."
        for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
            state[place + old] = state.pop(f"{place}parametrizations.weight.{new}")
    for layer in range(original.settings["num_hidden_layers"]):  # buffers of old versions
        place = f"model.llama_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq"
        state[place] = torch.rand(6)
    names, index = sorted(state), {}
    for number in range(3):
        file = f"model-0000{number + 1}-of-00003.safetensors"
        shard = {name: state[name].contiguous() for name in names[number::3]}
        save_file(shard, folder / file, {"format": "pt"})
        index |= dict.fromkeys(shard, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    settings = {
        "model_type": "musilingo",
        "architectures": ["MusilingoModel"],
        "auto_map": {"AutoModel": "modelling_musilingo.MusilingoModel"},
        "mert_model": "m-a-p/MERT-v1-330M",
        "llama_model": "lmsys/vicuna-7b-delta-v0",
        "prompt_template": "###Human: {} ###Assistant: ",
        "vocab_size": original.llama_model.config.vocab_size,
        "torch_dtype": "float32",
        **original.settings,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.model").write_bytes((tokens / "tokenizer.model").read_bytes())
    return folder


@pytest.fixture(scope="module")
def checkpoint(
    original: Original, llama_tokens: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return publish(original, tmp_path_factory.mktemp("published"), llama_tokens)


@pytest.fixture
def engine(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChatEngine:
    monkeypatch.setenv("MUSILINGO_CACHE", str(tmp_path / "cache"))
    return load_engine(model=checkpoint, device="cpu", dtype="float32", weights="plain")


def song(seconds: float, stereo: bool) -> Any:
    left = tone(seconds, RATE, 220) * np.linspace(0.1, 1, int(seconds * RATE))
    return np.stack([left, tone(seconds, RATE, 331)], 1) if stereo else left


@pytest.mark.parametrize("seconds", [0.7, 4.4, 13.0, 30.0])
@pytest.mark.parametrize("stereo", [False, True])
def test_greedy_answers_are_the_originals(
    engine: ChatEngine,
    original: Original,
    llama_pieces: Any,
    wav: Callable[..., Path],
    seconds: float,
    stereo: bool,
) -> None:
    samples = song(seconds, stereo)
    path = wav(samples, RATE, subtype="FLOAT")
    clip = engine.encode(path)
    heard = torch.tensor(samples, dtype=torch.float32)
    heard = heard.mean(1) if stereo else heard
    embeds = engine.model.get_audio_features(audio_features=[clip.features])
    torch.testing.assert_close(embeds, original.encode_audio(heard), atol=1e-5, rtol=1e-4)
    question = "Which instruments?"
    wanted = original.answer(heard, question, llama_pieces, 20)
    reply = engine.reply([user(question, clip.clip_id)], Sampling(temperature=0, max_new_tokens=20))
    # SentencePiece itself and its copy in transformers write halves of characters differently.
    shown = engine.processor.tokenizer.decode(wanted).split("###")[0].strip()
    assert reply.text() == shown and reply.new_tokens == len(wanted)


def test_the_mert_of_a_checkpoint_is_told_from_its_shapes(checkpoint: Path) -> None:
    found = encoder_config(read_shapes(checkpoint), checkpoint)
    for name, value in (MERT | {"num_conv_pos_embeddings": 128, "conv_bias": False}).items():
        assert getattr(found, name) == value, name
    assert found.conv_kernel == [10, 3, 3, 3, 3, 2, 2] and not found.do_normalize


def test_names_that_lack_or_are_too_many_are_said(
    original: Original, llama_tokens: Path, tmp_path: Path
) -> None:
    folder = publish(original, tmp_path / "one", llama_tokens)
    shard = folder / "model-00001-of-00003.safetensors"
    from safetensors.torch import load_file

    state = load_file(shard)
    gone = next(name for name in state if "llama_model.model.layers" in name and "inv" not in name)
    value = state.pop(gone)
    save_file({**state, "model.llama_model.stranger": value}, shard, {"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        load_engine(model=folder, device="cpu", weights="plain")
    renamed = gone.replace("model.llama_model.", "language_model.")
    assert caught.value.missing == (renamed,)
    assert caught.value.unexpected == ("language_model.stranger",)


def test_the_projection_of_a_training_checkpoint_is_read_safely(
    engine: ChatEngine, checkpoint: Path, tmp_path: Path
) -> None:
    file, weight, bias = tmp_path / "checkpoint_5.pth", torch.rand(48, 64), torch.rand(48)
    state = {"llama_proj.weight": weight, "llama_proj.bias": bias}
    torch.save({"model": state, "epoch": 5}, file)
    assert torch.equal(read_projection(file)["weight"], weight)
    other = load_engine(
        model=checkpoint, projection=file, device="cpu", dtype="float32", weights="plain"
    )
    assert torch.equal(other.model.multi_modal_projector.bias, bias)
    torch.save({"model": {"llama_proj.weight": weight, "other": bias}}, file)
    with pytest.raises(CheckpointError, match=r"missing: llama_proj\.bias; unexpected: other"):
        read_projection(file)
    torch.save({"model": print}, file)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_projection(file)


@pytest.mark.parametrize("old", [False, True])
def test_pickled_weights_are_mapped_where_that_can_be(tmp_path: Path, old: bool) -> None:
    file, weight = tmp_path / "pytorch_model.bin", torch.randn(3, 4)
    torch.save({"weight": weight}, file, _use_new_zipfile_serialization=not old)
    found = read_pickle(file)["weight"]
    assert torch.equal(found, weight)
    maps = Path("/proc/self/maps")
    if maps.is_file():  # only Linux tells
        assert (str(file) in maps.read_text()) is not old


def test_layouts_are_told_apart() -> None:
    assert is_published({"model_type": "musilingo", "llama_model": "x"})
    assert not is_published({"model_type": "musilingo", "text_config": {}})
    assert not is_published({"model_type": "llama"})


MEASURE = """
import sys, torch, accelerate, bitsandbytes, musilingo_core.engine
from transformers.models import hubert, llama
from musilingo_core.models import Source
from musilingo_core.placement import Placement
from musilingo_core.weights import load_model

def memory(kind):
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(kind))

llama.modeling_llama, hubert.modeling_hubert
placement = Placement(dtype=getattr(torch, sys.argv[2]), bits=int(sys.argv[3]) or None)
before = memory("VmRSS")
model, _ = load_model(Source(model=sys.argv[1]), placement)
print((memory("VmHWM") - before) / sum(each.nbytes for each in model.state_dict().values()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "bits", "most"),
    [
        ("float16", 0, 1.15),
        ("bfloat16", 0, 1.15),
        ("float32", 0, 1.15),
        ("bfloat16", 8, 1.15),
        ("bfloat16", 4, 1.4),  # the words' embeddings alone are a fifth of it, and read whole
    ],
)
def test_loading_takes_hardly_more_than_the_model(
    llama_tokens: Path, tmp_path: Path, dtype: str, bits: int, most: float
) -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("memory is measured on Linux only")
    sizes = {"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 18}
    folder = publish(Original(32_001, **sizes).half(), tmp_path, llama_tokens)
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) > 1e9
    command = [sys.executable, "-c", MEASURE, str(folder), dtype, str(bits)]
    # As glibc does with weights of a larger model: what is let go of goes back at once.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert float(done.stdout.split()[-1]) <= most


def test_encoder_and_tokenizer_may_lie_elsewhere(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(checkpoint, folder)
    (folder / "tokenizer.model").rename(folder.parent / "tokenizer.model")
    (tmp_path / "mert").mkdir()
    settings = HubertConfig(**MERT | {"num_attention_heads": 2}).to_dict()
    (tmp_path / "mert" / "config.json").write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    found = load_engine(
        model="bare", encoder="mert", language_model=".", device="cpu", weights="plain"
    )
    assert found.model.config.audio_config.num_attention_heads == 2  # shapes would say one
    with pytest.raises(WeightsUnavailable, match="lmsys/vicuna-7b-delta-v0"):
        load_engine(model="bare", device="cpu", weights="plain")


@pytest.mark.parametrize("prompt", ["paper-demo", "vicuna-v1.5"])
def test_another_prompt_form_may_be_asked_for(
    checkpoint: Path, wav: Callable[..., Path], prompt: str
) -> None:
    engine = load_engine(model=checkpoint, prompt=prompt, device="cpu", weights="plain")
    clip = engine.encode(wav(song(1, False), RATE))
    asked = engine.processor.render([user("What?", clip.clip_id)], engine.clip)
    text = engine.processor.tokenizer.decode(asked.ids)
    assert ("You will be able to see the music" in text) == (prompt == "paper-demo")
    list(engine.reply([user("What?", clip.clip_id)], Sampling(max_new_tokens=3)))
    assert prompt in engine.name


def test_a_folder_without_tokenizer_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(checkpoint, folder)
    (folder / "tokenizer.model").unlink()
    settings = json.loads((folder / "config.json").read_text())
    del settings["llama_model"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="there is no tokenizer"):
        load_engine(model=folder, device="cpu", weights="plain")


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": "48"},
        {"num_attention_heads": 5},
        {"num_attention_heads": 0},
        {"hidden_act": "loud"},
        {"model_type": "llama"},
    ],
)
def test_settings_that_describe_no_model_are_refused(
    checkpoint: Path, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(checkpoint, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | wrong))
    with pytest.raises(CheckpointError, match=r"no model|no MusiLingo model|do not fit"):
        load_engine(model=folder, device="cpu", weights="plain")


def test_a_projection_that_learnt_with_another_form_is_asked_in_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    engine = load_engine(model=checkpoint, prompt="vicuna-v1.5", device="cpu", weights="plain")
    assert engine.processor.form.before_clip == "" and not engine.processor.stop_strings
    save_projection(engine.model, tmp_path / "projection.safetensors")
    form = json.dumps(engine.processor.settings())
    (tmp_path / "musilingo.json").write_text(form)
    given: Any = {"model": checkpoint, "projection": tmp_path, "device": "cpu"}
    with pytest.raises(CheckpointError, match="trained with another"):
        load_engine(**given, weights="plain")
    again = load_engine(**given, weights="plain", prompt="vicuna-v1.5")
    assert again.processor.form == engine.processor.form
