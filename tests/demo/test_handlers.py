"""Everything a visitor does, without a page and without a model."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from demo import content
from demo.handlers import Handlers, Views
from demo.listening import Listening
from demo.loading import EngineLoader
from demo.session import MAX_QUESTION_CHARACTERS, Keeper, Session, text_message, text_of
from demo.view import Line, View
from musilingo_core.errors import DeviceNotLent, PromptError, WeightsUnavailable
from musilingo_core.sampling import Sampling
from tests.demo.fake_engine import FakeEngine

SAMPLING = Sampling()
HEARD = Line("heard 0:00–0:02 of 0:02", "done", detail="song.wav")
MakeSong = Callable[..., str]


def last(views: Views | View) -> View:
    """Everything that a whole event changed on the page, in one view."""
    changes: dict[str, object] = {}
    for view in [views] if isinstance(views, View) else views:
        changes |= {name: value for name, value in vars(view).items() if value is not None}
    return View(**changes)  # type: ignore[arg-type]


def likeliest() -> Sampling:
    return SAMPLING


def then_answer(handlers: Handlers, session: Session, view: View, keepsake: str = "") -> Views:
    """What the page does after each question; nothing is typed meanwhile."""
    yield view
    yield from handlers.answer(session, keepsake)
    yield handlers.settle(session, keepsake, "")


def hear(handlers: Handlers, session: Session, path: str) -> Views:
    """A song is chosen and heard."""
    yield handlers.attach(session, "", path)
    yield from handlers.listen(session, "")
    yield from handlers.answer(session, "")
    yield handlers.settle(session, "", "")


def send(handlers: Handlers, session: Session, question: str, keepsake: str = "") -> Views:
    """A question is sent from the box and answered."""
    sent = handlers.send(session, keepsake, question, question, likeliest)
    return then_answer(handlers, session, sent, keepsake)


def ask(handlers: Handlers, session: Session, question: str, keepsake: str = "") -> View:
    return last(send(handlers, session, question, keepsake))


def retry(handlers: Handlers, session: Session) -> View:
    return last(then_answer(handlers, session, handlers.retry(session, "", "", likeliest)))


def edit(handlers: Handlers, session: Session, index: int, question: str) -> View:
    edited = handlers.edit(session, "", index, question, "", likeliest)
    return last(then_answer(handlers, session, edited))


def texts(view: View) -> list[str]:
    return [text_of(message) for message in view.messages or ()]


@pytest.fixture
def with_song(handlers: Handlers, session: Session, make_song: MakeSong) -> Session:
    """A session whose song has been heard."""
    last(hear(handlers, session, make_song()))
    return session


# The song


def test_a_song_is_heard_at_upload_and_the_line_says_how_much(
    handlers: Handlers, session: Session, make_song: MakeSong
) -> None:
    view = last(hear(handlers, session, make_song(seconds=2)))
    assert view.song == HEARD
    assert session.song is not None


def test_progress_shows_while_a_song_is_heard(
    handlers: Handlers, engine: FakeEngine, session: Session, make_song: MakeSong
) -> None:
    engine.encode_s = 0.9
    lines = [view.song for view in hear(handlers, session, make_song())]
    fractions = [line.fraction for line in lines if line and line.fraction is not None]
    assert len(fractions) > 2
    assert fractions == sorted(fractions)


def test_a_new_song_in_the_middle_of_a_chat_begins_anew_and_says_so(
    handlers: Handlers, with_song: Session, make_song: MakeSong
) -> None:
    ask(handlers, with_song, "Is it loud?")
    view = last(hear(handlers, with_song, make_song("other.wav", seconds=3)))
    assert view.messages == ()
    assert view.notice == Line(content.NEW_SONG)
    answer = texts(ask(handlers, with_song, "Is it loud?"))[-1]
    assert answer == "Turn 1, 3.0 s heard. You asked: Is it loud?"


def test_a_first_song_needs_no_notice(
    handlers: Handlers, session: Session, make_song: MakeSong
) -> None:
    assert last(hear(handlers, session, make_song())).notice == Line()


def test_the_player_gets_the_song_of_the_tab(
    handlers: Handlers, session: Session, make_song: MakeSong
) -> None:
    path = make_song()
    assert last(hear(handlers, session, path)).player is None
    assert handlers.play(session, "") == View(player=path)
    handlers.attach(session, "", path := make_song("other.wav"))
    assert handlers.play(session, "") == View(player=path)


def test_removing_the_song_ends_its_conversation(handlers: Handlers, with_song: Session) -> None:
    ask(handlers, with_song, "Is it loud?")
    view = last(handlers.detach(with_song, ""))
    assert (view.messages, view.song) == ((), Line(content.SONG_NONE))
    assert ask(handlers, with_song, "And now?").notice == Line(content.ASKED_EARLY)


def test_a_song_is_heard_in_the_context_of_its_event(
    engine: FakeEngine, make_song: MakeSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lends a GPU asks it for whom."""
    visitor, seen, encode = ContextVar("visitor", default=""), list[str](), engine.encode

    def noted(*given: Any, **more: Any) -> Any:
        seen.append(visitor.get())
        return encode(*given, **more)

    monkeypatch.setattr(engine, "encode", noted)
    visitor.set("Ada")
    with Listening(engine, Path(make_song())) as listening:  # type: ignore[arg-type]
        listening.clip()
    assert seen == ["Ada"]


def test_choosing_another_song_stops_hearing_the_first(
    handlers: Handlers, engine: FakeEngine, session: Session, make_song: MakeSong
) -> None:
    engine.encode_s = 5.0
    first = hear(handlers, session, make_song("long.wav"))
    next(first), next(first)
    engine.encode_s = 0.0
    view = last(hear(handlers, session, make_song("short.wav", seconds=1)))
    assert last(first).song == view.song
    assert view.song == Line("heard 0:00–0:01 of 0:01", "done", detail="short.wav")
    assert [path.name for path in engine.encoded] == ["short.wav"]


def test_a_closed_tab_stops_hearing(
    handlers: Handlers, engine: FakeEngine, session: Session, make_song: MakeSong
) -> None:
    engine.encode_s = 1.0
    views = hear(handlers, session, make_song())
    next(views), next(views)
    views.close()
    time.sleep(1.2)
    assert engine.encoded == []


@pytest.mark.parametrize(
    "event",
    [
        ("attach", ""),
        ("attach", None),
        ("listen",),
        ("answer",),
        ("turn_away", ""),
        ("put_off",),
    ],
)
def test_an_event_with_nothing_to_do_changes_nothing(
    handlers: Handlers, with_song: Session, event: tuple[str, ...]
) -> None:
    nothing = getattr(handlers, event[0])(with_song, "", *event[1:])
    assert (nothing if isinstance(nothing, View) else last(nothing)) == View()


def test_a_song_is_accepted_at_once_and_heard_when_its_turn_comes(
    handlers: Handlers, with_song: Session, make_song: MakeSong
) -> None:
    ask(handlers, with_song, "Is it loud?")
    view = last(handlers.attach(with_song, "", make_song("other.wav", seconds=3)))
    assert (view.messages, view.song) == ((), Line(content.SONG_IN_LINE, "busy"))
    answer = texts(ask(handlers, with_song, "And this one?"))[-1]
    assert answer == "Turn 1, 3.0 s heard. You asked: And this one?"
    assert list(handlers.listen(with_song, "")) == []


def test_a_new_song_after_the_first_was_removed_says_that_the_conversation_ended(
    handlers: Handlers, with_song: Session, make_song: MakeSong
) -> None:
    """So does the page when a song is dropped: it empties the player first."""
    ask(handlers, with_song, "Is it loud?")
    last(handlers.detach(with_song, ""))
    assert last(handlers.attach(with_song, "", make_song())).notice == Line(content.NEW_SONG)
    assert last(handlers.attach(with_song, "", make_song())).notice == Line()


@pytest.mark.parametrize("end", ["abandoned", "heard", "bad"])
def test_a_song_chosen_between_two_looks_at_the_first_is_the_one_that_counts(
    handlers: Handlers,
    engine: FakeEngine,
    session: Session,
    make_song: MakeSong,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    other = Path(make_song("other.wav"))
    first = make_song("first.wav", seconds=0.1 if end == "bad" else 2.0)
    if end == "abandoned":
        engine.gate.clear()

    def another_meanwhile(listening: Listening) -> Iterator[float]:
        if end != "abandoned":
            wait([listening._future])
        session.change_song(other)
        engine.gate.set()
        wait([listening._future])
        return iter(())

    monkeypatch.setattr(Listening, "__iter__", another_meanwhile)
    last(handlers.attach(session, "", first))
    view = last(handlers.listen(session, ""))
    assert (view.song, view.player) == (Line(content.SONG_IN_LINE, "busy"), None)
    assert (session.song, session.upload) == (None, other)


# Bad input: one sentence beside the song, and the session goes on


@pytest.fixture
def bad_files(tmp_path: Path, make_song: MakeSong) -> dict[str, str]:
    (tmp_path / "notes.mp3").write_text("These are words, not music.")
    (tmp_path / "empty.wav").touch()
    flac = Path(make_song("whole.flac")).read_bytes()
    (tmp_path / "corrupt.flac").write_bytes(b"fLaC" + bytes(reversed(flac[4:])))
    return {
        "text": str(tmp_path / "notes.mp3"),
        "empty": str(tmp_path / "empty.wav"),
        "corrupt": str(tmp_path / "corrupt.flac"),
        "short": make_song("short.wav", seconds=0.1),
        "silent": make_song("silent.wav", pitch=0.0),
    }


@pytest.mark.parametrize("kind", ["text", "empty", "corrupt", "short", "silent"])
def test_a_bad_file_is_one_sentence_and_the_session_goes_on(
    handlers: Handlers,
    session: Session,
    bad_files: dict[str, str],
    make_song: MakeSong,
    kind: str,
) -> None:
    view = last(hear(handlers, session, bad_files[kind]))
    assert view.song is not None
    assert view.song.kind == "problem"
    assert Path(bad_files[kind]).name in view.song.text
    assert view.player == ""
    last(hear(handlers, session, make_song()))
    assert texts(ask(handlers, session, "Is it loud?"))[-1].startswith("Turn 1, 2.0 s heard")


# Asking


def test_an_answer_only_grows(handlers: Handlers, with_song: Session) -> None:
    views = list(send(handlers, with_song, "Is it loud?"))
    answers = [texts(view)[-1] for view in views if view.messages and len(view.messages) == 2]
    assert len(answers) > 5
    assert all(later.startswith(earlier) for earlier, later in pairwise(answers))
    assert answers[-1] == "Turn 1, 2.0 s heard. You asked: Is it loud?"


def test_the_question_shows_and_leaves_the_box_before_any_word(
    handlers: Handlers, with_song: Session
) -> None:
    first = next(send(handlers, with_song, "  Is it loud? "))
    assert texts(first) == ["Is it loud?"]
    assert (first.question, first.answering) == ("", True)
    assert first.notice == Line(content.THINKING, "busy")


def test_earlier_turns_reach_the_engine(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    ask(handlers, with_song, "Is it loud?")
    ask(handlers, with_song, "Why?")
    assert [message["role"] for message in engine.prompts[1]] == ["user", "assistant", "user"]
    assert [part["type"] for part in engine.prompts[1][0]["content"]] == ["clip", "text"]


def test_sampling_reaches_the_engine(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    chosen = Sampling(temperature=0.0, seed=7)
    last(handlers.send(with_song, "", "Is it loud?", "", lambda: chosen))
    last(handlers.answer(with_song, ""))
    assert engine.samplings == [chosen]


def test_a_question_before_its_song_is_answered_once_there_is_one(
    handlers: Handlers, session: Session, make_song: MakeSong
) -> None:
    view = ask(handlers, session, "Is it loud?")
    assert (view.notice, view.question) == (Line(content.ASKED_EARLY), "")
    assert view.answering and texts(view) == ["Is it loud?"]
    assert texts(edit(handlers, session, 0, "Is it fast?")) == ["Is it fast?"]
    ask(handlers, session, "Is it slow?")  # takes its place
    chosen = handlers.attach(session, "", make_song())
    assert chosen.answering and chosen.notice == Line(content.STILL_LISTENING, "busy")
    view = last(hear(handlers, session, ""))
    assert texts(view) == ["Is it slow?", "Turn 1, 2.0 s heard. You asked: Is it slow?"]
    assert view.notice == Line() and view.answering is False


def test_a_question_before_its_song_is_taken_back_by_stopping(
    handlers: Handlers, session: Session, make_song: MakeSong
) -> None:
    ask(handlers, session, "Is it loud?")
    assert handlers.stop(session, "", "").question == "Is it loud?"
    assert last(hear(handlers, session, make_song())).messages == ()


def test_a_question_before_a_song_that_cannot_be_heard_goes_back_to_the_box(
    handlers: Handlers, session: Session, bad_files: dict[str, str]
) -> None:
    ask(handlers, session, "Is it loud?")
    view = last(hear(handlers, session, bad_files["text"]))
    assert (view.question, view.answering, view.messages) == ("Is it loud?", False, ())


def test_a_question_before_its_song_comes_back_when_the_queue_is_full(
    handlers: Handlers, session: Session, make_song: MakeSong
) -> None:
    ask(handlers, session, "Is it loud?")
    handlers.attach(session, "", make_song())
    handlers.put_off(session, "")
    view = handlers.turn_away(session, "", "", after_hearing=True)
    assert view.question == "Is it loud?" and session.waiting is None


def test_of_an_earlier_conversation_only_the_waiting_question_stays(
    handlers: Handlers, with_song: Session, make_song: MakeSong
) -> None:
    session = Session(messages=[text_message("user", "Old?"), text_message("assistant", "Yes.")])
    ask(handlers, session, "Is it loud?")
    view = last(hear(handlers, session, make_song()))
    assert texts(view) == ["Is it loud?", "Turn 1, 2.0 s heard. You asked: Is it loud?"]


@pytest.mark.parametrize("question", ["", "  \n "])
def test_an_empty_question_is_not_asked(
    handlers: Handlers, with_song: Session, question: str
) -> None:
    view = ask(handlers, with_song, question)
    assert (view.messages, view.notice) == ((), Line(content.NO_QUESTION, "problem"))


def test_a_suggestion_that_is_refused_goes_to_the_box_unless_words_stand_there(
    handlers: Handlers, session: Session
) -> None:
    long = "Describe it" * MAX_QUESTION_CHARACTERS
    assert last(handlers.send(session, "", long, "", likeliest)).question == long
    assert last(handlers.send(session, "", long, "My words", likeliest)).question is None


@pytest.mark.parametrize(("draft", "box"), [("", ""), ("Is it loud?", ""), ("My words", None)])
def test_only_the_question_itself_leaves_the_box(
    handlers: Handlers, with_song: Session, draft: str, box: str | None
) -> None:
    assert last(handlers.send(with_song, "", "Is it loud?", draft, likeliest)).question == box


@pytest.mark.parametrize("place", ["answer", "queue"])
def test_a_failed_question_takes_the_place_of_no_words_typed_meanwhile(
    handlers: Handlers, engine: FakeEngine, with_song: Session, place: str
) -> None:
    engine.error = PromptError("There is nothing to say.")
    last(handlers.send(with_song, "", "Is it loud?", "Is it loud?", likeliest))
    if place == "answer":
        last(handlers.answer(with_song, ""))
        assert handlers.settle(with_song, "", "And is it slow?").question is None
    else:
        assert handlers.turn_away(with_song, "", "And is it slow?").question is None
    assert with_song.last_question == "Is it loud?"  # to be edited, or asked again
    engine.error = None
    assert texts(ask(handlers, with_song, "And is it slow?"))[0] == "And is it slow?"


def test_what_failed_is_forgotten_once_there_is_another_question(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    engine.error = PromptError("There is nothing to say.")
    last(handlers.send(with_song, "", "Is it loud?", "Is it loud?", likeliest))
    last(handlers.answer(with_song, ""))
    last(handlers.send(with_song, "", "And is it slow?", "", likeliest))
    assert handlers.settle(with_song, "", "") == View()


def test_a_song_the_queue_has_no_place_for_is_heard_with_the_next_question(
    handlers: Handlers, session: Session, make_song: MakeSong
) -> None:
    handlers.attach(session, "", make_song())
    assert handlers.put_off(session, "").song == Line(content.SONG_PUT_OFF, "problem")
    view = ask(handlers, session, "Is it loud?")
    assert view.song == HEARD
    assert texts(view)[-1] == "Turn 1, 2.0 s heard. You asked: Is it loud?"


def test_a_song_no_gpu_is_lent_for_is_kept_and_heard_with_the_next_question(
    handlers: Handlers, engine: FakeEngine, make_song: MakeSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, on_progress: object) -> None:
        raise DeviceNotLent("the quota is used up.")

    session, song = Session(), make_song()
    with monkeypatch.context() as context:
        context.setattr(engine, "encode", refuse)
        view = last(hear(handlers, session, song))
        assert view.song and view.song.kind == "problem" and view.player is None
        assert "quota is used up" in view.song.text and content.SONG_KEPT in view.song.text
        assert ask(handlers, session, "What?").question == "What?"  # back in the box
    assert session.upload == Path(song) and not session.messages
    view = ask(handlers, session, "What?")
    assert view.song == HEARD and texts(view)[0] == "What?" and len(texts(view)) == 2


def test_a_question_sent_three_times_is_answered_once(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    for _ in range(3):
        last(handlers.send(with_song, "", "Is it loud?", "Is it loud?", likeliest))
    for _ in range(3):
        last(handlers.answer(with_song, ""))
    assert len(engine.replies) == 1
    assert len(with_song.messages) == 2


def test_numbers_no_engine_takes_are_told_in_one_sentence(
    handlers: Handlers, with_song: Session
) -> None:
    view = last(handlers.send(with_song, "", "Is it loud?", "", lambda: Sampling(seed=-1)))
    assert view.notice is not None and "seed" in view.notice.text
    assert (view.messages, view.question) == ((), "Is it loud?")


def test_a_question_the_queue_has_no_place_for_comes_back(
    handlers: Handlers, with_song: Session
) -> None:
    last(handlers.send(with_song, "", "Is it loud?", "Is it loud?", likeliest))
    view = last(handlers.turn_away(with_song, "", ""))
    assert view.notice == Line(content.QUEUE_FULL, "problem")
    assert (view.messages, view.question, view.answering) == ((), "Is it loud?", False)


def test_a_question_of_many_pages_is_not_asked(handlers: Handlers, with_song: Session) -> None:
    view = ask(handlers, with_song, "why " * MAX_QUESTION_CHARACTERS)
    assert view.notice is not None
    assert f"{MAX_QUESTION_CHARACTERS:,}" in view.notice.text


def test_a_question_during_hearing_is_answered_by_the_event_after_it(
    handlers: Handlers, engine: FakeEngine, session: Session, make_song: MakeSong
) -> None:
    engine.encode_s = 0.6
    song = hear(handlers, session, make_song())
    hearing = threading.Thread(target=lambda: last(song))
    hearing.start()
    while session.listening is None:
        time.sleep(0.005)
    accepted, *later = send(handlers, session, "Is it loud?")
    assert accepted.notice == Line(content.STILL_LISTENING, "busy")
    assert later == [View()]  # its place in the queue is free again at once
    hearing.join()
    assert text_of(session.messages[-1]).startswith("Turn 1, 2.0 s heard")


def test_an_error_of_the_engine_gives_the_question_back(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    ask(handlers, with_song, "Is it loud?")
    engine.error = PromptError("The song ends at 0:02, so there is nothing at 1:10.")
    view = ask(handlers, with_song, "What happens at 1:10?")
    assert view.notice == Line(str(engine.error), "problem")
    assert (view.question, view.answering) == ("What happens at 1:10?", False)
    assert len(texts(view)) == 2


def test_an_engine_that_says_nothing_gives_the_question_back(
    handlers: Handlers, engine: FakeEngine, with_song: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.demo.fake_engine.FakeReply.__next__", lambda self: next(iter(())))
    view = ask(handlers, with_song, "Is it loud?")
    assert view.notice == Line(content.EMPTY_ANSWER, "problem")
    assert view.question == "Is it loud?"


def test_turns_that_no_longer_fit_are_told(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    engine.dropped_turns = 2
    assert ask(handlers, with_song, "Is it loud?").notice == Line(content.dropped_turns(2))


def test_a_bug_is_not_hidden(handlers: Handlers, engine: FakeEngine, with_song: Session) -> None:
    engine.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        ask(handlers, with_song, "Is it loud?")


# Stopping


def begin_counting(handlers: Handlers, session: Session, words: int) -> Views:
    views = send(handlers, session, "Please count")
    for _ in range(words + 2):  # accepted, thinking, and one a word
        next(views)
    return views


def test_stop_computes_nothing_more_and_keeps_what_was_said(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    views = begin_counting(handlers, with_song, words=4)
    view = handlers.stop(with_song, "", "")
    assert texts(view) == ["Please count", "Counting: 1 2 3 "]
    assert view.answering is False
    assert last(views).messages == view.messages  # nothing is said after it
    assert (engine.replies[0].given, engine.replies[0].is_closed) == (5, True)


@pytest.mark.parametrize("end", ["", "no song", "error"])
def test_an_answer_overtaken_at_its_very_end_takes_nothing_away(
    handlers: Handlers, engine: FakeEngine, with_song: Session, make_song: MakeSong, end: str
) -> None:
    views = send(handlers, with_song, "Is it loud?")
    said = 0 if end == "error" else 10  # all words of the answer
    for _ in range(said + 2):
        next(views)
    if end == "no song":
        shown = last(handlers.attach(with_song, "", make_song("other.wav")))
    else:
        engine.error = PromptError("too late") if end == "error" else None
        shown = last(handlers.send(with_song, "", "And then?", "And then?", likeliest))
    view = last(views)
    assert view.notice in (None, shown.notice) and view.answering in (None, shown.answering)
    assert view.question is None
    assert with_song.unheard if end == "no song" else with_song.last_question == "And then?"


def test_stop_before_the_first_word_gives_the_question_back(
    handlers: Handlers, with_song: Session
) -> None:
    views = begin_counting(handlers, with_song, words=0)
    view = handlers.stop(with_song, "", "")
    assert last(views).question is None
    assert (view.messages, view.question) == ((), "Please count")


def test_stop_loses_neither_the_question_nor_the_draft_of_the_next(
    handlers: Handlers, with_song: Session
) -> None:
    begin_counting(handlers, with_song, words=0)
    view = handlers.stop(with_song, "", "And then? ")
    assert (texts(view), view.question) == (["Please count"], None)


def test_what_came_late_is_put_right_when_the_stopped_answer_ends(
    handlers: Handlers, with_song: Session
) -> None:
    """The view that says “Thinking” may reach the page after the one that says “Stopped”."""
    views = begin_counting(handlers, with_song, words=0)
    handlers.stop(with_song, "", "")
    view = last(views)
    assert (view.answering, view.notice) == (False, Line(content.STOPPED))


def test_a_fault_in_an_answer_gives_the_question_back(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    engine.error = RuntimeError("out of memory")
    last(handlers.send(with_song, "", "Is it loud?", "Is it loud?", likeliest))
    with pytest.raises(RuntimeError):  # for the log
        last(handlers.answer(with_song, ""))
    assert handlers.turn_away(with_song, "", "") == View()
    view = handlers.settle(with_song, "", "")
    assert (view.question, view.answering) == ("Is it loud?", False)
    assert view.notice == Line(content.ANSWER_FAULT, "problem")


def test_a_fault_in_hearing_is_not_put_down_to_the_queue(
    handlers: Handlers, session: Session, make_song: MakeSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(FakeEngine, "encode", encode)
    handlers.attach(session, "", make_song())
    with pytest.raises(RuntimeError):  # for the log
        last(handlers.listen(session, ""))
    assert handlers.put_off(session, "").song == Line(content.SONG_FAULT, "problem")
    assert session.path is None


def test_a_full_queue_after_hearing_leaves_a_question_that_is_in_line(
    handlers: Handlers, with_song: Session
) -> None:
    last(handlers.send(with_song, "", "Is it loud?", "Is it loud?", likeliest))
    assert handlers.turn_away(with_song, "", "", after_hearing=True) == View()
    assert len(texts(last(handlers.answer(with_song, "")))) == 2


def test_a_closed_tab_computes_nothing_more(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    begin_counting(handlers, with_song, words=5).close()
    assert (engine.replies[0].given, engine.replies[0].is_closed) == (5, True)


def test_stop_while_waiting_for_the_song_does_not_lose_the_song(
    handlers: Handlers, engine: FakeEngine, session: Session, make_song: MakeSong
) -> None:
    session.change_song(Path(make_song()))
    engine.encode_s = 2.0
    views = send(handlers, session, "Is it loud?")
    for _ in range(2):
        next(views)
    last(handlers.stop(session, "", ""))
    engine.encode_s = 0.0
    assert last(views).song == HEARD  # no longer asked about, still wanted
    assert len(session.messages) == 0
    assert texts(ask(handlers, session, "Is it loud?"))[-1].startswith("Turn 1, 2.0 s heard")


# Retry, undo, edit, clear


def test_retry_answers_the_same_question_anew(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    ask(handlers, with_song, "Is it loud?")
    view = retry(handlers, with_song)
    assert len(engine.replies) == 2
    assert engine.prompts[1] == engine.prompts[0]
    assert len(texts(view)) == 2


def test_retry_that_is_refused_keeps_the_answer(handlers: Handlers, session: Session) -> None:
    session.messages = [text_message("user", "Is it loud?"), text_message("assistant", "Yes.")]
    view = retry(handlers, session)
    assert (view.notice, view.question) == (Line(content.NO_SONG, "problem"), None)
    assert len(session.messages) == 2


def test_undo_removes_one_turn_and_gives_its_question_back(
    handlers: Handlers, with_song: Session
) -> None:
    ask(handlers, with_song, "Is it loud?")
    ask(handlers, with_song, "Why?")
    view = last(handlers.undo(with_song, "", ""))
    assert (len(texts(view)), view.question) == (2, "Why?")


def test_undo_with_nothing_said_does_nothing(handlers: Handlers, session: Session) -> None:
    assert last(handlers.undo(session, "", "")).messages == ()


def test_an_edited_question_drops_what_came_after_it(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    ask(handlers, with_song, "Is it loud?")
    ask(handlers, with_song, "Why?")
    view = edit(handlers, with_song, 0, "Is it slow?")
    assert texts(view) == ["Is it slow?", "Turn 1, 2.0 s heard. You asked: Is it slow?"]
    assert len(engine.prompts[-1]) == 1


@pytest.mark.parametrize(("index", "words"), [(1, "Mine now"), (9, "?"), (-1, "?"), (0, " ")])
def test_an_edit_that_makes_no_sense_changes_nothing(
    handlers: Handlers, engine: FakeEngine, with_song: Session, index: int, words: str
) -> None:
    ask(handlers, with_song, "Is it loud?")
    view = edit(handlers, with_song, index, words)
    assert texts(view)[0] == "Is it loud?"
    assert len(engine.replies) == 1


def test_an_edit_that_is_refused_goes_to_the_box(handlers: Handlers, session: Session) -> None:
    session.messages = [text_message("user", "Is it loud?"), text_message("assistant", "Yes.")]
    view = edit(handlers, session, 0, "Is it slow?")
    assert (texts(view), view.question) == (["Is it loud?", "Yes."], "Is it slow?")


def test_clear_begins_anew_about_the_same_song(handlers: Handlers, with_song: Session) -> None:
    ask(handlers, with_song, "Is it loud?")
    view = last(handlers.clear(with_song, ""))
    assert (view.messages, view.notice) == ((), Line(content.CLEARED))
    assert texts(ask(handlers, with_song, "Why?"))[-1].startswith("Turn 1, 2.0 s heard")


@pytest.mark.parametrize("event", ["clear", "undo", "detach", "attach", "send", "retry", "edit"])
def test_a_later_event_ends_the_answer_being_written(
    handlers: Handlers, engine: FakeEngine, with_song: Session, make_song: MakeSong, event: str
) -> None:
    views = begin_counting(handlers, with_song, words=3)
    arguments: dict[str, tuple[object, ...]] = {
        "undo": ("",),
        "attach": (make_song("other.wav"),),
        "send": ("Why?", "Why?", likeliest),
        "retry": ("", likeliest),
        "edit": (0, "Why?", "", likeliest),
    }
    shown = last(getattr(handlers, event)(with_song, "", *arguments.get(event, ())))
    left = list(with_song.messages)
    view = last(views)
    assert view.messages == tuple(left)
    assert view.notice in (None, shown.notice) and view.answering in (None, shown.answering)
    assert engine.replies[0].is_closed
    assert with_song.messages == left


# Two visitors, refreshed tabs, forgotten sessions


def test_two_visitors_do_not_see_each_other(handlers: Handlers, make_song: MakeSong) -> None:
    one, other = Session(), Session()
    last(hear(handlers, one, make_song("one.wav", seconds=1)))
    last(hear(handlers, other, make_song("other.wav", seconds=3)))
    ask(handlers, one, "I am one")
    answer = texts(ask(handlers, other, "I am another"))
    assert answer == ["I am another", "Turn 1, 3.0 s heard. You asked: I am another"]


def test_a_refreshed_tab_finds_song_and_words(handlers: Handlers, with_song: Session) -> None:
    kept = ask(handlers, with_song, "Is it loud?").keepsake
    session = Session()
    view = handlers.restore(session, kept)
    assert session.song == with_song.song
    assert texts(view)[-1].startswith("Turn 1")
    assert view.song == HEARD
    assert with_song.song is not None
    assert handlers.play(session, "").player == with_song.song.path


@pytest.mark.parametrize("views", [1, 2], ids=["in line", "being heard"])
def test_a_tab_refreshed_before_its_song_was_heard_has_it_heard_again(
    handlers: Handlers, engine: FakeEngine, session: Session, make_song: MakeSong, views: int
) -> None:
    engine.encode_s = 0.9
    path = make_song()
    song = hear(handlers, session, path)
    for _ in range(views):
        next(song)
    kept = last(handlers.send(session, "", "Is it loud?", "", likeliest)).keepsake
    song.close()
    again = Session()
    view = handlers.restore(again, kept)
    assert view.song == Line(content.SONG_IN_LINE, "busy")
    assert handlers.play(again, "").player == path
    assert view.question == "Is it loud?"
    assert last(handlers.listen(again, "")).song == HEARD


def test_a_song_that_was_not_heard_and_is_no_longer_there_is_told(
    handlers: Handlers, session: Session, make_song: MakeSong
) -> None:
    path = make_song()
    kept = last(handlers.attach(session, "", path)).keepsake
    Path(path).unlink()
    again = Session()
    view = handlers.restore(again, kept)
    assert view.song == Line(content.SONG_GONE, "problem")
    assert handlers.play(again, "") == View()
    assert again.path is None


def test_a_tab_refreshed_during_an_answer_has_its_question_in_the_box(
    handlers: Handlers, with_song: Session
) -> None:
    first = next(send(handlers, with_song, "Is it loud?"))
    view = handlers.restore(Session(), first.keepsake)
    assert (view.messages, view.question) == ((), "Is it loud?")


def test_a_tab_refreshed_twice_still_has_its_question(
    handlers: Handlers, with_song: Session
) -> None:
    kept = next(send(handlers, with_song, "Is it loud?")).keepsake
    for _ in range(2):
        view = handlers.restore(Session(), kept)
        assert (view.messages, view.question) == ((), "Is it loud?")
        kept = view.keepsake


def test_a_song_whose_file_is_gone_can_still_be_asked_about(
    handlers: Handlers, with_song: Session
) -> None:
    kept = ask(handlers, with_song, "Is it loud?").keepsake
    assert with_song.song is not None
    Path(with_song.song.path).unlink()
    session = Session()
    assert handlers.restore(session, kept).song == HEARD
    assert handlers.play(session, "") == View()
    assert texts(ask(handlers, session, "Why?"))[-1].startswith("Turn 2, 2.0 s heard")


def test_a_restarted_server_keeps_the_words_and_says_that_the_song_is_gone(
    handlers: Handlers, with_song: Session
) -> None:
    kept = ask(handlers, with_song, "Is it loud?").keepsake
    handlers.keeper = Keeper()
    view = handlers.restore(Session(), kept)
    assert len(texts(view)) == 2
    assert view.song == Line(content.SONG_GONE, "problem")


def test_a_new_tab_is_blank(handlers: Handlers) -> None:
    session = Session()
    view = handlers.restore(session, "")
    assert session.is_blank
    assert (view.messages, view.song) == ((), Line(content.SONG_NONE))


def test_a_visitor_quicker_than_a_busy_server_keeps_the_song(
    handlers: Handlers, with_song: Session
) -> None:
    kept = ask(handlers, Session(song=with_song.song), "Is it loud?").keepsake
    assert handlers.restore(with_song, kept) == View()
    assert with_song.song is not None and not with_song.messages


def test_a_session_the_server_forgot_goes_on_from_the_tabs_keepsake(
    handlers: Handlers, with_song: Session
) -> None:
    kept = ask(handlers, with_song, "Is it loud?").keepsake
    assert kept is not None
    answer = texts(ask(handlers, Session(), "Why?", keepsake=kept))[-1]
    assert answer == "Turn 2, 2.0 s heard. You asked: Why?"


def test_a_song_no_longer_kept_is_told_in_one_sentence(
    handlers: Handlers, engine: FakeEngine, with_song: Session
) -> None:
    engine.clips.clear()
    view = ask(handlers, with_song, "Is it loud?")
    assert view.notice is not None
    assert "upload it again" in view.notice.text
    assert view.question == "Is it loud?"


# An engine that is late, or does not come


def late(engine: FakeEngine) -> tuple[Handlers, threading.Event]:
    """Handlers whose engine comes when the event is set."""
    may_come = threading.Event()
    loader = EngineLoader(lambda on_status: may_come.wait(10) and engine)  # type: ignore[arg-type,return-value]
    loader.start()
    return Handlers(loader), may_come


def until_ready(handlers: Handlers) -> None:
    while handlers.loader.engine is None:
        time.sleep(0.005)


def test_a_song_that_comes_before_the_engine_is_kept_and_heard_later(
    engine: FakeEngine, session: Session, make_song: MakeSong
) -> None:
    handlers, may_come = late(engine)
    assert last(hear(handlers, session, make_song())).song == Line(content.SONG_WAITING, "busy")
    may_come.set()
    until_ready(handlers)
    assert last(handlers.listen(session, "")).song == HEARD


def test_a_question_that_comes_before_the_engine_is_answered_later(
    engine: FakeEngine, session: Session, make_song: MakeSong
) -> None:
    handlers, may_come = late(engine)
    last(hear(handlers, session, make_song()))
    view = ask(handlers, session, "Loud?")
    assert (view.notice, view.answering) == (Line(content.STILL_LOADING, "busy"), True)
    may_come.set()
    until_ready(handlers)
    last(handlers.listen(session, ""))
    assert texts(last(handlers.answer(session, "")))[-1].startswith("Turn 1, 2.0 s heard")


def test_an_engine_that_failed_is_told_whole_and_can_be_tried_again(
    engine: FakeEngine, session: Session, make_song: MakeSong
) -> None:
    attempts = []

    def load(on_status: object) -> FakeEngine:
        attempts.append(1)
        if len(attempts) == 1:
            raise WeightsUnavailable("The starter", ["index: no route"], "Put it into a folder.")
        return engine

    handlers = Handlers(EngineLoader(load))  # type: ignore[arg-type]
    handlers.load_again()
    while handlers.start().status.state == "loading":
        time.sleep(0.005)
    assert "index: no route" in handlers.start().status.message
    last(hear(handlers, session, make_song()))
    assert ask(handlers, session, "Loud?").notice == Line(content.NOT_LOADED, "problem")
    handlers.load_again()
    until_ready(handlers)
    assert handlers.start().licences == engine.licences
    assert texts(ask(handlers, session, "Loud?"))[-1].startswith("Turn 1, 2.0 s heard")
