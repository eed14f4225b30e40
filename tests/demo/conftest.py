"""A fake engine, handlers on it, and small sound files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from demo.handlers import Handlers
from demo.loading import EngineLoader
from demo.session import Session
from tests.demo.fake_engine import FakeEngine

RATE = 8_000  # Hz, enough for a tone


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def handlers(engine: FakeEngine) -> Handlers:
    """Handlers whose engine is there."""
    loader = EngineLoader(lambda on_status: engine)
    loader.start()
    while loader.engine is None:
        pass
    return Handlers(loader)


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def make_song(tmp_path: Path) -> Callable[..., str]:
    """Writes a tone of some seconds and gives its path."""

    def make(name: str = "song.wav", seconds: float = 2.0, pitch: float = 220.0) -> str:
        times = np.arange(int(seconds * RATE)) / RATE
        soundfile.write(tmp_path / name, 0.4 * np.sin(2 * np.pi * pitch * times), RATE)
        return str(tmp_path / name)

    return make
