"""The independent judge's script, with a judge of our own making."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import judge


@pytest.fixture(autouse=True)
def decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file lasts as many seconds as its name says."""

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        seconds = int(Path(command[command.index("-i") + 1]).stem)
        return SimpleNamespace(stdout=np.zeros(seconds * judge.RATE, np.float32).tobytes())

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize(("seconds", "pieces"), [(4, [4]), (30, [30]), (39, [30]), (40, [30, 10])])
def test_a_song_is_judged_in_pieces_none_too_short(seconds: int, pieces: list[int]) -> None:
    heard = [len(piece) / judge.RATE for piece in judge.pieces(Path(f"{seconds}.ogg"))]
    assert heard == pieces


def test_the_median_of_pieces_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        """Finds the first piece sung and every later one less so."""

        def __init__(self) -> None:
            self.asked = 0

        def predict(self, samples: np.ndarray[Any, Any], sr: int) -> list[SimpleNamespace]:
            assert sr == 16_000 and samples.dtype == np.float32
            self.asked += 1
            return [SimpleNamespace(instrumentalness=self.asked / 10)]

    backends = ModuleType("vibenet.backends")
    backends.EfficientNetModel = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vibenet", ModuleType("vibenet"))
    monkeypatch.setitem(sys.modules, "vibenet.backends", backends)
    songs, output = tmp_path / "songs.jsonl", tmp_path / "judged.jsonl"
    songs.write_text('{"path": "90.ogg"}\n{"path": "20.ogg"}\n')
    monkeypatch.setattr(sys, "argv", ["judge", "--music", str(songs), "--output", str(output)])
    judge.main()
    assert [json.loads(line) for line in output.read_text().splitlines()] == [
        {"path": str(tmp_path / "90.ogg"), "instrumental": 0.2},
        {"path": str(tmp_path / "20.ogg"), "instrumental": 0.4},
    ]
