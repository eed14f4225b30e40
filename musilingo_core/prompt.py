"""Conversations into token ids: the one renderer of training, evaluation and chat.

A conversation is a list of messages, plain JSON:

    {"role": "user", "content": [{"type": "clip", "clip_id": "…"}, {"type": "text", "text": "…"}]}
    {"role": "assistant", "content": [{"type": "text", "text": "…"}]}

A clip part may carry `start_s` and `end_s`: then it is an excerpt. A text part may carry `options`,
answers to choose from, which are listed below it. Where the text after a clip
names a moment (“at 1:10”), the renderer places that moment's music before the question by itself.
The words around the turns come from a chat template, the tokenizer's own by default; what people
type is never read as template or as special token.
"""

import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import TemplateError
from torch import Tensor

from musilingo_core.configuration import pooled_rows
from musilingo_core.errors import ConfigError, ContextTooLong, PromptError
from musilingo_core.features import Clip
from musilingo_core.times import Span, find_spans

Message = dict[str, Any]
Said = Callable[[str], Sequence[int] | None]
IGNORED = -100  # label of a token that nothing is learnt from
LATEST_S = 86_400.0  # end of an excerpt: JSON can bring infinity and numbers beyond any float

_SLOT = re.compile("\0(\\d+)\0")  # where a message's content goes in the rendered template
_tokenizing = threading.Lock()  # a fast tokenizer keeps “split special tokens” as shared state


@dataclass(frozen=True)
class PromptFormat:
    """How a model wants music and instructions put; data of a preset.

    Attributes:
        audio_token_id: Placeholder id.
        tokens_per_row: Placeholders for one pooled feature row.
        segments: See `MusiLingoConfig.segments`.
        system: Instructions that open every conversation; empty for none. Without a system turn
            some chat templates insert one of their own.
        before_clip: Text in front of a clip that something is asked about.
        after_clip: Text behind such a clip.
        chat_template: Jinja, as transformers has it; None for the tokenizer's own. Beside `role`
            and `content` a message has `asks`, false for music that a caption is wanted of.
        replies_apart: Whether earlier replies are pieces of their own for the tokenizer, as they
            were when they were said, or run into the words around them.
    """

    audio_token_id: int
    tokens_per_row: int = 1
    segments: int | None = None
    system: str = ""
    before_clip: str = ""
    after_clip: str = "\n"
    chat_template: str | None = None
    replies_apart: bool = True


@dataclass
class Prompt:
    """A rendered conversation.

    Attributes:
        ids: Token ids, `audio_token_id` wherever music stands.
        labels: As long as `ids`; the id where the model is to speak, else `IGNORED`.
        audio_features: For each clip in order the encoder rows (rows, size) to be projected.
        dropped_turns: Oldest turns left out so that the rest fits.
    """

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    audio_features: list[Tensor] = field(default_factory=list)
    dropped_turns: int = 0

    def add(self, ids: Sequence[int], learn: int = 0) -> None:
        """Appends ids, the first `learn` of them to be learnt."""
        self.ids += ids
        self.labels += [*ids[:learn], *[IGNORED] * (len(ids) - learn)]

    def shortened(self, tokens: int) -> "Prompt":
        """This prompt up to so many tokens of its last reply, whose end is then not learnt."""
        last = next(i for i in range(len(self.labels), 0, -1) if self.labels[i - 1] != IGNORED)
        first = last
        while first and self.labels[first - 1] != IGNORED:
            first -= 1
        end = first + tokens if last - first > tokens else len(self.ids)
        return replace(self, ids=self.ids[:end], labels=self.labels[:end])


def user(text: str | None, clip_id: str | None = None) -> Message:
    """A user's message: a question, with a song in front of it if one is named.

    A song with None for a question asks for a caption, as the first stage of training does.
    """
    clip = [{"type": "clip", "clip_id": clip_id}] if clip_id else []
    words = [{"type": "text", "text": text}] if text is not None else []
    return {"role": "user", "content": [*clip, *words]}


def assistant(text: str) -> Message:
    """A model's message."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def render(
    messages: Sequence[Message],
    find_clip: Callable[[str], Clip],
    tokenizer: Any,
    form: PromptFormat,
    said: Said = lambda text: None,
) -> Prompt:
    """Renders a whole conversation.

    When the last message is the user's, the prompt ends where the model is to begin. Every
    assistant message is labelled, together with the token that ends it.

    Args:
        messages: The conversation, see the head of this file.
        find_clip: Gives the clip of an id; may raise `ClipNotFound`.
        tokenizer: A transformers tokenizer with a chat template.
        form: How the model wants it put.
        said: Gives the tokens that a reply was made of, where they are known.

    Raises:
        PromptError: A message is malformed, or names a moment the song does not have.
    """
    check(messages)
    if form.system and messages[0]["role"] != "system":
        opening = {"role": "system", "content": [{"type": "text", "text": form.system}]}
        messages = [opening, *messages]
    pieces, song = _Pieces(tokenizer, form), None
    for number, piece in enumerate(_SLOT.split(_framed(messages, tokenizer, form))):
        if number % 2 == 0:
            pieces.frame(piece)
            continue
        message = messages[int(piece)]
        if message["role"] == "assistant":
            text = "".join(part["text"] for part in message["content"])
            pieces.reply(text, said(text), last=message is messages[-1])
        else:
            song = _add_message(pieces, message, song, find_clip)
    return pieces.whole()


def _framed(messages: Sequence[Message], tokenizer: Any, form: PromptFormat) -> str:
    """The chat template's words, with numbered slots for what the messages say.

    Raises:
        ConfigError: There is no template, or it refuses these roles.
    """
    template = form.chat_template or tokenizer.chat_template
    if template is None:
        raise ConfigError("The tokenizer has no chat template; please name one.")
    try:
        framed: str = tokenizer.apply_chat_template(
            [
                {"role": m["role"], "content": f"\0{i}\0", "asks": _asks(m)}
                for i, m in enumerate(messages)
            ],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=messages[-1]["role"] == "user",
        )
    except TemplateError as error:
        raise ConfigError(f"The chat template refuses this conversation: {error}.") from error
    return framed


def fit(
    messages: Sequence[Message],
    find_clip: Callable[[str], Clip],
    tokenizer: Any,
    form: PromptFormat,
    limit: int,
    said: Said = lambda text: None,
) -> Prompt:
    """Renders as much of a conversation as fits: whole oldest turns go, never system or music.

    Args:
        messages: Ends with the user's question.
        find_clip: As in `render`.
        tokenizer: As in `render`.
        form: As in `render`.
        limit: Most tokens of the prompt.
        said: As in `render`.

    Raises:
        ContextTooLong: Instructions, music and the last question alone are too long.
    """

    def rendered(dropped: int) -> Prompt:
        return render(without_oldest(messages, dropped), find_clip, tokenizer, form, said)

    prompt = rendered(0)
    if len(prompt.ids) <= limit:
        return prompt
    turns = sum(message["role"] == "user" for message in messages)
    # The fewest dropped turns that fit, found by halving: a long chat is rendered a few times.
    options = range(1, turns)
    fewest = bisect_left(options, True, key=lambda dropped: len(rendered(dropped).ids) <= limit)
    if fewest == len(options):
        raise ContextTooLong(len(rendered(turns - 1).ids), limit)
    prompt = rendered(options[fewest])
    prompt.dropped_turns = options[fewest]
    return prompt


def without_oldest(messages: Sequence[Message], turns: int) -> list[Message]:
    """A conversation with so many turns left out; their songs move to the first one left."""
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if not turns:
        return list(messages)
    first, left = users[0], users[turns]
    gone = [part for i in users[:turns] for part in messages[i]["content"]]
    songs = [part for part in gone if part["type"] == "clip"]
    kept = messages[left] | {"content": [*songs, *messages[left]["content"]]}
    return [*messages[:first], kept, *messages[left + 1 :]]


def with_options(messages: Sequence[Message], options: Sequence[str]) -> list[Message]:
    """A conversation whose last message lists answers to choose from."""
    parts = list(messages[-1]["content"])
    text = parts.pop() if parts and parts[-1]["type"] == "text" else {"type": "text", "text": ""}
    parts.append(text | {"options": [*options]})
    return [*messages[:-1], messages[-1] | {"content": parts}]


def listed(options: Sequence[str]) -> str:
    """Options as they stand below a question."""
    return "\nOptions:" + "".join(f"\n- {option}" for option in options) if options else ""


def without_clips(messages: Sequence[Message]) -> list[Message]:
    """A conversation with its words only, as one who hears nothing would read it."""
    return [
        message | {"content": [part for part in message["content"] if part["type"] != "clip"]}
        for message in messages
    ]


def check(messages: Sequence[Message]) -> None:
    """Refuses what is not a conversation.

    Raises:
        PromptError: No messages, a wrong role or order, or a part that is neither text nor clip.
    """
    if not all(isinstance(message, dict) for message in messages):
        raise PromptError("A message is an object with role and content.")
    turns = [m.get("role") for m in messages if m.get("role") != "system"]
    wanted = ["user", "assistant"] * len(turns)
    if (
        not turns
        or turns != wanted[: len(turns)]
        or any(m.get("role") == "system" for m in messages[1:])
    ):
        raise PromptError("A conversation is the user's and the assistant's messages in turn.")
    for message in messages:
        parts = message.get("content")
        if not isinstance(parts, list) or not all(_is_part(part) for part in parts):
            raise PromptError("A message's content is a list of text and clip parts.")
        texts = [part["text"] for part in parts if part["type"] == "text"]
        asks_nothing = len(texts) < len(parts) and not texts  # music alone: for a caption
        # A model may have nothing to say, a visitor may not.
        if message["role"] == "user" and not asks_nothing and not "".join(texts).strip():
            raise PromptError("A message is empty; please write a question.")


def _is_part(part: object) -> bool:
    """Whether a thing from outside is a text or clip part that can be rendered."""
    if not isinstance(part, dict):
        return False
    if part.get("type") == "text":
        options = part.get("options", [])
        texts = [part.get("text"), *(options if isinstance(options, list) else [None])]
        return all(isinstance(text, str) and _is_unicode(text) for text in texts)
    if part.get("type") != "clip" or not isinstance(part.get("clip_id"), str):
        return False
    edges = (part.get("start_s", 0.0), part.get("end_s", LATEST_S))
    return (
        ("start_s" in part) == ("end_s" in part)
        and all(isinstance(edge, int | float) for edge in edges)
        and 0 <= edges[0] < edges[1] <= LATEST_S
    )


def _is_unicode(text: str) -> bool:
    """Whether a text holds whole characters only; JSON can bring half ones."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _asks(message: Message) -> bool:
    """Whether a message has words; music alone asks for a caption."""
    return any(part["type"] == "text" for part in message["content"])


def _add_message(
    pieces: "_Pieces", message: Message, song: Clip | None, find_clip: Callable[[str], Clip]
) -> Clip | None:
    """Appends a user's or the system's content; gives the song that later questions are about."""
    for part in message["content"]:
        if part["type"] == "clip":
            clip = find_clip(part["clip_id"])
            if "start_s" in part:
                _add_excerpt(pieces, clip, Span(part["start_s"], part["end_s"]))
            else:
                song = clip
                pieces.music(clip.features, framed=_asks(message))
            continue
        if song is not None and message["role"] == "user":
            for span in find_spans(part["text"], song.duration_s):
                _add_excerpt(pieces, song, span)
        pieces.text(part["text"] + listed(part.get("options", ())))
    return song


def _add_excerpt(pieces: "_Pieces", clip: Clip, span: Span) -> None:
    """One row for a moment, under its time."""
    pieces.text(f"{span}: ")
    pieces.music(clip.part(span.start_s, span.end_s).features.mean(0, keepdim=True))


class _Pieces:
    """A prompt in the making, of pieces that the tokenizer gets as wholes.

    A piece ends where music or a special token stands, and where a reply begins: there the model
    began, too. The last reply shares its piece with the words that end it, as in training.
    """

    def __init__(self, tokenizer: Any, form: PromptFormat) -> None:
        self._tokenizer, self._form = tokenizer, form
        self._prompt = Prompt()
        self._piece = ""
        self._spoken = False  # whether the piece is the model's own
        self._ending = False  # whether the next token is one that ends a reply

    def frame(self, words: str) -> None:
        """Appends words of the format itself, which may be special tokens."""
        specials = {
            token.content: id
            for id, token in self._tokenizer.added_tokens_decoder.items()
            if token.special
        }
        pattern = "|".join(re.escape(word) for word in sorted(specials, key=len, reverse=True))
        for number, part in enumerate(re.split(f"({pattern})", words) if pattern else [words]):
            if number % 2:
                self._end_piece()
                self._add([specials[part]])
            else:
                self.text(part)

    def text(self, words: str) -> None:
        """Appends words, whatever they say."""
        self._piece += words

    def music(self, features: Tensor, framed: bool = True) -> None:
        """Appends placeholders of a clip's music, with the format's words around it or without."""
        if framed:
            self.frame(self._form.before_clip)
        self._end_piece()
        rows = pooled_rows(len(features), self._form.segments)
        self._add([self._form.audio_token_id] * (rows * self._form.tokens_per_row))
        self._prompt.audio_features.append(features)
        if framed:
            self.frame(self._form.after_clip)

    def reply(self, text: str, ids: Sequence[int] | None, last: bool) -> None:
        """Appends what the model said, by its ids where they are known, or is to say.

        Where replies run into the words around them, only the last one is learnt.
        """
        if not (last or self._form.replies_apart):
            self.text(text)
            return
        self._end_piece()
        self._spoken, self._ending = True, False
        if last and not ids:
            self._piece = text
        else:
            self._add(ids or _tokens(self._tokenizer, text))
            self._spoken, self._ending = False, True

    def whole(self) -> Prompt:
        """The prompt, its last piece ended."""
        self._end_piece()
        return self._prompt

    def _end_piece(self) -> None:
        self._add(_tokens(self._tokenizer, self._piece))
        self._ending = self._ending or self._spoken
        self._piece, self._spoken = "", False

    def _add(self, ids: Sequence[int]) -> None:
        learnt = len(ids) if self._spoken else int(self._ending and bool(ids))
        self._ending = self._ending and not ids
        self._prompt.add(ids, learnt)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a piece of text, in which there are no special tokens, whatever it says."""
    if not text:
        return []
    with _tokenizing:
        ids: list[int] = tokenizer(
            text, add_special_tokens=False, split_special_tokens=True
        ).input_ids
    return ids
