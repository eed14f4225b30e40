"""ZeroGPU as far as a page without it can show: `spaces` is a stand-in here, which forks."""

import os
import sys
from collections.abc import Iterator
from types import ModuleType

import gradio as gr
import pytest

from demo import zero_gpu
from musilingo_core.errors import DeviceNotLent
from tests import forking


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("spaces")
    module.GPU = forking.lend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", module)
    return module


def count(most: int) -> Iterator[int]:
    yield from range(most)


def where() -> Iterator[int]:
    yield os.getpid()


def test_a_generator_runs_elsewhere(spaces: ModuleType) -> None:
    assert list(zero_gpu.lend(count)(3)) == [0, 1, 2]
    assert list(zero_gpu.lend(where)()) != [os.getpid()]


def test_what_the_lender_says_is_said_in_plain_words(spaces: ModuleType) -> None:
    def refuse(task: zero_gpu.Task) -> zero_gpu.Task:
        def refused(*given: object) -> Iterator[int]:
            raise gr.Error(words, title=title)
            yield 0

        return refused

    spaces.GPU = refuse  # type: ignore[attr-defined]
    words, title = "None after 60 s. [Sign up](https://hf.co) for <b>more</b>.", "ZeroGPU queue"
    with pytest.raises(DeviceNotLent, match=r"free: None after 60 s\. Sign up for more\. Please"):
        list(zero_gpu.lend(count)(3))
    words, title = "RuntimeError", zero_gpu.FAULT
    with pytest.raises(gr.Error, match="RuntimeError"):
        list(zero_gpu.lend(count)(3))
