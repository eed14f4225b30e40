import pytest
import torch
from torch import nn

from musilingo_core.decoder import Decoder
from musilingo_core.errors import ConfigError
from musilingo_core.llama import LlamaStep
from musilingo_core.quantization import quantize
from tests.test_llama import both, llama, wrong


@pytest.mark.parametrize(("bits", "most", "bytes_a_weight"), [(8, 0.02, 1.0), (4, 0.3, 0.5)])
@pytest.mark.parametrize("biases", [False, True])
@torch.inference_mode()
def test_fewer_bits_say_nearly_the_same(
    bits: int, most: float, bytes_a_weight: float, biases: bool
) -> None:
    model = llama(attention_bias=biases, mlp_bias=biases)
    rows = torch.randn(9, 96, generator=torch.Generator().manual_seed(1))
    exact = model.model.layers[1].mlp.up_proj(rows)
    quantize(model, bits)
    model = model.to("cpu")
    weight = model.model.layers[1].mlp.up_proj.weight
    assert weight.numel() * weight.element_size() == bytes_a_weight * 96 * 128
    assert type(model.lm_head) is nn.Linear and model.lm_head.weight.dtype == torch.float32
    assert 1e-3 < wrong(model.model.layers[1].mlp.up_proj(rows), exact) < most
    ours, theirs = both(LlamaStep(model), model)
    assert wrong(ours, theirs) < 0.02
    assert not Decoder(model).packed


def test_without_bitsandbytes_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        quantize(llama(), 8)
