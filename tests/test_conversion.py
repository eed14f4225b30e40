import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from musilingo_core.cli import main
from musilingo_core.conversion import convert
from musilingo_core.engine import load_engine
from musilingo_core.errors import CheckpointError, ConfigError
from musilingo_core.models import Source
from musilingo_core.prompt import user
from musilingo_core.sampling import Sampling
from tests.test_checkpoints import RATE, Original, publish, song
from tests.test_checkpoints import checkpoint as checkpoint
from tests.test_checkpoints import original as original

PLAIN: Any = {"device": "cpu", "dtype": "float32", "weights": "plain"}


def said(folder: Path, path: Path, **more: Any) -> str:
    engine = load_engine(model=folder, **PLAIN, **more)
    clip = engine.encode(path)
    greedy = Sampling(temperature=0, max_new_tokens=12)
    return engine.reply([user("What?", clip.clip_id)], greedy).text()


def test_the_compact_form_says_the_same(
    checkpoint: Path, tmp_path: Path, wav: Callable[..., Path]
) -> None:
    convert(checkpoint, tmp_path / "compact")
    own = [p.name for p in (tmp_path / "compact").iterdir()]
    assert sorted(own) == ["encoder", "language_model", "musilingo.json", "projection.safetensors"]
    path = wav(song(5, False), RATE)
    assert said(tmp_path / "compact", path) == said(checkpoint, path)


def test_base_models_are_kept_once(
    original: Original,
    checkpoint: Path,
    llama_tokens: Path,
    tmp_path: Path,
    wav: Callable[..., Path],
) -> None:
    convert(checkpoint, tmp_path / "one")
    with torch.no_grad():
        original.llama_proj.weight += 1
    other = publish(original, tmp_path / "other", llama_tokens)
    with torch.no_grad():
        original.llama_proj.weight -= 1
    bases = {part: tmp_path / "one" / part for part in ("encoder", "language_model")}
    convert(other, tmp_path / "two", Source(**bases))  # type: ignore[arg-type]
    assert {p.name for p in (tmp_path / "two").iterdir()} == {
        "musilingo.json", "projection.safetensors",
    }  # fmt: skip
    path = wav(song(5, False), RATE)
    assert said(tmp_path / "two", path) == said(other, path)


def test_other_base_models_are_refused(
    original: Original, checkpoint: Path, llama_tokens: Path, tmp_path: Path
) -> None:
    convert(checkpoint, tmp_path / "one")
    norm = original.llama_model.model.norm.weight
    with torch.no_grad():
        norm += 1
    other = publish(original, tmp_path / "other", llama_tokens)
    with torch.no_grad():
        norm -= 1
    named = Source(language_model=tmp_path / "one" / "language_model")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is another"):
        convert(other, tmp_path / "two", named)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="no MusiLingo checkpoint"):
        convert(tmp_path, tmp_path / "out")


def test_a_projection_without_base_models_says_so(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "one")
    file = tmp_path / "one" / "musilingo.json"
    settings = json.loads(file.read_text())
    del settings["encoder"]
    file.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="names no encoder; please name one"):
        load_engine(model=tmp_path / "one", **PLAIN)
    load_engine(
        model=tmp_path / "one",
        encoder=tmp_path / "one" / "encoder",
        language_model=tmp_path / "one" / "language_model",
        **PLAIN,
    )


def test_the_command_makes_a_folder_that_can_be_asked(
    checkpoint: Path,
    tmp_path: Path,
    wav: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MUSILINGO_CACHE", str(tmp_path / "cache"))
    compact, path = str(tmp_path / "compact"), str(wav(song(2, False), RATE))
    assert main(["convert", str(checkpoint), "--output", compact]) == 0
    assert "--model" in capsys.readouterr().out
    asked = [path, "What?", "--max-new-tokens", "5", "--device", "cpu", "--json"]
    for model in (compact, str(checkpoint)):
        assert main(["ask", "--model", model, *asked]) == 0
        row = json.loads(capsys.readouterr().out)
        assert row["question"] == "What?" and row["new_tokens"] <= 5
    assert main(["convert", path, "--output", compact]) == 2


def test_its_own_folder_is_no_place_for_the_compact_form(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="another folder"):
        convert(checkpoint, checkpoint)


def test_bases_named_by_relative_paths_are_found_from_anywhere(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    convert(checkpoint, "one")
    convert(checkpoint, "two", Source(encoder="one/encoder", language_model="one/language_model"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    load_engine(model="../two", **PLAIN)
    with pytest.raises(CheckpointError):
        load_engine(model="../two", encoder="encoder", **PLAIN)
