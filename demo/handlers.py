"""What the page does: every event of a visitor is one method here, which gives a `View` or several.

Stands between the engine and `demo.page`, which wires components to these and paints their views.
Knows nothing about Gradio. All events take the tab's `Session`, which they change in place, and the
tab's keepsake, from which a session that the server has forgotten is filled again.
"""

import functools
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from demo import content
from demo.listening import Abandoned, Listening
from demo.loading import EngineLoader
from demo.session import MAX_QUESTION_CHARACTERS, Keeper, Session, Song
from demo.view import Line, StartView, View
from musilingo_core.errors import ConfigError, DeviceNotLent, MusiLingoError
from musilingo_core.sampling import Sampling

Choose = Callable[[], Sampling]  # raises ConfigError for numbers that are out of range
P = ParamSpec("P")
R = TypeVar("R")
Views = Generator[View, None, None]


def event(
    method: Callable[Concatenate["Handlers", Session, P], R],
) -> Callable[Concatenate["Handlers", Session, str, P], R]:
    """An event of a visitor: the tab hands in its keepsake too, to remind a server that forgot."""

    @functools.wraps(method)
    def wrapped(
        self: "Handlers", session: Session, keepsake: str, /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        if session.is_blank and keepsake:
            session.adopt(self.keeper.unpack(keepsake))
        return method(self, session, *args, **kwargs)

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
        kept = self.keeper.pack(session)  # with the question, for the next refresh
        question = session.take_back() if session.is_unanswered else None
        return View(
            messages=tuple(session.messages),
            question=question,
            song=self._song_again(session),
            keepsake=kept,
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
    def attach(self, session: Session, path: str | None) -> View:
        """A song was chosen: begins a new conversation about it; `listen` hears it.

        Args:
            session: The tab's.
            path: The sound file; None and "" do nothing.
        """
        if not path:
            return View()
        session.change_song(Path(path))
        notice = Line(content.NEW_SONG) if session.has_ended else Line()
        session.has_ended, song = False, self._song_line(session)
        if session.waiting is not None:
            notice = self._waits_for(session)
        return replace(self._rest(session, notice), song=song, answering=session.is_busy)

    @event
    def play(self, session: Session) -> View:
        """Puts the tab's song into the player, where an upload is already.

        Apart from `attach`: the player copies the file first, and in that time a question may be
        asked, and even answered.
        """
        path = session.path
        return View(player=str(path)) if path and path.is_file() else View()

    @event
    def listen(self, session: Session) -> Views:
        """Hears the song that waits, if one does."""
        yield from self._listen(session)

    @event
    def detach(self, session: Session) -> View:
        """The song was removed from the player."""
        notice = Line(content.SONG_REMOVED) if session.messages else Line()
        session.change_song(None)
        return replace(self._rest(session, notice), song=Line(content.SONG_NONE), player="")

    # The conversation

    @event
    def send(self, session: Session, question: str, draft: str, choose: Choose) -> View:
        """A question: takes it into the conversation; `answer` answers it, once there is a song.

        Args:
            session: The tab's.
            question: From the box, or a suggestion.
            draft: What stands in the box; it stays there unless it is the question.
            choose: Gives the sampling.
        """
        return self._accept(session, len(session.messages), question, draft, choose)

    @event
    def retry(self, session: Session, draft: str, choose: Choose) -> View:
        """Answers the last question anew."""
        question = session.last_question
        places = [at for at, each in enumerate(session.messages) if each["role"] == "user"]
        kept = draft if draft.strip() else question  # refused, it stays in the conversation
        return self._accept(session, max(places, default=0), question, kept, choose)

    @event
    def edit(self, session: Session, index: int, question: str, draft: str, choose: Choose) -> View:
        """Changes a past question and goes on from there; what came after it is dropped."""
        known = 0 <= index < len(session.messages) and session.messages[index]["role"] == "user"
        if not known:
            return View(messages=tuple(session.messages), notice=self._note(session, Line()))
        return self._accept(session, index, question, draft, choose)

    @event
    def answer(self, session: Session) -> Views:
        """Answers the question that waits, if one does, word by word.

        While another event hears the song it is left to the answer after that one: nobody holds a
        place in the queue by waiting.
        """
        if session.waiting is None:
            return
        if session.listening:
            session.is_left = True
            return
        yield from self._listen(session)
        if session.waiting is not None and session.song:  # neither stopped nor still to be heard
            yield from self._reply(session, session.waiting)

    @event
    def settle(self, session: Session, draft: str) -> View:
        """Brings the page in line with the tab when an answer is over.

        Views of two events may come in any order, and `answer` cannot know what was typed while it
        ran: a question that failed goes back to the box unless words stand there.
        """
        if session.is_busy:
            return View()
        question = self._give_back(session, draft) if session.has_failed else None
        return self._rest(session, session.notice, question)

    @event
    def turn_away(self, session: Session, draft: str, after_hearing: bool = False) -> View:
        """The queue had no place for an answer: gives the question back that waits for it.

        Args:
            session: The tab's.
            draft: What stands in the box.
            after_hearing: Whether it was the answer that comes after a song was heard; the question
                may have a place in line of its own then.
        """
        if session.waiting is None or (after_hearing and not session.is_left):
            return View()
        session.end_turn()
        question = self._give_back(session, draft)
        return self._rest(session, Line(content.QUEUE_FULL, "problem"), question)

    @event
    def put_off(self, session: Session) -> View:
        """Hearing a song failed: the queue had no place for it, or there is a fault."""
        if session.upload:
            return View(song=Line(content.SONG_PUT_OFF, "problem"))
        if session.path is None:
            return View(song=Line(content.SONG_FAULT, "problem"), player="")
        return View()

    @event
    def undo(self, session: Session, draft: str) -> View:
        """Removes the last turn; its question goes back to the box unless words stand there."""
        session.begin_turn()
        question = session.take_back()
        return self._rest(session, Line(), None if draft.strip() else question)

    @event
    def stop(self, session: Session, draft: str) -> View:
        """Ends the answer; what has been written stays, a question without a word goes back."""
        session.begin_turn()
        question = self._give_back(session, draft) if session.is_unanswered else None
        return self._rest(session, Line(content.STOPPED), question)

    @event
    def clear(self, session: Session) -> View:
        """Begins a new conversation about the same song."""
        session.begin_turn()
        notice = Line(content.CLEARED) if session.messages and session.song else Line()
        session.messages = []
        return self._rest(session, notice)

    # Steps of the above

    def _song_line(self, session: Session) -> Line:
        """The line under the player."""
        if session.song:
            return _heard(session.song)
        if session.unheard:
            words = content.SONG_IN_LINE if self.loader.engine else content.SONG_WAITING
            return Line(words, "busy")
        return Line(content.SONG_NONE)

    def _song_again(self, session: Session) -> Line:
        """The line under the player in a refreshed tab."""
        path = session.path
        if session.song or (path and path.is_file()):
            return self._song_line(session)
        session.upload = None
        is_gone = bool(path or session.messages)
        return Line(content.SONG_GONE, "problem") if is_gone else Line(content.SONG_NONE)

    def _listen(self, session: Session) -> Views:
        path, engine = session.upload, self.loader.engine
        if path is None:
            return
        if engine is None:
            yield View(song=self._song_line(session))
            return
        with Listening(engine, path) as listening:
            if session.upload != path:  # another was chosen, or another event hears it already
                return
            session.listening, session.upload = listening, None  # in this order: never without
            try:
                yield from self._hear(session, listening)
            except GeneratorExit:  # the tab is gone; refreshed, it has the song heard again
                if session.listening is listening:
                    session.upload = path
                raise
            finally:
                if session.listening is listening:
                    session.listening = None

    def _hear(self, session: Session, listening: Listening) -> Views:
        song, problem, kept = None, "", None
        try:
            for fraction in listening:
                if session.listening is not listening:
                    break
                yield View(song=Line(content.listening(fraction), "busy", fraction))
            else:
                clip = listening.clip()
                song = Song(clip.clip_id, str(listening.path), clip.duration_s, clip.heard_s)
        except Abandoned:
            pass  # told below
        except DeviceNotLent as error:
            problem, kept = f"{error} {content.SONG_KEPT}", listening.path
        except MusiLingoError as error:
            problem = str(error)
        if session.listening is not listening:  # nobody wants this song any more
            yield View(song=self._song_line(session))  # an earlier view may have come late
            return
        session.upload, session.listening, session.song = kept, None, song
        if song:
            yield View(song=_heard(song), keepsake=self.keeper.pack(session))
        else:
            session.end_turn()
            view, player = self._rest(session, Line()), None if kept else ""
            yield replace(view, song=Line(problem, "problem"), player=player)

    def _accept(
        self, session: Session, place: int, question: str, draft: str, choose: Choose
    ) -> View:
        """Puts a question at `place`, where it waits for `answer`; what came after is dropped.

        One that is refused goes to the box, unless other words stand there.
        """
        refusal = self._refusal(session, question, place)
        try:
            sampling = choose()
        except ConfigError as error:
            refusal = refusal or str(error)
        if refusal:
            box = None if draft.strip() else question.strip()
            notice = self._note(session, Line(refusal, "problem"))
            return View(messages=tuple(session.messages), notice=notice, question=box)
        session.ask(question.strip(), sampling, place)
        notice = self._waits_for(session)
        box = "" if draft.strip() in ("", question.strip()) else None
        return replace(self._rest(session, notice, box), answering=True)

    def _reply(self, session: Session, sampling: Sampling) -> Views:
        assert self.loader.engine is not None
        turn, prompt = session.begin_turn(), session.prompt()
        session.is_answering = True
        yield replace(self._rest(session, Line(content.THINKING, "busy")), answering=True)
        notice = Line(content.ANSWER_FAULT, "problem")  # until it is known how it ended
        try:
            with closing(self.loader.engine.reply(prompt, sampling)) as reply:
                for piece in reply:
                    if session.turn != turn:
                        break
                    news = self._note(session, Line()) if session.is_unanswered else None
                    session.extend_answer(piece)
                    yield View(messages=tuple(session.messages), notice=news)
                notice = Line(content.EMPTY_ANSWER, "problem")
                if not session.is_unanswered:
                    notice = Line(content.dropped_turns(reply.dropped_turns))
        except MusiLingoError as error:
            notice = Line(str(error), "problem")
        finally:
            is_overtaken = session.turn != turn
            if not is_overtaken:
                session.end_turn()
                self._note(session, notice)
        if is_overtaken:  # an earlier view may have come late
            yield View(messages=tuple(session.messages), keepsake=self.keeper.pack(session))
        else:
            yield self._rest(session, notice)

    def _waits_for(self, session: Session) -> Line:
        """What is said while a question waits."""
        if session.path is None:
            return Line(content.ASKED_EARLY)
        if self.loader.engine is None:
            return Line(content.STILL_LOADING, "busy")
        return Line(content.STILL_LISTENING if session.unheard else content.THINKING, "busy")

    def _refusal(self, session: Session, question: str, place: int) -> str:
        """Why `question` cannot be answered at its place; "" when it can."""
        length = len(question.strip())
        if not length:
            return content.NO_QUESTION
        if length > MAX_QUESTION_CHARACTERS:
            return content.QUESTION_TOO_LONG.format(length=length, limit=MAX_QUESTION_CHARACTERS)
        dropped = session.messages[place:]
        if session.path is None and any(each["role"] == "assistant" for each in dropped):
            return content.NO_SONG  # an answer about a song that is gone stays
        return content.NOT_LOADED if self.loader.status.state == "failed" else ""

    def _give_back(self, session: Session, draft: str) -> str | None:
        """Takes a failed question out, for the box; it stays where it is if words stand there."""
        session.has_failed = False
        return None if draft.strip() else session.take_back()

    def _rest(self, session: Session, notice: Line, question: str | None = None) -> View:
        """The page between two answers."""
        return View(
            messages=tuple(session.messages),
            notice=self._note(session, notice),
            question=question,
            answering=False,
            keepsake=self.keeper.pack(session),
        )

    @staticmethod
    def _note(session: Session, notice: Line) -> Line:
        """Remembers what the line above the question says."""
        session.notice = notice
        return notice


def _heard(song: Song) -> Line:
    return Line(content.heard(song.heard_s, song.duration_s), "done", detail=Path(song.path).name)
