import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from musilingo_core.adapter import add_adapter
from musilingo_core.data.manifest import Example
from musilingo_core.errors import CheckpointError, ConfigError
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.release import push_to_hub, save
from musilingo_core.schedule import TrainingConfig
from musilingo_core.weights import load_projection
from tests.test_adapter import merge

Model = MusiLingoForConditionalGeneration
EXAMPLES = [Example("a", (("What?", "That."),), "train", "ours")] * 1200
EXAMPLES += [Example("b", (("What?", "That."),), "validation", "ours")]
LOG: list[dict[str, Any]] = [
    {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0, "validation_loss": 1.23456},
]  # fmt: skip


def test_a_run_is_kept_as_projection_format_and_card(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    save(tiny_model, processor, tmp_path, TrainingConfig(steps=2, whiten=0.1), EXAMPLES, LOG)
    assert {p.name for p in tmp_path.iterdir()} == {
        "projection.safetensors", "musilingo.json", "README.md",
    }  # fmt: skip
    settings = json.loads((tmp_path / "musilingo.json").read_text())
    assert MusiLingoProcessor(processor.tokenizer, **settings).form == processor.form
    _, header, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "musilingo-chat"
    assert "400 → 2 × 32" in text
    assert "| ours | train | 1,200 |" in text and "| ours | validation | 1 |" in text
    assert "- `steps = 2`\n- `whiten = 0.1`\n\n" in text
    assert "| 2 | 1.235 |" in text and "| 1 |" not in text.split("held-out")[1]


def test_a_folder_of_a_run_is_a_projection_with_its_adapters(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    language_model = tiny_model.language_model
    plain = {name: value.clone() for name, value in language_model.state_dict().items()}
    add_adapter(language_model, 2, 0)
    for name, parameter in language_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data)
        if "lora_" in name:
            parameter.data = parameter.data.bfloat16().float()  # as they are saved
    ids = torch.tensor([[4, 8]])
    learnt = language_model(ids).logits.detach()
    save(tiny_model, processor, tmp_path, TrainingConfig(lora_rank=2), EXAMPLES, LOG)
    tiny_model.language_model = type(language_model)(language_model.config).eval()
    tiny_model.language_model.load_state_dict(plain)
    tiny_model.multi_modal_projector.weight.data.zero_()
    load_projection(tiny_model, processor, tmp_path)
    merge(tiny_model, tmp_path / "adapter")
    assert float(tiny_model.multi_modal_projector.weight.detach().norm()) > 0
    now = tiny_model.language_model(ids).logits.detach()
    torch.testing.assert_close(now, learnt, rtol=1e-3, atol=1e-4)


def test_a_folder_without_a_projection_is_said(
    tiny_model: Model, processor: MusiLingoProcessor, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"projection\.safetensors"):
        load_projection(tiny_model, processor, tmp_path)


def test_the_hub_gets_what_was_saved_and_no_checkpoint(
    tiny_model: Model,
    processor: MusiLingoProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    class Hub:
        def create_repo(self, *given: Any, **named: Any) -> None:
            calls.append(("create", given, named))

        def upload_folder(self, *given: Any, **named: Any) -> Any:
            calls.append(("upload", given, named))
            return type("Commit", (), {"repo_url": "https://hub/me/one"})

    monkeypatch.setattr("musilingo_core.release.HfApi", Hub)
    with pytest.raises(ConfigError, match="no finished run"):
        push_to_hub(tmp_path, "me/one")
    save(tiny_model, processor, tmp_path, TrainingConfig(), EXAMPLES, LOG)
    assert push_to_hub(tmp_path, "me/one") == "https://hub/me/one"
    assert calls[0] == ("create", ("me/one",), {"private": True, "exist_ok": True})
    assert calls[1][2]["folder_path"] == tmp_path
    patterns = calls[1][2]["allow_patterns"]
    assert "projection.safetensors" in patterns and not any("check" in p for p in patterns)
