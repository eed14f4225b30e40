"""Token by token: the one decode loop, and the stream that turns tokens into whole characters.

The loop is pulled: one forward pass when one token is asked for, nothing when its generator is
closed. Several prompts may share each pass. Sampling filters are transformers' own.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
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


def decode(
    language_model: Any,
    inputs_embeds: Tensor,
    sampling: Sampling,
    stop_ids: Sequence[int] = (),
    never: Sequence[int] = (),
    cache: DynamicCache | None = None,
) -> Iterator[int]:
    """Yields token ids, computing each when it is asked for.

    Args:
        language_model: A transformers causal language model.
        inputs_embeds: (1, length, hidden), the prompt, or what of it is not in the cache.
        sampling: How to choose.
        stop_ids: Tokens that end the reply; the one that did is not yielded.
        never: Tokens that are never chosen, such as the placeholder of music.
        cache: States of the prompt's beginning; grows by all but the last token.
    """
    tokens = decode_together(
        language_model, [inputs_embeds], sampling, stop_ids, never, cache=cache
    )
    for _, token in tokens:
        yield token


@torch.inference_mode()
def decode_together(
    language_model: Any,
    prompts: Sequence[Tensor],
    sampling: Sampling,
    stop_ids: Sequence[int] = (),
    never: Sequence[int] = (),
    done: Callable[[int], bool] = lambda number: False,
    cache: DynamicCache | None = None,
) -> Iterator[tuple[int, int]]:
    """Yields (number of its prompt, token id) for several prompts that are computed in one batch.

    What all prompts begin with is computed once. Each is answered as `decode` would answer it
    alone, but for rounding. Arguments as there, and:

    Args:
        done: Whether a prompt's reply has ended; asked after each of its tokens.
        cache: As there, of a single prompt.
    """
    cache = DynamicCache(config=language_model.config) if cache is None else cache
    dice = [_dice(sampling) for _ in prompts]
    said: list[list[int]] = [[] for _ in prompts]
    filters, open_ = _filters(sampling), list(range(len(prompts)))
    step, mask = _begin(language_model, prompts, cache)
    for _ in range(sampling.max_new_tokens):
        outputs = language_model(**step, cache=cache, use_cache=True, logits_to_keep=1)
        logits = outputs.logits[:, -1].float().cpu()
        logits[:, list(never)] = -torch.inf
        going = []  # rows of the batch whose replies go on
        for row, number in enumerate(open_):
            token = _choose(logits[row : row + 1], said[number], filters, dice[number])
            if token not in stop_ids:
                said[number].append(token)
                yield number, token
                if not done(number):
                    going.append(row)
        if not going:
            return
        if len(going) < len(open_):
            cache.batch_select_indices(torch.tensor(going, device=logits.device))
            open_ = [open_[row] for row in going]
            mask = mask[going]
        last = torch.tensor([[said[number][-1]] for number in open_], device=mask.device)
        mask = torch.cat([mask, torch.ones_like(last)], dim=1)
        step = {"input_ids": last, **_padded(mask, 1)}


def _begin(
    language_model: Any, prompts: Sequence[Tensor], cache: DynamicCache
) -> tuple[dict[str, Tensor], Tensor]:
    """What the first pass over all prompts takes, and (prompts, length) which positions are real.

    What they all begin with is in the cache already.
    """
    first = prompts[0]
    shortest = min(prompt.shape[1] for prompt in prompts)
    alike = torch.stack([(p[0, :shortest] == first[0, :shortest]).all(-1) for p in prompts]).all(0)
    # One position at least is left to each prompt, for its next token is foretold there.
    shared = min(int(alike.long().cumprod(0).sum()), shortest - 1) if len(prompts) > 1 else 0
    if shared:
        language_model(
            inputs_embeds=first[:, :shared], cache=cache, use_cache=True, logits_to_keep=1
        )
        cache.batch_repeat_interleave(len(prompts))
    rest = [prompt[0, shared:] for prompt in prompts]
    embeds = pad_sequence(rest, batch_first=True, padding_side="left")
    real = [torch.ones(len(r), dtype=torch.long, device=first.device) for r in rest]
    mask = pad_sequence(real, batch_first=True, padding_side="left")
    mask = torch.cat([mask.new_ones(len(prompts), cache.get_seq_length()), mask], dim=1)
    return {"inputs_embeds": embeds, **_padded(mask, embeds.shape[1])}, mask


def _padded(mask: Tensor, new: int) -> dict[str, Tensor]:
    """What tells a model of padding before its newest positions; nothing where there is none."""
    if bool(mask.all()):
        return {}
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -new:]
    return {"attention_mask": mask, "position_ids": positions}


def _dice(sampling: Sampling) -> torch.Generator | None:
    """What decides between words; None where the likeliest is taken."""
    if sampling.temperature < COLDEST:
        return None
    dice = torch.Generator()
    dice.manual_seed(sampling.seed) if sampling.seed is not None else dice.seed()
    return dice


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
