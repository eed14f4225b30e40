import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel

from musilingo_core.encoders import encode, fingerprint
from musilingo_core.encoders.mert import MertEncoder, frames
from musilingo_core.errors import CheckpointError
from musilingo_core.weights import load_encoder

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embedding_groups": 4,
}


def publish(
    folder: Path, stable: bool, normalize: bool = False, old_names: bool = True
) -> HubertModel:
    """A random MERT in the published layout, perhaps with old weight-norm names."""
    torch.manual_seed(0)
    config = HubertConfig(**SMALL, do_stable_layer_norm=stable)
    model = HubertModel(config).eval()
    settings = config.to_dict() | {"model_type": "mert_model", "feature_extractor_cqt": False}
    (folder / "config.json").write_text(json.dumps(settings))
    reader = {"sampling_rate": 24_000, "do_normalize": normalize}
    (folder / "preprocessor_config.json").write_text(json.dumps(reader))
    state = model.state_dict()
    if old_names:
        for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
            name = f"encoder.pos_conv_embed.conv.parametrizations.weight.{new}"
            state[name.replace(f"parametrizations.weight.{new}", old)] = state.pop(name)
    torch.save(state, folder / "pytorch_model.bin")
    return model


def restated(model: HubertModel, waveform: torch.Tensor) -> torch.Tensor:
    """The paper's features in one pass: mean of hidden states, last one final-normed, in blocks."""
    with torch.no_grad():
        outputs = model(waveform.unsqueeze(0), output_hidden_states=True)
    states = torch.stack([*outputs.hidden_states[:-1], outputs.last_hidden_state])
    mean = states.mean(0)[0]
    return torch.stack([mean[i : i + 325].mean(0) for i in range(0, len(mean), 325)])


@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("old_names", [True, False])
@pytest.mark.parametrize("seconds", [0.5, 4.4, 13.0])
def test_up_to_one_window_the_features_are_those_of_one_pass(
    tmp_path: Path, stable: bool, old_names: bool, seconds: float
) -> None:
    model = publish(tmp_path, stable, old_names=old_names)
    waveform = torch.randn(int(seconds * 24_000)) / 10
    features, times = encode(load_encoder(tmp_path, "cpu"), [waveform.numpy()])
    torch.testing.assert_close(features, restated(model, waveform), atol=1e-5, rtol=1e-4)
    assert float(times[-1, 1]) == pytest.approx(seconds, abs=1e-3)
    assert len(times) == len(features) == -(-frames(len(waveform)) // 325)


def test_the_normalisation_flag_is_read_from_the_file(tmp_path: Path) -> None:
    model = publish(tmp_path, stable=False, normalize=True)
    waveform = torch.randn(24_000) / 10 + 0.2
    normal = (waveform - waveform.mean()) / torch.sqrt(waveform.var(correction=0) + 1e-7)
    features, _ = encode(load_encoder(tmp_path, "cpu"), [waveform.numpy()])
    torch.testing.assert_close(features, restated(model, normal), atol=1e-5, rtol=1e-4)


def test_frames_are_the_convolutions_own() -> None:
    wanted = {400: 1, 719: 1, 720: 2, 24_000: 74, 480_001: 1499, 1_080_000: 3374}
    assert {samples: frames(samples) for samples in wanted} == wanted


def test_a_long_song_is_heard_in_windows_of_whole_rows(tmp_path: Path) -> None:
    model = publish(tmp_path, stable=True)
    encoder = load_encoder(tmp_path, "cpu")
    assert isinstance(encoder, MertEncoder)
    assert frames(encoder.window) == 7 * 325
    waveform = torch.randn(24_000 * 70) / 10
    features, times = encode(encoder, [part.numpy() for part in waveform.split(100_000)])
    pieces = [waveform[i * encoder.hop :][: encoder.window] for i in range(3)]
    expected = torch.cat([restated(model, piece) for piece in pieces])
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)
    assert len(features) == 7 + 7 + 3
    assert float(times[-1, 1]) == pytest.approx(70, abs=1e-3)


def test_a_saved_encoder_hears_the_same(tmp_path: Path) -> None:
    publish(tmp_path, stable=True)
    encoder = load_encoder(tmp_path, "cpu")
    encoder.save_pretrained(tmp_path / "own")  # type: ignore[attr-defined]
    again = load_encoder(tmp_path / "own", "cpu")
    assert fingerprint(again) == fingerprint(encoder)
    song = np.random.default_rng(0).standard_normal(30_000).astype(np.float32) / 10
    torch.testing.assert_close(encode(again, [song])[0], encode(encoder, [song])[0])


def test_missing_and_unexpected_weights_are_named(tmp_path: Path) -> None:
    publish(tmp_path, stable=True)
    state = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    state["extra.weight"] = state.pop("encoder.layer_norm.weight")
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as caught:
        load_encoder(tmp_path, "cpu")
    assert caught.value.missing == ("encoder.layer_norm.weight",)
    assert caught.value.unexpected == ("extra.weight",)


def test_a_damaged_file_is_called_damaged(tmp_path: Path) -> None:
    publish(tmp_path, stable=True)
    (tmp_path / "pytorch_model.bin").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="damaged"):
        load_encoder(tmp_path, "cpu")


def test_another_configuration_is_another_fingerprint(tmp_path: Path) -> None:
    publish(tmp_path, stable=True)
    first = fingerprint(load_encoder(tmp_path, "cpu"))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 8}))
    assert fingerprint(load_encoder(tmp_path, "cpu")) != first


@pytest.mark.parametrize(
    "config", ["", "{}", '{"model_type": "llama"}', '{"model_type": "hubert"}']
)
def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError):
        load_encoder(tmp_path, "cpu")
