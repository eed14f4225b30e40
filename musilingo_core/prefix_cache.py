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
from transformers.cache_utils import CacheLayerMixin

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


class GrowingLayer(CacheLayerMixin):
    """Keys and values (1, heads, length, size) that grow in place; whoever shares them is safe.

    What stands at a position is never written again: views of the first positions may be kept.

    Args:
        states: Keys and values to go on from; they are never written to.

    Attributes:
        length: Positions that are known.
    """

    is_sliding = False

    def __init__(self, states: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self._room, self._place = states, (0, 0, 0)
        self.length = states[0].shape[-2] if states else 0
        self.is_initialized = states is not None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: `reserve` makes room."""

    def states(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions."""
        assert self._room is not None
        keys, values = (room[:, :, : self.length] for room in self._room)
        return keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Adds positions; gives all keys and values."""
        begun, end = self.length, self.length + key_states.shape[-2]
        self.reserve(end, key_states)
        assert self._room is not None
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, begun:end] = states
        self.length = end
        return self.states()

    def reserve(self, end: int, like: Tensor) -> tuple[int, int, int]:
        """Makes room for so many positions, and says where it is.

        Args:
            end: Positions, those that are known included.
            like: (1, heads, any, size), of whose kind states are.

        Returns:
            Addresses of the keys and of the values, and for how many positions there is room.
        """
        if self._room is None or self._room[0].shape[-2] < end:
            _, heads, _, size = like.shape
            keys, values = (like.new_empty(1, heads, end + SPARE, size) for _ in range(2))
            if self.length:
                keys[:, :, : self.length], values[:, :, : self.length] = self.states()
            self._room, self.is_initialized = (keys, values), True
            self._place = keys.data_ptr(), values.data_ptr(), end + SPARE
        return self._place

    def get_seq_length(self) -> int:
        """Positions that are known."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Positions that a query of some more sees, and the first of them."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """None, which transformers writes as −1."""
        return -1


def empty_cache(layers: int) -> Cache:
    """States of nothing yet, for a model of so many layers."""
    return Cache(layers=[GrowingLayer() for _ in range(layers)])


def cache_of(states: Sequence[tuple[Tensor, Tensor]]) -> Cache:
    """A cache that goes on from each layer's (keys, values); they are never written to."""
    return Cache(layers=[GrowingLayer(each) for each in states])


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
        states = [layer.states() for layer in cache.layers]
        layers = tuple((keys[:, :, :length], values[:, :, :length]) for keys, values in states)
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
