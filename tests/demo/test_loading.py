"""The engine arrives late, or not at all, or at the second attempt."""

import logging
import threading
import time
from collections.abc import Callable

import pytest

from demo import content
from demo.loading import EngineLoader, OnStatus
from musilingo_core.errors import WeightsUnavailable
from tests.demo.fake_engine import FakeEngine


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_nothing_is_loaded_before_start() -> None:
    calls: list[OnStatus] = []
    EngineLoader(calls.append)  # type: ignore[arg-type]
    assert calls == []


def test_start_returns_at_once_and_status_says_what_is_being_done() -> None:
    may_go_on = threading.Event()

    def load(on_status: OnStatus) -> FakeEngine:
        on_status("Fetching weights", 0.42)
        may_go_on.wait(5)
        return FakeEngine()

    loader = EngineLoader(load)  # type: ignore[arg-type]
    loader.start()
    wait_for(lambda: loader.status.message == "Fetching weights")
    assert (loader.status.state, loader.status.fraction, loader.engine) == ("loading", 0.42, None)
    may_go_on.set()
    wait_for(lambda: loader.status.state == "ready")
    assert isinstance(loader.engine, FakeEngine)


def test_a_failure_keeps_its_whole_message() -> None:
    error = WeightsUnavailable("The starter", ["index: no route", "folder: empty"], "Put it there.")

    def load(on_status: OnStatus) -> FakeEngine:
        raise error

    loader = EngineLoader(load)  # type: ignore[arg-type]
    loader.start()
    wait_for(lambda: loader.status.state == "failed")
    assert loader.status.message == str(error)
    assert loader.engine is None


def test_a_second_attempt_can_succeed() -> None:
    attempts = []

    def load(on_status: OnStatus) -> FakeEngine:
        attempts.append(1)
        if len(attempts) == 1:
            raise WeightsUnavailable("The starter", [], "")
        return FakeEngine()

    loader = EngineLoader(load)  # type: ignore[arg-type]
    loader.start()
    wait_for(lambda: loader.status.state == "failed")
    loader.start()
    wait_for(lambda: loader.status.state == "ready")


def test_start_while_loading_or_ready_does_not_load_again() -> None:
    attempts = []
    may_go_on = threading.Event()

    def load(on_status: OnStatus) -> FakeEngine:
        attempts.append(1)
        may_go_on.wait(5)
        return FakeEngine()

    loader = EngineLoader(load)  # type: ignore[arg-type]
    loader.start()
    loader.start()
    may_go_on.set()
    wait_for(lambda: loader.status.state == "ready")
    loader.start()
    assert attempts == [1]


def test_a_bug_while_loading_reaches_the_log_and_is_one_sentence_on_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", logged.append)

    def load(on_status: OnStatus) -> FakeEngine:
        raise ZeroDivisionError

    loader = EngineLoader(load)  # type: ignore[arg-type]
    loader.start()
    wait_for(lambda: loader.status.state == "failed")
    assert loader.status.message == content.LOADING_BROKE
    wait_for(lambda: [each.exc_type for each in logged] == [ZeroDivisionError])


def test_the_log_names_each_step_once_and_the_failure(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "demo.loading")
    error = WeightsUnavailable("The starter", ["index: no route"], "Put it there.")

    def load(on_status: OnStatus) -> FakeEngine:
        for fraction in (0.1, 0.2, 0.3):
            on_status("Fetching weights", fraction)
        on_status("Loading the model", None)
        raise error

    loader = EngineLoader(load)  # type: ignore[arg-type]
    loader.start()
    wait_for(lambda: loader.status.state == "failed")
    assert caplog.messages == [
        "Fetching weights",
        "Loading the model",
        f"{content.LOADING_FAILED}: {error}",
    ]


def test_a_loader_may_load_where_it_is_called() -> None:
    threads: list[threading.Thread] = []

    def load(on_status: OnStatus) -> FakeEngine:
        threads.append(threading.current_thread())
        return FakeEngine()

    loader = EngineLoader(load)  # type: ignore[arg-type]
    loader.run()
    assert loader.status.state == "ready" and threads == [threading.current_thread()]
