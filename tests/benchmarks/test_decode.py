from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.decode import OURS, generated, ours, perplexities, prose, table, weight_bytes
from tests.test_llama import llama


@pytest.mark.parametrize("way", [ours, generated])
def test_a_way_reads_a_prompt_and_says_so_many_tokens(
    way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama()
    seen: list[int] = []
    step = type(model).forward

    def noted(self: Any, *given: Any, **named: Any) -> Any:
        seen.append(1)
        return step(self, *given, **named)

    run = way(model)
    monkeypatch.setattr(type(model), "forward", noted)
    read_s, said_s = run([5, 6, 7, 8], 10)
    assert read_s > 0 and said_s != 0
    assert len(seen) == (1 if way is ours else 1 + 11)


@torch.inference_mode()
def test_perplexity_is_that_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama().bfloat16()
    ids = [5, 9, 3, 70, 12, 40]
    found = perplexities(model, ids)
    logits = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    nats = -sum(float(logits[at, token]) for at, token in enumerate(ids[1:])) / 5
    assert found["bfloat16"] == pytest.approx(2.718281828**nats, rel=1e-3)
    assert found["step, packed"] == pytest.approx(found["bfloat16"], rel=0.2)


def test_prose_is_what_begins_with_a_letter(tmp_path: Path) -> None:
    file = tmp_path / "text.md"
    file.write_text("# Title\n\nSome words.\n\n| a | table |\n\n```\ncode\n```\n\nMore.\n")
    assert prose(file) == "Some words.\n\nMore.\n"


def test_weights_of_a_token_are_those_of_products() -> None:
    assert weight_bytes(llama()) == 3 * (96 * (96 + 32 + 32 + 96) + 3 * 96 * 128) + 96 * 96


def test_ratios_are_of_the_same_round() -> None:
    def row(way: str, read_s: float, said_s: float) -> dict[str, Any]:
        return {"way": way, "read_s": read_s, "said_s": said_s}

    rows = [row(OURS, 1, 1), row("b", 2, 3), row(OURS, 2, 2), row("b", 2, 8), row(OURS, 1, 4)]
    report = {
        "rows": [*rows, row("b", 5, 4)], "tokens": 8, "prompt": 30, "bandwidth": 1e9,
        "weight_bytes": 1e8, "threads": 2, "perplexity": {"bfloat16": 20.0, "packed": 20.1},
    }  # fmt: skip
    text = table(report)
    assert "| b | 2 | 3.00 | 15 | 2.00 |" in text and f"| {OURS} | 4 | 1.00 | 30 | 1.00 |" in text
    assert "at most 10 tokens a second, of which ours reach 40 %" in text
    assert "packed 20.100 (+0.50 %)" in text
