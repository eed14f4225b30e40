"""Reading prompts and saying tokens, for all replies that are under way at once.

Whoever wants its next token while nobody computes does so for all who wait for theirs, in one pass:
replies advance side by side, nobody waits for the end of another's, and one that nobody pulls any
more costs nothing. There is no thread behind it.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from musilingo_core.errors import ConfigError
from musilingo_core.llama import LlamaStep, fits
from musilingo_core.prefix_cache import empty_cache

Step = Callable[[Sequence[int], Sequence[Cache]], Tensor]

MOST_TOGETHER = 8  # replies in one pass: more of them would make each wait longer than it saves


class _Seat:
    """One reply that waits for its next token's logits, or for why there are none."""

    def __init__(self, token: int, cache: Cache) -> None:
        self.token, self.cache = token, cache
        self.found: Tensor | str | None = None


class Decoder:
    """A language model that several threads may ask for tokens.

    Args:
        language_model: A transformers causal language model.
        packed: Whether the step's weights are packed, beside the model's own, which takes at most
            half as much memory again; None where that is known to be faster.

    Attributes:
        packed: Whether they are.

    Raises:
        ConfigError: This model's weights cannot be packed.
    """

    def __init__(self, language_model: Any, packed: bool | None = None) -> None:
        self.language_model = language_model
        self._step, self.packed = self._choose_step(packed)
        if self.packed:
            self._step([0], [self.cache()])  # compiles now, while nobody waits for a word
        self._turn = threading.Condition()
        self._busy, self._readers = False, 0
        self._waiting: list[_Seat] = []

    def _choose_step(self, packed: bool | None) -> tuple[Step, bool]:
        model = self.language_model
        if packed is not False and model.device.type == "cpu":
            from musilingo_core.packed import PackedStep, can_pack  # numba is slow to import

            if can_pack(model):
                return PackedStep(model), True
        if packed:
            raise ConfigError("The weights of this language model cannot be packed on this device.")
        return LlamaStep(model) if fits(model) else self._plain, False

    def cache(self) -> Cache:
        """States of nothing yet."""
        return empty_cache(self.language_model.config.num_hidden_layers)

    @torch.inference_mode()
    def read(self, embeds: Tensor, cache: Cache) -> Tensor:
        """(1, vocabulary) float32: logits of what follows a prompt; to be called within `alone`.

        Args:
            embeds: (1, length, hidden), what of it the cache does not hold.
            cache: States of its beginning; grows.
        """
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

        Raises:
            RuntimeError: The pass failed, mostly for want of memory.
        """
        seat = _Seat(token, cache)
        with self._turn:
            self._waiting.append(seat)
        try:
            while seat.found is None:
                self._lead(seat)
        finally:
            with self._turn:
                if seat in self._waiting:  # interrupted: nobody shall write into its states
                    self._waiting.remove(seat)
        if isinstance(seat.found, str):
            raise RuntimeError(seat.found)
        return seat.found

    def together(self, tokens: Sequence[int], caches: Sequence[Cache]) -> Tensor:
        """(replies, vocabulary) float32: as `next`, for replies of one's own, in one pass."""
        with self.alone():
            return self._step(tokens, caches)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody else computes; before all steps, for a first token is waited for most."""
        with self._turn:
            self._readers += 1
            try:
                self._turn.wait_for(lambda: not self._busy)
            finally:
                self._readers -= 1
            self._busy = True
        try:
            yield
        finally:
            self._done()

    def _done(self) -> None:
        with self._turn:
            self._busy = False
            self._turn.notify_all()

    def _lead(self, seat: _Seat) -> None:
        """Waits until a seat is served, or computes for those who have waited longest."""
        with self._turn:
            self._turn.wait_for(lambda: seat.found is not None or not (self._busy or self._readers))
            if seat.found is not None:
                return
            self._busy = True
            seats, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        try:
            logits = self._step([each.token for each in seats], [each.cache for each in seats])
            for each, row in zip(seats, logits.split(1), strict=True):
                each.found = row
        finally:  # what fails, fails for all of them, each in a thread of its own
            for each in seats:
                if each.found is None and each is not seat:
                    each.found = "Another reply of the same pass failed; please ask again."
            self._done()

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
