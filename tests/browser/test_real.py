"""The whole road in Chromium: the page, the real starter, real sound."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import content
from demo.loading import EngineLoader
from musilingo_core import ChatEngine
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

pytestmark = [pytest.mark.browser, pytest.mark.starter]

EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"
CHORALE, SONATA = EXAMPLES / "chorale-strings.mp3", EXAMPLES / "sonata-piano.mp3"
PATIENCE_MS = 120_000  # two cores may be busy


@pytest.fixture(scope="module")
def real(serve: Callable[..., str], starter: ChatEngine) -> str:
    """Where the page with the real starter is."""
    loader = EngineLoader(lambda on_status: starter)
    loader.start()
    return serve(loader, max_file_mb=50)


@pytest.fixture
def tab(visit: Callable[..., Page], real: str) -> Page:
    """A visitor whose song is the chorale."""
    tab = visit(real)
    tab.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    upload(tab, CHORALE, "heard 0:00–1:00 of 1:00")
    take_the_likeliest_words(tab)
    return tab


def take_the_likeliest_words(tab: Page) -> None:
    """Sets the temperature to 0, so that answers can be foreseen."""
    tab.get_by_text(content.SAMPLING_TITLE).click()
    temperature = tab.get_by_label(f"number input for {content.TEMPERATURE[0]}")
    temperature.fill("0")
    temperature.press("Tab")


def test_a_real_song_is_talked_about_and_the_second_turn_builds_on_the_first(tab: Page) -> None:
    ask(tab, "Which instruments do you hear?")
    ask(tab, "What makes you say that?")
    first, second = answers(tab)
    assert "strings" in first.lower() and "strings" in second.lower()


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


def test_a_bad_file_is_one_sentence_and_the_next_song_is_heard(tab: Page, sounds: Path) -> None:
    remove_song(tab)
    upload(tab, sounds / "notes.mp3", None)
    expect(tab.locator("#song-line")).to_contain_text("“notes.mp3” cannot be read as music")
    upload(tab, SONATA, "heard 0:00–")
    ask(tab, "Which instruments do you hear?")
    assert "piano" in answers(tab)[-1].lower()


def test_two_visitors_hear_their_own_songs(
    tab: Page, visit: Callable[..., Page], real: str
) -> None:
    other = visit(real)
    other.set_default_timeout(PATIENCE_MS)
    upload(other, SONATA, "heard 0:00–")
    take_the_likeliest_words(other)
    start_asking(tab, "Which instruments do you hear?")
    start_asking(other, "Which instruments do you hear?")
    for page in (tab, other):
        expect(page.locator(".bot.message")).to_have_count(1)
        finish(page)
    assert "strings" in answers(tab)[0].lower() and "piano" in answers(other)[0].lower()
