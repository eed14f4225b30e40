"""Loads the engine in the background: the page is there at once and says what it waits for.

The log says it too, for a server that nobody looks at.

`demo.handlers` asks `EngineLoader` for the engine; knows nothing about weights or pages.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from demo import content
from musilingo_core.errors import MusiLingoError

if TYPE_CHECKING:
    from musilingo_core.engine import ChatEngine

OnStatus = Callable[[str, float | None], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadStatus:
    """How far the engine is.

    Attributes:
        state: ``loading``, ``ready`` or ``failed``.
        message: What is being done, or the whole error message.
        fraction: How much of it is done, 0 to 1; None when that is not known.
    """

    state: Literal["loading", "ready", "failed"]
    message: str = ""
    fraction: float | None = None


class EngineLoader:
    """Runs `load` in a thread, once, and once more each time `start` is called after a failure.

    Args:
        load: Gives the engine; is handed a function that takes what it is doing and how much of it
            is done. A `MusiLingoError` it raises becomes the message visitors read.
    """

    def __init__(self, load: "Callable[[OnStatus], ChatEngine]") -> None:
        self._load = load
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._engine: ChatEngine | None = None
        self._status = LoadStatus("loading", content.LOADING)

    @property
    def engine(self) -> "ChatEngine | None":
        """The engine, or None while it is not there."""
        return self._engine

    @property
    def status(self) -> LoadStatus:
        """How far the engine is."""
        return self._status

    def start(self) -> None:
        """Starts loading unless it is under way or done. Returns at once."""
        with self._lock:
            if self._engine is None and not (self._thread and self._thread.is_alive()):
                self._status = LoadStatus("loading", content.LOADING)
                self._thread = threading.Thread(target=self.run, name="engine", daemon=True)
                self._thread.start()

    def run(self) -> None:
        """Loads the engine in this thread."""
        # Anything but a MusiLingoError is a bug: whole in the log, one sentence for visitors.
        outcome = LoadStatus("failed", content.LOADING_BROKE)
        try:
            self._engine = self._load(self._note)
            outcome = LoadStatus("ready")
        except MusiLingoError as error:
            outcome = LoadStatus("failed", str(error))
            log.error("%s: %s", content.LOADING_FAILED, error)
        finally:
            self._status = outcome

    def _note(self, message: str, fraction: float | None = None) -> None:
        if message != self._status.message:  # not every per cent
            log.info("%s", message)
        self._status = LoadStatus("loading", message, fraction)
