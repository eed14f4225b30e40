"""MERT, the paper's music encoder, as the HuBERT it is: no remote code.

Y. Li et al., "MERT: Acoustic Music Understanding Model with Large-Scale Self-supervised Training",
arXiv 2306.00107. Every switch that makes MERT differ from `transformers.HubertModel` is off in the
published configurations. MusiLingo (arXiv 2309.08730) takes the mean over all hidden states, then
the mean over blocks of 325 frames.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, HubertConfig, HubertModel, PreTrainedModel

from musilingo_core.audio import Waveform
from musilingo_core.encoders.windows import Window, elastic_windows
from musilingo_core.errors import CheckpointError
from musilingo_core.folders import read_settings, read_state

HOP = 320  # samples a frame (strides 5·2·2·2·2·2·2)
FIELD = 400  # samples that one frame sees
FRAMES_PER_ROW = 325  # frames averaged into one row: 4.33 s at 24 kHz
OVERLAP = FIELD - HOP  # 80 samples: what a window needs beyond its frames' hops


class MertConfig(HubertConfig):
    """HuBERT's configuration and how songs are put through it.

    Attributes:
        sampling_rate: Hz: 24,000 for MERT v1, 16,000 for v0.
        do_normalize: Whether windows are brought to mean 0 and variance 1 first.
        frames_per_row: Frames averaged into a feature row.
        window_rows: Rows of a window; a longer song is heard window by window.
    """

    model_type = "mert"

    sampling_rate: int = 24_000
    do_normalize: bool = False
    frames_per_row: int = FRAMES_PER_ROW
    window_rows: int = 7

    @classmethod
    def from_published(cls, folder: str | Path) -> "MertConfig":
        """Of a published MERT's (`mert_model`) or a HuBERT's folder; its weights are not needed.

        Args:
            folder: `config.json`, and perhaps `preprocessor_config.json`.

        Raises:
            CheckpointError: A file is missing or damaged.
        """
        settings = read_settings(folder)
        for name in ("model_type", "architectures", "auto_map", "dtype", "torch_dtype"):
            settings.pop(name, None)
        config = cls(**settings)
        if (Path(folder) / "preprocessor_config.json").is_file():
            reader = read_settings(folder, "preprocessor_config.json")
            config.sampling_rate = reader.get("sampling_rate", config.sampling_rate)
            config.do_normalize = reader.get("do_normalize", config.do_normalize)
        return config

    def geometry(self) -> dict[str, object]:
        """Settings that change what is heard without being weights."""
        names = (
            *("sampling_rate", "do_normalize", "frames_per_row", "window_rows", "hidden_act"),
            *("do_stable_layer_norm", "feat_extract_norm", "num_attention_heads", "conv_stride"),
            *("layer_norm_eps", "num_conv_pos_embedding_groups"),
        )
        return {name: getattr(self, name) for name in names}


class MertEncoder(PreTrainedModel):
    """Waveform windows to features: a `MusicEncoder`."""

    config_class = MertConfig
    main_input_name = "input_values"
    _no_split_modules = ["MertEncoder"]
    _supports_sdpa = True

    def __init__(self, config: MertConfig) -> None:
        super().__init__(config)
        self.model = HubertModel(config)
        self.sample_rate = config.sampling_rate
        self.feature_size = config.hidden_size
        self.hop = config.window_rows * config.frames_per_row * HOP
        self.window = self.hop + OVERLAP  # 728,080 samples for 7 rows, 30.3 s
        self.post_init()

    @classmethod
    def from_published(cls, folder: str | Path) -> "MertEncoder":
        """Builds the encoder from a published MERT (`mert_model`) or HuBERT folder.

        Args:
            folder: `config.json`, perhaps `preprocessor_config.json`, and `pytorch_model.bin` or
                `model.safetensors`.

        Raises:
            CheckpointError: Files are missing, or weights are missing or unexpected.
        """
        folder = Path(folder)
        encoder = cls(MertConfig.from_published(folder))
        state = {name.removeprefix("hubert."): value for name, value in read_state(folder).items()}
        encoder.fill(state, folder)
        return encoder.eval()

    def fill(self, state: Mapping[str, Tensor], where: str | Path) -> None:
        """Takes over a published MERT's weights, by the names that `HubertModel` has.

        Args:
            state: All of them.
            where: Named in errors.

        Raises:
            CheckpointError: Weights are missing, unexpected or of the wrong shape.
        """
        # torch's own hook reads both spellings of the positional convolution.
        try:
            loaded = self.model.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise CheckpointError(where, detail=str(error).splitlines()[-1].strip()) from error
        missing = [name for name in loaded.missing_keys if name != "masked_spec_embed"]
        if missing or loaded.unexpected_keys:
            raise CheckpointError(where, missing, loaded.unexpected_keys)

    def windows(self, blocks: Iterable[Waveform]) -> Iterator[Window]:
        """Windows of a whole number of rows; the last ends with the song."""
        return elastic_windows(blocks, self.window, self.hop, shortest=self.sample_rate // 2)

    def spans(self, start: int, samples: int) -> list[tuple[int, int]]:
        """Sample span of each row; the last row of a window may be a shorter block."""
        step = self.config.frames_per_row * HOP
        starts = range(start, start + frames(samples) * HOP, step)
        ends = [at + step + OVERLAP for at in starts[:-1]] + [start + samples]
        return list(zip(starts, ends, strict=True))

    def forward(self, input_values: Tensor) -> Tensor:
        """Hears a batch of windows of one length, unpadded: padding would change the result.

        Args:
            input_values: (batch, samples) float, range about [−1, 1].

        Returns:
            (batch, rows, size): mean over all hidden states, then over blocks of frames.
        """
        if self.config.do_normalize:
            variance, mean = torch.var_mean(input_values, -1, correction=0, keepdim=True)
            input_values = (input_values - mean) / torch.sqrt(variance + 1e-7)
        dtype = next(self.parameters()).dtype
        blocks = self._mean_state(input_values.to(dtype)).split(self.config.frames_per_row, dim=1)
        return torch.stack([block.mean(1) for block in blocks], dim=1)

    def _mean_state(self, input_values: Tensor) -> Tensor:
        """(batch, frames, size) float32: mean over what enters each layer and the last state.

        These are all hidden states, the last of them after the final layer norm on every version of
        transformers (since 5.16 a pre-norm model hands it out before). Summed as they come: a stack
        of 25 would be most of the memory.
        """
        states: list[Tensor] = []  # the sum so far
        thread = threading.get_ident()

        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if threading.get_ident() != thread:  # another window, in a pass of its own
                return
            if states:
                states[0] += inputs[0]
            else:
                states.append(inputs[0].float().clone())

        layers = self.model.encoder.layers
        hooks = [layer.register_forward_pre_hook(add) for layer in layers]
        try:
            last = self.model(input_values).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return (states[0] + last) / (len(layers) + 1)


def frames(samples: int) -> int:
    """Frames that HuBERT's convolutions make of so many samples."""
    return (samples - FIELD) // HOP + 1


AutoConfig.register(MertConfig.model_type, MertConfig)
AutoModel.register(MertConfig, MertEncoder)
