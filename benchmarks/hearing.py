"""How well does a model hear? Asks it about songs it has not met and compares with what is known.

    python -m benchmarks.hearing --music test.jsonl --rendered scores-test/manifest.jsonl \
        --not-music not-music-test/manifest.jsonl --probe-data training-data \
        --probe-rendered scores-train/manifest.jsonl --output results

Each figure names its truth. *Teacher*: agreement with the encoder's own tag heads, on real songs;
never “right”. *Teacher, pushed*: the same with the features of two songs in three pushed towards a
voice as the training data's are, for hardly any free recording is sung; no real singing is heard
there. *Teacher, spliced*: two songs' stretches in a row (72 s), asked about a moment of the second.
*Certain*: rendered scores, whose instruments and tempo are known and which nobody sings; and songs
against noise, speech and near-silence. *Documented*: what title, credits or file tags of a
recording say. Beside each figure stand the most frequent answer, a deaf model (the same question
without music) and a logistic probe on the same features, which is about what the encoder allows.
Accuracy is balanced over classes; where the truth knows one class only, it is the share of that
class that was recognised, and who always answers so has 100. The interval is a bootstrap over
tracks. Songs are asked about at several lengths, cut from the middle.
"""

import argparse
import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from musilingo_core import ChatEngine, Sampling, load_engine, user
from musilingo_core.data.dialogues import NAMES
from musilingo_core.data.facts import FEMALE, GENRES, MALE, Facts, Teacher
from musilingo_core.data.manifest import FeatureFiles, read_manifest, read_sounds
from musilingo_core.data.starter import Mixer, rendered_facts, timed
from musilingo_core.features import ID_DIGITS, Clip, FeatureCache
from musilingo_core.times import find_spans

GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=60)
FEWEST = 3  # tracks that a class needs to be counted
SLACK_S = 0.1  # by which a clip may be shorter than asked for: some lack a sample
DRAWS = 1000  # of the bootstrap
WHOLE_SCORE_S = 100  # shorter rendered scores are excerpts and no whole songs
STRETCH = 12  # rows of each song in a splice of two
MOMENT = "0:54"  # the middle of the second
# What papers call a genre, in our words; others are not counted.
GENRE_NAMES = {genre: genre for genre in GENRES} | {
    "romantic classical": "classical",
    "electronica": "electronic",
    "house": "electronic",
    "electro": "electronic",
    "drum and bass": "electronic",
    "thrash metal": "metal",
}


Sound = tuple[dict[str, Any], Clip]  # a sound file's row in its list, and what was heard of it


@dataclass(frozen=True)
class Attribute:
    """Something to ask about.

    Attributes:
        name: For tables.
        question: As the visitor would ask.
        truth: Class of a clip by its facts; empty when the facts are silent.
        read: Class that an answer names; empty when it names none.
    """

    name: str
    question: str
    truth: Callable[[Facts], str]
    read: Callable[[str], str]


@dataclass(frozen=True)
class Case:
    """A clip to ask about, with what is known of it."""

    track: str
    clip: Clip
    facts: Facts


def first_of(words: dict[str, str]) -> Callable[[str], str]:
    """Reads the class whose word comes first in an answer."""
    pattern = re.compile(rf"\b({'|'.join(sorted(map(re.escape, words), key=len)[::-1])})\b", re.I)
    lower = {word.lower(): name for word, name in words.items()}

    def read(answer: str) -> str:
        found = pattern.search(answer)
        return lower[found.group().lower()] if found else ""

    return read


def read_singer(answer: str) -> str:
    """`yes`, `no` or nothing."""
    if re.search(r"\b(no|nobody|instrumental|no one)\b", answer, re.I):
        return "no"
    return "yes" if re.search(r"\b(yes|sings|singing|singer|vocals?|voice)\b", answer, re.I) else ""


def read_kind(answer: str) -> str:
    """What there is instead of music; `music` when an answer tells of something and denies none."""
    kind = first_of({"noise": "noise", "speaking": "speech", "silent": "silence"})(answer)
    if kind or not answer.strip() or "do not hear music" in answer.lower():
        return kind
    return "music"


INSTRUMENT = Attribute(
    "lead instrument",
    "What is the lead instrument?",
    lambda facts: facts.instruments[0] if facts.instruments else "",
    first_of({word: name for name, word in NAMES.items()}),
)
TEMPO = Attribute(
    "slow/fast",
    "Is it slow or fast?",
    lambda facts: facts.tempo if facts.tempo in {"slow", "fast"} else "",
    first_of({"slow": "slow", "fast": "fast"}),
)
SINGER = Attribute(
    "singer yes/no",
    "Is there a singer?",
    lambda facts: {"": "", "none": "no"}.get(facts.voice, "yes"),
    read_singer,
)
GENRE = Attribute(
    "genre",
    "What genre is this?",
    lambda facts: facts.genre,
    first_of({genre: genre for genre in GENRES}),
)
SEX = Attribute(
    "singer's sex",
    "Is the singer male or female?",
    lambda facts: facts.voice if facts.voice in {"male", "female"} else "",
    first_of({"woman": "female", "female": "female", "man": "male", "male": "male"}),
)
DESCRIPTION = replace(INSTRUMENT, name="description's instrument", question="Describe this music.")
AT_MOMENT = replace(
    INSTRUMENT, name="instrument at a moment", question=f"What do you hear at {MOMENT}?"
)
KIND = Attribute(
    "music or not",
    "What do you hear?",
    lambda facts: facts.kind,
    read_kind,
)


def balanced(truth: Sequence[str], said: Sequence[str], classes: Sequence[str]) -> float:
    """Mean over classes of the share said right."""
    shares = []
    for name in classes:
        hits = [s == name for t, s in zip(truth, said, strict=True) if t == name]
        if hits:
            shares.append(sum(hits) / len(hits))
    return float(np.mean(shares)) if shares else float("nan")


def interval(
    tracks: Sequence[str], truth: Sequence[str], said: Sequence[str], classes: Sequence[str]
) -> tuple[float, float]:
    """95 % bootstrap interval of `balanced`, drawing whole tracks."""
    dice = np.random.default_rng(0)
    groups: dict[str, list[int]] = {}
    for number, track in enumerate(tracks):
        groups.setdefault(track, []).append(number)
    names = list(groups)
    values = []
    for _ in range(DRAWS):
        drawn = [i for n in dice.integers(len(names), size=len(names)) for i in groups[names[n]]]
        values.append(balanced([truth[i] for i in drawn], [said[i] for i in drawn], classes))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def lasts(clip: Clip, seconds: float) -> bool:
    """Whether a clip is as long as that, or all but."""
    return clip.duration_s >= seconds - SLACK_S


def cut(clip: Clip, seconds: float | None) -> Clip:
    """The middle of a song; None leaves it whole. Shorter songs stay as they are."""
    if seconds is None or clip.duration_s <= seconds:
        return clip
    start = (clip.duration_s - seconds) / 2
    part = clip.part(start + 0.1, start + seconds - 0.1)
    times = part.times - part.times[0, 0]
    key = _key(clip.clip_id, seconds)
    return replace(part, clip_id=key, times=times, duration_s=float(times.max()))


def cuts(sounds: Sequence[Sound], seconds: float | None, shortest: float = 0) -> list[Sound]:
    """The middles of all sounds that are long enough; whole ones if they last the `shortest`."""
    least = shortest if seconds is None else seconds
    return [(row, cut(clip, seconds)) for row, clip in sounds if lasts(clip, least)]


class Asker:
    """Asks an engine about cases and remembers what it said."""

    def __init__(self, engine: ChatEngine) -> None:
        clips = FeatureCache(memory_bytes=2_000_000_000)
        self.engine = ChatEngine(engine.model, engine.processor, engine.name, clips)
        self.teacher = Teacher(engine.model.audio_tower)
        self.said: dict[tuple[str, str], dict[str, Any]] = {}

    def ask(self, case: Case, question: str) -> str:
        """The answer to one question about a clip; two truths may ask the same."""
        key = (case.clip.clip_id, question)
        if key not in self.said:
            self.engine.cache.put(case.clip)
            answer = self.engine.reply([user(question, case.clip.clip_id)], GREEDY).text()
            row = {"track": case.track, "duration_s": round(case.clip.duration_s, 1)}
            self.said[key] = row | {"question": question, "answer": answer}
        return str(self.said[key]["answer"])

    @functools.cache  # noqa: B019 – lives as long as the run
    def deaf(self, question: str) -> str:
        """The answer to the same question without music."""
        return self.engine.reply([user(question)], GREEDY).text()


def measure(
    asker: Asker,
    cases: Sequence[Case],
    attribute: Attribute,
    probe: Callable[[Sequence[Case]], list[str]] | None,
    fewest: int = FEWEST,
    fewest_classes: int = 2,
) -> dict[str, Any] | None:
    """One row of the table; None when too little is known.

    Args:
        asker: Answers.
        cases: What to ask about; those whose facts are silent are left out.
        attribute: What to ask.
        probe: Names a class for each case; None where there is no probe.
        fewest: Clips that a class needs; smaller classes are left out.
        fewest_classes: Classes that must remain; with one, accuracy is that class's recall.
    """
    known = [case for case in cases if attribute.truth(case.facts)]
    counts = Counter(attribute.truth(case.facts) for case in known)
    classes = sorted(name for name, count in counts.items() if count >= fewest)
    known = [case for case in known if attribute.truth(case.facts) in classes]
    if len(classes) < fewest_classes:
        return None
    truth = [attribute.truth(case.facts) for case in known]
    said = [attribute.read(asker.ask(case, attribute.question)) for case in known]
    deaf = attribute.read(asker.deaf(attribute.question))
    tracks = [case.track for case in known]
    return {
        "attribute": attribute.name,
        "tracks": len(set(tracks)),
        "classes": {name: counts[name] for name in classes},
        "balanced_accuracy": balanced(truth, said, classes),
        "interval": interval(tracks, truth, said, classes),
        "most_frequent": 1 / len(classes),
        "deaf": balanced(truth, [deaf] * len(truth), classes),
        "probe": balanced(truth, probe(known), classes) if probe else None,
        "confusion": Counter(f"{t} → {s or '?'}" for t, s in zip(truth, said, strict=True)),
    }


def train_probe(
    rows: Sequence[tuple[torch.Tensor, str]],
) -> Callable[[Sequence[Case]], list[str]] | None:
    """A logistic regression from a clip's mean feature row to a class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = [label for _, label in rows]
    if len(set(labels)) < 2:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(torch.stack([row for row, _ in rows]).numpy(), labels)

    def predict(cases: Sequence[Case]) -> list[str]:
        means = torch.stack([case.clip.features.mean(0) for case in cases])
        return [str(label) for label in model.predict(means.numpy())]

    return predict


def chosen(rows: Sequence[dict[str, Any]], per_album: int) -> list[dict[str, Any]]:
    """At most so many tracks of an album; tracks documented as sung always."""
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        seen[row["album"]] += 1
        if seen[row["album"]] <= per_album or row.get("documented", {}).get("vocal"):
            kept.append(row)
    return kept


def documented(row: dict[str, Any]) -> Facts:
    """Facts that a recording's own papers state."""
    known = row.get("documented", {})
    voice = known.get("vocal")
    sex = known.get("singer", "some")
    return Facts(
        instruments=(known["instrument"],) if known.get("instrument") in NAMES else (),
        genre=GENRE_NAMES.get(known.get("genre", ""), ""),
        voice="" if voice is None else sex if voice else "none",
    )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--music", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--rendered", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--not-music", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--probe-data", type=Path, metavar="DIR", help="of build-data")
    parser.add_argument("--probe-rendered", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--projection", type=Path, help="instead of the preset's")
    parser.add_argument("--per-album", type=int, default=3)
    parser.add_argument("--lengths", nargs="+", default=["12", "60", "whole"])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    engine = load_engine("starter", projection=options.projection)
    asker = Asker(engine)
    rows = list(tables(asker, engine, options))
    answers = [r["answer"] for r in asker.said.values() if r["question"] == DESCRIPTION.question]
    report = f"{markdown(rows)}\n{fluency_line(fluency(answers))}"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "hearing.json").write_text(json.dumps(rows, indent=1) + "\n")
    (options.output / "hearing.md").write_text(report)
    said = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asker.said.values())
    (options.output / "answers.jsonl").write_text(said)
    print(report)


def tables(
    asker: Asker, engine: ChatEngine, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """All rows: each truth at each length, then moments."""

    def heard(rows: Iterable[dict[str, Any]]) -> list[Sound]:
        return [(row, engine.encode(row["path"])) for row in rows]

    music = chosen([row for path in options.music for row in read_sounds(path)], options.per_album)
    songs = heard(row for row in music if row["duration_s"] <= 1200)
    scores = heard(row for path in options.rendered for row in read_sounds(path))
    other = heard(row for path in options.not_music for row in read_sounds(path))
    taught = heard(row for path in options.probe_rendered for row in read_sounds(path))
    lessons = [Case(row["path"], clip, rendered_facts(row)) for row, clip in taught]
    probes = Probes(options.probe_data, lessons, asker.teacher)
    voiced = sung(songs, asker.teacher) if songs else []

    def tagged(sounds: Sequence[Sound]) -> list[Case]:
        return [Case(row["path"], c, asker.teacher.facts(c.features)) for row, c in sounds]

    for length in options.lengths:
        seconds = None if length == "whole" else float(length)
        real = tagged(cuts(songs, seconds))
        pushed = tagged(cuts(voiced, seconds))
        known = [Case(row["path"], c, documented(row)) for row, c in cuts(songs, seconds)]
        # Papers say that a song is sung, not that every second of it is.
        voices = known if seconds is None else []
        rendered = cuts(scores, seconds, WHOLE_SCORE_S)
        certain = [Case(row["score"], c, rendered_facts(row)) for row, c in rendered]
        kinds = [Case(row["path"], c, Facts(kind=row["kind"])) for row, c in cuts(other, seconds)]
        for truth, cases, attributes, fewest_classes in (
            ("teacher", real, [INSTRUMENT, DESCRIPTION, GENRE, TEMPO, SINGER, SEX], 2),
            ("teacher, pushed", pushed, [SINGER, SEX], 2),
            ("documented", known, [GENRE], 2),
            ("documented", voices, [SINGER], 1),
            ("certain", certain, [INSTRUMENT, TEMPO], 2),
            ("certain", certain, [SINGER], 1),
            ("certain", kinds + real, [KIND], 2),
        ):
            for attribute in attributes:
                fewest = 2 if truth == "certain" else FEWEST
                probe = probes.of(truth, attribute)
                row = measure(asker, cases, attribute, probe, fewest, fewest_classes)
                if row:
                    yield {"truth": truth, "length": length} | row
    spliced = list(splices(songs, asker.teacher))
    if row := measure(asker, spliced, AT_MOMENT, None):
        yield {"truth": "teacher, spliced", "length": "whole"} | row


def sung(songs: Sequence[Sound], teacher: Teacher) -> list[Sound]:
    """The songs again: every third as it is, the others pushed towards a man's or woman's voice."""
    mixer = Mixer([clip.features for _, clip in songs], teacher, Random(0))
    made = []
    for number, (row, clip) in enumerate(songs):
        if tags := ((), MALE, FEMALE)[number % 3]:
            rows = mixer.push(clip.features, tags).clamp(-mixer.limit, mixer.limit)
            clip = replace(clip, clip_id=_key(clip.clip_id, "sung"), features=rows)
        made.append((row, clip))
    return made


def splices(songs: Sequence[Sound], teacher: Teacher) -> Iterator[Case]:
    """Two songs' stretches in a row, lead instruments differing, facts of the second's middle."""
    long = [(row, clip) for row, clip in songs if len(clip.features) >= STRETCH]
    leads = [teacher.facts(clip.features[:STRETCH]).instruments[0] for _, clip in long]
    for number, (row, clip) in enumerate(long):
        others = [i for i, lead in enumerate(leads) if lead != leads[number]]
        if not others:
            continue
        _, before = long[others[number % len(others)]]
        rows = torch.cat([before.features[:STRETCH], clip.features[:STRETCH]])
        whole = timed(rows, _key(before.clip_id, clip.clip_id), clip.fingerprint)
        (span,) = find_spans(AT_MOMENT.question, whole.duration_s)
        part = whole.part(span.start_s, span.end_s)
        yield Case(row["path"], whole, teacher.facts(part.features))


def _key(*parts: object) -> str:
    """An id for a clip that is no file."""
    return sha256(" ".join(map(str, parts)).encode()).hexdigest()[:ID_DIGITS]


class Probes:
    """Logistic probes: the teacher's words learnt from the training data, certain ones from scores.

    Args:
        folder: What `musilingo build-data starter` wrote; None for no probes of its words.
        scores: Rendered scores of the training split.
        teacher: Labels the training data.
    """

    def __init__(self, folder: Path | None, scores: Sequence[Case], teacher: Teacher) -> None:
        self.known = {"certain": [(case.clip.features.mean(0), case.facts) for case in scores]}
        self.known["teacher"] = []
        self._made: dict[tuple[str, Callable[[Facts], str]], Any] = {}
        files = FeatureFiles()
        examples = read_manifest(folder / "manifest.jsonl", "train") if folder else ()
        for clip in {e.clip: None for e in examples if e.source in {"real", "made"}}:
            features = files.get(clip).features
            self.known["teacher"].append((features.mean(0), teacher.facts(features)))

    def of(self, truth: str, attribute: Attribute) -> Any:
        """The probe for an attribute; documented words are the teacher's."""
        # No score is sung, so the teacher must show the probe what a singer is.
        certain = truth == "certain" and attribute is not SINGER
        key = ("certain" if certain else "teacher", attribute.truth)
        if key not in self._made:
            rows = [(mean, attribute.truth(f)) for mean, f in self.known[key[0]]]
            self._made[key] = train_probe([(mean, label) for mean, label in rows if label])
        return self._made[key]


def fluency(answers: Sequence[str]) -> dict[str, int]:
    """How many answers, how many different ones, how many in which four words in a row recur."""
    return {
        "asked": len(answers),
        "distinct": len(set(answers)),
        "repeating": sum(map(_repeats, answers)),
    }


def _repeats(answer: str) -> bool:
    words = re.findall(r"[\w'’-]+", answer.lower())
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(set(runs)) < len(runs)


def fluency_line(counts: dict[str, int]) -> str:
    """For under the table."""
    return (
        f"“{DESCRIPTION.question}” was asked of {counts['asked']} clips: {counts['distinct']} "
        f"different answers, {counts['repeating']} in which four words in a row recur.\n"
    )


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table, per cent: a line for each thing asked, three columns for each length."""
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    names = [name if name == "whole" else f"{name} s" for name in lengths]
    head = "".join(f" {name} (95 %; tracks) | deaf | probe |" for name in names)
    lines = [
        f"| truth | asked | classes (most frequent) |{head}",
        "|---|---|--:|" + "---|--:|--:|" * len(lengths),
    ]
    asked: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        asked.setdefault((row["truth"], row["attribute"]), {})[row["length"]] = row
    for (truth, attribute), found in asked.items():
        counts = dict.fromkeys(map(_classes, found.values()))
        cells = "".join(_cells(found.get(length)) for length in lengths)
        lines.append(f"| {truth} | {attribute} | {', '.join(counts)} |{cells}")
    return "\n".join(lines) + "\n"


def _classes(row: dict[str, Any]) -> str:
    """How many classes there are, or the name of the only one."""
    names = list(row["classes"])
    shown = len(names) if len(names) > 1 else names[0]
    return f"{shown} ({100 * row['most_frequent']:.0f})"


def _cells(row: dict[str, Any] | None) -> str:
    if row is None:
        return " | | |"
    low, high = row["interval"]
    probe = "" if row["probe"] is None else f"{100 * row['probe']:.0f}"
    return (
        f" **{100 * row['balanced_accuracy']:.0f}** ({100 * low:.0f}–{100 * high:.0f}; "
        f"{row['tracks']}) | {100 * row['deaf']:.0f} | {probe} |"
    )


if __name__ == "__main__":
    main()
