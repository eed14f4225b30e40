"""How long and how fast to train: plain numbers, so that `--help` can list them without torch."""

import math
from dataclasses import dataclass

from musilingo_core.errors import ConfigError


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes:
        steps: Optimizer steps.
        batch_size: Clips a step, each with all that is said about it.
        learning_rate: Highest, reached after the warm-up; then a cosine down to a fiftieth of it.
        warmup_steps: Steps of linear rise.
        weight_decay: AdamW's.
        clip_norm: Largest norm of a step's gradient.
        validate_every: Steps between validations; each is followed by a checkpoint.
        seed: Of the order of examples and of the projection's first values.
        along: A key of `data.facts.HEADS`: the weights change only along what these tag heads of
            the encoder read, so that less of all else is forgotten. Empty: they change freely.
    """

    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    validate_every: int = 100
    seed: int = 0
    along: str = ""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}.")


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
