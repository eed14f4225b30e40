"""Music encoders: frozen networks that turn a waveform into feature rows.

`MusicEncoder` is what the rest of the project knows of them; `encode` is the one road from waveform
blocks to features, the same for every encoder. `musicnn` and `mert` implement the protocol.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from musilingo_core.audio import Waveform
from musilingo_core.encoders.windows import Window
from musilingo_core.errors import UnreadableAudio

# Seconds of equal windows heard in one forward pass. It bounds memory, and what fits into a
# processor's cache is heard a third faster than batches of five times the size.
BATCH_S = 6.0


@runtime_checkable
class MusicEncoder(Protocol):
    """A frozen network that hears windows of a song.

    Attributes:
        sample_rate: Hz, of the waveforms it takes.
        feature_size: Values in a feature row.
    """

    sample_rate: int
    feature_size: int

    def windows(self, blocks: Iterable[Waveform]) -> Iterator[Window]:
        """Cuts a song into the windows to hear, in order and to its last sample."""

    def spans(self, start: int, samples: int) -> list[tuple[int, int]]:
        """(first, last + 1) sample of the song behind each row of the window at `start`."""

    def __call__(self, input_values: Tensor) -> Tensor:
        """(batch, samples) float32 to (batch, rows, feature_size)."""


@torch.inference_mode()
def encode(encoder: MusicEncoder, blocks: Iterable[Waveform]) -> tuple[Tensor, Tensor]:
    """Hears a song window by window, so that memory does not grow with its length.

    Args:
        encoder: The encoder; it runs on the device its weights are on.
        blocks: Mono float32 blocks at the encoder's sample rate.

    Returns:
        features: (rows, feature_size) float32, on the CPU.
        times: (rows, 2) float32, seconds of the song that each row was heard from.
    """
    rows, times = [], []
    most = int(BATCH_S * encoder.sample_rate)
    for batch in _equal_batches(encoder.windows(blocks), most):
        waveforms = torch.stack([torch.from_numpy(samples) for _, samples in batch])
        rows.append(encoder(waveforms.to(_device(encoder))).float().cpu().flatten(0, 1))
        times += [span for start, samples in batch for span in encoder.spans(start, len(samples))]
    if not all(torch.isfinite(row).all() for row in rows):
        raise UnreadableAudio("this song", ["the encoder cannot make anything of its samples"])
    return torch.cat(rows), torch.tensor(times, dtype=torch.float32) / encoder.sample_rate


def fingerprint(encoder: MusicEncoder) -> str:
    """16 hex digits naming an encoder by its configuration and weights.

    Features of different fingerprints must never be mixed; the feature cache keys on it. The same
    weights in another precision hear slightly differently and so have another fingerprint.
    """
    digest = hashlib.sha256()
    assert isinstance(encoder, nn.Module)
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    config = getattr(encoder, "config", None)
    digest.update(type(encoder).__name__.encode())
    digest.update(repr(sorted(config.geometry().items())).encode() if config else b"")
    return digest.hexdigest()[:16]


def _equal_batches(windows: Iterable[Window], most: int) -> Iterator[list[Window]]:
    """Neighbouring windows of one length, up to `most` samples together; never padded."""
    batch: list[Window] = []
    for window in windows:
        length = len(window[1])
        if batch and (length != len(batch[0][1]) or (len(batch) + 1) * length > most):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _device(encoder: MusicEncoder) -> torch.device:
    if isinstance(encoder, nn.Module):
        return next(encoder.parameters()).device
    return torch.device("cpu")
