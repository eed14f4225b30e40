from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from musilingo_core import quantization as module
from musilingo_core.decoder import Decoder
from musilingo_core.errors import ConfigError
from musilingo_core.llama import LlamaStep
from musilingo_core.quantization import quantization
from tests.test_llama import both, llama, wrong


def quantized(model: LlamaForCausalLM, bits: int, folder: Path) -> LlamaForCausalLM:
    model.save_pretrained(folder)
    fewer = quantization(bits, model.dtype)
    given = {"quantization_config": fewer, "dtype": model.dtype, "device_map": {"": "cpu"}}
    return LlamaForCausalLM.from_pretrained(folder, **given).eval()


@pytest.mark.parametrize(("bits", "most", "bytes_a_weight"), [(8, 0.02, 1.0), (4, 0.3, 0.5)])
@pytest.mark.parametrize("biases", [False, True])
@torch.inference_mode()
def test_fewer_bits_say_nearly_the_same(
    bits: int, most: float, bytes_a_weight: float, biases: bool, tmp_path: Path
) -> None:
    model = llama(attention_bias=biases, mlp_bias=biases, hidden_size=192)
    rows = torch.randn(9, 192, generator=torch.Generator().manual_seed(1))
    exact = model.model.layers[1].mlp.up_proj(rows)
    fewer = quantized(model, bits, tmp_path)
    weight = fewer.model.layers[1].mlp.up_proj.weight
    assert weight.numel() * weight.element_size() == bytes_a_weight * 192 * 128
    assert type(fewer.lm_head) is nn.Linear and fewer.lm_head.weight.dtype == torch.float32
    assert 1e-3 < wrong(fewer.model.layers[1].mlp.up_proj(rows), exact) < most
    ours, theirs = both(LlamaStep(fewer), fewer)
    assert wrong(ours, theirs) < 0.02
    assert not Decoder(fewer).packed


def test_without_bitsandbytes_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        quantization(8, torch.float32)
