"""What is kept of a training run: projection, prompt format and a card, ready to be shared.

The folder is laid out as a preset's (`presets/*`), so that it can be spoken with, trained on from,
or put in a preset's place. The frozen models are not in it.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCardData

from musilingo_core.adapter import save_adapter
from musilingo_core.data.manifest import Example
from musilingo_core.errors import ConfigError
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.schedule import TrainingConfig
from musilingo_core.weights import save_projection

CARD, FORMAT, PROJECTION, ADAPTER = (
    "README.md",
    "musilingo.json",
    "projection.safetensors",
    "adapter",
)


def save(
    model: MusiLingoForConditionalGeneration,
    processor: MusiLingoProcessor,
    folder: str | Path,
    config: TrainingConfig,
    examples: Sequence[Example],
    log: Sequence[dict[str, Any]],
) -> None:
    """Writes `projection.safetensors`, `musilingo.json`, `README.md`, and adapters if there are.

    Args:
        model: Trained.
        processor: Its processor.
        folder: Where to.
        config: How it was trained.
        examples: On what.
        log: Rows of the run, for the card's losses.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_projection(model, folder / PROJECTION)
    if config.lora_rank:
        save_adapter(model.language_model, folder / ADAPTER)
    text = json.dumps(processor.settings(), indent=2, ensure_ascii=False)
    (folder / FORMAT).write_text(text + "\n", encoding="utf-8")
    (folder / CARD).write_text(card(model, config, examples, log), encoding="utf-8")


def push_to_hub(folder: str | Path, repository: str, private: bool = True) -> str:
    """Uploads what `save` wrote, and nothing else of the folder; gives the address.

    Args:
        folder: Of a run.
        repository: `NAME/REPOSITORY` on the Hub; made if there is none.
        private: Whether a new one is.

    Raises:
        ConfigError: The run has not ended, so there is nothing to upload.
    """
    if not (Path(folder) / CARD).is_file():
        raise ConfigError(f"{folder} holds no finished run; please train to the end first.")
    hub = HfApi()
    hub.create_repo(repository, private=private, exist_ok=True)
    kept = [CARD, FORMAT, PROJECTION, f"{ADAPTER}/*"]
    done = hub.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=kept)
    return str(done.repo_url)


def card(
    model: MusiLingoForConditionalGeneration,
    config: TrainingConfig,
    examples: Sequence[Example],
    log: Sequence[dict[str, Any]],
) -> str:
    """The model card, Markdown with the Hub's header; says only what is known of the run."""
    header = ModelCardData(
        language="en", library_name="musilingo-chat", tags=["music", "audio", "projection"]
    )
    shape = f"{model.config.audio_config.hidden_size} → {model.config.tokens_per_row} × "
    shape += str(model.config.text_config.hidden_size)
    learnt, speaker = "One linear layer", "a frozen language model"
    if config.lora_rank:
        learnt += f", and low-rank adapters (rank {config.lora_rank}) of the language model"
        speaker = "the language model"
    counts = Counter((e.source or "unnamed", e.split) for e in examples)
    defaults = asdict(TrainingConfig())
    changed = {n: v for n, v in asdict(config).items() if v != defaults[n]}
    losses = [row for row in log if row.get("validation_loss") is not None]
    lines = [
        "---", header.to_yaml(), "---", "", "# A projection for MusiLingo Chat", "",
        f"{learnt}, {shape}: from rows of a frozen music encoder "
        f"({model.config.audio_config.model_type}) to tokens for {speaker} "
        f"({model.config.text_config.model_type}).", "",
        "```bash", 'musilingo ask --projection FOLDER song.mp3 "What do you hear?"', "```", "",
        "(with the `--preset` or `--model` that it was trained with)", "",
        "## Data", "", "| source | split | examples |", "|---|---|--:|",
        *(f"| {source} | {split} | {n:,} |" for (source, split), n in sorted(counts.items())), "",
        "## Training", "",
        f"{len(log):,} steps. Settings other than the defaults:", "",
        *(f"- `{name} = {json.dumps(value)}`" for name, value in changed.items()), "",
        "| step | loss a token on held-out examples |", "|--:|--:|",
        *(f"| {row['step']} | {row['validation_loss']:.3f} |" for row in losses), "",
        "It says what its data says. How true that is has not been measured here: "
        "`musilingo evaluate` does.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
