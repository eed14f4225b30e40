"""Low-rank adapters of the language model (LoRA, arXiv 2106.09685): for who wants more than a line.

They are peft's, in its file format. Only this file knows the package, and only learning needs it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from musilingo_core.errors import CheckpointError, ConfigError
from musilingo_core.folders import LazyTensor

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
# Of peft's names; `PeftModel.from_pretrained` looks for the first.
PREFIX, DOWN, UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


def add_adapter(language_model: nn.Module, rank: int, seed: int) -> None:
    """Gives every linear layer of a language model but the last an adapter that learns.

    Args:
        language_model: Changed in place; says the same as before until the adapters have learnt.
        rank: Of the adapters; their scale is 2.
        seed: Of their first values.

    Raises:
        ConfigError: The package `peft` is not installed.
    """
    peft = _peft()
    torch.manual_seed(seed)
    settings = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    _inject(settings, language_model)


def load_adapter(language_model: nn.Module, folder: str | Path, rank: int | None = None) -> None:
    """Gives a language model the adapters that `save_adapter` wrote; they learn on.

    Args:
        language_model: Changed in place.
        folder: Of the adapters.
        rank: That they must have; by default any.

    Raises:
        ConfigError: They are of another rank, or the package `peft` is not installed.
        CheckpointError: There are no such adapters, or they do not fit the model.
    """
    peft = _peft()
    try:
        settings = peft.LoraConfig.from_pretrained(folder)
        if rank not in (None, settings.r):
            raise ConfigError(f"{folder} can be trained on with lora_rank = {settings.r} only.")
        state = _read(folder)
        _inject(settings, language_model)
        unfit = peft.set_peft_model_state_dict(language_model, state).unexpected_keys
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(folder, detail=str(error).splitlines()[0]) from error
    if unfit:
        raise CheckpointError(folder, unexpected=unfit)


def save_adapter(language_model: nn.Module, folder: str | Path) -> None:
    """Writes the adapters as peft does: weights (bfloat16) and their settings."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = language_model
    state = _peft().get_peft_model_state_dict(model)
    kept = {PREFIX + name: value.detach().bfloat16().contiguous() for name, value in state.items()}
    save_file(kept, folder / WEIGHTS)
    model.peft_config["default"].save_pretrained(folder)


class Adapted:
    """A weight W that is W + α / r · B A once it is read (arXiv 2106.09685, section 4.1), float32.

    Args:
        weight: What gives W.
        down: A.
        up: B.
        scale: α / r.
    """

    def __init__(self, weight: LazyTensor | Tensor, down: Tensor, up: Tensor, scale: float) -> None:
        self.weight, self.down, self.up, self.scale = weight, down, up, scale

    @property
    def shape(self) -> tuple[int, int]:
        """Of what was learnt: (out, in)."""
        return self.up.shape[0], self.down.shape[1]

    def __getitem__(self, whole: object) -> Tensor:
        return self.weight[...].float() + self.scale * (self.up.float() @ self.down.float())


def adapted(
    state: Mapping[str, LazyTensor | Tensor], folder: str | Path, prefix: str = ""
) -> dict[str, Any]:
    """Weights with what adapters have learnt, before anything is loaded: it costs nothing later.

    It does without peft, whose import would take longer than all of this.

    Args:
        state: The language model's, by name, and perhaps others.
        folder: Of the adapters.
        prefix: Of the language model's names.

    Raises:
        CheckpointError: There are no such adapters, or they do not fit these weights.
    """
    found: dict[str, Any] = dict(state)
    try:
        settings = json.loads((Path(folder) / SETTINGS).read_text(encoding="utf-8"))
        learnt = _read(folder)
        scale = settings["lora_alpha"] / settings["r"]
        for layer in [name.removesuffix(DOWN) for name in learnt if name.endswith(DOWN)]:
            name, down, up = f"{prefix}{layer}.weight", learnt.pop(layer + DOWN), layer + UP
            weight = Adapted(found[name], down, learnt.pop(up), scale)
            if tuple(weight.weight.shape) != weight.shape:
                raise ValueError(f"{name} is not {weight.shape}")
            found[name] = weight
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise CheckpointError(folder, detail=str(error).splitlines()[0]) from error
    if learnt:
        raise CheckpointError(folder, unexpected=sorted(learnt))
    return found


def _read(folder: str | Path) -> dict[str, Tensor]:
    """Adapters' weights, by the names that layers have in the language model itself."""
    state = load_file(Path(folder) / WEIGHTS)
    return {name.removeprefix(PREFIX): value for name, value in state.items()}


def _inject(settings: Any, language_model: nn.Module) -> None:
    """Adds adapters that learn, in float32 however coarse what is frozen."""
    _peft().inject_adapter_in_model(settings, language_model)
    for name, parameter in language_model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("Adapters need the package peft: pip install peft.") from error
    return peft
