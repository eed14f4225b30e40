"""Where a model's weights go, and how precise they are."""

from dataclasses import dataclass

import torch

from musilingo_core.errors import ConfigError

CPU = torch.device("cpu")
SPREAD = "spread"  # said instead of a device
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Placement:
    """Where a model's weights go, and how precise they are.

    Attributes:
        device: Of language model and projection; of a language model that is spread, of the rest.
        dtype: Of the language model, `served_dtype` by default, and of MERT, by default float32.
        bits: Of the language model's weights, 8 or 4, for `quantization`.
        packed: Whether those that make words are kept as int8, too, for a processor; None where
            that is known to be faster.
        encoder_device: Of the encoder; that of the rest by default.
        spread: Whether accelerate may put layers on all GPUs, and on the processor what is left.
    """

    device: torch.device = CPU
    dtype: torch.dtype | None = None
    bits: int | None = None
    packed: bool | None = None
    encoder_device: torch.device | None = None
    spread: bool = False

    @property
    def words_dtype(self) -> torch.dtype:
        """The language model's."""
        return self.dtype or served_dtype(self.device)

    @property
    def device_map(self) -> str | dict[str, str]:
        """As `from_pretrained` takes it."""
        if self.spread:
            return "auto"
        place = str(self.device)
        if place == "cuda":  # which of them, the threads that read weights would not know
            place = f"cuda:{torch.cuda.current_device()}"
        return {"": place}


def find_device(name: str) -> torch.device:
    """`auto` is CUDA where there is some; other names are PyTorch's.

    Raises:
        ConfigError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"This machine has no device “{name}” that PyTorch can use; try auto or cpu."
        ) from error
    return device


def find_dtype(name: str) -> torch.dtype | None:
    """A precision by its name; None for `auto`, which leaves it to the device.

    Raises:
        ConfigError: There is no such precision.
    """
    if name == "auto":
        return None
    if name not in DTYPES:
        raise ConfigError(f"There is no dtype “{name}”; choose auto, {', '.join(DTYPES)}.")
    found: torch.dtype = getattr(torch, name)
    return found


def served_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32.

    Weights are the same bits everywhere; only the arithmetic differs.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32
