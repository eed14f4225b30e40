from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.encoders.mert import MertConfig
from musilingo_core.errors import NotEnoughMemory
from musilingo_core.memory import HEARING, check_memory, free_bytes, need
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.packed import pack, products
from musilingo_core.placement import Placement
from tests.test_quantization import quantized

CPU = torch.device("cpu")
GB = 1_000_000_000
PAPER = MusiLingoConfig(
    audio_config=MertConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        do_stable_layer_norm=True,
    ),
    text_config=LlamaConfig(vocab_size=32001),  # transformers' defaults are the 7B's
)


def weights(module: torch.nn.Module) -> int:
    return sum(each.nbytes for each in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_need_is_what_the_weights_and_states_take(
    tiny_model: MusiLingoForConditionalGeneration, dtype: torch.dtype
) -> None:
    model = tiny_model
    model.language_model.to(dtype)
    found = need(model.config, Placement(CPU, dtype, packed=False))
    assert (found.ear, found.window) == (weights(model.audio_tower), HEARING["musicnn"])
    states = 2 * 2 * 2 * 8 * 512 * dtype.itemsize  # keys and values, layers, heads, size, length
    parts = (model.language_model, model.multi_modal_projector)
    assert (found.words, found.states) == (sum(map(weights, parts)), states)


def test_packed_weights_come_on_top(tiny_model: MusiLingoForConditionalGeneration) -> None:
    plain, packed = (
        need(tiny_model.config, Placement(CPU, torch.float32, packed=each)).words
        for each in (False, True)
    )
    stream = pack(products(tiny_model.language_model)).stream
    assert packed - plain == pytest.approx(stream.nbytes, rel=0.15)  # its scales are not counted


@pytest.mark.parametrize("bits", [8, 4])
def test_fewer_bits_need_less(
    tiny_model: MusiLingoForConditionalGeneration, bits: int, tmp_path: Path
) -> None:
    model = tiny_model
    plain, fewer = (
        need(model.config, Placement(CPU, torch.bfloat16, each, packed=False)).words
        for each in (None, bits)
    )
    words = model.language_model.bfloat16()
    assert plain - fewer == pytest.approx(
        weights(words) - weights(quantized(words, bits, tmp_path)), rel=0.2
    )


def test_the_papers_model_at_full_size() -> None:
    bfloat16 = Placement(CPU, torch.bfloat16, packed=False)
    found = need(PAPER, bfloat16)
    assert (found.words + found.states) / GB == pytest.approx(13.48 + 1.07 + 0.02, abs=0.03)
    four = need(PAPER, Placement(CPU, torch.bfloat16, 4, packed=False))
    assert four.words / GB == pytest.approx(13.48 - 12.95 + 3.24 + 0.4, abs=0.1)


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = Placement(CPU, torch.float32)
    monkeypatch.setattr("musilingo_core.memory.free_bytes", lambda device: 100 * GB)
    check_memory(PAPER, placement)
    monkeypatch.setattr("musilingo_core.memory.free_bytes", lambda device: 20 * GB)
    with pytest.raises(NotEnoughMemory) as caught:
        check_memory(PAPER, placement)
    text = str(caught.value)
    assert "20.0 GB are free on cpu; these would fit: --dtype bfloat16 --weights plain (16" in text
    assert "4bit" not in text  # on a processor that is slow
    monkeypatch.setattr("musilingo_core.memory.free_bytes", lambda device: 2 * GB)
    with pytest.raises(NotEnoughMemory, match="nothing of it would fit"):
        check_memory(PAPER, placement)


def test_the_encoder_may_be_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cpu": 20 * GB, "meta": 15 * GB}
    monkeypatch.setattr("musilingo_core.memory.free_bytes", lambda device: free[device.type])
    apart = Placement(torch.device("meta"), torch.bfloat16, encoder_device=CPU)
    check_memory(PAPER, apart)
    with pytest.raises(NotEnoughMemory):
        check_memory(PAPER, Placement(torch.device("meta"), torch.bfloat16))


def test_a_gpu_that_is_too_small_is_told_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cpu": 6 * GB, "cuda": 6.5 * GB}
    monkeypatch.setattr("musilingo_core.memory.free_bytes", lambda device: free[device.type])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(NotEnoughMemory) as caught:
        check_memory(PAPER, Placement(torch.device("cuda"), torch.bfloat16))
    ways = [options for options, _ in caught.value.fitting]
    assert ways == ["--weights 4bit --encoder-device cpu", "--device spread"]
    free["cuda"] = 5 * GB
    with pytest.raises(NotEnoughMemory, match=r"5\.0 GB are free on cuda; nothing"):
        check_memory(PAPER, Placement(torch.device("cuda"), torch.bfloat16))


def test_advice_is_what_it_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cpu": 60 * GB, "cuda": 7 * GB}
    monkeypatch.setattr("musilingo_core.memory.free_bytes", lambda device: free[device.type])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    eight = Placement(torch.device("cuda"), torch.bfloat16, 8, packed=False)
    with pytest.raises(NotEnoughMemory) as caught:
        check_memory(PAPER, eight)
    # Eight bits are not shared with the processor, and plain weights are larger than the GPU.
    ways = [options for options, _ in caught.value.fitting]
    assert ways == ["--weights 4bit", "--weights 4bit --encoder-device cpu", "--device cpu"]


def test_a_container_has_what_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musilingo_core.memory.CGROUP", tmp_path)
    whole = free_bytes(CPU)
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 300\nactive_file 200\n")
    assert free_bytes(CPU) == 4500 < whole
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) > 4500
