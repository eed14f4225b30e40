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
    """Bytes that a model takes.

    Attributes:
        ear: The encoder's weights.
        window: What hearing a window of sound takes beside them.
        words: The language model's weights and the projection's.
        states: Those of one whole context.
    """

    ear: int
    window: int
    words: int
    states: int

    @property
    def total(self) -> int:
        """All together."""
        return self.ear + self.window + self.words + self.states


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
    ear = _count(model.audio_tower) * (4 if exact else _bytes(placement.dtype))
    text = config.text_config
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    width = _bytes(placement.words_dtype)
    context = min(text.max_position_embeddings, CONTEXT)
    states = 2 * text.num_hidden_layers * heads * size * context * width
    words = _words(model.language_model, placement) + 4 * _count(model.multi_modal_projector)
    return Need(ear, HEARING.get(kind, 0), words, states)


def check_memory(config: MusiLingoConfig, placement: Placement) -> None:
    """Refuses a model that does not fit where it is to go.

    Raises:
        NotEnoughMemory: It does not; says what it needs, what is free, and what would fit.
    """
    if _fits(config, placement):
        return
    needed = need(config, placement)
    fitting = [
        (words, need(config, other).total)
        for words, other in _others(placement)
        if need(config, other) != needed or other.device != placement.device or other.spread
        if _fits(config, other)
    ]
    raise NotEnoughMemory(needed.total, _free(placement), str(placement.device), fitting)


def _others(placement: Placement) -> list[tuple[str, Placement]]:
    """(options, placement): what may be tried instead."""
    half: dict[str, Any] = {"dtype": torch.bfloat16}
    plain = {"packed": False, "bits": None}
    found: list[tuple[str, dict[str, Any]]] = [
        ("--dtype bfloat16", half),
        ("--weights plain", plain),
        ("--dtype bfloat16 --weights plain", half | plain),
    ]
    if placement.device.type == "cuda":
        four = {"bits": 4, "packed": False}
        found += [
            ("--weights 8bit", four | {"bits": 8}),
            ("--weights 4bit", four),
            ("--weights 4bit --encoder-device cpu", four | {"encoder_device": CPU}),
            ("--device spread", {"spread": True}),
            ("--device cpu", {"device": CPU, "encoder_device": None, "spread": False}),
        ]
    return [(words, replace(placement, **changes)) for words, changes in found]


def _fits(config: MusiLingoConfig, placement: Placement) -> bool:
    needed, elsewhere = need(config, placement), placement.encoder_device
    if elsewhere is None or elsewhere == placement.device:
        return needed.total <= _free(placement)
    # A checkpoint that holds all of it brings the encoder, too, before that moves.
    here = needed.words + max(needed.states, needed.ear)
    return needed.ear + needed.window <= free_bytes(elsewhere) and here <= _free(placement)


def _free(placement: Placement) -> int:
    if not placement.spread:
        return free_bytes(placement.device)
    gpus = range(torch.cuda.device_count())
    free = sum(free_bytes(torch.device("cuda", each)) for each in gpus)
    return free if placement.bits else free + free_bytes(CPU)  # fewer bits are for GPUs only


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
