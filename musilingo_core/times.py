"""Finds the moments of a song that a question names: “at 1:10”, “from 0:30 to 0:45”, “the ending”.

A question about a moment gets the music of that moment placed beside it; a language model that has
only the whole song before it cannot look closer by itself.
"""

import re
from dataclasses import dataclass

from musilingo_core.errors import PromptError

AROUND_S = 5.0  # seconds heard on either side of a single moment
EDGE_S = 10.0  # seconds that count as the beginning or the end

_CLOCK = r"(?:(\d{1,2}):)?(\d{1,3}):([0-5]\d)(?!\d)"
_SECONDS = r"(\d{1,4}(?:\.\d+)?)\s*(?:seconds?|secs?)\b"  # not “80s”, which is a decade
_MINUTES = r"(\d{1,2})\s*(?:minutes?|mins?)(?:\s*(?:and\s*)?(\d{1,2})\s*(?:seconds?|secs?|s)?\b)?"
_MOMENT = re.compile(rf"(?<![\d:]){_CLOCK}|(?<![\w.:]){_MINUTES}|(?<![\w.:]){_SECONDS}", re.I)
_JOINED = re.compile(r"\s*(?:to|until|till|and|[-–—])\s*", re.I)
_WORDS = {
    "beginning": re.compile(
        r"\b(?:beginning|intro|introduction|(?:begins?|starts?|opens?))\b", re.I
    ),
    "middle": re.compile(r"\bmiddle\b", re.I),
    "end": re.compile(r"\b(?:ending|outro|finale|at the end|the end|ends?|finish(?:es)?)\b", re.I),
}


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
    spans = [*_clock_spans(text, duration_s), *_word_spans(text, duration_s)]
    return list(dict.fromkeys(spans))


def _clock_spans(text: str, duration_s: float) -> list[Span]:
    moments = [(m.start(), m.end(), _seconds(m)) for m in _MOMENT.finditer(text)]
    spans = []
    while moments:
        _, end, seconds = moments.pop(0)
        if seconds > duration_s:
            raise PromptError(
                f"The song lasts {clock(duration_s)}, so there is nothing at {clock(seconds)}; "
                "please ask about an earlier moment."
            )
        until = None
        if moments and _JOINED.fullmatch(text[end : moments[0][0]]) and moments[0][2] > seconds:
            until = moments.pop(0)[2]
        spans.append(_around(seconds, until, duration_s))
    return spans


def _around(seconds: float, until: float | None, duration_s: float) -> Span:
    if until is not None:
        return Span(seconds, min(until, duration_s))
    return Span(max(seconds - AROUND_S, 0.0), min(seconds + AROUND_S, duration_s))


def _seconds(match: re.Match[str]) -> float:
    hours, minutes, seconds, whole_minutes, rest, plain = match.groups()
    if seconds is not None:
        return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    if whole_minutes is not None:
        return int(whole_minutes) * 60 + int(rest or 0)
    return float(plain)


def _word_spans(text: str, duration_s: float) -> list[Span]:
    edge = min(EDGE_S, duration_s)
    middle = max(duration_s - edge, 0.0) / 2
    places = {
        "beginning": Span(0.0, edge),
        "middle": Span(middle, middle + edge),
        "end": Span(duration_s - edge, duration_s),
    }
    found = [(match.start(), word) for word, p in _WORDS.items() if (match := p.search(text))]
    return [places[word] for _, word in sorted(found)]
