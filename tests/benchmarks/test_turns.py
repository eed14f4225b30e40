from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.turns import WAYS, answer_all, ratio, table
from musilingo_core.engine import ChatEngine
from tests.conftest import tone


def test_each_turn_is_answered_in_all_ways_with_the_same_words(
    engine: ChatEngine, wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.turns.QUESTIONS", ("What is it?", "Why?", "And at 0:04?"))
    rows = list(answer_all(engine, wav(tone(12))))
    assert [(row["turn"], row["way"]) for row in rows] == [(n, w) for n in (1, 2, 3) for w in WAYS]
    assert all(row["alike"] and 0 <= row["strayed"] < 1e-3 for row in rows)
    assert all(0 < row["first_s"] <= row["total_s"] for row in rows)


def test_ratios_are_of_pairs() -> None:
    times = {"ours": (2.0, 6.0, 4.0), "limit": (1.0, 2.0, 4.0), "everything": (40.0, 60.0, 80.0)}
    rows = [
        {"minutes": 3.0, "turn": turn, "way": way, "first_s": first_s, "total_s": 2 * first_s}
        | {"alike": turn < 10, "strayed": turn / 100}
        for way, each in (times | {"whole prompt": times["ours"]}).items()
        for turn, first_s in zip((1, 2, 10), each, strict=True)
    ]
    assert ratio(rows, {"way": "ours"}, {"way": "limit"}) == 2.0
    text = table(rows, [3.0])
    assert "| 3 min | ours | 5000 | 10000 | 2 | 0.075 |" in text
    assert "Of 3 answers 2 are the same" in text
    assert "differ by 0.060 of their standard deviation" in text and "at most 0.100)" in text
    assert "| 3 min, turn 10 ÷ turn 2 | 0.67 |" in text
    assert "| 3 min ÷ 3 min, turn 2 and later | 1.00 |" in text
