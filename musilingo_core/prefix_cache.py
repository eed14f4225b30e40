"""Key/value states of earlier prompts, found again by what the prompts begin with.

A language model's states at a position depend on what stands there and before and, but for
rounding, on nothing else. So whoever asks next (the same visitor, one who tries again or edits,
another one about the same song) reuses the states of the longest beginning that any earlier prompt
shares, and needs no session for it. Music is told apart by its features, words by their tokens.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from musilingo_core.configuration import pooled_rows
from musilingo_core.prompt import Prompt, PromptFormat

MOST_BYTES = 512_000_000
SPARE = 128  # positions for which states have room beyond what they hold, when they have to move
SONG_BITS, PLACE_BITS = 40, 22  # of a key; together they fit beside its sign into 63 bits


def position_keys(prompt: Prompt, form: PromptFormat) -> list[int]:
    """What stands at each position of a prompt: a token's id, or which music at which place of it.

    Music's keys are negative, and differ where its features do (by 40 bits of their SHA-256).
    """
    keys: list[int] = []
    songs = iter(prompt.audio_features)
    left: Iterator[int] = iter(())
    for token in prompt.ids:
        if token != form.audio_token_id:
            keys.append(token)
            continue
        key = next(left, None)
        if key is None:
            left = _music_keys(next(songs), form)
            key = next(left)
        keys.append(key)
    return keys


def _music_keys(features: Tensor, form: PromptFormat) -> Iterator[int]:
    digest = hashlib.sha256(features.contiguous().cpu().numpy().tobytes()).digest()
    song = int.from_bytes(digest[: SONG_BITS // 8], "big") << PLACE_BITS
    places = pooled_rows(len(features), form.segments) * form.tokens_per_row
    return iter(range(-1 - song, -1 - song - places, -1))


class GrowingLayer(DynamicLayer):
    """Keys and values (1, heads, length, size) that grow in place; whoever shares them is safe.

    What stands at a position is never written again: views of the first positions may be kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Adds positions; gives all keys and values."""
        begun = self.get_seq_length()
        end = begun + key_states.shape[-2]
        if not self._fits(end):
            self._move(key_states, begun, end + SPARE)
        assert self._room is not None
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, begun:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def _fits(self, end: int) -> bool:
        """Whether there is room, and all that was there so far stands in it."""
        if self._room is None or self._room[0].shape[-2] < end or self.keys is None:
            return False
        return bool(self._room[0].data_ptr() == self.keys.data_ptr())

    def _move(self, like: Tensor, begun: int, capacity: int) -> None:
        if not self.is_initialized:
            self.lazy_initialization(like, like)
        batch, heads, _, size = like.shape
        keys, values = (like.new_empty(batch, heads, capacity, size) for _ in range(2))
        if begun:
            keys[:, :, :begun], values[:, :, :begun] = self.keys, self.values
        self._room = keys, values


def empty_cache(layers: int) -> Cache:
    """States of nothing yet, for a model of so many layers."""
    return Cache(layers=[GrowingLayer() for _ in range(layers)])


def cache_of(states: Sequence[tuple[Tensor, Tensor]]) -> Cache:
    """A cache that goes on from each layer's (keys, values); they are never written to."""
    layers = []
    for keys, values in states:
        layer = GrowingLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        layers.append(layer)
    return Cache(layers=layers)


@dataclass(frozen=True)
class Prefix:
    """The states of a prompt's first positions.

    Attributes:
        keys: (length,) int64, what stands there; see `position_keys`.
        layers: Each layer's keys and values, (1, heads, length, size).
    """

    keys: np.ndarray
    layers: tuple[tuple[Tensor, Tensor], ...]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Memory that the states keep, with the room that they may grow into."""
        return sum(tensor.untyped_storage().nbytes() for layer in self.layers for tensor in layer)

    def cache(self) -> Cache:
        """A cache of its own that goes on from here; what is kept here never changes."""
        return cache_of(self.layers)


class PrefixCache:
    """Prefixes up to so many bytes; of the rest those that were of use last stay.

    Args:
        most_bytes: Of all states together; 0 keeps none.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._prefixes: list[Prefix] = []  # last used last
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._prefixes)

    @property
    def nbytes(self) -> int:
        """Memory of all states."""
        return sum(prefix.nbytes for prefix in self._prefixes)

    def longest(self, keys: Sequence[int]) -> Prefix | None:
        """The longest beginning of these positions that is kept; None where nothing is alike."""
        wanted = np.asarray(keys, np.int64)
        with self._lock:
            shared = [_shared(prefix.keys, wanted) for prefix in self._prefixes]
            length = max(shared, default=0)
            if not length:
                return None
            newest = len(shared) - 1 - shared[::-1].index(length)
            prefix = self._prefixes.pop(newest)
            self._prefixes.append(prefix)
        layers = tuple((k[:, :, :length], v[:, :, :length]) for k, v in prefix.layers)
        return Prefix(wanted[:length], layers)

    def put(self, keys: Sequence[int], cache: Cache) -> None:
        """Keeps the states of these positions, which a cache holds; what they contain goes.

        Nothing is copied: a cache that goes on writes elsewhere. Where a pass failed half-way, the
        positions that all layers have are kept.
        """
        length = min(len(keys), *(layer.get_seq_length() for layer in cache.layers))
        layers = tuple((x.keys[:, :, :length], x.values[:, :, :length]) for x in cache.layers)
        prefix = Prefix(np.asarray(keys[:length], np.int64), layers)
        with self._lock:
            shared = [_shared(p.keys, prefix.keys) for p in self._prefixes]
            if length in shared:  # one that was kept goes on from these
                self._prefixes.append(self._prefixes.pop(shared.index(length)))
            elif 0 < prefix.nbytes <= self.most_bytes:
                pairs = zip(self._prefixes, shared, strict=True)
                kept = [*(p for p, alike in pairs if alike < len(p)), prefix]
                while sum(p.nbytes for p in kept) > self.most_bytes:
                    del kept[0]
                self._prefixes = kept

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._prefixes = []


class SaidTokens:
    """The tokens that replies were made of, by their text: tokenised again they may be others.

    Args:
        most: Replies that are remembered, those that were of use last.
    """

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self._tokens: OrderedDict[str, list[int]] = OrderedDict()
        self._lock = threading.RLock()

    def __call__(self, text: str) -> list[int] | None:
        """The tokens of a reply; None where it is not remembered."""
        with self._lock:
            if text in self._tokens:
                self._tokens.move_to_end(text)
            return self._tokens.get(text)

    def put(self, text: str, tokens: list[int]) -> None:
        """Remembers a reply."""
        with self._lock:
            self._tokens[text] = tokens
            self._tokens.move_to_end(text)
            while len(self._tokens) > self.most:
                self._tokens.popitem(last=False)


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """How many positions two prompts begin with alike."""
    length = min(len(one), len(other))
    unlike = one[:length] != other[:length]
    return int(unlike.argmax()) if unlike.any() else length
