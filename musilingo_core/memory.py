"""How much memory a model takes, told before minutes of loading it.

Weights are counted exactly. What hearing takes beside them was measured (`benchmarks.encode`); what
words take are the states of one whole context.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.errors import NotEnoughMemory
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.placement import CPU, Placement

HEARING = {"mert": 900_000_000, "musicnn": 60_000_000}  # bytes for a window, beside weights
CONTEXT = 8192  # positions whose states are counted; chats are shorter than what some models hold
BLOCK = 64  # weights of 4 bits that share a float32 scale
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Need:
    """Bytes of a model's two sides.

    Attributes:
        hearing: The encoder's weights and what a window of sound takes.
        words: The language model's weights, the projection's, and states of one whole context.
    """

    hearing: int
    words: int

    def __add__(self, more: int) -> int:
        return self.hearing + self.words + more


def need(config: MusiLingoConfig, placement: Placement) -> Need:
    """What a model takes where it runs.

    Args:
        config: Its shape; no weights are needed.
        placement: How precise it is to be.
    """
    with torch.device("meta"):
        model = MusiLingoForConditionalGeneration(config)
    kind = config.audio_config.model_type
    exact = placement.dtype is None or kind != "mert"
    hearing = _count(model.audio_tower) * (4 if exact else _bytes(placement.dtype))
    text = config.text_config
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    width = _bytes(placement.words_dtype)
    context = min(text.max_position_embeddings, CONTEXT)
    states = 2 * text.num_hidden_layers * heads * size * context * width
    words = _words(model.language_model, placement) + 4 * _count(model.multi_modal_projector)
    return Need(hearing + HEARING.get(kind, 0), words + states)


def check_memory(config: MusiLingoConfig, placement: Placement) -> None:
    """Refuses a model that does not fit where it is to go.

    Raises:
        NotEnoughMemory: It does not; says what it needs, what is free, and what would fit.
    """
    if _fits(config, placement):
        return
    variants = {
        "--dtype bfloat16": replace(placement, dtype=torch.bfloat16),
        "--weights plain": replace(placement, packed=False),
        "--dtype bfloat16 --weights plain": replace(placement, dtype=torch.bfloat16, packed=False),
        "--weights 8bit": replace(placement, bits=8, packed=False),
        "--weights 4bit": replace(placement, bits=4, packed=False),
        "--weights 4bit --encoder-device cpu": replace(
            placement, bits=4, packed=False, encoder_device=torch.device("cpu")
        ),
        "--device cpu": replace(placement, device=torch.device("cpu"), encoder_device=None),
    }
    fitting = [
        (words, need(config, other) + 0)
        for words, other in variants.items()
        if need(config, other) != need(config, placement) or other.device != placement.device
        if _fits(config, other)
    ]
    total = need(config, placement) + 0
    raise NotEnoughMemory(total, free_bytes(placement.device), str(placement.device), fitting)


def _fits(config: MusiLingoConfig, placement: Placement) -> bool:
    needed = need(config, placement)
    if placement.bits is not None or placement.encoder_device is not None:
        whole = need(config, replace(placement, bits=None, packed=False, encoder_device=None))
        if whole + 0 > free_bytes(CPU):  # through which it is loaded
            return False
    elsewhere = placement.encoder_device
    if elsewhere is None or elsewhere == placement.device:
        return needed + 0 <= free_bytes(placement.device)
    fits = needed.hearing <= free_bytes(elsewhere)
    return fits and needed.words <= free_bytes(placement.device)


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on a device: of a container what it is allowed."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    try:
        most = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        rows = (CGROUP / "memory.stat").read_text().splitlines()
        files = dict(row.split() for row in rows if row.startswith(("active_f", "inactive_f")))
        used -= sum(map(int, files.values()))  # what was read of files makes room where it must
    except (OSError, ValueError):  # no container, or one without a bound ("max")
        return free
    return min(free, most - used)


def _words(language_model: Any, placement: Placement) -> int:
    """Bytes of a language model's weights."""
    width, bits = _bytes(placement.words_dtype), placement.bits
    head = language_model.get_output_embeddings()
    linear = sum(
        each.weight.numel()
        for each in language_model.modules()
        if isinstance(each, nn.Linear) and each is not head
    )
    plain = _count(language_model) * width
    if bits is not None:
        scales = 4 * linear // BLOCK if bits == 4 else 0
        return plain - linear * width + linear * bits // 8 + scales
    if placement.packed is False or placement.device.type != "cpu":
        return plain
    return plain + linear + head.weight.numel()  # once more, as int8


def _count(module: Any) -> int:
    """Values of a module, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(dtype: torch.dtype | None) -> int:
    return torch.empty(0, dtype=dtype).element_size()
