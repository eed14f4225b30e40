"""How well does a model hear? Asks it about songs it has not met and compares with what is known.

    python -m benchmarks.hearing --music test.jsonl --rendered scores-test/manifest.jsonl \
        --sung sung-test/manifest.jsonl --not-music not-music-test/manifest.jsonl \
        --probe-data training-data --probe-rendered scores-train/manifest.jsonl --output results

Each figure names its truth (`benchmarks/truths.py`): *teacher* is agreement with the encoder's own
tag heads and never “right”; *certain* and *documented* are. Accuracy is balanced over classes;
where the truth knows one class only, it is the share of that class that was recognised, and who
always answers so has 100. The interval is a bootstrap over tracks (see `truths.Case`), whose number
stands beside it. Beside each figure stand:

- *constant*: what one answer to everything is worth, 1/k of k classes;
- *wrong*: what the same answers are worth for another track, of whatever class;
- *noise*, *none*: what the answer to noise, or without music, is worth for all of them; one answer
  is worth at most the constant;
- *probe*: a logistic regression on the same features, about what the encoder allows.

Songs are asked about at several lengths, cut from the middle. Below the table: what descriptions
claim, by the teacher, and how many answers run on or repeat themselves. Every answer is kept in
``answers.jsonl``; the same command goes on where it was cut off.
"""

import argparse
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.claims import claims, first_of, independent, judge
from benchmarks.probe import FOLDS, best_fit, rated
from benchmarks.truths import MOMENT, Case, Sounds, hear_all, scored
from musilingo_core import ChatEngine, load_engine, user
from musilingo_core.data.facts import Facts, Teacher
from musilingo_core.data.manifest import FeatureFiles, kept_rows, read_manifest
from musilingo_core.evaluation import GREEDY, Clips, commit, run_digest
from musilingo_core.metrics import balanced_accuracy, bootstrap

LESSONS = 2000  # clips that teach the probe
FEWEST = 3  # clips that a class needs to be counted
STRENGTHS = (1e-3, 1e-2, 1e-1)  # of the probe


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


def sings(voice: str) -> str:
    """`yes`, `no` or nothing, from a voice as `Facts` have it."""
    return {"": "", "none": "no"}.get(voice, "yes")


def read_kind(answer: str) -> str:
    """What there is instead of music; `music` when an answer tells of something and denies none."""
    kind = first_of("kind")(answer)
    no_music = re.search(r"\b(no|not|\w+n['’]t)( hear)?( any)? music\b", answer, re.I)
    return kind if kind or no_music or not answer.strip() else "music"


INSTRUMENT = Attribute(
    "lead instrument",
    "What is the lead instrument?",
    lambda facts: facts.instruments[0] if facts.instruments else "",
    first_of("instrument"),
)
TEMPO = Attribute(
    "slow/fast",
    "Is it slow or fast?",
    lambda facts: facts.tempo if facts.tempo in {"slow", "fast"} else "",
    first_of("tempo"),
)
SINGER = Attribute(
    "singer yes/no",
    "Is there a singer?",
    lambda facts: sings(facts.voice),
    lambda answer: sings(first_of("voice")(answer)),
)
GENRE = Attribute(
    "genre",
    "What genre is this?",
    lambda facts: facts.genre,
    first_of("genre"),
)
SEX = Attribute(
    "singer's sex",
    "Is the singer male or female?",
    lambda facts: facts.voice if facts.voice in {"male", "female"} else "",
    first_of("voice"),
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


class Asker:
    """Asks an engine about cases and remembers what it said.

    Args:
        engine: Answers.
        file: JSON Lines that every answer is added to; answers of the same `run_digest` that are
            there already are not asked for again.
    """

    def __init__(self, engine: ChatEngine, file: Path) -> None:
        self._clips = Clips(engine)
        self.engine, self._file = self._clips.engine, file
        self._run = {"run": run_digest(engine, GREEDY), "commit": commit()}
        self.said: dict[tuple[str, str], dict[str, Any]] = {}
        for row in kept_rows(file):
            if row.get("run") == self._run["run"]:
                self.said[row["clip"], row["question"]] = row

    def ask(self, case: Case, question: str) -> str:
        """The answer to one question about a clip; two truths may ask the same."""
        self.ask_all(case, [question])
        return str(self.said[case.clip.clip_id, question]["answer"])

    def ask_all(self, case: Case, questions: Sequence[str]) -> None:
        """Asks what was not asked of a clip before, each question for itself, all in one batch."""
        self.engine.cache.put(case.clip)
        about = {"track": case.track, "duration_s": round(case.clip.duration_s, 1)}
        self._ask(case.clip.clip_id, questions, about)

    def unheard(self, question: str, noise: bool = False) -> str:
        """The answer to the same question about noise, or without any music."""
        key = self._clips.noise() if noise else ""
        self._ask(key, [question], {"track": "noise" if noise else ""})
        return str(self.said[key, question]["answer"])

    def _ask(self, key: str, questions: Sequence[str], about: dict[str, Any]) -> None:
        new = [question for question in questions if (key, question) not in self.said]
        replies = self.engine.replies([[user(question, key)] for question in new], GREEDY)
        for question, said in zip(new, replies, strict=True):
            row = about | {"question": question, "answer": said.text, "finished": said.finished}
            self.said[key, question] = row | {"clip": key} | self._run
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.said[key, question], ensure_ascii=False) + "\n")


def wrong_songs(tracks: Sequence[str]) -> list[int]:
    """For each case the number of one of another track; empty where there is one track only."""
    others = [[n for n, other in enumerate(tracks) if other != track] for track in tracks]
    return [Random(number).choice(some) for number, some in enumerate(others) if some]


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
    wrong = [said[i] for i in wrong_songs(tracks)] if len(classes) > 1 else []
    noise, deaf = (attribute.read(asker.unheard(attribute.question, n)) for n in (True, False))
    value, interval = rated(truth, said, tracks)
    return {
        "attribute": attribute.name,
        "tracks": len(set(tracks)),
        "classes": {name: counts[name] for name in classes},
        "balanced_accuracy": value,
        "interval": interval,
        "constant": 1 / len(classes),
        "wrong": balanced_accuracy(truth, wrong) if wrong else None,
        "noise": balanced_accuracy(truth, [noise] * len(truth)),
        "deaf": balanced_accuracy(truth, [deaf] * len(truth)),
        "probe": balanced_accuracy(truth, probe(known)) if probe else None,
        "confusion": Counter(f"{t} → {s or '?'}" for t, s in zip(truth, said, strict=True)),
    }


def train_probe(
    lessons: Sequence[tuple[torch.Tensor, str, str]],
) -> Callable[[Sequence[Case]], list[str]] | None:
    """A logistic regression from a clip's mean feature row to a class; None of fewer than two.

    Args:
        lessons: Mean row, class and work of each clip; a class needs a clip for each fold.
    """
    counts = Counter(label for _, label, _ in lessons)
    lessons = [lesson for lesson in lessons if counts[lesson[1]] >= FOLDS]
    if len({label for _, label, _ in lessons}) < 2:
        return None
    means, labels, works = zip(*lessons, strict=True)
    model, _ = best_fit(torch.stack(means).double().numpy(), labels, works, STRENGTHS)

    def predict(cases: Sequence[Case]) -> list[str]:
        means = torch.stack([case.clip.features.mean(0) for case in cases])
        return [str(label) for label in model.predict(means.double().numpy())]

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
    parser.add_argument("--preset", default="starter")
    parser.add_argument("--projection", type=Path, help="instead of the preset's")
    parser.add_argument("--per-album", type=int, default=3)
    parser.add_argument("--lengths", nargs="+", default=["12", "60", "whole"])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    engine = load_engine(options.preset, projection=options.projection)
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
    lessons = [scored(row, clip) for row, clip in taught.scores]
    probes = Probes(options.probe_data, lessons, sounds.teacher)
    for length in options.lengths:
        ask_all(asker, sounds, length)
    rows = list(tables(asker, sounds, probes, options.lengths))
    told = [described(asker, sounds, length) for length in options.lengths]
    fluent = fluency(asker.said.values())
    content = {
        "command": shlex.join(["python", "-m", "benchmarks.hearing", *sys.argv[1:]]),
        "commit": ", ".join(dict.fromkeys(row["commit"] for row in asker.said.values())),
        "heard": rows,
        "described": told,
        "fluency": fluent,
    }
    made = f"```bash\n{content['command']}\n```\n\nAnswers of commit {content['commit']}.\n"
    report = "\n".join([markdown(rows), told_table(told), fluency_table(fluent), made])
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
    told = [independent(claims(asker.ask(case, DESCRIPTION.question))) for case in cases]
    tracks = [case.track for case in cases]
    row: dict[str, Any] = {"length": length, "clips": len(cases)}
    for name, of in (("right song", range(len(cases))), ("wrong song", wrong_songs(tracks))):
        if not of:
            continue
        verdicts = [[judge(c, cases[n].facts) for c in told[i]] for n, i in enumerate(of)]
        true = np.array([found.count(True) for found in verdicts])
        false = np.array([found.count(False) for found in verdicts])
        most = max(1, int(true.max()))
        row[name] = {
            "true": [most * part for part in _ratio(true, np.full(len(of), most), tracks)],
            "three_true": _ratio(true >= 3, np.ones(len(of)), tracks),
            "false_share": _ratio(false, true + false, tracks),
        }
    return row


def _ratio(
    above: NDArray[Any], below: NDArray[Any], tracks: Sequence[str]
) -> tuple[float, float, float]:
    """A sum over clips by another, and its interval."""

    def ratio(drawn: NDArray[np.intp]) -> float:
        return float(above[drawn].sum() / max(1, below[drawn].sum()))

    return ratio(np.arange(len(above))), *bootstrap(ratio, tracks)


def told_table(rows: Sequence[dict[str, Any]]) -> str:
    """What descriptions claim, in Markdown."""
    lines = [
        "| truth | description of | length | true things (95 %) | three or more true, % | false of "
        "all that is decided, % |",
        "|---|---|---|--:|--:|--:|",
    ]
    for name in ("right song", "wrong song"):
        for row in (row for row in rows if name in row):
            things, low, high = row[name]["true"]
            shares = " | ".join(_per_cent(row[name][of]) for of in ("three_true", "false_share"))
            things = f"{things:.1f} ({low:.1f}–{high:.1f})"
            lines.append(f"| teacher | {name} | {row['length']} | {things} | {shares} |")
    return "\n".join(lines) + "\n"


def _per_cent(found: Sequence[float]) -> str:
    value, low, high = (100 * part for part in found)
    return f"{value:.0f} ({low:.0f}–{high:.0f})"


class Probes:
    """Logistic probes: the teacher's words learnt from the training data, certain ones from scores.

    Args:
        folder: What `musilingo build-data starter` wrote; None for no probes of its words.
        scores: Rendered scores of the training split.
        teacher: Labels the training data.
    """

    def __init__(self, folder: Path | None, scores: Sequence[Case], teacher: Teacher) -> None:
        self.known = {
            "certain": [(case.clip.features.mean(0), case.facts, case.track) for case in scores],
            "teacher": [],
        }
        self._made: dict[tuple[str, Callable[[Facts], str]], Any] = {}
        files = FeatureFiles()
        examples = read_manifest(folder / "manifest.jsonl", "train") if folder else ()
        clips = list({e.clip: None for e in examples if e.source in {"real", "made"}})
        for clip in clips[:LESSONS]:  # they are drawn at random, so any are as good
            features = files.get(clip).features
            self.known["teacher"].append((features.mean(0), teacher.facts(features), clip))

    def of(self, truth: str, attribute: Attribute) -> Any:
        """The probe for an attribute; documented words are the teacher's."""
        # No score is sung, so the teacher must show the probe what a singer is.
        certain = truth == "certain" and attribute is not SINGER
        if attribute is KIND:
            return None
        key = ("certain" if certain else "teacher", attribute.truth)
        if key not in self._made:
            lessons = [(mean, attribute.truth(f), work) for mean, f, work in self.known[key[0]]]
            self._made[key] = train_probe([lesson for lesson in lessons if lesson[1]])
        return self._made[key]


def fluency(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many answers there are, different ones, and flawed ones: in all, and by question."""
    asked: dict[str, list[tuple[str, bool, bool]]] = {}
    for row in rows:
        found = (row["answer"], runs_on(row["answer"], row["finished"]), repeats(row["answer"]))
        for name in ("all", row["question"]):
            asked.setdefault(name, []).append(found)
    return {
        name: {
            "answers": len(found),
            "different": len({answer for answer, _, _ in found}),
            "running_on": sum(on for _, on, _ in found),
            "repeating": sum(again for _, _, again in found),
            "flawed": sum(on or again for _, on, again in found),
        }
        for name, found in asked.items()
    }


def runs_on(answer: str, finished: bool) -> bool:
    """Whether an answer did not end by itself, or goes on after a line or with a question."""
    return not finished or "\n" in answer.strip() or "?" in answer


def repeats(answer: str) -> bool:
    """Whether a word is doubled, also across "and" or a stop, or four words in a row recur."""
    words = re.findall(r"[\w'’-]+", answer.lower())
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    doubled = re.search(r"\b([^\W\d][\w'’-]*)[\s,.;:!]+(?:and\s+)?\1\b", answer, re.I)
    return bool(doubled) or len(set(runs)) < len(runs)


def fluency_table(found: dict[str, dict[str, int]]) -> str:
    """How fluent answers are, in Markdown."""
    lines = [
        "| question | answers | different | run on | repeat themselves | either, % |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, counts in found.items():
        *shown, flawed = counts.values()
        cells = " | ".join(map(str, shown))
        lines.append(f"| {name} | {cells} | {100 * flawed / counts['answers']:.1f} |")
    return "\n".join(lines) + "\n"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table, per cent: a line for each thing asked, three columns for each length."""
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    names = [name if name == "whole" else f"{name} s" for name in lengths]
    head = "".join(f" {name} (95 %; tracks) | wrong | noise | none | probe |" for name in names)
    lines = [
        f"| truth | asked | classes (constant) |{head}",
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
    return f"{shown} ({100 * row['constant']:.0f})"


def _cells(row: dict[str, Any] | None) -> str:
    if row is None:
        return " | | | | |"
    beside = (row[name] for name in ("wrong", "noise", "deaf", "probe"))
    cells = "".join(" |" if value is None else f" {100 * value:.0f} |" for value in beside)
    low, high = row["interval"]
    shown = f"**{100 * row['balanced_accuracy']:.0f}** ({100 * low:.0f}–{100 * high:.0f}; "
    return f" {shown}{row['tracks']}) |{cells}"


if __name__ == "__main__":
    main()
