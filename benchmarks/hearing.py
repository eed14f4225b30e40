"""How well does a model hear? Asks it about songs it has not met and compares with what is known.

    python -m benchmarks.hearing --music test.jsonl --rendered scores-test/manifest.jsonl \
        --sung sung-test/manifest.jsonl --not-music not-music-test/manifest.jsonl \
        --probe-data training-data --probe-rendered scores-train/manifest.jsonl --output results

Each figure names its truth (`benchmarks/truths.py`): *teacher* is agreement with the encoder's own
tag heads and never “right”; *certain* and *documented* are. Beside each figure stand what the same
answers are worth for a wrong song, the answer to noise and to no music at all, the most frequent
class, and a logistic probe on the same features, which is about what the encoder allows. Accuracy
is balanced over classes; where the truth knows one class only, it is the share of that class that
was recognised, and who always answers so has 100. The interval is a bootstrap over tracks. Songs
are asked about at several lengths, cut from the middle. Below the table: what descriptions claim,
and how fluent they are. Every answer is kept in
``answers.jsonl``; the same command goes on where it was cut off.
"""

import argparse
import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.claims import claims, judge
from benchmarks.truths import MOMENT, Case, Sounds, hear_all
from musilingo_core import ChatEngine, Sampling, load_engine, user
from musilingo_core.data.dialogues import NAMES
from musilingo_core.data.facts import GENRES, Facts, Teacher
from musilingo_core.data.manifest import FeatureFiles, kept_rows, read_manifest
from musilingo_core.data.starter import rendered_facts
from musilingo_core.evaluation import Clips, weights_digest

GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=60)
FEWEST = 3  # tracks that a class needs to be counted
DRAWS = 1000  # of the bootstrap


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


ASKED = {
    "teacher": [INSTRUMENT, DESCRIPTION, GENRE, TEMPO, SINGER, SEX],
    "teacher, pushed": [SINGER, SEX],
    "documented": [GENRE],
    "documented, sung": [SINGER],
    "documented, instrumental": [SINGER],
    "judged, sung": [SINGER],
    "judged, instrumental": [SINGER],
    "certain": [INSTRUMENT, TEMPO, SINGER],
    "certain, sung": [SINGER, SEX],
    "certain, kind": [KIND],
    "certain, no sound": [KIND],
}


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


class Asker:
    """Asks an engine about cases and remembers what it said.

    Args:
        engine: Answers.
        file: JSON Lines that every answer is added to; answers of the same weights that are there
            already are not asked for again.
    """

    def __init__(self, engine: ChatEngine, file: Path) -> None:
        self._clips = Clips(engine)
        self.engine, self._file, self._weights = self._clips.engine, file, weights_digest(engine)
        self.said: dict[tuple[str, str], dict[str, Any]] = {}
        for row in kept_rows(file):
            if row["weights"] == self._weights:
                self.said[row["clip"], row["question"]] = row

    def ask(self, case: Case, question: str) -> str:
        """The answer to one question about a clip; two truths may ask the same."""
        self.ask_all(case, [question])
        return str(self.said[case.clip.clip_id, question]["answer"])

    def ask_all(self, case: Case, questions: Sequence[str]) -> None:
        """Asks what was not asked of a clip before, each question for itself, all in one batch."""
        key = case.clip.clip_id
        new = [question for question in questions if (key, question) not in self.said]
        self.engine.cache.put(case.clip)
        answers = self.engine.replies([[user(question, key)] for question in new], GREEDY)
        for question, answer in zip(new, answers, strict=True):
            row = {"track": case.track, "duration_s": round(case.clip.duration_s, 1)}
            row |= {"question": question, "answer": answer, "clip": key}
            self.said[key, question] = row | {"weights": self._weights}
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.said[key, question], ensure_ascii=False) + "\n")

    @functools.cache  # noqa: B019 – lives as long as the run
    def unheard(self, question: str, noise: bool = False) -> str:
        """The answer to the same question about noise, or without any music."""
        clip = self._clips.noise() if noise else None
        return self.engine.reply([user(question, clip)], GREEDY).text()


def wrong_songs(tracks: Sequence[str], truth: Sequence[str]) -> list[int]:
    """For each case the number of another, of another track and another class."""
    found = []
    for number, (track, name) in enumerate(zip(tracks, truth, strict=True)):
        others = [
            i
            for i, (t, n) in enumerate(zip(tracks, truth, strict=True))
            if t != track and n != name
        ]
        found.append(Random(number).choice(others) if others else number)
    return found


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
    tracks = [case.track for case in known]
    swapped = [said[i] for i in wrong_songs(tracks, truth)]
    noise, deaf = (attribute.read(asker.unheard(attribute.question, n)) for n in (True, False))
    return {
        "attribute": attribute.name,
        "tracks": len(set(tracks)),
        "classes": {name: counts[name] for name in classes},
        "balanced_accuracy": balanced(truth, said, classes),
        "interval": interval(tracks, truth, said, classes),
        "most_frequent": 1 / len(classes),
        "wrong": balanced(truth, swapped, classes) if len(classes) > 1 else None,
        "noise": balanced(truth, [noise] * len(truth), classes),
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


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--music", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--rendered", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--sung", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--not-music", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--judged", type=Path, metavar="JSONL", help="of benchmarks/judge.py")
    parser.add_argument("--probe-data", type=Path, metavar="DIR", help="of build-data")
    parser.add_argument("--probe-rendered", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--projection", type=Path, help="instead of the preset's")
    parser.add_argument("--per-album", type=int, default=3)
    parser.add_argument("--lengths", nargs="+", default=["12", "60", "whole"])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    engine = load_engine("starter", projection=options.projection)
    options.output.mkdir(parents=True, exist_ok=True)
    asker = Asker(engine, options.output / "answers.jsonl")
    sounds = hear_all(
        engine,
        options.per_album,
        options.music,
        options.rendered,
        options.sung,
        options.not_music,
        options.judged,
    )
    taught = hear_all(engine, options.per_album, [], options.probe_rendered)
    lessons = [Case(row["score"], clip, rendered_facts(row)) for row, clip in taught.scores]
    probes = Probes(options.probe_data, lessons, sounds.teacher)
    for length in options.lengths:
        ask_all(asker, sounds, length)
    rows = list(tables(asker, sounds, probes, options.lengths))
    answers = [r["answer"] for r in asker.said.values() if r["question"] == DESCRIPTION.question]
    told = [described(asker, sounds, length) for length in options.lengths]
    report = f"{markdown(rows)}\n{told_table(told)}\n{fluency_line(fluency(answers))}"
    content = {"heard": rows, "described": told, "fluency": fluency(answers)}
    (options.output / "hearing.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.output / "hearing.md").write_text(report)
    print(report)


def ask_all(asker: Asker, sounds: Sounds, length: str) -> None:
    """Asks everything there is to ask at a length, clip by clip."""
    wanted: dict[str, tuple[Case, dict[str, None]]] = {}
    for truth, cases in sounds.cases(length):
        for attribute in ASKED[truth]:
            for case in cases:
                if attribute.truth(case.facts):
                    _, questions = wanted.setdefault(case.clip.clip_id, (case, {}))
                    questions[attribute.question] = None
    for case, questions in wanted.values():
        asker.ask_all(case, list(questions))


def tables(
    asker: Asker, sounds: Sounds, probes: "Probes", lengths: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """All rows: each truth at each length, then moments."""
    for length in lengths:
        for truth, cases in sounds.cases(length):
            for attribute in ASKED[truth]:
                fewest = 2 if truth.startswith("certain") else FEWEST
                one = attribute is SINGER and not truth.startswith("teacher")
                row = measure(asker, cases, attribute, probes.of(truth, attribute), fewest, 2 - one)
                if row:
                    yield {"truth": truth, "length": length} | row
    if row := measure(asker, sounds.splices(), AT_MOMENT, None):
        yield {"truth": "teacher, spliced", "length": "whole"} | row


def described(asker: Asker, sounds: Sounds, length: str) -> dict[str, Any]:
    """What descriptions of songs claim: of the song described, and of a wrong one."""
    cases = next(found for truth, found in sounds.cases(length) if truth == "teacher")
    told = [claims(asker.ask(case, DESCRIPTION.question)) for case in cases]
    tracks, genres = [c.track for c in cases], [c.facts.genre for c in cases]
    row: dict[str, Any] = {"length": length, "clips": len(cases)}
    for name, of in (
        ("right song", range(len(cases))),
        ("wrong song", wrong_songs(tracks, genres)),
    ):
        verdicts = [[judge(c, cases[n].facts) for c in told[i]] for n, i in enumerate(of)]
        true = [sum(v is True for v in found) for found in verdicts]
        false = sum(v is False for found in verdicts for v in found)
        row[name] = {
            "true": float(np.mean(true)) if true else 0.0,
            "three_true": float(np.mean([t >= 3 for t in true])) if true else 0.0,
            "false_share": false / max(1, false + sum(true)),
        }
    return row


def told_table(rows: Sequence[dict[str, Any]]) -> str:
    """What descriptions claim, in Markdown."""
    lines = [
        "| description of | length | true things | three or more true | false of all that is "
        "decided |",
        "|---|---|--:|--:|--:|",
    ]
    for name in ("right song", "wrong song"):
        for row in rows:
            told = row[name]
            lines.append(
                f"| {name} | {row['length']} | {told['true']:.1f} | {100 * told['three_true']:.0f} "
                f"% | {100 * told['false_share']:.0f} % |"
            )
    return "\n".join(lines) + "\n"


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
        if attribute is KIND:
            return None
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
    head = "".join(f" {name} (95 %; tracks) | wrong | noise | none | probe |" for name in names)
    lines = [
        f"| truth | asked | classes (most frequent) |{head}",
        "|---|---|--:|" + "---|--:|--:|--:|--:|" * len(lengths),
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
        return " | | | | |"
    low, high = row["interval"]
    beside = (row[name] for name in ("wrong", "noise", "deaf", "probe"))
    cells = "".join(" |" if value is None else f" {100 * value:.0f} |" for value in beside)
    shown = f"**{100 * row['balanced_accuracy']:.0f}** ({100 * low:.0f}–{100 * high:.0f}; "
    return f" {shown}{row['tracks']}) |{cells}"


if __name__ == "__main__":
    main()
