import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import encode as benchmark
from benchmarks.encode import (
    HALF,
    LARGE,
    OURS,
    PLAIN,
    STARTER,
    make_encoder,
    measure,
    plainly,
    table,
)
from musilingo_core.audio import read_blocks
from musilingo_core.encoders import encode
from tests.conftest import tone
from tests.encoders.test_mert import SMALL
from tests.test_audio import Writer


@pytest.fixture
def song(wav: Writer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty seconds, for encoders that are tiny."""
    shape = {"do_stable_layer_norm": True}
    monkeypatch.setattr(benchmark, "SHAPES", {LARGE: SMALL | shape})
    return wav(tone(20, 24_000), 24_000)


def test_the_plain_way_hears_what_one_window_does(song: Path) -> None:
    encoder = make_encoder(LARGE, PLAIN)
    blocks = [list(read_blocks(song, 24_000, benchmark.LIMITS)) for _ in range(2)]
    plain, ours = plainly(encoder, iter(blocks[0])), encode(encoder, blocks[1])[0]
    # transformers hands out the last state before its norm; all others are the same.
    assert plain.shape == ours.shape and torch.cosine_similarity(plain, ours).min() > 0.9


def test_a_song_is_measured(song: Path) -> None:
    for way in (OURS, HALF, PLAIN):
        found = measure((LARGE, 1 / 3, way), song)
        assert found["seconds"] > 0 and found["bytes"] >= 0
    assert 0 < benchmark.strayed(LARGE, song) < 0.9


def test_the_measuring_process_prints_what_it_found(
    song: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["encode", "--measure", LARGE, "0.3", OURS, str(song)]
    monkeypatch.setattr("sys.argv", words)
    benchmark.main()
    assert set(json.loads(capsys.readouterr().out)) == {"seconds", "bytes"}


@pytest.mark.starter
def test_memory_is_that_of_the_measuring_process(starter_or_skip: None, wav: Writer) -> None:
    waste = np.ones(150_000_000)  # 1.2 GB, of the process that asks
    del waste
    found = benchmark.measure_apart((STARTER, 0.1, OURS), wav(tone(6)))
    assert 2e6 < found["bytes"] < 1e9


def test_plain_is_beside_ours_of_the_same_round() -> None:
    def row(case: Any, seconds: float, size: float) -> dict[str, Any]:
        return {"case": case, "seconds": seconds, "bytes": size * 1e6}

    rows = []
    for factor in (1, 2, 3):
        rows += [row((LARGE, 3.0, OURS), 6 * factor, 100), row((LARGE, 3.0, PLAIN), 15, 900)]
        rows += [row((STARTER, m, OURS), m, 100 + m) for m in (5.0, 20.0)]
    text = table(rows)
    assert f"| {LARGE} | 3 | {PLAIN} | 5.00 | 1.00 | 900 |" in text
    assert f"| {LARGE} | 3 | {OURS} | 4.00 | 1.25 | 100 |" in text
    assert "20 minutes ÷ 5: 1.14." in text
