"""How long, how fast and in what precision to train: plain numbers, so that `--help` can list them.

Defaults stand here and nowhere else; a TOML file (`presets/*/stage*.toml`) holds what differs.
"""

import difflib
import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from musilingo_core.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes:
        steps: Optimizer steps.
        batch_size: Clips that are computed together, each with all that is said about it.
        accumulation: Batches a step, on each process.
        learning_rate: Highest, reached after the warm-up.
        final_rate: Share of it that the cosine ends at.
        warmup_steps: Steps of linear rise.
        weight_decay: AdamW's.
        clip_norm: Largest norm of a step's gradient.
        validate_every: Steps between validations; each is followed by a checkpoint. The first comes
            after an epoch at the latest.
        validation_clips: Most clips of a validation, spread evenly over all; 0 takes all.
        seed: Of the order of examples and of the projection's first values.
        precision: The frozen language model's: `float32`, `bfloat16`, `float16`, or `auto`, which
            leaves it as it was loaded. The projection learns in float32 always.
        crop_s: Longest stretch of a clip that is heard, drawn anew each epoch; 0 hears all of it.
            For examples that name no moments.
        max_response_tokens: The last response of an example is learnt up to here; 0 learns all.
        whiten: Above 0, the projection is learnt in coordinates in which features vary alike in
            all directions, and this share of their mean variance is added to each: else what
            varies little, such as who sings, is learnt last. What is saved is a plain projection.
        scale: How many times as large as words a projection's first tokens are. The layers of the
            language model change large ones little; with the rate raised alike, they learn faster.
        lora_rank: Above 0, the language model learns too, in low-rank adapters of this rank.
    """

    steps: int = 1000
    batch_size: int = 8
    accumulation: int = 1
    learning_rate: float = 2e-3
    final_rate: float = 0.02
    warmup_steps: int = 50
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    validate_every: int = 100
    validation_clips: int = 0
    seed: int = 0
    precision: str = "auto"
    crop_s: float = 0.0
    max_response_tokens: int = 0
    whiten: float = 0.0
    scale: float = 1.0
    lora_rank: int = 0

    def __post_init__(self) -> None:
        above = ("steps", "batch_size", "accumulation", "validate_every", "learning_rate")
        for name in (*above, "clip_norm", "scale"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}.")
        others = ("warmup_steps", "weight_decay", "final_rate", "crop_s", "whiten", "lora_rank")
        for name in (*others, "max_response_tokens", "validation_clips"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be below 0, and is {getattr(self, name)}.")
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"There is no precision “{self.precision}”; there is: {', '.join(PRECISIONS)}."
            )


def read_settings(path: str | Path) -> dict[str, object]:
    """The settings of a training run that a TOML file names.

    Raises:
        ConfigError: It cannot be read, or names something that is no setting or of another type;
            says file, name and the nearest good one.
    """
    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    kinds = {field.name: type(field.default) for field in fields(TrainingConfig)}
    for name, value in settings.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1, cutoff=0)[0]
            raise ConfigError(f"{path}: there is no setting “{name}”; did you mean “{near}”?")
        kind = kinds[name]
        if kind is float and type(value) is int:
            settings[name] = float(value)
        elif type(value) is not kind:
            raise ConfigError(f"{path}: {name} is of type {kind.__name__}, not {value!r}.")
    return settings


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine down to `final_rate` of the highest."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    falling = (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * falling)
