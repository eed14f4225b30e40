"""Token by token: the one decode loop, and the stream that turns tokens into whole characters.

The loop is pulled: one pass when one token is asked for, nothing when its generator is closed.
Sampling filters are transformers' own.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Cache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from musilingo_core.decoder import Decoder
from musilingo_core.sampling import Sampling

COLDEST = 1e-3  # a lower temperature is 0: dividing by it would overflow
UNFINISHED = "\ufffd"  # what a decoder shows for the first bytes of a character


def decode(
    decoder: Decoder,
    logits: Tensor,
    cache: Cache,
    sampling: Sampling,
    stop_ids: Sequence[int] = (),
    never: Sequence[int] = (),
) -> Iterator[int]:
    """Yields token ids, computing each when it is asked for.

    Args:
        decoder: Computes; other replies may advance with this one.
        logits: (1, vocabulary) float32, of what follows the prompt.
        cache: The prompt's states; grows by all but the last token.
        sampling: How to choose.
        stop_ids: Tokens that end the reply; the one that did is not yielded.
        never: Tokens that are never chosen, such as the placeholder of music.
    """
    choose = Choice(sampling, never)
    while (token := choose(logits)) not in stop_ids:
        yield token
        if len(choose.said) == sampling.max_new_tokens:
            return
        logits = decoder.next(token, cache)


def decode_together(
    decoder: Decoder,
    prompts: Sequence[tuple[Tensor, Cache]],
    sampling: Sampling,
    stop_ids: Sequence[int] = (),
    never: Sequence[int] = (),
    done: Callable[[int], bool] = lambda number: False,
) -> Iterator[tuple[int, int]]:
    """Yields (number of its prompt, token id) for several prompts that advance in step.

    Each is answered as `decode` would answer it alone. Arguments as there, and:

    Args:
        prompts: For each the `logits` and the `cache`.
        done: Whether a prompt's reply has ended; asked after each of its tokens.
    """
    choices = [Choice(sampling, never) for _ in prompts]
    found = {number: logits for number, (logits, _) in enumerate(prompts)}
    for _ in range(sampling.max_new_tokens):
        going: dict[int, int] = {}  # the newest token of each reply that goes on
        for number, logits in found.items():
            if (token := choices[number](logits)) not in stop_ids:
                yield number, token
                if not done(number):
                    going[number] = token
        if not going:
            return
        rows = decoder.together([*going.values()], [prompts[number][1] for number in going])
        found = dict(zip(going, rows.split(1), strict=True))


class Choice:
    """Chooses a reply's tokens, one after another.

    Args:
        sampling: How.
        never: Tokens that are never chosen.

    Attributes:
        said: The tokens so far.
    """

    def __init__(self, sampling: Sampling, never: Sequence[int] = ()) -> None:
        self._never, self._filters = list(never), _filters(sampling)
        self._dice = _dice(sampling)
        self.said: list[int] = []

    @torch.inference_mode()
    def __call__(self, logits: Tensor) -> int:
        """The next token from (1, vocabulary) float32 logits."""
        logits = logits.cpu()
        logits[:, self._never] = -torch.inf
        scores = self._filters(torch.tensor([self.said], dtype=torch.long), logits)
        if self._dice is None:
            token = int(scores.argmax(-1))
        else:
            token = int(torch.multinomial(scores.softmax(-1), 1, generator=self._dice))
        self.said.append(token)
        return token


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
