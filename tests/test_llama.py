import logging
from typing import Any

import pytest
import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from musilingo_core.llama import LlamaStep, fits, has_int8, quantized
from musilingo_core.prefix_cache import empty_cache

CONFIGS: dict[str, dict[str, Any]] = {
    "grouped queries": {},
    "one key head": {"num_key_value_heads": 1},
    "all heads": {"num_key_value_heads": 6},
    "wide heads": {"head_dim": 32},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True},
    "stretched": {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
        }
    },
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "odd sizes": {"hidden_size": 60, "intermediate_size": 50, "head_dim": 10, "vocab_size": 97},
    "another activation": {"hidden_act": "gelu"},
}  # fmt: skip


def llama(**settings: Any) -> LlamaForCausalLM:
    """A tiny LLaMA whose every parameter matters."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 96, "hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**shape | settings)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.2)
    return model


@torch.inference_mode()
def both(step: LlamaStep, model: LlamaForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of nine tokens after a prompt of twelve: of the step and of transformers."""
    tokens = torch.randint(0, 96, (1, 21), generator=torch.Generator().manual_seed(1))
    cache, theirs = empty_cache(3), DynamicCache(config=model.config)
    for each in (cache, theirs):
        model(tokens[:, :12], cache=each, use_cache=True)
    ours = torch.cat([step([int(token)], [cache]) for token in tokens[0, 12:]])
    expected = [
        model(token.view(1, 1), cache=theirs, use_cache=True).logits[0] for token in tokens[0, 12:]
    ]
    assert cache.get_seq_length() == 21
    for one, other in zip(cache.layers, theirs.layers, strict=True):
        assert torch.allclose(one.keys, other.keys, atol=1e-4) or step.int8
        assert one.values.shape == other.values.shape
    return ours, torch.cat(expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_step_is_transformers_step(name: str) -> None:
    model = llama(**CONFIGS[name])
    ours, theirs = both(LlamaStep(model, int8=False), model)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", CONFIGS)
def test_int8_weights_say_nearly_the_same(name: str) -> None:
    model = llama(**CONFIGS[name])
    ours, theirs = both(LlamaStep(model, int8=True), model)
    wrong = float((ours - theirs).square().mean() / theirs.square().mean()) ** 0.5
    assert (wrong > 1e-3 or name == "odd sizes") and wrong < 0.1


def test_bfloat16_is_as_near_as_transformers_own() -> None:
    model = llama()
    with torch.inference_mode():
        exact = both(LlamaStep(model, int8=False), model)[1]
        model = model.bfloat16()
        ours, theirs = both_of_bfloat16(model)
    assert (ours - exact).square().mean() < 1.5 * (theirs - exact).square().mean()


def both_of_bfloat16(model: LlamaForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
    """As `both`; states are rounded too coarsely to be compared."""
    step = LlamaStep(model, int8=False)
    step.int8 = True
    ours, theirs = both(step, model)
    return ours, theirs.float()


@pytest.mark.parametrize("int8", [False, True])
def test_replies_share_a_pass_and_nothing_else(int8: bool) -> None:
    model = llama()
    step = LlamaStep(model, int8)
    caches = {n: [empty_cache(3) for _ in range(2)] for n in (3, 9, 6)}
    with torch.inference_mode():
        for length, pair in caches.items():
            for cache in pair:
                model(torch.arange(length).unsqueeze(0), cache=cache, use_cache=True)
    for tokens in ([7, 8, 9], [1, 2, 3]):
        together = step(tokens, [pair[0] for pair in caches.values()])
        alone = [
            step([token], [pair[1]]) for token, pair in zip(tokens, caches.values(), strict=True)
        ]
        assert torch.allclose(together, torch.cat(alone), atol=1e-4)


def test_a_reply_may_begin_from_nothing() -> None:
    model = llama()
    cache, theirs = empty_cache(3), DynamicCache(config=model.config)
    step = LlamaStep(model, int8=False)
    for token in (5, 9, 3):
        with torch.inference_mode():
            expected = model(torch.tensor([[token]]), cache=theirs, use_cache=True).logits[0]
        assert torch.allclose(step([token], [cache]), expected, atol=1e-3)


def test_each_row_has_a_scale_of_its_own() -> None:
    weight = torch.tensor([[1.0, -127.0, 63.5], [0.0, 0.001, -0.0005], [0.0, 0.0, 0.0]])
    packed, scales = quantized(weight)
    assert packed.dtype == torch.int8 and packed[0].tolist() == [1, -127, 64]
    assert scales.dtype == torch.bfloat16 and torch.isfinite(scales).all()
    assert torch.allclose(packed * scales.float().unsqueeze(1), weight, atol=0.6, rtol=0.01)


def test_other_models_are_not_taken_for_a_llama() -> None:
    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    stretched = llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    assert fits(llama()) and not fits(other) and not fits(stretched)
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no step"):
        LlamaStep(other)


def test_a_pytorch_without_int8_products_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = llama()
    assert has_int8(model)

    def missing(*_: Any) -> torch.Tensor:
        raise NotImplementedError

    monkeypatch.setattr(torch, "_weight_int8pack_mm", missing)
    with caplog.at_level(logging.WARNING):
        assert not has_int8(model)
    assert "cannot multiply int8" in caplog.text
    ours, theirs = both(LlamaStep(model), model)
    assert torch.allclose(ours, theirs, atol=1e-3 * float(theirs.abs().max()))
