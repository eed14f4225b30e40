"""Language models with weights of 8 or 4 bits, by bitsandbytes: for GPUs that are too small else.

T. Dettmers et al., "LLM.int8()", arXiv 2208.07339, and "QLoRA", arXiv 2305.14314 (NF4).
"""

from typing import Any

from torch import nn

from musilingo_core.errors import ConfigError


def quantize(language_model: nn.Module, bits: int) -> None:
    """Gives every linear layer but the last weights of fewer bits, once they are moved to a device.

    Args:
        language_model: Changed in place; adapters are merged already.
        bits: 8 or 4.

    Raises:
        ConfigError: The package `bitsandbytes` is not installed.
    """
    try:
        import bitsandbytes
    except ImportError as error:
        raise ConfigError(
            "Weights of 8 or 4 bits need the package bitsandbytes: pip install bitsandbytes."
        ) from error
    make = _eight_bits if bits == 8 else _four_bits
    for name, linear in list(language_model.named_modules()):
        if type(linear) is nn.Linear and linear is not language_model.get_output_embeddings():  # type: ignore[operator]
            language_model.set_submodule(name, make(bitsandbytes.nn, linear))


def _eight_bits(kinds: Any, linear: nn.Linear) -> Any:
    shape = linear.in_features, linear.out_features, linear.bias is not None
    made = kinds.Linear8bitLt(*shape, has_fp16_weights=False)
    weight = linear.weight.data
    made.weight = kinds.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    made.bias = linear.bias
    return made


def _four_bits(kinds: Any, linear: nn.Linear) -> Any:
    weight = linear.weight.data
    shape = linear.in_features, linear.out_features, linear.bias is not None
    made = kinds.Linear4bit(*shape, compute_dtype=weight.dtype, quant_type="nf4")
    made.weight = kinds.Params4bit(weight, requires_grad=False, quant_type="nf4")
    made.bias = linear.bias
    return made
