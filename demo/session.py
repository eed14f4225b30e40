"""What one tab holds, and the keepsake that lets a refreshed tab find it again.

`Session` lives on the server and is changed in place by `demo.handlers`: ids and words only, never
tensors. `Keeper` packs it into text that the tab keeps for itself and unpacks what a tab hands
back, which is outside input: words are checked for shape and size, and a song is accepted only with
the seal this server gave it, so that nobody can name another visitor's song.
"""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from demo.listening import Listening
from demo.view import Line, Message
from musilingo_core.sampling import Sampling

MAX_KEPT_CHARACTERS = 400_000  # of a keepsake
MAX_KEPT_BYTES = 280_000  # of the words in it; Base64 makes a third more of them
MAX_KEPT_MESSAGES = 400
MAX_QUESTION_CHARACTERS = (
    2_000  # several times a long question; the model's context is the real limit
)


@dataclass(frozen=True)
class Song:
    """A song that has been heard.

    Attributes:
        clip_id: The engine's id of it.
        path: The uploaded file, for the player; it may be deleted while the clip is still known.
        duration_s: Length of the file in seconds.
        heard_s: Seconds the encoder heard.
    """

    clip_id: str
    path: str
    duration_s: float
    heard_s: float


@dataclass
class Session:
    """One tab: its song, its conversation, and what is going on.

    Attributes:
        song: The song being talked about; None before one has been heard.
        messages: Text turns, oldest first, user and assistant in turns.
        upload: A song that waits to be heard.
        listening: The song being heard right now.
        waiting: How to answer the last question, which no event has begun to do; None when no
            question waits.
        is_answering: Whether an answer is being written.
        has_failed: Whether the last question could not be answered and has to go back to the box.
        is_left: Whether the question that waits was left to the event that hears the song.
        notice: The line above the question.
        has_ended: Whether a conversation ended with its song and no song since has said so.
        turn: Counts events that begin or end an answer; an answer whose number is no longer this
            one stops by itself.
    """

    song: Song | None = None
    messages: list[Message] = field(default_factory=list)
    upload: Path | None = None
    listening: Listening | None = None
    waiting: Sampling | None = None
    is_answering: bool = False
    has_failed: bool = False
    is_left: bool = False
    notice: Line = field(default=Line(), compare=False)
    has_ended: bool = False
    turn: int = 0

    @property
    def is_blank(self) -> bool:
        """Whether nothing has happened in this tab yet, or the server has forgotten it."""
        return self == Session()

    @property
    def unheard(self) -> Path | None:
        """The song that waits to be heard or is being heard."""
        return self.listening.path if self.listening else self.upload

    @property
    def path(self) -> Path | None:
        """The file of the song, heard, being heard or waiting to be; it may be deleted by now."""
        return Path(self.song.path) if self.song else self.unheard

    def begin_turn(self) -> int:
        """Ends whatever answer is being written or waited for; gives the new turn's number."""
        self.waiting, self.is_answering, self.has_failed, self.is_left = None, False, False, False
        self.turn += 1
        return self.turn

    def end_turn(self) -> None:
        """The answer that was written or waited for has ended; without a word it has failed."""
        self.begin_turn()
        self.has_failed = self.is_unanswered

    @property
    def is_busy(self) -> bool:
        """Whether an answer is being written or waited for."""
        return self.is_answering or self.waiting is not None

    def change_song(self, upload: Path | None) -> None:
        """Forgets song and conversation; `upload` waits to be heard (None: no song).

        A question that waits for a song goes on waiting, for the event that hears it.
        """
        early = self.waiting if upload and self.path is None else None
        asked = self.messages[-1:] if early else []
        self.begin_turn()
        self.has_ended = self.has_ended or len(self.messages) > len(asked)
        if self.listening:
            self.listening.close()
        self.listening, self.song, self.upload = None, None, upload
        self.messages, self.waiting, self.is_left = asked, early, early is not None

    @property
    def is_unanswered(self) -> bool:
        """Whether the last message is a question."""
        return bool(self.messages) and self.messages[-1]["role"] == "user"

    @property
    def last_question(self) -> str:
        """The newest question; "" when there is none."""
        questions = [text_of(each) for each in self.messages if each["role"] == "user"]
        return questions[-1] if questions else ""

    def adopt(self, other: "Session") -> None:
        """Takes over song and conversation of `other`."""
        self.song, self.upload, self.messages = other.song, other.upload, other.messages

    def ask(self, question: str, sampling: Sampling = Sampling(), place: int | None = None) -> None:
        """Adds a question that waits; one that never got an answer makes room for it.

        Args:
            question: What is asked.
            sampling: How to answer.
            place: Where it goes, for what came from there on to be dropped; None for the end.
        """
        self.begin_turn()
        del self.messages[len(self.messages) if place is None else place :]
        if self.is_unanswered:
            self.messages.pop()
        whole = question.encode(errors="replace").decode()  # a script can send half a character
        self.messages.append(text_message("user", whole))
        self.waiting = sampling

    def extend_answer(self, piece: str) -> None:
        """Adds `piece` to the answer being written, or begins it."""
        if self.is_unanswered:
            self.messages.append(text_message("assistant", piece))
        else:  # a new message, not a changed one: views that were given out stay as they are
            self.messages[-1] = text_message("assistant", text_of(self.messages[-1]) + piece)

    def take_back(self) -> str:
        """Removes the last turn, answered or not, and gives its question; "" when there is none."""
        self.waiting = None
        while self.messages:
            message = self.messages.pop()
            if message["role"] == "user":
                return text_of(message)
        return ""

    def prompt(self) -> list[Message]:
        """The conversation as the engine reads it: the song stands in the first question."""
        if self.song is None or not self.messages:
            return self.messages
        clip = {"type": "clip", "clip_id": self.song.clip_id}
        first = {**self.messages[0], "content": [clip, *self.messages[0]["content"]]}
        return [first, *self.messages[1:]]


def text_message(role: str, text: str) -> Message:
    """A message of one text part."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def text_of(message: Message) -> str:
    """The words of a message."""
    return str(message["content"][0]["text"])


class Keeper:
    """Packs sessions into keepsakes and unpacks what comes back.

    Args:
        secret: Key of the seals; a new one at each start, so a song outlives a refresh but not a
            restart of the server.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)

    def pack(self, session: Session) -> str:
        """Song and conversation for the tab to keep: JSON in Base64."""
        path = str(session.unheard) if session.unheard else None
        songs = {"song": asdict(session.song) if session.song else None, "unheard": path}
        kept = {"songs": songs, "seal": self._seal(songs), "turns": _newest(session.messages)}
        # The page carries it where it reads HTML: these letters mean nothing there.
        return base64.b64encode(json.dumps(kept, ensure_ascii=False).encode()).decode()

    def unpack(self, keepsake: object) -> Session:
        """The session in a keepsake; a blank one for anything `pack` could not have written."""
        try:
            kept = _parse(keepsake)
            song, upload = self._songs(kept)
            return Session(song=song, upload=upload, messages=_messages(kept["turns"]))
        except (ValueError, KeyError, TypeError):
            return Session()

    def _songs(self, kept: dict[str, Any]) -> tuple[Song | None, Path | None]:
        """The song and the one not heard yet, if this server has put them there.

        A path is believed because of the seal: it came in by `attach`, as an upload or an example.
        """
        songs = kept["songs"]
        if not hmac.compare_digest(str(kept["seal"]).encode(), self._seal(songs).encode()):
            return None, None
        song, path = songs["song"], songs["unheard"]
        return Song(**song) if song else None, Path(path) if path else None

    def _seal(self, songs: object) -> str:
        words = json.dumps(songs, sort_keys=True).encode()
        return hmac.new(self._secret, words, hashlib.sha256).hexdigest()


def _newest(messages: list[Message]) -> list[list[str]]:
    """Role and words of the newest turns, as many as a keepsake has room for."""
    kept: list[list[str]] = []
    room = MAX_KEPT_BYTES
    for message in reversed(messages[-MAX_KEPT_MESSAGES:]):
        turn = [message["role"], text_of(message)]
        room -= len(json.dumps(turn, ensure_ascii=False).encode()) + 2  # the comma between
        if room < 0:
            break
        kept.insert(0, turn)
    return kept[1:] if kept and kept[0][0] == "assistant" else kept


def _parse(keepsake: object) -> dict[str, Any]:
    if not isinstance(keepsake, str) or len(keepsake) > MAX_KEPT_CHARACTERS:
        raise ValueError("no keepsake")
    try:
        kept = json.loads(base64.b64decode(keepsake, validate=True))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(kept, dict):
        raise TypeError("not an object")
    return kept


def _messages(turns: Any) -> list[Message]:
    """Checked messages: question and answer in turns, text only, within limits."""
    if not isinstance(turns, list) or len(turns) > MAX_KEPT_MESSAGES:
        raise ValueError("not a list of turns")
    messages = []
    for place, (role, text) in enumerate(turns):
        if role != ("user", "assistant")[place % 2] or not isinstance(text, str):
            raise ValueError("not a turn")
        text.encode()  # half of a character could not be kept again
        messages.append(text_message(role, text))
    return messages
