"""Teaches the projection: everything else is frozen.

Prompts are rendered by the same function that chat uses, features come from files or the cache, so
an epoch never runs the encoder. A run can be stopped at any time and resumed: the next loss is the
one it would have been.
"""

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils import parametrize
from transformers import DynamicCache

from musilingo_core.data.facts import HEADS, Teacher
from musilingo_core.data.manifest import Example, FeatureFiles
from musilingo_core.encoders import fingerprint
from musilingo_core.encoders.musicnn import MusicnnEncoder
from musilingo_core.engine import hear
from musilingo_core.errors import ConfigError, ManifestError
from musilingo_core.features import Clip, FeatureCache, clip_id
from musilingo_core.likelihood import opening_of, token_losses
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import Prompt
from musilingo_core.schedule import TrainingConfig, learning_rate
from musilingo_core.weights import cache_folder, load_projection

Report = Callable[[dict[str, Any]], None]

FAINT = 0.03  # of the strongest direction: what varies less is not learnt along


def train(
    model: MusiLingoForConditionalGeneration,
    processor: MusiLingoProcessor,
    examples: Sequence[Example],
    folder: str | Path,
    config: TrainingConfig = TrainingConfig(),
    find_clip: Callable[[str], Clip] | None = None,
    report: Report = lambda row: None,
    start: str | Path | None = None,
) -> None:
    """Trains the projection of a model in place; on a CPU it is left with eager attention.

    Args:
        model: With its language model in the precision to train in.
        processor: Renders the examples.
        examples: `train` ones to learn from, `validation` ones to watch.
        folder: Gets `checkpoint.pt` (resumed from if it is there), `log.jsonl` and at the end
            `projection.safetensors`.
        config: How.
        find_clip: Gives a clip of an example; by default from feature files.
        report: Called with each row of the log.
        start: A projection file to go on from, instead of a fresh draw.

    Raises:
        ConfigError: There is nothing to train on, the checkpoint is of another run, or the encoder
            has no such heads to train along.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # What is said about one clip stands together: its features are read and kept once.
    find_clip = functools.lru_cache(maxsize=1)(find_clip or FeatureFiles().get)
    prompts = {
        split: _by_clip(processor, [e for e in examples if e.split == split], find_clip)
        for split in ("train", "validation")
    }
    if not prompts["train"]:
        raise ConfigError("The manifest has no example of the split “train”.")
    model.requires_grad_(False)
    if model.device.type == "cpu":  # the fused kernel's backward pass is slow there
        model.language_model.set_attn_implementation("eager")
    projection = model.multi_modal_projector.float().requires_grad_(True)
    if start is None:
        initialise(model, config.seed)
    else:
        load_projection(model, start)
    if config.along:
        _keep_to(projection, _directions(model, config.along, prompts["train"]))
    optimizer = torch.optim.AdamW(
        [p for p in projection.parameters() if p.requires_grad],
        config.learning_rate,
        weight_decay=config.weight_decay,
    )
    made_of = {"config": asdict(config), "data": _digest(prompts, start)}
    first = _resume(folder / "checkpoint.pt", projection, optimizer, made_of)
    _cut_log(folder / "log.jsonl", first)
    begun = time.monotonic()
    batches = _batches(prompts["train"], config, first)
    opening = opening_of(model, [p for of_split in prompts.values() for c in of_split for p in c])
    for step in range(first, config.steps):
        rate = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = train_step(model, optimizer, next(batches), config.clip_norm, opening)
        row: dict[str, Any] = {"step": step + 1, "loss": loss, "learning_rate": rate}
        done = step + 1 - first
        row["left_s"] = round((time.monotonic() - begun) / done * (config.steps - step - 1))
        if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
            row["validation_loss"] = validate(
                model, prompts["validation"], config.batch_size, opening
            )
            _checkpoint(folder / "checkpoint.pt", projection, optimizer, step + 1, made_of)
        with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        report(row)
    if config.along:
        parametrize.remove_parametrizations(projection, "weight")
    save_projection(model, folder / "projection.safetensors")


def clips_for(model: MusiLingoForConditionalGeneration) -> Callable[[str], Clip]:
    """Finds an example's clip: a feature file as it is, a sound file through the feature cache."""
    files, cache = FeatureFiles(), FeatureCache(cache_folder() / "features")
    name = fingerprint(model.audio_tower)

    def find(place: str) -> Clip:
        if FeatureFiles.is_features(place):
            clip = files.get(place)
            if clip.fingerprint != name:
                raise ManifestError(place, 0, "these features are of another encoder")
            return clip
        return cache.get_or(clip_id(place, name), lambda: hear(model.audio_tower, place, name=name))

    return find


def initialise(model: MusiLingoForConditionalGeneration, seed: int) -> None:
    """Draws a projection whose output has the size of word embeddings.

    Args:
        model: Its `multi_modal_projector` is overwritten.
        seed: Of the draw.
    """
    words: Any = model.get_input_embeddings()
    scale = float(words.weight.detach().float().std())
    linear = model.multi_modal_projector
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        values = torch.randn(linear.weight.shape, generator=dice)
        linear.weight.copy_(values * scale / linear.in_features**0.5)
        linear.bias.zero_()


class _Along(torch.nn.Module):
    """Lets a weight change only along some directions (k, size) of its input."""

    directions: Tensor

    def __init__(self, directions: Tensor, outputs: int) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        self.change = torch.nn.Parameter(directions.new_zeros(outputs, len(directions)))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.change @ self.directions


def _keep_to(projection: torch.nn.Linear, directions: Tensor) -> None:
    """A projection's weight now changes only along directions (k, size), its bias not at all.

    A bias would move what is said of everything, of noise too.
    """
    projection.requires_grad_(False)
    along = _Along(directions.to(projection.weight), projection.out_features)
    parametrize.register_parametrization(projection, "weight", along)


def _directions(
    model: MusiLingoForConditionalGeneration, heads: str, clips: Sequence[Sequence[Prompt]]
) -> Tensor:
    """What some tag heads read, as directions (k, size) in which these clips vary alike.

    Heads for like tags read nearly the same; what is left of one when the others are known is noise
    and is left out.
    """
    encoder = model.audio_tower
    if heads not in HEADS or not isinstance(encoder, MusicnnEncoder):
        raise ConfigError(
            f"Training along “{heads}” is not possible: it needs musicnn as encoder and one of "
            f"{', '.join(HEADS)}."
        )
    teacher = Teacher(encoder)
    weights = teacher.heads()[[teacher.number[tag] for tag in HEADS[heads]]].cpu()
    read = torch.cat([prompts[0].audio_features[0] for prompts in clips]) @ weights.T
    _, sizes, axes = torch.linalg.svd(read, full_matrices=False)
    spread = sizes / len(read) ** 0.5
    kept = spread > FAINT * spread[0]
    return (axes[kept] / spread[kept].unsqueeze(1)) @ weights


def loss_of(
    model: MusiLingoForConditionalGeneration,
    clips: Sequence[Sequence[Prompt]],
    opening: DynamicCache | None = None,
) -> tuple[Tensor, int]:
    """Summed cross-entropy (nats) of a batch's labelled tokens, and their number.

    The same as `forward(labels=…)` would give, only quicker; see `likelihood.token_losses`.
    """
    losses, _ = token_losses(model, clips, opening)
    return losses.sum(), len(losses)


def train_step(
    model: MusiLingoForConditionalGeneration,
    optimizer: torch.optim.Optimizer,
    clips: Sequence[Sequence[Prompt]],
    clip_norm: float,
    opening: DynamicCache | None = None,
) -> float:
    """One optimizer step; gives the mean loss a token before it."""
    optimizer.zero_grad(set_to_none=True)
    loss, tokens = loss_of(model, clips, opening)
    (loss / tokens).backward()
    torch.nn.utils.clip_grad_norm_(model.multi_modal_projector.parameters(), clip_norm)
    optimizer.step()
    return float(loss.detach()) / tokens


@torch.no_grad()
def validate(
    model: MusiLingoForConditionalGeneration,
    clips: Sequence[Sequence[Prompt]],
    batch_size: int,
    opening: DynamicCache | None = None,
) -> float | None:
    """Mean loss a token over held-out clips; None when there are none."""
    total, tokens = 0.0, 0
    for start in range(0, len(clips), batch_size):
        loss, count = loss_of(model, clips[start : start + batch_size], opening)
        total, tokens = total + float(loss), tokens + count
    return total / tokens if tokens else None


def save_projection(model: MusiLingoForConditionalGeneration, path: str | Path) -> None:
    """Writes the projection alone, bfloat16, whole or not at all."""
    path = Path(path)
    state = model.multi_modal_projector.state_dict()
    temporary = path.with_suffix(".tmp")
    save_file({k: v.detach().bfloat16().contiguous() for k, v in state.items()}, temporary)
    os.replace(temporary, path)


def _by_clip(
    processor: MusiLingoProcessor,
    examples: Sequence[Example],
    find_clip: Callable[[str], Clip],
) -> list[list[Prompt]]:
    """For each clip the prompts about it."""
    clips: dict[str, list[Prompt]] = {}
    for example in examples:
        prompt = processor.render(example.messages(), find_clip)
        clips.setdefault(example.clip, []).append(prompt)
    return list(clips.values())


def _batches(
    clips: Sequence[Sequence[Prompt]], config: TrainingConfig, first: int
) -> Iterator[list[Sequence[Prompt]]]:
    """Endless batches of clips with prompts of like length, from step `first`.

    The same for the same seed.
    """
    lengths = [max(len(prompt.ids) for prompt in prompts) for prompts in clips]
    step, epoch = 0, 0
    while True:
        rng = Random(f"{config.seed}-{epoch}")
        order = list(range(len(clips)))
        rng.shuffle(order)
        # Sorted inside windows of sixteen batches: little padding, still random.
        window = 16 * config.batch_size
        windows = [order[i : i + window] for i in range(0, len(order), window)]
        order = [n for w in windows for n in sorted(w, key=lengths.__getitem__)]
        groups = [order[i : i + config.batch_size] for i in range(0, len(order), config.batch_size)]
        rng.shuffle(groups)
        for group in groups:
            if step >= first:
                yield [clips[n] for n in group]
            step += 1
        epoch += 1


def _cut_log(path: Path, steps: int) -> None:
    """Drops rows of steps that will be taken again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:steps]), encoding="utf-8")


def _digest(clips: dict[str, list[list[Prompt]]], start: str | Path | None) -> str:
    """Tells runs apart that learn from other words, other music or another beginning."""
    digest = hashlib.sha256(Path(start).read_bytes() if start is not None else b"")
    for split in sorted(clips):
        for prompt in (prompt for prompts in clips[split] for prompt in prompts):
            digest.update(str((split, prompt.ids)).encode())
            for rows in prompt.audio_features:
                digest.update(rows.numpy().tobytes())
    return digest.hexdigest()


def _checkpoint(
    path: Path, projection: torch.nn.Module, optimizer: Any, step: int, made_of: dict[str, Any]
) -> None:
    state = {
        "projection": projection.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        **made_of,
    }
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _resume(
    path: Path, projection: torch.nn.Module, optimizer: Any, made_of: dict[str, Any]
) -> int:
    """Takes up a checkpoint if there is one; gives the step to go on with."""
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if {name: state.get(name) for name in made_of} != made_of:
        raise ConfigError(
            f"{path} is of a run with other settings or other data; choose another folder."
        )
    projection.load_state_dict(state["projection"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
