"""Key/value states of earlier prompts, found again by what the prompts begin with.

A language model's states at a position depend on what stands there and before, and on nothing else.
So whoever asks next (the same visitor, one who tries again or edits, another one about the same
song) reuses the states of the longest beginning that any earlier prompt shares, and needs no
session for it. Music is told apart by its features, words by their tokens.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig

from musilingo_core.configuration import pooled_rows
from musilingo_core.prompt import Prompt, PromptFormat

MOST_BYTES = 512_000_000
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
        """Memory of the states."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)

    def cache(self, config: PreTrainedConfig) -> DynamicCache:
        """A cache of its own that goes on from here; what is kept here never changes."""
        return DynamicCache(self.layers, config=config)


class PrefixCache:
    """Prefixes up to so many bytes; of the rest those that were of use last stay.

    Args:
        most_bytes: Of all states together; 0 keeps none.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._prefixes: list[Prefix] = []  # last used last
        self._lock = threading.Lock()

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
            prefix = self._prefixes.pop(shared.index(length))
            self._prefixes.append(prefix)
        layers = tuple((k[:, :, :length], v[:, :, :length]) for k, v in prefix.layers)
        return Prefix(wanted[:length], layers)

    def put(self, keys: Sequence[int], cache: DynamicCache) -> None:
        """Keeps the states of these positions, which a cache holds; what they contain goes.

        Nothing is copied: a cache that goes on makes new tensors.
        """
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        prefix = Prefix(np.asarray(keys, np.int64), layers)
        with self._lock:
            kept = [p for p in self._prefixes if _shared(p.keys, prefix.keys) < len(p)]
            kept.append(prefix)
            while kept and sum(p.nbytes for p in kept) > self.most_bytes:
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
        self._lock = threading.Lock()

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
