import numpy as np
import pytest
import torch
from transformers import DynamicCache, LlamaForCausalLM

from musilingo_core import kernels
from musilingo_core.decoder import Decoder
from musilingo_core.errors import ConfigError
from musilingo_core.kernels import ROWS
from musilingo_core.llama import LlamaStep
from musilingo_core.packed import PackedStep, can_pack, pack
from musilingo_core.prefix_cache import empty_cache
from tests.test_llama import CONFIGS, both, llama, together_and_alone, wrong

UNFIT = ("biases", "odd sizes", "another activation")  # left to the plain step
PACKED = [name for name in CONFIGS if name not in UNFIT]
LENGTH_CHANGES = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


def round_weights(model: LlamaForCausalLM) -> None:
    """Makes what is packed whole numbers of 127ths of each row's largest: int8 loses nothing."""
    one = torch.ones(())
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
            round_weight(linear.weight, layer.input_layernorm.weight)
        for linear in (mlp.gate_proj, mlp.up_proj):
            round_weight(linear.weight, layer.post_attention_layernorm.weight)
        round_weight(attention.o_proj.weight, one)
        round_weight(mlp.down_proj.weight, one)
    if not model.config.tie_word_embeddings:
        round_weight(model.lm_head.weight, model.model.norm.weight)


@torch.no_grad()
def round_weight(weight: torch.Tensor, norm: torch.Tensor) -> None:
    scales = (weight * norm).abs().amax(1, keepdim=True) / 127
    weight.copy_((weight * norm / scales).round() * scales / norm)


@pytest.mark.parametrize("name", PACKED)
def test_the_step_is_transformers_step(name: str) -> None:
    model = llama(**CONFIGS[name])
    round_weights(model)
    ours, theirs = both(PackedStep(model), model)
    assert wrong(ours, theirs) < (0.05 if name == "tied" else 1e-5)


def test_rounded_weights_say_nearly_the_same() -> None:
    model = llama()
    ours, theirs = both(PackedStep(model), model)
    assert 1e-3 < wrong(ours, theirs) < 0.1


def test_bfloat16_is_as_near_as_transformers_own() -> None:
    model = llama()
    round_weights(model)
    exact = both(LlamaStep(model), model)[1]
    model = model.bfloat16()
    ours, theirs = both(PackedStep(model), model)
    assert wrong(ours, exact) < 1.2 * wrong(theirs, exact)


@pytest.mark.parametrize("replies", [1, 2, 3, 4, 5, 6, 7, 8, 13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replies_share_a_pass_and_nothing_else(replies: int, dtype: torch.dtype) -> None:
    model = llama().to(dtype)
    for together, alone in together_and_alone(PackedStep(model), model, replies):
        assert torch.equal(together, alone)


@pytest.mark.parametrize("threads", [1, 2, 3, 1000])
def test_any_number_of_threads_finds_the_same(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama()
    step = PackedStep(model)
    expected = both(step, model)[0]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert torch.equal(both(step, model)[0], expected)


def test_a_reply_may_begin_from_nothing_and_outgrow_its_room() -> None:
    model = llama(max_position_embeddings=400)
    round_weights(model)
    cache, theirs = empty_cache(3), DynamicCache(config=model.config)
    step = PackedStep(model)
    for place in range(300):
        ours = step([place % 90], [cache])
        with torch.inference_mode():
            given = torch.tensor([[place % 90]])
            expected = model(given, cache=theirs, use_cache=True).logits[0]
        assert wrong(ours, expected) < 1e-4


def test_what_others_share_is_never_written_to() -> None:
    model = llama(max_position_embeddings=300)
    step, cache = PackedStep(model), empty_cache(3)
    for token in range(5):
        step([token], [cache])
    kept = [tuple(state.clone() for state in layer.states()) for layer in cache.layers]
    views = [layer.states() for layer in cache.layers]
    for token in range(200):
        step([token % 90], [cache])
    for one, other in zip(kept, views, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_weights_are_packed_in_blocks_of_rows_that_end_with_their_scales() -> None:
    matrix = torch.arange(6 * 32.0).view(6, 32) - 50
    weights = pack([torch.ones(4, 16), matrix])
    assert weights.table.tolist() == [[0, 1, 16], [80, 2, 32]]
    assert len(weights.stream) == 80 + 2 * (ROWS * 32 + 16)
    for number, row in ((0, 2), (1, 1)):  # the sixth row
        block = weights.stream[80:][number * 144 :][:144]
        codes = block[:128].view(np.int8).reshape(2, ROWS, 16)[:, row].flatten()
        scale = block[128:].view(np.float32)[row]
        true = matrix[number * ROWS + row].numpy()
        assert abs(codes).max() == 127
        assert np.allclose(codes * scale, true, atol=0.51 * scale)
    assert not weights.stream[80 + 144 + 32 :][:32].any()  # no seventh row, no eighth


def test_rows_of_nothing_are_nothing() -> None:
    model = llama()
    model.model.layers[0].mlp.up_proj.weight.data.zero_()
    assert torch.isfinite(both(PackedStep(model), model)[0]).all()


def test_what_cannot_be_packed_takes_the_plain_step() -> None:
    for name in UNFIT:
        model = llama(**CONFIGS[name])
        assert not can_pack(model) and isinstance(Decoder(model)._step, LlamaStep)
    narrow = llama(head_dim=8)
    assert not can_pack(llama(rope_parameters=LENGTH_CHANGES)) and not can_pack(narrow)
    assert not can_pack(llama().half())
    with pytest.raises(ValueError, match="cannot be packed"):
        PackedStep(narrow)
    with pytest.raises(ConfigError, match="cannot be packed"):
        Decoder(narrow, packed=True)
    model = llama()
    assert Decoder(model).packed and not Decoder(model, packed=False).packed


def test_a_reply_ends_with_what_the_model_holds() -> None:
    model = llama(max_position_embeddings=3)
    step, cache = PackedStep(model), empty_cache(3)
    for token in (5, 6, 7):
        step([token], [cache])
    with pytest.raises(ValueError, match="holds 3 tokens"):
        step([8], [cache])
    assert cache.get_seq_length() == 3


def test_what_is_infinite_or_no_number_stays_so() -> None:
    model = llama()
    model.model.embed_tokens.weight.data[5, 3] = torch.nan
    cache = empty_cache(3)
    step = PackedStep(model)
    assert torch.isnan(step([5], [cache])).all()
    assert torch.isfinite(step([4], [empty_cache(3)])).all()


def test_callers_from_several_threads_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kernels._ALONE.locked()
    seen = []
    monkeypatch.setattr(kernels, "_step", lambda *_: seen.append(kernels._ALONE.locked()))
    kernels.step(*[None] * 6, 1)  # type: ignore[arg-type]
    assert seen == [True]
