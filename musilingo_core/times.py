"""Finds the moments of a song that a question names: “at 1:10”, “from 0:30 to 0:45”, “the ending”.

A question about a moment gets the music of that moment placed beside it; a language model that has
only the whole song before it cannot look closer by itself.
"""

import re
from dataclasses import dataclass

from musilingo_core.errors import PromptError

AROUND_S = 5.0  # seconds heard on either side of a single moment
EDGE_S = 10.0  # seconds that count as the beginning or the end

_UNIT = r"(sec|min)(?:ond|ute)?s?\b"
_NUMBER = r"(\d{1,4}(?:\.\d+)?)"
# Never given back (?+): “from 1 minute and 10 seconds” is one moment and no range.
_REST = r"(?:\s*(?:and\s+)?([0-5]?\d(?:\.\d+)?)\s*sec(?:ond)?s?\b)?+"
_TO = r"\s*(?:to|until|till|and|[-–—])\s*"
_TO_END = r"\s*(?:to|until|till|[-–—])\s*(?:the\s+)?end\b"
_MUSIC = r"(?:it|song|music|piece|track|tune|recording)"
# “80s” is a decade and “a 5 minute walk” a length: plain numbers count only where words point.
_PATTERNS = {
    "edge": rf"\b(?P<edge>first|last|final)\s+{_NUMBER}\s*{_UNIT}",
    "range": rf"\b(?:from|between)\s+{_NUMBER}(?:\s*{_UNIT}{_REST})?"
    rf"{_TO}{_NUMBER}\s*{_UNIT}{_REST}",
    "clock": r"(?<![\d:])(?<!than )(?:(\d{1,2}):)?(\d{1,3}):([0-5]\d)(?![\d:])",
    "point": rf"\b(?:at|after|around|about|near|from)\s+{_NUMBER}\s*{_UNIT}{_REST}"
    rf"(?!\s+long\b)({_TO_END})?",
    "beginning": r"\b(?:beginning|intro|introduction"
    rf"|{_MUSIC}\s+(?:begin|start)s?|hear first)\b",
    "middle": r"\bin the middle\b",
    "end": r"\b(?:ending|outro|finale|at the end|hear last"
    rf"|{_MUSIC}\s+(?:ends?|finish(?:es)?))\b",
}
_ANY = {name: re.compile(pattern, re.I) for name, pattern in _PATTERNS.items()}
_JOINED = re.compile(_TO, re.I)
_RUNS_OUT = re.compile(_TO_END, re.I)


@dataclass(frozen=True)
class Span:
    """A stretch of the song, seconds."""

    start_s: float
    end_s: float

    def __str__(self) -> str:
        return f"{clock(self.start_s)}-{clock(self.end_s)}"


def clock(seconds: float) -> str:
    """Seconds as people read them: 70 gives 1:10, 3725 gives 1:02:05."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def find_spans(text: str, duration_s: float) -> list[Span]:
    """The stretches of a song that a text names, in the order of the text, each once.

    Args:
        text: A question.
        duration_s: Length of the song, seconds.

    Raises:
        PromptError: A named moment lies after the end of the song.
    """
    found: list[tuple[int, Span]] = []
    for kind, pattern in _ANY.items():
        for match in pattern.finditer(text):
            if kind != "clock":
                found.append((match.start(), _named(kind, match, duration_s)))
        if kind == "clock":
            found += _clock_spans(text, duration_s)
        else:  # what one pattern has read, no other may read again
            text = pattern.sub(lambda match: " " * len(match.group()), text)
    spans = [span for _, span in sorted(found, key=lambda item: item[0])]
    return list(dict.fromkeys(spans))


def _named(kind: str, match: re.Match[str], duration_s: float) -> Span:
    """The stretch behind a match of any pattern but the clock's."""
    edge = min(EDGE_S, duration_s)
    middle = (duration_s - edge) / 2
    if kind == "beginning":
        return Span(0.0, edge)
    if kind == "middle":
        return Span(middle, middle + edge)
    if kind == "end":
        return Span(duration_s - edge, duration_s)
    if kind == "edge":
        side, number, unit = match.groups()
        length = min(_amount(number, unit), duration_s)
        return (
            Span(0.0, length) if side.lower() == "first" else Span(duration_s - length, duration_s)
        )
    if kind == "range":
        start, start_unit, start_rest, end, unit, rest = match.groups()
        start_s = _amount(start, start_unit or unit, start_rest)
        return _span(start_s, _amount(end, unit, rest), duration_s)
    number, unit, rest, to_end = match.groups()
    return _span(_amount(number, unit, rest), duration_s if to_end else None, duration_s)


def _amount(number: str, unit: str, rest: str | None = None) -> float:
    """Seconds of “1 minute” and the seconds named behind it."""
    return float(number) * (60 if unit.lower() == "min" else 1) + float(rest or 0)


def _clock_spans(text: str, duration_s: float) -> list[tuple[int, Span]]:
    """Moments like 1:10 and ranges like 1:05–1:20, with their places in the text."""
    moments = list(_ANY["clock"].finditer(text))
    spans = []
    while moments:
        first = moments.pop(0)
        until = duration_s if _RUNS_OUT.match(text, first.end()) else None
        if moments and _JOINED.fullmatch(text[first.end() : moments[0].start()]):
            until = _seconds(moments[0])
            if until > _seconds(first):
                moments.pop(0)
        spans.append((first.start(), _span(_seconds(first), until, duration_s)))
    return spans


def _span(start_s: float, end_s: float | None, duration_s: float) -> Span:
    """From start to end, or around one moment; never past the song.

    Raises:
        PromptError: It begins after the end of the song.
    """
    if start_s > duration_s:
        raise PromptError(
            f"The song lasts {clock(duration_s)}, so there is nothing at {clock(start_s)}; "
            "please ask about an earlier moment."
        )
    if end_s is not None and end_s > start_s:
        return Span(start_s, min(end_s, duration_s))
    return Span(max(start_s - AROUND_S, 0.0), min(start_s + AROUND_S, duration_s))


def _seconds(match: re.Match[str]) -> float:
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
