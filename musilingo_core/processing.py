"""`MusiLingoProcessor`: conversations and songs into what the model's forward takes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.errors import ConfigError
from musilingo_core.features import Clip
from musilingo_core.prompt import IGNORED, Message, Prompt, PromptFormat, Said, fit, render


class MusiLingoProcessor(ProcessorMixin):
    """Tokenizer and prompt format of one model; saved beside its weights.

    Args:
        tokenizer: The language model's.
        audio_token: The placeholder's text, one token of the tokenizer.
        tokens_per_row: See `MusiLingoConfig`.
        segments: See `MusiLingoConfig`.
        system: See `PromptFormat`.
        before_clip: See `PromptFormat`.
        after_clip: See `PromptFormat`.
        stop_strings: Texts that end a reply, beside the tokenizer's end tokens.
        replies_apart: See `PromptFormat`.
        chat_template: See `PromptFormat`; the tokenizer's own by default.
    """

    attributes = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        audio_token: str = "<audio>",
        tokens_per_row: int = 1,
        segments: int | None = None,
        system: str = "",
        before_clip: str = "",
        after_clip: str = "\n",
        stop_strings: Sequence[str] = (),
        replies_apart: bool = True,
        chat_template: str | None = None,
    ) -> None:
        chat_template = chat_template or getattr(tokenizer, "chat_template", None)
        super().__init__(tokenizer, chat_template=chat_template)
        self.audio_token = audio_token
        self.tokens_per_row, self.segments = tokens_per_row, segments
        self.system, self.before_clip, self.after_clip = system, before_clip, after_clip
        self.stop_strings, self.replies_apart = tuple(stop_strings), replies_apart

    @property
    def form(self) -> PromptFormat:
        """The prompt format, as `musilingo_core.prompt` takes it.

        Raises:
            ConfigError: The tokenizer lacks the placeholder.
        """
        tokenizer = self.tokenizer
        audio_token_id = tokenizer.convert_tokens_to_ids(self.audio_token)
        unknown = (
            None,
            None if self.audio_token == tokenizer.unk_token else tokenizer.unk_token_id,
        )
        if audio_token_id in unknown:
            raise ConfigError(
                f"The tokenizer has no token “{self.audio_token}”; choose another as audio_token."
            )
        return PromptFormat(
            audio_token_id=audio_token_id,
            tokens_per_row=self.tokens_per_row,
            segments=self.segments,
            system=self.system,
            before_clip=self.before_clip,
            after_clip=self.after_clip,
            chat_template=self.chat_template,
            replies_apart=self.replies_apart,
        )

    def settings(self) -> dict[str, Any]:
        """The arguments that make such a processor, but for the tokenizer."""
        names = ("audio_token", "tokens_per_row", "segments", "system", "before_clip", "after_clip")
        settings = {name: getattr(self, name) for name in names}
        if self.stop_strings:
            settings["stop_strings"] = list(self.stop_strings)
        if not self.replies_apart:
            settings["replies_apart"] = False
        if self.chat_template != self.tokenizer.chat_template:
            settings["chat_template"] = self.chat_template
        return settings

    def render(self, messages: Sequence[Message], find_clip: Callable[[str], Clip]) -> Prompt:
        """`prompt.render` in this model's form."""
        return render(messages, find_clip, self.tokenizer, self.form)

    def fit(
        self,
        messages: Sequence[Message],
        find_clip: Callable[[str], Clip],
        limit: int,
        said: Said = lambda text: None,
    ) -> Prompt:
        """`prompt.fit` in this model's form."""
        return fit(messages, find_clip, self.tokenizer, self.form, limit, said)

    def __call__(
        self,
        conversations: Sequence[Sequence[Message]],
        find_clip: Callable[[str], Clip],
    ) -> BatchFeature:
        """Renders conversations and batches them for `MusiLingoForConditionalGeneration`.

        Where a conversation ends with a question, padding stands on the left, for `generate`.
        """
        asks = any(messages[-1].get("role") == "user" for messages in conversations)
        prompts = [self.render(messages, find_clip) for messages in conversations]
        return collate(prompts, left=asks)


def collate(prompts: Sequence[Prompt], left: bool = False) -> BatchFeature:
    """Prompts of different lengths as one batch, padded on the right or on the left.

    Returns:
        `input_ids`, `attention_mask`, `labels` (batch, length) and `audio_features`, a list of
        (rows, size) tensors, one a clip.
    """
    length = max(len(prompt.ids) for prompt in prompts)
    word = next(prompt.ids[0] for prompt in prompts if prompt.ids)  # some may be all padding

    def padded(values: list[int], filler: int) -> Tensor:
        padding = [filler] * (length - len(values))
        return torch.tensor(padding + values if left else values + padding)

    features = [rows for prompt in prompts for rows in prompt.audio_features]
    return BatchFeature(
        {
            # Padding repeats a word's id, never the placeholder's: its count is checked.
            "input_ids": torch.stack([padded(p.ids, word) for p in prompts]),
            "attention_mask": torch.stack([padded([1] * len(p.ids), 0) for p in prompts]),
            "labels": torch.stack([padded(p.labels, IGNORED) for p in prompts]),
            "audio_features": features or None,
        }
    )


AutoProcessor.register(MusiLingoConfig, MusiLingoProcessor)
