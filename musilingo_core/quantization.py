"""Language models with weights of 8 or 4 bits, by bitsandbytes: for GPUs that are too small else.

T. Dettmers et al., "LLM.int8()", arXiv 2208.07339, and "QLoRA", arXiv 2305.14314 (NF4).
"""

from importlib.util import find_spec

import torch
from transformers import BitsAndBytesConfig

from musilingo_core.errors import ConfigError

EXACT = ["audio_tower", "multi_modal_projector", "lm_head"]  # what keeps its weights


def quantization(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Makes `from_pretrained` give every linear layer of a language model but the last fewer bits.

    Each is read, moved and quantized before the next.

    Args:
        bits: 8 or 4.
        dtype: In which is multiplied.

    Raises:
        ConfigError: The package `bitsandbytes` is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "Weights of 8 or 4 bits need the package bitsandbytes: pip install bitsandbytes."
        )
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=EXACT)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=EXACT,
    )
