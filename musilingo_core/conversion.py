"""Published checkpoints in compact form: a projection of a few MB beside its two base models.

MERT and Vicuna are frozen, so they are the same in every MusiLingo checkpoint: whoever has them
keeps them once, and each checkpoint's projection and prompt form beside them.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from musilingo_core import checkpoints
from musilingo_core.checkpoints import ENCODER, PROJECTION, WORDS
from musilingo_core.encoders.mert import MertConfig, MertEncoder
from musilingo_core.errors import CheckpointError, ConfigError
from musilingo_core.folders import WHOLE_SAFE, lazy_state, read_settings, weight_files
from musilingo_core.forms import prompt_settings
from musilingo_core.models import Source
from musilingo_core.storage import OnStatus
from musilingo_core.weights import folder_of, published_bases

BESIDE = ("tokenizer", "special_tokens_map", "added_tokens", "vocab", "generation_config")


def convert(
    folder: str | Path,
    output: str | Path,
    source: Source = Source(),
    on_status: OnStatus | None = None,
) -> None:
    """Writes a published checkpoint in compact form, which `--model` takes.

    Into `output` go `projection.safetensors` and `musilingo.json`. The base models go into its
    folders `encoder` and `language_model`, unless `source` names others: these must have the very
    weights of the checkpoint, and are then only named.

    Args:
        folder: The checkpoint.
        output: Where to; made if there is none.
        source: `encoder` and `language_model`, where they are kept already.
        on_status: Told what is going on.

    Raises:
        CheckpointError: It is no published checkpoint, or a named base model has other weights.
    """
    settings = read_settings(folder)
    if not checkpoints.is_published(settings):
        raise CheckpointError(folder, detail="it is no MusiLingo checkpoint as published")
    if Path(output).resolve() == Path(folder).resolve():
        raise ConfigError("Name another folder than the checkpoint's own as output.")
    heard, words = published_bases(folder, settings, source, on_status)
    files = weight_files(folder, WHOLE_SAFE)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    tell = on_status or (lambda text, fraction: None)
    tell("Writing the projection", None)
    projection = dict(_tensors(files, PROJECTION))
    if sorted(projection) != ["bias", "weight"]:
        raise CheckpointError(folder, ["llama_proj.weight", "llama_proj.bias"])
    save_file(projection, output / "projection.safetensors")
    names = {}
    for part, prefix, named in (
        ("encoder", ENCODER, source.encoder),
        ("language_model", WORDS, source.language_model),
    ):
        if named is not None:
            tell(f"Comparing with {named}", None)
            _compare(files, prefix, folder_of(named, on_status))
            names[part] = str(Path(named).resolve() if Path(named).is_dir() else named)
            continue
        tell(f"Writing the {part.replace('_', ' ')}", None)
        target = output / part
        target.mkdir(exist_ok=True)
        if part == "encoder":
            _write_encoder(heard, files, target)
        else:
            _write_language_model(checkpoints.text_config(settings), words, files, target)
        names[part] = part
    text = json.dumps({**names, **prompt_settings("paper")}, indent=2, ensure_ascii=False)
    (output / "musilingo.json").write_text(text + "\n", encoding="utf-8")


def _tensors(files: list[Path], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """(name without the prefix, tensor) of all that begin so, one at a time."""
    for file in files:
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                if name.startswith(prefix) and not name.endswith("rotary_emb.inv_freq"):
                    yield name.removeprefix(prefix), weights.get_tensor(name)


def _write_encoder(config: MertConfig, files: list[Path], target: Path) -> None:
    encoder = MertEncoder(config)
    encoder.fill(dict(_tensors(files, ENCODER)), files[0].parent)
    encoder.save_pretrained(target)


def _write_language_model(
    config: LlamaConfig, tokenizer: Path, files: list[Path], target: Path
) -> None:
    """File by file, so that no more than one of them stands in memory."""
    index: dict[str, str] = {}
    for number, file in enumerate(files, start=1):
        if state := dict(_tensors([file], WORDS)):
            name = f"model-{number:05}-of-{len(files):05}.safetensors"
            save_file(state, target / name, {"format": "pt"})
            index |= dict.fromkeys(state, name)
    whole = {"metadata": {}, "weight_map": index}
    (target / "model.safetensors.index.json").write_text(json.dumps(whole, indent=1), "utf-8")
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(target)
    beside = [*tokenizer.iterdir(), *files[0].parent.glob("generation_config.json")]
    for file in beside:
        if file.suffix == ".jinja" or file.name.startswith(BESIDE):
            shutil.copyfile(file, target / file.name)


def _compare(files: list[Path], prefix: str, base: Path) -> None:
    """Whether a base model has the checkpoint's weights, in its precision.

    Raises:
        CheckpointError: It has not; names the first weight that differs.
    """
    theirs = {_plain(name): weight for name, weight in lazy_state(base).items()}
    for name, tensor in _tensors(files, prefix):
        if _plain(name) not in theirs:
            raise CheckpointError(base, missing=[name])
        other = theirs.pop(_plain(name))[...]
        if other.shape != tensor.shape or not torch.equal(other.to(tensor.dtype), tensor):
            raise CheckpointError(base, detail=f"{name} is another than in the checkpoint")
    more = sorted(name for name in theirs if not name.endswith(("inv_freq", "masked_spec_embed")))
    if more:
        raise CheckpointError(base, unexpected=more)


def _plain(name: str) -> str:
    """A weight's name without what layouts and versions of torch differ in."""
    return checkpoints.spelled(name).removeprefix("hubert.").removeprefix("model.")
