"""Asks a model about clips and scores what it says, beside what it would say of other music.

Everything is asked through `ChatEngine`, as the page does. Each figure stands beside its controls:
the same questions with a wrong song, with noise, and with no music at all. What does not fall there
was not heard. (A caption has no question; without music alone it is asked for, by “Describe the
music.”.) Predictions are kept, and a run that was cut off goes on where it was.
"""

import hashlib
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import numpy as np
import soundfile
from torch import Tensor

from musilingo_core.data.choices import Choice, read_choices
from musilingo_core.data.manifest import Example, FeatureFiles, kept_rows, read_manifest
from musilingo_core.data.published import write_skipped
from musilingo_core.engine import ChatEngine, Said
from musilingo_core.errors import AudioError, ConfigError, ManifestError
from musilingo_core.features import ID_DIGITS, Clip, FeatureCache, clip_id
from musilingo_core.metrics import Bert, bootstrap, score_all
from musilingo_core.prompt import Message, assistant, user, with_options
from musilingo_core.sampling import Sampling

RIGHT, WRONG, NOISE, NONE = "right song", "wrong song", "noise", "no music"
CONTROLS = (RIGHT, WRONG, NOISE, NONE)
MATCHED = "matched"
# How everything that is measured is asked: the page's answers without its dice, as long as there.
GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=200)
NOISE_S = 60.0  # length of the noise: questions may name moments
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOGETHER = 8  # open questions asked in one batch; the options of one question are a batch anyway
Status = Callable[[str, float | None], None]
Key = tuple[int, str, str]  # a question's number, what is heard, how it is asked
Row = dict[str, Any]
C = TypeVar("C")


@dataclass(frozen=True)
class Figure:
    """One cell of a table of results.

    Attributes:
        data: What was asked about.
        metric: What was measured, such as `accuracy` or `proper ROUGE-L F1`.
        control: What was heard; one of `CONTROLS`, or empty where that is part of the metric.
        value: From 0 to 1; None where it could not be computed.
        low, high: 95 % interval, a bootstrap over tracks.
        chance: What a guess among the options is worth; None where there are none.
        examples: How many.
        tracks: Of so many tracks.
        missing: Why there is no value.
    """

    data: str
    metric: str
    control: str
    value: float | None
    low: float | None
    high: float | None
    examples: int
    tracks: int
    chance: float | None = None
    missing: str = ""


@dataclass(frozen=True)
class Question:
    """Something to ask a model, and what would be right.

    Attributes:
        data: For the table.
        clip: Where the music is.
        track: Clips of one track are alike.
        turns: Questions in order.
        references: Right answers to them; of a question with options, the right option.
        options: Empty for an open question.
        topics: For figures of their own.
    """

    data: str
    clip: str
    track: str
    turns: tuple[str, ...]
    references: tuple[str, ...]
    options: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()


def evaluate(
    engine: ChatEngine,
    data: str | Path,
    folder: str | Path,
    split: str = "test",
    sounds: str | Path | None = None,
    controls: Sequence[str] = CONTROLS,
    limit: int | None = None,
    generate: bool = False,
    sampling: Sampling = GREEDY,
    bert: Bert = Bert(),
    seed: int = 0,
    command: str = "",
    on_status: Status = lambda text, fraction: None,
) -> list[Figure]:
    """Asks everything a file holds and writes `predictions.jsonl`, `scores.json` and `scores.md`.

    What cannot be heard is left out, listed in `skipped.jsonl` and counted below the scores.

    Args:
        engine: Answers.
        data: A manifest, a list of questions with options, or MuChoMusic as published.
        folder: Gets the files; the same again goes on where it was.
        split: Of a manifest.
        sounds: Folder of sound files, where the data names none.
        controls: Some of `CONTROLS`; the right song always.
        limit: Most questions, drawn at random.
        generate: Whether questions with options are also put as MuChoMusic's own script does, with
            the options in the prompt (but no example before them), and the answer read from what
            the model writes.
        sampling: Of open answers.
        bert: The model of BERTScore.
        seed: Of every draw.
        command: That started this, for the record.
        on_status: Told how far it is.

    Raises:
        ManifestError: The data is damaged, or holds nothing to ask.
        ConfigError: A control is unknown, or the folder holds another run.
    """
    if unknown := [name for name in controls if name not in CONTROLS]:
        raise ConfigError(f"There is no control “{unknown[0]}”; there is: {', '.join(CONTROLS)}.")
    questions, skipped = read_questions(data, split, sounds)
    if not questions:
        raise ManifestError(data, 0, f"holds nothing to ask (split “{split}”)")
    if limit is not None and limit < len(questions):
        questions = Random(seed).sample(questions, limit)
    clips = Clips(engine)
    questions, unheard = audible(questions, clips, on_status)
    left_out = [*skipped, *unheard]
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_skipped(left_out, folder)
    if not questions:
        raise ManifestError(data, 0, "holds nothing that can be heard; skipped.jsonl says why")
    run = {
        "model": engine.name,
        "digest": run_digest(engine, sampling),
        "data": hashlib.sha256(Path(data).read_bytes()).hexdigest()[:16],
        "music": music_digest(questions),
        "settings": [split, limit, generate, seed],
    }
    said = Predictions(Path(folder), run)
    kept = [name for name in CONTROLS if name in {RIGHT, *controls}]
    heard = controls_of(questions, kept, seed)
    asked = [(n, control) for control in kept for n in range(len(questions))]
    for start in range(0, len(asked), TOGETHER):
        part = asked[start : start + TOGETHER]
        on_status(f"Asking, {part[0][1]}", start / len(asked))
        for kind, ask in WAYS.items():
            cases = {
                (n, control, kind): (questions[n], heard[control][n])
                for n, control in part
                if kind in _ways(questions[n], generate)
            }
            said.get_all(cases, partial(ask, clips, sampling))
    figures = list(_figures(questions, said, kept, bert, seed))
    if WRONG in kept:
        figures += matched(clips, questions, said, seed)
    commits = ", ".join(dict.fromkeys(row["commit"] for row in said.rows.values()))
    reasons = Counter(row.get("error", row["reason"]) for row in left_out)
    record = {"command": command, "seed": seed, "commit": commits, "skipped": reasons, **run}
    write_figures(figures, record, folder)
    return figures


def read_questions(
    data: str | Path, split: str = "test", sounds: str | Path | None = None
) -> tuple[list[Question], list[dict[str, str]]]:
    """What a file asks, and what is left out with its reason.

    Raises:
        ManifestError: It is damaged.
        ConfigError: A folder of sound files is needed.
    """
    data = Path(data)
    first = ""
    if data.suffix not in {".csv", ".json"} and data.is_file():
        with data.open(encoding="utf-8") as file:
            first = file.readline()
    if data.suffix in {".csv", ".json"} or '"options"' in first:
        choices, skipped = read_choices(data, sounds)
        return [_of_choice(choice, data) for choice in choices], skipped
    return [_of_example(example, data) for example in read_manifest(data, split)], []


def _of_choice(choice: Choice, path: Path) -> Question:
    right = choice.options[choice.answer]
    data, track = choice.source or path.stem, choice.track or choice.clip
    asked = (choice.question,)
    return Question(data, choice.clip, track, asked, (right,), choice.options, choice.topics)


def _of_example(example: Example, path: Path) -> Question:
    asked, references = zip(*example.turns, strict=True)
    data, track = example.source or path.stem, example.track or example.clip
    return Question(data, example.clip, track, asked, references)


def audible(
    questions: Sequence[Question],
    clips: "Clips",
    on_status: Status = lambda text, fraction: None,
) -> tuple[list[Question], list[dict[str, str]]]:
    """Hears all sounds; gives the questions about those that can be used, and why others cannot.

    Raises:
        ManifestError: Features are missing, damaged or of another encoder.
    """
    places = list(dict.fromkeys(question.clip for question in questions))
    faults = {}
    for number, place in enumerate(places):
        on_status("Hearing", number / len(places))
        try:
            clips.get(place)
        except AudioError as error:
            faults[place] = error
    kept = [question for question in questions if question.clip not in faults]
    return kept, [
        {"id": place, "error": type(fault).__name__, "reason": str(fault)}
        for place, fault in faults.items()
    ]


Case = tuple[Question, str | None]  # a question, and the place of what is heard


class Clips:
    """Clips by their place, for an engine of the same model whose cache is nobody else's.

    Args:
        engine: Whose model to ask.
    """

    def __init__(self, engine: ChatEngine) -> None:
        self._own, self._files = engine, FeatureFiles()
        self.engine = ChatEngine(
            engine.model, engine.processor, engine.name, FeatureCache(), engine.limits,
            decoder=engine.decoder,
        )  # fmt: skip

    def get(self, place: str) -> str:
        """The id of the clip at a place, which the engine now knows.

        Raises:
            ManifestError: There are no such features, or they are of another encoder.
            AudioError: The sound file cannot be used.
        """
        if FeatureFiles.is_features(place):
            clip = self._files.get_of(place, self.engine.fingerprint)
            key = hashlib.sha256(place.encode()).hexdigest()[:ID_DIGITS]
            clip = replace(clip, clip_id=key)
        else:
            clip = self._own.encode(place)
        self.engine.cache.put(clip)
        return clip.clip_id

    def noise(self) -> str:
        """The id of a clip of white noise, the same always."""
        self.engine.cache.put(self._noise)
        return self._noise.clip_id

    @cache  # noqa: B019 – lives as long as the run
    def prior(self, question: str, options: tuple[str, ...]) -> Tensor:
        """(options,): what `choose` takes off, the same for whatever is heard."""
        asked = with_options([user(question)], options)
        return self.engine.log_likelihoods(asked, options)

    @cached_property
    def _noise(self) -> Clip:
        rate = self.engine.model.audio_tower.sample_rate
        samples = np.random.default_rng(0).normal(0, 0.1, int(NOISE_S * rate))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "noise.wav")
            soundfile.write(path, samples, rate)
            return self.engine.encode(path)


class Predictions:
    """What a model said, kept as it comes: `predictions.jsonl`, and `run.json` beside it.

    Each row has the commit that it was made at, for a run may go on at a later one.

    Args:
        folder: Where they are.
        run: What they depend on.

    Raises:
        ConfigError: The folder holds another run's.
    """

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "predictions.jsonl"
        about = folder / "run.json"
        text = json.dumps(run, indent=1) + "\n"
        if self._path.exists() and (not about.exists() or about.read_text("utf-8") != text):
            raise ConfigError(f"{folder} holds another run; please choose another folder.")
        about.write_text(text, encoding="utf-8")
        self._commit = commit()
        self.rows: dict[Key, Row] = {}
        for row in kept_rows(self._path):
            self.rows[row["number"], row["control"], row["kind"]] = row

    def get_all(self, cases: dict[Key, C], ask: Callable[[Sequence[C]], list[Row]]) -> list[Row]:
        """What was said in each case; asked now, all at once, where it was not yet.

        Args:
            cases: By question's number, control and kind of asking.
            ask: Gives a row for each case.
        """
        new = [key for key in cases if key not in self.rows]
        for key, row in zip(new, ask([cases[key] for key in new]) if new else [], strict=True):
            number, control, kind = key
            about = {"number": number, "control": control, "kind": kind, "commit": self._commit}
            self.rows[key] = about | row
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.rows[key], ensure_ascii=False) + "\n")
        return [self.rows[key] for key in cases]


def controls_of(
    questions: Sequence[Question], controls: Sequence[str], seed: int = 0
) -> dict[str, list[str | None]]:
    """For each control the place of what is heard at each question; None for nothing."""
    places: dict[str, list[str | None]] = {
        RIGHT: [question.clip for question in questions],
        NOISE: [NOISE] * len(questions),
        NONE: [None] * len(questions),
    }
    if WRONG in controls:
        places[WRONG] = [questions[n].clip for n, _ in partners(questions, seed)]
    return {control: places[control] for control in controls}


def partners(questions: Sequence[Question], seed: int = 0) -> list[tuple[int, bool]]:
    """For each question another one, of another track, whose right answers are others.

    Where one asks the same, in the same words or else of the same topics, it is taken: its song
    answers the question otherwise. Of open questions any other text counts as another answer; where
    it only says the same in other words, the wrong song is as good as the right one.

    Returns:
        The number of the other, and whether it asks the same: if not, its song may have the same
        answer.

    Raises:
        ConfigError: There is none.
    """
    numbers: dict[tuple[str, ...], list[int]] = {}
    for number, question in enumerate(questions):
        for name in {("words", *question.turns), ("topics", *question.topics), ()}:
            numbers.setdefault(name, []).append(number)
    found = []
    for number, question in enumerate(questions):
        topics = [("topics", *question.topics)] if question.topics else []
        for name in [("words", *question.turns), *topics, ()]:
            others = [
                n
                for n in numbers[name]
                if questions[n].track != question.track
                and questions[n].references != question.references
            ]
            if others:
                found.append((Random(f"{seed}-{number}").choice(others), name != ()))
                break
        else:
            raise ConfigError(
                "For the wrong song there must be another track with another answer, and there is "
                f"none for “{question.turns[0]}” ({question.clip})."
            )
    return found


def _ways(question: Question, generate: bool) -> list[str]:
    """How a question is asked; some of `WAYS`."""
    if not question.options:
        return ["answer"]
    return ["choice", *(["letter"] if generate else [])]


def _heard(clips: Clips, place: str | None) -> str | None:
    if place is None:
        return None
    return clips.noise() if place == NOISE else clips.get(place)


def talk(
    engine: ChatEngine,
    asked: Sequence[Sequence[str | None]],
    clips: Sequence[str | None],
    sampling: Sampling = GREEDY,
) -> list[list[Said]]:
    """The answers of some conversations side by side, each with the model's own before it.

    Args:
        engine: Answers.
        asked: The questions of each.
        clips: The clip of each, by id.
        sampling: As for `ChatEngine.reply`.
    """
    talks: list[list[Message]] = [[] for _ in asked]
    told: list[list[Said]] = [[] for _ in asked]
    for turn in range(max(map(len, asked))):
        going = [n for n, texts in enumerate(asked) if turn < len(texts)]
        for n in going:
            talks[n].append(user(asked[n][turn], None if turn else clips[n]))
        answers = engine.replies([talks[n] for n in going], sampling)
        for n, answer in zip(going, answers, strict=True):
            talks[n].append(assistant(answer.text))
            told[n].append(answer)
    return told


def _answer(clips: Clips, sampling: Sampling, cases: Sequence[Case]) -> list[Row]:
    """Open answers to all turns."""
    heard = [_heard(clips, place) for _, place in cases]
    # Without music, a caption has nothing at all to go by.
    asked = [
        [text or (None if clip else "Describe the music.") for text in question.turns]
        for (question, _), clip in zip(cases, heard, strict=True)
    ]
    told = talk(clips.engine, asked, heard, sampling)
    return [
        {
            "heard": place,
            "questions": question.turns,
            "references": question.references,
            "predictions": [said.text for said in answers],
            "finished": [said.finished for said in answers],
        }
        for (question, place), answers in zip(cases, told, strict=True)
    ]


def _choose(clips: Clips, _: Sampling, cases: Sequence[Case]) -> list[Row]:
    """The likeliest options; of equally likely ones the first."""
    rows = []
    for question, place in cases:
        messages = [user(question.turns[0], _heard(clips, place))]
        prior = clips.prior(question.turns[0], question.options)
        probabilities = clips.engine.choose(messages, question.options, prior=prior)
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        row = {
            "heard": place,
            "question": question.turns[0],
            "options": question.options,
            "probabilities": [round(p, 5) for p in probabilities],
            "reference": question.references[0],
            "prediction": question.options[best],
        }
        rows.append(row)
    return rows


def _letter(clips: Clips, sampling: Sampling, cases: Sequence[Case]) -> list[Row]:
    """As MuChoMusic's own scripts ask and read; empty where no option can be read."""
    talks = []
    for question, place in cases:
        listed = " ".join(f"({LETTERS[i]}) {option}" for i, option in enumerate(question.options))
        text = f"Question: {question.turns[0]}\n Options: {listed} \n The correct answer is: "
        talks.append([user(text, _heard(clips, place))])
    return [
        {
            "heard": place,
            "question": question.turns[0],
            "reference": question.references[0],
            "written": written.text,
            "prediction": read_option(written.text, question.options),
        }
        for (question, place), written in zip(
            cases, clips.engine.replies(talks, sampling), strict=True
        )
    ]


# How questions are asked, by the name that rows have.
WAYS = {"answer": _answer, "choice": _choose, "letter": _letter}


def read_option(written: str, options: Sequence[str]) -> str:
    """The option that an answer means, by MuChoMusic's rule (its `extract_responses`).

    That is the only capital letter of an option's in it, else the first option whose words it has,
    else nothing.
    """
    written = written.rpartition("The correct answer is:")[2].strip()
    letters = {letter for letter in LETTERS[: len(options)] if letter in written}
    if len(letters) == 1:
        return options[LETTERS.index(letters.pop())]
    return next((o for o in options if o.lower().strip() in written.lower()), "")


def _figures(
    questions: Sequence[Question],
    said: Predictions,
    controls: Sequence[str],
    bert: Bert,
    seed: int,
) -> Iterator[Figure]:
    """All scores: by data, metric and control."""
    for data in dict.fromkeys(question.data for question in questions):
        numbers = [n for n, question in enumerate(questions) if question.data == data]
        closed = [n for n in numbers if questions[n].options]
        opened = [n for n in numbers if not questions[n].options]
        for control in controls:
            for kind, metric in (("choice", "accuracy"), ("letter", "accuracy, published prompt")):
                rows = [n for n in closed if (n, control, kind) in said.rows]
                yield from _accuracies(data, metric, control, kind, questions, rows, said, seed)
            if opened:
                yield from _texts(data, control, questions, opened, said, bert, seed)


def _accuracies(
    data: str,
    metric: str,
    control: str,
    kind: str,
    questions: Sequence[Question],
    numbers: Sequence[int],
    said: Predictions,
    seed: int,
) -> Iterator[Figure]:
    """The share chosen right, of all and of each topic."""
    topics = sorted({topic for n in numbers for topic in questions[n].topics})
    for topic in ["", *(topics if len(topics) > 1 else [])]:
        part = [n for n in numbers if not topic or topic in questions[n].topics]
        if not part:
            continue
        rows = [said.rows[n, control, kind] for n in part]
        hits = [float(row["prediction"] == row["reference"]) for row in rows]
        tracks = [questions[n].track for n in part]
        name = f"{metric}, {topic}" if topic else metric
        chance = float(np.mean([1 / len(questions[n].options) for n in part]))
        yield _figure(data, name, control, hits, tracks, seed, chance)
        if kind == "letter" and not topic:
            read = [float(bool(row["prediction"])) for row in rows]
            yield _figure(
                data, "an option was named, published prompt", control, read, tracks, seed
            )


def _texts(
    data: str,
    control: str,
    questions: Sequence[Question],
    numbers: Sequence[int],
    said: Predictions,
    bert: Bert,
    seed: int,
) -> Iterator[Figure]:
    """Text metrics of open answers; every turn is an example."""
    predictions: list[str] = []
    references: list[str] = []
    tracks: list[str] = []
    for n in numbers:
        row = said.rows[n, control, "answer"]
        predictions += row["predictions"]
        references += row["references"]
        tracks += [questions[n].track] * len(row["references"])
    for score in score_all(predictions, references, tracks, bert, seed=seed):
        yield Figure(
            data, f"{score.family} {score.name}", control, score.value, score.low, score.high,
            len(tracks), len(set(tracks)), missing=score.missing,
        )  # fmt: skip
    finished = [float(f) for n in numbers for f in said.rows[n, control, "answer"]["finished"]]
    yield _figure(data, "answers that end by themselves", control, finished, tracks, seed)


def matched(
    clips: Clips,
    questions: Sequence[Question],
    said: Predictions,
    seed: int,
) -> list[Figure]:
    """How often a reference is likelier under its own song than under one with another reference.

    Only where that one is asked the same, or its answer might be the same; how many are, is a
    figure of its own. Of an example with several turns, the first counts.
    """
    others = partners(questions, seed)
    figures = []
    for data in dict.fromkeys(question.data for question in questions):
        numbers = [n for n, question in enumerate(questions) if question.data == data]
        alike = [float(others[n][1]) for n in numbers]
        tracks = [questions[n].track for n in numbers]
        figures.append(_figure(data, "another song is asked the same", "", alike, tracks, seed))
        hits, tracks = [], []
        for n in numbers:
            other, same = others[n]
            if same:
                places = (questions[n].clip, questions[other].clip)
                case = {(n, "", MATCHED): (questions[n], places)}
                (row,) = said.get_all(case, partial(_likelihoods, clips))
                hits.append(float(row["right"] > row["wrong"]))
                tracks.append(questions[n].track)
        if hits:
            figures.append(_figure(data, MATCHED, "", hits, tracks, seed, 0.5))
    return figures


def _likelihoods(clips: Clips, cases: Sequence[tuple[Question, tuple[str, str]]]) -> list[Row]:
    """Mean log likelihoods of references under two songs each, options listed as `choose` does."""
    rows = []
    for question, places in cases:
        row: Row = {"heard": places}
        for name, place in zip(("right", "wrong"), places, strict=True):
            asked = [user(question.turns[0] or None, clips.get(place))]
            if question.options:
                asked = with_options(asked, question.options)
            (likelihood,) = clips.engine.log_likelihoods(asked, question.references[:1])
            row[name] = round(float(likelihood), 5)
        rows.append(row)
    return rows


def _figure(
    data: str,
    metric: str,
    control: str,
    values: Sequence[float],
    tracks: Sequence[str],
    seed: int,
    chance: float | None = None,
) -> Figure:
    low, high = bootstrap(values, tracks, seed=seed)
    mean = float(np.mean(values))
    return Figure(data, metric, control, mean, low, high, len(values), len(set(tracks)), chance)


def write_figures(figures: Sequence[Figure], record: dict[str, Any], folder: str | Path) -> None:
    """Writes `scores.json` (figures, and what made them) and `scores.md`."""
    folder = Path(folder)
    content = {**record, "figures": [asdict(figure) for figure in figures]}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (folder / "scores.json").write_text(text, encoding="utf-8")
    (folder / "scores.md").write_text(table([content]), encoding="utf-8")


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Runs' figures as one Markdown table, a row a metric, a column a control, in per cent.

    The commands that made them stand below it, by the numbers that rows have.

    Args:
        runs: The content of `scores.json` of each.
    """
    head = ["model", "data", "metric", *CONTROLS, "chance"]
    head += ["examples (tracks)", "seed", "commit", "command"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|" + "--:|" * 7 + "---|--:|"]
    commands = [*dict.fromkeys(run["command"] for run in runs if run["command"])]
    notes: dict[str, None] = {}
    for run in runs:
        rows: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for figure in run["figures"]:
            rows.setdefault((figure["data"], figure["metric"]), {})[figure["control"]] = figure
            if figure["missing"]:
                notes[f"{figure['metric']}: {figure['missing']}"] = None
        for reason, count in run["skipped"].items():
            data = run["figures"][0]["data"]
            notes[f"{run['model']}, {data}: {count} left out ({reason})."] = None
        for (data, metric), by_control in rows.items():
            cells = [_cell(by_control.get(control)) for control in CONTROLS]
            if "" in by_control:
                cells[0] = _cell(by_control[""])
            one = next(iter(by_control.values()))
            size = f"{one['examples']} ({one['tracks']})"
            chance = "" if one["chance"] is None else f"{100 * one['chance']:.0f}"
            made = str(commands.index(run["command"]) + 1) if run["command"] else ""
            about = [chance, size, str(run["seed"]), run["commit"], made]
            lines.append(f"| {' | '.join([run['model'], data, metric, *cells, *about])} |")
    numbered = [f"{number}. `{command}`" for number, command in enumerate(commands, start=1)]
    below = [part for part in (numbered, [f"- {note}" for note in notes]) if part]
    return "\n\n".join("\n".join(part) for part in (lines, *below)) + "\n"


def _cell(figure: dict[str, Any] | None) -> str:
    """A value with its interval; empty where there is none."""
    if figure is None or figure["value"] is None:
        return ""
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    return f"{value:.1f} ({low:.0f}–{high:.0f})"


def commit() -> str:
    """The commit this code is at, with a + where it was changed since; else its version."""
    from importlib.metadata import version

    git = ["git", "-C", str(Path(__file__).parent)]
    try:  # installed packages may lie in somebody else's repository
        for more in (
            ["ls-files", "--error-unmatch", __file__],
            ["describe", "--always", "--dirty=+"],
        ):
            done = subprocess.run([*git, *more], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return version("musilingo-chat")
    return done.stdout.strip()


def music_digest(questions: Sequence[Question]) -> str:
    """Tells the music that is asked about apart, by the bytes of its files."""
    files = {
        q.clip.partition("#")[0] if FeatureFiles.is_features(q.clip) else q.clip for q in questions
    }
    there = [file for file in sorted(files) if Path(file).is_file()]  # asking says what is not
    return hashlib.sha256("".join(clip_id(file, "") for file in there).encode()).hexdigest()[:16]


def run_digest(engine: ChatEngine, sampling: Sampling) -> str:
    """Tells runs apart that may answer otherwise: by weights, precision, prompt or sampling."""
    digest = hashlib.sha256(engine.fingerprint.encode())
    for name, value in engine.model.named_parameters():
        # All that was trained; of the rest a little of everything, for adapters may be merged in.
        part = value.detach() if "projector" in name else value.detach().flatten()[:1024]
        digest.update(f"{name} {value.dtype}".encode())
        digest.update(part.float().cpu().numpy().tobytes())
    if engine.decoder.packed:  # says nothing where it is not so: older runs may go on
        digest.update(b"packed")
    processor = engine.processor
    template = processor.chat_template or processor.tokenizer.chat_template
    digest.update(json.dumps([processor.settings(), template, asdict(sampling)]).encode())
    return digest.hexdigest()[:16]
