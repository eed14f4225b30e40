"""Model folders as plain values: configuration and weights, whoever's they are."""

import json
from pathlib import Path
from pickle import UnpicklingError  # what torch.load raises for a file that is none
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from musilingo_core.errors import CheckpointError

WHOLE_SAFE, WHOLE_PICKLED = (
    "model.safetensors",
    "pytorch_model.bin",
)  # and the same in parts, with an index


def read_settings(folder: str | Path, name: str = "config.json") -> dict[str, Any]:
    """A folder's configuration.

    Raises:
        CheckpointError: There is none, or it is no JSON object.
    """
    try:
        settings = json.loads((Path(folder) / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(folder, detail=f"there is no {name}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(folder, detail=f"{name} cannot be read") from error
    if not isinstance(settings, dict):
        raise CheckpointError(folder, detail=f"{name} holds no settings")
    return settings


def read_state(folder: str | Path) -> dict[str, Tensor]:
    """A folder's weights by name, of as many files as there are.

    Raises:
        CheckpointError: There are none, or a file is damaged or holds more than weights.
    """
    return {name: weight[...] for name, weight in lazy_state(folder).items()}


def read_pickle(file: str | Path) -> dict[str, Any]:
    """A file that `torch.save` wrote, if it holds nothing but tensors and plain values.

    Raises:
        CheckpointError: It holds more, or is damaged.
    """
    try:
        mapped = is_zipfile(file)  # not what old versions of torch wrote
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, UnpicklingError, EOFError, LookupError, ValueError) as error:
        raise CheckpointError(file, detail=f"{Path(file).name} is damaged") from error
    if not isinstance(state, dict):
        raise CheckpointError(file, detail=f"{Path(file).name} holds no weights")
    return state


class LazyTensor:
    """A weight in a safetensors file that is read when it is asked for, and then let go of.

    transformers takes it for a slice of an open file. It is none: pages of a file that stays open
    would stay in memory beside what is made of them in another precision.

    Args:
        file: Where it is.
        name: Of the weight.
        shape: Its sizes.
    """

    def __init__(self, file: Path, name: str, shape: tuple[int, ...]) -> None:
        self.file, self.name, self.shape = file, name, shape

    def __getitem__(self, whole: object) -> Tensor:
        with safe_open(self.file, "pt") as weights:
            tensor: Tensor = weights.get_tensor(self.name)
        return tensor


def lazy_state(folder: str | Path) -> "dict[str, LazyTensor | Tensor]":
    """A folder's weights by name, none of which is read yet where there are safetensors files.

    Raises:
        CheckpointError: There are none, or a file is damaged or holds more than weights.
    """
    found: dict[str, LazyTensor | Tensor] = {}
    for file in weight_files(folder, WHOLE_SAFE, WHOLE_PICKLED):
        if file.suffix != ".safetensors":
            found |= read_pickle(file)
            continue
        with _opened(file) as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                shape = tuple(weights.get_slice(name).get_shape())
                found[name] = LazyTensor(file, name, shape)
    return found


def read_shapes(folder: str | Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights of a folder by name; nothing else is read.

    Raises:
        CheckpointError: There are none, or a file is damaged or holds more than weights.
    """
    return {name: tuple(weight.shape) for name, weight in lazy_state(folder).items()}


def weight_files(folder: str | Path, *kinds: str) -> list[Path]:
    """A folder's files of weights, as transformers finds them: others may lie beside them.

    Args:
        folder: The model's.
        kinds: `WHOLE_SAFE` or `WHOLE_PICKLED`, the first that there is.

    Raises:
        CheckpointError: There are none, or not all that the index names.
    """
    folder = Path(folder)
    for kind in kinds:
        names = [kind] if (folder / kind).is_file() else []
        if (folder / f"{kind}.index.json").is_file():
            names = _indexed(folder, f"{kind}.index.json")
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise CheckpointError(folder, detail=f"there is no {missing[0]}")
        if names:
            return [folder / name for name in names]
    raise CheckpointError(folder, detail=f"there is no {' and no '.join(kinds)}")


def _indexed(folder: Path, index: str) -> list[str]:
    names = read_settings(folder, index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(folder, detail=f"{index} names no files")
    return sorted(set(names.values()))


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(file, detail=f"{file.name} is damaged") from error
