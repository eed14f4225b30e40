"""What the page does: every event of a visitor is one generator of `View` here.

Stands between the engine and `demo.page`, which wires components to these and paints their views.
Knows nothing about Gradio. All events take the tab's `Session`, which they change in place, and the
tab's keepsake, from which a session that the server has forgotten is filled again.
"""

import functools
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec

from demo import content
from demo.listening import Abandoned, Listening
from demo.loading import EngineLoader, LoadStatus
from demo.session import MAX_QUESTION_CHARACTERS, Keeper, Message, Session, Song
from musilingo_core.errors import ConfigError, MusiLingoError
from musilingo_core.sampling import Sampling

Choose = Callable[[], Sampling]  # raises ConfigError for numbers that are out of range


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
        song, player = self._song_again(session)
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
        """A song was chosen: begins a new conversation about it; `listen` hears it.

        Args:
            session: The tab's.
            keepsake: The tab's.
            path: The sound file; None and "" do nothing.
            is_in_player: Whether the player shows it already, as it does for an upload.
        """
        if not path:
            yield View()
            return
        session.change_song(Path(path))
        notice = Line(content.NEW_SONG) if session.has_ended else Line()
        session.has_ended = False
        player = None if is_in_player else path
        yield replace(self._rest(session, notice), song=self._waiting_line(), player=player)

    @event
    def listen(self, session: Session, keepsake: str) -> Views:
        """Hears the song that waits, if one does."""
        yield from self._listen(session)

    @event
    def detach(self, session: Session, keepsake: str) -> Views:
        """The song was removed from the player."""
        notice = Line(content.SONG_REMOVED) if session.messages else Line()
        session.change_song(None)
        yield replace(self._rest(session, notice), song=Line(content.SONG_NONE), player="")

    # The conversation

    @event
    def send(
        self, session: Session, keepsake: str, question: str, draft: str, choose: Choose
    ) -> Views:
        """A question: takes it into the conversation; `answer` answers it.

        Args:
            session: The tab's.
            keepsake: The tab's.
            question: From the box, or a suggestion.
            draft: What stands in the box; it stays there unless it is the question.
            choose: Gives the sampling.
        """
        yield from self._accept(session, len(session.messages), question, draft, choose)

    @event
    def retry(self, session: Session, keepsake: str, draft: str, choose: Choose) -> Views:
        """Answers the last question anew."""
        question = session.last_question
        places = [at for at, each in enumerate(session.messages) if each["role"] == "user"]
        kept = draft if draft.strip() else question  # refused, it stays in the conversation
        yield from self._accept(session, max(places, default=0), question, kept, choose)

    @event
    def edit(
        self,
        session: Session,
        keepsake: str,
        index: int,
        question: str,
        draft: str,
        choose: Choose,
    ) -> Views:
        """Changes a past question and goes on from there; what came after it is dropped."""
        known = 0 <= index < len(session.messages) and session.messages[index]["role"] == "user"
        if not known:
            yield View(messages=tuple(session.messages), notice=Line())
            return
        yield from self._accept(session, index, question, draft, choose)

    @event
    def answer(self, session: Session, keepsake: str) -> Views:
        """Answers the question that waits, if one does, word by word.

        While another event hears the song it is left to the answer after that one: nobody holds a
        place in the queue by waiting.
        """
        if session.waiting is None or session.listening:
            return
        yield from self._listen(session)
        if session.waiting is not None and not session.unheard:  # neither stopped nor still heard
            yield from self._reply(session, session.waiting)

    @event
    def turn_away(self, session: Session, keepsake: str) -> Views:
        """The queue had no place for an answer: gives the question back that waits for it."""
        if session.waiting is None:
            yield View()
            return
        session.begin_turn()
        yield from self._refuse(session, content.QUEUE_FULL)

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
        question = self._give_back(session)
        line = Line(sentence, "problem")
        if session.song is None:
            return replace(self._rest(session, Line(), question), song=line, player="")
        return self._rest(session, line, question)

    # Steps of the above

    def _waiting_line(self) -> Line:
        """About a song that waits to be heard."""
        words = content.SONG_IN_LINE if self.loader.engine else content.SONG_WAITING
        return Line(words, "busy")

    def _song_again(self, session: Session) -> tuple[Line, str | None]:
        """The line under the player and what the player holds in a refreshed tab."""
        if session.song:
            path = session.song.path
            return _heard(session.song), path if Path(path).is_file() else None
        if session.upload and session.upload.is_file():
            return self._waiting_line(), str(session.upload)
        is_gone = bool(session.upload or session.messages)
        session.upload = None
        return (Line(content.SONG_GONE, "problem") if is_gone else Line(content.SONG_NONE)), None

    def _listen(self, session: Session) -> Views:
        path, engine = session.upload, self.loader.engine
        if path is None:
            return
        if engine is None:
            yield View(song=self._waiting_line())
            return
        with Listening(engine, path) as listening:
            session.listening, session.upload = listening, None  # in this order: never without
            try:
                for fraction in listening:
                    if session.listening is not listening:
                        return
                    yield View(song=Line(content.listening(fraction), "busy", fraction))
                clip = listening.clip()
                if session.listening is not listening:
                    return
                song = Song(clip.clip_id, str(path), clip.duration_s, clip.heard_s)
                session.song = song
            except (Abandoned, MusiLingoError):
                if session.listening is not listening:  # nobody asks for this song any more
                    return
                raise
            except GeneratorExit:  # the tab is gone: refreshed, it takes the song up again
                if session.listening is listening:
                    session.upload = path
                raise
            finally:
                if session.listening is listening:
                    session.listening = None
        yield View(song=_heard(song), keepsake=self.keeper.pack(session))

    def _accept(
        self, session: Session, place: int, question: str, draft: str, choose: Choose
    ) -> Views:
        """Puts a question at `place`, where it waits for `answer`; what came after is dropped.

        One that is refused goes to the box, unless other words stand there.
        """
        refusal = self._refusal(session, question)
        try:
            sampling = choose()
        except ConfigError as error:
            refusal = refusal or str(error)
        if refusal:
            box = None if draft.strip() else question.strip()
            notice = Line(refusal, "problem")
            yield View(messages=tuple(session.messages), notice=notice, question=box)
            return
        del session.messages[place:]
        session.ask(question.strip(), sampling)
        session.has_draft = draft.strip() not in ("", question.strip())
        notice = Line(content.STILL_LISTENING if session.unheard else content.THINKING, "busy")
        box = None if session.has_draft else ""
        yield replace(self._rest(session, notice, box), answering=True)

    def _reply(self, session: Session, sampling: Sampling) -> Views:
        turn = session.begin_turn()
        yield replace(self._rest(session, Line(content.THINKING, "busy")), answering=True)
        if session.turn != turn:
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
        """Ends a question that cannot be answered after all."""
        question = self._give_back(session)
        yield self._rest(session, Line(sentence, "problem"), question)

    def _give_back(self, session: Session) -> str | None:
        """Takes an unanswered question out, for the box unless other words stand there."""
        question = session.take_back() if session.is_unanswered else None
        return None if session.has_draft else question

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
