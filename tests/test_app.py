"""`app.py` as a visitor's machine runs it: a process of its own, the real starter."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from demo import content

pytestmark = pytest.mark.starter

ROOT = Path(__file__).parents[1]
ANSWER_S = 30.0  # within which the page has to be there, the weights being here
LOAD_S = 300.0  # the model, on a busy machine
MOST_BYTES = 3e9


@dataclass(frozen=True)
class Running:
    """The process, where its page is, and what it has said so far."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def wait(self, seconds: float, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; fails with the log if it does not, or the process ends."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text("utf-8")
            assert time.monotonic() < deadline, self.log.read_text("utf-8")
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether the page is there."""
        try:
            return content.TITLE in httpx.get(self.url, timeout=ANSWER_S).text
        except httpx.TransportError:
            return False


@pytest.fixture
def app(starter_or_skip: None, tmp_path: Path) -> Iterator[Running]:
    """`python app.py` on a free port; ended after the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changes = {"PORT": str(port), "UPLOADS": str(tmp_path / "uploads")}
    environment = {name: value for name, value in os.environ.items() if name != "SPACE_ID"}
    environment |= {f"MUSILINGO_{name}": value for name, value in changes.items()}
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=environment | {"PYTHONUTF8": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Running(process, f"http://127.0.0.1:{port}/", log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_the_page_is_there_in_time_and_the_model_fits_in_three_gigabytes(app: Running) -> None:
    app.wait(ANSWER_S, app.answers)
    app.wait(LOAD_S, lambda: "is ready" in app.log.read_text("utf-8"))
    assert app.answers()
    assert f"{content.TITLE} is at {app.url}" in app.log.read_text("utf-8")
    status = Path(f"/proc/{app.process.pid}/status")
    if status.exists():  # Linux
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text("utf-8"))
        assert int(peak) * 1024 < MOST_BYTES
