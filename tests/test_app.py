"""`app.py` as a visitor's machine runs it: a process of its own, the real starter."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from demo import content
from demo.handlers import Handlers
from demo.loading import EngineLoader
from demo.page import make_page
from demo.settings import Settings
from demo.sweeping import sweep
from tests.demo.fake_engine import FakeEngine

ROOT = Path(__file__).parents[1]
ANSWER_S = 30.0  # within which the page has to be there, the weights being here
LOAD_S = 300.0  # the model, on a busy machine
MOST_BYTES = 3e9
HOUR_S = 3600
# Variables that would make another page of it, or keep libraries from asking elsewhere.
UNWANTED = {"SPACE_ID", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "GRADIO_ANALYTICS_ENABLED"}


@dataclass(frozen=True)
class Running:
    """The process, where its page is, what it has said so far, and the way out of the machine.

    Attributes:
        outside: Listens where all its requests to other machines would go.
    """

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    uploads: Path
    outside: socket.socket

    def wait(self, seconds: float, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; fails with the log if it does not, or the process ends."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text("utf-8")
            assert time.monotonic() < deadline, self.log.read_text("utf-8")
            time.sleep(0.1)

    def wait_until_ready(self) -> None:
        """Waits for the page and the model."""
        self.wait(ANSWER_S, self.answers)
        self.wait(LOAD_S, lambda: "is ready" in self.log.read_text("utf-8"))

    def answers(self) -> bool:
        """Whether the page is there."""
        try:
            return content.TITLE in httpx.get(self.url, timeout=ANSWER_S).text
        except httpx.TransportError:
            return False

    def assert_small(self) -> None:
        """Fails if the process has ever held too much memory; only Linux tells."""
        status = Path(f"/proc/{self.process.pid}/status")
        if status.exists():
            (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text("utf-8"))
            assert int(peak) * 1024 < MOST_BYTES

    def assert_alone(self) -> None:
        """Fails if the process has asked another machine for anything, through the proxies."""
        self.outside.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has called
            self.outside.accept()


@contextmanager
def run_app(folder: Path, **changes: str) -> Iterator[Running]:
    """`python app.py` on a free port; ended after the block.

    Args:
        folder: For its uploads and its log.
        changes: Environment variables.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log, uploads = folder / "log.txt", folder / "uploads"
    environment = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    environment |= {"MUSILINGO_PORT": str(port), "MUSILINGO_UPLOADS": str(uploads)}
    with log.open("wb") as output, socket.create_server(("127.0.0.1", 0)) as outside:
        way_out = f"http://127.0.0.1:{outside.getsockname()[1]}"
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), way_out)
        proxies["NO_PROXY"] = "127.0.0.1,localhost"
        environment |= proxies | {name.lower(): value for name, value in proxies.items()}
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=environment | {"PYTHONUTF8": "1"} | changes,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Running(process, f"http://127.0.0.1:{port}/", log, uploads, outside)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def app(starter_or_skip: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with run_app(tmp_path_factory.mktemp("app")) as running:
        yield running


@pytest.mark.starter
def test_the_page_is_there_in_time_and_the_model_fits_in_three_gigabytes(app: Running) -> None:
    """What a song and an answer add is measured in `tests/browser/test_real.py`."""
    app.wait_until_ready()
    assert app.answers()
    app.assert_small()
    app.assert_alone()


@pytest.mark.starter
def test_the_log_says_where_the_page_is_and_what_it_waits_for(app: Running) -> None:
    app.wait_until_ready()
    lines = app.log.read_text("utf-8").splitlines()
    assert f"{content.TITLE} is at {app.url}" in lines
    assert lines.count("Loading the model") == 1


@pytest.mark.starter
def test_a_song_is_uploaded_to_where_songs_are_swept_away(app: Running) -> None:
    app.wait(ANSWER_S, app.answers)
    sent = httpx.post(f"{app.url}gradio_api/upload", files={"files": ("song.wav", b"a song")})
    (path,) = map(Path, sent.json())
    assert path.read_bytes() == b"a song"
    sweep(app.uploads, 0.0, time.time() + 1)
    assert not path.exists()


@pytest.mark.parametrize("age_s", [Settings().upload_age_s, HOUR_S])
def test_gradio_too_keeps_no_song_longer_than_an_hour(age_s: int) -> None:
    loader = EngineLoader(lambda on_status: FakeEngine())  # type: ignore[arg-type,return-value]
    page = make_page(Handlers(loader), Settings(upload_age_s=age_s))
    assert page.delete_cache is not None and max(page.delete_cache) <= HOUR_S
