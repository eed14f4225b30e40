import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from musilingo_core.adapter import (
    WEIGHTS,
    adapted,
    add_adapter,
    load_adapter,
    save_adapter,
)
from musilingo_core.errors import CheckpointError, ConfigError
from musilingo_core.modeling import MusiLingoForConditionalGeneration

Model = MusiLingoForConditionalGeneration
IDS = torch.tensor([[5, 9, 30]])


@torch.no_grad()
def says(model: Model) -> torch.Tensor:
    return model.language_model(IDS).logits.float()


def merge(model: Model, folder: Path) -> None:
    state = adapted(model.language_model.state_dict(), folder)
    model.language_model.load_state_dict({name: weight[...] for name, weight in state.items()})


def test_new_adapters_change_nothing_and_alone_may_learn(tied_model: Model) -> None:
    tied_model.requires_grad_(False)
    before = says(tied_model)
    add_adapter(tied_model.language_model, 2, 0)
    assert torch.equal(says(tied_model), before)
    learning = {n: p for n, p in tied_model.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    assert {p.dtype for p in learning.values()} == {torch.float32}
    assert not any("lm_head" in name for name in learning)


def test_merged_adapters_are_the_model_that_was_saved(tiny_model: Model, tmp_path: Path) -> None:
    plain = {name: value.clone() for name, value in tiny_model.language_model.state_dict().items()}
    add_adapter(tiny_model.language_model, 2, 0)
    for name, parameter in tiny_model.language_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data)
        if "lora_" in name:
            parameter.data = parameter.data.bfloat16().float()  # as they are saved
    learnt = says(tiny_model)
    save_adapter(tiny_model.language_model, tmp_path)
    kind = type(tiny_model.language_model)
    tiny_model.language_model = kind(tiny_model.language_model.config).eval()
    tiny_model.language_model.load_state_dict(plain)
    assert not torch.allclose(says(tiny_model), learnt, atol=1e-3)
    theirs = PeftModel.from_pretrained(copy.deepcopy(tiny_model.language_model), tmp_path)
    assert torch.equal(theirs(IDS).logits.float(), learnt)
    merge(tiny_model, tmp_path)
    torch.testing.assert_close(says(tiny_model), learnt, rtol=1e-3, atol=1e-4)
    assert set(tiny_model.language_model.state_dict()) == set(plain)


def test_adapters_that_were_saved_learn_on(tied_model: Model, tmp_path: Path) -> None:
    plain = copy.deepcopy(tied_model)
    add_adapter(tied_model.language_model, 2, 0)
    save_adapter(tied_model.language_model, tmp_path)
    with pytest.raises(ConfigError, match="lora_rank = 2"):
        load_adapter(plain.language_model, tmp_path, 4)
    load_adapter(plain.language_model, tmp_path, 2)
    drawn = {n: p for n, p in tied_model.named_parameters() if "lora_" in n}
    loaded = {n: p for n, p in plain.named_parameters() if "lora_" in n}
    assert drawn.keys() == loaded.keys()
    assert all(
        p.requires_grad and torch.equal(p, drawn[n].bfloat16().float()) for n, p in loaded.items()
    )


def test_same_seed_same_adapters(tiny_model: Model) -> None:
    drawn = []
    for seed in (0, 0, 1):
        model = type(tiny_model.language_model)(tiny_model.language_model.config)
        add_adapter(model, 2, seed)
        drawn.append(next(p for n, p in model.named_parameters() if "lora_A" in n))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_what_are_no_adapters_is_said(tiny_model: Model, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not fit"):
        merge(tiny_model, tmp_path / "nothing")
    plain = copy.deepcopy(tiny_model.language_model)
    add_adapter(tiny_model.language_model, 2, 0)
    save_adapter(tiny_model.language_model, tmp_path)
    tiny_model.language_model = plain
    state = {name: value.clone() for name, value in load_file(tmp_path / WEIGHTS).items()}
    name, value = next(iter(state.items()))
    for wrong in (
        state | {"another.lora_B.weight": value.clone()},
        state | {name: value[:, :-1].clone()},
    ):
        save_file(wrong, tmp_path / WEIGHTS)
        with pytest.raises(CheckpointError, match="do not fit"):
            merge(tiny_model, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="do not fit"):
        merge(tiny_model, tmp_path)


def test_without_peft_it_is_said_how_to_get_it(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match="pip install peft"):
        add_adapter(tiny_model.language_model, 2, 0)
