"""How the next word is chosen: the one home of its defaults, light enough for any page."""

from dataclasses import dataclass

from musilingo_core.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature and top-p as in MusiLingo's own inference script.

    Attributes:
        temperature: 0 always takes the likeliest token; higher is bolder.
        top_p: Only the likeliest tokens that together have this probability, 0 to 1.
        top_k: Only this many likeliest tokens; 0 for all.
        repetition_penalty: Above 1 makes tokens already said in this reply less likely.
        max_new_tokens: Longest reply.
        seed: Same seed, same text; None draws a fresh one.
    """

    temperature: float = 0.1
    top_p: float = 0.5
    top_k: int = 50
    repetition_penalty: float = 1.0
    max_new_tokens: int = 200
    seed: int | None = None

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (0.0, 5.0),
            "top_p": (0.0, 1.0),
            "top_k": (0, 100_000),
            "repetition_penalty": (0.5, 5.0),
            "max_new_tokens": (1, 8192),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must lie between {low} and {high}, not {value}.")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be a whole number from 0 up, not {self.seed}.")
