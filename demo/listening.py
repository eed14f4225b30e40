"""One song being heard in a thread of its own, so that the page can show how far it is.

Iterate over it for fractions, then ask for the `clip`. Closing it (new song, closed tab) stops the
encoder at its next report.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextvars import copy_context
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musilingo_core.engine import ChatEngine
    from musilingo_core.features import Clip

REPORT_EVERY_S = 0.2  # often enough to look alive, rarely enough to cost nothing


class Abandoned(Exception):
    """Raised inside the encoder's progress report to stop it; nobody wants the song any more."""


class Listening:
    """Runs ``engine.encode(path)`` while someone iterates over how much is done.

    Args:
        engine: What listens.
        path: The sound file.
    """

    def __init__(self, engine: "ChatEngine", path: Path) -> None:
        self.path = path
        self._fraction = 0.0
        self._abandoned = False
        self._future: Future[Clip] = Future()
        # A daemon, unlike an executor's thread: the server may end while a song is being heard.
        # In the event's context: who lends a GPU wants to know for whom.
        run = partial(copy_context().run, self._run, engine)
        threading.Thread(target=run, name="listening", daemon=True).start()

    def __enter__(self) -> "Listening":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[float]:
        """Yields the fraction heard, 0 to 1, several times a second until the end."""
        while wait([self._future], timeout=REPORT_EVERY_S).not_done:
            yield self._fraction

    def clip(self) -> "Clip":
        """The song as heard; waits for the end.

        Raises:
            MusiLingoError: The file cannot be used.
        """
        return self._future.result()

    def close(self) -> None:
        """Lets the encoder stop at its next report. Harmless when it is done."""
        self._abandoned = True

    def _run(self, engine: "ChatEngine") -> None:
        try:
            self._future.set_result(engine.encode(self.path, on_progress=self._note))
        except BaseException as error:  # noqa: BLE001 – raised again where the clip is asked for
            self._future.set_exception(error)

    def _note(self, fraction: float) -> None:
        if self._abandoned:
            raise Abandoned
        self._fraction = fraction
