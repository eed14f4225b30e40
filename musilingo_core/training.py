"""Teaches the projection: everything else is frozen, unless low-rank adapters are asked for.

Prompts are rendered by the same function that chat uses, features come from files, so an epoch
never runs the encoder. A run can be stopped at any time and resumed: the next loss is the
one it would have been. Started by `accelerate launch`, several processes share each step.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor
from transformers import DynamicCache

from musilingo_core.adapter import WEIGHTS, add_adapter, load_adapter
from musilingo_core.data.loader import Batch, Loader
from musilingo_core.data.manifest import Example, FeatureFiles, kept_rows
from musilingo_core.errors import ConfigError
from musilingo_core.features import Clip, pool
from musilingo_core.initialisation import draw, embed_words, fit_words
from musilingo_core.likelihood import opening_of, token_losses
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import Prompt
from musilingo_core.release import ADAPTER, save
from musilingo_core.schedule import TrainingConfig, learning_rate
from musilingo_core.weights import load_projection, projection_file
from musilingo_core.whitening import Whitened

logger = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]

SAMPLED = 2000  # clips whose features are measured before the first step
OPENED = 50  # clips whose prompts tell what all prompts begin with


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
        model: With its language model in the precision to train in, or see `config.precision`.
        processor: Renders the examples.
        examples: `train` ones to learn from, `validation` ones to watch; see `data.clips.usable`.
        folder: Gets `checkpoint.pt` (resumed from if it is there), `log.jsonl` and at the end
            what `release.save` writes.
        config: How.
        find_clip: Gives a clip of an example; by default from feature files.
        report: Called with each row of the log.
        start: A projection to go on from, or the folder of a run, whose adapters learn on, too.
            Without one, it begins with the examples' words if they have any, else at random.

    Raises:
        ConfigError: There is nothing to train on, the checkpoint is of another run, the start has
            adapters of another rank, or the loss is no longer a number.
    """
    folder, processes = Path(folder), PartialState(cpu=model.device.type == "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    find_clip = find_clip or FeatureFiles().get
    data = {
        split: Loader(processor, [e for e in examples if e.split == split], find_clip, config, most)
        for split, most in (("train", 0), ("validation", config.validation_clips))
    }
    if not len(data["train"]):
        raise ConfigError("The manifest has no example of the split “train”.")
    if not len(data["validation"]) and processes.is_main_process:
        logger.warning("No example is of the split “validation”, so nothing is held out.")
    first_prompts = data["train"].some(OPENED)
    kept = _prepare(model, processor, config, start, data["train"])
    learnt = [tensor for tensor in kept.values() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(learnt, config.learning_rate, weight_decay=config.weight_decay)
    half = config.precision == "float16"  # its small gradients would vanish unscaled
    scaler = torch.amp.GradScaler(model.device.type, init_scale=2.0**10, enabled=half)
    run = {"config": asdict(config), "processes": processes.num_processes}
    run["data"] = _digest(data, start)
    state = _State(folder / "checkpoint.pt", kept, optimizer, scaler, run)
    first = state.resume()
    if processes.is_main_process:
        _cut_log(folder / "log.jsonl", first)
    # With adapters the language model changes, and what it makes of the opening with it.
    opening = None if config.lora_rank else opening_of(model, first_prompts)
    for row in _steps(model, data, state, config, first, opening):
        if processes.is_main_process:
            with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
            report(row)
    if isinstance(model.multi_modal_projector, Whitened):
        model.multi_modal_projector = model.multi_modal_projector.plain()
    if processes.is_main_process:
        save(model, processor, folder, config, examples, kept_rows(folder / "log.jsonl"))
    processes.wait_for_everyone()


def _prepare(
    model: MusiLingoForConditionalGeneration,
    processor: MusiLingoProcessor,
    config: TrainingConfig,
    start: str | Path | None,
    data: Loader,
) -> dict[str, Tensor]:
    """Readies a model for training; gives what learns, and the coordinates it does so in, by name.

    They are the same in all processes.
    """
    model.requires_grad_(False)
    if config.precision != "auto":
        model.language_model.to(getattr(torch, config.precision))
    if model.device.type == "cpu":  # the fused kernel's backward pass is slow there
        model.language_model.set_attn_implementation("eager")
    model.multi_modal_projector.float()
    begun = _begin(model, processor, config, start, data)
    rows = torch.cat([pool(f, model.config.segments) for f in data.features(SAMPLED)])
    rows = rows.to(model.device)
    if config.whiten:
        model.multi_modal_projector = Whitened(model.multi_modal_projector, rows, config.whiten)
    if not begun:
        words: Any = model.get_input_embeddings()
        size = config.scale * float(words.weight.std())
        draw(model.multi_modal_projector, rows, size, config.seed)
    model.multi_modal_projector.requires_grad_(True)
    if start is not None and (adapter := Path(start) / ADAPTER).is_dir():
        load_adapter(model.language_model, adapter, config.lora_rank)
    elif config.lora_rank:
        add_adapter(model.language_model, config.lora_rank, config.seed)
    kept: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    kept |= model.multi_modal_projector.named_buffers(prefix="multi_modal_projector")
    for tensor in kept.values():
        tensor.data.copy_(broadcast(tensor.detach().contiguous()))
    return kept


def _begin(
    model: MusiLingoForConditionalGeneration,
    processor: MusiLingoProcessor,
    config: TrainingConfig,
    start: str | Path | None,
    data: Loader,
) -> bool:
    """Begins a projection with an earlier one, or with words; False where there is neither."""
    if start is not None:
        load_projection(model, processor, start)
    elif described := data.described():
        begin_with_words(model, processor, described, config.scale)
    else:
        return False
    return True


def begin_with_words(
    model: MusiLingoForConditionalGeneration,
    processor: MusiLingoProcessor,
    described: Sequence[tuple[Tensor, tuple[str, ...]]],
    scale: float = 1.0,
) -> None:
    """Fits a projection so that each token of a row points where its word does.

    Args:
        model: Its projection is overwritten.
        processor: Its processor.
        described: Feature rows (rows, size) of clips, and a word for each token of a row.
        scale: How many times as large as words the tokens are to be.

    Raises:
        ConfigError: A clip has not as many words as a row has tokens.
    """
    tokens = model.config.tokens_per_row
    if wrong := next((words for _, words in described if len(words) != tokens), None):
        raise ConfigError(
            f"A row has {tokens} tokens and a clip {len(wrong)} words to begin with: {wrong}."
        )
    known = sorted({word for _, words in described for word in words})
    embeddings: Any = model.get_input_embeddings()
    table = embed_words(known, processor.tokenizer, embeddings.weight)
    number = {word: n for n, word in enumerate(known)}
    wanted = torch.stack([table[[number[w] for w in words]].flatten() for _, words in described])
    rows = torch.stack([features.mean(0) for features, _ in described]).to(wanted.device)
    fit_words(model.multi_modal_projector, rows, scale * wanted)


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


def _steps(
    model: MusiLingoForConditionalGeneration,
    data: dict[str, Loader],
    state: "_State",
    config: TrainingConfig,
    first: int,
    opening: DynamicCache | None,
) -> Iterator[dict[str, Any]]:
    """Takes the steps of a run from the first on, validates, keeps the state; gives log rows."""
    processes, begun = PartialState(), time.monotonic()
    wide = config.accumulation * processes.num_processes  # batches a step
    epoch = -(-len(data["train"]) // wide)  # steps
    early = min(epoch, config.validate_every)
    for step in range(first, config.steps):
        rate = learning_rate(step, config)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        mine = range(step * wide + processes.process_index, (step + 1) * wide)
        batches = map(data["train"].shuffled, mine[:: processes.num_processes])
        loss = train_step(model, state.optimizer, batches, config.clip_norm, opening, state.scaler)
        done, left = step + 1, config.steps - step - 1
        row: dict[str, Any] = {"step": done, "loss": loss, "learning_rate": rate}
        row["epoch"] = round(done * wide / len(data["train"]), 3)
        row["left_s"] = round((time.monotonic() - begun) / (done - first) * left)
        validated = done in (early, config.steps) or done % config.validate_every == 0
        if validated and len(data["validation"]):
            row["validation_loss"] = validate(model, data["validation"], opening)
        yield row
        if validated and processes.is_main_process:
            state.write(done)


def train_step(
    model: MusiLingoForConditionalGeneration,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    clip_norm: float,
    opening: DynamicCache | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> float:
    """One optimizer step over some batches; gives the mean loss a token before it.

    Each token counts alike, in whichever batch and on whichever process it stands.

    Raises:
        ConfigError: Learning has run away: the loss, or what learns, is no longer a number.
    """
    scaler = scaler or torch.amp.GradScaler(model.device.type, enabled=False)
    optimizer.zero_grad(set_to_none=True)
    counts = torch.zeros(2, dtype=torch.float64)  # summed loss, tokens
    for clips in batches:
        loss, tokens = loss_of(model, clips, opening)
        scaler.scale(loss).backward()
        counts += torch.tensor([float(loss.detach()), tokens], dtype=torch.float64)
    counts = _over_processes(counts, model.device)
    learnt = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in learnt:
        parameter.grad = reduce(parameter.grad, "sum") / float(counts[1])
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(learnt, clip_norm)
    scaler.step(optimizer)
    scaler.update()
    # A scaler leaves out a step that is too large for it, and halves its scale; else that is 1.
    tamed = bool(norm.isfinite()) or scaler.get_scale() > 1
    if not (tamed and all(bool(p.isfinite().all()) for p in learnt)):
        raise ConfigError(
            "The loss is no longer a number; choose a lower learning_rate, and another folder."
        )
    return float(counts[0] / counts[1])


@torch.no_grad()
def validate(
    model: MusiLingoForConditionalGeneration, data: Loader, opening: DynamicCache | None = None
) -> float | None:
    """Mean loss a token over held-out clips; None when there are none."""
    processes = PartialState()
    counts = torch.zeros(2, dtype=torch.float64)
    for number in range(processes.process_index, len(data), processes.num_processes):
        loss, tokens = loss_of(model, data.plain(number), opening)
        counts += torch.tensor([float(loss), tokens], dtype=torch.float64)
    total, tokens = _over_processes(counts, model.device).tolist()
    return total / tokens if tokens else None


def _over_processes(counts: Tensor, device: torch.device) -> Tensor:
    """Sums over processes; where there is one, the same."""
    if PartialState().num_processes == 1:
        return counts
    return reduce(counts.float().to(device), "sum").double().cpu()


def _cut_log(path: Path, steps: int) -> None:
    """Drops rows of steps that will be taken again."""
    rows = kept_rows(path)[:steps]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _digest(data: dict[str, Loader], start: str | Path | None) -> str:
    """Tells runs apart that learn from other data or from another beginning."""
    files = [projection_file(start), Path(start) / ADAPTER / WEIGHTS] if start is not None else []
    begun = [sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()]
    return ":".join([*(loader.digest() for loader in data.values()), *begun])


@dataclass(frozen=True)
class _State:
    """All that the next step of a run depends on.

    Attributes:
        path: Where it is kept.
        kept: What `_prepare` gave.
        optimizer: Of what learns.
        scaler: Of its gradients.
        run: What tells this run from others.
    """

    path: Path
    kept: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    run: dict[str, Any]

    def write(self, step: int) -> None:
        """Writes a checkpoint, whole or not at all."""
        state = {
            "kept": {name: tensor.detach() for name, tensor in self.kept.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": step,
            **self.run,
        }
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.path)

    def resume(self) -> int:
        """Takes up a checkpoint if there is one; gives the steps that are done."""
        if not self.path.is_file():
            return 0
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if {name: state.get(name) for name in self.run} != self.run:
            raise ConfigError(
                f"{self.path} is of a run with other settings or other data; choose another folder."
            )
        for name, tensor in self.kept.items():
            tensor.data.copy_(state["kept"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        return int(state["step"])
