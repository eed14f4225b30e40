"""musicnn, the starter's music encoder: two small taggers whose embeddings are put side by side.

J. Pons and X. Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging",
arXiv 1909.06654. One network learnt the tags of MagnaTagATune, the other those of the Million Song
Dataset; each hears three-second windows. Their last hidden layer is the feature; their tag heads
are kept as teachers for training data and are not part of the conversation.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.audio_utils import mel_filter_bank

from musilingo_core.audio import Waveform
from musilingo_core.encoders.tf_bundle import read_bundle
from musilingo_core.encoders.windows import Window, fixed_windows

N_FFT, FFT_HOP, MELS = 512, 256, 96  # samples, samples, bands
FRAMES = 187  # spectrogram frames in a window
EMBEDDING = 200  # values each network gives
EPS = 1e-3  # of every batch normalisation (TensorFlow's default)


class MusicnnConfig(PreTrainedConfig):
    """Shape of the encoder.

    Attributes:
        sampling_rate: Hz.
        tags: Names of the tag heads' outputs, for each network in order.
        feature_limit: Features are clamped to ± this many standard deviations of what each network
            saw in its own training, so that no outlier can shout down a language model.
        hidden_size: Values a window.
    """

    model_type = "musicnn"

    def __init__(
        self,
        sampling_rate: int = 16_000,
        tags: list[list[str]] | None = None,
        feature_limit: float = 4.0,
        **kwargs: Any,
    ) -> None:
        self.sampling_rate = sampling_rate
        self.tags = tags if tags is not None else [["music"], ["music"]]
        self.feature_limit = feature_limit
        self.hidden_size = EMBEDDING * len(self.tags)
        super().__init__(**kwargs)

    def geometry(self) -> dict[str, object]:
        """Settings that change what is heard without being weights."""
        return {"sampling_rate": self.sampling_rate, "feature_limit": self.feature_limit}


class MusicnnEncoder(PreTrainedModel):
    """Waveform windows to features: a `MusicEncoder`."""

    config_class = MusicnnConfig
    main_input_name = "input_values"
    _no_split_modules = ["MusicnnEncoder"]

    def __init__(self, config: MusicnnConfig) -> None:
        super().__init__(config)
        self.sample_rate = config.sampling_rate
        self.feature_size = config.hidden_size
        self.window = (FRAMES - 1) * FFT_HOP + N_FFT  # 48,128 samples, 3.008 s
        self.hop = FRAMES * FFT_HOP  # 47,872 samples, 2.992 s
        # Buffers and not constants, so that a saved encoder hears the same on every machine.
        self.register_buffer("fft_window", torch.hann_window(N_FFT))
        self.register_buffer("mel_filters", torch.zeros(N_FFT // 2 + 1, MELS))
        self.networks: Any = nn.ModuleList(_Network(len(tags)) for tags in config.tags)
        self.post_init()

    @classmethod
    def from_published(cls, folder: str | Path) -> "MusicnnEncoder":
        """Builds the encoder from the published package's own files.

        Args:
            folder: The `musicnn` folder of the package: `configuration.py` with the tag names,
                `MTT_musicnn/` and `MSD_musicnn/` with TensorFlow bundles.

        Raises:
            CheckpointError: A file is missing or does not fit.
        """
        folder = Path(folder)
        names = _constants(folder / "configuration.py")
        tags = [[tag.lower() for tag in names[f"{data}_LABELS"]] for data in ("MTT", "MSD")]
        model = cls(MusicnnConfig(tags=tags))
        mels = mel_filter_bank(
            N_FFT // 2 + 1, MELS, 0, 8_000, model.sample_rate, norm="slaney", mel_scale="slaney"
        )
        state = {"fft_window": model.fft_window, "mel_filters": torch.from_numpy(mels).float()}
        for number, data in enumerate(("MTT", "MSD")):
            arrays = read_bundle(folder / f"{data}_musicnn")
            state |= {f"networks.{number}.{k}": v for k, v in _from_tensorflow(arrays).items()}
        model.load_state_dict(state)
        return model.eval()

    def windows(self, blocks: Iterable[Waveform]) -> Iterator[Window]:
        """Cuts a song into three-second windows (the last one flush with its end)."""
        return fixed_windows(blocks, self.window, self.hop)

    def spans(self, start: int, samples: int) -> list[tuple[int, int]]:
        """Sample span of each feature row of a window: here the window itself."""
        return [(start, start + samples)]

    def forward(self, input_values: Tensor) -> Tensor:
        """Hears a batch of windows.

        Args:
            input_values: (batch, samples) float, 16 kHz, range about [−1, 1].

        Returns:
            (batch, 1, 400): hidden units in standard deviations from their mean in the networks'
            own training, clamped.
        """
        frames = self._log_mel(input_values)
        embedding = torch.cat([network.embed(frames) for network in self.networks], dim=-1)
        limit = self.config.feature_limit
        return embedding.clamp(-limit, limit).unsqueeze(1)

    def tag_logits(self, features: Tensor) -> Tensor:
        """What the tag heads say of features: a linear function, so mixtures can be tagged too.

        Args:
            features: (..., 400).

        Returns:
            (..., tags) logits, in the order of `config.tags`, all networks in one row.
        """
        parts = features.split(EMBEDDING, dim=-1)
        return torch.cat([n.head(p) for n, p in zip(self.networks, parts, strict=True)], dim=-1)

    def _log_mel(self, waveform: Tensor) -> Tensor:
        """(batch, samples) to (batch, frames, 96); every frame lies inside the window."""
        spectrum = torch.stft(
            waveform, N_FFT, FFT_HOP, window=self.fft_window, center=False, return_complex=True
        )
        power = spectrum.abs().square().transpose(1, 2)
        return torch.log10(10_000 * (power @ self.mel_filters) + 1)


def _constants(path: Path) -> dict[str, list[str]]:
    """The literal assignments of a Python file, which is read and never run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def _from_tensorflow(arrays: dict[str, Any]) -> dict[str, Tensor]:
    """One network's weights under our names; convolution kernels are [time, band, in, out]."""

    def numbered(kind: str, number: int) -> str:
        return f"{kind}_{number}" if number else kind

    fronts = [f"timbre.{i}" for i in range(2)] + [f"rhythm.{i}" for i in range(3)]
    middles = [f"middle.{i}" for i in range(3)]
    state: dict[str, Any] = {}
    for number, ours in enumerate(fronts + middles):
        kernel = arrays[numbered("conv2d", number) + "/kernel"]
        state[f"{ours}.conv.weight"] = (
            kernel.transpose(3, 2, 0, 1) if ours in fronts else kernel[:, :, 0].transpose(2, 1, 0)
        )
        state[f"{ours}.conv.bias"] = arrays[numbered("conv2d", number) + "/bias"]
    norms = ["input_norm", *(f"{ours}.norm" for ours in fronts + middles), "pool_norm", "norm"]
    for number, ours in enumerate(norms):
        theirs = numbered("batch_normalization", number)
        state[f"{ours}.running_mean"] = arrays[f"{theirs}/moving_mean"]
        state[f"{ours}.running_var"] = arrays[f"{theirs}/moving_variance"]
        state[f"{ours}.weight"] = arrays[f"{theirs}/gamma"]
        state[f"{ours}.bias"] = arrays[f"{theirs}/beta"]
    state["dense.weight"], state["dense.bias"] = arrays["dense/kernel"].T, arrays["dense/bias"]
    # Our features stop before the last norm's scale and shift: the head takes them over.
    scale, shift = state.pop("norm.weight"), state.pop("norm.bias")
    head = arrays["dense_1/kernel"]
    state["head.weight"] = (scale[:, None] * head).T
    state["head.bias"] = arrays["dense_1/bias"] + shift @ head
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    counters = {name.replace("running_mean", "num_batches_tracked") for name in tensors}
    return tensors | {name: torch.tensor(0) for name in counters if name.endswith("tracked")}


class _Network(nn.Module):
    """One tagger. Shapes: (batch, frames, bands) in, (batch, 200) out."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, EPS)
        # Timbre: tall filters over 40 and 70 % of the bands. Rhythm: long filters in time.
        self.timbre = nn.ModuleList(_FrontEnd(204, (7, bands)) for bands in (38, 67))
        self.rhythm = nn.ModuleList(_FrontEnd(51, (frames, 1)) for frames in (128, 64, 32))
        self.middle = nn.ModuleList(_MidEnd(channels) for channels in (561, 64, 64))
        self.pool_norm = nn.BatchNorm1d(2 * 753, EPS)
        self.dense = nn.Linear(2 * 753, EMBEDDING)
        self.norm = nn.BatchNorm1d(EMBEDDING, EPS, affine=False)
        self.head = nn.Linear(EMBEDDING, tags)

    def embed(self, frames: Tensor) -> Tensor:
        x = self.input_norm(frames.unsqueeze(1))
        front = torch.cat([block(x) for block in (*self.timbre, *self.rhythm)], dim=1)
        first = self.middle[0](front)
        second = self.middle[1](first) + first
        third = self.middle[2](second) + second
        maps = torch.cat([front, first, second, third], dim=1)
        pooled = torch.stack([maps.amax(2), maps.mean(2)], dim=2).flatten(1)  # interleaved
        return self.norm(F.relu(self.dense(self.pool_norm(pooled))))


class _FrontEnd(nn.Module):
    """Convolution over the spectrogram, then the loudest band: (b, 1, t, f) to (b, channels, t)."""

    def __init__(self, channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.conv: Any = nn.Conv2d(1, channels, kernel)
        self.norm = nn.BatchNorm1d(channels, EPS)
        left = (kernel[0] - 1) // 2
        self.pad = (0, 0, left, kernel[0] - 1 - left)  # 'same' in time, TensorFlow's way

    def forward(self, x: Tensor) -> Tensor:
        # A batch norm keeps or turns the order of a channel's values, and the rectifier keeps it:
        # of all bands only the highest or the lowest counts. Signs make the lowest the highest.
        sign = torch.where(self.norm.weight < 0, -1.0, 1.0)
        signed = F.conv2d(
            F.pad(x, self.pad), sign[:, None, None, None] * self.conv.weight, sign * self.conv.bias
        )
        return self.norm(F.relu(sign[:, None] * signed.amax(3)))


class _MidEnd(nn.Module):
    """Convolution over time: (b, channels, t) to (b, 64, t)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, 64, 7, padding=3)
        self.norm = nn.BatchNorm1d(64, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(x)))


AutoConfig.register(MusicnnConfig.model_type, MusicnnConfig)
AutoModel.register(MusicnnConfig, MusicnnEncoder)
