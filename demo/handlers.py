"""What the page does: every event of a visitor is one generator of `View` here.

Stands between the engine and `demo.page`, which wires components to these and paints their views.
Knows nothing about Gradio. All events take the tab's `Session`, which they change in place, and the
tab's keepsake, from which a session that the server has forgotten is filled again.
"""

import functools
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec

from demo import content
from demo.listening import Listening
from demo.loading import EngineLoader, LoadStatus
from demo.session import MAX_QUESTION_CHARACTERS, Keeper, Message, Session, Song
from musilingo_core.errors import MusiLingoError
from musilingo_core.sampling import Sampling

LOOK_AGAIN_S = 0.1  # between two looks at a song that another event is listening to


@dataclass(frozen=True)
class Line:
    """One line of news.

    Attributes:
        text: What it says; "" for nothing.
        kind: ``info``, ``busy`` (something is going on), ``done`` or ``problem``.
        fraction: How much is done, 0 to 1, when that is known.
        detail: More, in small print.
    """

    text: str = ""
    kind: Literal["info", "busy", "done", "problem"] = "info"
    fraction: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class View:
    """What changes on the page; a field that is None stays as it is.

    Attributes:
        messages: The whole conversation.
        notice: The line above the question.
        question: What stands in the question box.
        answering: Whether an answer is being written (so there is something to stop).
        song: The line under the player.
        player: Sound file in the player; "" empties it.
        keepsake: What the tab keeps for a refresh.
    """

    messages: tuple[Message, ...] | None = None
    notice: Line | None = None
    question: str | None = None
    answering: bool | None = None
    song: Line | None = None
    player: str | None = None
    keepsake: str | None = None


@dataclass(frozen=True)
class StartView:
    """How far the engine is, for the banner, and what stands at the foot.

    Attributes:
        status: Of the loader.
        model: Name of the engine; "" until it is there.
        licences: Its parts and their licences.
    """

    status: LoadStatus
    model: str = ""
    licences: tuple[tuple[str, str], ...] = ()


P = ParamSpec("P")
Views = Generator[View, None, None]
Method = Callable[Concatenate["Handlers", Session, str, P], Views]


def event(method: Method[P]) -> Method[P]:
    """An event of a visitor: remembers a forgotten session and shows what went wrong.

    The one place where a `MusiLingoError` is caught; anything else is a bug and reaches the log.
    """

    def wrapped(
        self: "Handlers", session: Session, keepsake: str, /, *args: P.args, **kwargs: P.kwargs
    ) -> Views:
        if session.is_blank and keepsake:
            session.adopt(self.keeper.unpack(keepsake))
        try:
            yield from method(self, session, keepsake, *args, **kwargs)
        except MusiLingoError as error:
            yield self.problem(session, str(error))

    functools.update_wrapper(wrapped, method)
    return wrapped


class Handlers:
    """The events of the page.

    Args:
        loader: Where the engine comes from.
        keeper: Packs and unpacks what tabs keep.
    """

    def __init__(self, loader: EngineLoader, keeper: Keeper | None = None) -> None:
        self.loader = loader
        self.keeper = keeper or Keeper()

    # Arriving

    def restore(self, session: Session, keepsake: object) -> View:
        """A new or refreshed tab: its conversation if it has kept one.

        A visitor may have been quicker, while the server was busy: then the tab stays as it is.
        """
        if not session.is_blank:
            return View()
        session.adopt(self.keeper.unpack(keepsake))
        question = session.take_back() if session.is_unanswered else None
        song, player = Line(content.SONG_NONE), None
        if session.song:
            song = _heard(session.song)
            player = session.song.path if Path(session.song.path).is_file() else None
        elif session.messages:
            song = Line(content.SONG_GONE, "problem")
        return View(
            messages=tuple(session.messages),
            question=question,
            song=song,
            player=player,
            keepsake=self.keeper.pack(session),
        )

    def start(self) -> StartView:
        """How far the engine is."""
        engine, status = self.loader.engine, self.loader.status
        if engine is None:
            return StartView(status)
        return StartView(status, engine.name, tuple(engine.licences))

    def load_again(self) -> StartView:
        """Loads the engine once more after a failure."""
        self.loader.start()
        return self.start()

    # The song

    @event
    def attach(
        self, session: Session, keepsake: str, path: str | None, is_in_player: bool = True
    ) -> Views:
        """A song was chosen: begins a new conversation and listens to it.

        Args:
            session: The tab's.
            keepsake: The tab's.
            path: The sound file; None and "" do nothing.
            is_in_player: Whether the player shows it already, as it does for an upload.
        """
        if not path:
            yield View()
            return
        notice = Line(content.NEW_SONG) if session.messages else Line()
        session.change_song(Path(path))
        song = Line(content.listening(0), "busy", 0.0)
        player = None if is_in_player else path
        yield replace(self._rest(session, notice), song=song, player=player)
        yield from self._listen(session)

    @event
    def listen(self, session: Session, keepsake: str) -> Views:
        """The engine is ready: listens to a song that was waiting for it."""
        yield View()  # a generator that ends without a word makes Gradio empty the page
        yield from self._listen(session)

    @event
    def detach(self, session: Session, keepsake: str) -> Views:
        """The song was removed from the player."""
        notice = Line(content.SONG_REMOVED) if session.messages else Line()
        session.change_song(None)
        yield replace(self._rest(session, notice), song=Line(content.SONG_NONE), player="")

    # The conversation

    @event
    def send(self, session: Session, keepsake: str, question: str, sampling: Sampling) -> Views:
        """A question: answers it, word by word."""
        refusal = self._refusal(session, question)
        if refusal:
            yield View(notice=Line(refusal, "problem"))
            return
        session.ask(question.strip())
        yield from self._answer(session, sampling)

    @event
    def retry(self, session: Session, keepsake: str, sampling: Sampling) -> Views:
        """Answers the last question anew."""
        question = session.last_question
        refusal = self._refusal(session, question)
        if refusal:
            yield View(notice=Line(refusal, "problem"))
            return
        session.take_back()
        session.ask(question)
        yield from self._answer(session, sampling)

    @event
    def edit(
        self, session: Session, keepsake: str, index: int, question: str, sampling: Sampling
    ) -> Views:
        """Changes a past question and goes on from there; what came after it is dropped."""
        refusal = self._refusal(session, question)
        known = 0 <= index < len(session.messages) and session.messages[index]["role"] == "user"
        if refusal or not known:
            yield View(messages=tuple(session.messages), notice=Line(refusal, "problem"))
            return
        del session.messages[index:]
        session.ask(question.strip())
        yield from self._answer(session, sampling)

    @event
    def undo(self, session: Session, keepsake: str, draft: str) -> Views:
        """Removes the last turn; its question goes back to the box unless words stand there."""
        session.begin_turn()
        question = session.take_back()
        yield self._rest(session, Line(), draft.strip() or question)

    @event
    def stop(self, session: Session, keepsake: str, draft: str) -> Views:
        """Ends the answer; what has been written stays, a question without a word goes back."""
        session.begin_turn()
        question = session.take_back() if session.is_unanswered else None
        yield self._rest(session, Line(content.STOPPED), draft.strip() or question)

    @event
    def clear(self, session: Session, keepsake: str) -> Views:
        """Begins a new conversation about the same song."""
        session.begin_turn()
        notice = Line(content.CLEARED) if session.messages and session.song else Line()
        session.messages = []
        yield self._rest(session, notice)

    def problem(self, session: Session, sentence: str) -> View:
        """Shows what went wrong: beside the song while there is none, else above the question."""
        question = session.take_back() if session.is_unanswered else None
        line = Line(sentence, "problem")
        if session.song is None:
            return replace(self._rest(session, Line(), question), song=line, player="")
        return self._rest(session, line, question)

    # Steps of the above

    def _listen(self, session: Session) -> Views:
        path, engine = session.upload, self.loader.engine
        if path is None:
            return
        if engine is None:
            yield View(song=Line(content.SONG_WAITING, "busy"))
            return
        with Listening(engine, path) as listening:
            session.upload, session.listening = None, listening
            try:
                for fraction in listening:
                    if session.listening is not listening:
                        return
                    yield View(song=Line(content.listening(fraction), "busy", fraction))
                clip = listening.clip()
            except GeneratorExit:  # stopped while an answer waited for it: it can be taken up again
                if session.listening is listening:
                    session.upload = path
                raise
            finally:
                if session.listening is listening:
                    session.listening = None
        session.song = Song(clip.clip_id, str(path), clip.duration_s, clip.heard_s)
        yield View(song=_heard(session.song), keepsake=self.keeper.pack(session))

    def _answer(self, session: Session, sampling: Sampling) -> Views:
        turn = session.begin_turn()
        thinking = Line(content.THINKING, "busy")
        yield replace(self._rest(session, thinking, question=""), answering=True)
        yield from self._await_song(session, turn)
        if session.turn != turn:
            return
        if session.song is None:
            yield from self._refuse(session, content.NO_SONG)
            return
        assert self.loader.engine is not None
        with closing(self.loader.engine.reply(session.prompt(), sampling)) as reply:
            for piece in reply:
                if session.turn != turn:
                    return
                first = session.is_unanswered
                session.extend_answer(piece)
                notice = Line() if first else None
                yield View(messages=tuple(session.messages), notice=notice)
            notice = Line(content.dropped_turns(reply.dropped_turns))
        if session.is_unanswered:
            yield from self._refuse(session, content.EMPTY_ANSWER)
        else:
            yield self._rest(session, notice)

    def _await_song(self, session: Session, turn: int) -> Views:
        """Waits for the song, here if it has not begun, else for the event that listens to it."""
        if session.upload or session.listening:
            yield View(notice=Line(content.STILL_LISTENING, "busy"))
            yield from self._listen(session)
            while session.listening and session.turn == turn:
                time.sleep(LOOK_AGAIN_S)
                yield View()
            yield View(notice=Line(content.THINKING, "busy"))

    def _refusal(self, session: Session, question: str) -> str:
        """Why `question` cannot be answered now; "" when it can."""
        length = len(question.strip())
        if not length:
            return content.NO_QUESTION
        if length > MAX_QUESTION_CHARACTERS:
            return content.QUESTION_TOO_LONG.format(length=length, limit=MAX_QUESTION_CHARACTERS)
        if not session.has_song:
            return content.NO_SONG
        if self.loader.engine is None:
            failed = self.loader.status.state == "failed"
            return content.NOT_LOADED if failed else content.STILL_LOADING
        return ""

    def _refuse(self, session: Session, sentence: str) -> Views:
        """Gives a question back that cannot be answered after all."""
        question = session.take_back() if session.is_unanswered else None
        yield self._rest(session, Line(sentence, "problem"), question)

    def _rest(self, session: Session, notice: Line, question: str | None = None) -> View:
        """The page between two answers."""
        return View(
            messages=tuple(session.messages),
            notice=notice,
            question=question,
            answering=False,
            keepsake=self.keeper.pack(session),
        )


def _heard(song: Song) -> Line:
    return Line(content.heard(song.heard_s, song.duration_s), "done", detail=Path(song.path).name)
