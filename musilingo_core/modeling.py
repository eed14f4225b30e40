"""The model of arXiv 2309.08730: encoder, one linear projection, LLaMA.

Music enters as waveforms or as cached encoder rows; both go through the same pooling, the same
projection and the same placeholders. Follows the conventions of transformers v5
(`audio_tower`, `multi_modal_projector`, `language_model`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.encoders import encode
from musilingo_core.errors import PromptError
from musilingo_core.features import pool


class MusiLingoForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A language model that hears. Of it `multi_modal_projector` learns, and adapters if wanted."""

    config_class = MusiLingoConfig
    base_model_prefix = ""
    input_modalities = ("audio", "text")
    _supports_sdpa = True
    _no_split_modules = ["LlamaDecoderLayer"]
    # What a projection hears must not depend on how precise the words are.
    _keep_in_fp32_modules_strict = [
        r"audio_tower(?!.+num_batches_tracked)",  # counts stay whole numbers
        "multi_modal_projector",
    ]
    _keys_to_ignore_on_load_missing = [r"masked_spec_embed$"]
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # computed anew

    def __init__(self, config: MusiLingoConfig) -> None:
        super().__init__(config)
        self.audio_tower = AutoModel.from_config(config.audio_config)
        # Before the language model: what is spread is placed in this order.
        self.multi_modal_projector: Any = nn.Linear(
            config.audio_config.hidden_size,
            config.tokens_per_row * config.text_config.hidden_size,
        )
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    @property
    def device(self) -> torch.device:
        """Where words are: the encoder may be elsewhere."""
        device: torch.device = self.get_input_embeddings().weight.device  # type: ignore[assignment]
        return device

    def get_input_embeddings(self) -> nn.Module:
        """The language model's word embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the language model's word embeddings."""
        self.language_model.set_input_embeddings(value)

    def get_audio_features(
        self,
        input_values: Sequence[Tensor] | Tensor | None = None,
        audio_features: Sequence[Tensor] | Tensor | None = None,
    ) -> Tensor:
        """Music in the language model's space.

        Args:
            input_values: For each clip a waveform (samples,) float32 at the encoder's rate.
            audio_features: Or for each clip the encoder's rows (rows, size) float32.

        Returns:
            (tokens, hidden): all clips, one after the other, in the projection's dtype.

        Raises:
            PromptError: Neither or both are given, or values are not finite.
        """
        if (input_values is None) == (audio_features is None):
            raise PromptError("Give either waveforms or features of each clip.")
        if input_values is not None:
            clips = [encode(self.audio_tower, [w.cpu().numpy()])[0] for w in input_values]
        else:
            clips = list(audio_features) if audio_features is not None else []
        rows = torch.cat([pool(clip, self.config.segments) for clip in clips])
        if not torch.isfinite(rows).all():
            raise PromptError("The features of this song are damaged; please upload it again.")
        projection = self.multi_modal_projector
        embeds = projection(rows.to(self.device, projection.weight.dtype))
        return embeds.view(-1, self.config.text_config.hidden_size)

    def embed(self, input_ids: Tensor, audio_embeds: Tensor | None = None) -> Tensor:
        """Word embeddings with music in the placeholders' places.

        Args:
            input_ids: (batch, length).
            audio_embeds: (tokens, hidden), as `get_audio_features` gives them.

        Returns:
            (batch, length, hidden).

        Raises:
            PromptError: There are not as many placeholders as music tokens. (`masked_scatter`
                itself would accept too many tokens in silence.)
        """
        places = input_ids == self.config.audio_token_id
        tokens = 0 if audio_embeds is None else len(audio_embeds)
        if int(places.sum()) != tokens:
            raise PromptError(f"The prompt has places for {int(places.sum())} of {tokens} tokens.")
        embeds = self.get_input_embeddings()(input_ids)
        if audio_embeds is None:
            return embeds
        return embeds.masked_scatter(places.unsqueeze(-1), audio_embeds.to(embeds))

    def forward(
        self,
        input_ids: Tensor | None = None,
        input_values: Sequence[Tensor] | Tensor | None = None,
        audio_features: Sequence[Tensor] | Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """One pass. Music is given with the ids that hold its placeholders, once.

        Args:
            input_ids: (batch, length) with `audio_token_id` wherever music stands.
            input_values: Waveforms, see `get_audio_features`.
            audio_features: Encoder rows, see `get_audio_features`.
            attention_mask: (batch, length), 1 for real tokens.
            position_ids: (batch, length).
            cache: Keys and values of earlier tokens.
            inputs_embeds: (batch, length, hidden) instead of ids and music.
            labels: (batch, length), −100 where nothing is learnt.
            logits_to_keep: As in transformers' causal models.
            **kwargs: Handed to the language model.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise PromptError("Give either ids or embeddings of a prompt.")
            heard = input_values is not None or audio_features is not None
            audio = self.get_audio_features(input_values, audio_features) if heard else None
            inputs_embeds = self.embed(input_ids, audio)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """As transformers does for beams; a list of clips is repeated as rows of a batch are."""
        music = {name: kwargs.pop(name, None) for name in ("input_values", "audio_features")}
        ids, inputs = super()._expand_inputs_for_generation(expand_size=expand_size, **kwargs)
        for name, clips in music.items():
            if clips is not None:
                inputs[name] = [clip for clip in clips for _ in range(expand_size)]
        return ids, inputs

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As transformers does, with the music given to the first pass only."""
        music = {name: kwargs.pop(name, None) for name in ("input_values", "audio_features")}
        first = kwargs.get("is_first_iteration", False) or not kwargs.get("use_cache", True)
        inputs = super().prepare_inputs_for_generation(*args, **kwargs)
        return inputs | (music if first else {})


AutoConfig.register(MusiLingoConfig.model_type, MusiLingoConfig)
AutoModelForMultimodalLM.register(MusiLingoConfig, MusiLingoForConditionalGeneration)
