"""ZeroGPU of Hugging Face Spaces: a GPU is lent while a song is heard or an answer is written.

There the page's own process has none: the package `spaces`, which only such a Space has, stands in
for CUDA until a call is made, in the main thread and until the page is launched. So that is where
and when the model has to be loaded, and transformers must not take threads for it.
"""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from musilingo_core.errors import DeviceNotLent

FAULT = "ZeroGPU worker error"  # title of what is no lack of a GPU, but a fault of the program
Task = Callable[..., Iterator[Any]]


def lend(task: Task) -> Task:
    """Makes a generator run where a GPU is; to be called before the page is launched.

    The generator raises `DeviceNotLent` where none is to be had.
    """
    import spaces

    lent: Task = spaces.GPU(task)

    @functools.wraps(task)
    def told(*arguments: Any) -> Iterator[Any]:
        try:
            yield from lent(*arguments)
        except gr.Error as error:
            if error.title == FAULT:
                raise
            words = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", str(error.message))  # links
            raise DeviceNotLent(re.sub(r"<[^>]*>", "", words)) from error

    return told
