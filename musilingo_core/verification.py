"""A self-check for who has the weights: one clip through every stage, beside plain transformers.

Where the weights cannot be had nobody can say which figures they give. So each stage is computed a
second time in the plainest way, from the same weights, and the figures are printed, to be compared
between machines.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from musilingo_core import checkpoints
from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.encoders.mert import MertEncoder
from musilingo_core.engine import ChatEngine
from musilingo_core.features import pool
from musilingo_core.folders import read_settings, read_shapes
from musilingo_core.hub import Repository, recorded
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.prompt import user
from musilingo_core.sampling import Sampling
from musilingo_core.weights import described

KEYS = 728  # of m-a-p/MusiLingo-*-v1
SECONDS, QUESTION, TOKENS = 20.0, "Which instruments do you hear?", 24
FAR = 1e-2  # of the values' deviation: farther is another computation, not rounding


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        stage: What.
        figure: What was found, for people.
        good: Whether it is as it should be; None where nobody knows.
    """

    stage: str
    figure: str
    good: bool | None = None

    def __str__(self) -> str:
        mark = {True: "ok  ", False: "BAD ", None: "    "}[self.good]
        return f"{mark}{self.stage}: {self.figure}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def verify_files(repository: Repository) -> Iterator[Check]:
    """What came from a repository of the Hub, once it was fetched."""
    revision, hashes = recorded(repository)
    pinned = None if repository.revision is None else revision == repository.revision
    yield Check(repository.name, f"revision {revision}", pinned)
    for name, digest in sorted(hashes.items()):
        known = repository.hashes.get(name)
        yield Check(f"{repository.name}/{name}", digest, None if known is None else known == digest)


def verify_folder(folder: Path) -> Iterator[Check]:
    """What can be said of a published checkpoint without loading it."""
    if not (folder / "config.json").is_file():  # in compact form
        return
    settings = read_settings(folder)
    if not checkpoints.is_published(settings):
        return
    yield from verify_shapes(read_shapes(folder), settings, folder)


def verify_shapes(
    shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any], where: str | Path
) -> Iterator[Check]:
    """Whether a published checkpoint's weights are those of the model.

    Args:
        shapes: Of all its weights, by name.
        settings: Its `config.json`.
        where: Named in errors.

    Raises:
        CheckpointError: The settings describe no model.
    """
    whole = settings.get("hidden_size") == 4096
    yield Check("keys", f"{len(shapes)}", len(shapes) == KEYS if whole else None)
    config = checkpoints.encoder_config(shapes, where)
    yield Check(
        "encoder",
        f"{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} "
        f"heads, {config.conv_dim[0]} channels",
        None if not whole else (config.num_hidden_layers, config.hidden_size) == (24, 1024),
    )
    with described(where), torch.device("meta"):
        text = checkpoints.text_config(settings)
        model = MusiLingoForConditionalGeneration(
            MusiLingoConfig(audio_config=config, text_config=text)
        )
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {
        checkpoints.renamed(name): tuple(shape)
        for name, shape in shapes.items()
        if not name.endswith("rotary_emb.inv_freq")
    }
    named = {n for n in wanted.keys() | found.keys() if not n.endswith("masked_spec_embed")}
    wrong = sorted(name for name in named if wanted.get(name) != found.get(name))
    figure = f"{len(wrong)} do not fit, such as {wrong[0]}" if wrong else f"all {len(named)} fit"
    yield Check("names and shapes", figure, not wrong)
    yield Check("projection", f"{list(found.get('multi_modal_projector.weight', ()))}")


def verify_engine(engine: ChatEngine) -> Iterator[Check]:
    """A fixed clip through every stage of an engine."""
    model = engine.model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        sound = fixed_clip(model.audio_tower.sample_rate)
        soundfile.write(path, sound, model.audio_tower.sample_rate, subtype="FLOAT")
        clip = engine.encode(path)
    yield Check("sound", f"{len(sound)} samples, {_figures(torch.from_numpy(sound))}")
    yield Check("features", f"{list(clip.features.shape)}, {_figures(clip.features)}")
    if isinstance(model.audio_tower, MertEncoder):
        yield _beside("features", clip.features, plain_features(model.audio_tower, sound))
    embeds = model.get_audio_features(audio_features=[clip.features])
    yield Check("projected", f"{list(embeds.shape)}, {_figures(embeds)}")
    layer = model.multi_modal_projector
    rows = pool(clip.features, model.config.segments).to(layer.weight.device)
    plain = rows.double() @ layer.weight.double().T + layer.bias.double()
    yield _beside("projected", embeds, plain.view_as(embeds).float())
    messages = [user(QUESTION, clip.clip_id)]
    prompt = engine.processor.render(messages, engine.clip)
    ids = " ".join(map(str, prompt.ids[:8]))
    yield Check("prompt", f"{len(prompt.ids)} tokens, the first {ids}")
    reply = engine.reply(messages, Sampling(temperature=0, max_new_tokens=TOKENS))
    text = reply.text()
    yield Check("reply", f"“{text}”", bool(text))
    theirs = plain_reply(engine, prompt.ids, clip.features)
    alike = theirs.startswith(text) or text.startswith(theirs)
    exact = not engine.decoder.packed and model.language_model.dtype == torch.float32
    figure = "the same" if alike else f"another: “{theirs}”"
    yield Check("reply by transformers' generate", figure, alike if exact or alike else None)


def fixed_clip(rate: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """(samples,) float32: three notes one after another, each with four harmonics that fade."""
    times = np.arange(int(SECONDS * rate)) / rate
    sound = np.zeros_like(times)
    for number, hertz in enumerate((220.0, 277.2, 329.6)):
        since = times - number * SECONDS / 3
        note = sum(np.sin(2 * np.pi * hertz * n * since) / n for n in range(1, 5))
        sound += np.where(since >= 0, note * np.exp(-since / 4), 0.0)
    return (sound / 8).astype(np.float32)


@torch.inference_mode()
def plain_features(encoder: MertEncoder, sound: np.ndarray) -> Tensor:
    """(rows, size) float32: one pass, all hidden states stacked, as the paper's code does it."""
    weights = next(encoder.parameters())
    waveform = torch.from_numpy(sound).unsqueeze(0)
    if encoder.config.do_normalize:
        waveform = (waveform - waveform.mean()) / torch.sqrt(waveform.var(correction=0) + 1e-7)
    outputs = encoder.model(waveform.to(weights), output_hidden_states=True)
    states = torch.stack([*outputs.hidden_states[:-1], outputs.last_hidden_state]).float()
    frames = states.mean(0)[0].split(encoder.config.frames_per_row)
    return torch.stack([block.mean(0) for block in frames]).cpu()


@torch.inference_mode()
def plain_reply(engine: ChatEngine, ids: list[int], features: Tensor) -> str:
    """What transformers' own `generate` makes of a prompt."""
    model, tokenizer = engine.model, engine.processor.tokenizer
    prompt = torch.tensor([ids], device=model.device)
    embeds = model.embed(prompt, model.get_audio_features(audio_features=[features]))
    found = model.language_model.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=TOKENS,
        do_sample=False,
        suppress_tokens=[model.config.audio_token_id],
    )
    text: str = tokenizer.decode(found[0], skip_special_tokens=True)
    for stop in engine.processor.stop_strings:
        text = text.split(stop)[0]
    return text.strip()


def _figures(values: Tensor) -> str:
    """What two machines may compare."""
    values = values.float().flatten()
    first = " ".join(f"{value:.5f}" for value in values[:4].tolist())
    return f"mean {values.mean():.6f}, deviation {values.std():.6f}, the first {first}"


def _beside(stage: str, ours: Tensor, plain: Tensor) -> Check:
    ours, plain = ours.detach().float().cpu(), plain.detach().float().cpu()
    far = float((ours - plain).abs().max() / plain.std())
    return Check(f"{stage}, the plain way", f"{far:.1e} of their deviation away", far < FAR)
