"""Reading prompts and saying tokens, for all replies that are under way at once.

Whoever wants its next token computes those of all who wait for theirs in the same pass: replies
advance side by side, nobody waits for the end of another's, and one that nobody pulls any more
costs nothing. There is no thread behind it.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from musilingo_core.llama import LlamaStep, fits
from musilingo_core.prefix_cache import empty_cache

MOST_TOGETHER = 8  # replies in one pass: more of them would make each wait longer than it saves


class _Seat:
    """One reply that waits for its next token's logits."""

    def __init__(self, token: int, cache: Cache) -> None:
        self.token, self.cache = token, cache
        self.logits: Tensor | None = None
        self.error: BaseException | None = None


class Decoder:
    """A language model that several threads may ask for tokens.

    Args:
        language_model: A transformers causal language model.
        int8: Whether its weights are kept as int8 for the step; None where that is faster.
    """

    def __init__(self, language_model: Any, int8: bool | None = None) -> None:
        self.language_model = language_model
        self._step = LlamaStep(language_model, int8) if fits(language_model) else self._plain
        self._computing = threading.Lock()
        self._queue = threading.Lock()
        self._waiting: list[_Seat] = []

    def cache(self) -> Cache:
        """States of nothing yet."""
        return empty_cache(self.language_model.config.num_hidden_layers)

    @torch.inference_mode()
    def read(self, embeds: Tensor, cache: Cache) -> Tensor:
        """(1, vocabulary) float32: logits of what follows a prompt.

        Args:
            embeds: (1, length, hidden), what of it the cache does not hold.
            cache: States of its beginning; grows.
        """
        with self._computing:
            outputs = self.language_model(
                inputs_embeds=embeds, cache=cache, use_cache=True, logits_to_keep=1
            )
        logits: Tensor = outputs.logits[:, -1].float()
        return logits

    def next(self, token: int, cache: Cache) -> Tensor:
        """(1, vocabulary) float32: logits of what follows a token, computed with whoever waits.

        Args:
            token: The newest of a reply.
            cache: States of all that stands before; grows.
        """
        seat = _Seat(token, cache)
        with self._queue:
            self._waiting.append(seat)
        while seat.logits is None:
            with self._computing:
                if seat.logits is None and seat.error is None:
                    self._advance()
            if seat.error is not None:
                raise seat.error
        return seat.logits

    def together(self, tokens: Sequence[int], caches: Sequence[Cache]) -> Tensor:
        """(replies, vocabulary) float32: as `next`, for replies of one's own, in one pass."""
        with self._computing:
            return self._step(tokens, caches)

    def _advance(self) -> None:
        """One pass for those who wait longest."""
        with self._queue:
            seats, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        try:
            logits = self._step([seat.token for seat in seats], [seat.cache for seat in seats])
        except RuntimeError as error:  # of memory, mostly: theirs all, not only whose thread it is
            for seat in seats:
                seat.error = error
            return
        for number, seat in enumerate(seats):
            seat.logits = logits[number : number + 1]

    @torch.inference_mode()
    def _plain(self, tokens: Sequence[int], caches: Sequence[Cache]) -> Tensor:
        """What `LlamaStep` does, one reply after another, by the model itself."""
        device = self.language_model.device
        rows = [
            self.language_model(
                input_ids=torch.tensor([[token]], device=device), cache=cache, use_cache=True
            ).logits[:, -1]
            for token, cache in zip(tokens, caches, strict=True)
        ]
        return torch.cat(rows).float()
