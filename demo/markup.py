"""The small pieces of HTML the page is made of; every text that goes into one is escaped here."""

import html
import json

from demo import content
from demo.session import text_of
from demo.view import Line, Message, StartView

LOGO = (
    '<svg class="logo" viewBox="0 0 40 40" aria-hidden="true" focusable="false">'
    '<path class="bubble" d="M20 3C10.6 3 3 9.7 3 18c0 4.5 2.2 8.5 5.8 11.2L7.6 37l8.1-4.4'
    'c1.4.3 2.8.4 4.3.4 9.4 0 17-6.7 17-15S29.4 3 20 3Z"/>'
    '<path class="bars" d="M11.5 15.5v5M15.8 12.5v11M20 9.5v17M24.2 13.5v9M28.5 16v4"/></svg>'
)


def header(max_file_mb: int) -> str:
    """Logo, name, what it is, the switch between light and dark, and what page.js needs."""
    words = {
        "send": content.SEND,
        "stop": content.STOP,
        "drop": content.SONG_DROP,
        "remove": content.SONG_REMOVE,
        "chat": content.CHAT_LABEL,
        "question": content.QUESTION_LABEL,
        "suggestions": content.SUGGESTIONS_TITLE,
        "edit": content.EDIT_LABEL,
        "inLine": content.IN_LINE,
        "tooBig": content.FILE_TOO_BIG.replace("{limit}", f"{max_file_mb:,}"),
        "maxBytes": max_file_mb * 1_000_000,
    }
    return (
        f'<i id="words" hidden data-words="{_text(json.dumps(words))}"></i>'
        '<p id="song-news" class="sr-only" role="status"></p>'
        f'<header class="masthead">{LOGO}<div><h1>{_text(content.TITLE)}</h1>'
        f"<p>{_text(content.TAGLINE)}</p></div>"
        f'<button type="button" class="theme-toggle" aria-label="{_text(content.THEME_TOGGLE)}" '
        f'title="{_text(content.THEME_TOGGLE)}"><span aria-hidden="true"></span></button></header>'
    )


def heading(text: str) -> str:
    """A heading of a part of the page."""
    return f"<h2>{_text(text)}</h2>"


def small(text: str) -> str:
    """A line in small print."""
    return f'<p class="small">{_text(text)}</p>'


def invitation() -> str:
    """What an empty conversation shows."""
    return (
        f'<div class="invitation">{LOGO}<p class="big">{_text(content.EMPTY_TITLE)}</p>'
        f"<p>{_text(content.EMPTY_TEXT)}</p></div>"
    )


def line(news: Line) -> str:
    """One line of news, with a bar when it is known how much is done; "" for no news."""
    if not news.text:
        return ""
    bar = "" if news.fraction is None else _bar(news.fraction, news.text)
    detail = f"<small>{_text(news.detail)}</small>" if news.detail else ""
    return f'<div class="line {news.kind}"><span>{_text(news.text)}</span>{detail}{bar}</div>'


def banner(start: StartView) -> str:
    """What the page waits for; "" when the engine is there."""
    status = start.status
    if status.state == "ready":
        return ""
    if status.state == "failed":
        return (
            f'<div class="banner problem" role="alert"><strong>{_text(content.LOADING_FAILED)}'
            f"</strong><pre>{_text(status.message)}</pre></div>"
        )
    words = content.loading(status.message, status.fraction)
    return (
        f'<div class="banner"><strong>{_text(words)}</strong>'
        f"<span>{_text(content.LOADING_NOTE)}</span>{_bar(status.fraction, words)}</div>"
    )


def foot(start: StartView) -> str:
    """That answers may be wrong, where songs go, and whose models these are."""
    parts = [_text(content.CAVEAT), _text(content.PRIVACY)]
    licences = ""
    if start.licences:
        name = _text(content.MODELS.format(name=start.model))
        items = "".join(
            f"<li><b>{_text(part)}</b> {_text(licence)}</li>" for part, licence in start.licences
        )
        licences = (
            f"<details><summary>{_text(content.LICENCES_TITLE)}</summary>"
            f"<p>{name}</p><ul>{items}</ul></details>"
        )
    return f'<footer class="foot"><p>{" ".join(parts)}</p>{licences}</footer>'


def plain(messages: tuple[Message, ...]) -> list[Message]:
    """Messages whose words the chat component shows as they are.

    It reads text as HTML even with Markdown off, so a model or a visitor could place an image; with
    every ``<`` and ``&`` escaped there is nothing left to read. Escaping letter by letter keeps a
    growing text growing.
    """
    return [
        {"role": each["role"], "content": [{"type": "text", "text": _text(text_of(each), False)}]}
        for each in messages
    ]


def _text(words: str, quote: bool = True) -> str:
    return html.escape(words, quote=quote)


def _bar(fraction: float | None, words: str) -> str:
    label = f'role="progressbar" aria-label="{_text(words)}"'
    if fraction is None:
        return f'<div class="bar unknown" {label}><i></i></div>'
    done = content.percent(fraction)
    return (
        f'<div class="bar" {label} aria-valuemin="0" aria-valuemax="100" aria-valuenow="{done}">'
        f'<i style="width: {done}%"></i></div>'
    )
