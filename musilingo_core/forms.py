"""Prompt forms by name: how models of others are asked. Each is a file in `prompts/`."""

import tomllib
from importlib import resources
from typing import Any

from musilingo_core.errors import ConfigError

FOLDER = resources.files("musilingo_core") / "prompts"


def prompt_forms() -> list[str]:
    """The names that there are."""
    return sorted(file.name.removesuffix(".toml") for file in FOLDER.iterdir())


def prompt_settings(name: str) -> dict[str, Any]:
    """`MusiLingoProcessor`'s arguments that make prompts of a form.

    Raises:
        ConfigError: There is no form of this name.
    """
    if name not in prompt_forms():
        raise ConfigError(f"There is no prompt form “{name}”; choose {', '.join(prompt_forms())}.")
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
