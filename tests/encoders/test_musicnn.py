import struct
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from musilingo_core.encoders import MusicEncoder, encode, fingerprint
from musilingo_core.encoders.musicnn import EPS, MusicnnEncoder, _from_tensorflow
from musilingo_core.encoders.tf_bundle import read_bundle
from musilingo_core.errors import CheckpointError
from musilingo_core.models import find_preset
from musilingo_core.weights import encoder_folder
from musilingo_core.wheels import MUSICNN, fetch
from tests.conftest import CountingEncoder, tone


def test_both_encoders_of_the_tests_satisfy_the_protocol(
    tiny_encoder: MusicnnEncoder, counting_encoder: CountingEncoder
) -> None:
    assert isinstance(tiny_encoder, MusicEncoder) and isinstance(counting_encoder, MusicEncoder)


def test_windows_are_heard_alike_alone_or_in_a_batch(tiny_encoder: MusicnnEncoder) -> None:
    waveforms = torch.randn(3, tiny_encoder.window) / 10
    with torch.no_grad():
        batch = tiny_encoder(waveforms)
        alone = torch.cat([tiny_encoder(waveforms[i : i + 1]) for i in range(3)])
    assert batch.shape == (3, 1, 400)
    torch.testing.assert_close(batch, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("seconds", "rows"), [(0.5, 1), (3.008, 1), (3.5, 2), (12, 5), (60, 21)])
def test_every_song_is_heard_to_its_last_sample(
    tiny_encoder: MusicnnEncoder, seconds: float, rows: int
) -> None:
    song = tone(seconds)
    features, times = encode(tiny_encoder, [song])
    assert features.shape == (rows, 400) and features.dtype == torch.float32
    assert times.shape == (rows, 2) and times[0, 0] == 0
    assert float(times[-1, 1]) == pytest.approx(max(seconds, 3.008), abs=1e-3)
    assert (times[1:, 0] <= times[:-1, 1]).all()


def test_memory_stays_flat_because_a_song_is_never_whole(tiny_encoder: MusicnnEncoder) -> None:
    taken, given = [0], [0]

    def blocks() -> Any:
        for _ in range(30):
            taken[0] += 160_000
            yield np.zeros(160_000, np.float32)

    for start, samples in tiny_encoder.windows(blocks()):
        given[0] = start + len(samples)
        assert taken[0] - given[0] <= 160_000 + tiny_encoder.window


def test_the_fingerprint_follows_weights_and_geometry(tiny_encoder: MusicnnEncoder) -> None:
    first = fingerprint(tiny_encoder)
    other = MusicnnEncoder(tiny_encoder.config).eval()
    other.load_state_dict(tiny_encoder.state_dict())
    assert fingerprint(other) == first and len(first) == 16
    with torch.no_grad():
        other.networks[0].dense.bias[0] += 1
    assert fingerprint(other) != first


def test_the_encoder_comes_back_from_disk(tiny_encoder: MusicnnEncoder, tmp_path: Path) -> None:
    tiny_encoder.save_pretrained(tmp_path)
    loaded = MusicnnEncoder.from_pretrained(tmp_path)
    assert fingerprint(loaded) == fingerprint(tiny_encoder)
    assert loaded.config.tags == tiny_encoder.config.tags


def random_checkpoint(dice: np.random.Generator) -> dict[str, Any]:
    """A checkpoint in musicnn's layout, small values."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = [1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200]
    for number, size in enumerate(channels):
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        for part in ("beta", "gamma", "moving_mean", "moving_variance"):
            shapes[f"{name}/{part}"] = (size,)
    kernels = [(7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51)]
    kernels += [(7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)]
    for number, shape in enumerate(kernels):
        name = f"conv2d_{number}" if number else "conv2d"
        shapes[f"{name}/kernel"], shapes[f"{name}/bias"] = shape, shape[-1:]
    shapes |= {"dense/kernel": (1506, 200), "dense/bias": (200,)}
    shapes |= {"dense_1/kernel": (200, 50), "dense_1/bias": (50,)}
    arrays = {n: dice.standard_normal(s).astype(np.float32) / 10 for n, s in shapes.items()}
    for name in arrays:
        if name.endswith("variance"):
            arrays[name] = np.abs(arrays[name]) + 0.5
        if name.endswith("gamma"):
            arrays[name] += 1
            arrays[name][::3] *= -1  # a batch norm may turn the order round
    return arrays


def restated(arrays: dict[str, Any], frames: torch.Tensor) -> torch.Tensor:
    """musicnn's published graph in plain channels-last steps; (batch, time, bands) to logits."""

    def norm(x: torch.Tensor, number: int) -> torch.Tensor:
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        beta, gamma, mean, variance = (
            torch.from_numpy(arrays[f"{name}/{part}"])
            for part in ("beta", "gamma", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / torch.sqrt(variance + EPS) + beta

    def conv(x: torch.Tensor, number: int) -> torch.Tensor:
        name = f"conv2d_{number}" if number else "conv2d"
        kernel = torch.from_numpy(arrays[f"{name}/kernel"]).permute(3, 2, 0, 1)
        bias = torch.from_numpy(arrays[f"{name}/bias"])
        return F.relu(F.conv2d(x.permute(0, 3, 1, 2), kernel, bias)).permute(0, 2, 3, 1)

    def same(x: torch.Tensor, size: int) -> torch.Tensor:
        return F.pad(x, (0, 0, 0, 0, (size - 1) // 2, size - 1 - (size - 1) // 2))

    x = norm(frames.unsqueeze(3), 0)
    front = [norm(conv(same(x, 7), n), n + 1).amax(2) for n in (0, 1)]
    front += [norm(conv(same(x, k), n), n + 1).amax(2) for n, k in ((2, 128), (3, 64), (4, 32))]
    joined = torch.cat(front, 2).unsqueeze(3)
    maps = [joined]
    for number in (5, 6, 7):
        y = norm(conv(same(maps[-1], 7), number), number + 1).transpose(2, 3)
        maps.append(y if number == 5 else y + maps[-1])
    all_maps = torch.cat(maps, 2)
    pooled = torch.cat([all_maps.amax(1), all_maps.mean(1)], 2).flatten(1)
    dense = norm(pooled, 9) @ torch.from_numpy(arrays["dense/kernel"])
    hidden = norm(F.relu(dense + torch.from_numpy(arrays["dense/bias"])), 10)
    return hidden @ torch.from_numpy(arrays["dense_1/kernel"]) + torch.from_numpy(
        arrays["dense_1/bias"]
    )


def test_the_network_is_the_published_graph(tiny_encoder: MusicnnEncoder) -> None:
    from musilingo_core.encoders.musicnn import _Network

    arrays = random_checkpoint(np.random.default_rng(0))
    network = _Network(50).eval()
    network.load_state_dict(_from_tensorflow(arrays))
    frames = torch.rand(2, 187, 96)
    with torch.no_grad():
        ours = network.head(network.embed(frames))
        theirs = restated(arrays, frames)
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)
    assert theirs.std() > 0.05


def test_what_is_no_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / ".index").write_bytes(struct.pack("<60B", *range(60)))
    (tmp_path / ".data-00000-of-00001").write_bytes(b"")
    with pytest.raises(CheckpointError):
        read_bundle(tmp_path)


@pytest.mark.starter
def test_the_mel_bands_are_librosas(starter_or_skip: None) -> None:
    encoder = MusicnnEncoder.from_pretrained(encoder_folder(find_preset("starter")))
    mels = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=96)
    np.testing.assert_allclose(encoder.mel_filters.T.numpy(), mels, atol=1e-6)


@pytest.mark.starter
def test_the_published_weights_tag_a_chord_of_sines_as_no_voice(starter_or_skip: None) -> None:
    assert fetch(MUSICNN).is_file()
    encoder = MusicnnEncoder.from_pretrained(encoder_folder(find_preset("starter")))
    features, _ = encode(encoder, [sum(tone(6, hertz=h, gain=0.2) for h in (220, 277, 330))])
    logits = encoder.tag_logits(features.mean(0))
    tags = [tag for tags in encoder.config.tags for tag in tags]
    assert len(tags) == 100 and {"guitar", "no vocals", "jazz"} <= set(tags)
    assert logits[tags.index("no vocals")] > logits[tags.index("singing")]
