"""MusicInstruct made again by a language model behind any OpenAI-compatible endpoint.

As MusiLingo (https://arxiv.org/abs/2309.08730) did with GPT-4: the captions of
MusicCaps and a worked example go out, questions and answers come back. What comes back is checked,
asked for again when it cannot be used, and kept in a journal, so that a run that was cut off goes
on where it was. Captions are sent, sound is not.
"""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musilingo_core.data.music_instruct import KINDS, Pair, write_music_instruct
from musilingo_core.data.musiccaps import MusicCapsRow, read_musiccaps
from musilingo_core.data.published import Report, write_skipped
from musilingo_core.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from openai import OpenAI

MOST_FAILURES = 5  # in a row; then the endpoint is down or the account empty

_SYSTEM = (
    "You write training data for a model that listens to music. From the description of a clip, "
    "write questions that somebody who hears the clip may ask, and their answers. Use only what "
    "the description says, and never mention it. Never ask about lyrics, titles, names or dates "
    "that it does not give. End every question with a question mark; ask nothing twice. Reply with "
    'JSON only: {"pairs": [{"question": "...", "answer": "..."}]}.'
)
_TASKS = {
    "short": "Write {} questions about single facts, such as tempo, mood, instruments, voices or "
    "genre, each with an answer of one short sentence.",
    "long": "Write {} questions about the whole clip (what a listener hears, how the music is "
    "made, what emotion it conveys), each with an answer of several sentences.",
}
_CLIP = "A calm guitar plays slow arpeggios. A soft female voice hums along. There are no drums."
_EXAMPLES = {
    "short": {"What is the tempo?": "The tempo is slow.", "Are there any drums?": "No, none."},
    "long": {
        "What do you hear in this clip?": "A calm guitar plays slow arpeggios, and a soft female "
        "voice hums along. There are no drums.",
        "How does this music feel?": "It feels calm. The arpeggios are slow and the voice is soft.",
    },
}


def _object(**properties: object) -> dict[str, object]:
    names = list(properties)
    more = {"properties": properties, "required": names, "additionalProperties": False}
    return {"type": "object", **more}


_PAIRS = _object(
    pairs={
        "type": "array",
        "items": _object(question={"type": "string"}, answer={"type": "string"}),
    }
)
_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "pairs", "strict": True, "schema": _PAIRS},
}


@dataclass(frozen=True)
class Endpoint:
    """Whom to ask, and how much.

    Attributes:
        model: Its name at the endpoint.
        base_url: Where the endpoint is; by default `OPENAI_BASE_URL`, or OpenAI.
        key_variable: The environment variable that holds the key.
        kinds: `short`, `long` or both.
        pairs: Wanted for each clip and kind (the paper has 5.0 short and 6.0 long ones).
        attempts: How often a clip is asked for while fewer than half of its pairs can be used.
        threads: Requests at the same time.
        retries: Of one request that was refused for load (429) or failed (5xx).
        timeout_s: Of one request.
        max_rows: Of MusicCaps, from the first; all by default.
        max_cost: In the currency of the prices, for all runs into a folder together. No request is
            sent once it is reached; those under way may exceed it a little.
        input_price, output_price: Of a million tokens.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    kinds: tuple[str, ...] = KINDS
    pairs: int = 5
    attempts: int = 3
    threads: int = 4
    retries: int = 5
    timeout_s: float = 120.0
    max_rows: int | None = None
    max_cost: float | None = None
    input_price: float = 0.0
    output_price: float = 0.0

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ConfigError(f"Kinds must be among {', '.join(KINDS)}, not {self.kinds}.")
        for name in ("pairs", "attempts", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.max_cost is not None and not self.has_prices:
            raise ConfigError("A cap on the cost needs the prices of a million tokens.")

    @property
    def has_prices(self) -> bool:
        """Whether a cost can be told."""
        return self.input_price + self.output_price > 0

    def cost(self, used: Mapping[str, int]) -> float:
        """Of tokens, at the prices."""
        prices = {"input_tokens": self.input_price, "output_tokens": self.output_price}
        return sum(used[name] * price for name, price in prices.items()) / 1e6


def write_by_endpoint(table: str | Path, output: str | Path, endpoint: Endpoint) -> Report:
    """Makes MusicInstruct again, in the published form, with `journal.jsonl` and `skipped.jsonl`.

    Args:
        table: `musiccaps-public.csv`.
        output: Folder; the same again goes on where it was, and asks again for what failed.
        endpoint: Whom to ask.

    Raises:
        ConfigError: The package openai or the key is missing, the endpoint knows no such model or
            refuses the key, or the folder's journal is another model's.
        ManifestError: The table or the journal is damaged.
    """
    start = time.monotonic()
    rows = read_musiccaps(table)[: endpoint.max_rows]
    journal = Journal(Path(output) / "journal.jsonl", endpoint.model)
    jobs = [(row, kind) for row in rows for kind in endpoint.kinds]
    asking = _Asking(endpoint, journal)
    asking.run(job for job in jobs if not journal.pairs(*job))
    pairs, missing = [], []
    for row, kind in jobs:
        found = journal.pairs(row, kind)
        pairs += [Pair(row.ytid, kind, *pair, row.caption, row.is_audioset_eval) for pair in found]
        if not found:
            missing.append({"id": row.ytid, "kind": kind, "reason": journal.reason(row, kind)})
    write_music_instruct(pairs, output)
    write_skipped(missing, output)
    counts = {
        "pairs": Counter(pair.kind for pair in pairs),
        "missing": Counter(f"{row['kind']}, {row['reason']}" for row in missing),
        "rejected": journal.rejected,
    }
    facts: dict[str, Any] = {"rows": len(rows), **journal.used}
    if endpoint.has_prices:
        cost = endpoint.cost(journal.used)
        facts |= {"cost": round(cost, 4), "cost_per_row": round(cost / max(len(rows), 1), 6)}
    facts["seconds"] = round(time.monotonic() - start, 1)
    notes = (f"stopped, {asking.stopped}",) if asking.stopped else ()
    return Report(f"MusicInstruct, made by {endpoint.model}", counts, facts, notes)


class Journal:
    """What was asked and came back, one JSON object a line, only ever added to.

    Args:
        path: The file; need not exist.
        model: Whose it is.

    Raises:
        ConfigError: It is another model's.
        ManifestError: A line other than the last is damaged.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path = path
        self.rejected: Counter[str] = Counter()
        self.used: Counter[str] = Counter(input_tokens=0, output_tokens=0, retries=0)
        self._latest: dict[tuple[str, str], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self._note(entry)
                other = entry["model"]
            except (ValueError, KeyError, TypeError) as error:
                raise ManifestError(path, number, f"not a line of a journal: {error!r}") from error
            if other != model:
                raise ConfigError(f"{path} is {other}'s; please name another folder.")
        if whole != text:  # the run was cut off in the midst of a line
            path.write_bytes(whole)

    def add(self, entry: dict[str, Any]) -> None:
        """Writes an entry down at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._note(entry)

    def _note(self, entry: dict[str, Any]) -> None:
        self._latest[entry["ytid"], entry["kind"]] = entry
        self.rejected.update(entry["rejected"])
        self.used.update(entry["used"])

    def pairs(self, row: MusicCapsRow, kind: str) -> list[tuple[str, str]]:
        """The latest for a clip."""
        return self._latest.get((row.ytid, kind), {}).get("pairs", [])

    def reason(self, row: MusicCapsRow, kind: str) -> str:
        """Why there are none."""
        return self._latest.get((row.ytid, kind), {}).get("reason", "not asked yet")


Job = tuple[MusicCapsRow, str]  # a clip and a kind


class _Asking:
    """One run: asks in a few threads, and writes the journal in one."""

    def __init__(self, endpoint: Endpoint, journal: Journal) -> None:
        self.endpoint, self.journal = endpoint, journal
        self.client = _client(endpoint)
        self.structured = True  # until the endpoint says that it cannot
        self.stopped, self.failures = "", 0

    def run(self, jobs: Iterator[Job]) -> None:
        """Asks for every job, until one of the limits; what was paid for is noted in any case."""
        refusals: list[BaseException] = []
        with ThreadPoolExecutor(self.endpoint.threads) as pool:
            running: set[Future[dict[str, Any]]] = set()
            while True:
                if not refusals and not self._must_stop():
                    room = self.endpoint.threads - len(running)
                    running |= {pool.submit(self._ask, *job) for job in islice(jobs, room)}
                if not running:
                    break
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    if refusal := future.exception():
                        refusals.append(refusal)
                        continue
                    entry = future.result()
                    self.failures = self.failures + 1 if entry["failed"] else 0
                    self.journal.add(entry)
        if refusals:
            raise refusals[0]

    def _must_stop(self) -> bool:
        cap = self.endpoint.max_cost
        if cap is not None and self.endpoint.cost(self.journal.used) >= cap:
            self.stopped = f"the cost has reached {cap:g}"
        elif self.failures >= MOST_FAILURES:
            self.stopped = f"the endpoint failed {self.failures} times in a row"
        return bool(self.stopped)

    def _ask(self, row: MusicCapsRow, kind: str) -> dict[str, Any]:
        """The journal's entry for a job, with the pairs of all attempts."""
        import openai

        pairs: list[tuple[str, str]] = []
        rejected: Counter[str] = Counter()
        used: Counter[str] = Counter()
        failure = ""
        for _ in range(self.endpoint.attempts):
            try:
                text = self._send(row, kind, used)
            except (
                openai.AuthenticationError,
                openai.PermissionDeniedError,
                openai.NotFoundError,
            ) as error:
                if not used:
                    raise ConfigError(f"The endpoint refuses: {error}") from error
                failure = f"the endpoint refused: {type(error).__name__}"  # what was paid is kept
                break
            except (openai.OpenAIError, json.JSONDecodeError) as error:
                failure = f"the endpoint failed: {type(error).__name__}"
                break
            good, bad = check_reply(text, row, [question for question, _ in pairs])
            pairs += good
            rejected.update(bad)
            if 2 * len(pairs) >= self.endpoint.pairs:
                break
        reason = failure or next((name for name, _ in rejected.most_common(1)), "")
        return {
            "ytid": row.ytid,
            "kind": kind,
            "model": self.endpoint.model,
            "pairs": pairs[: self.endpoint.pairs],
            "reason": reason,
            "failed": bool(failure),
            "rejected": rejected,
            "used": used,
        }

    def _send(self, row: MusicCapsRow, kind: str, used: Counter[str]) -> str:
        """The reply's text; empty when the model refuses."""
        import openai

        create = self.client.chat.completions.with_raw_response.create
        messages: Any = _messages(row, kind, self.endpoint.pairs)
        more: Any = {"response_format": _FORMAT} if self.structured else {}
        try:
            raw = create(model=self.endpoint.model, messages=messages, **more)
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            if not more:
                raise
            raw = create(model=self.endpoint.model, messages=messages)
            self.structured = False  # it takes the same request without the format
        used["retries"] += raw.retries_taken
        reply: Any = raw.http_response.json()  # not parse(): endpoints leave fields out
        try:
            usage = reply.get("usage") or {}
            used["input_tokens"] += usage.get("prompt_tokens", 0)
            used["output_tokens"] += usage.get("completion_tokens", 0)
            return str(reply["choices"][0]["message"]["content"] or "")
        except (AttributeError, IndexError, KeyError, TypeError):
            return ""


def _client(endpoint: Endpoint) -> "OpenAI":
    try:
        from openai import OpenAI
    except ImportError as error:
        raise ConfigError("Please run: pip install openai") from error
    base_url = endpoint.base_url or os.environ.get("OPENAI_BASE_URL")
    key = os.environ.get(endpoint.key_variable) or ("none needed" if base_url else "")
    if not key:
        raise ConfigError(f"Please set {endpoint.key_variable} to your key, or name a base URL.")
    return OpenAI(
        api_key=key, base_url=base_url, max_retries=endpoint.retries, timeout=endpoint.timeout_s
    )


def _messages(row: MusicCapsRow, kind: str, pairs: int) -> list[dict[str, str]]:
    """Instructions, a worked example, and the clip."""
    task, examples = _TASKS[kind], _EXAMPLES[kind]
    reply = {"pairs": [{"question": q, "answer": a} for q, a in examples.items()]}
    clip = f"{row.caption}\nAspects: {', '.join(row.aspects)}"
    return [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": f"{task.format(len(examples))}\n\n{_CLIP}"},
        {"role": "assistant", "content": json.dumps(reply)},
        {"role": "user", "content": f"{task.format(pairs)}\n\n{clip}"},
    ]


_REFUSAL = re.compile(
    r"\b(?:I['’]m sorry|I am sorry|I can(?:no|['’])t|I am unable|as an AI|language model)\b", re.I
)
_UNKNOWING = re.compile(
    r"\b(?:caption|description|not (?:specified|mentioned|stated|provided|given)|unknown|"
    r"no information|does not (?:say|specify|mention))\b",
    re.I,
)
# What may be asked about only if the caption has a word for it.
_GUESSED = (
    (re.compile(r"\blyric|\bwords of\b|sing(?:s|ing)? about", re.I), r"lyric|about|words"),
    (re.compile(r"\btitle|\bname of\b|\bcalled\b", re.I), r"title|name|called"),
    (re.compile(r"\bartist|\bcomposer|\bwho (?:wrote|composed|performs)", re.I), r"artist|compos"),
    (re.compile(r"\balbum|\byear\b|\bdecade|\breleased\b", re.I), r"album|year|\d0s|decade"),
)
_NAME = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][\w&'’-]+|\d+")


def check_reply(
    text: str, row: MusicCapsRow, asked: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], Counter[str]]:
    """The usable pairs of a reply, and reasons for the others.

    Args:
        text: What the model wrote; JSON, also between other words or in a code fence.
        row: The clip, which must bear out what the pairs say.
        asked: Questions that there are already.
    """
    if not text.strip():
        return [], Counter({"empty or refused": 1})
    try:
        found = json.loads(text[text.find("{") : text.rfind("}") + 1])["pairs"]
        pairs = [(str(pair["question"]).strip(), str(pair["answer"]).strip()) for pair in found]
    except (ValueError, KeyError, TypeError):
        return [], Counter({"refused" if _REFUSAL.search(text) else "not the JSON asked for": 1})
    good: list[tuple[str, str]] = []
    bad: Counter[str] = Counter() if pairs else Counter({"no pairs": 1})
    seen = {_folded(question) for question in asked}
    for question, answer in pairs:
        reason = "a question twice" if _folded(question) in seen else _fault(question, answer, row)
        seen.add(_folded(question))
        if reason:
            bad[reason] += 1
        else:
            good.append((question, answer))
    return good, bad


def _folded(question: str) -> str:
    return re.sub(r"\W+", " ", question.lower()).strip()


def _fault(question: str, answer: str, row: MusicCapsRow) -> str:
    """Why a pair cannot be used, or nothing."""
    source = f"{row.caption} {' '.join(row.aspects)}".lower()
    if not question or not answer:
        return "an empty question or answer"
    if not question.endswith("?"):
        return "a question without question mark"
    if _REFUSAL.search(answer):
        return "an answer that refuses"
    if _UNKNOWING.search(f"{question} {answer}"):
        return "an answer that does not know, or tells of a caption"
    if any(asks.search(question) and not re.search(word, source) for asks, word in _GUESSED):
        return "a question that the caption cannot answer"
    names = _NAME.findall(answer) + _NAME.findall(question)
    if any(not _has_word(source, name.lower()) for name in names):
        return "a name or number that the caption does not have"
    return ""


def _has_word(text: str, word: str) -> bool:
    """Whether a text has it as a whole word, or a number in front of letters (80 in `80s`)."""
    part = r"\d" if word.isdigit() else r"\w"
    return bool(re.search(rf"(?<!{part}){re.escape(word)}(?!{part})", text))
