"""What the page shows, as data: `demo.handlers` makes it, `demo.page` paints it."""

from dataclasses import dataclass
from typing import Any, Literal

from demo.loading import LoadStatus

Message = dict[str, Any]  # {"role": "user" | "assistant", "content": [{"type": "text", "text": …}]}


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
