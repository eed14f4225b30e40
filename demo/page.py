"""How the page looks and which event goes to which handler. No logic: that is in `demo.handlers`.

`make_page` gives the Blocks object, `launch_options` everything it is launched with; tests launch
it the same way.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from demo import content, markup
from demo.examples import Example, read_examples
from demo.handlers import Handlers, Views
from demo.privacy import stay_here
from demo.session import Session
from demo.settings import Settings
from demo.theme import WAVE, WAVE_PLAYED, make_theme
from demo.view import StartView, View
from musilingo_core.errors import ConfigError
from musilingo_core.sampling import Sampling

STATIC = Path(__file__).resolve().parent / "static"
POLL_S = 1.0  # between two looks at an engine that is being loaded
MAX_SEED = 2**53 - 1  # what a browser can count to

# The tab keeps its conversation itself: sessionStorage belongs to one tab and ends with it.
KEEP = "(kept) => { if (kept) window.sessionStorage.setItem('musilingo', kept); }"
RECALL = "() => [null, window.sessionStorage.getItem('musilingo') || '']"

Updates = Iterator[list[Any]]


def make_page(handlers: Handlers, settings: Settings) -> gr.Blocks:
    """The page, ready to launch.

    Args:
        handlers: What its events do.
        settings: Limits, and where the examples are.
    """
    # Songs grow no older than this by `demo.sweeping`; Gradio adds that a page which is stopped in
    # order leaves none at all.
    age = settings.upload_age_s
    with gr.Blocks(
        title=content.TITLE, analytics_enabled=False, delete_cache=(age, age), fill_width=True
    ) as page:
        Page(page, handlers, settings)
    return page.queue(max_size=settings.queue_size, api_open=False)


def launch_options(settings: Settings) -> dict[str, Any]:
    """Arguments of ``Blocks.launch``: looks, limits, and what Gradio leaves open otherwise."""
    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "share": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "enable_monitoring": False,
        # Gradio would keep questions in the browser for good; a tab keeps its own instead.
        "run_history": False,
        "footer_links": [],
        "max_file_size": settings.max_file_bytes,
        "allowed_paths": [str(settings.examples)] if settings.examples.is_dir() else [],
        "state_session_capacity": 1000,
        "app_kwargs": {"middleware": stay_here()},
        "theme": make_theme(),
        "css_paths": [STATIC / "page.css"],
        "js": (STATIC / "page.js").read_text(encoding="utf-8"),
        "favicon_path": STATIC / "favicon.svg",
    }


class Page:
    """Lays out the components and wires them; to be made inside a Blocks.

    Args:
        blocks: What they are made inside of.
        handlers: What the events do.
        settings: Limits, and where the examples are.
    """

    def __init__(self, blocks: gr.Blocks, handlers: Handlers, settings: Settings) -> None:
        self.blocks, self.handlers, self.settings = blocks, handlers, settings
        self.session = gr.State(Session())
        self.is_ready = gr.State(False)
        self.keepsake = gr.HTML(visible="hidden")  # in the page, unlike False: it reports changes
        self.timer = gr.Timer(POLL_S)
        gr.HTML(markup.header(settings.max_file_mb), elem_id="masthead")
        self.banner = gr.HTML(elem_id="banner")
        self.again = gr.Button(content.TRY_AGAIN, visible=False, elem_id="again", variant="primary")
        gr.HTML(elem_id="local-notice")  # written by page.js only: a file too big to be sent
        with gr.Row(elem_id="room"):
            with gr.Column(elem_id="song-side"):
                self._lay_song(read_examples(settings.examples))
            with gr.Column(elem_id="chat-side"):
                self._lay_chat()
            with gr.Column(elem_id="how-side"):
                self.sampling = self._lay_sampling()
        self.foot = gr.HTML(elem_id="foot")
        self._wire()

    def _lay_song(self, examples: tuple[Example, ...]) -> None:
        gr.HTML(markup.heading(content.SONG_LABEL), elem_classes="heading")
        self.song = gr.Audio(
            label=content.SONG_LABEL,
            sources=["upload", "microphone"],
            type="filepath",
            editable=False,
            buttons=[],
            show_label=False,
            elem_id="song",
            waveform_options=gr.WaveformOptions(
                waveform_color=WAVE, waveform_progress_color=WAVE_PLAYED
            ),
        )
        formats = content.SONG_FORMATS.format(
            minutes=self.settings.max_minutes, megabytes=self.settings.max_file_mb
        )
        self.song_line = gr.HTML(elem_id="song-line")
        gr.HTML(markup.small(formats), elem_id="formats")
        self.examples: list[tuple[gr.Button, Example]] = []
        if examples:
            gr.HTML(markup.small(content.EXAMPLES_TITLE), elem_classes="heading")
            with gr.Column(elem_id="examples"):
                for example in examples:
                    button = gr.Button(f"{example.title}\n{example.what}", elem_classes="example")
                    self.examples.append((button, example))

    def _lay_chat(self) -> None:
        with gr.Row(elem_id="chat-head"):
            gr.HTML(markup.heading(content.CHAT_LABEL), elem_classes="heading")
            self.clear = gr.Button(content.NEW_CONVERSATION, size="sm", elem_id="clear")
        self.chat = gr.Chatbot(
            label=content.CHAT_LABEL,
            show_label=False,
            elem_id="chat",
            height=None,
            buttons=["copy"],
            editable="user",
            placeholder=markup.invitation(),
            # Words are shown as words: `markup.plain` escapes them; these close the rest.
            render_markdown=False,
            sanitize_html=True,
            allow_tags=False,
            latex_delimiters=[],
            allow_file_downloads=False,
            feedback_options=None,
        )
        self.notice = gr.HTML(elem_id="notice")
        with gr.Row(elem_id="suggestions"):
            self.suggestions = [
                gr.Button(words, size="sm", elem_classes="suggestion")
                for words in content.SUGGESTIONS
            ]
        self.question = gr.Textbox(
            label=content.QUESTION_LABEL,
            show_label=False,
            placeholder=content.QUESTION_HINT,
            lines=1,
            max_lines=6,
            submit_btn=True,
            stop_btn=False,
            elem_id="question",
        )

    def _lay_sampling(self) -> list[gr.components.Component]:
        default = Sampling()
        with gr.Accordion(content.SAMPLING_TITLE, open=False, elem_id="sampling"):
            return [
                _slider(content.TEMPERATURE, 0, 2, 0.05, default.temperature),
                _slider(content.TOP_P, 0.05, 1, 0.05, default.top_p),
                _slider(content.TOP_K, 0, 200, 1, default.top_k),
                _slider(content.REPETITION_PENALTY, 1, 2, 0.05, default.repetition_penalty),
                _slider(content.MAX_NEW_TOKENS, 8, 512, 8, default.max_new_tokens),
                gr.Number(
                    default.seed,
                    label=content.SEED[0],
                    info=content.SEED[1],
                    precision=0,
                    elem_id="seed",
                ),
            ]

    # Wiring. What a visitor does takes effect at once, past the queue: a song is accepted, a
    # question is in the conversation, an answer ends. In the queue, the song is heard and the
    # question is answered, each by one generator that sees for itself when nobody wants it any
    # more. Gradio's own `cancels` would find a run by its kind: a late one ends the next answer.

    def _wire(self) -> None:
        for asked in self._wire_questions():
            self._answer_after(asked)
        hearings = [self._listen_on(chosen.then) for chosen in self._wire_choice()]
        for trigger in (self._wire_start().then, self.is_ready.change):
            hearings.append(self._listen_on(trigger, show_progress="hidden"))  # nobody has asked
        for hearing in hearings:  # for a question that came while the song was heard
            self._at_once(hearing.failure, self.handlers.put_off)
            self._answer_after(hearing, after_hearing=True, show_progress="hidden")
        self._wire_between()
        self.keepsake.change(None, self.keepsake, js=KEEP)

    def _wire_questions(self) -> list[Dependency]:
        handlers = self.handlers

        def send(session: Session, keepsake: str, question: str, draft: str, *values: Any) -> View:
            return handlers.send(session, keepsake, question, draft, partial(_sampling, values))

        def retry(session: Session, keepsake: str, draft: str, *values: Any) -> View:
            return handlers.retry(session, keepsake, draft, partial(_sampling, values))

        def edit(
            edited: gr.EditData, session: Session, keepsake: str, draft: str, *values: Any
        ) -> list[Any]:
            place, question = int(edited.index), str(edited.value)  # type: ignore[arg-type]
            choose = partial(_sampling, values)
            return _updates(handlers.edit(session, keepsake, place, question, draft, choose))

        box = [self.question, *self.sampling]
        return [
            self._at_once(self.question.submit, send, self.question, *box),
            *(self._at_once(chip.click, send, chip, *box) for chip in self.suggestions),
            self._at_once(self.chat.retry, retry, *box),
            self._wire_one(self.chat.edit, edit, box, queue=False),  # Gradio looks for `EditData`
        ]

    def _wire_choice(self) -> list[Dependency]:
        def attach(example: Example) -> Callable[[Session, str], View]:
            path = str(example.path)
            return lambda session, keepsake: self.handlers.attach(session, keepsake, path)

        picked = [self._at_once(button.click, attach(each)) for button, each in self.examples]
        for example in picked:
            self._at_once(example.then, self.handlers.play)
        return [
            self._at_once(self.song.upload, self.handlers.attach, self.song),
            self._at_once(self.song.stop_recording, self.handlers.attach, self.song),
            *picked,
        ]

    def _listen_on(self, trigger: Callable[..., Dependency], **options: Any) -> Dependency:
        def listen(session: Session, keepsake: str) -> Updates:
            yield from self._paint(self.handlers.listen(session, keepsake))

        # More than once: an event that was stopped may look busy to Gradio for a moment longer.
        options |= {"trigger_mode": "multiple", **_pool("listen", self.settings.listeners)}
        return self._wire_one(trigger, listen, **options)

    def _answer_after(self, asked: Dependency, after_hearing: bool = False, **options: Any) -> None:
        def answer(session: Session, keepsake: str) -> Updates:
            yield from self._paint(self.handlers.answer(session, keepsake))

        options |= {"trigger_mode": "multiple", **_pool("reply", self.settings.replies)}
        answered = self._wire_one(asked.then, answer, **options)
        turn_away = partial(self.handlers.turn_away, after_hearing=after_hearing)
        self._at_once(answered.failure, turn_away, self.question)
        self._at_once(answered.then, self.handlers.settle, self.question)

    def _wire_between(self) -> None:
        handlers = self.handlers
        self._at_once(self.clear.click, handlers.clear)
        self._at_once(self.chat.undo, handlers.undo, self.question)
        self._at_once(self.question.stop, handlers.stop, self.question)
        self._at_once(self.song.clear, handlers.detach)

    def _wire_start(self) -> Dependency:
        handlers = self.handlers

        def restore(session: Session, keepsake: str) -> list[Any]:
            return _updates(handlers.restore(session, keepsake))

        def start() -> list[Any]:
            return _start_updates(handlers.start())

        def load_again() -> list[Any]:
            return _start_updates(handlers.load_again())

        outputs = [self.banner, self.again, self.foot, self.timer, self.is_ready]
        options: dict[str, Any] = {
            "concurrency_limit": None,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        tab = [self.session, self.keepsake]
        # Past the queue: a full one would cost a refreshed tab its conversation.
        restored = self.blocks.load(restore, tab, self.painted, js=RECALL, queue=False, **options)
        self._at_once(restored.then, handlers.play)
        # In the queue, unlike other small events: only there does a State report its change.
        self.blocks.load(start, None, outputs, **options)
        self.timer.tick(start, None, outputs, **options)
        self.again.click(load_again, None, outputs, **options)
        return restored

    def _at_once(
        self,
        trigger: Callable[..., Dependency],
        handler: Callable[..., View],
        *inputs: gr.components.Component,
    ) -> Dependency:
        """Wires an event that takes effect now, past the queue."""

        def update(*values: Any) -> list[Any]:
            return _updates(handler(*values))

        return self._wire_one(trigger, update, list(inputs), queue=False)

    def _wire_one(
        self,
        trigger: Callable[..., Dependency],
        fn: Callable[..., Any],
        inputs: list[gr.components.Component] | None = None,
        **options: Any,
    ) -> Dependency:
        """Wires an event that changes what `View` shows."""
        # Only the place in the queue shows, see page.css.
        progress = "minimal" if options.get("queue", True) else "hidden"
        return trigger(
            fn,
            [self.session, self.keepsake, *(inputs or [])],
            self.painted,
            show_progress_on=self.notice,
            api_visibility="private",
            **{"show_progress": progress, **options},
        )

    @property
    def painted(self) -> list[gr.components.Component]:
        """The components a `View` paints, in the order of `_updates`."""
        return [self.chat, self.notice, self.question, self.song_line, self.song, self.keepsake]

    @staticmethod
    def _paint(views: Views) -> Updates:
        with closing(views):
            for view in views:
                yield _updates(view)
        # At the end Gradio paints the last of these once more, when the page may be further on;
        # where there is none it empties the page.
        yield _updates(View())


def _pool(name: str, most: int) -> dict[str, Any]:
    """Options of events that share one limit on how many of them run at once."""
    return {"concurrency_id": name, "concurrency_limit": most}


def _updates(view: View) -> list[Any]:
    """A view as one update for each component of `Page.painted`."""
    question: dict[str, Any] = {} if view.question is None else {"value": view.question}
    if view.answering is not None:
        question |= {"submit_btn": not view.answering, "stop_btn": view.answering}
    return [
        gr.skip() if view.messages is None else markup.plain(view.messages),
        gr.skip() if view.notice is None else markup.line(view.notice),
        gr.update(**question),
        gr.skip() if view.song is None else markup.line(view.song),
        gr.skip() if view.player is None else view.player or None,
        gr.skip() if view.keepsake is None else view.keepsake,
    ]


def _start_updates(start: StartView) -> list[Any]:
    state = start.status.state
    return [
        markup.banner(start),
        gr.update(visible=state == "failed"),
        markup.foot(start),
        gr.update(active=state != "ready"),  # another tab may have it loaded again
        state == "ready",
    ]


def _sampling(values: tuple[Any, ...]) -> Sampling:
    """The sampling controls, in their order, as what the engine takes.

    Raises:
        ConfigError: A number is out of its range.
    """
    temperature, top_p, top_k, repetition_penalty, max_new_tokens, seed = values
    if seed is not None and not 0 <= seed <= MAX_SEED:  # Gradio would refuse it without a word
        raise ConfigError(content.SEED_OUT_OF_RANGE.format(highest=MAX_SEED))
    return Sampling(
        temperature=float(temperature),
        top_p=float(top_p),
        top_k=int(top_k),
        repetition_penalty=float(repetition_penalty),
        max_new_tokens=int(max_new_tokens),
        seed=None if seed is None else int(seed),
    )


def _slider(
    words: tuple[str, str], low: float, high: float, step: float, value: float
) -> gr.Slider:
    return gr.Slider(low, high, value, step=step, label=words[0], info=words[1])
