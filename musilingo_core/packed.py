"""The decode step with packed weights: one token more for several replies, near memory's speed.

Each token needs every weight of the language model once, so the bytes of the weights decide how
fast a reply is. They are kept here a second time, as int8 with a scale for each row; the model's
own go on reading prompts, where arithmetic counts instead.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import Cache

from musilingo_core import kernels
from musilingo_core.kernels import LANES, ROWS, Frame, Weights
from musilingo_core.llama import fits, rope_table

TINY = 1e-12  # a row's scale where all of it is nothing


class PackedStep:
    """The step of a LLaMA on a processor. Safe to be used by one thread at a time.

    Args:
        model: transformers' `LlamaForCausalLM`, or a subclass that computes alike.

    Raises:
        ValueError: The model's step cannot be packed; see `can_pack`.
    """

    def __init__(self, model: Any) -> None:
        if not can_pack(model):
            raise ValueError(f"the weights of {type(model).__name__} cannot be packed")
        base, config = model.model, model.config
        self.embedding = base.embed_tokens.weight
        self.head_shape = config.num_key_value_heads, base.layers[0].self_attn.head_dim
        self.vocabulary = config.vocab_size
        with torch.inference_mode():
            self.weights = pack(products(model))
            self.frame = self._frame(model)

    def _frame(self, model: Any) -> Frame:
        cos, sin = rope_table(model)
        groups, size = self.head_shape
        return Frame(
            cos=cos.float().numpy(),
            sin=sin.float().numpy(),
            layers=len(model.model.layers),
            heads=model.config.num_attention_heads,
            groups=groups,
            size=size,
            eps=model.config.rms_norm_eps,
        )

    @torch.inference_mode()
    def __call__(self, tokens: Sequence[int], caches: Sequence[Cache]) -> Tensor:
        """(replies, vocabulary) float32: logits of what follows.

        Args:
            tokens: The newest token of each reply.
            caches: Each reply's states of all that stands before; they grow by one position.

        Raises:
            ValueError: A reply has come to the end of what the model can hold.
        """
        groups, size = self.head_shape
        like = self.embedding.new_empty(1, groups, 0, size)
        places = [cache.get_seq_length() for cache in caches]
        if max(places) >= len(self.frame.cos):
            raise ValueError(f"the language model holds {len(self.frame.cos)} tokens")
        rooms = [
            [layer.reserve(place + 1, like) for layer in cache.layers]
            for place, cache in zip(places, caches, strict=True)
        ]
        logits = kernels.step(
            self.weights,
            self.frame,
            self.embedding[torch.tensor(tokens)].float().numpy(),
            np.array(places),
            np.array(rooms),
            self.embedding.dtype == torch.float32,
            torch.get_num_threads(),
        )
        for cache in caches:
            for layer in cache.layers:
                layer.length += 1
        return torch.from_numpy(logits)[:, : self.vocabulary]


def can_pack(model: Any) -> bool:
    """Whether `PackedStep` computes a model's step."""
    config = model.config
    return (
        fits(model)
        and model.device.type == "cpu"
        and model.dtype in (torch.bfloat16, torch.float32)
        and config.hidden_act == "silu"
        and type(model.model.layers[0].mlp.down_proj) is nn.Linear  # no adapter, not quantized
        and not (config.attention_bias or config.mlp_bias)
        and all(
            size % LANES == 0
            for size in (
                config.hidden_size,
                config.intermediate_size,
                model.model.layers[0].self_attn.head_dim,
            )
        )
    )


def products(model: Any) -> Iterator[Tensor]:
    """(rows, inputs) float32 of each product, in the order of `kernels.Weights`.

    The weights of a norm are in the product that reads what it gives.
    """
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        before, after = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        joined = [each.weight for each in (attention.q_proj, attention.k_proj, attention.v_proj)]
        in_turn = torch.stack([mlp.gate_proj.weight, mlp.up_proj.weight], dim=1).flatten(0, 1)
        yield torch.cat(joined).float() * before.float()
        yield attention.o_proj.weight.float()
        yield in_turn.float() * after.float()
        yield mlp.down_proj.weight.float()
    yield model.lm_head.weight.float() * model.model.norm.weight.float()


def pack(matrices: Iterable[Tensor]) -> Weights:
    """Matrices (rows, inputs), whatever they are, as int8."""
    streams: list[npt.NDArray[np.uint8]] = []
    table, at = [], 0
    for matrix in matrices:
        streams.append(packed(matrix))
        table.append((at, -(-len(matrix) // ROWS), matrix.shape[1]))
        at += len(streams[-1])
    return Weights(np.concatenate(streams), np.array(table))


def packed(matrix: Tensor) -> npt.NDArray[np.uint8]:
    """(bytes,): a product of `kernels.Weights`; rows of zeros fill the last block."""
    matrix = nn.functional.pad(matrix, (0, 0, 0, -len(matrix) % ROWS))
    scales = (matrix.abs().amax(dim=1) / 127).clamp(min=TINY)
    codes = (matrix / scales.unsqueeze(1)).round().to(torch.int8)
    blocks = codes.view(-1, ROWS, matrix.shape[1] // LANES, LANES).transpose(1, 2).flatten(1)
    both = torch.cat([blocks.view(torch.uint8), scales.view(-1, ROWS).view(torch.uint8)], dim=1)
    return both.flatten().numpy()
