"""Chromium, and the page served on a fake engine as `app.py` serves it on a real one."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from demo.handlers import Handlers
from demo.loading import EngineLoader
from demo.page import launch_options, make_page
from demo.settings import Settings
from tests.demo.fake_engine import FakeEngine

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserType, Page

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RATE = 8_000  # Hz, enough for a tone
MAX_FILE_MB = 1
PATIENCE_MS = 20_000  # other programs may be at work


def find_chromium(chromium: "BrowserType") -> str | None:
    """The machine's own, else the one that Playwright has installed."""
    for name in CHROMIUMS:
        if found := shutil.which(name):
            return found
    own = chromium.executable_path
    return own if Path(own).exists() else None


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """One Chromium for all tests, with a microphone that beeps."""
    arguments = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ]
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        found = find_chromium(playwright.chromium)
        if not found:
            words = f"none of {', '.join(CHROMIUMS)} is here: apt-get install chromium"
            pytest.fail(words) if os.environ.get("CI") == "true" else pytest.skip(words)
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        browser.new_page().close()
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two songs, files that are none, and one example."""
    folder = tmp_path_factory.mktemp("sounds")
    for name, seconds in (("two.wav", 2), ("three.wav", 3), ("example.wav", 4), ("tiny.wav", 0.1)):
        times = np.arange(int(seconds * RATE)) / RATE
        soundfile.write(folder / name, 0.4 * np.sin(2 * np.pi * 220 * times), RATE)
    (folder / "notes.mp3").write_text("These are words, not music.")
    (folder / "empty.wav").touch()
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, 10 * RATE)
    soundfile.write(folder / "broken.flac", noise, RATE)
    whole = (folder / "broken.flac").read_bytes()
    (folder / "broken.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "silence.flac", np.zeros(3 * RATE), RATE)
    soundfile.write(folder / "long.flac", np.zeros(21 * 60 * RATE), RATE)
    (folder / "big.wav").write_bytes(bytes(MAX_FILE_MB * 1_000_000 + 1))
    (folder / "examples.json").write_text(
        '[{"file": "example.wav", "title": "A long tone", "what": "4 s of A"}]'
    )
    return folder


Serve = Callable[..., str]


@pytest.fixture(scope="session")
def serve(sounds: Path) -> Iterator[Serve]:
    """Serves a page on a loader and gives its address."""
    pages = []

    def start(loader: EngineLoader, **changes: object) -> str:
        settings = Settings(**{"examples": sounds, "max_file_mb": MAX_FILE_MB, **changes})  # type: ignore[arg-type]
        page = make_page(Handlers(loader), settings)
        pages.append(page)
        options = launch_options(settings) | {"prevent_thread_lock": True, "quiet": True}
        return str(page.launch(**options)[1])

    yield start
    for page in pages:
        page.close(verbose=False)


@pytest.fixture(scope="session")
def shared_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="session")
def address(serve: Serve, shared_engine: FakeEngine) -> str:
    """Where most tests go: a page whose engine is there."""
    loader = EngineLoader(lambda on_status: shared_engine)
    loader.start()
    return serve(loader, replies=4, listeners=4)


@pytest.fixture
def engine(shared_engine: FakeEngine) -> FakeEngine:
    """The engine behind `address`, as new."""
    shared_engine.__init__(pause_s=0.02)  # type: ignore[misc]
    return shared_engine


Visit = Callable[..., "Page"]


@pytest.fixture
def visit(browser: "Browser", address: str, engine: FakeEngine) -> Iterator[Visit]:
    """Opens a tab of its own visitor; fails if any tab asks another host or meets an error."""
    contexts, outside, errors = [], [], []

    def open_tab(url: str = address, **options: object) -> "Page":
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE_MS)
        tab.on(
            "request",
            lambda request: (
                request.url.startswith((url, "data:", f"blob:{url}")) or outside.append(request.url)
            ),
        )
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(url)
        tab.get_by_test_id("textbox").wait_for()
        tab.locator("#song-line .line").wait_for()
        return tab

    yield open_tab
    for context in contexts:
        context.close()
    assert outside == []
    assert errors == []
