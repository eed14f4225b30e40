"""The page in Chromium on a fake engine: what visitors do, see, and must never see."""

import base64
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo import content
from demo.loading import EngineLoader, OnStatus
from musilingo_core.errors import PromptError, WeightsUnavailable
from musilingo_core.sampling import Sampling
from tests.demo.fake_engine import FakeEngine

if os.environ.get("CI") != "true":  # there a missing driver is a failure
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

Visit = Callable[..., Page]


def upload(tab: Page, path: Path, heard: str | None = "heard 0:00–") -> None:
    tab.locator("#song input[type=file]").set_input_files(path)
    if heard:
        expect(tab.locator("#song-line")).to_contain_text(heard)


def remove_song(tab: Page) -> None:
    tab.get_by_label(content.SONG_REMOVE).click()
    tab.locator("#song input[type=file]").wait_for(state="attached")


def start_asking(tab: Page, question: str) -> None:
    tab.get_by_test_id("textbox").fill(question)
    tab.get_by_test_id("textbox").press("Enter")


def finish(tab: Page) -> None:
    tab.locator(".submit-button").wait_for()


def ask(tab: Page, question: str) -> None:
    answers = tab.locator(".bot.message").count()
    start_asking(tab, question)
    expect(tab.locator(".bot.message")).to_have_count(answers + 1)
    finish(tab)


def answers(tab: Page) -> list[str]:
    return tab.locator(".bot.message").all_inner_texts()


def questions(tab: Page) -> list[str]:
    return tab.locator(".user.message").all_inner_texts()


def notice(tab: Page) -> str:
    return tab.locator("#notice").inner_text()


@pytest.fixture
def tab(visit: Visit, sounds: Path) -> Page:
    """A visitor whose song has been heard."""
    tab = visit()
    upload(tab, sounds / "two.wav", "heard 0:00–0:02 of 0:02")
    return tab


# Songs


def test_an_uploaded_song_is_talked_about_over_two_turns(tab: Page, engine: FakeEngine) -> None:
    ask(tab, "Is it loud?")
    ask(tab, "Why?")
    assert answers(tab) == [
        "Turn 1, 2.0 s heard. You asked: Is it loud?",
        "Turn 2, 2.0 s heard. You asked: Why?",
    ]
    assert [message["role"] for message in engine.prompts[1]] == ["user", "assistant", "user"]
    assert tab.locator("#song #waveform").is_visible()


def test_an_example_is_one_click(visit: Visit) -> None:
    tab = visit()
    tab.get_by_role("button", name="A long tone").click()
    expect(tab.locator("#song-line")).to_contain_text("heard 0:00–0:04 of 0:04")
    tab.reload()
    expect(tab.locator("#song-line")).to_contain_text("heard 0:00–0:04 of 0:04")
    tab.locator("#song #waveform").wait_for()
    tab.get_by_role("button", name=content.SUGGESTIONS[0]).click()
    expect(tab.locator(".bot.message")).to_contain_text(
        f"4.0 s heard. You asked: {content.SUGGESTIONS[0]}"
    )


def test_a_recording_of_the_microphone_is_heard(visit: Visit) -> None:
    tab = visit()
    tab.get_by_label("Record audio").click()
    tab.get_by_role("button", name="Record", exact=True).click()
    tab.wait_for_timeout(1200)
    tab.get_by_role("button", name="Stop", exact=True).first.click()
    expect(tab.locator("#song-line")).to_contain_text("heard 0:00–0:0")


def test_a_new_song_in_the_middle_of_a_chat_begins_anew_and_says_so(
    tab: Page, sounds: Path
) -> None:
    ask(tab, "Is it loud?")
    tab.get_by_role("button", name="A long tone").click()
    expect(tab.locator("#notice")).to_have_text(content.NEW_SONG)
    expect(tab.locator(".message")).to_have_count(0)
    expect(tab.locator("#song-line")).to_contain_text("of 0:04")
    ask(tab, "And this one?")
    assert answers(tab) == ["Turn 1, 4.0 s heard. You asked: And this one?"]


def test_a_song_may_be_dropped_anywhere_on_the_page(tab: Page, sounds: Path) -> None:
    ask(tab, "Is it loud?")
    tab.evaluate(
        """bytes => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(bytes)], "dropped.wav", {type: "audio/wav"}));
          const how = {bubbles: true, cancelable: true, dataTransfer: carried};
          document.querySelector("#chat").dispatchEvent(new DragEvent("drop", how));
        }""",
        list((sounds / "three.wav").read_bytes()),
    )
    expect(tab.locator("#song-line")).to_contain_text("heard 0:00–0:03 of 0:03")
    expect(tab.locator(".message")).to_have_count(0)
    expect(tab.locator("#notice")).to_have_text(content.NEW_SONG)


def test_a_screen_reader_hears_of_the_song_at_rest_only(
    visit: Visit, sounds: Path, engine: FakeEngine
) -> None:
    tab = visit()
    tab.evaluate(
        """() => {
          window.told = [];
          const news = document.getElementById("song-news");
          new MutationObserver(() => window.told.push(news.textContent))
            .observe(news, {childList: true, characterData: true, subtree: true});
        }"""
    )
    engine.encode_s = 2.0
    upload(tab, sounds / "two.wav")
    expect(tab.locator("#song-news")).to_contain_text("heard 0:00–0:02 of 0:02")
    assert not [told for told in tab.evaluate("window.told") if "%" in told]
    assert tab.locator("#song-line").get_attribute("role") is None
    assert tab.locator("#song-news").get_attribute("role") == "status"


def serve_on(engine: FakeEngine, serve: Callable[..., str], **settings: Any) -> str:
    """Serves the page on an engine of the test's own; gives its address."""
    loader = EngineLoader(lambda on_status: engine)  # type: ignore[arg-type,return-value]
    loader.start()
    return serve(loader, **settings)


def test_a_song_is_accepted_at_once_while_others_are_heard(
    visit: Visit, serve: Callable[..., str], sounds: Path
) -> None:
    """What is asked then is about the song in the player, and holds nobody up."""
    engine = FakeEngine(encode_s=0.2)
    url = serve_on(engine, serve, replies=1, listeners=1)
    first, second = visit(url), visit(url)
    for each in (first, second):
        upload(each, sounds / "two.wav")
        ask(each, "Is it loud?")
    engine.gate.clear()
    remove_song(first)
    upload(first, sounds / "three.wav", "Listening")
    start_asking(first, "And this one?")
    expect(first.locator("#notice")).to_have_text(content.STILL_LISTENING)
    second.get_by_role("button", name="A long tone").click()
    expect(second.locator("#song-line")).to_have_text(content.SONG_IN_LINE)
    expect(second.locator(".message")).to_have_count(0)
    start_asking(second, "And mine?")
    expect(second.get_by_test_id("textbox")).to_have_value("")
    engine.gate.set()
    for each, seconds in ((first, 3), (second, 4)):
        expect(each.locator(".bot.message")).to_contain_text(f"Turn 1, {seconds}.0 s heard.")
        finish(each)


# Bad input


@pytest.mark.parametrize("name", ["notes.mp3", "empty.wav", "tiny.wav"])
def test_a_bad_file_is_one_sentence_and_the_session_goes_on(
    visit: Visit, sounds: Path, name: str
) -> None:
    tab = visit()
    upload(tab, sounds / name, name)
    expect(tab.locator("#song-line .problem")).to_be_visible()
    expect(tab.locator(".toast-wrap .error")).to_have_count(0)
    upload(tab, sounds / "two.wav")
    ask(tab, "Is it loud?")


def test_a_file_too_big_is_one_sentence_before_it_is_sent(visit: Visit, sounds: Path) -> None:
    tab = visit()
    sent: list[str] = []
    tab.on("request", lambda request: "upload" in request.url and sent.append(request.url))
    upload(tab, sounds / "big.wav", heard=None)
    expect(tab.locator("#local-notice")).to_have_text(
        "“big.wav” has 2 MB and the limit is 1 MB; please choose a smaller file."
    )
    assert sent == []
    upload(tab, sounds / "two.wav")
    expect(tab.locator("#local-notice")).to_have_text("")


def test_the_server_refuses_a_file_too_big_itself(address: str, sounds: Path) -> None:
    with (sounds / "big.wav").open("rb") as big:
        answer = httpx.post(f"{address}gradio_api/upload", files={"files": big})
    assert answer.status_code == 413


def test_a_question_before_its_song_is_answered_once_there_is_one(
    visit: Visit, sounds: Path
) -> None:
    tab = visit()
    start_asking(tab, "Is it loud?")
    expect(tab.locator("#notice")).to_have_text(content.ASKED_EARLY)
    expect(tab.locator(".user.message")).to_have_text("Is it loud?")
    upload(tab, sounds / "two.wav")
    expect(tab.locator(".bot.message")).to_contain_text("You asked: Is it loud?")
    finish(tab)
    expect(tab.locator("#notice")).to_have_text("")


def test_a_suggestion_before_its_song_can_be_taken_back(visit: Visit) -> None:
    tab = visit()
    tab.get_by_role("button", name=content.SUGGESTIONS[0]).click()
    expect(tab.locator("#notice")).to_have_text(content.ASKED_EARLY)
    tab.locator(".stop-button").click()
    expect(tab.get_by_test_id("textbox")).to_have_value(content.SUGGESTIONS[0])
    expect(tab.locator(".user.message")).to_have_count(0)


def test_a_suggestion_leaves_the_words_in_the_box(tab: Page) -> None:
    tab.get_by_test_id("textbox").fill("My own words")
    tab.get_by_role("button", name=content.SUGGESTIONS[0]).click()
    expect(tab.locator(".bot.message")).to_contain_text(f"You asked: {content.SUGGESTIONS[0]}")
    finish(tab)
    expect(tab.get_by_test_id("textbox")).to_have_value("My own words")


def test_enter_pressed_three_times_asks_once(tab: Page, engine: FakeEngine) -> None:
    tab.get_by_test_id("textbox").fill("Please count")
    tab.evaluate(
        """() => {
          const box = document.querySelector("#question textarea");
          for (let press = 0; press < 3; press += 1)
            box.dispatchEvent(new KeyboardEvent("keypress", {key: "Enter", bubbles: true}));
        }"""
    )
    expect(tab.locator(".bot.message")).to_contain_text("1 2 3")
    tab.wait_for_timeout(500)
    assert (len(engine.replies), questions(tab)) == (1, ["Please count"])


@pytest.mark.parametrize("seed", ["-1", "9" * 20])
def test_a_seed_no_engine_takes_is_told_and_the_question_stays(tab: Page, seed: str) -> None:
    tab.locator("#sampling .label-wrap").click()
    tab.get_by_label(content.SEED[0]).fill(seed)
    start_asking(tab, "Is it loud?")
    expect(tab.locator("#notice")).to_contain_text("The seed must be a whole number")
    expect(tab.locator(".toast-wrap .error")).to_have_count(0)
    expect(tab.get_by_test_id("textbox")).to_have_value("Is it loud?")
    tab.get_by_label(content.SEED[0]).fill("7")
    ask(tab, "Is it loud?")


def test_words_typed_while_a_question_fails_stay(tab: Page, engine: FakeEngine) -> None:
    engine.gate.clear()
    tab.get_by_role("button", name="A long tone").click()
    start_asking(tab, "Is it loud?")
    expect(tab.locator(".user.message")).to_have_text("Is it loud?")
    tab.get_by_test_id("textbox").fill("And is it slow?")
    engine.error = PromptError("There is nothing to say.")
    engine.gate.set()
    expect(tab.locator("#notice")).to_have_text("There is nothing to say.")
    finish(tab)
    assert questions(tab) == ["Is it loud?"]
    expect(tab.get_by_test_id("textbox")).to_have_value("And is it slow?")
    engine.error = None
    tab.get_by_test_id("textbox").press("Enter")
    expect(tab.locator(".bot.message")).to_contain_text("You asked: And is it slow?")
    assert questions(tab) == ["And is it slow?"]


# Stopping


def wait_for_words(engine: FakeEngine, count: int) -> None:
    deadline = time.monotonic() + 10
    while not engine.replies or engine.replies[-1].given < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_nothing_more_is_computed(engine: FakeEngine) -> None:
    deadline = time.monotonic() + 10
    while not engine.replies[-1].is_closed:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    given = engine.replies[-1].given
    time.sleep(0.3)
    assert engine.replies[-1].given == given < 200


def test_stop_ends_the_computing_and_the_chat_goes_on(tab: Page, engine: FakeEngine) -> None:
    start_asking(tab, "Please count")
    expect(tab.locator(".bot.message")).to_contain_text("Counting: 1 2 3 4 5")
    tab.locator(".stop-button").click()
    finish(tab)
    assert_nothing_more_is_computed(engine)
    assert notice(tab) == content.STOPPED
    said = answers(tab)[0]
    ask(tab, "Is it loud?")
    assert answers(tab)[0] == said
    assert answers(tab)[1].startswith("Turn 2")


def test_a_question_asked_during_an_answer_takes_its_place(tab: Page, engine: FakeEngine) -> None:
    start_asking(tab, "Please count")
    expect(tab.locator(".bot.message")).to_contain_text("1 2 3")
    start_asking(tab, "Is it loud?")
    expect(tab.locator(".bot.message").last).to_have_text(
        "Turn 2, 2.0 s heard. You asked: Is it loud?"
    )
    finish(tab)
    assert engine.replies[0].is_closed
    assert questions(tab) == ["Please count", "Is it loud?"]


def test_a_closed_tab_ends_the_computing(tab: Page, engine: FakeEngine) -> None:
    start_asking(tab, "Please count")
    wait_for_words(engine, 5)
    tab.close()
    assert_nothing_more_is_computed(engine)


def test_a_new_song_ends_the_computing(tab: Page, engine: FakeEngine) -> None:
    start_asking(tab, "Please count")
    wait_for_words(engine, 5)
    tab.get_by_role("button", name="A long tone").click()
    expect(tab.locator("#song-line")).to_contain_text("of 0:04")
    assert_nothing_more_is_computed(engine)
    finish(tab)
    expect(tab.locator(".message")).to_have_count(0)


# Retry, undo, edit, clear, copy


def test_retry_answers_the_last_question_anew(tab: Page, engine: FakeEngine) -> None:
    ask(tab, "Is it loud?")
    tab.get_by_label("Retry").click()
    wait_for_replies(engine, 2)
    finish(tab)
    assert (len(questions(tab)), len(answers(tab))) == (1, 1)
    assert engine.prompts[0] == engine.prompts[1]


def wait_for_replies(engine: FakeEngine, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(engine.replies) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_undo_gives_the_last_question_back(tab: Page) -> None:
    ask(tab, "Is it loud?")
    ask(tab, "Why?")
    tab.get_by_role("button", name="Undo").click()
    expect(tab.get_by_test_id("textbox")).to_have_value("Why?")
    assert questions(tab) == ["Is it loud?"]


def test_a_past_question_can_be_changed(tab: Page, engine: FakeEngine) -> None:
    ask(tab, "Is it <loud> & R&B?")
    ask(tab, "Why?")
    tab.get_by_label("Edit").first.click()
    box = tab.locator("#chat textarea")
    expect(box).to_have_value("Is it <loud> & R&B?")
    box.fill("Is it rock&reggae &lt; R&B?")
    tab.get_by_label("Submit").click()
    wait_for_replies(engine, 3)
    expect(tab.locator(".bot.message")).to_have_text(
        ["Turn 1, 2.0 s heard. You asked: Is it rock&reggae &lt; R&B?"]
    )
    finish(tab)
    assert questions(tab) == ["Is it rock&reggae &lt; R&B?"]


def test_a_new_conversation_keeps_the_song(tab: Page) -> None:
    ask(tab, "Is it loud?")
    tab.get_by_role("button", name=content.NEW_CONVERSATION).click()
    expect(tab.locator(".message")).to_have_count(0)
    ask(tab, "Is it slow?")
    assert answers(tab) == ["Turn 1, 2.0 s heard. You asked: Is it slow?"]


def test_a_copied_answer_is_what_was_said(tab: Page) -> None:
    ask(tab, "Is <b>R&B</b> loud?")
    tab.get_by_label("Copy message").last.click()
    tab.wait_for_timeout(200)
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied == "Turn 1, 2.0 s heard. You asked: Is <b>R&B</b> loud?"


# What a page must never do


HOSTILE = [
    "<img src=x onerror=\"document.title='broken'\">",
    "![pixel](http://elsewhere.invalid/pixel.png)",
    "<script>document.title='broken'</script>",
    "${document.title='broken'} {{document.title='broken'}}",
    "&lt;img src=x&gt; <b>bold</b> $$x^2$$ `code` **strong**",
]


def test_words_are_shown_as_words(tab: Page) -> None:
    """In question and answer alike, and once more after a refresh."""
    for words in HOSTILE:
        ask(tab, words)
    for _ in range(2):
        expect(tab.locator(".bot.message")).to_have_count(len(HOSTILE))
        assert questions(tab) == HOSTILE
        assert [answer.partition("You asked: ")[2] for answer in answers(tab)] == HOSTILE
        inside = "img, script, b, strong, code, a, .katex"
        assert tab.locator("#chat .message").locator(inside).count() == 0
        assert tab.title() == content.TITLE
        tab.reload()


def test_errors_are_shown_as_words(visit: Visit, sounds: Path, tmp_path: Path) -> None:
    tab = visit()
    name = "<img src=x> ${document.title='broken'}.mp3"
    (tmp_path / name).write_text("no music")
    upload(tab, tmp_path / name, "cannot be read")
    assert tab.locator("#song-line img").count() == 0
    assert tab.title() == content.TITLE


def test_the_browser_is_told_to_load_nothing_from_elsewhere(address: str) -> None:
    headers = httpx.get(address).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["pyproject.toml", "app.py", "demo/settings.py"])
def test_files_of_the_server_are_not_given_out(address: str, path: str) -> None:
    file = Path(__file__).parents[2] / path
    assert httpx.get(f"{address}gradio_api/file={file}").status_code == 403


def test_no_event_is_open_to_programs(address: str) -> None:
    assert httpx.get(f"{address}gradio_api/info").json()["named_endpoints"] == {}


def test_nothing_is_left_in_the_browser_for_good(tab: Page) -> None:
    ask(tab, "A secret question")
    kept = tab.evaluate("JSON.stringify({...localStorage})")
    databases = tab.evaluate("indexedDB.databases().then(found => found.length)")
    assert "secret" not in kept
    assert databases == 0


# Visitors, tabs, refreshes


def test_two_tabs_of_one_visitor_are_isolated(tab: Page, address: str, sounds: Path) -> None:
    other = tab.context.new_page()
    other.goto(address)
    upload(other, sounds / "three.wav")
    start_asking(tab, "I am the first tab")
    start_asking(other, "I am the second tab")
    finish(tab), finish(other)
    expect(tab.locator(".bot.message")).to_have_text(
        ["Turn 1, 2.0 s heard. You asked: I am the first tab"]
    )
    expect(other.locator(".bot.message")).to_have_text(
        ["Turn 1, 3.0 s heard. You asked: I am the second tab"]
    )


def test_a_refreshed_tab_finds_its_conversation_and_its_song(tab: Page) -> None:
    ask(tab, "Is it loud?")
    tab.reload()
    expect(tab.locator(".bot.message")).to_have_count(1)
    expect(tab.locator("#song-line")).to_contain_text("heard 0:00–0:02 of 0:02")
    tab.locator("#song #waveform").wait_for()
    ask(tab, "Why?")
    assert answers(tab)[1] == "Turn 2, 2.0 s heard. You asked: Why?"


def test_a_tab_refreshed_before_its_song_was_heard_has_it_heard_again(
    visit: Visit, sounds: Path, engine: FakeEngine
) -> None:
    tab = visit()
    engine.gate.clear()
    upload(tab, sounds / "two.wav", "Listening")
    tab.reload()
    tab.locator("#song #waveform").wait_for()
    engine.gate.set()
    expect(tab.locator("#song-line")).to_contain_text("heard 0:00–0:02 of 0:02")


def test_a_tab_refreshed_during_an_answer_keeps_its_question(tab: Page, engine: FakeEngine) -> None:
    ask(tab, "Is it loud?")
    start_asking(tab, "Please count")
    expect(tab.locator(".bot.message").last).to_contain_text("1 2 3")
    tab.reload()
    expect(tab.get_by_test_id("textbox")).to_have_value("Please count")
    assert_nothing_more_is_computed(engine)
    assert questions(tab) == ["Is it loud?"]


def test_another_visitors_keepsake_with_a_changed_song_is_not_believed(
    tab: Page, visit: Visit
) -> None:
    ask(tab, "Is it loud?")
    kept = tab.evaluate("sessionStorage.getItem('musilingo')")
    thief = visit()
    forged = base64.b64decode(kept).replace(b'"duration_s": 2.0', b'"duration_s": 9.0')
    thief.evaluate(
        "kept => sessionStorage.setItem('musilingo', kept)", base64.b64encode(forged).decode()
    )
    thief.reload()
    expect(thief.locator("#song-line")).to_have_text(content.SONG_GONE)


def test_a_visitor_in_line_is_told_so_and_served(
    visit: Visit, serve: Callable[..., str], sounds: Path
) -> None:
    slow = FakeEngine(pause_s=0.15)
    url = serve_on(slow, serve, replies=1)
    first, second = visit(url), visit(url)
    for each in (first, second):
        upload(each, sounds / "two.wav")
    start_asking(first, "Please count")
    expect(first.locator(".bot.message")).to_contain_text("1 2")
    start_asking(second, "Is it loud?")
    in_line = "getComputedStyle(document.querySelector('#notice .wrap'), '::after').content"
    second.wait_for_function(f"{in_line}.includes('yours is number 1 in line')")
    second.locator(".stop-button").click()
    expect(second.locator("#notice")).to_have_text(content.STOPPED)
    expect(second.locator("#notice .wrap")).to_be_hidden()
    start_asking(second, "Is it loud?")
    first.locator(".stop-button").click()
    expect(second.locator(".bot.message")).to_contain_text("You asked: Is it loud?")


def test_a_question_comes_back_when_too_many_wait(
    visit: Visit, serve: Callable[..., str], sounds: Path
) -> None:
    slow = FakeEngine(pause_s=0.15)
    url = serve_on(slow, serve, replies=1, queue_size=4)
    first, second, third = visit(url), visit(url), visit(url)
    for each in (first, second, third):
        upload(each, sounds / "two.wav")
    start_asking(first, "Please count")
    expect(first.locator(".bot.message")).to_contain_text("1 2")
    for number in range(4):
        start_asking(second, f"Question {number}?")
        expect(second.locator(".user.message")).to_have_text([f"Question {number}?"])
    start_asking(third, "Is it loud?")
    expect(third.locator("#notice .line")).to_have_text(content.QUEUE_FULL)
    expect(third.get_by_test_id("textbox")).to_have_value("Is it loud?")
    finish(third)
    third.get_by_role("button", name="A long tone").click()
    expect(third.locator("#song-line")).to_contain_text(content.SONG_PUT_OFF)
    first.locator(".stop-button").click()
    expect(second.locator(".bot.message")).to_contain_text("You asked: Question 3?")
    ask(third, "And this one?")
    assert answers(third) == ["Turn 1, 4.0 s heard. You asked: And this one?"]


def test_turns_that_no_longer_fit_are_told(tab: Page, engine: FakeEngine) -> None:
    engine.dropped_turns = 1
    ask(tab, "Is it loud?")
    expect(tab.locator("#notice")).to_have_text(content.dropped_turns(1))


# An engine that is late, or does not come


def test_the_page_is_there_before_the_engine_and_loses_nothing(
    visit: Visit, serve: Callable[..., str], sounds: Path
) -> None:
    may_come = threading.Event()

    def load(on_status: OnStatus) -> FakeEngine:
        on_status("Fetching weights", 0.42)
        may_come.wait(30)
        return FakeEngine()

    loader = EngineLoader(load)  # type: ignore[arg-type]
    loader.start()
    tab = visit(serve(loader))
    expect(tab.locator("#banner")).to_contain_text("Fetching weights … 42 %")
    upload(tab, sounds / "two.wav", content.SONG_WAITING)
    start_asking(tab, "Is it loud?")
    expect(tab.locator("#notice")).to_contain_text(content.STILL_LOADING)
    may_come.set()
    expect(tab.locator("#song-line")).to_contain_text("heard 0:00–0:02 of 0:02")
    expect(tab.locator("#banner")).to_have_text("")
    expect(tab.locator(".bot.message")).to_contain_text("You asked: Is it loud?")


def test_an_engine_that_gets_ready_ends_no_question(
    visit: Visit, serve: Callable[..., str], sounds: Path
) -> None:
    may_come = threading.Event()
    engine = FakeEngine(encode_s=2.5)  # longer than the page takes to see that it is there
    loader = EngineLoader(lambda on_status: may_come.wait(30) and engine)  # type: ignore[arg-type,return-value]
    loader.start()
    tab = visit(serve(loader))
    upload(tab, sounds / "two.wav", content.SONG_WAITING)
    may_come.set()
    while loader.engine is None:
        time.sleep(0.005)
    ask(tab, "Is it loud?")
    assert answers(tab) == ["Turn 1, 2.0 s heard. You asked: Is it loud?"]


def test_an_engine_that_fails_is_told_whole_and_can_be_tried_again(
    visit: Visit, serve: Callable[..., str], sounds: Path
) -> None:
    attempts = []

    def load(on_status: OnStatus) -> FakeEngine:
        attempts.append(1)
        if len(attempts) == 1:
            raise WeightsUnavailable("The starter", ["<index>: no route"], "Put it in a folder.")
        return FakeEngine()

    loader = EngineLoader(load)  # type: ignore[arg-type]
    loader.start()
    tab = visit(serve(loader))
    for words in ("The starter", "<index>: no route", "Put it in a folder."):
        expect(tab.locator("#banner")).to_contain_text(words)
    tab.get_by_role("button", name=content.TRY_AGAIN).click()
    expect(tab.get_by_role("button", name=content.TRY_AGAIN)).to_be_hidden()
    expect(tab.locator("#banner")).to_have_text("")
    upload(tab, sounds / "two.wav")
    ask(tab, "Is it loud?")


def test_the_foot_names_models_and_licences_and_doubts(tab: Page, engine: FakeEngine) -> None:
    foot = tab.locator("#foot")
    expect(foot).to_contain_text(content.CAVEAT)
    for part, licence in engine.licences:
        expect(foot).to_contain_text(part)
        expect(foot).to_contain_text(licence)


# Every screen, every hand


def test_no_screen_has_to_be_scrolled_sideways(tab: Page) -> None:
    ask(tab, "A" * 300)
    for width in (320, 390, 768, 1024, 1280):
        tab.set_viewport_size({"width": width, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def tab_to(tab: Page, selector: str) -> None:
    """Presses Tab until something that matches has the focus."""
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} cannot be reached")


def test_a_song_is_talked_about_by_keyboard_alone(visit: Visit) -> None:
    tab = visit()
    tab_to(tab, "button.example")
    tab.keyboard.press("Enter")
    expect(tab.locator("#song-line")).to_contain_text("heard 0:00–0:04 of 0:04")
    tab_to(tab, "#question textarea")
    tab.keyboard.type("Please count")
    tab.keyboard.press("Enter")
    expect(tab.locator(".bot.message")).to_contain_text("1 2 3")
    tab.keyboard.press("Escape")
    finish(tab)
    tab.keyboard.type("One line")
    tab.keyboard.press("Shift+Enter")
    tab.keyboard.type("and another")
    tab.keyboard.press("Enter")
    expect(tab.locator(".user.message").last).to_have_text("One line\nand another")


def test_focus_is_visible_wherever_it_goes(tab: Page) -> None:
    ask(tab, "Is it loud?")
    tab.add_style_tag(content="* { transition: none !important; }")  # how it looks in the end
    seen = 0
    for _ in range(25):
        tab.keyboard.press("Tab")
        style = tab.evaluate(
            """() => {
              const there = document.activeElement;
              if (there === document.body) return null;
              const look = () => [there, there.closest(".form") ?? there]
                .map((one) => getComputedStyle(one))
                .map((style) => `${style.outline} ${style.boxShadow}`).join();
              const focused = look();
              there.blur();
              const rested = look();
              there.focus();
              return focused !== rested;
            }"""
        )
        assert style in (None, True), tab.evaluate("document.activeElement.outerHTML")
        seen += style is True
    assert seen > 15


def test_every_control_has_a_name(tab: Page) -> None:
    ask(tab, "Is it loud?")
    tab.locator("#sampling .label-wrap").click()
    nameless = tab.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, [role=progressbar]")]
          .filter((one) => one.checkVisibility() && one.type !== "file")
          .filter((one) => !(one.getAttribute("aria-label") || one.innerText?.trim() || one.title
            || [...(one.labels ?? [])].some((label) => label.innerText.trim())))
          .map((one) => one.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    assert tab.get_by_role("log", name=content.CHAT_LABEL).count() == 1
    assert tab.locator("#notice").get_attribute("role") == "status"


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_the_page_follows_the_system_into_the_dark_and_back_by_button(
    visit: Visit, scheme: str, is_dark: bool
) -> None:
    tab = visit(color_scheme=scheme)
    dark = "document.body.classList.contains('dark')"
    assert tab.evaluate(dark) == is_dark
    tab.get_by_label(content.THEME_TOGGLE).click()
    assert tab.evaluate(dark) != is_dark
    tab.reload()
    tab.locator("#song-line .line").wait_for()
    assert tab.evaluate(dark) != is_dark


def test_sampling_controls_are_folded_away_and_reach_the_engine(
    tab: Page, engine: FakeEngine
) -> None:
    seed = tab.get_by_label(content.SEED[0])
    expect(seed).to_be_hidden()
    tab.locator("#sampling .label-wrap").click()
    seed.fill("7")
    ask(tab, "Is it loud?")
    assert engine.samplings[-1].seed == 7


def test_answers_are_left_to_chance_unless_a_seed_is_given(tab: Page, engine: FakeEngine) -> None:
    ask(tab, "Is it loud?")
    assert engine.samplings == [Sampling()]
