"""Token by token: the one decode loop, and the stream that turns tokens into whole characters.

The loop is pulled: one forward pass when one token is asked for, nothing when its generator is
closed. Sampling filters are transformers' own.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from musilingo_core.sampling import Sampling

COLDEST = 1e-3  # a lower temperature is 0: dividing by it would overflow
UNFINISHED = "\ufffd"  # what a decoder shows for the first bytes of a character


@torch.inference_mode()
def decode(
    language_model: Any,
    inputs_embeds: Tensor,
    sampling: Sampling,
    stop_ids: Sequence[int] = (),
    never: Sequence[int] = (),
) -> Iterator[int]:
    """Yields token ids, computing each when it is asked for.

    Args:
        language_model: A transformers causal language model.
        inputs_embeds: (1, length, hidden), the prompt.
        sampling: How to choose.
        stop_ids: Tokens that end the reply; the one that did is not yielded.
        never: Tokens that are never chosen, such as the placeholder of music.
    """
    cache = DynamicCache(config=language_model.config)
    filters = _filters(sampling)
    dice = None
    if sampling.temperature >= COLDEST:
        dice = torch.Generator()
        dice.manual_seed(sampling.seed) if sampling.seed is not None else dice.seed()
    said: list[int] = []
    step: dict[str, Tensor] = {"inputs_embeds": inputs_embeds}
    for _ in range(sampling.max_new_tokens):
        outputs = language_model(**step, cache=cache, use_cache=True, logits_to_keep=1)
        logits = outputs.logits[:, -1].float().cpu()
        logits[:, list(never)] = -torch.inf
        token = _choose(logits, said, filters, dice)
        if token in stop_ids:
            return
        said.append(token)
        yield token
        step = {"input_ids": torch.tensor([[token]], device=inputs_embeds.device)}


def _filters(sampling: Sampling) -> LogitsProcessorList:
    filters = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        filters.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    if sampling.temperature >= COLDEST:
        filters.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            filters.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            filters.append(TopPLogitsWarper(float(sampling.top_p)))
    return filters


def _choose(
    logits: Tensor, said: list[int], filters: LogitsProcessorList, dice: torch.Generator | None
) -> int:
    """The next token from (1, vocabulary) float32 logits."""
    scores = filters(torch.tensor([said], dtype=torch.long), logits)
    if dice is None:
        return int(scores.argmax(-1))
    return int(torch.multinomial(scores.softmax(-1), 1, generator=dice))


class TextStream:
    """Token ids in, pieces of text out. Text only grows, characters are whole.

    A piece is held back while it may still turn out to be half a character, the beginning of a stop
    string, or white space at the end of the reply.

    Args:
        tokenizer: Decodes ids.
        stop_strings: Texts that end the reply; never shown.
    """

    def __init__(self, tokenizer: Any, stop_strings: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stop_strings if stop]
        self._ids: list[int] = []
        self._context, self._read = 0, 0  # ids[context:read] are shown; decoded again for spacing
        self._held = ""
        self._started = False
        self.stopped = False

    def push(self, token: int) -> str:
        """Adds a token; gives the text that is now certain (often one word, sometimes none)."""
        if self.stopped:
            return ""
        self._ids.append(token)
        shown = self._decode(self._ids[self._context : self._read])
        text = self._decode(self._ids[self._context :])
        if text.endswith(UNFINISHED):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return self._release(self._held + text[len(shown) :])

    def finish(self) -> str:
        """The rest, once no more tokens come."""
        if self.stopped:
            return ""
        shown = self._decode(self._ids[self._context : self._read])
        rest = self._decode(self._ids[self._context :])[len(shown) :].rstrip(UNFINISHED)
        text = self._release(self._held + rest)
        held, self._held = self._held.rstrip(), ""
        return text + held if text or self._started else held.lstrip()

    def _release(self, text: str) -> str:
        """What may be shown of a text; the rest is held."""
        if not self._started:
            text = text.lstrip()
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            text = text[: min(ends)].rstrip()
            self._started = self._started or bool(text)
            return text
        keep = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        keep = len(text[:keep].rstrip())
        self._held = text[keep:]
        self._started = self._started or keep > 0
        return text[:keep]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    return next(
        (n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0
    )
