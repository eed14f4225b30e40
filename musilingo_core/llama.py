"""The decode step: one token more for several replies.

It is transformers' `LlamaForCausalLM` without what a single new position does not need; replies
share the reading of the weights and keep states of their own. `musilingo_core.packed` does the same
on a processor, faster.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache

FIXED_ROPES = ("default", "linear", "llama3", "yarn")  # the others change with a prompt's length

Product = Callable[[Tensor], Tensor]  # (rows, in) to (rows, out)


@dataclass(frozen=True)
class Block:
    """One layer's products.

    Attributes:
        attend: Hidden states to queries, keys and values, side by side.
        merge: Attention's result to hidden states.
        widen: Hidden states to gate and up, side by side.
        narrow: Their product to hidden states.
    """

    attend: Product
    merge: Product
    widen: Product
    narrow: Product


class LlamaStep:
    """The step of a LLaMA. Safe to be used by one thread at a time.

    Args:
        model: transformers' `LlamaForCausalLM`, or a subclass that computes alike.

    Raises:
        ValueError: The model's step is not that of a LLaMA; see `fits`.
    """

    def __init__(self, model: Any) -> None:
        if not fits(model):
            raise ValueError(f"{type(model).__name__} has no step that is known here")
        base, config = model.model, model.config
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.size = base.layers[0].self_attn.head_dim
        self.hidden = config.hidden_size
        self.eps = config.rms_norm_eps
        self.activation = base.layers[0].mlp.act_fn
        self.embedding = base.embed_tokens.weight
        with torch.inference_mode():
            self.blocks = [self._block(layer) for layer in base.layers]
            self.head = self._product([model.lm_head], base.norm.weight)
            self.cos, self.sin = rope_table(model)

    def _block(self, layer: Any) -> Block:
        attention, mlp = layer.self_attn, layer.mlp
        return Block(
            self._product(
                [attention.q_proj, attention.k_proj, attention.v_proj], layer.input_layernorm.weight
            ),
            self._product([attention.o_proj]),
            self._product([mlp.gate_proj, mlp.up_proj], layer.post_attention_layernorm.weight),
            self._product([mlp.down_proj]),
        )

    def _product(self, linears: Sequence[Any], norm: Tensor | None = None) -> Product:
        """Linear layers that read the same, as one, with a norm's weights on what they read."""
        return partial(_joined, linears, norm, self.embedding.dtype)

    @torch.inference_mode()
    def __call__(self, tokens: Sequence[int], caches: Sequence[Cache]) -> Tensor:
        """(replies, vocabulary) float32: logits of what follows.

        Args:
            tokens: The newest token of each reply.
            caches: Each reply's states of all that stands before; they grow by one position.
        """
        device = self.embedding.device
        hidden = self.embedding[torch.tensor(tokens, device=device)].float()
        places = [cache.get_seq_length() for cache in caches]
        cos, sin = self.cos[places].unsqueeze(1), self.sin[places].unsqueeze(1)
        for number, block in enumerate(self.blocks):
            states = [cache.layers[number] for cache in caches]
            heard = self._attention(block.attend(self._normed(hidden)), cos, sin, states)
            hidden = hidden + block.merge(heard)
            gate, up = block.widen(self._normed(hidden)).chunk(2, dim=-1)
            hidden = hidden + block.narrow(self.activation(gate) * up)
        return self.head(self._normed(hidden)).float()

    def _normed(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, (self.hidden,), None, self.eps)

    def _attention(self, joined: Tensor, cos: Tensor, sin: Tensor, states: Sequence[Any]) -> Tensor:
        """(replies, heads × size): what each newest position takes from all before it."""
        rows = joined.view(len(states), self.heads + 2 * self.groups, self.size)
        turning = rows[:, : self.heads + self.groups]
        turned = (turning * cos + turning.roll(self.size // 2, -1) * sin).to(rows.dtype)
        queries = turned[:, : self.heads].view(len(states), self.groups, -1, self.size)
        new_keys, new_values = turned[:, self.heads :], rows[:, self.heads + self.groups :]
        found, dtype = [], self.embedding.dtype
        for row, layer in enumerate(states):
            keys, values = layer.update(
                new_keys[row][None, :, None].to(dtype), new_values[row][None, :, None].to(dtype)
            )
            # The queries that share a key head stand as positions would: nothing is repeated.
            query = queries[row : row + 1].to(dtype)
            found.append(F.scaled_dot_product_attention(query, keys, values))
        return torch.cat(found).view(len(states), -1)


def _joined(
    linears: Sequence[Any], norm: Tensor | None, dtype: torch.dtype, rows: Tensor
) -> Tensor:
    """What linear layers make of the same rows, side by side; their own weights, nothing copied."""
    rows = (rows if norm is None else rows * norm).to(dtype)
    return torch.cat([linear(rows) for linear in linears], dim=-1)


def fits(model: Any) -> bool:
    """Whether a model's step is that of a LLaMA, as this file computes it."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    if any(hasattr(module, "_hf_hook") for module in model.modules()):  # accelerate spread it
        return False
    return model.config.model_type == "llama" and rope.get("rope_type") in FIXED_ROPES


def rope_table(model: Any) -> tuple[Tensor, Tensor]:
    """(positions, size) each: cosines, and sines of which the first half is negative.

    So `x` at a position is turned by `x * cos + x.roll(size // 2) * sin`.
    """
    places = torch.arange(model.config.max_position_embeddings, device=model.device)
    cos, sin = model.model.rotary_emb(torch.zeros(1, device=model.device), places[None])
    half = sin.shape[-1] // 2
    return cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)
