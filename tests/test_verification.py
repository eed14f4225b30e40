import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from musilingo_core.cli import main
from musilingo_core.encoders.mert import MertEncoder
from musilingo_core.engine import ChatEngine, load_engine
from musilingo_core.errors import CheckpointError
from musilingo_core.folders import read_settings, read_shapes
from musilingo_core.verification import fixed_clip, verify_engine, verify_folder, verify_shapes
from tests.test_checkpoints import checkpoint as checkpoint
from tests.test_checkpoints import original as original


@pytest.fixture
def published(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChatEngine:
    monkeypatch.setenv("MUSILINGO_CACHE", str(tmp_path / "cache"))
    return load_engine(model=checkpoint, device="cpu", dtype="float32", weights="plain")


def test_every_stage_of_a_published_checkpoint_is_as_the_plain_way(published: ChatEngine) -> None:
    checks = list(verify_engine(published))
    good = {check.stage: check.good for check in checks}
    assert good["features, the plain way"] and good["projected, the plain way"]
    assert good["reply by transformers' generate"]
    assert not any(check.good is False for check in checks if check.stage != "reply")


def test_what_computes_otherwise_is_found(
    published: ChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean = MertEncoder._mean_state
    monkeypatch.setattr(MertEncoder, "_mean_state", lambda self, x: mean(self, x) * 1.1)
    good = {check.stage: check.good for check in verify_engine(published)}
    assert good["features, the plain way"] is False


def test_the_starter_like_engine_has_no_plain_features(engine: ChatEngine) -> None:
    stages = [check.stage for check in verify_engine(engine)]
    assert "features, the plain way" not in stages and "projected, the plain way" in stages


def test_a_checkpoint_is_looked_at_without_loading_it(checkpoint: Path) -> None:
    found = {check.stage: (check.figure, check.good) for check in verify_folder(checkpoint)}
    assert found["names and shapes"] == ("all 89 fit", True)
    assert found["projection"][0] == "[48, 64]"
    assert found["encoder"][0].startswith("3 layers of 64")


def test_weights_of_another_model_are_found(checkpoint: Path) -> None:
    shapes, settings = read_shapes(checkpoint), read_settings(checkpoint)
    for changed in (
        shapes | {"model.llama_proj.weight": (48, 65)},
        shapes | {"model.llama_proj.scale": (48,)},
        {name: shape for name, shape in shapes.items() if name != "model.llama_proj.bias"},
    ):
        [check] = [
            each
            for each in verify_shapes(changed, settings, checkpoint)
            if each.stage == "names and shapes"
        ]
        assert check.good is False and "1 do not fit, such as multi_modal_proj" in check.figure


def test_what_is_not_the_models_is_told_before_it_is_loaded(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(checkpoint, folder)
    file = next(folder.glob("*1-of*.safetensors"))
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("mlp.up_proj.weight"))
    save_file({**weights, name: weights[name][:-1].clone()}, file, {"format": "pt"})
    assert main(["verify", "--model", str(folder), "--device", "cpu"]) == 1
    assert "BAD names and shapes: 1 do not fit" in capsys.readouterr().out
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"num_attention_heads": 5}))
    with pytest.raises(CheckpointError, match="describe no model"):
        list(verify_folder(folder))


def test_the_clip_is_the_same_everywhere() -> None:
    sound = fixed_clip(24_000)
    assert sound.shape == (480_000,) and abs(sound).max() < 1
    assert torch.from_numpy(sound).std().item() == pytest.approx(0.0574, abs=1e-4)


def test_the_command_prints_a_line_for_each_check(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MUSILINGO_CACHE", str(tmp_path))
    words = ["--device", "cpu", "--dtype", "float32", "--weights", "plain"]
    code = main(["verify", "--model", str(checkpoint), *words, "--json"])
    rows: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["stage"] for row in rows][:3] == ["keys", "encoder", "names and shapes"]
    assert code == (1 if any(row["good"] is False for row in rows) else 0)
    main(["verify", "--model", str(checkpoint), *words])
    assert "ok  features, the plain way: " in capsys.readouterr().out
