from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from musilingo_core.llama import LlamaStep, fits
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
def both(step: Any, model: LlamaForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
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
        for mine, yours in zip(one.states(), (other.keys, other.values), strict=True):
            assert mine.shape == yours.shape and mine.dtype == yours.dtype
            assert wrong(mine.float(), yours.float()) < 0.1
    return ours, torch.cat(expected).float()


def wrong(found: torch.Tensor, true: torch.Tensor) -> float:
    """How far one is from the other, as a part of it (root mean squares)."""
    return float((found - true).square().mean() / true.square().mean()) ** 0.5


@pytest.mark.parametrize("name", CONFIGS)
def test_the_step_is_transformers_step(name: str) -> None:
    model = llama(**CONFIGS[name])
    ours, theirs = both(LlamaStep(model), model)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_bfloat16_is_as_near_as_transformers_own() -> None:
    model = llama()
    exact = both(LlamaStep(model), model)[1]
    model = model.bfloat16()
    ours, theirs = both(LlamaStep(model), model)
    assert wrong(ours, exact) < 1.2 * wrong(theirs, exact)


def together_and_alone(
    step: Any, model: LlamaForCausalLM, replies: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits of replies of several lengths that share passes, and of each by itself."""
    pairs = [(empty_cache(3), empty_cache(3)) for _ in range(replies)]
    with torch.inference_mode():
        for length, pair in enumerate(pairs, start=3):
            for cache in pair:
                model(torch.arange(length).unsqueeze(0), cache=cache, use_cache=True)
    for first in (7, 20):
        tokens = range(first, first + replies)
        together = step(tokens, [pair[0] for pair in pairs])
        alone = [step([token], [pair[1]]) for token, pair in zip(tokens, pairs, strict=True)]
        yield together, torch.cat(alone)


def test_replies_share_a_pass_and_nothing_else() -> None:
    model = llama()
    for together, alone in together_and_alone(LlamaStep(model), model, 3):
        assert torch.allclose(together, alone, atol=1e-4)


def test_a_reply_may_begin_from_nothing() -> None:
    model = llama()
    cache, theirs = empty_cache(3), DynamicCache(config=model.config)
    step = LlamaStep(model)
    for token in (5, 9, 3):
        with torch.inference_mode():
            expected = model(torch.tensor([[token]]), cache=theirs, use_cache=True).logits[0]
        assert torch.allclose(step([token], [cache]), expected, atol=1e-3)


def test_other_models_are_not_taken_for_a_llama() -> None:
    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    stretched = llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    assert fits(llama()) and not fits(other) and not fits(stretched)
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no step"):
        LlamaStep(other)
