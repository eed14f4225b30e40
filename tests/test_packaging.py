"""What is promised about installing: requirements, README, the built wheel."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import soundfile
from huggingface_hub import metadata_load

from benchmarks.memory import table
from musilingo_core.forms import prompt_forms
from musilingo_core.models import PRESETS, find_preset
from tests.conftest import tone

ROOT = Path(__file__).parent.parent
ALONE = {**os.environ, "PYTHONPATH": ""}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_requirements_are_the_project_s_base_dependencies() -> None:
    lines = (ROOT / "requirements.txt").read_text("utf-8").split("\n")
    assert [line for line in lines if line] == sorted(PROJECT["dependencies"])


def test_every_requirement_has_a_lower_and_an_upper_bound() -> None:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in PROJECT["dependencies"] + extras:
        assert re.fullmatch(r"[a-z0-9_-]+>=[\d.]+,<[\d.]+", line), line


def test_ci_runs_the_readme_s_test_line_exactly() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    [line] = re.findall(r"<!-- test line -->\n```bash\n(.+)\n```", readme)
    assert 'pytest -n 2 -m "not slow and not gpu and not network"' in line
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "<!-- test line -->" in script and "pytest" not in script


def test_the_readme_opens_with_the_space_s_header() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    header = dict(
        line.split(": ", 1) for line in readme.split("---\n")[1].splitlines() if ": " in line
    )
    assert header["sdk"] == "gradio" and header["app_file"] == "app.py"
    assert (ROOT / header["app_file"]).is_file()
    [gradio] = [line for line in PROJECT["dependencies"] if line.startswith("gradio")]
    assert header["sdk_version"].startswith(gradio.split(">=")[1].split(",")[0])


def test_the_readme_s_memory_table_is_what_the_program_expects() -> None:
    assert table() in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="sed is another elsewhere")
def test_the_readme_s_recipe_makes_a_space_with_zero_gpu(tmp_path: Path) -> None:
    for name in ("README.md", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    readme = (ROOT / "README.md").read_text("utf-8")
    [commands] = re.findall(r"<!-- zero gpu -->\n```bash\n(.+?)\n```", readme, re.S)
    subprocess.run(["bash", "-ec", commands], cwd=tmp_path, check=True)
    header = metadata_load(tmp_path / "README.md")
    assert header["suggested_hardware"] == "zero-a10g" and header["python_version"] == "3.12.12"
    checkpoint = find_preset("musilingo-long").checkpoint
    assert checkpoint and header["preload_from_hub"] == [checkpoint.name]
    lines = (tmp_path / "requirements.txt").read_text("utf-8").split()
    assert "torch>=2.8,<2.12" in lines and len(lines) == len(PROJECT["dependencies"])
    assert metadata_load(ROOT / "README.md")["suggested_hardware"] == "cpu-basic"


def test_no_weights_or_music_of_others_are_committed() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip(f"not a clone: {listing.stderr}")
    files = listing.stdout.splitlines()
    assert "README.md" in files
    heavy = {".bin", ".gguf", ".pt", ".pth", ".safetensors", ".wav", ".flac", ".mp3", ".ogg"}
    trained = ("projection.safetensors", "adapter/adapter_model.safetensors")
    ours = {f"musilingo_core/presets/{preset}/{name}" for preset in PRESETS for name in trained}
    found = {name for name in files if Path(name).suffix in heavy}
    assert all(name in ours or name.startswith("assets/examples/") for name in found), found


def install(command: list[Any]) -> None:
    """Runs what needs the package index: without it a failure on CI, elsewhere a skip."""
    # What an editable install left in a folder of PYTHONPATH would pass for an installed project.
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ALONE)
    offline = re.search("connection|resolve|no matching distribution", done.stderr, re.I)
    if done.returncode and offline and os.environ.get("CI") != "true":
        pytest.skip(f"the package index cannot be reached: {done.stderr[-300:]}")
    assert not done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel.

    Built from a copy: an old `build/` beside the sources would slip modules in that are gone.
    """
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    for package in (path.parent for path in ROOT.glob("*/__init__.py")):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, copy / package.name, ignore=ignore)
    install([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(copy)])
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_the_core_s_modules_and_no_others(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    modules = (ROOT / "musilingo_core").rglob("*.py")
    assert names == {path.relative_to(ROOT).as_posix() for path in modules}


def test_the_wheel_carries_projection_card_stages_and_questions(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for preset in (preset for preset in PRESETS.values() if not preset.checkpoint):
        files = [path for path in preset.folder.rglob("*") if path.is_file()]
        needed = {"projection.safetensors", "musilingo.json", "README.md", "stage2.toml"}
        assert needed <= {path.name for path in files}
        assert {path.relative_to(ROOT).as_posix() for path in files} <= names
    assert "musilingo_core/presets/starter/adapter/adapter_model.safetensors" in names
    assert "musilingo_core/presets/starter-frozen/stage1.toml" in names
    assert "musilingo_core/presets/paper/stage2.toml" in names
    assert "musilingo_core/data/questions.toml" in names
    assert {f"musilingo_core/prompts/{form}.toml" for form in prompt_forms()} <= names
    assert not any(name.startswith(("tests/", "demo/")) for name in names)


@pytest.mark.starter
@pytest.mark.usefixtures("starter_or_skip")
@pytest.mark.timeout(1500)  # the environment gets a PyTorch of its own
def test_the_wheel_in_an_empty_environment_answers_from_another_folder(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install([python, "-m", "pip", "install", "-q", str(wheel)])
    (tmp_path / "elsewhere").mkdir()
    soundfile.write(tmp_path / "elsewhere" / "song.wav", tone(4), 16_000)
    command = [python, "-m", "musilingo_core", "ask", "song.wav", "What do you hear?", "--json"]
    done = subprocess.run(
        command,
        cwd=tmp_path / "elsewhere",
        env=ALONE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    row = json.loads(done.stdout)
    assert row["model"] == "starter" and row["answer"] and row["heard_s"] == 4.0
