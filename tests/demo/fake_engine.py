"""An engine without a model: hears by length, speaks slowly and always the same."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import soundfile

from musilingo_core.errors import AudioTooShort, ClipNotFound, SilentAudio, UnreadableAudio


class FakeReply(Iterator[str]):
    """Words one by one; counts how many were asked for and whether it was closed."""

    def __init__(self, words: list[str], pause_s: float, dropped_turns: int = 0) -> None:
        self.words, self.pause_s, self.dropped_turns = words, pause_s, dropped_turns
        self.given, self.is_closed = 0, False
        self.prompt_tokens = self.reused_tokens = self.new_tokens = 0

    def __next__(self) -> str:
        if self.is_closed or self.given == len(self.words):
            raise StopIteration
        time.sleep(self.pause_s)
        self.given += 1
        return self.words[self.given - 1]

    def close(self) -> None:
        self.is_closed = True


class FakeEngine:
    """Answers “(turn) heard 2.0 s, asked: …” and, if asked to count, ends never soon.

    Attributes:
        replies: Every reply begun, oldest first.
        prompts: The messages of each.
        samplings: The sampling of each.
        pause_s: Seconds before each word.
        encode_s: Seconds that hearing takes.
        gate: When cleared, hearing waits.
    """

    name = "fake"
    licences = (("fake-encoder", "MIT"), ("fake-language-model", "Apache-2.0"))

    def __init__(self, pause_s: float = 0.0, encode_s: float = 0.0) -> None:
        self.pause_s, self.encode_s = pause_s, encode_s
        self.replies: list[FakeReply] = []
        self.prompts: list[list[dict[str, Any]]] = []
        self.samplings: list[Any] = []
        self.clips: dict[str, SimpleNamespace] = {}
        self.encoded: list[Path] = []
        self.dropped_turns = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def encode(
        self, path: Path | str, on_progress: Callable[[float], None] | None = None
    ) -> SimpleNamespace:
        path = Path(path)
        try:
            waveform, rate = soundfile.read(path)
        except soundfile.LibsndfileError:
            raise UnreadableAudio(path.name, ["soundfile: unknown format"]) from None
        seconds = len(waveform) / rate
        if seconds < 0.5:
            raise AudioTooShort(path.name, seconds, 0.5)
        if abs(waveform).max() < 1e-4:
            raise SilentAudio(path.name, -120.0)
        for step in range(10):
            time.sleep(self.encode_s / 10)
            self.gate.wait(timeout=20)
            if on_progress:
                on_progress((step + 1) / 10)
        self.encoded.append(path)
        clip_id = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self.clips[clip_id] = SimpleNamespace(
            clip_id=clip_id, duration_s=seconds, heard_s=seconds, features=None
        )
        return self.clips[clip_id]

    def clip(self, clip_id: str) -> SimpleNamespace:
        if clip_id not in self.clips:
            raise ClipNotFound(clip_id)
        return self.clips[clip_id]

    def reply(self, messages: list[dict[str, Any]], sampling: Any = None) -> FakeReply:
        if self.error:
            raise self.error
        self.prompts.append(messages)
        self.samplings.append(sampling)
        clip = self.clip(messages[0]["content"][0]["clip_id"])
        questions = [each["content"][-1]["text"] for each in messages if each["role"] == "user"]
        question = questions[-1]
        text = f"Turn {len(questions)}, {clip.duration_s:.1f} s heard. You asked: {question}"
        if "count" in question:
            text = " ".join(["Counting:", *(str(number) for number in range(1, 400))])
        words = [f"{word} " for word in text.split(" ")]
        words[-1] = words[-1].rstrip()
        self.replies.append(FakeReply(words, self.pause_s, self.dropped_turns))
        return self.replies[-1]
