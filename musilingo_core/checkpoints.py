"""MusiLingo checkpoints as their authors publish them: what is in them, under this project's names.

m-a-p/MusiLingo-{long,short,musicqa}-v1 hold MERT, projection and Vicuna in one state dict; the
checkpoints of github.com/zihaod/MusiLingo hold the projection alone, in a `.pth`. Neither says how
its MERT is built beyond its weights' shapes, and neither has a tokenizer.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import LlamaConfig

from musilingo_core.encoders.mert import MertConfig
from musilingo_core.errors import CheckpointError
from musilingo_core.folders import read_pickle

ENCODER, PROJECTION, WORDS = "model.audio_encoder.", "model.llama_proj.", "model.llama_model."
# Of the published names, as transformers' `key_mapping`.
NAMES = {
    f"^{re.escape(ENCODER)}": "audio_tower.model.",
    f"^{re.escape(PROJECTION)}": "multi_modal_projector.",
    f"^{re.escape(WORDS)}": "language_model.",
}
POSITIONS = "pos_conv_embed.conv.parametrizations.weight"
TEXT_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps"),
    *("hidden_act", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"),
    *("rope_theta", "rope_parameters", "rope_scaling", "head_dim", "attention_bias", "mlp_bias"),
)


def is_published(settings: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is a published checkpoint's and not of this project's own layout."""
    return settings.get("model_type") == "musilingo" and "text_config" not in settings


def renamed(name: str) -> str:
    """What a published weight is called in `MusiLingoForConditionalGeneration`."""
    for pattern, ours in NAMES.items():
        name = re.sub(pattern, ours, name)
    return spelled(name)


def spelled(name: str) -> str:
    """A weight's name as newer versions of torch spell it, in the positional convolution."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        name = name.replace(f"pos_conv_embed.conv.{old}", f"{POSITIONS}.{new}")
    return name


def text_config(settings: Mapping[str, Any]) -> LlamaConfig:
    """The LLaMA of a published `config.json`, whose fields lie flat in it."""
    return LlamaConfig(**{name: settings[name] for name in TEXT_FIELDS if name in settings})


def encoder_config(found: Mapping[str, tuple[int, ...]], where: str | Path) -> MertConfig:
    """How the MERT of a checkpoint is built, by its weights' shapes.

    What shapes do not tell is as in MERT-v1-330M, the only one that MusiLingo was published with:
    layer norms come first, heads have 64 values (or there are 16), windows are not normalised.

    Args:
        found: As `folders.read_shapes` gives them.
        where: Named in errors.

    Raises:
        CheckpointError: There is no MERT in it.
    """
    names = {
        name.removeprefix(ENCODER): shape
        for name, shape in found.items()
        if name.startswith(ENCODER)
    }
    try:
        convs = [
            names[f"feature_extractor.conv_layers.{number}.conv.weight"]
            for number in range(_count(names, r"feature_extractor\.conv_layers\.(\d+)\."))
        ]
        hidden = names["encoder.layer_norm.weight"][0]
        position = next(
            shape
            for name, shape in names.items()
            if name.startswith("encoder.pos_conv_embed.conv.") and shape[0] == hidden
            if len(shape) == 3
        )
        inner = names["encoder.layers.0.feed_forward.intermediate_dense.weight"][0]
    except (KeyError, StopIteration, IndexError) as error:
        raise CheckpointError(where, detail="there is no whole MERT in it") from error
    return MertConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=_count(names, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=hidden // 64 if hidden % 64 == 0 else 16,
        conv_dim=[shape[0] for shape in convs],
        conv_kernel=[shape[2] for shape in convs],
        conv_bias="feature_extractor.conv_layers.0.conv.bias" in names,
        num_conv_pos_embeddings=position[2],
        num_conv_pos_embedding_groups=hidden // position[1],
        do_stable_layer_norm=True,
        feat_extract_norm="group",
    )


def _count(names: Mapping[str, Any], pattern: str) -> int:
    """How many numbers names have at a place: one more than the highest."""
    found = [int(match[1]) for name in names if (match := re.match(pattern, name))]
    return max(found, default=-1) + 1


def read_projection(file: str | Path) -> dict[str, Tensor]:
    """`weight` and `bias` of a checkpoint that holds the trained part alone.

    Raises:
        CheckpointError: It cannot be read safely, or holds something else.
    """
    loaded = read_pickle(file)
    state = loaded["model"] if isinstance(loaded.get("model"), dict) else loaded
    wanted = {"llama_proj.weight", "llama_proj.bias"}
    missing, unexpected = wanted - state.keys(), state.keys() - wanted
    if missing or unexpected:
        raise CheckpointError(file, sorted(missing), sorted(map(str, unexpected)))
    return {name.removeprefix("llama_proj."): state[name] for name in sorted(wanted)}
