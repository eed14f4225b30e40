"""The whole road in Chromium: the page, the real starter, real sound."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from demo import content
from demo.loading import EngineLoader
from musilingo_core import ChatEngine
from musilingo_core.storage import cache_folder
from tests.browser.conftest import PATIENCE_MS, RATE
from tests.browser.test_page import (
    Page,
    answers,
    ask,
    expect,
    finish,
    remove_song,
    start_asking,
    upload,
)
from tests.test_app import ROOT, Running, run_app

pytestmark = [pytest.mark.browser, pytest.mark.starter]

EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"
CHORALE, SONATA = EXAMPLES / "chorale-strings.mp3", EXAMPLES / "sonata-piano.mp3"
LONG_PATIENCE_MS = 120_000  # a model is at work
END_S = 10.0  # a long song takes longer to hear


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """These tests only: Playwright keeps it for the whole process."""
    expect.set_options(timeout=LONG_PATIENCE_MS)
    yield
    expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def real(serve: Callable[..., str], starter: ChatEngine) -> str:
    """Where the page with the real starter is."""
    loader = EngineLoader(lambda on_status: starter)
    loader.start()
    return serve(loader, max_file_mb=50)


@pytest.fixture
def tab(visit: Callable[..., Page], real: str) -> Page:
    """A visitor whose song is the chorale."""
    return talk_about(visit, real, CHORALE, "heard 0:00–1:00 of 1:00")


def talk_about(visit: Callable[..., Page], real: str, song: Path, heard: str) -> Page:
    """A visitor with a song, once the page says that it is heard."""
    tab = visit(real)
    tab.set_default_timeout(LONG_PATIENCE_MS)
    upload(tab, song, heard)
    take_the_likeliest_words(tab)
    return tab


def take_the_likeliest_words(tab: Page) -> None:
    """Sets the temperature to 0, so that answers can be foreseen."""
    tab.get_by_text(content.SAMPLING_TITLE).click()
    temperature = tab.get_by_label(f"number input for {content.TEMPERATURE[0]}")
    temperature.fill("0")
    temperature.press("Tab")


def test_a_real_song_is_talked_about_and_the_second_turn_builds_on_the_first(
    visit: Callable[..., Page], real: str
) -> None:
    """The same second question after two different first ones."""
    for question, said, unsaid in (
        ("What is the lead instrument?", "piano", "fast"),
        ("Is it slow or fast?", "fast", "piano"),
    ):
        tab = talk_about(visit, real, SONATA, "heard 0:00–0:43 of 0:43")
        ask(tab, question)
        ask(tab, "Please repeat that.")
        for answer in answers(tab):
            assert said in answer and unsaid not in answer


class Unhurried:
    """A reply that leaves the time to stop it.

    Args:
        reply: The engine's.
    """

    def __init__(self, reply: Iterator[str]) -> None:
        self._reply = reply

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        time.sleep(0.2)
        return next(self._reply)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reply, name)


def test_retry_makes_a_whole_answer_of_one_that_was_stopped(
    tab: Page, starter: ChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = starter.reply
    monkeypatch.setattr(starter, "reply", lambda *given: Unhurried(reply(*given)))
    start_asking(tab, "Describe this song.")
    tab.locator(".bot.message", has_text=re.compile(r"\w+ \w+")).wait_for()
    tab.locator(".stop-button").click()
    expect(tab.locator("#notice")).to_have_text(content.STOPPED)
    tab.wait_for_timeout(1000)
    (partial,) = answers(tab)
    tab.get_by_label("Retry").click()
    tab.locator(".stop-button").wait_for()
    finish(tab)
    (whole,) = answers(tab)
    assert len(whole) > len(partial)
    expect(tab.locator("#notice")).to_have_text("")


def test_two_visitors_hear_their_own_songs(
    tab: Page, visit: Callable[..., Page], real: str
) -> None:
    other = talk_about(visit, real, SONATA, "heard 0:00–0:43 of 0:43")
    start_asking(tab, "What is the lead instrument?")
    start_asking(other, "What is the lead instrument?")
    for page in (tab, other):
        expect(page.locator(".bot.message")).to_have_count(1)
        finish(page)
    assert "strings" in answers(tab)[0].lower() and "piano" in answers(other)[0].lower()


# `app.py` itself, in a process of its own


def make_noise(folder: Path, minutes: int) -> Path:
    """A song that takes a while to hear."""
    noise = np.random.default_rng(minutes).uniform(-0.4, 0.4, minutes * 60 * RATE)
    soundfile.write(folder / "noise.wav", noise, RATE)
    return folder / "noise.wav"


def make_cache(folder: Path) -> str:
    """Has the weights, and remembers no song of an earlier run."""
    for name in ("models", "wheels"):
        (cache_folder() / name).mkdir(exist_ok=True)
        (folder / name).symlink_to(cache_folder() / name)
    return str(folder)


@pytest.fixture(scope="module")
def app(starter_or_skip: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("app")
    with run_app(folder, MUSILINGO_CACHE=make_cache(folder)) as running:
        running.wait_until_ready()
        yield running


def test_a_conversation_fits_in_three_gigabytes_and_no_request_leaves_the_machine(
    app: Running, visit: Callable[..., Page], tmp_path: Path
) -> None:
    tab = visit(app.url)
    tab.set_default_timeout(LONG_PATIENCE_MS)
    upload(tab, make_noise(tmp_path, minutes=3), "heard 0:00–3:00 of 3:00")
    ask(tab, "Which instruments do you hear?")
    assert answers(tab)[0]
    app.assert_small()
    app.assert_alone()


def test_a_gpu_may_be_lent_for_each_call(visit: Callable[..., Page], tmp_path: Path) -> None:
    """`spaces` is a stand-in that forks; see `tests.forking`."""
    (tmp_path / "spaces.py").write_text(
        "from tests.forking import lend as GPU\ngradio_auto_wrap = lambda run: run\n"
    )
    changes = {"SPACES_ZERO_GPU": "true", "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with run_app(tmp_path, MUSILINGO_CACHE=make_cache(tmp_path), **changes) as app:
        app.wait(LONG_PATIENCE_MS / 1000, app.answers)
        assert "is ready" in app.log.read_text("utf-8")  # before the page is there
        tab = talk_about(visit, app.url, CHORALE, "heard 0:00–1:00 of 1:00")
        ask(tab, "Which instruments do you hear?")
        ask(tab, "And at 0:30?")
        assert all(answers(tab)) and len(answers(tab)) == 2
        log = app.log.read_text("utf-8")
        assert "Traceback" not in log and log.count("is ready") == 1, log


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("silence.flac", "is silent"),
        ("broken.flac", "cannot be read as music"),
        ("tiny.wav", "lasts 0.10 s"),
        ("notes.mp3", "cannot be read as music"),
        ("long.flac", "lasts 21.0 minutes and the limit is 20 minutes"),
    ],
)
def test_a_bad_file_is_one_sentence_and_the_earlier_song_is_there_to_go_on_with(
    app: Running, visit: Callable[..., Page], sounds: Path, name: str, problem: str
) -> None:
    tab = visit(app.url)
    tab.set_default_timeout(LONG_PATIENCE_MS)
    upload(tab, CHORALE, "heard 0:00–1:00 of 1:00")
    remove_song(tab)
    upload(tab, sounds / name, f"“{name}” {problem}")
    said = tab.locator("#song-line .problem").inner_text().strip()
    assert said.endswith(".") and ". " not in said
    expect(tab.locator(".toast-wrap .error")).to_have_count(0)
    upload(tab, CHORALE, "heard 0:00–1:00 of 1:00")
    tab.get_by_text(content.SAMPLING_TITLE).click()
    tab.get_by_label(f"number input for {content.MAX_NEW_TOKENS[0]}").fill("8")
    ask(tab, "Describe this song.")
    assert answers(tab)[0]


@pytest.mark.usefixtures("starter_or_skip")
def test_ctrl_c_ends_the_server_while_a_long_song_is_heard(
    visit: Callable[..., Page], tmp_path: Path
) -> None:
    # Programs of a script's background jobs ignore Ctrl-C, and what they start does so too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with run_app(tmp_path, MUSILINGO_CACHE=make_cache(tmp_path)) as app:
        signal.signal(signal.SIGINT, before)
        app.wait_until_ready()
        tab = visit(app.url)
        upload(tab, make_noise(tmp_path, minutes=19), "Listening")
        app.process.send_signal(signal.SIGINT)
        app.process.wait(END_S)
