"""`MusiLingoConfig`: encoder, one linear projection, LLaMA, and how music becomes tokens."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig


class MusiLingoConfig(PreTrainedConfig):
    """Configuration of `MusiLingoForConditionalGeneration`.

    Attributes:
        audio_config: The encoder's (`musicnn` or `mert`).
        text_config: The language model's.
        audio_token_id: Placeholder that music takes the place of; a token text never contains.
        tokens_per_row: Language-model tokens that the projection makes of one feature row. The
            paper makes one (arXiv 2309.08730, section 3.1); a small language model needs several.
        segments: None hears a song row by row, however long, as the paper does. A number bounds
            it: one row for the mean of the whole song, then up to that many rows for its parts in
            order, so that twenty minutes cost what one minute costs and the time line is kept.
    """

    model_type = "musilingo"
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}

    audio_config: Any = None
    text_config: Any = None
    audio_token_id: int = 0
    tokens_per_row: int = 1
    segments: int | None = None

    def __post_init__(self, **kwargs: object) -> None:
        for name in ("audio_config", "text_config"):
            value = getattr(self, name)
            if isinstance(value, dict):
                fields = dict(value)
                setattr(self, name, AutoConfig.for_model(fields.pop("model_type"), **fields))
        super().__post_init__(**kwargs)


def pooled_rows(rows: int, segments: int | None) -> int:
    """Rows left of `rows` by `features.pool`."""
    if segments is None or rows == 1:
        return rows
    return 1 + min(segments, rows)
