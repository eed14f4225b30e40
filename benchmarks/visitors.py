"""What visitors wait for when several of them chat at once.

    python -m benchmarks.visitors --output benchmarks/results/visitors

Each visitor has a song and a first turn of its own behind her and asks a second question. The
questions arrive spread evenly over the time that one reply takes alone. They are answered *side by
side*, as the page does for as many as it answers at once, and *one after another*, each from its
first token to its last before the next begins. At *cold starts* all ask a first question at the
same moment. *While a song is heard* is side by side, while another visitor's long song is being
heard. Figures are medians over rounds; in a round every number of visitors and both ways are
measured one after another.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reports import write_report
from benchmarks.turns import make_song
from musilingo_core import ChatEngine, Sampling, assistant, load_engine, user
from musilingo_core.engine import hear
from musilingo_core.features import Clip, FeatureCache
from musilingo_core.prompt import Message

SIDE_BY_SIDE, IN_TURN, COLD = "side by side", "one after another", "cold starts"
HEARING = "while a song is heard"
ALONE = SIDE_BY_SIDE  # what one visitor is served, to compare with
GREEDY = Sampling(temperature=0, max_new_tokens=80)
SONG_ROWS = 60  # of features: three minutes
FIRST, SECOND = "What do you hear?", "Describe this track in detail."


def songs(engine: ChatEngine, count: int) -> list[str]:
    """Ids of as many songs that no two visitors share and nobody asked about before."""
    source = engine.encode(next(Path("assets/examples").glob("*.mp3")))
    made = []
    for _ in range(count):
        rows = source.features[torch.randint(len(source.features), (SONG_ROWS,))]
        starts = torch.arange(SONG_ROWS) * 3.0
        times = torch.stack([starts, starts + 3.0], dim=1)
        name = f"{torch.randint(2**62, ()).item():016x}"
        clip = Clip(name, 3.0 * SONG_ROWS, rows, times, source.fingerprint)
        engine.cache.put(clip)
        made.append(name)
    return made


def ask(
    engine: ChatEngine, chat: Sequence[Message], at: float, turn: AbstractContextManager[Any]
) -> tuple[float, float, float, int]:
    """Asks at a moment; gives it, the moments of the first and the last token, and their number."""
    time.sleep(max(0.0, at - time.perf_counter()))
    with turn:
        begun = time.perf_counter()
        reply = engine.reply(chat, GREEDY)
        reply.text()
    assert reply.first_token_s is not None
    return at, begun + reply.first_token_s, time.perf_counter(), reply.new_tokens


def serve(
    engine: ChatEngine, chats: Sequence[Sequence[Message]], apart_s: float, together: bool
) -> dict[str, Any]:
    """Answers chats that arrive some seconds apart; what each visitor saw."""
    turn: AbstractContextManager[Any] = nullcontext() if together else threading.Lock()
    begun = time.perf_counter() + 0.05
    with ThreadPoolExecutor(len(chats)) as pool:
        moments = [begun + number * apart_s for number in range(len(chats))]
        seen = list(pool.map(lambda c, at: ask(engine, c, at, turn), chats, moments))
    rates = [tokens / (last - first) for _, first, last, tokens in seen]
    return {
        "first_s": [first - at for at, first, _, _ in seen],
        "tokens_per_s": sum(s[3] for s in seen) / (max(s[2] for s in seen) - begun),
        "fairness": min(rates) / max(rates),
        "reply_s": statistics.median(last - at for at, _, last, _ in seen),
    }


class Enough(Exception):
    """A song need not be heard any longer."""


@contextmanager
def hearing(engine: ChatEngine, song: Path) -> Iterator[None]:
    """Meanwhile a song is heard, again and again."""
    end = threading.Event()

    def note(_: float) -> None:
        if end.is_set():
            raise Enough

    def listen() -> None:
        with suppress(Enough):
            while True:
                hear(engine.model.audio_tower, song, engine.limits, note)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def round_of(engine: ChatEngine, visitors: Sequence[int], song: Path) -> list[dict[str, Any]]:
    """A row for each number of visitors and way."""
    rows: list[dict[str, Any]] = []
    alone_s = 0.0
    for count in visitors:
        for way in (SIDE_BY_SIDE, IN_TURN, COLD, HEARING):
            engine.prefixes.clear()
            begun = [[user(FIRST, song)] for song in songs(engine, count)]
            if way != COLD:
                said = engine.replies(begun, GREEDY)
                begun = [[*c, assistant(s.text)] for c, s in zip(begun, said, strict=True)]
                begun = [[*c, user(SECOND)] for c in begun]
            apart_s = 0.0 if way == COLD else alone_s / count
            with hearing(engine, song) if way == HEARING else nullcontext():
                row = serve(engine, begun, apart_s, together=way != IN_TURN)
            alone_s = alone_s or row["reply_s"]
            rows.append({"visitors": count, "way": way} | row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Medians, and what they are beside those of one visitor."""
    lines = [
        "| way | visitors | first token, ms: half | 95 % | ÷ one visitor's | tokens a second | "
        "÷ one visitor's | slowest ÷ fastest reply |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for way in dict.fromkeys(row["way"] for row in rows):
        for count in dict.fromkeys(row["visitors"] for row in rows):
            these = [row for row in rows if row["way"] == way and row["visitors"] == count]
            least, beside = min(row["visitors"] for row in rows), COLD if way == COLD else ALONE
            ones = [row for row in rows if row["way"] == beside and row["visitors"] == least]
            half, most = ([np.quantile(r["first_s"], q) for r in these] for q in (0.5, 0.95))
            slower = statistics.median(
                m / np.quantile(one["first_s"], 0.95) for m, one in zip(most, ones, strict=True)
            )
            rates = [row["tokens_per_s"] for row in these]
            more = statistics.median(
                rate / one["tokens_per_s"] for rate, one in zip(rates, ones, strict=True)
            )
            fair = statistics.median(row["fairness"] for row in these)
            lines.append(
                f"| {way} | {count} | {1000 * statistics.median(half):.0f} "
                f"| {1000 * statistics.median(most):.0f} | {slower:.1f} "
                f"| {statistics.median(rates):.0f} | {more:.2f} | {fair:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="starter")
    parser.add_argument("--visitors", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    engine = load_engine(options.preset)
    engine.cache = FeatureCache()
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        song = make_song(10, Path(folder))
        round_of(engine, [1, 2], song)  # warms up
        for _ in range(options.rounds):
            rows += round_of(engine, options.visitors, song)
    measured = {"threads": torch.get_num_threads(), "rows": rows}
    write_report(options.output, "visitors", table(rows), measured)


if __name__ == "__main__":
    main()
