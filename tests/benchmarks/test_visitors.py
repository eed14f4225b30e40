from pathlib import Path

import pytest

from benchmarks.visitors import COLD, HEARING, IN_TURN, SIDE_BY_SIDE, round_of, table
from musilingo_core.engine import ChatEngine
from musilingo_core.sampling import Sampling
from tests.conftest import tone
from tests.test_audio import Writer


def test_every_number_of_visitors_is_served_in_every_way(
    engine: ChatEngine, wav: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(Path("assets/examples").glob("*.mp3"))
    greedy = Sampling(temperature=0, max_new_tokens=12)
    monkeypatch.setattr("benchmarks.visitors.GREEDY", greedy)
    monkeypatch.setattr("benchmarks.visitors.SONG_ROWS", 6)
    rows = round_of(engine, [1, 3], wav(tone(9)))
    ways = (SIDE_BY_SIDE, IN_TURN, COLD, HEARING)
    assert [(row["visitors"], row["way"]) for row in rows] == [(n, w) for n in (1, 3) for w in ways]
    assert all(len(row["first_s"]) == row["visitors"] for row in rows)
    assert all(time > 0 for row in rows for time in row["first_s"])
    assert all(0 < row["fairness"] <= 1 and row["tokens_per_s"] > 0 for row in rows)


def test_figures_are_beside_those_of_one_visitor() -> None:
    one = {"visitors": 1, "way": COLD, "first_s": [0.1], "tokens_per_s": 50.0, "fairness": 1.0}
    two = one | {"visitors": 2, "first_s": [0.2, 0.2], "tokens_per_s": 80.0, "fairness": 0.8}
    assert "| cold starts | 2 | 200 | 200 | 2.0 | 80 | 1.60 | 0.80 |" in table([one, two])
    alone = one | {"way": SIDE_BY_SIDE, "tokens_per_s": 100.0}
    busy = one | {"way": HEARING, "first_s": [0.3]}
    assert f"| {HEARING} | 1 | 300 | 300 | 3.0 | 50 | 0.50 | 1.00 |" in table([alone, busy])
