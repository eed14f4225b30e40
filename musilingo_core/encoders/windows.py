"""Cuts a stream of waveform blocks into the windows an encoder hears.

Nothing is dropped and nothing is padded with silence: what is heard is the song to its last sample.
At most one window and one block stand in memory.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from musilingo_core.audio import Waveform

Window = tuple[int, Waveform]  # first sample's position in the song, samples


def fixed_windows(blocks: Iterable[Waveform], size: int, hop: int) -> Iterator[Window]:
    """Windows of one size; the last one ends flush with the song, overlapping the one before.

    A song shorter than a window is repeated until it fills one.

    Args:
        blocks: float32 (samples,) arrays, in order.
        size: Samples in a window.
        hop: Samples from one window's start to the next, at most `size`.
    """
    buffer = np.zeros(0, np.float32)
    start = 0  # position of buffer[0] in the song
    position = 0  # where the next window starts
    heard = 0  # samples covered by windows so far
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while start + len(buffer) >= position + size:
            yield position, buffer[position - start : position - start + size]
            heard, position = position + size, position + hop
        # The last window may need up to `size` samples before the end.
        spare = max(len(buffer) - size, 0)
        buffer, start = buffer[spare:], start + spare
    end = start + len(buffer)
    if end < size:
        yield 0, np.resize(buffer, size)
    elif heard < end:
        yield end - size, buffer[-size:]


def elastic_windows(
    blocks: Iterable[Waveform], size: int, hop: int, shortest: int
) -> Iterator[Window]:
    """Windows of one size, the last one shorter or a little longer so that it ends with the song.

    A rest of fewer than `shortest` new samples joins the window before it. A song up to one window
    long is one window; one under `shortest` is repeated to that length.

    Args:
        blocks: float32 (samples,) arrays, in order.
        size: Samples in a window.
        hop: Samples from one window's start to the next, at most `size`.
        shortest: Fewest samples that a window of its own may have.
    """
    buffer = np.zeros(0, np.float32)
    position = 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while len(buffer) >= hop + max(size, shortest) + shortest:
            yield position, buffer[:size]
            buffer, position = buffer[hop:], position + hop
    while len(buffer) > size and len(buffer) - hop >= shortest:
        yield position, buffer[:size]
        buffer, position = buffer[hop:], position + hop
    yield position, buffer if len(buffer) >= shortest else np.resize(buffer, shortest)
