"""Questions about sounds of which everything is known, and answers that are exact.

Rendered scores (manifests of `benchmarks/scores.py`) and clips without music (those of
`benchmarks/not_music.py`) become single questions. A model cannot learn to hear what its encoder
does not pass on, only to guess: attributes that `Recipe.heard` leaves out are answered with “I
cannot tell”. Which ones it may name, `benchmarks/probe.py` measures with the labels made here.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from musilingo_core.data import dialogues
from musilingo_core.data.dialogues import NAMES, NOT_MUSIC, TEMPI, Scene, Turn, joined
from musilingo_core.data.facts import Facts
from musilingo_core.data.manifest import read_sounds
from musilingo_core.data.published import NO_SOUND, Collection, Report
from musilingo_core.errors import ConfigError
from musilingo_core.prompt import listed
from musilingo_core.times import AROUND_S, clock

GROUPS = {
    "piano": "keyboard instruments",
    "harpsichord": "keyboard instruments",
    "organ": "keyboard instruments",
    "guitar": "plucked strings",
    "harp": "plucked strings",
    "strings": "bowed strings",
    "flute": "woodwinds",
    "brass": "brass instruments",
    "bells": "percussion",
    "choir": "voices",
    "synth": "electronic instruments",
}
PACES = {"slow": "slow", "medium": "moderate", "fast": "fast"}  # the renderer's words to ours
LOUDNESS = {"soft": "soft", "medium": "neither loud nor soft", "loud": "loud"}
DIVIDED = {"simple": "two", "compound": "three"}
CHANGING = {"lead": "lead instrument", "tempo": "tempo", "dynamics": "loudness"}


@dataclass(frozen=True)
class Attribute:
    """Something that is known of a rendered clip.

    Attributes:
        unknown: Completes “I cannot tell … from the sound.”
        sentence: The answer for a label.
        asked: Ways to ask, or a topic of `dialogues.questions`.
        silent: Why a clip may have no label.
    """

    unknown: str
    sentence: Callable[[str], str]
    asked: str | tuple[str, ...]
    silent: str = "the list does not say"

    @property
    def questions(self) -> tuple[str, ...]:
        """Ways to ask."""
        return dialogues.questions(self.asked) if isinstance(self.asked, str) else self.asked

    @property
    def no_answer(self) -> str:
        """What to say when it cannot be heard."""
        return f"I cannot tell {self.unknown} from the sound."


def _as_in(topic: str, facts: Callable[[str], Facts]) -> Callable[[str], str]:
    """The sentence in which the starter's dialogues say a fact."""

    def sentence(label: str) -> str:
        turn = dialogues.ask(topic, _scene(facts(label)), Random(0))
        assert turn is not None
        return turn[1]

    return sentence


def _scene(facts: Facts) -> Scene:
    return Scene(facts, 0.0, lambda start_s, end_s: facts)


def _accompanied(label: str) -> str:
    if label == "none":
        return "No other instrument accompanies it."
    return f"It is accompanied by {NAMES[label]}."


_AMBIGUOUS = "the key is ambiguous or the list does not say"
ATTRIBUTES = {
    "lead": Attribute(
        "the lead instrument", _as_in("lead", lambda label: Facts(instruments=(label,))), "lead"
    ),
    "second": Attribute(
        "what accompanies it",
        _accompanied,
        (
            "What accompanies the lead instrument?",
            "Which instrument accompanies the melody?",
            "What plays the accompaniment?",
            "Does another instrument accompany it?",
        ),
        "drums alone accompany it",
    ),
    "family": Attribute(
        "the family of instruments",
        lambda label: f"The lead instrument belongs to the {label}.",
        (
            "What family of instruments leads?",
            "Which family does the lead instrument belong to?",
            "What kind of instrument plays the melody?",
        ),
    ),
    "tempo": Attribute(
        "how fast it is", _as_in("tempo", lambda label: Facts(tempo=label)), "tempo"
    ),
    "bpm": Attribute(
        "the exact tempo", lambda label: f"It has {label} beats per minute.", "exact tempo"
    ),
    "key": Attribute(
        "the key",
        lambda label: f"It is in {label}.",
        (
            "What key is it in?",
            "Which key is this song in?",
            "What is the key of this piece?",
            "What is the key?",
        ),
        _AMBIGUOUS,
    ),
    "mode": Attribute(
        "whether it is major or minor",
        lambda label: f"It is in a {label} key.",
        (
            "Is it major or minor?",
            "Is this in a major or a minor key?",
            "Is the mode major or minor?",
        ),
        _AMBIGUOUS,
    ),
    "metre": Attribute(
        "the metre",
        lambda label: f"It is in {label} time.",
        (
            "Is it in duple or triple time?",
            "What is the metre?",
            "Do the beats come in twos or threes?",
            "What time is it in?",
        ),
    ),
    "division": Attribute(
        "how the beats divide",
        lambda label: f"It is {label}: each beat divides into {DIVIDED[label]}.",
        (
            "Is the metre simple or compound?",
            "Does each beat divide into two or three?",
            "Are the beats divided in two or in three?",
        ),
    ),
    "dynamics": Attribute(
        "how loud it is",
        _as_in("loud", lambda label: Facts(loudness=LOUDNESS[label])),
        "loud",
    ),
    "drums": Attribute(
        "whether there are drums",
        _as_in("drums", lambda label: Facts(drums=label)),
        # Not those of the dialogues, which also ask for percussion: bells are percussion.
        (
            "Are there drums?",
            "Do you hear drums?",
            "Can you hear a drum kit?",
            "Is anyone playing drums?",
            "With drums or without?",
        ),
    ),
    "singer": Attribute(
        "whether anyone sings", _as_in("singer", lambda label: Facts(voice=label)), "singer"
    ),
    "change": Attribute(
        "what changes",
        lambda _: "The lead instrument, the tempo and the loudness stay the same.",
        (
            "Does the instrument, the tempo or the loudness change?",
            "What changes, and when?",
            "When does the music change, and how?",
            "Is there a change of instrument, tempo or loudness?",
        ),
    ),
}
AT_MOMENT = {
    "lead": ("Which instrument plays {}?", "What do you hear {}?", "What is played {}?"),
    "tempo": ("Is it slow or fast {}?", "How fast is it {}?"),
    "dynamics": ("Is it loud or soft {}?", "How loud is it {}?"),
}
# The words of options by label, where there are few.
CHOICES = {
    "lead": NAMES,
    "family": {group: group for group in GROUPS.values()},
    "tempo": TEMPI,
    "mode": {"major": "major", "minor": "minor"},
    "metre": {"duple": "duple", "triple": "triple"},
    "division": {"simple": "simple", "compound": "compound"},
    "dynamics": LOUDNESS,
}
TOPICS = (*ATTRIBUTES, "instruments", "presence", "moment", "choice")
MANY = "it changes within the clip"  # stands for a label


@dataclass(frozen=True)
class Stretch:
    """A part of a clip, mostly all of it, with what is certain there.

    Attributes:
        start_s: Where it begins, seconds.
        end_s: Where it ends.
        labels: A word for each of `ATTRIBUTES` but `change`; empty where nothing is certain.
    """

    start_s: float
    end_s: float
    labels: dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """How to ask.

    Attributes:
        heard: Attributes whose answers may be named; about the others the answer cannot tell.
        questions: Most of them about one clip.
        validation: Share of the training works that are held out.
        seed: Of everything drawn.
    """

    heard: frozenset[str]
    questions: int = 6
    validation: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted(self.heard - set(ATTRIBUTES)):
            known = ", ".join(ATTRIBUTES)
            raise ConfigError(f"“{unknown[0]}” is not known of any clip; choose from {known}.")
        if not 1 <= self.questions <= len(TOPICS):
            raise ConfigError(
                f"Ask 1 to {len(TOPICS)} questions about a clip, not {self.questions}."
            )


def read_heard(words: Sequence[str]) -> frozenset[str]:
    """Attributes that may be named: their names, or those in files of `benchmarks/probe.py`.

    Args:
        words: Names of attributes, `all`, or paths that end in `.json`.

    Raises:
        ConfigError: A file is not the probe's.
    """
    names: set[str] = set()
    for word in words:
        if not word.endswith(".json"):
            names |= set(ATTRIBUTES) if word == "all" else {word}
            continue
        try:
            names |= set(json.loads(Path(word).read_text(encoding="utf-8"))["heard"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{word} does not say what is heard; please give a probe.json of benchmarks.probe."
            ) from error
    return frozenset(names)


def labels(row: dict[str, Any]) -> dict[str, str]:
    """What a row of a list of rendered scores says, in one word for each attribute."""
    family, drums, key = row.get("family", ""), row.get("drums"), row.get("key") or ""
    second = row.get("second") or ("" if drums else "none")
    return {
        "lead": family if family in NAMES else "",
        "second": second if second in NAMES or second == "none" else "",
        "family": GROUPS.get(family, ""),
        "tempo": PACES.get(row.get("tempo", ""), ""),
        "bpm": str(row.get("bpm") or ""),
        "key": key,
        "mode": key.rpartition(" ")[2],
        "metre": row.get("grouping") or "",
        "division": row.get("division") or "",
        "dynamics": row.get("dynamics") or "",
        "drums": "" if drums is None else "yes" if drums else "no",
        "singer": ("choir" if "choir" in (family, second) else "none") if family else "",
    }


def stretches(row: dict[str, Any]) -> list[Stretch]:
    """The sections of a rendered clip; one where nothing changes."""
    duration_s = float(row.get("duration_s", 0))
    return [
        Stretch(part.get("start_s", 0.0), part.get("end_s", duration_s), labels(row | part))
        for part in row.get("sections") or [{}]
    ]


def throughout(parts: Sequence[Stretch]) -> dict[str, str]:
    """Labels that hold for the whole clip, `MANY` where they differ, and what changes.

    `change` is `none`, or the name of what changes.
    """
    first = parts[0].labels
    whole = {
        name: label if all(part.labels[name] == label for part in parts) else MANY
        for name, label in first.items()
    }
    return whole | {"change": next((name for name in CHANGING if whole[name] == MANY), "none")}


def ask(
    parts: Sequence[Stretch], recipe: Recipe, rng: Random, skipped: Counter[str]
) -> Iterator[tuple[str, Turn]]:
    """Draws questions about one rendered clip, each of another topic.

    Args:
        parts: What is certain.
        recipe: How many, and which attributes may be named.
        rng: Draws topics and words.
        skipped: Told why a drawn topic is left out.

    Yields:
        Topic, and the question with its answer.
    """
    whole = throughout(parts)
    asked = 0
    for topic in rng.sample(TOPICS, len(TOPICS)):
        if asked == recipe.questions:
            return
        turn = _turn(topic, parts, whole, recipe.heard, rng)
        if isinstance(turn, str):
            skipped[f"{topic}: {turn}"] += 1
        else:
            asked += 1
            yield topic, turn


def _turn(
    topic: str,
    parts: Sequence[Stretch],
    whole: dict[str, str],
    heard: frozenset[str],
    rng: Random,
) -> Turn | str:
    """A question with its answer, or the reason why there is none."""
    if topic == "moment":
        return _moment(parts, heard, rng)
    if topic == "choice":
        return _choice(whole, heard, rng)
    if topic in ("instruments", "presence"):
        return _played(topic, whole, heard, rng)
    attribute = ATTRIBUTES[topic]
    if topic not in heard:
        return rng.choice(attribute.questions), attribute.no_answer
    label = whole[topic]
    if topic == "change" and label != "none":
        question = rng.choice(attribute.questions)
        return question, _changes(label, parts) if label in heard else attribute.no_answer
    if label in ("", MANY):
        return label or attribute.silent
    return rng.choice(attribute.questions), attribute.sentence(label)


def _choice(whole: dict[str, str], heard: frozenset[str], rng: Random) -> Turn | str:
    """A question with two to five options, one of them right."""
    names = [name for name in CHOICES if name in heard and whole[name] not in ("", MANY)]
    if not names:
        return "nothing that may be named is certain"
    name = rng.choice(names)
    truth, words = whole[name], CHOICES[name]
    wrong = [word for label, word in words.items() if label not in (truth, whole["second"])]
    options = [words[truth], *rng.sample(wrong, min(rng.choice([1, 2, 3, 3, 4]), len(wrong)))]
    rng.shuffle(options)
    return rng.choice(ATTRIBUTES[name].questions) + listed(options), words[truth]


def _changes(name: str, parts: Sequence[Stretch]) -> str:
    """What changes from one stretch to the next, and when."""
    words = [NAMES.get(part.labels[name], part.labels[name]) for part in parts]
    at = clock(round(parts[1].start_s))
    return f"At {at} the {CHANGING[name]} changes from {words[0]} to {words[1]}."


def _played(topic: str, whole: dict[str, str], heard: frozenset[str], rng: Random) -> Turn | str:
    """About all instruments, or whether there is a certain one."""
    lead, second = whole["lead"], whole["second"]
    if "lead" not in heard:
        if topic == "presence":
            name = rng.choice(list(NAMES.values()))
            question = rng.choice(dialogues.questions("has")).format(name)
            return question, f"I cannot tell whether there is {name}."
        question = rng.choice(dialogues.questions("instruments"))
        return question, "I cannot tell the instruments from the sound."
    if lead in ("", MANY):
        return MANY if lead else ATTRIBUTES["lead"].silent
    pair = (lead, second) if second in NAMES else (lead,)
    told = "second" in heard or len(pair) == 1
    if topic == "presence":
        if not told:
            return "the second instrument is not heard"
        absent = tuple(name for name in NAMES if name not in pair)
        facts = Facts(instruments=pair, absent=absent)
        return dialogues.ask("has instrument", _scene(facts), rng) or "no instrument is absent"
    question = rng.choice(dialogues.questions("instruments"))
    if not told:
        rest = ATTRIBUTES["second"].no_answer
        return question, f"The lead instrument is {NAMES[lead]}; {rest}"
    drums = ["drums"] if whole["drums"] == "yes" and "drums" in heard else []
    return question, f"I hear {joined([*(NAMES[name] for name in pair), *drums])}."


def _moment(parts: Sequence[Stretch], heard: frozenset[str], rng: Random) -> Turn | str:
    """About a moment, with what is heard around it all in one stretch."""
    part = rng.choice(parts)
    start_s = part.start_s + (AROUND_S if part is not parts[0] else 0)
    end_s = part.end_s - (AROUND_S if part is not parts[-1] else 1)
    if end_s - start_s < 1:
        return "the stretch is too short"
    at = rng.randint(int(start_s + 1), int(end_s))
    name = rng.choice(list(AT_MOMENT))
    question = rng.choice(AT_MOMENT[name]).format(f"at {clock(at)}")
    if name not in heard:
        return question, ATTRIBUTES[name].no_answer
    if not part.labels[name]:
        return ATTRIBUTES[name].silent
    if name == "lead":
        return question, f"At {clock(at)} the lead instrument is {NAMES[part.labels[name]]}."
    answer = ATTRIBUTES[name].sentence(part.labels[name])
    return question, f"At {clock(at)} {answer[0].lower()}{answer[1:]}"


def build(
    rendered: Sequence[str | Path],
    not_music: Sequence[str | Path],
    folder: str | Path,
    recipe: Recipe,
) -> Report:
    """Writes `manifest.jsonl` and `skipped.jsonl`: one question an example, clips as sound files.

    An example's source is `certain/TOPIC`, or `certain/KIND` for what is no music; its track is the
    work. The questions about a clip depend on the seed and its file alone, not on the other clips.

    Args:
        rendered: Lists of rendered scores; those of older versions may say less.
        not_music: Lists whose rows have `path` and `kind` (`noise`, `speech`, `silence`).
        folder: Where to.
        recipe: How to ask.

    Raises:
        ManifestError: A list cannot be read, or a work is in two splits.
    """
    collection = Collection("scores", None, recipe.validation)
    for path in rendered:
        for row in read_sounds(path, "score"):
            _add_score(collection, row, recipe)
    for path in not_music:
        for row in read_sounds(path, "kind"):
            _add_other(collection, row, recipe)
    return collection.write(folder)


def _add_score(collection: Collection, row: dict[str, Any], recipe: Recipe) -> None:
    place, work, split = row["path"], row.get("work") or row["score"], row.get("split", "train")
    if not Path(place).is_file():
        collection.skip(place, NO_SOUND)
        return
    rng, left_out = Random(f"{recipe.seed} {row['score']} {Path(place).name}"), Counter[str]()
    for topic, turn in ask(stretches(row), recipe, rng, left_out):
        collection.keep(place, work, turn, split, f"certain/{topic}")
    for reason in left_out:
        collection.skip(place, reason)


def _add_other(collection: Collection, row: dict[str, Any], recipe: Recipe) -> None:
    place, kind, split = row["path"], row["kind"], row.get("split", "train")
    reason = "" if Path(place).is_file() else NO_SOUND
    if kind not in NOT_MUSIC:
        reason = f"“{kind}” is no kind of sound known here"
    if reason:
        collection.skip(place, reason)
        return
    folder, name = Path(place).parts[-2:]
    scene, rng = _scene(Facts(kind=kind)), Random(f"{recipe.seed} {name}")
    for turn in dialogues.write(scene, rng, recipe.questions, follow_ups=False):
        collection.keep(place, f"{folder}/{name}", turn, split, f"certain/{kind}")
