"""What a turn of a conversation costs, turn after turn.

    python -m benchmarks.turns --output benchmarks/results/turns

Ten questions about one song, answered side by side, turn by turn, in four ways:

a. *ours*: the song was heard before the first, and states of earlier prompts are reused;
b. *whole prompt*: read anew each turn, as the original demo does;
c. *everything*: the song is decoded and heard anew each turn, too, as most demos do;
d. *limit*: the bare language model, whose cache is warm, reads the new words and nothing else.

All are asked the same; the conversation goes on with what ours answers. Each figure is the median
over repetitions, ratios are medians of ratios of the same turn and repetition. Songs are made of
the page's example clips, repeated.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import DynamicCache

from benchmarks.reports import write_report
from musilingo_core import ChatEngine, Sampling, assistant, load_engine, user
from musilingo_core.audio import AudioLimits, read_blocks
from musilingo_core.features import FeatureCache
from musilingo_core.prefix_cache import PrefixCache, position_keys
from musilingo_core.prompt import Message

EXAMPLES = Path("assets/examples")
RATE = 16_000  # Hz
GREEDY = Sampling(temperature=0, max_new_tokens=60)
QUESTIONS = (
    "What do you hear?", "Which instruments are played?", "Is there a singer?", "How fast is it?",
    "What makes you say that?", "What is the mood?", "Are there drums?", "Where could I play this?",
    "What happens at 0:40?", "Describe it once more.",
)  # fmt: skip
WAYS = ("ours", "whole prompt", "everything", "limit")
Timed = tuple[float, float, str, int]  # seconds to the first token and to the last; what was said


def make_song(minutes: float, folder: Path) -> Path:
    """A song of a length: the example clips one after another, again and again."""
    blocks = [
        block
        for clip in sorted(EXAMPLES.glob("*.mp3"))
        for block in read_blocks(clip, RATE, AudioLimits())
    ]
    samples = np.concatenate(blocks)
    path = folder / f"{minutes:g}-minutes.flac"
    soundfile.write(path, np.resize(samples, int(minutes * 60 * RATE)), RATE)
    return path


def ask(engine: ChatEngine, chat: Sequence[Message], path: Path | None) -> Timed:
    """An engine's answer about a song, which is to be heard first where a file is given."""
    begun = time.perf_counter()
    if path:
        engine.encode(path)
    before_s = time.perf_counter() - begun
    reply = engine.reply(chat, GREEDY)
    text = reply.text()
    assert reply.first_token_s is not None
    return before_s + reply.first_token_s, time.perf_counter() - begun, text, reply.new_tokens


def sharing(engine: ChatEngine, cache: FeatureCache, prefixes: PrefixCache) -> ChatEngine:
    """The same model with other memories; it knows the tokens of replies all the same."""
    other = ChatEngine(
        engine.model,
        engine.processor,
        cache=cache,
        prefixes=prefixes,
        decoder=engine.decoder,
    )
    other.said, other.limits = engine.said, engine.limits
    return other


@torch.inference_mode()
def bare(engine: ChatEngine, chat: Sequence[Message], text: str, tokens: int) -> Timed:
    """The bare language model: of the prompt it has read all but the last question's words.

    Args:
        engine: Whose model it is.
        chat: Up to the question.
        text: What it is known to answer.
        tokens: In so many tokens.
    """
    prompt = engine.processor.fit(chat, engine.clip, engine.context_tokens, engine.said)
    begun = 0
    if known := chat[:-1]:
        room = engine.context_tokens
        begun = len(engine.processor.fit(known, engine.clip, room, engine.said).ids)
    cache = DynamicCache(config=engine.model.config.text_config)
    embeds = engine._embeds(prompt)

    def read(embeds: torch.Tensor) -> torch.Tensor:
        outputs = engine.model.language_model(
            inputs_embeds=embeds, cache=cache, use_cache=True, logits_to_keep=1
        )
        return outputs.logits[:, -1:].argmax(-1)

    if begun:
        read(embeds[:, :begun])
    start = time.perf_counter()
    token = read(embeds[:, begun:])
    first_s = time.perf_counter() - start
    for _ in range(tokens):
        token = read(engine.model.get_input_embeddings()(token))
    return first_s, time.perf_counter() - start, text, tokens


def strayed(ours: ChatEngine, whole: ChatEngine, chat: Sequence[Message]) -> float:
    """How far logits stray after a prompt whose beginning was known, in standard deviations."""
    prompt = ours.processor.fit(chat, ours.clip, ours.context_tokens, ours.said)
    keys = position_keys(prompt, ours.processor.form)
    known, anew = (engine._read(prompt, keys)[0] for engine in (ours, whole))
    return float((known - anew).abs().max() / anew.std())


def answer_all(engine: ChatEngine, path: Path) -> Iterator[dict[str, Any]]:
    """A row for each turn and way: the same conversation, in turn."""
    ours = sharing(engine, engine.cache, PrefixCache())
    whole = sharing(engine, engine.cache, PrefixCache(0))
    song, chat = engine.encode(path).clip_id, list[Message]()
    for turn, question in enumerate(QUESTIONS, start=1):
        chat.append(user(question, None if chat else song))
        everything = sharing(engine, FeatureCache(), PrefixCache(0))
        told = {
            "ours": ask(ours, chat, None),
            "whole prompt": ask(whole, chat, None),
            "everything": ask(everything, chat, path),
        }
        told["limit"] = bare(engine, chat, *told["ours"][2:])
        text, apart = told["ours"][2], strayed(ours, whole, chat)
        for way, (first_s, total_s, said, _) in told.items():
            row = {"turn": turn, "way": way, "first_s": first_s, "total_s": total_s}
            yield row | {"alike": said == text, "strayed": apart}
        chat.append(assistant(text))


def table(rows: Sequence[dict[str, Any]], minutes: Sequence[float]) -> str:
    """Medians of the second turn and later, and how they compare."""
    lines = [
        "| song | way | first token, ms | whole turn, ms | first token ÷ limit | ÷ everything |",
        "|---|---|--:|--:|--:|--:|",
    ]
    later = [row for row in rows if row["turn"] > 1]
    for length in minutes:
        for way in WAYS:
            this = {"minutes": length, "way": way}
            part = [row for row in later if row["minutes"] == length and row["way"] == way]
            cells = [
                f"{1000 * statistics.median(row[name] for row in part):.0f}"
                for name in ("first_s", "total_s")
            ]
            for other in ("limit", "everything"):
                cells.append(f"{ratio(later, this, this | {'way': other}):.3g}")
            lines.append(f"| {length:g} min | {way} | {' | '.join(cells)} |")
    alike = [row["alike"] for row in rows if row["way"] == "whole prompt"]
    apart = [row["strayed"] for row in later]
    lines += [
        "",
        f"Of {len(alike)} answers {sum(alike)} are the same where the prompt is read anew. Logits "
        f"after it differ by {statistics.median(apart):.3f} of their standard deviation (the most "
        f"of all words, median over turns; at most {max(apart):.3f}).",
    ]
    lines += ["", "| first token of ours | ratio |", "|---|--:|"]
    ours = {"way": "ours"}
    for length in minutes:
        turn = ours | {"minutes": length}
        grown = ratio(rows, turn | {"turn": len(QUESTIONS)}, turn | {"turn": 2})
        lines.append(f"| {length:g} min, turn {len(QUESTIONS)} ÷ turn 2 | {grown:.2f} |")
    longer = ratio(later, ours | {"minutes": max(minutes)}, ours | {"minutes": min(minutes)})
    lines.append(
        f"| {max(minutes):g} min ÷ {min(minutes):g} min, turn 2 and later | {longer:.2f} |"
    )
    return "\n".join(lines) + "\n"


def ratio(rows: Sequence[dict[str, Any]], one: dict[str, Any], other: dict[str, Any]) -> float:
    """Median ratio of first-token times, pair by pair, of rows that agree with two descriptions."""
    first, second = (
        [row["first_s"] for row in rows if all(row[k] == v for k, v in wanted.items())]
        for wanted in (one, other)
    )
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="starter")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    engine = load_engine(options.preset)
    engine.cache = FeatureCache()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for repetition in range(options.repetitions + 1):  # the first warms up
            for minutes in options.minutes:
                path = make_song(minutes, Path(folder))
                told = [row | {"minutes": minutes} for row in answer_all(engine, path)]
                rows += told if repetition else []
    measured = {"threads": torch.get_num_threads(), "rows": rows}
    write_report(options.output, "turns", table(rows, options.minutes), measured)


if __name__ == "__main__":
    main()
