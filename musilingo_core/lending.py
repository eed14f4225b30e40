"""An engine that computes on a device which is lent for each call, as ZeroGPU of Spaces lends GPUs.

A call runs in a forked process, and nothing that it leaves there lasts. So songs are kept, prompts
rendered and tokens made text here; there a song is heard, or a reply's tokens are made, from the
first position of the prompt.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn

import numpy as np
import torch

from musilingo_core.decoder import Decoder
from musilingo_core.engine import ChatEngine
from musilingo_core.errors import ConfigError, MusiLingoError
from musilingo_core.features import Clip
from musilingo_core.prefix_cache import PrefixCache, SaidTokens
from musilingo_core.prompt import Prompt
from musilingo_core.sampling import Sampling

Lend = Callable[[Callable[..., Iterator[Any]]], Callable[..., Iterator[Any]]]


@dataclass(frozen=True)
class Failed:
    """What a user can mend, on its way back: other processes' errors come without their words."""

    text: str


class LentEngine(ChatEngine):
    """An engine like another that hears and replies elsewhere, unless its encoder needs no device.

    Hearing is not stopped once it has begun.

    Args:
        engine: Has all but the device.
        lend: Makes of a generator one that runs where the device is. What goes there and comes back
            is pickled.
    """

    def __init__(self, engine: ChatEngine, lend: Lend) -> None:
        vars(self).update(vars(engine))  # weights are hashed once
        self._engine = engine
        self._hears_here = engine.model.audio_tower.device != engine.model.device
        if not self._hears_here:
            self._encoding = nullcontext()  # others may hear at the same time, elsewhere
        self._hear_there, self._speak_there = lend(self._hearing), lend(self._speaking)

    def _hear(
        self, key: str, path: str | Path, on_progress: Callable[[float], None] | None
    ) -> Clip:
        if self._hears_here:
            return super()._hear(key, path, on_progress)
        if on_progress:
            on_progress(0.0)
        [(features, times, duration_s)] = _told(self._hear_there(key, str(path)))
        rows, seconds = torch.from_numpy(features), torch.from_numpy(times)
        return Clip(key, duration_s, rows, seconds, self.fingerprint)

    def _hearing(self, key: str, path: str) -> Iterator[Any]:
        """There: hears a song."""
        try:
            clip = self._afresh()._hear(key, path, None)
            yield clip.features.numpy(), clip.times.numpy(), clip.duration_s
        except MusiLingoError as error:
            yield Failed(str(error))

    def _tokens(self, prompt: Prompt, keys: list[int], sampling: Sampling) -> Iterator[int]:
        heard = [features.numpy() for features in prompt.audio_features]
        bare = replace(prompt, audio_features=[])
        said: list[int] = []
        with NamedTemporaryFile(prefix="musilingo-wanted-") as wanted:
            tokens = _told(self._speak_there(wanted.name, bare, heard, keys, sampling))
            try:
                for token in tokens:
                    said.append(token)
                    yield token
            finally:
                wanted.close()
                # To its end, which is near: one of `spaces` that is closed may end another's reply.
                with suppress(MusiLingoError):
                    list(tokens)
                self._remember(said)

    def _speaking(
        self,
        wanted: str,
        prompt: Prompt,
        heard: list[np.ndarray],
        keys: list[int],
        sampling: Sampling,
    ) -> Iterator[int | Failed]:
        """There: makes a reply's tokens for as long as there is a file `wanted`."""
        whole = replace(prompt, audio_features=[torch.from_numpy(rows) for rows in heard])
        try:
            for token in self._afresh()._tokens(whole, keys, sampling):
                yield token
                if not Path(wanted).exists():
                    return
        except MusiLingoError as error:
            yield Failed(str(error))

    def replies(self, *given: Any, **more: Any) -> NoReturn:
        """Refused: the weights are elsewhere."""
        raise ConfigError("Where a device is lent for each call it can only hear and reply.")

    def log_likelihoods(self, *given: Any, **more: Any) -> NoReturn:
        """Refused: the weights are elsewhere."""
        self.replies()

    def _afresh(self) -> ChatEngine:
        """There: locks that others held when the process was forked are never opened again."""
        there = copy(self._engine)
        there.decoder = Decoder(self.model.language_model, packed=False)
        there.prefixes, there.said = PrefixCache(0), SaidTokens()
        return there


def _told(found: Iterator[Any]) -> Iterator[Any]:
    """What came from there.

    Raises:
        MusiLingoError: It failed there.
    """
    for each in found:
        if isinstance(each, Failed):
            raise MusiLingoError(each.text)
        yield each
